from dataclasses import dataclass

import pytest

from layerpeel.measurement.remembered import remembered


@dataclass(frozen=True)
class Pair:
    first: float
    second: float


class Counter:
    def __init__(self, value):
        self.value, self.calls = value, 0

    @remembered
    def get(self, choice="a", *, also="b"):
        self.calls += 1
        return self.value


def test_once_for_each_choice_and_instance():
    counter = Counter(1.0)
    for _ in range(2):
        assert counter.get() == counter.get("b") == counter.get(also="c") == 1.0
    assert counter.calls == 3
    assert Counter(2.0).get() == 2.0


@pytest.mark.parametrize("value", [float("nan"), Pair(1.0, float("nan"))])
def test_what_is_undefined_is_computed_anew(value):
    counter = Counter(value)
    counter.get(), counter.get()
    assert counter.calls == 2


def test_defined_results_are_kept():
    counter = Counter(Pair(1.0, 2.0))
    assert counter.get() is counter.get()
    assert counter.calls == 1
