import math

import pytest
import torch

from layerpeel.measurement.clones import keep
from layerpeel.reports import narrower as module
from layerpeel.reports.narrower import TOLERANCES, narrowed, narrower
from tests.reports.clone_profiles import planted


def test_every_tolerance_gets_the_width_that_keep_finds_for_it():
    profile = planted("low rank")
    rows = narrower(profile)
    assert [row.tolerance for row in rows] == [*TOLERANCES, 0.0]
    for row in rows[:-1]:
        kept = profile.keep(tolerance=row.tolerance)
        assert row.width == kept.width
        assert row.change == pytest.approx(kept.change.relative, rel=1e-9)
        assert row.change <= row.tolerance
        assert row.measured.error_after == kept.held_out.error_after
        assert row.errors == (kept.held_out.error_before, kept.held_out.error_after)


def test_planted_copies_are_found_without_loss():
    exact = narrower(planted("copies"))[-1]
    assert exact.width == 4
    assert exact.change < 1e-12
    assert exact.errors[0] == exact.errors[1]


def test_a_given_width_is_narrowed_to():
    profile = planted("clones")
    row = narrowed(profile, 16)
    kept = profile.keep(width=16)
    assert math.isnan(row.tolerance)
    assert (row.width, row.measured) == (16, kept.held_out)
    assert row.random_change > row.change == kept.change.relative


def test_random_neurons_of_the_same_width_lose_more():
    profile = planted("low rank")
    row = narrower(profile)[0]
    generator = torch.Generator().manual_seed(0)
    consumer = profile.consumer
    drawn = [
        keep(
            profile.covariance,
            consumer.weight,
            consumer.bias,
            width=row.width,
            select="random",
            generator=generator,
        )
        for _ in range(row.draws)
    ]
    assert row.draws == 3
    mean = sum(one.change.relative for one in drawn) / 3
    assert row.random_change == pytest.approx(mean, rel=1e-9)
    assert row.random_change > row.change


def test_training_samples_are_judged_by_where_there_are_no_others():
    profile = planted("in sample")
    row = narrower(profile)[0]
    assert row.measured == profile.keep(width=row.width).measured


def test_without_samples_there_are_no_errors():
    for row in narrower(planted("covariance")):
        assert row.measured is None
        assert all(map(math.isnan, row.errors))


def test_an_output_that_does_not_vary_needs_no_neuron():
    with pytest.warns(UserWarning, match="does not vary"):
        assert narrower(planted("one class")) == ()


def test_wide_layers_get_less(monkeypatch):
    monkeypatch.setattr(module, "_WIDE", 32)
    rows = narrower(planted("low rank"))
    assert [(row.tolerance, row.draws) for row in rows] == [(0.1, 1), (0.01, 1), (0, 0)]
    monkeypatch.setattr(module, "_WIDEST", 32)
    assert [row.tolerance for row in narrower(planted("low rank"))] == [0.1, 0.01]
