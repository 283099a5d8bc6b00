import pytest

from layerpeel.program import Energy, PeeledProblem
from layerpeel.reports.forecasts.picture import phase_figure


def marked(figure):
    """The one point drawn into the diagram, and the limits of its axes."""
    ax = figure.axes[0]
    points = [
        line
        for line in ax.lines
        if line.get_marker() == "o" and len(line.get_xdata()) == 1
    ]
    (point,) = points
    return (point.get_xdata()[0], point.get_ydata()[0]), ax.get_xlim(), ax.get_ylim()


@pytest.mark.parametrize(
    ("counts", "energy"),
    [
        ([500] * 3 + [50] * 3, (1, 5)),
        ([3e7] * 3 + [1] * 3, (1, 5)),
        ([30] * 3 + [10] * 3, (1e-4, 1e-3)),
        ([30] * 3 + [10] * 3, (300, 1e4)),
    ],
)
def test_the_problem_is_marked_inside_the_axes(counts, energy):
    figure = phase_figure(PeeledProblem(counts, energy=energy))
    (x, y), (left, right), (bottom, top) = marked(figure)
    assert x == pytest.approx(counts[0] / counts[-1])
    assert y == pytest.approx(energy[0] * energy[1])
    assert left < x < right
    assert bottom < y < top


def test_more_counts_stand_at_the_ratio_of_their_group_means():
    figure = phase_figure(PeeledProblem([100, 110, 9, 10, 11], energy=(1, 5)))
    assert marked(figure)[0][0] == pytest.approx(10.5)


def test_two_close_counts_are_two_groups():
    figure = phase_figure(PeeledProblem([12, 12, 10, 10], energy=(1, 5)))
    assert marked(figure)[0][0] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("counts", "keywords", "message"),
    [
        ([9, 9, 1, 1], {"weight_decay": (1e-3, 1e-3)}, "Layer-Peeled Model"),
        ([9, 9, 1, 1], {"energy": Energy(1, 5, "sample")}, "per class"),
        ([9, 9, 1, 1], {"energy": (1, 5), "features": "nonnegative"}, "free features"),
        ([9, 9, 1, 1], {"energy": (1, 5), "bias": "free"}, "no bias"),
        ([9, 9, 1, 1], {"energy": (1, 5), "loss": "mse"}, "cross-entropy"),
        ([9, 9, 9, 9], {"energy": (1, 5)}, "got 0"),
        ([9, 9, 9, 1], {"energy": (1, 5)}, "got 1"),
    ],
    ids=str,
)
def test_other_problems_are_refused(counts, keywords, message):
    with pytest.raises(ValueError, match=message):
        phase_figure(PeeledProblem(counts, **keywords))
