import pytest
import torch
from torch import nn

from layerpeel._checks import (
    BatchError,
    EditError,
    LayerError,
    LossError,
    NonFiniteError,
)
from layerpeel.edits.narrowing import NarrowProof, narrow
from tests.edits.narrowing.planted import plant
from tests.edits.networks import Residual, convolutional, data_for, images, mlp, seeded

DATA = data_for(4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "clone"}, "Did you mean 'clones'"),
        ({"method": "clones", "data": DATA}, "width.*tolerance=0.01"),
        ({"method": "clones", "width": 2}, "`data` must be given.*clones"),
        ({"method": "cosine", "tolerance": 0.1}, "`data` must be given.*tolerance"),
        ({"loss_fn": nn.CrossEntropyLoss()}, "`data` must be given.*loss_fn"),
        ({"width": 2, "tolerance": 0.1}, "At most one"),
        ({"width": 0}, "`width` must be an integer >= 1"),
        ({"width": 7}, "at most the layer's, 6 for '0'"),
        ({"tolerance": -0.1, "data": DATA}, "`tolerance` must be .* at least 0"),
        ({"tolerance": float("nan"), "data": DATA}, "`tolerance` must be a finite"),
        ({"cosine": 1.5, "method": "cosine"}, "`cosine` must be .* at most 1"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        narrow(mlp([4, 6, 3]), "0", **options)


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(LayerError, match="Did you mean 'block1"):
        narrow(seeded(Residual), "block1.fc11")


def test_the_last_layer_has_no_neurons_to_spare():
    with pytest.raises(EditError, match="read"):
        narrow(mlp([4, 6, 3]), "2")


def test_a_residual_stream_keeps_its_width():
    with pytest.raises(EditError, match="also read by"):
        narrow(seeded(Residual), "block1.fc2")


def test_layer_normalisation_between_is_named():
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)
        )
    )
    with pytest.raises(EditError, match="LayerNorm"):
        narrow(model, "0")


def test_tied_weights_are_named():
    model = mlp([4, 4, 4])
    model[2].weight = model[0].weight
    with pytest.raises(EditError, match="tied"):
        narrow(model, "0")


def test_batch_normalisation_in_train_mode_is_named():
    with pytest.raises(EditError, match=r"model.eval\(\)"):
        narrow(convolutional().train(), "conv1")


def test_weights_that_are_not_finite_are_named():
    model = mlp([4, 6, 3])
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        narrow(model, "0")


@pytest.mark.parametrize("method", ["critical", "clones", "cosine"])
def test_data_without_samples_are_refused(method):
    with pytest.raises(BatchError, match="at least one sample"):
        narrow(mlp([4, 6, 3]), "0", data=[], method=method, width=6)


def test_a_loss_per_sample_is_refused():
    loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(LossError, match="one number"):
        narrow(mlp([4, 6, 3]), "0", data=DATA, loss_fn=loss)


@pytest.mark.parametrize("method", ["critical", "clones", "cosine"])
def test_the_given_model_stays_as_it_is(method):
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    edit = narrow(model, "conv1", data=images(9), method=method, width=4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for value in edit.model.parameters():
        value.data.zero_()
    assert bool(model.conv1.weight.any())
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_the_summary_says_what_was_done():
    model = mlp([4, 6, 3])
    plant(model[0], 4, 1)
    edit = narrow(model, "0", data=DATA, loss_fn=nn.CrossEntropyLoss())
    assert isinstance(edit.proof, NarrowProof)
    said = edit.summary()
    for part in (
        "Narrowed '0' from 6 to 5 neurons.",
        "exact for every input",
        "gradient  norm",
        "groups    1 for 4",
        "relative, measured",
        "0.00e+00, proved for every input",
        "agreement 100.00% of decisions",
        "weight decay",
    ):
        assert part in said


def test_the_summary_of_an_approximation_says_so():
    edit = narrow(mlp([4, 6, 3]), "0", data=DATA, method="cosine", width=2)
    said = edit.summary()
    for part in ("approximate", "cosine    at least", "worst", "another function"):
        assert part in said


def test_a_trained_flag_and_a_frozen_weight_stay():
    model = mlp([4, 6, 3])
    model[0].weight.requires_grad_(False)
    model.train()
    plant(model[0], 4, 1)
    edit = narrow(model, "0")
    assert edit.model.training
    assert edit.model[0].training
    assert not edit.model[0].weight.requires_grad
    assert edit.model[0].bias.requires_grad
