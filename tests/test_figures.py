import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from layerpeel._figures import (
    Diverging,
    axes,
    cell_names,
    colour,
    colour_bar,
    figure,
    heatmap,
    line_at,
    save,
    style,
    thinned,
)
from layerpeel._look import RAMP, STEPS


def test_axes_of_its_own_are_known_to_no_global_state():
    before = plt.get_fignums()
    fig, ax = axes(width=200, height=100)
    assert isinstance(fig, Figure)
    assert ax.get_figure() is fig
    assert fig.get_size_inches() * 72 == pytest.approx([200, 100])
    assert plt.get_fignums() == before


def test_axes_of_the_caller_come_back_with_their_figure():
    host = Figure()
    ax = host.subfigures(1, 2)[1].add_subplot(facecolor="pink")
    fig, same = axes(ax)
    assert fig is host
    assert same is ax
    assert mpl.colors.to_hex(ax.get_facecolor()) == mpl.colors.to_hex("pink")


def test_axes_without_a_figure_are_refused():
    ax = Figure().add_subplot()
    ax.remove()
    with pytest.raises(ValueError, match="must belong to a figure"):
        axes(ax)


@pytest.mark.parametrize("vertical", [False, True])
def test_line_at_stands_at_its_value_and_says_what_it_is(vertical):
    _, ax = axes()
    line_at(ax, 0.25, "predicted $optimum$", vertical=vertical)
    (line,) = ax.lines
    data = line.get_xdata() if vertical else line.get_ydata()
    assert list(data) == [0.25, 0.25]
    assert line.get_color() == colour("predicted")
    assert ax.texts[0].get_text() == r"predicted \$optimum\$"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_line_at_nowhere_draws_nothing(value):
    _, ax = axes()
    line_at(ax, value, "no optimum")
    assert not ax.lines
    assert not ax.texts


def slow_step(value, scale):
    """Which of the equally wide rungs around the centre a value is on."""
    if np.isnan(value):
        return -1
    rung = 2 * scale.reach / (2 * STEPS)
    for step in range(2 * STEPS + 1):
        middle = scale.centre + (step - STEPS) * rung
        if abs(value - middle) <= rung / 2:
            return step
    return 0 if value < scale.centre else 2 * STEPS


def test_steps_agree_with_a_search():
    scale = Diverging(-0.11, -0.9, 0.4)
    values = np.append(
        np.random.default_rng(0).uniform(-1, 1, 300), [np.nan, -0.11, 0.4]
    )
    steps = scale.steps(values)
    assert [slow_step(value, scale) for value in values] == steps.tolist()
    assert steps[-2] == STEPS
    assert {*steps} > {-1, 0, STEPS}


def painted(ax, size):
    """Read the cells back from the drawn shapes, at the centre of each class."""
    codes = {pair[0]: step for step, pair in enumerate(RAMP)} | {colour("line"): -2}
    read = np.full((size, size), -9)
    for patch in ax.patches:
        inside = patch.get_path().to_polygons(closed_only=True)
        face = mpl.colors.to_hex(patch.get_facecolor())
        step = -1 if patch.get_hatch() else codes[face]
        for polygon in inside:
            (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
            for row in range(size):
                for column in range(size):
                    if left < column + 0.5 < right and top < row + 0.5 < bottom:
                        assert read[row, column] == -9, "two shapes on one cell"
                        read[row, column] = step
    return read


@pytest.mark.parametrize("edges", [None, [0, 2, 3, 4, 8]])
def test_a_heatmap_paints_every_cell_once_in_its_colour(edges):
    random = np.random.default_rng(1)
    cells = 8 if edges is None else len(edges) - 1
    # Few values, so that neighbours are often equal, and none between two steps.
    matrix = random.choice([-0.93, -0.51, -0.21, 0.07, 0.33, 0.9], (cells, cells))
    matrix[1, :2] = np.nan
    muted = np.eye(cells, dtype=bool)
    scale = Diverging(-0.2, -1, 0.6)
    _, ax = axes()
    heatmap(ax, matrix, list("abcdefgh"), scale, edges=edges, muted=muted)
    expected = np.array([[slow_step(v, scale) for v in row] for row in matrix])
    expected[muted] = -2
    sizes = np.ones(8, int) if edges is None else np.diff(edges)
    expected = np.repeat(np.repeat(expected, sizes, 0), sizes, 1)
    assert (painted(ax, 8) == expected).all()
    assert ax.get_ylim() == (8, 0)


def test_a_heatmap_leaves_its_arguments_alone():
    matrix = np.full((3, 3), 0.5)
    before = matrix.copy()
    _, ax = axes()
    heatmap(ax, matrix, list("abc"), Diverging(0, -1, 1), muted=np.eye(3, dtype=bool))
    assert (matrix == before).all()


def test_cells_carry_numbers_while_they_are_large():
    _, ax = axes()
    matrix = np.array([[0.999, -0.114], [np.nan, -0.001]])
    heatmap(ax, matrix, ["a", "b"], Diverging(0, -1, 1))
    assert [text.get_text() for text in ax.texts] == ["1.00", "−.11", ".00"]
    _, ax = axes()
    heatmap(ax, np.zeros((13, 13)), list("abcdefghijklm"), Diverging(0, -1, 1))
    assert not ax.texts


def test_ticks_are_thinned_to_what_fits():
    assert list(thinned(5, 24)) == [0, 1, 2, 3, 4]
    assert list(thinned(50, 24)) == list(range(0, 50, 3))
    assert all(len(thinned(n, 24)) <= 24 for n in range(1, 1200))
    assert cell_names(["a" * 30]) == {0: "a" * 13 + "…"}
    _, ax = axes()
    heatmap(ax, np.zeros((60, 60)), [f"${i}" for i in range(60)], Diverging(0, -1, 1))
    assert [t.get_text() for t in ax.get_xticklabels()][:2] == [r"\$0", r"\$3"]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Diverging(-0.11, -1, 0.8), ["−1.00\nlow", "−0.11\nmid", "0.80\nhigh"]),
        (
            Diverging(-0.001, -0.051, 0.049),
            ["−0.051\nlow", "−0.001\nmid", "0.049\nhigh"],
        ),
        (Diverging(-1, -1, 0.5), ["−1.00\nmid", "0.50\nhigh"]),
    ],
)
def test_a_colour_bar_says_what_its_ends_mean(scale, expected):
    _, ax = axes()
    colour_bar(ax, scale, "low", "mid", "high")
    (bar,) = ax.child_axes
    assert [tick.get_text() for tick in bar.get_yticklabels()] == expected
    assert bar.get_ylim() == (scale.lowest, scale.highest)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".PNG"])
def test_a_saved_figure_has_the_same_bytes_every_time(suffix, tmp_path):
    written = []
    for name in ("one", "two"):
        with style():
            fig, ax = axes()
            ax.plot([1, 2, 3], [1, 3, 2])
        path = save(fig, tmp_path / f"{name}{suffix}")
        assert path == tmp_path / f"{name}{suffix}"
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert b"20" + b"26" not in written[0][:2000] or suffix == ".png"


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'\.svg', '\.png', '\.pdf'; got '\.gif'"):
        save(figure(), tmp_path / "plot.gif")
    assert list(tmp_path.iterdir()) == []
