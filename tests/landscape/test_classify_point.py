import warnings
from copy import deepcopy

import matplotlib.pyplot
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import NonFiniteError
from layerpeel.landscape import (
    EscapeStatus,
    Inertia,
    Kind,
    LandscapeWarning,
    Risk,
    classify_point,
    escape,
    polish,
)
from tests.landscape.networks import (
    classification,
    convolutional,
    lifted,
    normal,
    perceptron,
    relu_network,
    seeded,
    tanh_network,
)


@pytest.fixture(scope="module")
def tanh_minimum():
    model, data = tanh_network()
    polished = polish(model, F.mse_loss, data)
    assert polished.gradient_norm <= 1e-12
    return polished.model, data


@pytest.fixture(scope="module")
def relu_minimum():
    model, data = relu_network()
    polished = polish(model, F.mse_loss, data)
    assert polished.gradient_norm <= 1e-12
    return polished.model, data


def zeroed(activation):
    """A two-layer network of zeros: a strict saddle as soon as labels say anything."""
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2)).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    x = normal(20, 3)
    return model, [(x, x @ normal(3, 2, seed=5) - x.mean(0) @ normal(3, 2, seed=5))]


def test_a_tanh_network_at_a_minimum(tanh_minimum):
    point = classify_point(tanh_minimum[0], F.mse_loss, tanh_minimum[1])
    assert point.kind is Kind.LOCAL_MINIMUM
    assert point.kind.proved
    assert point.inertia == Inertia(0, 0, 7)
    assert point.is_critical
    assert point.escape_direction is None
    assert point.warnings == ()
    # The oracle: autograd's Hessian and NumPy's eigenvalues.
    model, [(x, y)] = tanh_minimum

    def risk(*parts):
        names = [name for name, _ in model.named_parameters()]
        state = dict(zip(names, parts, strict=True))
        return F.mse_loss(torch.func.functional_call(model, state, x), y)

    blocks = torch.autograd.functional.hessian(risk, tuple(model.parameters()))
    sizes = [p.numel() for p in model.parameters()]
    matrix = torch.cat(
        [
            torch.cat([b.reshape(n, m) for b, m in zip(row, sizes, strict=True)], 1)
            for row, n in zip(blocks, sizes, strict=True)
        ]
    )
    values = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(point.eigenvalues, values, rtol=0, atol=1e-12)
    assert point.lowest.value == pytest.approx(float(values[0]), abs=1e-12)
    assert point.highest.value == pytest.approx(float(values[-1]), abs=1e-12)
    assert point.loss == pytest.approx(F.mse_loss(model(x), y).item(), abs=1e-15)


def test_a_relu_minimum_is_claimed_with_the_dimension_of_its_fibre_only(relu_minimum):
    model, data = relu_minimum

    def judged(fibre_dimension):
        return classify_point(model, F.mse_loss, data, fibre_dimension=fibre_dimension)

    point = judged(None)
    assert point.inertia == Inertia(0, 2, 5)
    assert point.kinks.margin > 1e-3
    assert point.kind is Kind.DEGENERATE_MINIMUM_CANDIDATE
    assert not point.kind.proved
    # Each of both neurons can be rescaled.
    assert judged(2).kind is Kind.LOCAL_MINIMUM
    assert judged(1).kind is Kind.DEGENERATE_MINIMUM_CANDIDATE
    with pytest.warns(LandscapeWarning, match="only 2 eigenvalues are zero"):
        point = judged(3)
    assert point.kind is Kind.DEGENERATE_MINIMUM_CANDIDATE


def test_layers_that_are_linear_on_the_data_add_zeros_alone(relu_minimum):
    model, data = relu_minimum
    for expected in (Inertia(0, 8, 5), Inertia(0, 14, 5)):
        model = lifted(model) if expected.zero == 8 else lifted_twice(relu_minimum)
        polished = polish(model, F.mse_loss, data)
        assert polished.moved <= 1e-10
        point = classify_point(
            polished.model, F.mse_loss, data, fibre_dimension=expected.zero
        )
        assert point.inertia == expected
        assert point.kind is Kind.LOCAL_MINIMUM


def lifted_twice(minimum):
    once = lifted(minimum[0])
    head = lifted(nn.Sequential(once[2], once[3], once[4]))
    return nn.Sequential(once[0], once[1], *head)


def split(model, neuron, share=0.5):
    """The model with a copy of a neuron, which takes a share of its outgoing weight."""
    first, activation, last = model
    wide = nn.Sequential(nn.Linear(1, 3), activation, nn.Linear(3, 1)).double()
    rows = [0, 1, neuron]
    wide[0].weight.data = first.weight.data[rows].clone()
    wide[0].bias.data = first.bias.data[rows].clone()
    wide[2].weight.data = last.weight.data[:, rows].clone()
    wide[2].weight.data[0, neuron] *= 1 - share
    wide[2].weight.data[0, 2] *= share
    wide[2].bias.data = last.bias.data.clone()
    return wide


def splitting_matrix(model, data, neuron):
    """The mean of backward signal, second derivative, and inputs times inputs."""
    (x, y) = data[0]
    with torch.no_grad():
        signal = 2 * (model(x) - y) * model[2].weight[0, neuron]
        tanh = torch.tanh(model[0](x)[:, [neuron]])
        inputs = torch.cat([x, torch.ones_like(x)], 1)
        return (inputs * signal * -2 * tanh * (1 - tanh**2)).T @ inputs / len(x)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("neuron", [0, 1])
def test_a_neuron_that_is_split_adds_the_inertia_of_its_matrix(seed, neuron):
    model, data = tanh_network(seed)
    minimum = polish(model, F.mse_loss, data).model
    for share in (0.5, -0.7):
        wide = polish(split(minimum, neuron, share), F.mse_loss, data)
        assert wide.moved <= 1e-10
        point = classify_point(wide.model, F.mse_loss, data)
        block = share * (1 - share) * splitting_matrix(minimum, data, neuron)
        # One output: moving outgoing weights between both copies does nothing.
        added = Inertia.of(torch.linalg.eigvalsh(block)) + Inertia(0, 1, 0)
        assert point.inertia == Inertia(0, 0, 7) + added
        saddle = Kind.STRICT_SADDLE if added.negative else None
        assert point.kind is (saddle or Kind.DEGENERATE_MINIMUM_CANDIDATE)


def test_a_minimum_becomes_a_strict_saddle_when_it_is_split():
    model, data = tanh_network(0)
    minimum = polish(model, F.mse_loss, data).model
    signs = [
        Inertia.of(torch.linalg.eigvalsh(splitting_matrix(minimum, data, neuron))).signs
        for neuron in (0, 1)
    ]
    assert (1, 0, 1) in signs
    point = classify_point(split(minimum, signs.index((1, 0, 1))), F.mse_loss, data)
    assert point.inertia == Inertia(1, 1, 8)
    assert point.kind is Kind.STRICT_SADDLE


def shaken(model, data, size):
    """The model with a gradient of this size, in the sum of absolute values."""
    risk = Risk.of(model, F.mse_loss, data)
    noise = normal(risk.size, seed=2)

    def gradient(scale):
        return float(risk.gradient(risk.point + scale * noise).abs().sum())

    scale = brentq(lambda s: gradient(s) - size, 0.0, 1e-3)
    moved = deepcopy(model)
    risk.parameters.write(moved, risk.point + scale * noise)
    return moved


@pytest.mark.parametrize("lifts", [0, 1, 2])
def test_spurious_negatives_near_a_minimum_are_undecided(relu_minimum, lifts):
    model, data = relu_minimum
    model = [model, lifted(model), lifted_twice(relu_minimum)][lifts]
    moved = shaken(model, data, 1e-4)
    with pytest.warns(LandscapeWarning, match="undecided"):
        point = classify_point(moved, F.mse_loss, data)
    assert point.kind is Kind.NOT_CRITICAL
    # What the cut of a published figure would count: more of them with depth.
    assert Inertia.of(point.eigenvalues, tolerance=1e-12).negative >= 1 + lifts
    assert point.inertia.negative == 0
    assert point.inertia.undecided >= 2 + lifts
    assert point.escape_direction is None
    # Neither with a tolerance that lets the gradient pass.
    with pytest.warns(LandscapeWarning, match="undecided"):
        loose = classify_point(moved, F.mse_loss, data, gradient_tolerance=1.0)
    assert loose.kind is Kind.UNDECIDED


@pytest.mark.parametrize("activation", [nn.Identity(), nn.Tanh()])
@pytest.mark.parametrize("dense_limit", [5000, 0], ids=["dense", "Lanczos"])
def test_a_planted_saddle_is_found_and_left_with_the_predicted_drop(
    activation, dense_limit
):
    model, data = zeroed(activation)
    point = classify_point(model, F.mse_loss, data, dense_limit=dense_limit)
    assert point.kind is Kind.STRICT_SADDLE
    assert point.curvature.is_negative
    assert (point.inertia is None) == (dense_limit == 0)
    if point.inertia is not None:
        # For each of four units the correlation of inputs and labels, of rank two, as an
        # off-diagonal block: two of either sign. And the bias of the two outputs.
        assert point.inertia == Inertia(8, 8, 10)
    direction = point.escape_direction
    assert direction is not None
    assert set(direction) == {name for name, _ in model.named_parameters()}
    length = sum(float(part.square().sum()) for part in direction.values())
    assert length == pytest.approx(1.0)
    moved = escape(model, direction, F.mse_loss, data, step=1e-3)
    assert moved.predicted_drop == pytest.approx(-point.curvature.value * 1e-6 / 2)
    assert moved.measured_drop == pytest.approx(moved.predicted_drop, rel=1e-3)


def test_a_saddle_beyond_the_dense_limit_is_certified():
    model = seeded(lambda: perceptron(3, 40, 30, 3)).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    x = normal(30, 3)
    # Balanced, so that the gradient vanishes at zero logits; the saddle is of high order.
    data = [(x, torch.arange(30) % 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LandscapeWarning)
        flat = classify_point(model, F.cross_entropy, data, dense_limit=100)
    assert flat.kind is Kind.NO_NEGATIVE_FOUND
    assert flat.inertia is None
    assert flat.escape_direction is None
    # One hidden layer less, and it is a strict one.
    model = seeded(lambda: perceptron(3, 40, 3)).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    strict = classify_point(
        model, F.cross_entropy, data, dense_limit=100, num_eigenvalues=2
    )
    assert strict.kind is Kind.STRICT_SADDLE
    assert len(strict.eigenvalues) == 4
    dense = classify_point(model, F.cross_entropy, data)
    assert strict.lowest.value == pytest.approx(dense.lowest.value, abs=1e-8)


def test_a_network_on_a_kink_has_no_hessian():
    model, data = zeroed(nn.ReLU())
    with pytest.warns(LandscapeWarning, match="on a kink, first at 1"):
        point = classify_point(model, F.mse_loss, data)
    assert point.kind is Kind.AT_KINK
    assert point.escape_direction is None


def test_a_network_in_training_is_not_critical():
    model, data = seeded(convolutional).train(), classification(convolutional)
    before = deepcopy(model.state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        point = classify_point(model, F.cross_entropy, data)
    assert point.kind is Kind.NOT_CRITICAL
    assert tuple(str(w.message) for w in caught) == point.warnings
    assert all(w.category is LandscapeWarning for w in caught)
    assert "train mode" in point.warnings[0]
    assert "not large against the gradient" in point.warnings[1]
    assert point.summary().count("caution: ") == 2
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_direction_to_escape_does_not_point_uphill():
    model, data = zeroed(nn.Tanh())
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 1e-6 * noise
    # Zeros are no longer zeros then; what is far below them is decided all the same.
    with pytest.warns(LandscapeWarning, match="undecided"):
        point = classify_point(model, F.mse_loss, data, gradient_tolerance=1e-3)
    assert point.kind is Kind.STRICT_SADDLE
    moved = escape(model, point.escape_direction, F.mse_loss, data, step=1e-3)
    assert moved.slope < 0
    assert moved.measured_drop == pytest.approx(moved.predicted_drop, rel=1e-2)


def test_a_point_says_and_draws_what_it_is(tanh_minimum):
    point = classify_point(*tanh_minimum[:1], F.mse_loss, tanh_minimum[1])
    text = point.summary()
    assert text.startswith("LOCAL_MINIMUM: No eigenvalue is negative")
    assert "inertia (0, 0, 7)" in text
    assert "caution" not in text
    fig, ax = point.plot()
    assert fig is ax.figure
    assert len(ax.lines[-1].get_ydata()) == 7
    fig.canvas.draw()
    assert point.plot(ax)[1] is ax
    assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize(
    "options",
    [
        {"dense_limit": -1}, {"num_eigenvalues": 0}, {"gradient_tolerance": 0.0},
        {"fibre_dimension": -1}, {"reduction": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(tanh_minimum, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        classify_point(tanh_minimum[0], F.mse_loss, tanh_minimum[1], **options)


ROOTS = {
    "gradient": lambda z: z.square().sqrt(),
    "Hessian": lambda z: z.abs().pow(1.5),
}


@pytest.mark.parametrize("derivative", ROOTS, ids=str)
def test_a_derivative_that_does_not_exist_is_told(derivative):
    model = nn.Linear(2, 1)
    for parameter in model.parameters():
        parameter.data.zero_()

    def loss_fn(f, y):
        return ROOTS[derivative](f).mean()

    with pytest.raises(NonFiniteError, match=f"The {derivative} must be finite"):
        classify_point(model, loss_fn, [(normal(4, 2), torch.zeros(4, 1))])


class Polynomial(nn.Module):
    """The risk itself, as a function of two parameters."""

    def __init__(self, function, *start):
        super().__init__()
        self.place, self.function = nn.Parameter(torch.tensor(start).double()), function

    def forward(self, x):
        return self.function(*self.place).expand(len(x), 1)


def judged(function, *start, **options):
    data = [(torch.zeros(2, 1), torch.zeros(2, 1))]
    model = Polynomial(function, *start)
    return classify_point(model, lambda f, _: f.mean(), data, **options)


# Each has a tiny gradient and an eigenvalue far above it, which is none of the degenerate
# critical point nearby: there it is zero.
DEGENERATE = {
    "cubic, above": (lambda x, y: x**2 + y**3, (0.0, 1e-5)),
    "cubic, below": (lambda x, y: x**2 + y**3, (0.0, -1e-5)),
    "quartic": (lambda x, y: x**2 + y**4, (0.0, 1e-3)),
    "quartic down": (lambda x, y: x**2 - y**4, (0.0, 1e-3)),
    "monkey": (lambda x, y: x**3 - 3 * x * y**2, (1e-5, 1e-5)),
}


@pytest.mark.parametrize("case", DEGENERATE, ids=str)
def test_near_a_degenerate_point_nothing_is_claimed(case):
    function, start = DEGENERATE[case]
    with pytest.warns(LandscapeWarning, match="Newton's step"):
        point = judged(function, *start)
    assert point.is_critical
    # The test of eigenvalue against gradient lets it pass.
    assert point.eigenvalues.abs().min() > 1000 * point.gradient_norm
    assert point.kind is Kind.UNDECIDED
    if point.inertia.negative:
        with pytest.warns(LandscapeWarning, match="Newton's step"):
            ends = judged(function, *start, dense_limit=0)
        assert ends.kind is Kind.UNDECIDED


@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_near_any_other_point_a_claim_holds(share):
    saddle = judged(lambda x, y: x**2 - 1e-3 * y**2 + y**3, share, share)
    assert saddle.kind is Kind.STRICT_SADDLE
    minimum = judged(lambda x, y: x**2 + 1e-3 * y**2 + y**3, share, share)
    assert minimum.kind is Kind.LOCAL_MINIMUM


@pytest.mark.parametrize("dense_limit", [5000, 0], ids=["dense", "Lanczos"])
def test_a_product_proves_what_the_largest_eigenvalue_hides(dense_limit):
    options = {"dense_limit": dense_limit}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        point = judged(lambda x, y: 1e16 * x**2 - y**2, 0.0, 0.0, **options)
    assert point.kind is Kind.STRICT_SADDLE
    assert point.curvature.value == -2.0
    assert point.escape_direction["place"].abs().tolist() == [0.0, 1.0]
    if dense_limit:
        assert point.inertia == Inertia(0, 1, 1)
        assert "counts it as zero" in str(caught[0].message)


def split_in_two(model, dtype):
    """A 1-2-1 network whose second neuron is two, in a dtype."""
    first, last = nn.Linear(1, 3).double(), nn.Linear(3, 1).double()
    with torch.no_grad():
        first.weight.copy_(model[0].weight[[0, 1, 1]])
        first.bias.copy_(model[0].bias[[0, 1, 1]])
        share = torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64)
        last.weight.copy_(model[2].weight[:, [0, 1, 1]] * share)
        last.bias.copy_(model[2].bias)
    return nn.Sequential(first, nn.Tanh(), last).to(dtype)


def test_a_saddle_in_float32_is_one_at_its_own_tolerance(tanh_minimum):
    model, data = tanh_minimum
    wide, exact = (split_in_two(model, d) for d in (torch.float32, torch.float64))
    reference = classify_point(exact, F.mse_loss, data)
    # Rounding of parameters leaves a gradient that is none of a critical point's.
    assert classify_point(wide, F.mse_loss, data).kind is Kind.NOT_CRITICAL
    point = classify_point(wide, F.mse_loss, data, gradient_tolerance=1e-6)
    assert point.kind is reference.kind is Kind.STRICT_SADDLE
    assert point.inertia == reference.inertia
    assert point.lowest.value == pytest.approx(reference.lowest.value, rel=1e-4)
    moved = escape(wide, point.escape_direction, F.mse_loss, data)
    assert moved.status is EscapeStatus.LOWERED
    assert {p.dtype for p in moved.model.parameters()} == {torch.float32}
    x, y = data[0]
    before, after = (F.mse_loss(m.double()(x), y).item() for m in (wide, moved.model))
    assert moved.measured_drop == pytest.approx(before - after, abs=1e-15)
    assert before - after > 1e-6


def test_a_normalised_network_is_judged_in_eval_mode_with_its_fibres():
    # The weights before a normalisation, with fixed statistics, are an affine map more.
    build = lambda: nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))  # noqa: E731
    model = seeded(build).double()
    x = normal(9, 1)
    model(x)
    state = deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LandscapeWarning)
        point = classify_point(model, F.mse_loss, [(x, 2 * x + normal(9, 1, seed=1))])
    assert any("in train mode" in caution for caution in point.warnings)
    assert point.parameters.size == 4 + 4 + 3
    assert model.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    model.eval()
    data = [(x, 2 * x + normal(9, 1, seed=1))]
    polished = polish(model, F.mse_loss, data)
    assert polished.status.success
    # All maps of one line: two directions change it, the other nine are flat.
    flat = classify_point(polished.model, F.mse_loss, data, fibre_dimension=9)
    assert flat.inertia.signs == (0, 9, 2)
    assert flat.kind is Kind.LOCAL_MINIMUM
    unknown = classify_point(polished.model, F.mse_loss, data)
    assert unknown.kind is Kind.DEGENERATE_MINIMUM_CANDIDATE


def test_sentences_do_not_say_more_than_is_evaluated():
    assert "may have no Hessian" in Kind.AT_KINK.value
    assert "that was evaluated" in Kind.STRICT_SADDLE.value
    assert "that was given" in Kind.LOCAL_MINIMUM.value
    assert "not shown" in Kind.DEGENERATE_MINIMUM_CANDIDATE.value
    assert "does not prove" in Kind.NO_NEGATIVE_FOUND.value


def test_a_degenerate_minimum_beyond_the_dense_limit_is_claimed_to_be_nothing():
    # Twenty variables and three samples: 17 eigenvalues are zero, exactly so.
    model = nn.Linear(20, 5, bias=False).double()
    x, y = normal(3, 20), normal(3, 5, seed=1)
    done = polish(model, F.mse_loss, [(x, y)])
    point = classify_point(
        done.model, F.mse_loss, [(x, y)], dense_limit=10, fibre_dimension=85
    )
    assert point.kind in (Kind.NO_NEGATIVE_FOUND, Kind.UNDECIDED)
    assert not point.kind.proved
    assert point.inertia is None
    assert point.escape_direction is None
