import re

import pytest
import torch
from torch import nn

from layerpeel.measurement import clone_profile
from layerpeel.reports.checks import CHECKS, CLONE_CHECKS, explain
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from tests.reports.clone_profiles import (
    PROFILES,
    copies,
    noisy_clones,
    normal,
    planted,
    profiled,
)

# What is found in each planted layer, and which checks have nothing to go by.
SAID = {
    "clones": ("LP030", ""),
    "low rank": ("LP031", ""),
    "correlated": ("LP031 LP033", ""),
    "independent": ("", "LP033"),
    "copies": ("LP031 LP036", "LP033"),
    "in sample": ("LP031 LP034", ""),
    "few samples": ("LP032 LP034", "LP030 LP031 LP033"),
    "few, held out": ("LP032", "LP033"),
    "one class": ("LP037", "LP030 LP031"),
    "no classifier": ("LP034", "LP030 LP031 LP035 LP037"),
    "covariance": ("LP034", "LP030 LP031 LP035 LP037"),
}


def outcomes(profile):
    evidence = CloneEvidence.of(profile)
    return {check.code: check(evidence) for check in CLONE_CHECKS}


def codes(said, kind):
    return " ".join(code for code, one in said.items() if isinstance(one, kind))


@pytest.mark.parametrize("name", PROFILES)
def test_a_planted_layer_is_found_and_nothing_else(name):
    said = outcomes(planted(name))
    found, silent = SAID[name]
    assert codes(said, Finding) == found
    assert codes(said, NotApplicable) == silent


def test_codes_follow_those_of_measurements():
    ours = [check.code for check in CLONE_CHECKS]
    assert ours == sorted(set(ours))
    assert ours[0] == "LP030"
    assert not {check.code for check in CHECKS} & set(ours)
    assert explain("lp030").startswith("LP030: The layer consists of clones\n")


def test_clones_are_counted_with_what_narrowing_costs():
    profile = planted("clones")
    found = outcomes(profile)["LP030"]
    assert profile.num_clones == 4
    assert found.severity is Severity.NOTE
    assert "Chunks of 16 of 64 neurons" in found.measured
    assert "4 clones" in found.measured
    assert "Not tested: a chunk reconstructs the layer" in found.measured
    kept = profile.keep(width=16)
    assert " 16 neurons, with the others folded" in found.action
    assert f"by {kept.change.relative:.2g} of its spread" in found.action
    after = kept.held_out.error_after
    before = kept.held_out.error_before
    assert f"held-out error from {before:.4g} to {after:.4g}" in found.action
    assert found.command == "lp.clone_profile(model, loader).keep(width=16)"


def test_low_rank_gives_raw_and_folded_error_where_chunks_reconstruct():
    profile = planted("low rank")
    found = outcomes(profile)["LP031"]
    place = profile.widths.index(8)
    raw = float(profile.held_out.raw[place].mean())
    folded = float(profile.held_out.folded[place].mean())
    assert f"err on {raw:.4g}, folded on {folded:.4g}" in found.measured
    assert raw > folded + 0.01
    assert f"at most {profile.readout_slack:.2g}" in found.threshold


def test_too_few_samples_are_a_warning_unless_others_are_judged_by():
    alone = outcomes(planted("few samples"))["LP032"]
    beside = outcomes(planted("few, held out"))["LP032"]
    assert alone.severity is Severity.WARNING
    assert beside.severity is Severity.NOTE
    assert alone.measured.startswith(
        "20 samples for 32 neurons. In sample, chunks of 19"
    )
    assert "judges by held-out data" in beside.measured


def test_correlated_residuals_stand_beside_the_floor():
    found = outcomes(planted("correlated"))["LP033"]
    numbers = re.search(
        r"correlation of ([\d.]+); independent noise ([\d.]+)", found.measured
    )
    assert found.severity is Severity.WARNING
    assert float(numbers[1]) > 2 * float(numbers[2])


def test_neurons_that_can_go_are_counted():
    found = outcomes(planted("copies"))["LP036"]
    assert found.measured.startswith("2 of 66 neurons are constant; without 62 of them")
    few = outcomes(profiled(copies(), samples=30, repeats=2))["LP036"]
    assert few.measured == "2 of 66 neurons are constant."


def test_a_training_error_above_zero_is_noted():
    features, labels, readout = noisy_clones()
    labels = labels.clone()
    labels[:40] = 1 - labels[:40]
    profile = profiled((features, labels, readout), repeats=3)
    found = outcomes(profile)["LP035"]
    assert (
        found.measured == f"The network errs on {40 / 857:.4g} of 857 training samples."
    )
    assert isinstance(outcomes(planted("clones"))["LP035"], Passed)


def test_an_untrained_copy_that_reconstructs_as_well_refutes_the_claim():
    torch.manual_seed(0)
    wide = nn.Linear(3, 48)
    model = nn.Sequential(wide, nn.Linear(48, 2)).double()
    inputs = normal(300, 3)
    labels = model(inputs).argmax(1)
    profile = clone_profile(model, [(inputs, labels)], repeats=4, progress=False)
    found = outcomes(profile)["LP033"]
    assert isinstance(found, Finding)
    assert "those of an untrained copy R^2 = 1" in found.measured


def test_a_hidden_layer_is_judged_by_the_errors_of_the_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    ).double()
    inputs = normal(200, 3)
    labels = model(inputs).argmax(1)
    profile = clone_profile(model, [(inputs, labels)], "0", repeats=3, progress=False)
    said = outcomes(profile)
    assert said["LP035"].measured == "The network errs on 0 of 200 training samples."
    assert not isinstance(said["LP030"], NotApplicable)
