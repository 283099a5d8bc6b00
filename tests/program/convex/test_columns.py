import math

import pytest
import torch

from layerpeel.program.convex.columns import Blocks, SoftmaxColumns, SquaredColumns
from tests.program.convex.cases import generator, normal

SIZES = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
GROUP_OF = torch.repeat_interleave(torch.arange(3), SIZES.long())
KINDS = ["plain", "own unit", "smoothed", "squared"]
WEIGHTS = torch.tensor([0.3, 0.05, 0.1], dtype=torch.float64)


def dense(blocks):
    matrix = blocks.others[GROUP_OF][:, GROUP_OF].clone()
    matrix.diagonal().copy_(blocks.own[GROUP_OF])
    return matrix


def targets_of(kind):
    if kind != "smoothed":
        return torch.zeros(3, 3, dtype=torch.float64)
    common = torch.tensor([0.1, 0.2, 0.2], dtype=torch.float64)
    return torch.outer(common, torch.tensor([0.1, 0.3, 0.0], dtype=torch.float64))


def columns_at(kind, logits):
    if kind == "squared":
        return SquaredColumns.at(logits, WEIGHTS.log(), SIZES)
    targets = targets_of(kind)
    return SoftmaxColumns.at(logits, WEIGHTS.log(), SIZES, targets, kind == "own unit")


def dense_loss(kind, logits):
    weights, K = WEIGHTS[GROUP_OF], len(GROUP_OF)
    if kind == "squared":
        errors = logits - torch.eye(K, dtype=torch.float64)
        return weights @ errors.square().sum(dim=0) / 2
    targets = targets_of(kind)[GROUP_OF][:, GROUP_OF].clone()
    targets.diagonal().zero_()
    targets.diagonal().copy_(1 - targets.sum(dim=0))
    inner = (targets * logits).sum(dim=0)
    return weights @ (torch.logsumexp(logits, dim=0) - inner)


def random_blocks(rng, scale=1.0):
    return Blocks(scale * normal(rng, 3), scale * normal(rng, 3, 3))


def assert_same(blocks, matrix, unit):
    torch.testing.assert_close(dense(blocks) * unit, matrix, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
def test_derivatives_are_those_of_the_dense_loss(kind, scale):
    rng = generator(1)
    logits, direction = random_blocks(rng, scale), random_blocks(rng)
    columns, Z = columns_at(kind, logits), dense(logits)
    unit = math.exp(columns.log_scale)

    def loss(matrix):
        return dense_loss(kind, matrix)

    assert columns.value * unit == pytest.approx(float(loss(Z)), rel=1e-12)
    assert math.exp(columns.log_value) == pytest.approx(float(loss(Z)), rel=1e-12)
    gradient = torch.autograd.functional.jacobian(loss, Z)
    assert_same(columns.residual, gradient, unit)
    product = torch.autograd.functional.vhp(loss, Z, dense(direction))[1]
    assert_same(columns.curvature(direction), product, unit)
    hessian = torch.autograd.functional.hessian(loss, Z)
    K = len(GROUP_OF)
    diagonal = hessian.reshape(K * K, K * K).diagonal().reshape(K, K)
    assert_same(columns.curvature_diagonal, diagonal, unit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixing", [1.0, 0.7, 0.2, 1e-3])
def test_the_dual_is_a_tangent_below_the_loss_everywhere(kind, mixing):
    rng = generator(2)
    logits = random_blocks(rng, 2.0)
    columns = columns_at(kind, logits)
    unit = math.exp(columns.log_scale)
    residual, dual = dense(columns.residual) * unit, columns.dual(mixing) * unit
    if mixing == 1:
        touching = dual + float((residual * dense(logits)).sum())
        assert touching == pytest.approx(columns.value * unit, rel=1e-11)
    K = len(GROUP_OF)
    for scale in [0.0, 0.3, 3.0, 10.0]:
        for _ in range(10):
            anywhere = scale * normal(rng, K, K)
            below = dual + mixing * float((residual * anywhere).sum())
            assert below <= float(dense_loss(kind, anywhere)) + 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixing", [0.9, 0.5, 1e-2])
def test_the_slope_of_the_dual_is_its_derivative(kind, mixing):
    columns = columns_at(kind, random_blocks(generator(3), 2.0))
    step = 1e-5 * mixing
    rise = columns.dual(mixing + step) - columns.dual(mixing - step)
    assert columns.dual_slope(mixing) == pytest.approx(rise / (2 * step), rel=1e-6)


@pytest.mark.parametrize("kind", ["plain", "smoothed"])
@pytest.mark.parametrize("mixing", [1.0, 0.5])
def test_moving_probability_costs_the_dual_no_more_than_its_price(kind, mixing):
    columns = columns_at(kind, random_blocks(generator(4), 2.0))
    rows = len(GROUP_OF)
    targets = targets_of(kind)[GROUP_OF][:, GROUP_OF].clone()
    targets.diagonal().zero_()
    targets.diagonal().copy_(1 - targets.sum(dim=0))
    weights = WEIGHTS[GROUP_OF]
    mixed = mixing * dense(columns.residual) / weights + targets
    entropies = torch.special.entr(mixed).sum(dim=0)
    assert columns.dual(mixing) == pytest.approx(float(weights @ entropies), rel=1e-11)
    for k in range(rows):
        taken, put = mixed[:, k].argmax(), mixed[:, k].argmin()
        for share in [1e-3, 0.1, 0.9]:
            amount = share * float(mixed[taken, k])
            moved = mixed[:, k].clone()
            moved[taken] -= amount
            moved[put] += amount
            loss = float(entropies[k] - torch.special.entr(moved).sum())
            assert loss <= amount * columns.dual_price(mixing) + 1e-12


@pytest.mark.parametrize("gap", [50.0, 400.0, 2000.0])
def test_a_loss_below_float64_has_a_logarithm_and_a_gradient_of_its_size(gap):
    logits = Blocks(torch.full_like(SIZES, gap), torch.zeros(3, 3).to(SIZES))
    columns = columns_at("own unit", logits)
    # Every column has K - 1 = 5 others; the weights of all classes sum to 0.95.
    assert columns.log_value == pytest.approx(math.log(0.95 * 5) - gap, rel=1e-14)
    assert columns.value == pytest.approx(1.0, rel=1e-12)
    own = columns.residual.own
    torch.testing.assert_close(own, -WEIGHTS / 0.95, rtol=1e-10, atol=0.0)
    assert columns.dual(1.0) == pytest.approx(1 + gap, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_bounds_what_another_residual_costs(kind):
    rng = generator(7)
    logits = random_blocks(rng)
    columns = columns_at(kind, logits)
    assert columns.divergence(columns.residual) == 0
    for size in (1e-3, 0.3):
        step = random_blocks(rng, size)
        other = Blocks(logits.own + step.own, logits.others + step.others)
        moved = columns_at(kind, other)
        shift = math.exp(moved.log_scale - columns.log_scale)
        residual = Blocks(*(shift * part for part in moved.residual))
        balanced = columns.balanced(residual)
        torch.testing.assert_close(dense(balanced), dense(residual))
        # Fenchel: the loss less its tangent at the other logits, the other way round.
        unit = math.exp(columns.log_scale)
        difference = float((dense(residual) * (dense(other) - dense(logits))).sum())
        gain = float(dense_loss(kind, dense(logits)) - dense_loss(kind, dense(other)))
        least = gain + unit * difference
        found = unit * columns.divergence(residual)
        assert least * (1 - 1e-9) - 1e-12 <= found
        if kind == "squared":
            assert found == pytest.approx(least, rel=1e-9)
        elif size < 0.1:
            assert found < 2.1 * least


@pytest.mark.parametrize("kind", ["plain", "own unit", "smoothed"])
def test_a_residual_of_no_probabilities_diverges(kind):
    columns = columns_at(kind, random_blocks(generator(8)))
    beyond = columns.residual.others - 2 * columns.weights
    assert columns.divergence(columns.balanced(Blocks(beyond[0], beyond))) == math.inf
    too_much = columns.residual.others + 2 * columns.weights
    assert columns.divergence(columns.balanced(Blocks(beyond[0], too_much))) == math.inf
