import pytest

from layerpeel.program import CrossEntropy


def test_plain_unless_classes_are_treated_differently():
    assert CrossEntropy().plain
    assert CrossEntropy(smoothing=0.2).plain
    assert not CrossEntropy(offset=[0.0, 1.0]).plain


def test_equal_by_value_and_usable_as_a_key():
    assert CrossEntropy(scale=[1, 2]) == CrossEntropy(scale=(1.0, 2.0))
    assert len({CrossEntropy(), CrossEntropy(), CrossEntropy(0.1)}) == 2


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"`smoothing` must lie in \[0, 1\)"):
        CrossEntropy(smoothing)


@pytest.mark.parametrize("name", ["scale", "margin"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_factors_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"`{name}\[1\]` must be a finite number"):
        CrossEntropy(**{name: [1.0, value]})


def test_offsets_must_be_finite():
    assert CrossEntropy(offset=[-3, 0]).offset == (-3.0, 0.0)
    with pytest.raises(ValueError, match="`offset` must hold finite numbers"):
        CrossEntropy(offset=[float("inf"), 0.0])
