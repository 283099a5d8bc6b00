import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from layerpeel.measurement.tracking import History
from layerpeel.measurement.tracking.records import Record


def sample():
    history = History()
    history.append(5, {"nc1": 20.0, "nc4": 0.5}, epoch=0)
    history.append(10, {"nc1": 0.1, "nc4": 0.75}, epoch=1)
    history.append(11, {"nc1": math.nan, "extra, odd": math.inf})
    return history


def test_series_have_their_own_steps():
    history = sample()
    assert history["nc1"].steps.tolist() == [5, 10, 11]
    assert history["nc4"].values.tolist() == [0.5, 0.75]
    assert history["extra, odd"].steps.tolist() == [11]
    assert np.isnan(history["extra, odd"].epochs[0])
    assert history.metrics == ("nc1", "nc4", "extra, odd")
    assert len(history) == 6
    assert next(iter(history)) == Record(5, 0.0, "nc1", 20.0)
    assert "3 steps" in repr(history)


@pytest.mark.parametrize("step", [11, 3, -1])
def test_steps_grow(step):
    with pytest.raises(ValueError, match=r"must grow.*after 11"):
        sample().append(step, {"nc1": 1.0})


def test_an_unknown_metric_is_told_the_known_ones():
    with pytest.raises(KeyError, match="nc1, nc4"):
        sample()["nc7"]


def test_csv_is_read_back_by_pandas(tmp_path):
    frame = pd.read_csv(sample().to_csv(tmp_path / "h.csv"))
    pd.testing.assert_frame_equal(frame, sample().to_frame())


def test_jsonl_is_plain_json(tmp_path):
    lines = sample().to_jsonl(tmp_path / "h.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert first == {"step": 5, "epoch": 0.0, "metric": "nc1", "value": 20.0}
    assert (last["epoch"], last["value"]) == (None, "Infinity")


@pytest.mark.parametrize("through", ["torch", "json"])
def test_state_comes_back(through, tmp_path):
    state = sample().state_dict()
    if through == "torch":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    else:
        lists = {k: v if isinstance(v, list) else v.tolist() for k, v in state.items()}
        state = json.loads(json.dumps(lists))
    history = History()
    history.append(99, {"old": 1.0})
    history.load_state_dict(state)
    assert repr(list(history)) == repr(list(sample()))


def test_an_empty_history():
    history = History()
    other = History()
    other.load_state_dict(history.state_dict())
    assert len(other) == 0
    assert other.last_step is None
    fig, _ = other.plot()
    assert fig.axes


def test_plot_shows_one_measure_of_each_kind():
    fig, ax = sample().plot()
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"nc1", "1 − nc4"}
    assert list(lines["1 − nc4"].get_ydata()) == [0.5, 0.25]
    assert ax.get_yscale() == "log"
    assert ax.figure is fig


def test_plot_of_chosen_metrics_into_given_axes():
    _, ax = sample().plot()
    ax.clear()
    fig, same = sample().plot(ax, metrics=["nc4"])
    assert same is ax
    assert fig is ax.figure
    assert ax.get_yscale() == "linear"
    assert list(ax.lines[0].get_ydata()) == [0.5, 0.75]


def test_negative_values_keep_a_linear_axis():
    history = History()
    history.append(0, {"minority_cosine": -0.1})
    history.append(1, {"minority_cosine": 0.9})
    assert history.plot()[1].get_yscale() == "linear"
