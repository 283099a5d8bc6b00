import json
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import UndefinedWarning
from layerpeel._tolerances import RESOLVED_GAP
from layerpeel.program.pairs.phase_diagram import phase_diagram
from layerpeel.program.pairs.thresholds import collapse_threshold, vanishing_threshold
from tests.program.layer_peeled_reference import counts_of, mean_cosine, solve_nuclear

RATIOS = [1, 2, 5, 10, 20, 50, 100, 300, 1000]
# Mean minority cosines of K = 10 classes at E_W E_H = 5, found by accelerated proximal
# gradient on the K x K logits; NaN where the classifiers vanish.
KNOWN = {
    3: [-0.1111, -0.0903, -0.0558, -0.0202, 0.0300, 0.1422, 0.3107, 1, 1],
    5: [-0.1111, -0.0673, 0.0725, 0.5175, 1, 1, 1, 1, 1],
    7: [-0.1111, -0.0251, 1] + [math.nan] * 6,
}


def silent_diagram(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        return phase_diagram(*args, **kwargs)


@pytest.mark.parametrize("majority", KNOWN)
def test_known_cosines(majority):
    diagram = silent_diagram(majority, 10 - majority, imbalance=RATIOS, energy=[5.0])
    found = diagram.minority_cosine[0].numpy()
    np.testing.assert_allclose(found, KNOWN[majority], atol=6e-5)


def test_cells_agree_with_a_convex_solver():
    diagram = phase_diagram(2, 3, imbalance=[1.5, 4.0], energy=[0.5, 4.0])
    for row, energy in enumerate(diagram.energy.tolist()):
        for column, ratio in enumerate(diagram.imbalance.tolist()):
            value, logits = solve_nuclear(counts_of(2, 3, ratio), (1.0, energy))
            left, singular, _ = np.linalg.svd(logits)
            gram = (left * singular) @ left.T / math.sqrt(energy)
            norms = np.sqrt(np.diag(gram))
            cell = row, column
            assert diagram.log_objective[cell] == pytest.approx(np.log(value), abs=1e-5)
            assert diagram.majority_norm[cell] == pytest.approx(norms[0], abs=2e-3)
            assert diagram.minority_norm[cell] == pytest.approx(norms[-1], abs=2e-3)
            cosine = mean_cosine(gram[2:, 2:])
            assert diagram.minority_cosine[cell] == pytest.approx(cosine, abs=5e-3)


@pytest.mark.parametrize(("majority", "minority"), [(5, 5), (7, 3), (1, 4)])
def test_phases_are_those_of_the_thresholds(majority, minority):
    diagram = silent_diagram(majority, minority)
    assert diagram.minority_cosine.shape == (200, 200)
    assert diagram.imbalance[[0, -1]].tolist() == pytest.approx([1, 1e4])
    assert bool(diagram.certified.all())
    assert float(diagram.gap.max()) < 1e-10
    ratios = diagram.imbalance
    beyond = ratios >= diagram.collapse_threshold[:, None]
    assert bool((diagram.collapsed == beyond).all())
    gone = ratios >= diagram.vanishing_threshold[:, None]
    assert bool((diagram.vanished == gone).all())
    assert bool((diagram.minority_cosine.isnan() == gone).all())
    assert bool((diagram.minority_cosine[beyond & ~gone] == 1).all())


def test_thresholds_are_the_functions_of_their_names():
    diagram = silent_diagram(7, 3, imbalance=[2.0], energy=[0.5, 5.0, 50.0])
    for row, product in enumerate(diagram.energy.tolist()):
        sizes = {"majority": 7, "minority": 3, "energy": (1.0, product)}
        log_ratio = collapse_threshold(**sizes, log=True)
        assert diagram.log_collapse_threshold[row] == pytest.approx(log_ratio)
        ratio = vanishing_threshold(**sizes)
        assert diagram.vanishing_threshold[row] == pytest.approx(ratio)


@settings(max_examples=15, deadline=None)
@given(majority=st.integers(1, 60), minority=st.integers(2, 60))
def test_imbalance_drives_minority_classifiers_together_and_energy_apart(
    majority, minority
):
    diagram = silent_diagram(
        majority,
        minority,
        imbalance=np.geomspace(1, 1e6, 25),
        energy=np.geomspace(1e-3, 300, 20),
    )
    balanced = -1 / (majority + minority - 1)
    cosine, norm = diagram.minority_cosine.numpy(), diagram.minority_norm.numpy()
    np.testing.assert_allclose(cosine[:, 0], balanced, atol=1e-14)
    np.testing.assert_allclose(norm[:, 0], 1, rtol=1e-13)
    steps = np.diff(cosine, axis=1)
    assert (steps[~np.isnan(steps)] >= -1e-13).all()
    steps = np.diff(cosine, axis=0)
    assert (steps[~np.isnan(steps)] <= 1e-13).all()
    assert (np.diff(norm, axis=1) <= 1e-12).all()
    assert (np.diff(norm, axis=0) >= -1e-12).all()
    # The mean squared classifier is one, whatever the share of the minority.
    squares = majority * diagram.majority_norm**2 + minority * diagram.minority_norm**2
    np.testing.assert_allclose(squares, majority + minority, rtol=1e-13)


def test_vanished_cells_warn_once_and_say_how_many():
    with pytest.warns(UndefinedWarning, match="in 5 of 6 cells") as record:
        phase_diagram(7, 3, imbalance=[2.0, 1e3, 1e4], energy=[1.0, 5.0])
    assert len(record) == 1


def test_default_energies_cover_the_collapse():
    for sizes in ((5, 5), (1, 4), (90, 10)):
        diagram = silent_diagram(*sizes, imbalance=[1.0, 2.0])
        ends = diagram.collapse_threshold[[0, -1]].tolist()
        assert ends == pytest.approx([1.2, 1e6], rel=1e-6)


def test_extreme_cells_are_certified():
    diagram = silent_diagram(
        3, 7, imbalance=[1.0, 1 + 1e-12, 1e3, 1e12], energy=[1e-24, 1.0, 1e12]
    )
    assert bool(diagram.certified.all())
    assert float(diagram.gap.max()) < 1e-15
    assert bool(diagram.log_objective.isfinite().all())
    assert diagram.collapse_threshold[-1] == math.inf


def test_certified_is_about_the_tolerance():
    kwargs = {"imbalance": [1.0, 2.0], "energy": [1.0]}
    strict = phase_diagram(2, 2, gap_tol=1e-40, **kwargs)
    assert not strict.certified[0, 1]
    assert bool(phase_diagram(2, 2, **kwargs).certified.all())


def test_grids_may_be_tensors_arrays_or_lists():
    lists = phase_diagram(2, 2, imbalance=[1, 2], energy=[1, 4])
    tensors = phase_diagram(
        2, 2, imbalance=torch.tensor([1, 2]), energy=np.array([1.0, 4.0])
    )
    assert torch.equal(lists.minority_cosine, tensors.minority_cosine)


def test_frame_has_one_row_per_cell():
    diagram = silent_diagram(7, 3, imbalance=[1.0, 3.0, 9.0], energy=[1.0, 5.0])
    frame = diagram.to_frame()
    assert len(frame) == 6
    row = frame[(frame["imbalance"] == 3.0) & (frame["energy"] == 5.0)].iloc[0]
    for name in ("minority_cosine", "minority_norm", "majority_norm", "gap"):
        assert row[name] == getattr(diagram, name)[1, 1].item()
    assert frame["vanished"].sum() == diagram.vanished.sum()


def test_frame_names_the_extra_where_pandas_is_missing(monkeypatch):
    diagram = phase_diagram(2, 2, imbalance=[1.0], energy=[1.0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"layerpeel\[study\]"):
        diagram.to_frame()


def test_dictionary_is_json_and_undefined_is_null():
    diagram = silent_diagram(7, 3, imbalance=[1.0, 1e4], energy=[5.0])
    content = json.loads(json.dumps(diagram.to_dict(), allow_nan=False))
    assert content["minority_cosine"][0][1] is None
    assert content["collapsed"] == [[False, True]]
    assert content["energy"] == [5.0]
    assert content["log_collapse_threshold"][0] == pytest.approx(math.log(4.0005), 1e-4)
    endless = phase_diagram(1, 2, imbalance=[1.0], energy=[1.0]).to_dict()
    assert endless["log_vanishing_threshold"] == ["Infinity"]


def test_plot_needs_two_points_on_each_axis():
    diagram = phase_diagram(2, 2, imbalance=[1.0, 2.0], energy=[1.0])
    with pytest.raises(ValueError, match="`energy` must have at least 2 points"):
        diagram.plot()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"majority": 0}, "`majority` must be an integer >= 1"),
        ({"minority": 1}, "`minority` must be an integer >= 2"),
        ({"imbalance": [0.5, 2]}, "`imbalance` must hold finite numbers of at least 1"),
        ({"imbalance": []}, "`imbalance` must hold .*got none"),
        ({"imbalance": [1, math.inf]}, "finite"),
        ({"energy": [0.0, 1.0]}, "`energy` must hold finite numbers above 0"),
        ({"energy": [1.0, math.nan]}, "`energy` must hold"),
        ({"energy": [2.0, 1.0]}, r"increasing; .*numpy\.unique\(energy\)"),
        ({"imbalance": [1.0, 1.0]}, "`imbalance` must be increasing"),
        ({"gap_tol": 0.0}, "`gap_tol` must be"),
    ],
    ids=str,
)
def test_rejects_bad_input(change, message):
    kwargs = {"majority": 3, "minority": 3, "imbalance": [1.0], "energy": [1.0]}
    with pytest.raises(ValueError, match=message):
        phase_diagram(**kwargs | change)


def test_no_cell_claims_a_gap_below_rounding():
    diagram = phase_diagram(
        5, 5, imbalance=[2.0, 20.0], energy=[4.0, 5.0], gap_tol=1e-25
    )
    assert bool((diagram.gap >= RESOLVED_GAP).all())
    assert not bool(diagram.certified.any())
