import matplotlib as mpl
import numpy as np
import pytest
import torch

from layerpeel._checks import ShapeError
from layerpeel._figures import colour
from layerpeel.reports.pictures import norms_against_counts

COUNTS = [500, 10, 500, 30, 0]
NORMS = [3.0, 1.0, 3.2, 2.0, float("nan")]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def drawn(ax, role):
    """The marked points of a role, by their norms."""
    return {
        float(y): float(x)
        for line in ax.lines
        if mpl.colors.to_hex(line.get_color()) == colour(role)
        for x, y in line.get_xydata()
        if np.isfinite([x, y]).all()
    }


def figure_of(predicted=None, minority=(1, 3)):
    measured = {"classifier": double(NORMS), "class mean": 2 * double(NORMS)}
    return norms_against_counts(
        double(COUNTS), measured, predicted, list("abcde"), minority
    )


def test_every_class_stands_at_its_norm_near_its_count():
    for ax, factor in zip(figure_of().axes, (1, 2), strict=True):
        majority, minority = drawn(ax, "majority"), drawn(ax, "minority")
        assert sorted(majority) == [3.0 * factor, 3.2 * factor]
        assert sorted(minority) == [1.0 * factor, 2.0 * factor]
        assert minority[1.0 * factor] == 10
        assert minority[2.0 * factor] == 30


def test_equal_counts_are_set_apart_by_a_little():
    first, second = drawn(figure_of().axes[0], "majority").values()
    assert 430 < first < 500 < second < 590


def test_predictions_stand_at_the_exact_counts_in_order():
    fig = figure_of({"classifier": double([2.5, 1.5, 2.5, 2.0, 0.0])})
    top, bottom = fig.axes
    (line,) = [line for line in top.lines if line.get_color() == colour("predicted")]
    assert line.get_xydata().tolist() == [[10, 1.5], [30, 2.0], [500, 2.5], [500, 2.5]]
    assert drawn(bottom, "predicted") == {}


def legend_of(fig):
    return [t.get_text() for legend in fig.legends for t in legend.get_texts()]


def test_the_legend_names_what_is_drawn():
    prediction = {"classifier": double([2.5, 1.5, 2.5, 2.0, 0.0])}
    assert legend_of(figure_of()) == ["majority", "minority"]
    assert legend_of(figure_of(prediction)) == ["majority", "minority", "predicted"]
    assert legend_of(figure_of(minority=())) == []


def test_the_smallest_norm_is_named():
    assert [text.get_text() for text in figure_of().axes[0].texts] == ["b"]


def test_the_axes_begin_at_zero_and_show_the_counts():
    top, bottom = figure_of().axes
    assert top.get_ylim()[0] == 0
    assert top.get_ylim()[1] > 3.2
    assert bottom.get_xscale() == "log"
    figure_of().canvas.draw()
    ticks = [t.get_text() for t in bottom.get_xticklabels()]
    assert ticks == ["10", "30", "500"]


def test_equal_counts_only_can_be_drawn():
    norms = {"classifier": torch.ones(3, dtype=torch.float64)}
    fig = norms_against_counts(double([7, 7, 7]), norms, None, list("abc"), ())
    fig.canvas.draw()
    low, high = fig.axes[0].get_xlim()
    assert low < 7 < high


def test_counts_too_near_for_two_numbers_share_a_tick():
    counts = double([133, 134, 136, 137, 20, 4])
    fig = norms_against_counts(
        counts, {"classifier": counts}, None, list("abcdef"), [4, 5]
    )
    fig.canvas.draw()
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["4", "20", "133"]


def test_many_different_counts_share_a_few_ticks():
    counts = double(np.geomspace(5, 5000, 300).round().tolist())
    fig = norms_against_counts(
        counts,
        {"classifier": counts.log()},
        None,
        [str(k) for k in range(300)],
        range(150, 300),
    )
    fig.canvas.draw()
    assert 2 <= len(fig.axes[0].get_xticks()) <= 8


def test_names_of_other_classes_are_refused():
    with pytest.raises(
        ShapeError, match="`counts` must have one entry for each of the 2"
    ):
        norms_against_counts(
            double(COUNTS), {"classifier": double(NORMS)}, None, ["a", "b"], ()
        )
