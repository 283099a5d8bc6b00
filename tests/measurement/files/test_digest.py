from dataclasses import replace

from layerpeel.measurement.files.digest import digest
from tests.measurement.files.values import VALUES


def test_a_digest_sees_every_part():
    digests = [digest(make()) for make in VALUES.values()]
    assert len(set(digests)) == len(digests)
    assert digests == [digest(make()) for make in VALUES.values()]


def test_a_digest_sees_every_bit():
    value = VALUES["moments"]()
    changed = value.mean.clone()
    changed[0, 0] *= 1 + 2**-52
    assert digest(replace(value, mean=changed)) != digest(value)
