from functools import reduce

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import LossError
from layerpeel.edits.comparison import compare
from layerpeel.edits.data import Data
from layerpeel.edits.passes import Range, gradient_norm, repeats, rows_of
from tests.edits.networks import data_for, gradient, images, mlp


def test_ranges_of_parts_merge_to_those_of_all_rows():
    x = torch.cat([x for x, _ in data_for(3, 2, samples=13, batches=4)])
    parts = [Range.of(rows_of(part, nn.Linear(3, 4))) for part in x.split(4)]
    found = reduce(Range.merge, parts)
    torch.testing.assert_close(found.low, x.amin(0))
    torch.testing.assert_close(found.high, x.amax(0))


def test_ranges_of_convolutions_are_by_channel():
    x = images()[0][0]
    found = Range.of(rows_of(x, nn.Conv2d(2, 4, 3)))
    torch.testing.assert_close(found.high, x.amax((0, 2, 3)))


@pytest.mark.parametrize("batches", [1, 3])
def test_gradients_are_those_of_the_mean_over_all_samples(batches):
    model, data = mlp([3, 4, 2]).float(), data_for(3, 2, samples=11, batches=batches)
    found = gradient_norm(model, F.cross_entropy, Data(data, model))
    wanted = gradient(mlp([3, 4, 2]).float().double(), data).norm()
    assert found == pytest.approx(float(wanted), rel=1e-12)


def test_changes_are_the_largest_of_all_entries():
    model, other = mlp([3, 2]), mlp([3, 2])
    other[0].bias.data[1] -= 0.5
    change = compare(model, other, Data(data_for(3, 2), model)).change
    assert change.largest == pytest.approx(0.5)
    assert change.samples == 12


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x, y: F.cross_entropy(x, y, reduction="none"), r"\(12,\)"),
        (lambda x, y: 1.0, r"1\.0"),
        (lambda x, y: torch.ones(()), "depends"),
        (lambda x, y: x.sum() * torch.inf, "finite"),
    ],
)
def test_losses_that_are_none_are_named(loss, message):
    model = mlp([3, 2])
    data = Data(data_for(3, 2, batches=1), model)
    with pytest.raises(LossError, match=message):
        gradient_norm(model, loss, data)


def test_models_without_trainable_parameters_have_no_gradient():
    data = Data(data_for(3, 2), nn.Identity())
    assert gradient_norm(nn.Identity(), F.cross_entropy, data) == 0.0


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"),
    [(1, 1, 1), (3, 1, 1), (2, 2, 1), (2, 2, 2), (3, 2, 2)],
)
def test_no_tap_reads_a_place_more_often_than_said(mode, kernel, padding, dilation):
    for size in range(padding + (mode == "reflect"), 5):
        module = nn.Conv2d(
            1, 1, (kernel, 1), padding=(padding, 0), dilation=(dilation, 1),
            padding_mode=mode, bias=False, dtype=torch.float64,
        )  # fmt: skip
        if size + 2 * padding <= dilation * (kernel - 1):
            continue
        for tap in range(kernel):
            module.weight.data.zero_()[0, 0, tap] = 1
            x = torch.zeros(size, 1, size, 1, dtype=torch.float64)
            x[range(size), 0, range(size), 0] = 1
            counts = module(x).detach().sum((1, 2, 3))
            assert float(counts.max()) <= repeats(module)
