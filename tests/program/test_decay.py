import numpy as np
import pytest
from scipy.optimize import minimize

from layerpeel.program import Decay


def test_tuples_are_layers_and_then_features():
    decay = Decay.of((1e-3, 2e-3, 5e-4))
    assert (decay.layers, decay.features, decay.per) == ((1e-3, 2e-3), 5e-4, "sample")
    assert Decay.of(decay) is decay
    assert decay.depth == 2


@pytest.mark.parametrize("decay", [(1e-3,), (), 5e-4, None, "ab"])
def test_what_is_no_tuple_of_two_is_refused(decay):
    with pytest.raises(ValueError, match=r"weight_decay"):
        Decay.of(decay)


@pytest.mark.parametrize("bad", [0.0, -1e-3, float("nan"), float("inf")])
def test_decays_must_be_positive(bad):
    with pytest.raises(
        ValueError, match=r"`weight_decay.layers\[1\]` must be a finite"
    ):
        Decay(1e-3, bad, features=1e-3)
    with pytest.raises(ValueError, match=r"`weight_decay\.features` must be a finite"):
        Decay(1e-3, features=bad)


def test_a_layer_is_needed_and_per_is_a_known_word():
    with pytest.raises(ValueError, match="at least one layer"):
        Decay(features=1e-3)
    with pytest.raises(ValueError, match="`per` must be one of 'sample', 'class'"):
        Decay(1e-3, features=1e-3, per="batch")


@pytest.mark.parametrize("decays", [(2e-3, 5e-4), (2e-3, 1e-3, 5e-4), (3.0, 0.2, 1, 2)])
def test_multiplier_is_that_of_the_least_penalty_of_a_scalar_product(decays):
    # Minimise sum lam_j w_j^2 / 2 subject to prod w_j = x, by brute force.
    product, size = 1.7, len(decays)

    def penalty(logs):
        logs = np.append(logs, np.log(product) - logs.sum())
        return 0.5 * np.sum(np.array(decays) * np.exp(2 * logs))

    least = minimize(penalty, np.zeros(size - 1), options={"gtol": 1e-12}).fun
    expected = size / 2 * Decay.of(decays).multiplier * product ** (2 / size)
    assert least == pytest.approx(expected, rel=1e-9)


def test_multipliers_of_many_tiny_decays_do_not_underflow():
    assert Decay(*[1e-200] * 5, features=1e-200).multiplier == pytest.approx(1e-200)
