import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import NonFiniteError
from layerpeel.edits import deepen
from layerpeel.edits.data import Data
from layerpeel.edits.depth.reading import reading
from layerpeel.edits.rest import rest_of
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    outputs,
    seeded,
)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("output", [False, True])
def test_ranges_are_those_of_all_batches(output, keep):
    model, data = mlp([3, 4, 2]), data_for(3, 2, samples=12, batches=3)
    seen = reading(model, "2", Data(data, model), output=output, keep=keep)
    x = torch.cat([x for x, _ in data])
    values = model(x) if output else model[:2](x)
    torch.testing.assert_close(seen.range.low, values.amin(0).detach(), rtol=0, atol=0)
    torch.testing.assert_close(seen.range.high, values.amax(0).detach(), rtol=0, atol=0)
    assert len(seen.kept) == (3 if keep else 0)
    for (x, _), kept in zip(data, seen.kept, strict=False):
        assert torch.equal(kept.features, model[:2](x))
        assert torch.equal(kept.output, model(x))


def test_ranges_of_maps_are_those_of_channels():
    model, data = convolutional(), images()
    seen = reading(model, "conv2", Data(data, model), output=True, keep=False).range
    values = []
    handle = model.conv2.register_forward_hook(lambda *args: values.append(args[2]))
    outputs(model, data)
    handle.remove()
    torch.testing.assert_close(seen.low, values[0].amin((0, 2, 3)), rtol=0, atol=0)


def test_nothing_is_kept_beyond_a_size_though_all_is_seen():
    model, data = mlp([3, 4, 2]), data_for(3, 2, samples=12, batches=3)
    held = Data(data, model)
    whole = reading(model, "2", held, output=False, keep=True)
    part = reading(model, "2", held, output=False, keep=True, most=whole.kept[0].size)
    assert part.kept == ()
    assert torch.equal(part.range.high, whole.range.high)


def test_values_that_are_not_finite_are_named():
    model, data = mlp([3, 4, 2]), [(1e9 * x, y) for x, y in data_for(3, 2)]
    model[0].weight.data *= 1e300
    with pytest.raises(NonFiniteError, match="'2'"):
        reading(model, "2", Data(data, model), output=False, keep=False)


@pytest.mark.parametrize(
    ("model", "after", "loader", "is_all"),
    [
        (mlp([3, 4, 4, 2]), "2", data_for(3, 2), True),
        (seeded(Functional), "fc2", data_for(4, 3), True),
        (seeded(Residual), "block1", data_for(4, 3), True),
        (seeded(Residual), "block2", data_for(4, 3), True),
        (seeded(Residual), "block1.fc1", data_for(4, 3), False),
        (convolutional(), "conv1", images(), True),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_the_rest_is_the_model_from_the_insertion_on(
    model, after, loader, is_all, residual
):
    if residual and after == "conv1":
        after = "conv2"
    edit = deepen(model, after, loader, residual=residual)
    lift = edit.lifts[0]
    rest = rest_of(edit.model, lift.path)
    assert (rest is not None) == is_all
    if rest is None:
        return
    features = []
    handle = edit.model.get_submodule(lift.path).register_forward_pre_hook(
        lambda _, args: features.append(args[0])
    )
    wanted = outputs(edit.model, loader[:1])
    handle.remove()
    assert torch.equal(rest.eval()(features[0]), wanted)


def test_after_one_batch_only_what_comes_after_is_run_again():
    data = data_for(3, 2, samples=40, batches=4)
    model, seen = mlp([3, 4, 2]), []
    # Copies of the model keep the hook.
    model[0].register_forward_hook(lambda _, args, output: seen.append(len(output)))
    edit = deepen(model, "0", data)
    assert sum(seen) == 40 + 10
    assert edit.proof.samples == 40
    assert edit.proof.output_change <= 1e-12


def test_the_proof_sees_what_differs_in_any_batch(monkeypatch):
    data = data_for(3, 2, samples=40, batches=4)
    model = mlp([3, 4, 2])
    kept = reading(model, "2", Data(data, model), output=False, keep=True).kept
    broken = [
        *kept[:-1],
        type(kept[0])(kept[3].batch, kept[3].features, kept[3].output + 1),
    ]
    monkeypatch.setattr(
        "layerpeel.edits.depth.insertion.reading",
        lambda *args, **options: type(reading(*args, **options))(
            reading(*args, **options).range, tuple(broken)
        ),
    )
    with pytest.raises(ValueError, match="they differ by 1"):
        deepen(model, "0", data, activation=nn.ReLU())


def test_loaders_that_shuffle_are_compared_batch_by_batch():
    x, y = torch.cat([x for x, _ in data_for(3, 2)]), torch.arange(12) % 2
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=5, shuffle=True
    )
    model = mlp([3, 4, 2])
    state = torch.get_rng_state()
    edit = deepen(model, "0", loader, loss_fn=F.cross_entropy)
    assert edit.proof.output_change <= 1e-12
    assert edit.proof.samples == 12
    assert torch.equal(torch.get_rng_state(), state)
