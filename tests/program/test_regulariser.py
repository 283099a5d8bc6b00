import math

import pytest

from layerpeel.program import Decay, Energy
from layerpeel.program.regulariser import Regulariser

COUNTS = [50.0, 20.0, 5.0]


def test_budget_per_class_is_the_one_of_the_layer_peeled_model():
    ball = Regulariser.of_energy(Energy(4.0, 9.0), COUNTS)
    assert (ball.budget, ball.multiplier, ball.depth) == (18.0, None, 1)
    assert ball.balance == pytest.approx(2 / 3)


def test_budget_per_sample_shares_the_energy_of_all_samples():
    # |W|^2 = K E_W and |H|^2 = N E_H: the norm is the geometric mean, balance the ratio.
    ball = Regulariser.of_energy(Energy(4.0, 9.0, per="sample"), COUNTS)
    squares = 3 * 4.0, 75 * 9.0
    assert ball.budget == pytest.approx(math.sqrt(squares[0] * squares[1]))
    assert ball.balance == pytest.approx(math.sqrt(squares[0] / squares[1]))


def test_penalty_has_the_multiplier_and_the_balance_of_the_decays():
    penalty = Regulariser.of_decay(Decay(1e-3, features=4e-3))
    assert penalty.budget is None
    assert penalty.multiplier == pytest.approx(2e-3)
    assert penalty.balance == pytest.approx(2.0)
    assert Regulariser.of_decay(Decay(1, 1, features=1)).depth == 2


def test_an_overflowing_budget_is_refused():
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        Regulariser.of_energy(Energy(1e308, 1e308, per="sample"), [1e308, 1e308])
