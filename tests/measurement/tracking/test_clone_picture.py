import pytest

from layerpeel.measurement.tracking import History


def history(mode="evaluate", widths=(2, 8)):
    found = History()
    for step in range(3):
        scalars = {"nc1": 1.0 / (step + 1)}
        if mode == "evaluate":
            scalars["clones/full_error"] = 0.1 / (step + 1)
        for w in widths:
            scalars[f"clones/{w}/r_squared"] = 0.1 * w - 0.01 * step
            scalars[f"clones/{w}/r_squared_spread"] = 0.01
            scalars[f"clones/{w}/residual_correlation"] = 0.2
            if mode == "evaluate":
                scalars[f"clones/{w}/raw_error"] = 0.5
                scalars[f"clones/{w}/folded_error"] = 0.3
        found.append(step, scalars)
    return found


def lines(ax):
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def test_all_panels_share_the_steps():
    fig, ax = history().plot(clones="all")
    assert [a.get_ylabel() for a in fig.axes] == [
        "R²",
        "residual |correlation|",
        "error",
    ]
    assert ax is fig.axes[0]
    assert lines(ax) == {
        "2 neurons": pytest.approx([0.2, 0.19, 0.18]),
        "8 neurons": pytest.approx([0.8, 0.79, 0.78]),
    }
    assert set(lines(fig.axes[2])) == {
        "2, raw", "2, folded", "8, raw", "8, folded", "the network",
    }  # fmt: skip
    assert lines(fig.axes[2])["the network"] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert [a.get_xlabel() for a in fig.axes] == ["", "", "step"]


def test_chosen_widths_in_given_axes():
    _, ax = history().plot(metrics=["nc1"])
    ax.clear()
    fig, same = history().plot(ax, clones=[8], panel="errors")
    assert same is ax
    assert len(fig.axes) == 1
    assert set(lines(ax)) == {"8, raw", "8, folded", "the network"}


def test_running_statistics_have_no_panel_of_errors():
    fig, _ = history("running").plot(clones=[2])
    assert len(fig.axes) == 2
    with pytest.raises(KeyError, match="No errors"):
        history("running").plot(clones=[2], panel="errors")


def test_more_widths_than_colours_have_other_marks():
    fig, ax = history(widths=range(1, 8)).plot(clones="all", panel="residuals")
    looks = {(line.get_color(), line.get_marker()) for line in ax.lines}
    assert len(looks) == 7
    assert len(fig.axes) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"clones": [3]}, KeyError, "Chunks of 3 were not followed; there are 2, 8"),
        ({"clones": "some"}, ValueError, "`clones` must be"),
        ({"clones": [2], "panel": "spread"}, ValueError, "`panel` must be one of"),
        ({"clones": [2], "metrics": ["nc1"]}, ValueError, "either"),
    ],
)
def test_what_cannot_be_drawn(arguments, error, match):
    with pytest.raises(error, match=match):
        history().plot(**arguments)


def test_a_history_without_clones():
    plain = History()
    plain.append(0, {"nc1": 1.0})
    with pytest.raises(KeyError, match="any width were not followed; there are none"):
        plain.plot(clones="all")
