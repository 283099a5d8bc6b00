import pytest
import torch

from layerpeel.program.class_level import SoftmaxLoss, SquaredLoss
from tests.program.reference import make_program

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_softmax_losses_are_those_of_torch():
    logits, bias = random(4, 4), random(4)
    ones = torch.ones(4, dtype=torch.float64)
    loss = SoftmaxLoss(ones, 0 * ones, ones, 0.1 * ones, ones / 4)
    expected = torch.nn.functional.cross_entropy(
        (logits + bias[:, None]).T,
        torch.arange(4),
        reduction="none",
        label_smoothing=0.1,
    )
    torch.testing.assert_close(loss.losses(logits, bias), expected)


def test_scale_offset_and_margin_act_on_rows_and_columns():
    logits, bias, scale, offset, margin = random(3, 3), random(3), *random(3, 3).exp()
    none = torch.zeros(3, dtype=torch.float64)
    loss = SoftmaxLoss(scale, offset, margin, none, none + 1 / 3)
    for k in range(3):
        seen = scale * (logits[:, k] + bias) / margin[k] + offset
        expected = torch.logsumexp(seen, 0) - seen[k]
        torch.testing.assert_close(loss.losses(logits, bias)[k], expected)


def test_squared_losses_are_half_of_those_of_torch():
    logits, bias = random(4, 4), random(4)
    target = torch.eye(4, dtype=torch.float64)
    expected = torch.nn.functional.mse_loss(
        (logits + bias[:, None]).T, target, reduction="none"
    ).sum(1)
    torch.testing.assert_close(SquaredLoss().losses(logits, bias), expected / 2)


def test_targets_are_distributions():
    program = make_program(
        [3, 2, 1], energy=(1, 1), smoothing=0.2, class_weights=[1, 2, 5]
    )
    targets = program.loss.targets
    torch.testing.assert_close(targets.sum(0), torch.ones(3, dtype=torch.float64))
    assert float(targets.min()) > 0


def test_data_term_weighs_the_losses_and_adds_the_ridge():
    program = make_program([6, 3, 1], energy=(1, 1), bias=0.5)
    logits, bias = random(3, 3), random(3)
    losses = program.loss.losses(logits, bias)
    expected = float(
        losses @ torch.tensor([0.6, 0.3, 0.1]).double() + 0.25 * bias @ bias
    )
    assert float(program.data_term(logits, bias)) == pytest.approx(expected)
