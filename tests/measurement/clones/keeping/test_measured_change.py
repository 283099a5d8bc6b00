import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._warnings import UndefinedWarning
from layerpeel.measurement.clones.keeping.measured_change import measure_change
from tests.measurement.clones.layers import normal


def consumers(width=5, outputs=3, seed=0):
    a, b = (normal(width, outputs, seed=seed + i) for i in range(2))
    return (lambda h: h @ a + 2), (lambda h: h @ (a + 0.1 * b) + 2.05)


def batches(h, y, size):
    return list(zip(h.split(size), y.split(size), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40))
def test_is_what_is_seen_sample_by_sample_whatever_the_batches(seed, outputs, size):
    h, y = normal(40, 5, seed=seed), torch.arange(40) % max(2, outputs)
    before, after = consumers(outputs=outputs, seed=seed)
    found = measure_change(batches(h, y, size), before, after)
    z, new = before(h).numpy(), after(h).numpy()
    moved = [math.sqrt(sum((b - a) ** 2)) for a, b in zip(z, new, strict=True)]
    rms = math.sqrt(np.mean(np.square(moved)))
    spread = np.square(z - z.mean(0)).sum(1).mean()
    decided = [
        [int(row[0] > 0) if outputs == 1 else int(row.argmax()) for row in rows]
        for rows in (z, new)
    ]
    assert found.count == 40
    assert found.rms == pytest.approx(rms, rel=1e-12)
    assert found.relative == pytest.approx(rms / math.sqrt(spread), rel=1e-10)
    assert found.largest == pytest.approx(max(moved), rel=1e-12)
    assert found.decisions == np.mean(np.array(decided[0]) != decided[1])
    assert found.error_before == np.mean(np.array(decided[0]) != y.numpy())
    assert found.error_after == np.mean(np.array(decided[1]) != y.numpy())


def test_outputs_far_from_the_origin_are_measured_about_their_mean():
    h, y = normal(400, 5), torch.zeros(400, dtype=torch.int64)
    before, after = consumers()
    plain = measure_change(batches(h, y, 64), before, after)
    far = measure_change(
        batches(h, y, 64), lambda x: before(x) + 1e8, lambda x: after(x) + 1e8
    )
    assert far.relative == pytest.approx(plain.relative, rel=1e-6)


def test_outputs_that_are_no_logits_decide_nothing():
    h, y = normal(20, 5), torch.zeros(20, dtype=torch.int64)
    found = measure_change(batches(h, y, 7), *consumers(), classifies=False)
    assert found.rms > 0
    unknown = found.decisions, found.error_before, found.error_after
    assert all(map(math.isnan, unknown))


def test_empty_batches_change_nothing():
    h, y = normal(20, 5), torch.arange(20) % 3
    nothing = [(h[:0], y[:0])]
    plain = measure_change([(h, y)], *consumers())
    assert measure_change([*nothing, (h, y), *nothing], *consumers()) == plain


def test_nothing_changes_where_nothing_is_changed():
    h, y = normal(20, 5), torch.arange(20) % 3
    before, _ = consumers()
    found = measure_change([(h, y)], before, before)
    assert (found.rms, found.relative, found.largest, found.decisions) == (0, 0, 0, 0)
    assert found.error_before == found.error_after


def test_a_change_relative_to_nothing_is_undefined():
    h, y = torch.ones(4, 5).double(), torch.zeros(4, dtype=torch.int64)
    with pytest.warns(UndefinedWarning, match="does not vary"):
        found = measure_change([(h, y)], *consumers())
    assert math.isnan(found.relative)
    assert found.rms > 0
