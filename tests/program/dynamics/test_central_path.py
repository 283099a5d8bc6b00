import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from layerpeel import LayerpeelError
from layerpeel._json import json_text
from layerpeel.program.dynamics import central_path, least_squares_loss, signal_to_noise

C, N_EACH, WIDTH = 3, 6, 4
LABELS = torch.arange(C).repeat_interleave(N_EACH)


def least_squares(features):
    """The mean squared error of the best classifier and bias, by a linear solve."""
    inputs = torch.cat([features, torch.ones(len(features), 1).double()], dim=1)
    targets = torch.nn.functional.one_hot(LABELS, C).double()
    fitted = inputs @ torch.linalg.solve(inputs.T @ inputs, inputs.T @ targets)
    return (fitted - targets).square().sum() / (2 * len(features))


def split(features):
    means = torch.stack([features[k == LABELS].mean(dim=0) for k in range(C)])
    noise = features - means[LABELS]
    return means, noise, noise.T @ noise / len(features)


def root(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**power) @ vectors.T


def whitened_start():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(C * N_EACH, WIDTH, dtype=torch.float64, generator=generator)
    features = features + 0.4 * torch.eye(C, WIDTH, dtype=torch.float64)[LABELS]
    return features @ root(split(features)[2], -0.5)


def slope(features):
    point = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(least_squares(point), point)
    return gradient


def tangent_velocity(features):
    """Project the velocity onto the kernel of the derivative of the covariance."""
    velocity = -slope(features)
    jacobian = torch.func.jacrev(lambda h: split(h)[2].flatten())(features)
    linear = jacobian.reshape(WIDTH**2, -1)
    along = torch.linalg.pinv(linear) @ (linear @ velocity.flatten())
    return velocity - along.reshape(features.shape)


def tangent_flow(start, time):
    def velocity(_, flat):
        features = torch.from_numpy(flat.reshape(start.shape).copy())
        return tangent_velocity(features).numpy().ravel()

    found = solve_ivp(velocity, (0, time), start.ravel().numpy(), rtol=1e-8, atol=1e-10)
    return torch.from_numpy(found.y[:, -1].reshape(start.shape).copy())


def multiplicative_steps(start, time, number):
    """Gradient descent, with the features renormalised after every step."""
    features = start
    for _ in range(number):
        features = features - time / number * slope(features)
        features = features @ root(split(features)[2], -0.5)
    return features


def multiplicative_flow(start, time):
    """The limit of small steps, by extrapolation."""
    coarse, fine = (multiplicative_steps(start, time, number) for number in (200, 400))
    return 2 * fine - coarse


FLOWS = {"tangent": tangent_flow, "multiplicative": multiplicative_flow}


@pytest.mark.parametrize("renormalisation", FLOWS)
def test_is_the_renormalised_flow_of_the_features(renormalisation):
    start, time = whitened_start(), 40.0
    features = FLOWS[renormalisation](start, time)
    initial = signal_to_noise(*(split(start)[i] for i in (0, 2)))
    path = central_path(
        initial,
        num_classes=C,
        samples_per_class=N_EACH,
        times=[time],
        renormalisation=renormalisation,
    )
    means, _, within = split(features)
    values = signal_to_noise(means, within)
    np.testing.assert_allclose(path.singular_values[0], values, rtol=1e-5)
    loss = float(least_squares(features))
    assert float(path.losses[0]) == pytest.approx(loss, rel=1e-5)
    # The other flow ends elsewhere: the two laws are told apart.
    (other,) = set(FLOWS) - {renormalisation}
    wrong = central_path(
        initial,
        num_classes=C,
        samples_per_class=N_EACH,
        times=[time],
        renormalisation=other,
    )
    assert abs(wrong.singular_values[0] / values - 1).max() > 0.05


def test_loss_is_that_of_a_linear_solve_before_any_whitening():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(len(LABELS), 7, dtype=torch.float64, generator=generator)
    features = features + torch.randn(C, 7, generator=generator).double()[LABELS]
    means, _, within = split(features)
    values = signal_to_noise(means, within)
    expected = float(least_squares(features))
    assert float(least_squares_loss(values, num_classes=C)) == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(1e-6, 1e3),
    st.floats(1e-3, 1e12),
    st.integers(2, 100),
    st.floats(1.0, 1e4),
    st.sampled_from(list(FLOWS)),
)
def test_satisfies_its_implicit_equation(start, time, num_classes, count, which):
    path = central_path(
        torch.tensor([start], dtype=torch.float64),
        num_classes=num_classes,
        samples_per_class=count,
        times=[0.0, time],
        renormalisation=which,
    )
    before, after = path.singular_values[:, 0].tolist()
    assert before == pytest.approx(start, rel=1e-9)
    assert after >= before * (1 - 1e-12)

    def law(w):
        x = w**2 / num_classes
        return np.log(w) + (x + x**2 / 4 if which == "tangent" else x / 2)

    elapsed = count * num_classes**2 * (law(after) - law(start))
    lost = 1e-13 * count * num_classes**2 * (1 + abs(law(after)))
    assert elapsed == pytest.approx(time, rel=1e-9, abs=lost)


@pytest.mark.parametrize(
    ("renormalisation", "power"), [("tangent", 0.25), ("multiplicative", 0.5)]
)
def test_long_time_powers(renormalisation, power):
    path = central_path(
        torch.tensor([3.0, 0.1, 0.0], dtype=torch.float64),
        num_classes=4,
        samples_per_class=10,
        times=[1e20, 1e24],
        renormalisation=renormalisation,
    )
    ratio = path.singular_values[1] / path.singular_values[0]
    assert ratio[:2].tolist() == pytest.approx([10 ** (4 * power)] * 2, rel=1e-6)
    assert path.singular_values[:, 2].tolist() == [0.0, 0.0]
    # All that grow become equal; the one that is not there costs its share of the loss.
    assert float(path.singular_values[1, 0]) == pytest.approx(
        float(path.singular_values[1, 1])
    )
    assert float(path.losses[1]) == pytest.approx(1 / 8)


def run(**changes):
    arguments = {
        "singular_values": torch.tensor([1.0, 2.0], dtype=torch.float64),
        "num_classes": 3,
        "samples_per_class": 5,
        "times": [0.0, 1.0],
        "renormalisation": "tangent",
    }
    return central_path(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"singular_values": torch.tensor([-1.0]).double()}, ">= 0"),
        ({"singular_values": torch.ones(3).double()}, "at most 2"),
        ({"num_classes": 1}, "num_classes"),
        ({"samples_per_class": 0.0}, "samples_per_class"),
        ({"times": [float("nan")]}, "times"),
    ],
)
def test_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_signal_to_noise_says_what_is_wrong():
    means = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(LayerpeelError, match="within"):
        signal_to_noise(means, torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive definite"):
        signal_to_noise(means, torch.diag(torch.tensor([1.0, 0.0]).double()))


def test_is_drawn_and_written():
    path = run()
    _, ax = path.plot()
    assert "tangent" in ax.get_title(loc="left")
    assert '"tangent"' in json_text(path.to_dict())


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_singular_values_may_be_of_any_kind(kind):
    values = [2.0, 1.0]
    options = {"num_classes": 3, "samples_per_class": 10, "times": [0, 50]}
    expected = central_path(
        torch.tensor(values, dtype=torch.float64), renormalisation="tangent", **options
    )
    given = kind(values)
    path = central_path(given, renormalisation="tangent", **options)
    torch.testing.assert_close(path.singular_values, expected.singular_values)
    loss = least_squares_loss(given, num_classes=3)
    torch.testing.assert_close(loss, expected.losses[0])


@pytest.mark.parametrize("values", [2.0, [[2.0, 1.0]]], ids=str)
def test_singular_values_have_one_dimension(values):
    with pytest.raises(
        LayerpeelError, match="`singular_values` must have one dimension"
    ):
        central_path(
            np.array(values),
            num_classes=3,
            samples_per_class=10,
            times=[0],
            renormalisation="tangent",
        )


def test_more_singular_values_than_classes_have_no_loss():
    with pytest.raises(LayerpeelError, match="`singular_values` must have at most 2"):
        least_squares_loss([1.0, 1.0, 1.0], num_classes=3)


def test_means_and_covariance_may_be_arrays():
    means, within = np.array([[2.0], [-2.0]]), [[4.0]]
    assert signal_to_noise(means, within).tolist() == pytest.approx([2**0.5])
    with pytest.raises(LayerpeelError, match=r"`class_means` must have shape \(C, p\)"):
        signal_to_noise([2.0, -2.0], within)
    with pytest.raises(ValueError, match="`class_means` must be finite"):
        signal_to_noise([[np.nan], [1.0]], within)
