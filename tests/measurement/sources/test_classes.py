import pytest

from layerpeel.geometry import ClassGroups
from layerpeel.measurement.sources.classes import (
    check_minority,
    grouped_classes,
    named_classes,
)


def test_names_are_given_or_indices():
    assert named_classes(None, 3) == ("0", "1", "2")
    assert named_classes(["a", "b"], 2) == ("a", "b")


def test_names_that_do_not_tell_classes_apart_are_refused():
    with pytest.raises(ValueError, match="one text, 'abc'"):
        named_classes("abc", 3)
    with pytest.raises(ValueError, match="apart; got cat twice"):
        named_classes(["cat", "dog", "cat"], 3)


@pytest.mark.parametrize("minority", [None, (), [0], [2, 1]])
def test_valid_minorities(minority):
    check_minority(minority, 3)


@pytest.mark.parametrize("minority", [[3], [-1], [0, 0], [0, 1, 2]])
def test_invalid_minorities(minority):
    with pytest.raises(ValueError, match=r"class indices in \[0, 3\)"):
        check_minority(minority, 3)


def test_groups():
    assert grouped_classes(None, [90, 100, 3, 0]) == ClassGroups((0, 1), (2,))
    assert grouped_classes([3, 0], [90, 100, 3, 0]) == ClassGroups((1, 2), (0, 3))
    assert grouped_classes([], [90, 100, 3, 0]) == ClassGroups((0, 1, 2), ())
