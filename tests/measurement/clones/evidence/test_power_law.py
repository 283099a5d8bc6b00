import math

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from layerpeel._checks import NonFiniteError, ShapeError, UndefinedWarning
from layerpeel.measurement.clones.evidence.power_law import fit_power_law

WIDTHS = [8, 16, 32, 64, 128, 256, 512]


def law(w, e, a, b):
    return e + a * np.asarray(w, dtype=float) ** -b


def noisy(seed, size=1e-3, repeats=None, parameters=(0.03, 1.2, 0.8)):
    random = np.random.default_rng(seed)
    shape = (7,) if repeats is None else (7, repeats)
    clean = law(WIDTHS, *parameters).reshape(-1, *[1] * (len(shape) - 1))
    return torch.from_numpy(clean + size * random.standard_normal(shape))


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("asymptote", [0.0, 0.05])
@pytest.mark.parametrize("is_given", [True, False])
def test_an_exact_power_law_is_recovered(exponent, asymptote, is_given):
    errors = torch.from_numpy(law(WIDTHS, asymptote, 0.7, exponent))
    fit = fit_power_law(WIDTHS, errors, asymptote=asymptote if is_given else None)
    assert fit.exponent.value == pytest.approx(exponent, rel=1e-4)
    assert fit.prefactor.value == pytest.approx(0.7, rel=1e-3)
    assert fit.asymptote.value == pytest.approx(asymptote, abs=1e-4)
    assert fit.at(100) == pytest.approx(law(100, asymptote, 0.7, exponent), abs=1e-6)
    assert fit.misfit < 1e-6
    assert fit.exponent.high - fit.exponent.low < 1e-2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("has_noise", [True, False])
def test_the_fit_is_that_of_a_general_solver(seed, has_noise):
    errors = noisy(seed)
    noise = torch.linspace(1e-3, 3e-3, 7).double() if has_noise else None
    fit = fit_power_law(WIDTHS, errors, noise=noise)
    expected, _ = curve_fit(
        law, WIDTHS, errors, p0=(0.02, 1, 0.7), sigma=noise, xtol=1e-13, ftol=1e-13
    )
    got = [fit.asymptote.value, fit.prefactor.value, fit.exponent.value]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_published_excess_errors_of_wide_resnets():
    # Read off the authors' figure: excess error of chunks of 128, 256 and 512 neurons.
    excess = torch.tensor([0.0100, 0.0073, 0.0053], dtype=torch.float64)
    fit = fit_power_law([128, 256, 512], excess, asymptote=0.0)
    assert fit.exponent.value == pytest.approx(0.46, abs=0.005)
    assert fit.prefactor.value == pytest.approx(0.09, abs=0.005)
    assert fit.asymptote.low == fit.asymptote.high == 0
    assert 0.46 in fit.exponent
    assert 1.0 not in fit.exponent


def test_profile_intervals_cover_the_truth_as_often_as_they_say():
    truth = (0.03, 1.2, 0.8)
    hits = np.zeros(3)
    for seed in range(40):
        known = torch.full((7,), 1e-3, dtype=torch.float64) if seed % 2 else None
        fit = fit_power_law(WIDTHS, noisy(seed), noise=known, level=0.8)
        estimates = (fit.asymptote, fit.prefactor, fit.exponent)
        hits += [
            value in estimate for value, estimate in zip(truth, estimates, strict=True)
        ]
    assert (np.abs(hits - 32) < 9).all(), hits  # 3.5 deviations of a binomial


def test_at_the_ends_of_an_interval_the_misfit_is_at_its_threshold():
    errors, noise = noisy(3), torch.full((7,), 1e-3, dtype=torch.float64)
    fit = fit_power_law(WIDTHS, errors, noise=noise)
    least = 7 * fit.misfit**2
    for end in (fit.exponent.low, fit.exponent.high):
        design = np.stack([np.ones(7), np.array(WIDTHS) ** -end], 1) / 1e-3
        left = np.linalg.lstsq(design, errors.numpy() / 1e-3)[1][0]
        assert left - least == pytest.approx(3.841, abs=1e-2)


def test_chunks_give_the_noise_and_a_bootstrap():
    table = noisy(0, size=0.01, repeats=40)
    table[-1, 1:] = torch.nan  # one chunk of the full width
    table[-1, 0] = float(law(512, 0.03, 1.2, 0.8))
    fit = fit_power_law(WIDTHS, table)
    by_hand = table[:-1].std(1) / math.sqrt(40)
    sigma = torch.cat([by_hand, by_hand.min()[None]])
    same = fit_power_law(WIDTHS, table.nanmean(1), noise=sigma)
    assert fit.exponent.value == pytest.approx(same.exponent.value, rel=1e-6)
    assert fit.exponent.low == pytest.approx(same.exponent.low, rel=1e-5)
    drawn = fit_power_law(
        WIDTHS,
        table,
        intervals="bootstrap",
        generator=torch.Generator().manual_seed(0),
    )
    assert drawn.exponent.value == fit.exponent.value
    widths = [e.high - e.low for e in (fit.exponent, drawn.exponent)]
    assert 0.6 < widths[1] / widths[0] < 1.6
    assert 0.8 in drawn.exponent


def test_only_wide_chunks_are_fitted():
    errors = torch.from_numpy(law(WIDTHS, 0.01, 0.9, 0.5))
    errors[:2] = 0.9  # below the critical width
    fit = fit_power_law(WIDTHS, errors, least_width=32)
    assert fit.widths == (32, 64, 128, 256, 512)
    assert fit.exponent.value == pytest.approx(0.5, rel=1e-4)


def test_what_the_widths_do_not_determine_has_an_unbounded_interval():
    errors = torch.tensor([0.3, 0.2, 0.15], dtype=torch.float64)
    fit = fit_power_law([8, 16, 32], errors)  # as many widths as parameters
    assert fit.misfit < 1e-6
    assert (fit.exponent.low, fit.exponent.high) == (-math.inf, math.inf)
    assert (fit.asymptote.low, fit.asymptote.high) == (0, math.inf)


UNDEFINED = {
    "few": ([8, 16], [0.2, 0.1], "3 parameters.*got 2"),
    "rising": ([8, 16, 32, 64], [0.1, 0.2, 0.3, 0.4], "do not fall"),
    "step": ([8, 16, 32, 64], [0.9, 0.1, 0.1, 0.1], "end of the range"),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_no_power_law_is_nan_with_its_cause(case):
    widths, errors, cause = UNDEFINED[case]
    with pytest.warns(UndefinedWarning, match=cause):
        fit = fit_power_law(widths, torch.tensor(errors, dtype=torch.float64))
    assert math.isnan(fit.exponent.value)
    assert math.isnan(fit.at(10))
    assert fit.widths == tuple(widths)


ones = torch.ones(2, dtype=torch.float64)
WRONG = {
    "shape": ({"errors": torch.zeros(3)}, ShapeError, r"\(2,\) or \(2, r\).*\(3,\)"),
    "infinite": ({"errors": ones / 0}, NonFiniteError, "infinity"),
    "missing": ({"errors": ones * math.nan}, NonFiniteError, "every width"),
    "twice": ({"widths": [4, 4]}, ValueError, "distinct"),
    "noise": ({"noise": ones * 0}, ValueError, "`noise`"),
    "noise shape": ({"noise": torch.ones(3)}, ShapeError, "`noise`"),
    "level": ({"level": 95.0}, ValueError, "`level`"),
    "intervals": ({"intervals": "jackknife"}, ValueError, "'bootstrap'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses(case):
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        fit_power_law(**{"widths": [4, 8], "errors": ones} | arguments)


def test_a_bootstrap_needs_chunks():
    with pytest.raises(ValueError, match="each chunk"):
        fit_power_law(WIDTHS, noisy(0), intervals="bootstrap")


@pytest.mark.parametrize("widths", [[], [24], [6, 24]])
def test_too_few_widths_are_said_without_another_warning(widths):
    with pytest.warns(UndefinedWarning, match="need as many widths") as said:
        law = fit_power_law(widths, torch.rand(len(widths), 5).double())
    assert len(said) == 1
    assert math.isnan(law.exponent.value)
