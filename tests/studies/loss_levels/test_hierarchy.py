import json
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from layerpeel._checks import NonFiniteError, ShapeError
from layerpeel.landscape import Kind
from layerpeel.studies.loss_levels import Descent, Search, hierarchy, rippled_steps
from layerpeel.studies.loss_levels.networks import network, split

RUNS = (Descent((8,), steps=1200), Descent((4, 4), scale=0.05, steps=300))
OPTIONS = {
    "narrow": [(0,), (1,), (2,)],
    "runs": RUNS,
    "seeds": [0],
    "search": Search(iterations=150, looks=0),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return hierarchy(folder=tmp_path_factory.mktemp("kept"), **OPTIONS)


def test_every_level_is_critical_in_the_wide_network_at_the_same_loss(found):
    x, y = rippled_steps()
    into = {(0,): (8,), (1,): (8,), (2,): (8,)}
    assert {rung.hidden for rung in found.rungs} == set(into)
    for rung in found.rungs:
        assert rung.embedded_in == into[rung.hidden]
        assert rung.embedded_gradient < 1e-10
        assert rung.embedded.loss == pytest.approx(rung.level.loss, rel=1e-12)
        narrow = network((1, *rung.hidden, 1), "tanh", 1.0, 0)
        narrow.load_state_dict(rung.level.state)
        wide = split(narrow, rung.embedded_in)
        loss = nn.functional.mse_loss(wide(x), y)
        loss.backward()
        squares = sum(float(p.grad.square().sum()) for p in wide.parameters())
        assert squares**0.5 < 1e-10
        assert loss.item() == pytest.approx(rung.level.loss, rel=1e-12)
        np.testing.assert_allclose(rung.outputs, narrow(x).detach())


def test_the_constant_network_is_the_highest_level(found):
    _, y = rippled_steps()
    first = found.rungs[0]
    assert first.hidden == (0,)
    assert first.level.loss == pytest.approx(float(y.var(correction=0)), rel=1e-12)
    assert first.level.kind is Kind.LOCAL_MINIMUM
    assert first.embedded.kind is Kind.STRICT_SADDLE
    assert all(rung.level.loss <= first.level.loss * (1 + 1e-9) for rung in found.rungs)


def test_plateaus_are_matched_with_the_nearest_level(found):
    assert {m.descent for m in found.matches} == set(RUNS)
    assert len(found.matches) == sum(len(run.plateaus) for run in found.runs)
    for match in found.matches:
        ratios = [
            abs(np.log(match.plateau.loss / r.level.loss))
            for r in found.rungs
            if r.level.loss > 1e-12
        ]
        own = abs(np.log(match.plateau.loss / match.rung.level.loss))
        assert own == pytest.approx(min(ratios), abs=2e-9)
        assert match.distance == pytest.approx(
            match.plateau.loss / match.rung.level.loss - 1
        )
    near = [m for m in found.matches if m.rung.hidden == (1,) and m.descent is RUNS[0]]
    assert near, "the wide network stays at the level of one neuron"
    best = min(near, key=lambda match: abs(match.distance))
    assert abs(best.distance) < 0.1
    assert best.output_distance < 0.05


def test_a_study_goes_on_from_its_folder(tmp_path):
    options = {"narrow": [(0,)], "runs": [Descent((3,), steps=60)], "seeds": [0, 2]}
    whole = hierarchy(folder=tmp_path, **options)
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.safetensors")}
    assert names == {
        *(f"levels-0/seed-{seed}.safetensors" for seed in (0, 2)),
        "run-3-seed-0.safetensors",
    }
    (tmp_path / "levels-0" / "seed-2.safetensors").unlink()
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    again = hierarchy(folder=tmp_path, **options)
    assert again.to_dict() == whole.to_dict()
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_numbers_are_ready_for_json_and_for_readers(found):
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [s["hidden"] for s in content["searches"]] == [[0], [1], [2]]
    assert content["levels"][0]["embedded_kind"] == "STRICT_SADDLE"
    assert content["levels"][0]["inertia"] == [0, 0, 1]
    assert len(content["matches"]) == len(found.matches)
    assert content["runs"][0]["recorded"] == list(RUNS[0].records)
    lines = found.summary().splitlines()
    assert len(lines) == 3 + len(found.rungs) + len(found.matches)
    assert re.match(r"0 +1\.8961  LOCAL_MINIMUM +\(0, 0, 1\)", lines[1])
    assert repr(found).startswith(f"Hierarchy({len(found.rungs)} levels of 3 networks")
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_frame(), pandas.DataFrame)
    assert len(found.to_frame()) == len(found.matches)


def test_the_picture_has_all_curves_and_all_levels(found):
    before = dict(mpl.rcParams)
    _, ax = found.plot()
    assert dict(mpl.rcParams) == before
    assert ax.get_xscale() == ax.get_yscale() == "log"
    for run in found.runs:
        drawn = [
            line for line in ax.lines if len(line.get_xdata()) == len(run.curve.steps)
        ]
        assert any(np.allclose(line.get_ydata(), run.curve.losses) for line in drawn)
    (ladder,) = ax.child_axes
    heights = {
        float(p.vertices[0, 1]) for c in ladder.collections for p in c.get_paths()
    }
    assert heights == {rung.level.loss for rung in found.rungs}
    assert [t.get_text() for t in ladder.get_xticklabels()] == ["0", "1", "2"]
    own = Figure().add_subplot()
    assert found.plot(own) == (own.figure, own)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((torch.ones(3), torch.ones(3)), {}, ShapeError, "Add an axis"),
        ((torch.ones(3, 1), torch.ones(2, 1)), {}, ShapeError, "shapes"),
        (
            (torch.ones(3, 1), torch.full((3, 1), torch.nan)),
            {},
            NonFiniteError,
            "must be finite",
        ),
        ((torch.ones(3, 1), torch.ones(3, 1)), {}, ValueError, "targets that differ"),
        (None, {"narrow": []}, ValueError, "distinct widths"),
        (None, {"narrow": [(1,), (1,)]}, ValueError, "distinct widths"),
        (None, {"narrow": [(-1,)]}, ValueError, "integer >= 0"),
        (None, {"activation": "tan"}, ValueError, "Did you mean 'tanh'"),
        (None, {"fall": 0.0}, ValueError, "`fall`"),
    ],
)
def test_bad_input_is_named_before_any_work(data, options, error, message):
    with pytest.raises(error, match=message):
        hierarchy(data, **options)
