import matplotlib as mpl
import numpy as np
import pytest
import torch

from layerpeel._checks import ShapeError
from layerpeel._figures import colour
from layerpeel.geometry import ClassGroups
from layerpeel.reports.pictures import cosine_matrices
from layerpeel.reports.pictures.cosines import _cell_edges, _cell_means


def cosines(num_classes, seed=0):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(
        num_classes, num_classes + 3, generator=random, dtype=torch.float64
    )
    rows = torch.nn.functional.normalize(rows, dim=1)
    return rows @ rows.T


def halves(num_classes):
    cut = num_classes // 2
    return ClassGroups(tuple(range(cut)), tuple(range(cut, num_classes)))


def names(num_classes):
    return [f"c{k}" for k in range(num_classes)]


def cell_numbers(ax):
    """The numbers in the cells by row and column."""
    return {
        (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text()
        for t in ax.texts
        if t.get_text() not in ("majority", "minority")
    }


def test_majority_comes_first_then_minority_then_the_unseen():
    matrix = cosines(5)
    groups = ClassGroups(majority=(1, 4), minority=(0, 2))
    fig = cosine_matrices({"measured": matrix}, names(5), groups)
    (ax,) = fig.axes
    order = [1, 4, 0, 2, 3]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"c{k}" for k in order]
    numbers = cell_numbers(ax)
    assert len(numbers) == 20
    for (row, column), text in numbers.items():
        value = float(matrix[order[row], order[column]])
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.00501)


def test_the_boundary_stands_between_the_groups():
    fig = cosine_matrices(
        {"a": cosines(6)}, names(6), ClassGroups((0, 1), (2, 3, 4, 5))
    )
    crossing = [line for line in fig.axes[0].lines if line.get_color() == colour("ink")]
    assert sorted(list(line.get_ydata()) for line in crossing) == [[0, 1], [2, 2]]
    assert [t.get_text() for t in fig.axes[0].texts][-2:] == ["majority", "minority"]


def test_balanced_classes_have_no_boundary():
    fig = cosine_matrices({"a": cosines(4)}, names(4), ClassGroups((0, 1, 2, 3), ()))
    assert not fig.axes[0].lines


def scale_ends(fig):
    (bar,) = fig.axes[-1].child_axes
    return bar.get_ylim()


def test_all_matrices_have_one_scale_that_covers_them():
    wide, narrow = (
        cosines(8),
        0.1 * cosines(8) + 0.9 * torch.eye(8, dtype=torch.float64),
    )
    groups = halves(8)
    fig = cosine_matrices({"wide": wide, "narrow": narrow}, names(8), groups)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["wide", "narrow"]
    low, high = scale_ends(fig)
    off = wide[~torch.eye(8, dtype=torch.bool)]
    assert low <= float(off.min())
    assert high >= float(off.max())
    assert scale_ends(cosine_matrices({"wide": wide}, names(8), groups)) == (low, high)
    assert len(fig.axes[0].child_axes) == 0


@pytest.mark.parametrize(("ideal", "expected"), [(None, -1 / 7), (0.0, 0.0)])
def test_the_scale_is_centred_on_the_balanced_value(ideal, expected):
    flat = torch.full((8, 8), expected, dtype=torch.float64)
    fig = cosine_matrices({"a": flat}, names(8), halves(8), ideal)
    assert np.mean(scale_ends(fig)) == pytest.approx(expected)
    low, high = scale_ends(fig)
    assert high - low == pytest.approx(0.1), "noise must not look like structure"


def test_undefined_cosines_are_hatched():
    matrix = cosines(4)
    matrix[2] = matrix[:, 2] = torch.nan
    fig = cosine_matrices({"a": matrix}, names(4), halves(4))
    hatched = [patch for patch in fig.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 1
    assert len(cell_numbers(fig.axes[0])) == 6
    assert fig.axes[0].get_xlabel() == "hatched: undefined"


def slow_means(matrix, edges):
    size = len(edges) - 1
    means = np.full((size, size), np.nan)
    for i in range(size):
        for j in range(size):
            values = [
                matrix[a, b]
                for a in range(edges[i], edges[i + 1])
                for b in range(edges[j], edges[j + 1])
                if a != b and not np.isnan(matrix[a, b])
            ]
            if values:
                means[i, j] = sum(values) / len(values)
    return means


@pytest.mark.parametrize(
    "groups",
    [halves(230), ClassGroups(tuple(range(229)), (229,)), ClassGroups((0,), (1, 2))],
    ids=["halves", "one rare", "mostly unseen"],
)
def test_cells_of_many_classes_are_means_within_groups(groups):
    matrix = np.random.default_rng(0).uniform(-1, 1, (230, 230))
    matrix[17] = matrix[:, 17] = np.nan
    edges = _cell_edges(groups, 230)
    cut = len(groups.majority)
    assert edges[0] == 0
    assert edges[-1] == 230
    assert {cut, cut + len(groups.minority)} <= set(edges)
    assert len(edges) - 1 <= 103
    np.testing.assert_allclose(_cell_means(matrix, edges), slow_means(matrix, edges))


def test_up_to_a_hundred_classes_every_pair_has_its_cell():
    assert _cell_edges(halves(100), 100) == list(range(101))


@pytest.mark.parametrize("num_classes", [1, 2, 3, 100, 1000])
def test_any_number_of_classes_can_be_drawn(num_classes):
    groups = halves(num_classes)
    shown = {"measured": cosines(num_classes), "predicted": cosines(num_classes, 1)}
    fig = cosine_matrices(shown, names(num_classes), groups)
    assert bool(cell_numbers(fig.axes[0])) == (1 < num_classes <= 12)
    assert len(fig.axes[0].get_xticklabels()) <= 25
    said = fig.axes[0].get_xlabel()
    assert bool(said) == (num_classes > 100)
    assert fig.axes[0].get_xlim() == (0, num_classes)


def test_panels_are_square_and_alike_whatever_the_names():
    for labels in (["a"] * 4, ["a very long name"] * 4, ["😀" * 30] * 4):
        fig = cosine_matrices({"a": cosines(4), "b": cosines(4)}, labels, halves(4))
        width, height = fig.get_size_inches() * 72
        for ax in fig.axes:
            box = ax.get_position()
            sides = (box.width * width, box.height * height)
            assert sides == pytest.approx((240, 240))
            assert box.y0 * height > 5 * min(14, len(labels[0]))


def test_names_of_other_classes_are_refused():
    with pytest.raises(
        ShapeError, match="`predicted` must have one entry for each of the 3"
    ):
        cosine_matrices({"predicted": cosines(4)}, names(3), halves(4))


def test_colours_are_those_of_the_palette():
    fig = cosine_matrices({"a": cosines(4)}, names(4), halves(4))
    named = {t.get_text(): mpl.colors.to_hex(t.get_color()) for t in fig.axes[0].texts}
    assert named["majority"] == colour("majority")
    assert named["minority"] == colour("minority")
