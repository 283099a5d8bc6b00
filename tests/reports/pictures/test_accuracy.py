import matplotlib as mpl
import pytest
import torch

from layerpeel._checks import ShapeError
from layerpeel._figures import colour
from layerpeel.reports.pictures import class_accuracy

NAN = float("nan")


def double(values):
    return torch.tensor(values, dtype=torch.float64)


COUNTS = double([5, 500, 50, 500])
TRAIN, TEST = double([0.5, 1.0, 0.75, 0.9]), double([0.0, 0.875, NAN, 0.8])


def both():
    shown = {"training": TRAIN, "held out": TEST}
    return class_accuracy(shown, ["a", "b", "$c$", "d"], COUNTS, (0, 2))


def marks(ax, role, filled):
    """Positions of the marks of a role, as (accuracy, line)."""
    face = colour(role if filled else "surface")
    return sorted(
        tuple(point)
        for line in ax.lines
        if mpl.colors.to_hex(line.get_color()) == colour(role)
        and mpl.colors.to_hex(line.get_markerfacecolor()) == face
        for point in line.get_xydata().tolist()
    )


def test_the_most_frequent_class_is_on_top():
    (ax,) = both().axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "d", r"\$c\$", "a"]
    assert [t.get_text() for t in ax.texts] == ["500", "500", "50", "5"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_every_accuracy_stands_on_its_line():
    (ax,) = both().axes
    assert marks(ax, "majority", filled=False) == [(0.9, 1), (1.0, 0)]
    assert marks(ax, "majority", filled=True) == [(0.8, 1), (0.875, 0)]
    assert marks(ax, "minority", filled=False) == [(0.5, 3), (0.75, 2)]
    assert marks(ax, "minority", filled=True) == [(0.0, 3)]


def test_accuracies_of_a_class_are_joined():
    (ax,) = both().axes
    joined = [p.vertices.tolist() for c in ax.collections for p in c.get_paths()]
    assert [[0.8, 1], [0.9, 1]] in joined
    assert [[0.0, 3], [0.5, 3]] in joined


def crosses(ax):
    return [
        tuple(point)
        for line in ax.lines
        if line.get_marker() == "x"
        for point in line.get_xydata().tolist()
    ]


def test_classes_without_samples_are_marked_beside_the_axis():
    fig = both()
    assert [line for _, line in crosses(fig.axes[0])] == [2]
    assert all(x < 0 for x, _ in crosses(fig.axes[0]))
    assert legend_of(fig)[-1] == "no samples"


def legend_of(fig):
    return [t.get_text() for legend in fig.legends for t in legend.get_texts()]


def test_one_accuracy_needs_no_names():
    fig = class_accuracy({"training": TRAIN}, list("abcd"), COUNTS, (0, 2))
    assert legend_of(fig) == ["majority", "minority"]
    assert marks(fig.axes[0], "minority", filled=True) == [(0.5, 3), (0.75, 2)]


def test_balanced_classes_have_no_groups_to_name():
    fig = class_accuracy({"training": TRAIN}, list("abcd"), COUNTS, ())
    assert legend_of(fig) == []


@pytest.mark.parametrize(
    ("num_classes", "names"), [(1, 1), (40, 40), (41, 21), (1000, 40)]
)
def test_names_are_thinned_and_the_height_bounded(num_classes, names):
    values = torch.linspace(0, 1, num_classes, dtype=torch.float64)
    labels = [f"class {k}" for k in range(num_classes)]
    fig = class_accuracy(
        {"a": values, "b": values**2}, labels, 9 - 8 * values, range(3, num_classes)
    )
    fig.canvas.draw()
    (ax,) = fig.axes
    assert len(ax.get_yticklabels()) == len(ax.texts) == names
    assert fig.get_size_inches()[1] * 72 <= 560


def test_names_of_other_classes_are_refused():
    with pytest.raises(
        ShapeError, match="`training` must have one entry for each of the 2"
    ):
        class_accuracy({"training": TRAIN}, ["a", "b"], COUNTS, ())
