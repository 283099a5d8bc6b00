import math

import pytest

from layerpeel.program import Energy


def test_of_takes_an_energy_or_a_pair():
    energy = Energy(1.0, 4.0)
    assert Energy.of(energy) is energy
    assert Energy.of((1, 4)) == energy
    assert Energy.of([1.0, 4.0]) == energy


def test_product_balance_and_budget():
    energy = Energy(2.0, 8.0)
    assert energy.product == 16.0
    assert energy.balance == pytest.approx(0.5)
    assert energy.nuclear_norm(3) == pytest.approx(12.0)


def test_budget_survives_a_product_that_overflows():
    assert Energy(1e200, 1e200).product == math.inf
    assert Energy(1e200, 1e200).nuclear_norm(2) == pytest.approx(2e200)
    assert Energy(1e-200, 1e-200).nuclear_norm(2) == pytest.approx(2e-200)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_rejects_energies_that_are_not_positive(bad):
    with pytest.raises(ValueError, match=r"energy\.classifiers.*above 0; got"):
        Energy(bad, 1.0)
    with pytest.raises(ValueError, match=r"energy\.features.*above 0; got"):
        Energy.of((1.0, bad))


@pytest.mark.parametrize("bad", [(1.0,), (1.0, 2.0, 3.0)], ids=str)
def test_rejects_what_is_not_a_pair(bad):
    with pytest.raises(ValueError, match=r"pair \(E_W, E_H\).*got \("):
        Energy.of(bad)


def test_rejects_a_budget_that_overflows():
    with pytest.raises(ValueError, match=r"K \* sqrt\(E_W \* E_H\)"):
        Energy(1.7e308, 1.7e308).nuclear_norm(100)
