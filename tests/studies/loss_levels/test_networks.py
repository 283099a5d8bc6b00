import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.landscape import Risk
from layerpeel.studies.loss_levels.networks import (
    ACTIVATIONS,
    network,
    split,
    widths_of,
)

X = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]


def test_parameters_come_from_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again = (network((1, 3, 0, 2), "gelu", 0.5, 4) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert widths_of(first) == (1, 3, 0, 2)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.float64
    wide = network((1, 4000, 1), "tanh", 0.5, 0)
    assert float(wide[0].weight.detach().std()) == pytest.approx(0.5, rel=0.05)


def test_outputs_without_neurons_are_constant():
    outputs = network((1, 0, 2), "tanh", 1.0, 0)(X)
    assert outputs.shape == (7, 2)
    assert torch.equal(outputs, outputs[:1].expand(7, 2))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(ACTIVATIONS)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_split_networks_have_the_same_outputs(activation, growth, seed):
    old = tuple(a for a, _ in growth)
    new = tuple(a + b for a, b in growth)
    narrow = network((1, *old, 2), activation, 1.0, seed)
    wide = split(narrow, new)
    assert widths_of(wide) == (1, *new, 2)
    np.testing.assert_allclose(wide(X).detach(), narrow(X).detach(), atol=1e-13)


@pytest.mark.parametrize("hidden", [(2,), (2, 2)])
def test_split_networks_have_the_gradient_of_the_narrow_one(hidden):
    # Summed over copies, a gradient is that of the neuron copied: the pull-back.
    narrow = network((1, *hidden, 1), "tanh", 1.0, 0)
    wide = split(narrow, tuple(3 * width for width in hidden))
    data = [(X, X**2)]
    loss = torch.nn.functional.mse_loss
    small, large = (Risk.of(m, loss, data, progress=False) for m in (narrow, wide))
    parts = large.parameters.unflat(large.gradient())
    for name, part in small.parameters.unflat(small.gradient()).items():
        if name == "0.weight":
            folded = parts[name].reshape(3, *part.shape).sum(0)
            np.testing.assert_allclose(folded, part, atol=1e-14)
    last = f"{2 * len(hidden)}.bias"
    np.testing.assert_allclose(
        parts[last], small.parameters.unflat(small.gradient())[last]
    )


@pytest.mark.parametrize("hidden", [(1,), (2, 2)])
def test_narrower_and_deeper_ones_are_refused(hidden):
    with pytest.raises(ValueError, match="each at least that of"):
        split(network((1, 2, 1), "tanh", 1.0, 0), hidden)


def test_another_activation_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'tanh'"):
        network((1, 2, 1), "Tanh", 1.0, 0)
