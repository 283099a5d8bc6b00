import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    NonFiniteError,
    ShapeError,
    UndefinedWarning,
)
from layerpeel.measurement import Confusion, measure
from tests.measurement.models import MODELS, Wrapped, mlp

LINEAR = MODELS["linear"]


def test_evaluation_data_give_accuracies_only():
    model, train, held_out = mlp(), MODELS["mlp"].data(), MODELS["mlp"].data(seed=5)
    alone, m = measure(model, train), measure(model, train, eval_loader=held_out)
    model.eval()
    with torch.no_grad():
        pairs = [(y, model(x).argmax(1)) for x, y in held_out]
    expected = Confusion.of(*(torch.cat(p) for p in zip(*pairs, strict=True)), 4)
    assert torch.equal(m.eval_confusion.counts, expected.counts)
    assert m.eval_accuracy == expected.accuracy
    assert torch.equal(m.eval_class_accuracy, expected.class_accuracy)
    assert m.nc1() == alone.nc1()
    assert alone.eval_confusion is None


@pytest.mark.parametrize("batch_size", [1, 5, 24], ids="batch={}".format)
def test_batch_size_does_not_matter(batch_size):
    model = mlp().double()
    whole = [(x.double(), y) for x, y in MODELS["mlp"].data(batch=24)]
    parts = [(x.double(), y) for x, y in MODELS["mlp"].data(batch=batch_size)]
    a, b = measure(model, whole), measure(model, parts)
    assert a.nc1() == pytest.approx(b.nc1(), rel=1e-10)
    assert a.energy() == pytest.approx(b.energy(), rel=1e-10)
    assert torch.equal(a.confusion.counts, b.confusion.counts)


def test_non_finite_features_are_counted_by_class():
    batches = LINEAR.data()
    batches[0][0][1, 2] = torch.nan  # class 1
    batches[1][0][0, 0] = torch.inf  # class 0
    batches[2][0][4:, 3] = -torch.inf  # classes 0 to 3
    match = (
        r"features must be finite; 6 of 24 samples.*by class: a \(2\), b \(2\), c \(1\)"
    )
    with pytest.raises(NonFiniteError, match=match):
        measure(LINEAR(), batches, class_names=list("abcd"))


def test_batches_without_a_finite_sample_are_counted_too():
    batches = LINEAR.data()
    batches[0][0][:] = torch.nan
    with pytest.raises(NonFiniteError, match="8 of 24"):
        measure(LINEAR(), batches)


def test_overflowing_logits_are_told_from_features():
    model = LINEAR().half()
    with torch.no_grad():
        model.weight.fill_(6e4)
    batches = [(torch.full((4, 5), 4.0).half(), torch.arange(4))]
    with pytest.raises(NonFiniteError, match="The logits must be finite; 4 of 4"):
        measure(model, batches)


def test_non_finite_evaluation_data_are_refused():
    held_out = LINEAR.data(seed=2)
    held_out[1][0][0] = torch.nan
    with pytest.raises(NonFiniteError, match="1 of 24"):
        measure(LINEAR(), LINEAR.data(), eval_loader=held_out)


def test_dead_and_constant_units_of_a_network():
    model = mlp()
    with torch.no_grad():
        model[4].weight[[1, 4]] = 0
        model[4].bias[[1, 4]] = torch.tensor([-1.0, 2.0])  # after the ReLU: 0 and 2
    m = measure(model, MODELS["mlp"].data())
    assert {1, 4} <= set(m.constant_units.tolist())
    assert 1 in m.dead_units.tolist()
    assert 4 not in m.dead_units.tolist()


def test_labels_that_do_not_match_the_input():
    x, y = LINEAR.data()[0]
    with pytest.raises(HeadError, match=r"\(5, K\) here; got \(8, 4\).*as many labels"):
        measure(LINEAR(), [(x, y[:5])])
    with pytest.raises(ShapeError, match="one class index per sample"):
        measure(LINEAR(), [(x, y[:, None])])


def test_single_samples_instead_of_batches():
    with pytest.raises(BatchError, match="DataLoader"):
        measure(LINEAR(), [(torch.zeros(5), 1), (torch.zeros(5), 2)])


def test_classes_beyond_the_data_are_absent():
    batches = [(x, y % 3) for x, y in LINEAR.data()]
    with pytest.warns(UndefinedWarning, match="1 of 4 classes have no samples.*: 3"):
        m = measure(LINEAR(), batches)
    assert m.num_classes == 4
    assert m.class_counts == (12, 6, 6, 0)


def test_warnings_are_given_once():
    batches = [(x, y % 3) for x, y in LINEAR.data()]
    with pytest.warns(UndefinedWarning) as record:
        measure(LINEAR(), batches)
    assert len(record) == 1


def test_nothing_is_kept_alive():
    model = Wrapped(mlp(), lambda z: z)
    m = measure(model, MODELS["mlp"].data())
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert m.num_samples == 24


def test_a_measurement_does_not_change_when_training_goes_on():
    model = mlp()
    m = measure(model, MODELS["mlp"].data())
    before = m.weight.clone(), m.nc3()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert torch.equal(m.weight, before[0])
    assert m.nc3() == before[1]


def test_results_are_float64_without_gradients():
    m = measure(mlp(), MODELS["mlp"].data())
    for values in (m.weight, m.bias, m.moments.mean, m.moments.scatter, m.units.low):
        assert values.dtype == torch.float64
        assert not values.requires_grad
    assert m.sample.features.dtype == torch.float32


def test_loss_is_the_mean_cross_entropy():
    model, batches = mlp().eval(), MODELS["mlp"].data()
    x, y = (torch.cat(p) for p in zip(*batches, strict=True))
    with torch.no_grad():
        rows = model(x).double().log_softmax(1)
    expected = -np.mean([float(rows[i, k]) for i, k in enumerate(y.tolist())])
    assert measure(model, batches).loss == pytest.approx(expected, rel=1e-6)
    assert math.isfinite(expected)


@pytest.mark.parametrize("cache_bytes", [-1, 0.5])
def test_cache_size_is_checked(cache_bytes):
    with pytest.raises(Exception, match="cache_bytes"):
        measure(LINEAR(), LINEAR.data(), cache_bytes=cache_bytes)


def test_sample_is_of_the_features():
    model, batches = mlp().eval(), MODELS["mlp"].data()
    with torch.no_grad():
        h = torch.cat([model[:6](x) for x, _ in batches])
    m = measure(model, batches)
    torch.testing.assert_close(m.sample.features, h)
    assert torch.equal(m.sample.labels, torch.cat([y for _, y in batches]))


def test_a_model_on_no_parameters_of_its_own_but_a_head():
    batches = [(x.reshape(8, 5), y) for x, y in LINEAR.data()]
    m = measure(nn.Sequential(nn.Identity(), LINEAR()), batches)
    assert m.head == "1"


def test_data_that_can_be_read_once_need_no_cache_in_one_pass():
    batches = LINEAR.data()
    with pytest.raises(BatchError, match="nc4='one_pass'"):
        measure(LINEAR(), iter(batches), cache_bytes=0)
    once = measure(LINEAR(), iter(batches), cache_bytes=0, nc4="one_pass")
    assert once.nearest_mean.against == "running means"
    assert once.nc4() == measure(LINEAR(), batches).nc4()  # all in one fold


def test_a_loader_that_changes_between_passes_is_found_by_its_counts():
    class Changing:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            yield from LINEAR.data()[: 3 if self.passes < 2 else 2]

    with pytest.raises(BatchError, match="of 24 samples it brought 16"):
        measure(LINEAR(), Changing(), cache_bytes=0)


@pytest.mark.parametrize("nc4", ["second_pass", "one_pass", "skip"])
@pytest.mark.parametrize("light", [False, True])
def test_light_and_nc4_reach_the_measurement(light, nc4):
    m = measure(LINEAR(), LINEAR.data(), light=light, nc4=nc4)
    assert m.light == light
    assert (m.nearest_mean is None) == (nc4 == "skip")
    assert (m.moments.scatter is None) == light


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (torch.tensor([0, 1, 2, 9]), r"\[0, 4\)"),
        (torch.tensor([0, 1, 2, -1]), r"from -1 to 2"),
        (torch.tensor([0.0, 1.0, 2.0, 3.0]), "integers"),
    ],
)
def test_labels_that_are_no_class_indices(labels, match):
    with pytest.raises(LabelError, match=match):
        measure(LINEAR(), [(torch.zeros(4, 5), labels)])


def test_empty_and_exhausted_loaders():
    used = iter(LINEAR.data())
    list(used)
    for loader in ([], used, [(torch.zeros(0, 5), torch.zeros(0).long())]):
        with pytest.raises(BatchError, match="at least one sample"):
            measure(LINEAR(), loader)


def test_features_beyond_float16_are_counted():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 4)).half()
    with torch.no_grad():
        model[0].weight.fill_(6e4)
    batches = [(torch.full((4, 5), 4.0).half(), torch.arange(4))]
    with pytest.raises(NonFiniteError, match=r"features must be finite.*65504"):
        measure(model, batches)


def test_what_is_no_loader_is_refused():
    with pytest.raises(TypeError):
        measure(nn.Linear(3, 2), None)


def test_light_mode_keeps_no_covariance_of_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    batch = (torch.randn(8, 3), torch.arange(8) % 2)
    full = measure(model, [batch], layers="all").profile
    light = measure(model, [batch], layers="all", light=True).profile
    assert all(layer.covariance is not None for layer in full.layers)
    assert all(layer.covariance is None for layer in light.layers)
    assert torch.equal(full.cdnv(), light.cdnv())


def test_layers_are_in_the_dictionary():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    batch = (torch.randn(8, 3), torch.arange(8) % 2)
    measured = measure(model, [batch], layers=["1"])
    (layer,) = measured.to_dict()["layers"]["layers"]
    assert layer["cdnv"] == float(measured.profile.cdnv()[0])
    assert measure(model, [batch]).to_dict()["layers"] is None


@pytest.mark.parametrize("layers", [None, "all"])
def test_a_loader_may_fill_one_buffer_over_and_over(layers):
    batches = LINEAR.data(batch=6)
    inputs, labels = (torch.empty_like(part) for part in batches[0])

    class Reused:
        def __iter__(self):
            for x, y in batches:
                yield inputs.copy_(x), labels.copy_(y)

    model = nn.Sequential(nn.Identity(), LINEAR())
    found = measure(model, Reused(), layers=layers, check_deterministic=False)
    expected = measure(model, batches, layers=layers)
    assert found.class_counts == expected.class_counts
    assert len(set(found.class_counts)) == 1
    assert found.to_dict() == expected.to_dict()
