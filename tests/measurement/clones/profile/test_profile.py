import json
import warnings

import pytest
import torch

import layerpeel as lp
from layerpeel._json import plain
from layerpeel.measurement.clones import correlation_floor, fit_power_law
from layerpeel.measurement.clones.evidence.claims import CLAIMS, shared_error
from layerpeel.measurement.clones.keeping.keep import keep
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones import planted
from tests.measurement.clones.layers import normal, seeded


def read_equally(matrix, samples, noise, seed=0):
    """Rows of a layer, labels with a margin, and a classifier that reads all clones."""
    signals = matrix.shape[1]
    y = torch.arange(samples) % 4
    means = 2 * torch.linalg.qr(normal(signals, signals, seed=3))[0][:4]
    s = means[y] + 0.3 * normal(samples, signals, seed=seed)
    h = s @ matrix.T + noise * normal(samples, len(matrix), seed=seed + 5)
    return h, y, means @ torch.linalg.pinv(matrix)


def profile(*, held_out=True, noise=0.1, errors=True, clones=8, **options):
    matrix = planted.mixing(clones, 4)
    h, y, weight = read_equally(matrix, 300, noise)
    other, other_y, _ = read_equally(matrix, 200, noise, seed=50)
    given = {"labels": y, "weight": weight} if errors else {}
    if held_out:
        given |= {"eval_features": other}
        given |= {"eval_labels": other_y} if errors else {}
    return lp.clone_profile_features(h, repeats=6, **given, **options)


@pytest.fixture(scope="module")
def full():
    return profile()


def test_is_judged_on_held_out_data_if_there_are_any(full):
    assert full.scored is full.held_out
    alone = profile(held_out=False)
    assert alone.scored is alone.fitted
    assert (alone.held_out, alone.held_out_covariance) == (None, None)
    assert (full.num_samples, full.held_out.count, full.repeats) == (300, 200, 6)


def test_keeps_the_covariances_of_the_data(full):
    matrix = planted.mixing(8, 4)
    rows = read_equally(matrix, 300, 0.1)[0], read_equally(matrix, 200, 0.1, seed=50)[0]
    for found, h in zip((full.covariance, full.held_out_covariance), rows, strict=True):
        torch.testing.assert_close(found.mean, h.mean(0))
        centred = h - h.mean(0)
        torch.testing.assert_close(found.scatter, centred.T @ centred)


def test_the_floor_is_that_of_the_degrees_of_freedom_left():
    in_sample = profile(held_out=False)
    expected = [correlation_floor(300, fitted=w) for w in in_sample.widths]
    assert in_sample.floor.tolist() == pytest.approx(expected)
    assert profile().floor.tolist() == [correlation_floor(200)] * 6


def test_where_no_freedom_is_left_there_is_no_floor():
    with pytest.warns(UserWarning, match="more samples than neurons"):
        few = lp.clone_profile_features(normal(5, 8), repeats=2)
    assert few.rank_deficient
    assert few.floor.isnan().tolist() == [False, False, True, True]
    assert not profile().rank_deficient


@pytest.mark.parametrize("samples", [32, 33, 34])
def test_a_layer_is_rank_deficient_up_to_as_many_samples_as_neurons(samples):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = lp.clone_profile_features(normal(samples, 32), widths=[4], repeats=2)
    assert found.rank_deficient == (samples < 33) == bool(said)


def test_what_is_to_be_reconstructed_is_what_neurons_share(full):
    assert full.reconstruction_least == pytest.approx(0.99 * full.shared)
    assert full.shared > 0.9
    unlike = lp.clone_profile_features(normal(400, 8), repeats=2)
    assert unlike.shared < 0.1
    assert unlike.reconstruction_least == 0.99
    exact = profile(noise=0.0)
    assert exact.reconstruction_least == pytest.approx(0.99)
    assert exact.reconstruction_least <= 0.99


def test_critical_widths_are_read_off_the_curves(full):
    critical = full.critical
    assert list(critical) == ["interpolation", "reconstruction", "readout"]
    r_squared = full.held_out.r_squared["complement"].mean(1)
    gap = full.held_out.raw.mean(1) - full.held_out.folded.mean(1)
    met = {
        "interpolation": full.fitted.raw.mean(1) <= full.fitted.full_error + 1e-3,
        "reconstruction": r_squared >= full.reconstruction_least,
        "readout": gap <= 1e-3,
    }
    met["reconstruction"][-1] = True
    for name, enough in met.items():
        failing = [
            w for w, ok in zip(full.widths, enough.tolist(), strict=True) if not ok
        ]
        below = max([0, *failing])
        assert critical[name].below == below
        assert critical[name].width == min(w for w in full.widths if w > below)
    assert full.critical_width == max(answer.width for answer in critical.values())
    assert full.num_clones == 32 / full.critical_width
    assert torch.equal(full.clone_score, gap)


def test_clones_read_equally_with_a_margin_are_counted():
    """Exact clones: any four neurons are enough to reconstruct, more to be read."""
    exact = profile(noise=0.0, clones=32)
    assert exact.fitted.full_error == 0
    assert exact.critical["reconstruction"].width == 4
    assert exact.critical["reconstruction"].clones == 32
    assert 4 < exact.critical["interpolation"].width < 128
    assert exact.num_clones >= 2
    survives = {claim.name: claim.survives for claim in exact.claims}
    assert survives["interpolation"] is True
    # Nothing says what an untrained copy shows.
    assert survives["reconstruction"] is None


def test_a_layer_by_itself_has_its_reconstruction_alone():
    found = profile(errors=False)
    assert list(found.critical) == ["reconstruction"]
    survives = {claim.name: claim.survives for claim in found.claims}
    assert survives["interpolation"] is None
    assert survives["readout"] is None
    assert found.num_clones == found.critical["reconstruction"].clones


def test_where_no_chunk_meets_a_criterion_the_layer_is_one_clone():
    found = profile(widths=[1, 2])
    assert found.num_clones == 1
    assert found.critical["reconstruction"].below == 2
    assert {c.name: c.survives for c in found.claims}["reconstruction"] is False


@pytest.mark.parametrize("seed", range(3))
def test_wider_chunks_than_half_of_the_layer_change_no_answer(seed):
    scales = torch.logspace(-1, 1, 32, dtype=torch.float64)
    signals, noise = normal(300, 3, seed=seed), normal(300, 32, seed=seed + 10)
    features = (signals @ normal(3, 32, seed=seed + 20) + 0.5 * noise) * scales
    found = lp.clone_profile_features(
        features[:200],
        eval_features=features[200:],
        widths=[4, 8, 16, 29, 31],
        repeats=9,
    )
    few = [found.widths.index(w) for w in (4, 8, 16)]
    curve = found.held_out.r_squared["complement"].mean(1)[few]
    met = [
        w
        for w, r in zip((4, 8, 16), curve, strict=True)
        if r >= found.reconstruction_least
    ]
    assert found.critical_width == (met[0] if met else 32)


def test_a_power_law_needs_no_errors_on_the_training_set():
    features, labels = normal(200, 16), torch.arange(200) % 3
    found = lp.clone_profile_features(
        features,
        None,
        weight=normal(3, 16, seed=1),
        eval_features=features,
        eval_labels=labels,
        repeats=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.UndefinedWarning)
        assert found.power_law().widths == (1, 2, 4, 8)


def test_with_one_logit_a_tie_is_an_error_before_and_after():
    found = lp.clone_profile_features(
        torch.zeros(50, 4), torch.arange(50) % 2, weight=torch.ones(1, 4), repeats=2
    )
    assert found.fitted.full_error == 1
    with pytest.warns(lp.UndefinedWarning, match="does not vary"):
        assert found.keep(width=4).measured.error_before == 1
    assert any("2 to 32 logits" in cause for cause in found.cause)


def test_claims_are_made_about_the_numbers_of_the_profile(full):
    claims = {claim.name: claim for claim in full.claims}
    assert list(claims) == list(CLAIMS)
    reconstructs = full.critical["reconstruction"].width
    assert reconstructs < 32
    narrow = [w for w in (full.critical_width, reconstructs) if w < 32]
    width = narrow[0]
    i = full.widths.index(int(width))
    means = full.scored.means("complement")
    correlation, floor = float(means["residual_correlation"][i]), float(full.floor[i])
    assert f"{correlation:.3g}; independent noise {floor:.3g}" in (
        claims["independence"].evidence
    )
    scatter = full.covariance.scatter
    signals = float(scatter.trace()) ** 2 / float((scatter**2).sum())
    limit = 2 * max(floor, shared_error(width, signals))
    assert claims["independence"].survives == (correlation <= limit)
    at = full.widths.index(int(reconstructs))
    assert f"R^2 = {float(means['r_squared'][at]):.4g}" in (
        claims["reconstruction"].evidence
    )
    place = full.spectrum.widths.tolist().index(int(width))
    rotated = float(full.spectrum.correlation[place].mean())
    assert f"rotations of the layer {rotated:.3g}" in claims["independence"].evidence


def test_a_power_law_is_that_of_the_raw_errors():
    found = profile(noise=2.0, held_out=False, widths=[2, 3, 4, 6, 8, 12, 16, 32])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.UndefinedWarning)
        law = found.power_law(asymptote=0.0)
        direct = fit_power_law(
            [2, 3, 4, 6, 8, 12, 16], found.fitted.raw[:-1], asymptote=0.0
        )
        late = found.power_law(asymptote=0.0, least_width=4)
        later = fit_power_law([4, 6, 8, 12, 16], found.fitted.raw[2:-1], asymptote=0.0)
    assert plain(vars(law)) == plain(vars(direct))
    assert plain(vars(late)) == plain(vars(later)) != plain(vars(law))


def test_without_errors_there_is_no_power_law():
    with pytest.raises(ValueError, match=r"this profile has none.*no labels"):
        profile(errors=False).power_law()


@pytest.mark.parametrize("select", ["pivoted", "random"])
def test_what_is_kept_is_measured_on_the_data(full, select):
    kept = full.keep(width=6, select=select, generator=seeded(2))
    consumer = full.consumer
    expected = keep(
        full.covariance,
        consumer.weight,
        consumer.bias,
        width=6,
        select=select,
        generator=seeded(2),
    )
    assert torch.equal(kept.neurons, expected.neurons)
    assert torch.equal(kept.weight, expected.weight)
    matrix = planted.mixing(8, 4)
    for measured, given in (
        (kept.measured, read_equally(matrix, 300, 0.1)),
        (kept.held_out, read_equally(matrix, 200, 0.1, seed=50)),
    ):
        h, y, weight = given
        z, new = h @ weight.T, kept.outputs(h)
        rms = float((new - z).square().sum(1).mean().sqrt())
        scale = float((z - z.mean(0)).square().sum(1).mean().sqrt())
        assert measured.count == len(h)
        assert measured.rms == pytest.approx(rms)
        assert measured.relative == pytest.approx(rms / scale)
        assert measured.decisions == float(
            (z.argmax(1) != new.argmax(1)).double().mean()
        )
        assert measured.error_after == float((new.argmax(1) != y).double().mean())
    # What the covariance predicts is what the samples show.
    assert kept.measured.rms == pytest.approx(kept.change.rms, rel=1e-9)
    assert kept.measured.relative == pytest.approx(kept.change.relative, rel=1e-9)
    assert kept.measured.largest <= kept.change.largest


def test_a_layer_that_nothing_reads_is_kept_as_itself():
    found = profile(errors=False, noise=0.0)
    kept = found.keep(tolerance=0.0)
    assert (kept.width, kept.measured, kept.held_out) == (4, None, None)
    h = read_equally(planted.mixing(8, 4), 300, 0.0)[0]
    torch.testing.assert_close(kept.outputs(h), h, rtol=0, atol=1e-9)
    of_covariance = lp.clone_profile_covariance(Covariance.of(h), repeats=2)
    assert of_covariance.keep(tolerance=0.0).width == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither"),
        ({"width": 2, "tolerance": 0.1}, "both"),
        ({"width": 33}, "at most the layer's, 32"),
        ({"tolerance": -1.0}, "`tolerance`"),
        ({"width": 2, "select": "random"}, "`generator`"),
    ],
)
def test_keeps_nothing_unless_told_how_much(full, arguments, message):
    with pytest.raises(ValueError, match=message):
        full.keep(**arguments)


def test_a_table_has_a_row_for_each_width(full):
    frame = full.to_frame()
    assert frame["width"].tolist() == list(full.widths)
    for name, curves in (("fitted", full.fitted), ("held_out", full.held_out)):
        for key, values in curves.means("complement").items():
            assert frame[f"{name}_{key}"].tolist() == pytest.approx(
                values.tolist(), nan_ok=True
            )
        for key, values in curves.spreads("complement").items():
            assert frame[f"{name}_{key}_spread"].tolist() == pytest.approx(
                values.tolist(), nan_ok=True
            )
    assert frame["correlation_floor"].tolist() == full.floor.tolist()
    assert not any("untrained" in name for name in frame)
    # Each of 2 sets: 6 means, 5 spreads; width and floor.
    assert frame.shape == (6, 24)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"held_out": False},
        {"errors": False},
        {"widths": "all"},
        {"widths": [3]},
        {"scope": "all"},
        {"paper": True},
    ],
    ids=str,
)
def test_is_a_dictionary_of_numbers_and_none(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.UndefinedWarning)
        found = profile(**options)
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["widths"] == list(found.widths)
    assert content["scope"] == found.scope
    assert content["paper"] is found.paper
    assert (content["held_out"] is None) == (options.get("held_out") is False)
    assert [claim["name"] for claim in content["claims"]] == list(CLAIMS)
    assert content["shared"] == found.shared
    assert content["cause"] == list(found.cause)


def test_the_whole_scope_is_judged_by_all_neurons():
    found = profile(scope="all", held_out=False)
    r_squared = found.fitted.r_squared["all"].mean(1)
    enough = r_squared >= found.reconstruction_least
    expected = min(w for w, ok in zip(found.widths, enough.tolist(), strict=True) if ok)
    assert found.critical["reconstruction"].width == expected
    assert found.spectrum.scope == "all"


def test_too_few_samples_show_no_clones_in_sample():
    with pytest.warns(UserWarning, match="more samples"):
        found = lp.clone_profile_features(normal(12, 32), repeats=6)
    assert found.num_clones == 1


def test_held_out_data_without_labels_are_not_read_but_reconstructed():
    features, labels = normal(200, 8), torch.arange(200) % 3
    weight = normal(3, 8, seed=1)
    found = lp.clone_profile_features(
        features, labels, weight=weight, eval_features=features, repeats=3
    )
    assert list(found.critical) == ["interpolation", "reconstruction"]


def test_held_out_labels_may_lack_a_class_where_nothing_reads_the_layer():
    features, labels = normal(60, 8), torch.arange(60) % 3
    found = lp.clone_profile_features(
        features, labels, eval_features=features, eval_labels=labels % 2, repeats=2
    )
    assert found.held_out is not None


def test_a_loader_that_is_read_once_has_no_untrained_copy():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    batches = iter([(normal(50, 4).float(), torch.arange(50) % 2)])
    found = lp.clone_profile(model, batches, repeats=2)
    assert found.untrained is None
    assert any("read once" in cause for cause in found.cause)
