"""What is known of Hessians of networks inside of larger networks, by hand."""

from functools import cache
from itertools import pairwise, product

import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional as F

from layerpeel.landscape import Inertia, Kind, LandscapeWarning, classify_point
from tests.landscape.networks import normal

# Zero eigenvalues are exact up to rounding: below the first share of the largest one.
# All others have to be above the second, or a test would count noise.
ROUNDING, CLEAR = 1e-13, 1e-11


def signs(matrix, scale=None):
    values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    shares = values.abs() / float(scale if scale is not None else values.abs().max())
    assert not bool(((shares > ROUNDING) & (shares < CLEAR)).any()), values
    zero, negative = shares <= ROUNDING, values < 0
    below, above = (int((~zero & side).sum()) for side in (negative, ~negative))
    return below, int(zero.sum()), above


class Network:
    """A network of given widths as a function of its vector: weight, bias, and so on."""

    def __init__(self, widths, activation, loss, inserted=None):
        self.widths, self.activation, self.loss = tuple(widths), activation, loss
        self.inserted = inserted
        self.shapes = [shape for n, m in pairwise(widths) for shape in ((m, n), (m,))]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]

    def parts(self, vector):
        pieces = vector.split(self.sizes)
        flat = [p.reshape(s) for p, s in zip(pieces, self.shapes, strict=True)]
        return flat[0::2], flat[1::2]

    def vector(self, weights, biases):
        pairs = zip(weights, biases, strict=True)
        return torch.cat([part.flatten() for pair in pairs for part in pair])

    def layers(self, vector, x):
        """The pre-activations and the features of all layers; the first are the inputs."""
        weights, biases = self.parts(vector)
        features, before = [x], []
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            before.append(features[-1] @ weight.T + bias)
            last = i == len(weights) - 1
            function = torch.relu if i == self.inserted else self.activation
            features.append(before[-1] if last else function(before[-1]))
        return before, features

    def risk(self, vector, x, y):
        return self.loss(self.layers(vector, x)[1][-1], y)

    def hessian(self, vector, x, y):
        return torch.func.jacrev(torch.func.grad(self.risk))(vector, x, y)

    def split(self, vector, layer, neuron, share):
        """The wider network's vector: a copy, and its share of the outgoing weight."""
        weights, biases = map(list, self.parts(vector))
        out = weights[layer][:, neuron]
        here = torch.zeros(weights[layer].shape[1], dtype=torch.float64)
        here[neuron] = 1.0
        moved = share * out[:, None]
        weights[layer] = torch.cat([weights[layer] - moved * here, moved], 1)
        weights[layer - 1] = torch.cat(
            [weights[layer - 1], weights[layer - 1][[neuron]]]
        )
        biases[layer - 1] = torch.cat([biases[layer - 1], biases[layer - 1][[neuron]]])
        return self.vector(weights, biases)

    def wider(self, layer):
        widths = list(self.widths)
        widths[layer] += 1
        return Network(widths, self.activation, self.loss)

    def certificate(self, vector, x, y, layer, neuron, share):
        """The block that a split adds, from one pass forwards and one backwards."""
        weights, _ = self.parts(vector)
        before, features = self.layers(vector, x)
        slope, bend = DERIVATIVES[self.activation]
        # Of one sample each, with the mean's share in it.
        error = torch.func.grad(lambda f: self.loss(f, y))(features[-1])
        for i in range(len(weights) - 1, layer, -1):
            error = (error @ weights[i]) * slope(before[i - 1])
        signal, z = (error @ weights[layer])[:, neuron], before[layer - 1][:, neuron]
        inputs = torch.cat([features[layer - 1], torch.ones_like(z)[:, None]], 1)
        B = (inputs * (signal * bend(z))[:, None]).T @ inputs
        C = (inputs * slope(z)[:, None]).T @ error
        corner = B.new_zeros(C.shape[1], C.shape[1])
        top = torch.cat([share * (1 - share) * B, C], 1)
        return torch.cat([top, torch.cat([C.T, corner], 1)])


def tanh_bend(z):
    return -2 * torch.tanh(z) * (1 - torch.tanh(z) ** 2)


DERIVATIVES = {
    torch.tanh: (lambda z: 1 - torch.tanh(z) ** 2, tanh_bend),
    torch.relu: (lambda z: (z > 0).to(z), torch.zeros_like),
}
LOSSES = {"cross-entropy": F.cross_entropy, "squared": F.mse_loss}
CASES = [
    (activation, loss, widths, layer)
    for activation, loss, widths in product(
        DERIVATIVES, LOSSES, [(2, 3, 3, 2), (2, 3, 2, 3, 2)]
    )
    for layer in range(1, len(widths) - 1)
]
SEEDS = (0, 1, 2, 3)
DRAWS, SHARES = 12, (0.5, -0.7, 1.6, 0.2)


def data(loss, seed):
    x = normal(14, 2, seed=seed)
    return x, normal(14, 2, seed=seed + 1) if loss == "squared" else torch.arange(
        14
    ) % 2


@cache
def drawn(case):
    """Random networks at random points, which are not critical, and their Hessians."""
    activation, loss, widths, layer = case
    network = Network(widths, activation, LOSSES[loss])
    x, y = data(loss, CASES.index(case))
    vectors = normal(DRAWS, sum(network.sizes), seed=CASES.index(case))
    shares = torch.tensor(SHARES, dtype=torch.float64).repeat(DRAWS // 4)
    neuron, wide = CASES.index(case) % widths[layer], network.wider(layer)
    split = torch.func.vmap(lambda v, a: network.split(v, layer, neuron, a))(
        vectors, shares
    )
    narrow_hessians = torch.func.vmap(lambda v: network.hessian(v, x, y))(vectors)
    wide_hessians = torch.func.vmap(lambda v: wide.hessian(v, x, y))(split)
    blocks = torch.func.vmap(
        lambda v, a: network.certificate(v, x, y, layer, neuron, a)
    )(vectors, shares)
    maps = torch.func.vmap(
        lambda v, a: torch.func.jacrev(lambda u: network.split(u, layer, neuron, a))(v)
    )(vectors, shares)
    return narrow_hessians, wide_hessians, blocks, maps


def test_a_split_adds_the_inertia_of_its_block_at_any_point():
    seen = set()
    for case in CASES:
        for narrow, wide, block, _ in zip(*drawn(case), strict=True):
            # A block may vanish: what is left of it is small against the Hessian.
            added = signs(block, torch.linalg.matrix_norm(narrow, 2))
            assert Inertia(*signs(wide)) == Inertia(*signs(narrow)) + Inertia(*added)
            seen.add((case[0], case[1], added))
    assert len(CASES) * DRAWS >= 200
    # It is a statement on many inertias, not on one.
    assert len(seen) >= 10


def test_embedding_is_a_section_of_the_larger_hessian():
    for case in CASES:
        narrow, wide, _, maps = drawn(case)
        torch.testing.assert_close(maps.mT @ wide @ maps, narrow, rtol=1e-9, atol=1e-10)
        for small, large in zip(narrow, wide, strict=True):
            assert all(a <= b for a, b in zip(signs(small), signs(large), strict=True))


def critical(network, vector, x, size):
    """Targets for which a network is at a critical point, with residuals of a size.

    The gradient is linear in what differs between outputs and targets.
    """
    outputs = network.layers(vector, x)[1][-1]
    jacobian = torch.func.jacrev(lambda v: network.layers(v, x)[1][-1].flatten())(
        vector
    )
    conditions = [jacobian.T]
    if network.loss is F.cross_entropy:  # Its targets add up to one.
        conditions.append(
            torch.eye(len(x)).double().repeat_interleave(network.widths[-1], 1)
        )
    rows = torch.cat(conditions)
    directions = torch.linalg.qr(rows.T)[0]
    residual = normal(outputs.numel(), seed=9)
    for _ in range(2):  # twice is enough
        residual = residual - directions @ (directions.T @ residual)
    residual = (size * residual / residual.abs().max()).view_as(outputs)
    if network.loss is F.cross_entropy:
        y = outputs.softmax(1) - residual
    else:
        y = outputs - residual
    gradient = torch.func.grad(network.risk)(vector, x, y)
    assert float(gradient.norm()) <= 1e-13
    return y


def written(network, vector):
    """The network as a module of torch."""
    layers = []
    for i, (weight, bias) in enumerate(zip(*network.parts(vector), strict=True)):
        linear = nn.Linear(*weight.T.shape, dtype=torch.float64)
        linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
        relu = network.activation is torch.relu or i == network.inserted
        layers += [linear, nn.ReLU() if relu else nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", DERIVATIVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_split_of_a_critical_point_is_what_its_block_says(activation, loss):
    x, kinds = normal(30, 2), set()
    for seed, share in enumerate(SHARES):
        network = Network((2, 2, 2, 2), activation, LOSSES[loss])
        vector = 0.7 * normal(sum(network.sizes), seed=SEEDS[seed])
        y = critical(network, vector, x, 0.9)
        split, wide = network.split(vector, 1, 0, share), network.wider(1)
        narrow = network.hessian(vector, x, y)
        block = network.certificate(vector, x, y, 1, 0, share)
        added = Inertia(*signs(block, torch.linalg.matrix_norm(narrow, 2)))
        expected = Inertia(*signs(narrow)) + added
        assert signs(wide.hessian(split, x, y)) == expected.signs
        point = classify_point(written(wide, split), network.loss, [(x, y)])
        assert point.inertia == expected
        assert (point.kind is Kind.STRICT_SADDLE) == bool(expected.negative)
        kinds.add(point.kind)
    assert Kind.STRICT_SADDLE in kinds


def lifted(network, vector, x, width, factors=None):
    """The network with a layer more after the first, which is affine on the data."""
    weights, biases = map(list, network.parts(vector))
    features = network.layers(vector, x)[1][1]
    outer, inner = factors or factored(weights[1], width)
    shift = 1.0 - (features @ inner.T).amin(0)
    weights[1:2] = [inner, outer]
    biases[1:2] = [shift, biases[1] - outer @ shift]
    widths = [*network.widths[:2], width, *network.widths[2:]]
    deep = Network(widths, network.activation, network.loss, inserted=1)
    return deep, deep.vector(weights, biases)


def factored(weight, width):
    """Two random factors of a matrix, one of which has full rank."""
    rows, columns = weight.shape
    if rows > width:
        outer, inner = factored(weight.T, width)
        return inner.T, outer.T
    outer = normal(rows, width, seed=width)
    inverse = torch.linalg.pinv(outer)
    free = normal(width, columns, seed=width + 1)
    return outer, inverse @ weight + free - inverse @ (outer @ free)


@pytest.mark.parametrize("activation", DERIVATIVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e-3, 5.0], ids=["minimum", "saddle"])
def test_a_lift_adds_zeros_alone_and_a_minimum_stays_one(activation, loss, size):
    network, x = Network((2, 4, 3), activation, LOSSES[loss]), normal(30, 2)
    vector = normal(sum(network.sizes), seed=4)
    y = critical(network, vector, x, size)
    before = Inertia(*signs(network.hessian(vector, x, y)))
    assert bool(before.negative) == (size > 1)
    for width in (3, 4, 6):
        deep, lift = lifted(network, vector, x, width)
        dimension = width * (4 + 3 + 1) - 4 * 3
        expected = before + Inertia(0, dimension, 0)
        assert signs(deep.hessian(lift, x, y)) == expected.signs
        point = classify_point(
            written(deep, lift), network.loss, [(x, y)], fibre_dimension=expected.zero
        )
        assert point.inertia == expected
        kind = Kind.STRICT_SADDLE if before.negative else Kind.LOCAL_MINIMUM
        assert point.kind is kind
        if before.negative:
            continue
        start = deep.risk(lift, x, y)
        around = lift + 1e-3 * normal(200, len(lift))
        risks = torch.func.vmap(lambda v, deep=deep: deep.risk(v, x, y))(around)
        assert float(risks.min()) >= float(start)


def test_a_lift_of_less_rank_can_only_lose_eigenvalues():
    network, x = Network((2, 3, 2), torch.tanh, F.mse_loss), normal(30, 2)
    weights, biases = map(list, network.parts(normal(sum(network.sizes))))
    column, row = normal(2, 1, seed=5), normal(1, 3, seed=6)
    weights[1] = column @ row
    vector = network.vector(weights, biases)
    for size in (0.02, 0.9):
        y = critical(network, vector, x, size)
        before = signs(network.hessian(vector, x, y))
        zero = torch.zeros(2, 1, dtype=torch.float64)
        factors = torch.cat([column, zero], 1), torch.cat([row, 0 * row])
        deep, lift = lifted(network, vector, x, 2, factors)
        after = signs(deep.hessian(lift, x, y))
        assert after[0] <= before[0]
        assert after[2] < before[2]


def test_negative_eigenvalues_of_a_lifted_minimum_vanish_with_the_gradient():
    network, x = Network((2, 3, 2), torch.relu, F.mse_loss), normal(30, 2)
    vector = normal(sum(network.sizes), seed=4)
    y = critical(network, vector, x, 0.02)
    deep, lift = lifted(network, vector, x, 3)
    noise = normal(len(lift), seed=3)

    def gradient(scale):
        return torch.func.grad(deep.risk)(lift + scale * noise, x, y).abs().sum()

    lowest = []
    for size in (1e-4, 1e-6, 1e-8, 1e-10):
        scale = brentq(lambda s, size=size: float(gradient(s)) - size, 0, 1, xtol=1e-18)
        place = lift + scale * noise
        values = torch.linalg.eigvalsh(deep.hessian(place, x, y))
        lowest.append(float(values[0]))
        # A cut at rounding counts saddle directions that are none.
        assert lowest[-1] < -ROUNDING * float(values[-1])
        with pytest.warns(LandscapeWarning, match="undecided"):
            point = classify_point(
                written(deep, place), F.mse_loss, [(x, y)], gradient_tolerance=1.0
            )
        assert point.kind is Kind.UNDECIDED
    shares = [a / b for a, b in pairwise(lowest)]
    assert shares == pytest.approx([100.0] * 3, rel=0.1)


class Neurons(nn.Module):
    """Neurons of one input without biases."""

    def __init__(self, inner, outer):
        super().__init__()
        self.inner = nn.Parameter(torch.tensor([inner], dtype=torch.float64))
        self.outer = nn.Parameter(torch.tensor([outer], dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(x * self.inner) @ self.outer.T


def test_a_neuron_without_outgoing_weight_is_critical_at_three_places_only():
    # The example of https://arxiv.org/abs/2405.17501: one neuron, four samples.
    x, w = torch.tensor([[0.25], [1.0], [4.0], [16.0]]).double(), 1.0258
    residual = torch.tensor([1.0, -0.5835, 0.3, -0.1]).double()
    tanh = torch.tanh(w * x[:, 0])
    rows = torch.stack([tanh, (1 - tanh**2) * x[:, 0]], 1)
    # It is printed to four digits; now the neuron is critical to rounding.
    exact = residual - rows @ torch.linalg.lstsq(rows, residual[:, None]).solution[:, 0]
    torch.testing.assert_close(exact, residual, rtol=0, atol=2e-4)
    data = [(x, torch.tanh(w * x) - exact[:, None])]

    def judged(inner, outer):
        loss_fn = nn.MSELoss(reduction="sum")
        point = classify_point(Neurons(inner, outer), loss_fn, data, reduction="sum")
        assert point.loss == pytest.approx(1.4405, abs=1e-4)
        return point

    def slope(v):
        return float(exact @ torch.tanh(v * x[:, 0]))

    assert judged([w], [1.0]).kind is Kind.LOCAL_MINIMUM
    between = brentq(slope, 0.05, 0.5, xtol=1e-16)
    assert between == pytest.approx(0.1236, abs=2e-4)
    for place in (0.0, between):
        assert judged([w, place], [1.0, 0.0]).kind is Kind.STRICT_SADDLE
    with pytest.warns(LandscapeWarning, match="undecided"):
        assert judged([w, 0.5], [1.0, 0.0]).kind is Kind.NOT_CRITICAL
    # On the neuron itself nothing is negative, yet it is none: saddles are next to it.
    assert judged([w, w], [1.0, 0.0]).kind is Kind.DEGENERATE_MINIMUM_CANDIDATE
    beside = {judged([w, w], [1 - a, a]).kind for a in (0.1, -0.1)}
    assert beside == {Kind.STRICT_SADDLE, Kind.DEGENERATE_MINIMUM_CANDIDATE}
