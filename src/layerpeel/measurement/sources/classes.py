"""What the classes are called, and which of them are rare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerpeel._checks import listed
from layerpeel.geometry import ClassGroups, split_classes


def named_classes(
    class_names: Sequence[str] | None, num_classes: int
) -> tuple[str, ...]:
    """Return the names of the classes; their indices when there are none.

    Raises:
        ValueError: If it is one text, or two classes are called the same.
    """
    if isinstance(class_names, str):
        raise ValueError(
            "`class_names` must be a list with one name per class; got one text, "
            f"{class_names!r}."
        )
    twice = [n for n, count in Counter(class_names or ()).items() if count > 1]
    if twice:
        raise ValueError(
            f"`class_names` must tell the classes apart; got {listed(twice)} twice."
        )
    names = range(num_classes) if class_names is None else class_names
    return tuple(map(str, names))


def check_minority(minority: Sequence[int] | None, num_classes: int) -> None:
    """Check the indices of the minority classes.

    Raises:
        ValueError: If one is no index, is there twice, or none is left as majority.
    """
    indices = list(minority or ())
    valid = all(0 <= k < num_classes for k in indices)
    if valid and len(set(indices)) == len(indices) < num_classes:
        return
    raise ValueError(
        f"`minority` must be different class indices in [0, {num_classes}), and not "
        f"all of them; got {indices}. Leave it out to split classes by their counts."
    )


def grouped_classes(
    minority: Sequence[int] | None, class_counts: Sequence[int]
) -> ClassGroups:
    """Return the named minority and the rest, or split by counts.

    Args:
        minority: Valid indices of the minority classes. They may have no samples: their
            classifiers are there all the same.
        class_counts: The number of samples of each class, with length :math:`K`.

    Returns:
        The groups; classes outside the minority without samples are in neither.
    """
    if minority is None:
        return split_classes(class_counts)
    rest = (k for k, n in enumerate(class_counts) if n and k not in set(minority))
    return ClassGroups(tuple(rest), tuple(sorted(minority)))
