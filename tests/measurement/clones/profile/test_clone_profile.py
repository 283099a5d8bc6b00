import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch import nn

import layerpeel as lp
from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    LayerError,
    NonFiniteError,
    ShapeError,
)
from layerpeel.measurement.clones import draw_chunks, dyadic_sizes, untrained
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones import planted, slow
from tests.measurement.clones.layers import correlated, degenerate, normal, seeded

READINGS = ("raw", "rescaled", "folded")
SCOPES = ("all", "complement")


def labelled(h, classes=3, seed=20):
    """A classifier of some rows, and labels that it mostly gets right."""
    weight = normal(classes, h.shape[1], seed=seed) / h.std(0).clamp(min=1e-9)
    weight = weight - weight.mean(0)
    bias = -weight @ h.mean(0)
    noise = normal(len(h), classes, seed=seed + 1)
    return (h @ weight.T + bias + noise).argmax(1), weight, bias


def of_one_scale(samples, width):
    """Correlated neurons, far from the origin, none of which hardly varies."""
    rows = correlated(samples=samples, width=width)
    return rows / rows.std(0) * torch.logspace(-0.5, 0.5, width).double()


def setting(width=9):
    """Training and held-out rows, whose mean is elsewhere, labels and a classifier."""
    rows = of_one_scale(150, width)
    y, weight, bias = labelled(rows)
    held_out = rows[90:] + 0.4 * rows.std(0)
    return rows[:90], y[:90], held_out, y[90:], weight, bias


def chunks_of(width, repeats, widths=None, seed=0):
    generator = seeded(seed)
    return {
        w: draw_chunks(width, w, repeats, generator)
        for w in widths or dyadic_sizes(width)
    }


def assert_profile_is(profile, fitted, sets, weight, bias, *, paper, repeats=3):
    """Compare everything below the layer's width with regressions on the data."""
    v, b = weight.numpy(), bias.numpy()
    chunks = chunks_of(profile.width, repeats)
    assert list(chunks) == list(profile.widths)
    for curves, (rows, y) in zip((profile.fitted, profile.held_out), sets, strict=True):
        for i, w in enumerate(profile.widths[:-1]):
            for j, chunk in enumerate(chunks[w]):
                s = chunk.numpy()
                for scope in SCOPES:
                    expected = slow.r_squared(fitted, rows, s, scope, paper=paper)
                    found = float(curves.r_squared[scope][i, j])
                    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
                    expected = slow.residual_correlation(
                        fitted, rows, s, scope, paper=paper
                    )
                    found = float(curves.correlation[scope][i, j])
                    # Elsewhere a ridge leaves of the chunk itself what rounding hides.
                    hidden = paper and curves is profile.held_out
                    slack = 1e-3 if hidden else 1e-6
                    assert found == pytest.approx(expected, abs=slack)
                for reading in READINGS:
                    expected = slow.error(
                        fitted, rows, y.numpy(), v, b, s, reading, paper=paper
                    )
                    assert float(curves.errors[reading][i, j]) == expected
        full = (slow.decisions(rows @ v.T + b) != y.numpy()).mean()
        assert curves.full_error == full
        assert all(bool((curves.errors[r][-1] == full).all()) for r in READINGS)
        assert bool((curves.r_squared["all"][-1] == 1).all())
        assert bool(curves.r_squared["complement"][-1].isnan().all())
        assert bool((curves.correlation["all"][-1] == 0).all())
        assert float(curves.expected[-1]) == pytest.approx(full)


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
def test_is_what_one_regression_for_each_chunk_gives(paper, scope):
    h, y, held_out, held_out_y, weight, bias = setting()
    profile = lp.clone_profile_features(
        h,
        y,
        weight=weight,
        bias=bias,
        eval_features=held_out,
        eval_labels=held_out_y,
        repeats=3,
        scope=scope,
        paper=paper,
    )
    sets = [(h.numpy(), y), (held_out.numpy(), held_out_y)]
    assert_profile_is(profile, h.numpy(), sets, weight, bias, paper=paper)
    assert profile.shared == pytest.approx(
        slow.leave_one_out(h.numpy(), held_out.numpy()), rel=1e-6
    )
    assert (profile.scope, profile.paper, profile.num_samples) == (scope, paper, 90)


def test_single_precision_gives_the_same_up_to_its_rounding():
    h, y, held_out, held_out_y, weight, bias = setting()
    given_ = {"weight": weight, "bias": bias, "eval_labels": held_out_y, "repeats": 3}
    double = lp.clone_profile_features(h, y, eval_features=held_out, **given_)
    single = lp.clone_profile_features(
        h.float(), y, eval_features=held_out.float(), **given_
    )
    for scope in SCOPES:
        for table in ("r_squared", "correlation"):
            torch.testing.assert_close(
                getattr(single.scored, table)[scope],
                getattr(double.scored, table)[scope],
                rtol=1e-4,
                atol=1e-4,
                equal_nan=True,
            )


@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_features_of_any_type_are_computed_with_in_double_precision(kind):
    h = (normal(60, 6) * 3).to(kind) if kind != torch.bool else normal(60, 6) > 0
    found = lp.clone_profile_features(h, repeats=2)
    rows = h.to(torch.float64).numpy()
    chunk = chunks_of(6, 2)[3][1].numpy()
    expected = slow.r_squared(rows, rows, chunk, "complement")
    at = found.fitted.r_squared["complement"][1, 1]
    assert float(at) == pytest.approx(expected, rel=1e-9)


def test_lists_and_numpy_arrays_are_features_too():
    h, y, _, _, weight, bias = setting()
    found = [
        lp.clone_profile_features(a(h), a(y), weight=a(weight), bias=a(bias), repeats=2)
        for a in (torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist)
    ]
    # Lists of numbers are read as single precision.
    assert found[0].to_dict() == found[1].to_dict()
    near = pytest.approx(found[0].shared, rel=1e-3)
    assert found[2].shared == near


@pytest.mark.parametrize("held_out", [False, True])
def test_a_covariance_gives_the_same_reconstruction(held_out):
    h, _, other, _, _, _ = setting()
    pair = [Covariance.of(h)] + [Covariance.of(other)] * held_out
    found = lp.clone_profile_covariance(*pair, repeats=4)
    expected = lp.clone_profile_features(
        h, eval_features=other if held_out else None, repeats=4
    )
    assert found.shared == pytest.approx(expected.shared, rel=1e-9)
    for scope in SCOPES:
        torch.testing.assert_close(
            found.scored.r_squared[scope],
            expected.scored.r_squared[scope],
            equal_nan=True,
        )
        torch.testing.assert_close(
            found.scored.correlation[scope],
            expected.scored.correlation[scope],
            equal_nan=True,
        )
    assert not found.scored.has_errors
    assert found.cause == ("A covariance has no samples to read chunks on.",)


@pytest.mark.parametrize("held_out", [False, True])
def test_all_widths_are_those_of_direct_regressions(held_out):
    h, y, other, other_y, weight, bias = setting(width=8)
    other, other_y = (other, other_y) if held_out else (None, None)
    found = lp.clone_profile_features(
        h,
        y,
        weight=weight,
        bias=bias,
        eval_features=other,
        eval_labels=other_y,
        widths="all",
        repeats=2,
    )
    assert found.widths == tuple(range(1, 9))
    generator = seeded()
    chunks = {w: draw_chunks(8, w, 2, generator) for w in (1, 2, 4, 8)}
    orders = [torch.randperm(8, generator=generator) for _ in range(2)]
    rows = (h if other is None else other).numpy()
    for w in range(1, 8):
        for j in range(2):
            chunk = (chunks[w][j] if w in chunks else orders[j][:w]).numpy()
            for scope in SCOPES:
                expected = slow.r_squared(h.numpy(), rows, chunk, scope)
                at = float(found.scored.r_squared[scope][w - 1, j])
                assert at == pytest.approx(expected, rel=1e-6)
    detailed = torch.tensor([w in chunks for w in found.widths])
    for table in (found.scored.raw, found.scored.correlation["all"]):
        assert torch.equal(~table.isnan().any(1), detailed)
    assert torch.equal(~found.scored.expected.isnan(), detailed)


# A network ----------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.body = nn.Linear(5, 12)
        self.drop = nn.Dropout(0.5)
        self.wide = nn.Linear(12, width)
        self.head = nn.Linear(width, 3)
        nn.init.constant_(self.wide.bias, 0.5)

    def forward(self, x):
        return self.head(self.features(x))

    def features(self, x):
        return torch.relu(self.wide(self.drop(torch.relu(self.body(x)))))


def network(module=Net):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return module().double()


def batches(n=80, seed=30):
    x = normal(n, 5, seed=seed)
    y = (x @ normal(5, 3, seed=1)).argmax(1)
    return list(zip(x.split(32), y.split(32), strict=True))


def rows_of(model, loader):
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model.features(x) for x, _ in loader])


def labels_of(loader):
    return torch.cat([y for _, y in loader])


@pytest.mark.parametrize("layer", ["head input", "wide"])
def test_a_network_gives_what_its_features_give(layer):
    model, loader, other = network(), batches(), batches(60, seed=40)
    profile = lp.clone_profile(
        model, loader, layer, eval_loader=other, repeats=3, untrained_null=False
    )
    sets = [(rows_of(model, data).numpy(), labels_of(data)) for data in (loader, other)]
    head = model.head.weight.detach(), model.head.bias.detach()
    assert_profile_is(profile, sets[0][0], sets, *head, paper=False)
    assert profile.layer == layer
    assert profile.consumer.name == "head"
    assert profile.cause == ("No untrained copy was asked for.",)


def test_chunks_of_a_hidden_layer_are_read_by_the_rest_of_the_network():
    model, loader = network(), batches(40)
    profile = lp.clone_profile(model, loader, "body", widths=[2, 5, 12], repeats=6)
    evaluated = copy.deepcopy(model).eval()
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    with torch.no_grad():
        h = torch.relu(evaluated.body(x))
    generator = seeded()
    untrained(model, generator)
    chunks = {w: draw_chunks(12, w, 6, generator) for w in (2, 5)}

    def error(rows):
        with torch.no_grad():
            logits = evaluated.head(torch.relu(evaluated.wide(rows)))
        return float((logits.argmax(1) != y).double().mean())

    assert profile.fitted.full_error == error(h)
    for i, w in enumerate(profile.widths[:-1]):
        for j in range(5):
            chunk = chunks[w][j]
            masked = torch.zeros_like(h)
            masked[:, chunk] = h[:, chunk]
            back = slow.regression(h.numpy(), chunk.numpy()).predict(h[:, chunk])
            edited = (masked, 12 / w * masked, torch.from_numpy(back))
            found = [float(profile.fitted.errors[r][i, j]) for r in READINGS]
            assert found == [error(rows) for rows in edited]
        assert bool(profile.fitted.raw[i, 5:].isnan().all())
    assert bool((profile.fitted.raw[-1] == error(h)).all())
    assert profile.consumer.name == "wide"
    assert not profile.consumer.weight.equal(model.head.weight)


def test_the_untrained_null_is_the_profile_of_the_copy():
    model, loader = network(), batches()
    profile = lp.clone_profile(model, loader, repeats=4)
    generator = seeded()
    fresh = untrained(model, generator)
    h = rows_of(fresh, loader)
    expected = lp.clone_profile_features(h, repeats=4, generator=generator)
    for scope in SCOPES:
        for table in ("r_squared", "correlation"):
            found = getattr(profile.untrained, table)[scope]
            wanted = getattr(expected.fitted, table)[scope]
            torch.testing.assert_close(found, wanted, equal_nan=True)
    assert profile.untrained.count == 80
    assert not profile.untrained.has_errors


def test_profiling_leaves_the_model_and_all_randomness_alone():
    model, loader = network(), batches()
    model.train()
    model.wide.eval()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(11)
    np.random.seed(11)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for layer in ("head input", "body"):
        lp.clone_profile(
            model, loader, layer, widths=[2, 5], repeats=1, eval_loader=loader
        )
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    flags = {name: module.training for name, module in model.named_modules()}
    assert flags == {"": True, "body": True, "drop": True, "wide": False, "head": True}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_same_seed_gives_the_same_profile_and_another_another():
    model, loader = network(), batches()
    content = [
        lp.clone_profile(model, loader, repeats=3, generator=generator).to_dict()
        for generator in (None, seeded(0), seeded(1))
    ]
    assert content[0] == content[1] != content[2]


def test_features_that_do_not_fit_into_memory_are_computed_again():
    model, loader = network(), batches()
    kept = lp.clone_profile(model, loader, repeats=2)
    again = lp.clone_profile(model, loader, repeats=2, cache_bytes=0)
    assert again.scored.raw.equal(kept.scored.raw)
    assert again.shared == pytest.approx(kept.shared, rel=1e-12)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.one, self.two = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.one(h) + self.two(h)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = (
            nn.Linear(5, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        return self.head(self.norm(torch.relu(self.body(x))))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.head(self.scale * torch.relu(self.body(x)))


@pytest.mark.parametrize(
    ("module", "layer", "cause"),
    [
        (TwoHeads, "body", "two consumers"),
        (Normed, "body", "no linear layer"),
        (Scaled, "head input", "`reset_parameters`"),
    ],
)
def test_what_a_network_does_not_have_is_said(module, layer, cause):
    profile = lp.clone_profile(
        network(module), batches(), layer, widths=[3, 8], repeats=1
    )
    assert any(cause in sentence for sentence in profile.cause)
    assert (profile.consumer is None) == (layer == "body")
    assert (profile.untrained is None) == (module is Scaled)
    assert profile.fitted.has_errors
    kept = profile.keep(width=4)
    assert (kept.measured is None) == (layer == "body")
    assert kept.weight.shape[0] == (8 if layer == "body" else 3)


def test_a_single_logit_decides_by_its_sign():
    class One(Net):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 1)

    model = network(One)
    loader = [(x, y % 2) for x, y in batches()]
    profile = lp.clone_profile(model, loader, repeats=3, untrained_null=False)
    h, y = rows_of(model, loader).numpy(), labels_of(loader).numpy()
    v, b = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    for i, w in enumerate(profile.widths[:-1]):
        for j, chunk in enumerate(chunks_of(8, 3)[w]):
            for reading in READINGS:
                expected = slow.error(h, h, y, v, b, chunk.numpy(), reading)
                assert float(profile.fitted.errors[reading][i, j]) == expected
    assert bool(profile.fitted.expected.isnan().all())


# Planted clones -----------------------------------------------------------------------


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("clones", "signals"), [(8, 3), (4, 6)])
@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_planted_clones_have_the_curves_of_their_population(
    clones, signals, aligned, noise
):
    matrix = planted.mixing(clones, signals, aligned=aligned)
    _, h = planted.layer(matrix, 12_000, noise)
    _, other = planted.layer(matrix, 12_000, noise, seed=1)
    profile = lp.clone_profile_features(h, eval_features=other, repeats=10)
    population = planted.covariance(matrix, noise)
    expected = []
    for i, (w, chunks) in enumerate(chunks_of(24, 10).items()):
        if w == 24:
            continue
        at = [planted.r_squared(population, chunk) for chunk in chunks]
        missed = [planted.residual_correlation(population, chunk) for chunk in chunks]
        expected.append(np.mean(at))
        for curves, slack in ((profile.fitted, 0.02), (profile.held_out, 0.03)):
            r_squared = curves.r_squared["complement"][i].tolist()
            assert r_squared == pytest.approx(at, abs=slack)
            correlation = curves.correlation["complement"][i].tolist()
            assert correlation == pytest.approx(missed, abs=0.03)
    least = 0.99 * planted.shared(population)
    enough = [w for w, r in zip(dyadic_sizes(24), expected, strict=False) if r >= least]
    fitted = lp.clone_profile_features(h, repeats=10)
    assert fitted.shared == pytest.approx(planted.shared(population), abs=0.01)
    found = fitted.critical["reconstruction"]
    assert found.width == min([*enough, 24])
    assert found.clones == 24 / found.width


@pytest.mark.parametrize(
    ("noise", "width", "clones"),
    # One neuron holds `w / (w + noise^2)` of what all of them hold, nearly: to reach 99 %
    # it takes 99 noise^2.
    [(0.0, 1, 64), (0.05, 1, 64), (0.2, 4, 16), (0.4, 16, 4)],
)
def test_neurons_that_carry_one_signal_are_as_many_clones_as_computed_by_hand(
    noise, width, clones
):
    g = seeded(5)
    y = torch.randint(2, (4000,), generator=g)
    signal = (2.0 * y - 1)[:, None].double()
    signs = 2.0 * torch.randint(2, (64,), generator=g).double() - 1
    h = signal * signs + noise * normal(4000, 64)
    weight = (
        torch.stack([-signs, signs]) / 64
    )  # each neuron is read as much as any other
    profile = lp.clone_profile_features(h, y, weight=weight, repeats=5)
    assert profile.fitted.full_error == 0
    assert (profile.critical_width, profile.num_clones) == (width, clones)
    assert profile.critical["interpolation"].width <= width
    assert profile.critical["readout"].width <= width
    for i, w in enumerate(profile.widths[:-1]):
        expected = w / (w + noise**2) / (1 + noise**2) if noise else 1.0
        means = profile.fitted.means("complement")
        assert float(means["r_squared"][i]) == pytest.approx(expected, abs=5e-3)
        if noise:
            # The error of the signal is shared by all that are outside.
            shared = 1 / (1 + w + noise**2)
            correlation = float(means["residual_correlation"][i])
            assert correlation == pytest.approx(shared, abs=0.02)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("clones", "signals"), [(8, 4), (3, 10), (32, 1)])
def test_of_exact_clones_one_is_kept_and_no_output_moves(clones, signals, aligned):
    matrix = planted.mixing(clones, signals, aligned=aligned)
    s, h = planted.layer(matrix, 500, 0.0)
    other_s, other = planted.layer(matrix, 300, 0.0, seed=2)
    read = normal(3, signals, seed=8)
    weight = read @ torch.linalg.pinv(matrix)
    y, other_y = ((x @ read.T).argmax(1) for x in (s, other_s))
    profile = lp.clone_profile_features(
        h, y, weight=weight, eval_features=other, eval_labels=other_y, repeats=4
    )
    kept = profile.keep(tolerance=0.0)
    assert (kept.width, kept.rank) == (signals, signals)
    for rows, measured in ((h, kept.measured), (other, kept.held_out)):
        moved = kept.outputs(rows) - rows @ weight.T
        assert float(moved.abs().max()) < 1e-9
        assert measured.largest < 1e-9
        assert (measured.decisions, measured.error_after) == (0, measured.error_before)
    assert profile.shared == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_any_clone_that_is_read_as_all_others_are_is_as_good_as_the_layer(noise):
    matrix = planted.mixing(6, 4)
    s, h = planted.layer(matrix, 800, noise)
    read = normal(3, 4, seed=8)
    y = (s @ read.T).argmax(1)
    weight = read @ matrix.T / 6
    whole = float(((h @ weight.T).argmax(1) != y).double().mean())
    profile = lp.clone_profile_features(h, y, weight=weight, widths=[4], repeats=2)
    assert profile.fitted.full_error == whole
    for c in range(6):
        one = h[:, 4 * c : 4 * c + 4] @ weight[:, 4 * c : 4 * c + 4].T
        error = float((one.argmax(1) != y).double().mean())
        assert error == 0 if noise == 0 else error > whole


# Layers without clones ------------------------------------------------------------------


def gaussian(samples, width, seed):
    return normal(samples, width, seed=seed)


def sparse(samples, width, seed):
    return normal(samples, width, seed=seed).relu()


def random_features(samples, width, seed):
    x = normal(samples, 40, seed=seed)
    return (x @ normal(40, width, seed=seed + 1)).relu()


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([gaussian, sparse, random_features]),
    st.sampled_from([200, 40, 10]),
)
def test_independent_random_features_have_no_clones(seed, draw, samples):
    h = draw(samples + 100, 16, seed)
    y, weight, bias = labelled(h, seed=seed)
    held_out = {"eval_features": h[samples:], "eval_labels": y[samples:]}
    if samples < 16:
        with pytest.warns(UserWarning, match="more samples than neurons"):
            found = lp.clone_profile_features(
                h[:samples],
                y[:samples],
                weight=weight,
                bias=bias,
                repeats=6,
                **held_out,
            )
    else:
        found = lp.clone_profile_features(
            h[:samples], y[:samples], weight=weight, bias=bias, repeats=6, **held_out
        )
    assert found.num_clones == 1
    survives = {claim.name: claim.survives for claim in found.claims}
    assert survives["reconstruction"] is False
    assert survives["readout"] is None
    if samples > 16:
        alone = lp.clone_profile_features(h[:samples], repeats=6)
        assert alone.num_clones == 1
        assert not any(
            claim.survives and claim.name != "independence" for claim in alone.claims
        )


def test_residuals_of_independent_neurons_are_as_uncorrelated_as_chance():
    profile = lp.clone_profile_features(normal(400, 32), repeats=10)
    assert {c.name: c.survives for c in profile.claims}["independence"] is True
    means = profile.fitted.means("complement")["residual_correlation"]
    ratio = means[:-1] / profile.floor[:-1]
    assert bool(((ratio - 1).abs() < 0.1).all())
    held_out = lp.clone_profile_features(
        normal(400, 32), eval_features=normal(300, 32, seed=9), repeats=10
    )
    means = held_out.scored.means("complement")["residual_correlation"]
    ratio = means[:-1] / held_out.floor[:-1]
    assert bool(((ratio - 1).abs() < 0.1).all())


def test_random_rotations_are_those_of_the_data():
    h = correlated(samples=70, width=16)
    profile = lp.clone_profile_features(h, repeats=2)
    g = np.random.default_rng(0)
    rows = h.numpy()
    assert profile.spectrum.widths.tolist() == [1, 2, 4, 8]
    for i, w in enumerate((1, 2, 4, 8)):
        scores, correlations = [], []
        for _ in range(40):
            q, r = np.linalg.qr(g.normal(size=(16, 16)))
            turned = rows @ (q * np.sign(np.diag(r)))
            chunk = np.arange(w)
            scores.append(slow.r_squared(turned, turned, chunk, "complement"))
            correlations.append(
                slow.residual_correlation(turned, turned, chunk, "complement")
            )
        for found, direct in (
            (profile.spectrum.r_squared[i], scores),
            (profile.spectrum.correlation[i], correlations),
        ):
            error = np.std(direct) * math.sqrt(1 / 40 + 1 / found.numel())
            assert abs(float(found.mean()) - np.mean(direct)) < 4.5 * error


# Degenerate data ------------------------------------------------------------------------


def test_fewer_samples_than_neurons_are_said_and_held_out_scores_are_right():
    h = of_one_scale(60, 16)
    fitted, scored = h[:10], h[10:]
    with pytest.warns(UserWarning, match="got 10 for 16"):
        found = lp.clone_profile_features(fitted, eval_features=scored, repeats=3)
    assert found.rank_deficient
    for i, (w, chunks) in enumerate(chunks_of(16, 3).items()):
        for j, chunk in enumerate(chunks if w < 16 else []):
            s = chunk.numpy()
            for scope in SCOPES:
                expected = slow.r_squared(fitted.numpy(), scored.numpy(), s, scope)
                at = float(found.held_out.r_squared[scope][i, j])
                assert at == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_dead_and_constant_neurons_and_copies_are_no_obstacle():
    h = degenerate(samples=90)
    y, weight, bias = labelled(h[:, [0, 1, 2, 3, 8]])
    weight = torch.cat([weight[:, :4], normal(3, 4), weight[:, 4:]], dim=1)
    found = lp.clone_profile_features(h, y, weight=weight, bias=bias, repeats=8)
    for i, (w, chunks) in enumerate(chunks_of(9, 8).items()):
        for j, chunk in enumerate(chunks if w < 9 else []):
            s = chunk.numpy()
            expected = slow.r_squared(h.numpy(), h.numpy(), s, "complement")
            at = float(found.fitted.r_squared["complement"][i, j])
            assert at == pytest.approx(expected, abs=1e-9)
            raw = slow.error(
                h.numpy(), h.numpy(), y.numpy(), weight.numpy(), bias.numpy(), s, "raw"
            )
            assert float(found.fitted.raw[i, j]) == raw
    assert found.keep(tolerance=0.0).width <= 5


def test_a_chunk_of_dead_neurons_reconstructs_nothing_and_decides_by_the_bias():
    chunks = chunks_of(6, 20, widths=[1])[1][:, 0]
    alive = int(chunks[0])
    h = torch.zeros(60, 6).double()
    h[:, alive] = normal(60)
    y = torch.arange(60) % 3
    bias = torch.tensor([0.0, 1.0, 0.5])
    found = lp.clone_profile_features(
        h, y, weight=normal(3, 6), bias=bias, widths=[1], repeats=20
    )
    dead = chunks != alive
    assert 0 < int(dead.sum()) < 20
    assert bool((found.fitted.r_squared["all"][0, dead].abs() < 1e-12).all())
    assert found.fitted.raw[0, dead].tolist() == pytest.approx(
        [2 / 3] * int(dead.sum())
    )
    assert bool(found.fitted.r_squared["complement"][0, ~dead].isnan().all())


def test_of_constant_features_nothing_is_known():
    found = lp.clone_profile_features(torch.full((20, 4), 0.3), repeats=2)
    assert math.isnan(found.shared)
    assert bool(found.fitted.r_squared["complement"].isnan().all())
    assert (found.num_clones, found.spectrum is None) == (1, False)
    assert {c.survives for c in found.claims} == {None, False}


def test_one_class_and_a_layer_of_one_neuron():
    h, weight = normal(40, 4), normal(3, 4, seed=1)
    y = torch.zeros(40, dtype=torch.int64)
    found = lp.clone_profile_features(h, y, weight=weight, repeats=2)
    assert found.fitted.full_error == float(
        ((h @ weight.T).argmax(1) != 0).double().mean()
    )
    alone = lp.clone_profile_features(h[:, :1], y, weight=weight[:, :1], repeats=2)
    assert (alone.widths, alone.num_clones, alone.spectrum) == ((1,), 1, None)


# Bad input ------------------------------------------------------------------------------

ROWS, LABELS, WEIGHT = normal(30, 6), torch.arange(30) % 3, normal(3, 6, seed=1)
WITH_NAN = ROWS.clone()
WITH_NAN[3, 2] = math.nan
REFUSED = {
    "too wide": ({"widths": [7]}, ValueError, "at most the 6 neurons.*got 7"),
    "no width": ({"widths": []}, ValueError, "`widths`.*got none"),
    "zero": ({"widths": [2, 0]}, ValueError, ">= 1; got 0"),
    "negative": ({"widths": [-1]}, ValueError, ">= 1; got -1"),
    "word": ({"widths": "dyadics"}, ValueError, "Did you mean 'dyadic'"),
    "scope": ({"scope": "everything"}, ValueError, "`scope` must be one of"),
    "repeats": ({"repeats": 0}, ValueError, "`repeats`.*>= 1; got 0"),
    "batch size": ({"batch_size": 0}, ValueError, "`batch_size`"),
    "features": ({"features": WITH_NAN}, NonFiniteError, "1 of 30 samples"),
    "held-out features": (
        {"eval_features": WITH_NAN, "eval_labels": LABELS},
        NonFiniteError,
        "1 of 30 samples",
    ),
    "weights": ({"weight": WEIGHT * math.inf}, NonFiniteError, "finite"),
    "no rows": ({"features": ROWS[:0], "labels": LABELS[:0]}, BatchError, "empty"),
    "vector": ({"features": ROWS[:, 0]}, ShapeError, r"\(n, 6\)"),
    "held-out width": ({"eval_features": ROWS[:, :5]}, ShapeError, "`eval_features`"),
    "held-out rows": ({"eval_features": ROWS[:0]}, BatchError, "`eval_features`"),
    "held-out labels": (
        {"eval_features": ROWS, "eval_labels": LABELS + 1},
        LabelError,
        r"lie in \[0, 3\)",
    ),
    "too few labels": ({"labels": LABELS[:-1]}, ShapeError, r"\(30,\).*\(29,\)"),
    "labels": ({"labels": LABELS - 1}, LabelError, "with the values -1"),
    "bias": ({"bias": torch.zeros(2)}, ShapeError, "`bias`"),
    "bias alone": (
        {"weight": None, "bias": torch.zeros(3)},
        ValueError,
        "`bias` belongs to `weight`",
    ),
    "classes": ({"num_classes": 4}, HeadError, "`num_classes` is 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_arrays(case):
    changed, error, message = REFUSED[case]
    arguments = {"features": ROWS, "labels": LABELS, "weight": WEIGHT} | changed
    features = arguments.pop("features")
    with pytest.raises(error, match=message):
        lp.clone_profile_features(features, **arguments)


NETWORK_REFUSED = {
    "no such layer": ({"layer": "nope"}, LayerError, "none at 'nope'"),
    "empty": ({"loader": []}, BatchError, "`loader` must yield"),
    "exhausted": ({"loader": iter([])}, BatchError, "exhausted"),
    "held-out inputs": (
        {"eval_loader": [(normal(4, 7), torch.zeros(4, dtype=torch.int64))]},
        BatchError,
        "must run on the batches",
    ),
    "held-out classes": (
        {"eval_loader": [(x, y + 2) for x, y in batches()]},
        LabelError,
        r"\[0, 3\)",
    ),
    "once, and too large": (
        {"loader": iter(batches()), "cache_bytes": 0},
        BatchError,
        "`cache_bytes`",
    ),
    "head": ({"head": "body"}, HeadError, "'body'"),
    "classes": ({"num_classes": 5}, HeadError, "`num_classes` is 5"),
    "maps": ({"maps": "means"}, ValueError, "`maps`"),
    "widths": ({"widths": [9]}, ValueError, "at most the 8 neurons"),
}


@pytest.mark.parametrize("case", NETWORK_REFUSED)
def test_refuses_networks(case):
    changed, error, message = NETWORK_REFUSED[case]
    model = network()
    arguments = {"loader": batches(), "repeats": 1} | changed
    with pytest.raises(error, match=message):
        lp.clone_profile(model, **arguments)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(m.training for m in model.modules())


def test_data_that_can_be_read_once_are_enough_without_an_untrained_copy():
    model = network()
    once = lp.clone_profile(model, iter(batches()), untrained_null=False, repeats=2)
    again = lp.clone_profile(model, batches(), untrained_null=False, repeats=2)
    assert once.to_dict() == again.to_dict()


def test_refuses_covariances_of_two_layers():
    with pytest.raises(ShapeError, match=r"6 neurons.*got 5"):
        lp.clone_profile_covariance(Covariance.of(ROWS), Covariance.of(ROWS[:, :5]))


def test_held_out_scores_are_those_of_scikit_learn():
    h, _, held_out, _, _, _ = setting()
    found = lp.clone_profile_features(h, eval_features=held_out, repeats=3, scope="all")
    for i, (w, chunks) in enumerate(chunks_of(9, 3).items()):
        for j, chunk in enumerate(chunks if w < 9 else []):
            fit = LinearRegression().fit(h[:, chunk], h)
            expected = r2_score(
                held_out,
                fit.predict(held_out[:, chunk]),
                multioutput="variance_weighted",
            )
            at = float(found.held_out.r_squared["all"][i, j])
            assert at == pytest.approx(expected, rel=1e-7)


def test_nothing_is_reconstructed_from_neurons_that_hardly_fire():
    h, _, other, _, _, _ = setting()
    h[:, 4], other = 0.0, other.clone()
    silent = lp.clone_profile_features(h, eval_features=other, repeats=5)
    h[7, 4] = 1e-3
    fired = lp.clone_profile_features(h, eval_features=other, repeats=5)
    assert silent.silent.tolist() == fired.silent.tolist() == [4]
    for scope in SCOPES:
        torch.testing.assert_close(
            fired.held_out.r_squared[scope],
            silent.held_out.r_squared[scope],
            rtol=1e-4,
            atol=1e-4,
            equal_nan=True,
        )
    exact = lp.clone_profile_features(h, eval_features=other, repeats=5, paper=True)
    assert float(exact.held_out.r_squared["all"].min()) < -10


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_of_exact_clones_nothing_is_missed_that_could_be_correlated(seed, held_out):
    matrix = planted.mixing(4, 8, seed=seed)
    h, other = (planted.layer(matrix, 300, 0.0, seed=s)[1] for s in (seed, seed + 50))
    found = lp.clone_profile_features(
        h, eval_features=other if held_out else None, widths=[8, 16], repeats=20
    )
    known = found.scored.correlation["complement"]
    assert bool((known.isnan() | (known <= 1)).all())


def test_fewer_samples_than_neurons_at_every_width_equal_least_norm():
    features, other = normal(12, 20), normal(80, 20, seed=1) + 0.3
    with pytest.warns(UserWarning, match="more samples"):
        found = lp.clone_profile_features(
            features, eval_features=other, widths="all", repeats=1
        )
    order = torch.Generator().manual_seed(0)
    for _ in (1, 2, 5, 10, 20):  # as the dyadic chunks are drawn before the orders
        torch.randperm(20, generator=order)
    chunk = torch.randperm(20, generator=order)
    mean = features.mean(0)
    for w in (3, 11, 12, 15, 19):
        inside, rest = chunk[:w], chunk[w:]
        fit = (
            torch.linalg.pinv((features - mean)[:, inside]) @ (features - mean)[:, rest]
        )
        missed = (other - mean)[:, rest] - (other - mean)[:, inside] @ fit
        total = (other - other.mean(0))[:, rest].square().sum()
        expected = float(1 - missed.square().sum() / total)
        got = float(found.held_out.r_squared["complement"][w - 1, 0])
        assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [1, 2])
def test_all_widths_of_the_narrowest_layers(width):
    found = lp.clone_profile_features(normal(50, width), widths="all", repeats=2)
    assert found.widths == tuple(range(1, width + 1))


def test_a_data_loader_leaves_the_random_state_as_it_was():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    data = torch.utils.data.TensorDataset(normal(64, 4).float(), torch.arange(64) % 2)
    loader = torch.utils.data.DataLoader(data, 16)
    before = torch.get_rng_state()
    lp.clone_profile(model, loader, repeats=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_definitions_of_the_paper_count_all_neurons():
    assert (
        lp.clone_profile_features(normal(50, 4), repeats=1, paper=True).scope == "all"
    )
    assert lp.clone_profile_features(normal(50, 4), repeats=1).scope == "complement"


def test_the_paper_has_a_ridge_at_every_width_that_is_asked_for():
    with pytest.raises(ValueError, match="no ridge"):
        lp.clone_profile_features(normal(50, 4), widths="all", paper=True)


def test_held_out_inputs_of_another_shape_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    labels = torch.arange(20) % 2
    train, other = ([(normal(20, n).float(), labels)] for n in (4, 5))
    with pytest.raises(
        lp.LayerpeelError, match=r"`eval_loader` does not fit.*\(20, 5\)"
    ):
        lp.clone_profile(model, train, eval_loader=other, repeats=2)
