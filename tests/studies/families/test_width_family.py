import math
import warnings

import pytest
import torch
from torch import nn

from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    NonFiniteError,
    UndefinedWarning,
)
from layerpeel.measurement.clones import draw_chunks
from layerpeel.studies.families import draw_subsets, width_family
from tests.studies.families.networks import Features, data, loader, random_network

X, Y = data()
LOADER = loader(X, Y)
COUNTS = {4: 6, 6: 3, 12: 3}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def networks(counts=COUNTS, **options):
    return {
        w: [random_network(w, s, **options) for s in range(n)]
        for w, n in counts.items()
    }


def measured(given, batches=LOADER, **options):
    return width_family(given, batches, generator=seeded(), **options)


@torch.no_grad()
def logits_of(model, x=X):
    model.eval()
    return model(x)


def error_of(logits, y=Y):
    return float((logits.argmax(1) != y).double().mean())


def features_of(model, x=X):
    model.eval()
    with torch.no_grad():
        return model[:-1](x)


def folded_error(model, chunk, fit_x):
    """Reconstruct all neurons by least squares on the data, and apply the whole head."""
    fit, h = features_of(model, fit_x), features_of(model)
    mean = fit.mean(0)
    found = torch.linalg.lstsq(
        fit[:, chunk] - mean[chunk], fit - mean, driver="gelsd"
    ).solution
    rebuilt = (h[:, chunk] - mean[chunk]) @ found + mean
    rebuilt[:, chunk] = h[:, chunk]
    with torch.no_grad():
        return error_of(model[-1](rebuilt))


@pytest.mark.parametrize("train", [False, True])
def test_every_curve_equals_a_direct_computation(train):
    given, fit_x = networks(), data(80, seed=5)[0] if train else X
    train_loader = loader(fit_x, torch.zeros(80, dtype=torch.int64)) if train else None
    found = measured(
        given,
        repeats=4,
        widths=[12, 5, 2],
        ensemble_repeats=4,
        train_loader=train_loader,
    )
    assert found.widths == (4, 6, 12)
    assert found.members == (3, 2, 1)
    assert found.chunk_widths == (2, 5, 12)
    assert found.samples == 60
    assert found.folded_on == ("train_loader" if train else "loader")
    generator = seeded()
    for i, models in enumerate(given.values()):
        every = torch.stack([logits_of(m) for m in models])
        alone = [error_of(z) for z in every]
        same(found.independent[i], alone)
        same(found.whole[i : i + 1], [error_of(every.sum(0))])
        subsets = draw_subsets(len(models), found.members[i], 4, generator)
        same(found.ensembles[i], [error_of(every[s].sum(0)) for s in subsets])
    raw, folded = {2: [], 5: [], 12: []}, {2: [], 5: [], 12: []}
    for model in given[12]:
        h, head = features_of(model), model[-1]
        for w in (2, 5):
            for chunk in draw_chunks(12, w, 4, generator):
                z = h[:, chunk] @ head.weight.detach()[:, chunk].T + head.bias.detach()
                raw[w].append(error_of(z))
                folded[w].append(folded_error(model, chunk, fit_x))
        raw[12].append(error_of(logits_of(model)))
        folded[12].append(error_of(logits_of(model)))
    for j, w in enumerate((2, 5, 12)):
        same(found.raw[j], raw[w])
        same(found.folded[j], folded[w])
    assert found.error_inf == pytest.approx(float(found.whole[2]))


def same(row, expected):
    """Compare a row, padded with NaN, with the errors it should have."""
    assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-12)
    assert row[len(expected) :].isnan().all()


def clones(width, threshold, bias):
    """Exact copies of one signal: logits 0 and 2 (x - threshold) + bias, in all."""
    weight = torch.stack([torch.zeros(width), torch.full((width,), 2.0 / width)])
    signal = nn.Sequential(
        Shift(threshold), Features(torch.ones(1, width), weight, bias)
    )
    return signal


class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x - self.by


def test_exact_clones_decide_alike_at_every_width_once_the_bias_is_out():
    x = torch.tensor([[-2.0], [-0.5], [0.5], [1.0], [2.0], [4.0]])
    y = torch.tensor([0, 0, 1, 1, 1, 1])
    no_bias = torch.zeros(2)
    # Above 0.75, so that x = 0.5 is wrong: a sixth, at every width, raw or folded.
    given = {8: [clones(8, 0.75, no_bias), clones(8, -0.75, no_bias)]}
    found = measured(given, [(x, y)], widths=[1, 2, 4, 8], repeats=3)
    assert found.raw[:3].tolist() == [[1 / 6] * 6] * 3
    torch.testing.assert_close(found.raw, found.folded, equal_nan=True)
    # Summed they say 1 above 0: no error is left.
    assert found.error_inf == 0.0
    assert found.mean("raw").tolist() == pytest.approx([1 / 6] * 4)


def test_a_bias_spoils_raw_chunks_of_exact_clones_and_not_folded_ones():
    x = torch.tensor([[-2.5], [-1.5], [-1.2], [-0.8], [0.3], [2.0]])
    y = (x[:, 0] > -1).long()  # 2 x + 2 > 0
    given = {8: clones(8, 0.0, torch.tensor([0.0, 2.0]))}
    found = measured(given, [(x, y)], widths=[2, 4, 8], repeats=3, error_inf=0.0)
    # A half says 1 above -2, a quarter above -4.
    assert found.mean("raw").tolist() == pytest.approx([3 / 6, 2 / 6, 0.0])
    assert found.mean("folded").tolist() == [0.0, 0.0, 0.0]


def test_the_order_of_a_loader_and_its_batches_do_not_matter():
    plain = measured(networks(), repeats=3)
    order = torch.randperm(60, generator=seeded(7))

    class Shuffled:
        """In another order at each reading, as a loader of training data is."""

        def __init__(self):
            self.random = seeded(1)

        def __iter__(self):
            order = torch.randperm(60, generator=self.random)
            return iter(loader(X[order], Y[order], batch=7))

    for other in (loader(X[order], Y[order], 60), Shuffled()):
        again = measured(networks(), other, repeats=3)
        for name in ("independent", "ensembles", "whole", "raw", "folded"):
            torch.testing.assert_close(
                getattr(again, name), getattr(plain, name), equal_nan=True
            )


def test_networks_and_random_states_are_left_as_they_were():
    given = networks()
    for model in given[6]:
        model.eval()
    before = {
        w: [{k: v.clone() for k, v in m.state_dict().items()} for m in ms]
        for w, ms in given.items()
    }
    state = torch.random.get_rng_state()
    measured(given, repeats=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    for w, models in given.items():
        for model, old in zip(models, before[w], strict=True):
            assert all(m.training == (w != 6) for m in model.modules())
            assert not any(m._forward_hooks for m in model.modules())
            assert all(torch.equal(v, old[k]) for k, v in model.state_dict().items())


def test_one_network_of_each_width_has_errors_but_no_excess():
    given = {w: ms[0] for w, ms in networks().items()}
    with pytest.warns(UndefinedWarning) as caught:
        found = measured(given, repeats=2)
    said = " ".join(str(w.message) for w in caught)
    assert "4 needs 3, 6 needs 2" in said
    assert "infinitely wide network is undefined" in said
    assert math.isnan(found.error_inf)
    assert found.ensembles[:2].isnan().all()
    assert found.ensembles[2, 0] == found.independent[2, 0] == found.whole[2]


def test_a_module_list_is_several_networks():
    models = [random_network(4, s) for s in range(2)]
    listed = measured({4: models}, repeats=2)
    torch.testing.assert_close(
        measured({4: nn.ModuleList(models)}, repeats=2).independent, listed.independent
    )


def test_ensembles_of_asked_sizes_and_none_elsewhere():
    found = measured(networks(), repeats=2, members={4: 6})
    assert found.members == (6, 0, 0)
    assert found.ensembles[0].tolist() == [float(found.whole[0])]
    assert found.ensembles[1:].isnan().all()


def test_a_single_logit_tells_two_classes():
    x = torch.tensor([[-1.0], [2.0], [3.0]])
    y = torch.tensor([0, 1, 0])
    model = Features(torch.ones(1, 4), torch.full((1, 4), 0.25))
    found = measured({4: model}, [(x, y)], repeats=2, error_inf=0.0, num_classes=2)
    assert found.mean("raw").tolist() == [pytest.approx(1 / 3)]
    assert found.independent.item() == pytest.approx(1 / 3)


def test_train_data_may_be_read_once_with_the_held_out_data():
    twice = measured(networks(), repeats=2, train_loader=LOADER)
    once = measured(networks(), iter(LOADER), repeats=2, train_loader=iter(LOADER))
    torch.testing.assert_close(once.folded, twice.folded, equal_nan=True)
    with pytest.raises(BatchError, match="is read twice"):
        measured(networks(), iter(LOADER), repeats=2)


def broken(width, seed):
    model = random_network(width, seed)
    with torch.no_grad():
        model[-1].bias[0] = torch.nan
    return model


TWO = [random_network(4, 0), random_network(4, 1)]


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({}, {}, ValueError, "at least one width"),
        ({4: []}, {}, ValueError, "at least one network of every width; got none of 4"),
        ({0: TWO}, {}, ValueError, "a width of `networks`"),
        ({4: [TWO[0], TWO[0]]}, {}, ValueError, "only 1 differ"),
        ({5: TWO}, {}, HeadError, "network 0 of width 5 has 4"),
        (
            {4: [*TWO, random_network(4, 3, classes=2)]},
            {}, HeadError, "by width, 4: 2, 3",
        ),
        (
            {4: TWO, 6: [random_network(6, s, classes=2) for s in range(2)]},
            {}, HeadError, "same number of classes",
        ),
        ({4: TWO}, {"num_classes": 4}, HeadError, "`num_classes` is 4"),
        ({4: TWO}, {"head": "5x"}, HeadError, "In network 0 of width 4"),
        ({4: TWO}, {"widths": [2, 2]}, ValueError, "`widths` must be distinct; got 2, 2"),
        ({4: TWO}, {"widths": [5]}, ValueError, "at most the 4 neurons"),
        ({4: TWO}, {"widths": []}, ValueError, "at least one width"),
        ({4: TWO}, {"repeats": 0}, ValueError, "`repeats`"),
        ({4: TWO}, {"ensemble_repeats": 0}, ValueError, "`ensemble_repeats`"),
        ({4: TWO}, {"members": {4: 3}}, ValueError, "needs as many; got 2"),
        ({4: TWO}, {"members": {6: 1}}, ValueError, "width 6 needs as many; got 0"),
        ({4: TWO}, {"error_inf": 1.5}, ValueError, "share from 0 to 1; got 1.5"),
        ({4: TWO}, {"least_width": 0}, ValueError, "`least_width`"),
        ({4: TWO}, {"batches": []}, BatchError, "`loader` must yield at least one"),
        ({4: TWO}, {"train_loader": []}, BatchError, "`train_loader` must yield"),
        ({4: TWO}, {"batches": [(X, Y + 1)]}, LabelError, "must lie in"),
        (
            {4: [TWO[0], broken(4, 1)]},
            {}, NonFiniteError, "network 1 of width 4 must be finite; 60 of 60",
        ),
    ],
)  # fmt: skip
def test_bad_input_says_what_must_hold(given, options, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        with pytest.raises(error, match=message):
            measured(given, **({"repeats": 2} | options))
    for model in TWO:
        assert model.training


def test_a_network_elsewhere_is_refused():
    with pytest.raises(ValueError, match="same device"):
        measured({4: [TWO[0], random_network(4, 5).to("meta")]}, repeats=2)
