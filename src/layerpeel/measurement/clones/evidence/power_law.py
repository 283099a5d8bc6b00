r"""How fast the error of chunks falls with their width: a power law, always fitted.

.. math::
    e(w) = e_\infty + A w^{-b}

No exponent is assumed. For a given exponent the other two parameters are a linear
regression, so that the fit is a search along one line and finds the best one for sure.
Intervals are those of the profile likelihood: all values of a parameter with which the
others still fit the data about as well. They may be one-sided, or infinite, where the
widths do not determine a parameter.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: the curve,
    | drawn there beside a guide with exponent 1/2
    | The differentiation of pseudo-inverses and nonlinear least squares problems whose
    | variables separate (Golub & Pereyra, 1973), https://doi.org/10.1137/0710036
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor

from layerpeel._checks import NonFiniteError, ShapeError, one_of, undefined

Floats = NDArray[np.float64]

INTERVALS = ("profile", "bootstrap")
"""How intervals are found: from the curve's misfit, or from resampled chunks."""

# Exponents searched. A curve that is steeper or flatter over the few octaves that widths
# span is a step or a constant, and no power law.
_LEAST, _MOST = 1e-2, 10.0
_GRID = np.geomspace(_LEAST, _MOST, 301)


@dataclass(frozen=True)
class Estimate:
    """A fitted parameter.

    Attributes:
        value: Its best value; NaN if there is none.
        low: The lower end of its interval, which may be minus infinity.
        high: The upper end, which may be infinity.
    """

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class PowerLaw:
    r"""A power law :math:`e_\infty + A w^{-b}` fitted to errors.

    Attributes:
        exponent: The exponent :math:`b`.
        prefactor: The prefactor :math:`A`.
        asymptote: The error :math:`e_\infty` at infinite width; without an interval
            when it was given.
        level: The level of the intervals.
        misfit: Root mean square of the residuals, in units of the errors' noise where
            that is known, and of the error otherwise.
        widths: The widths that were fitted.
    """

    exponent: Estimate
    prefactor: Estimate
    asymptote: Estimate
    level: float
    misfit: float
    widths: tuple[int, ...]

    def at(self, width: float) -> float:
        """Return the fitted error at a width."""
        fall = math.exp(-self.exponent.value * math.log(width))
        return self.asymptote.value + self.prefactor.value * fall


def fit_power_law(
    widths: Sequence[int],
    errors: Tensor,
    *,
    asymptote: float | None = None,
    noise: Tensor | None = None,
    least_width: int = 1,
    level: float = 0.95,
    intervals: str = "profile",
    generator: torch.Generator | None = None,
) -> PowerLaw:
    r"""Fit a power law to the errors of chunks.

    Args:
        widths: Chunk widths, with shape :math:`(m,)`.
        errors: Their mean errors, with shape :math:`(m,)`, or those of each chunk, with
            shape :math:`(m, r)`; NaN where there are fewer chunks. The noise of a mean
            is then known from the spread over its chunks.
        asymptote: :math:`e_\infty`, such as the error of an ensemble of the widest
            network; fitted, and at least 0, when omitted.
        noise: Standard deviations of mean errors, with shape :math:`(m,)`. Without it
            and without chunks they are unknown, and taken to be equal.
        least_width: The narrowest chunk to fit: a power law holds above a critical
            width only.
        level: The level of the intervals.
        intervals: ``"profile"`` likelihood, or ``"bootstrap"`` over chunks.
        generator: Where randomness comes from; needed for the bootstrap.

    Returns:
        The fit. All of it is NaN with a warning when the errors do not fall like any
        power law, or there are fewer widths than parameters.

    Raises:
        ShapeError: If the shapes disagree.
        NonFiniteError: If a width has no finite error.
        ValueError: If an option is none of its values, or a width or noise is not
            positive.

    Example:
        >>> widths = [16, 32, 64, 128]
        >>> errors = torch.tensor([0.02 + 0.5 * w**-0.7 for w in widths])
        >>> fit = fit_power_law(widths, errors.double())
        >>> round(fit.exponent.value, 4), round(fit.asymptote.value, 4)
        (0.7, 0.02)
    """
    one_of("intervals", intervals, INTERVALS)
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie strictly between 0 and 1; got {level}.")
    curve = _Curve.of(widths, errors, noise, asymptote, least_width)
    law = _fitted(curve, level)
    if math.isnan(law.exponent.value):
        return law
    if intervals == "bootstrap":
        table = errors.detach().to("cpu", torch.float64).numpy()
        kept = np.asarray(widths) >= least_width
        return _bootstrapped(law, curve, table[kept], generator)
    return _profiled(law, curve)


@dataclass(frozen=True)
class _Curve:
    """Errors in units of their noise, against widths in units of a middle one."""

    widths: Floats
    errors: Floats
    weights: Floats
    known_noise: bool
    asymptote: float | None

    @classmethod
    def of(
        cls,
        widths: Sequence[int],
        errors: Tensor,
        noise: Tensor | None,
        asymptote: float | None,
        least_width: int,
    ) -> _Curve:
        """Check the errors, take means over chunks, and find out their noise."""
        x = np.asarray(widths, dtype=np.float64)
        table = errors.detach().to("cpu", torch.float64).numpy()
        _check_table(x, table)
        kept = x >= least_width
        x, table = x[kept], table[kept]
        if np.isnan(table).all(axis=tuple(range(1, table.ndim))).any():
            raise NonFiniteError(
                "`errors` must have a finite error for every width; some have none."
            )
        mean = table if table.ndim == 1 else np.nanmean(table, axis=1)
        sigma = _noise_of(table) if noise is None else _checked_noise(noise, kept)
        weights = np.ones_like(mean) if sigma is None else 1 / sigma
        return cls(x, mean, weights, sigma is not None, asymptote)

    @property
    def middle(self) -> float:
        """A width in whose units prefactor and exponent are nearly independent."""
        return float(np.exp(np.log(self.widths).mean()))

    @property
    def parameters(self) -> int:
        """How many parameters are fitted."""
        return 3 if self.asymptote is None else 2

    def misfit(
        self,
        exponents: Floats,
        prefactor: float | None = None,
        asymptote: float | None = None,
    ) -> tuple[Floats, Floats, Floats]:
        """Return the sum of squares, prefactor and asymptote of each exponent.

        Args:
            exponents: The exponents, with shape :math:`(p,)`.
            prefactor: One to hold fixed.
            asymptote: One to hold fixed.
        """
        fall = (self.widths / self.middle) ** -exponents[:, None]
        free = asymptote is None and self.asymptote is None
        fixed = self.asymptote if asymptote is None else asymptote
        if prefactor is not None:
            a = prefactor * self.middle**-exponents
            e = np.zeros_like(a) if fixed is None else np.full_like(a, fixed)
            if free:
                rest = self.errors - a[:, None] * fall
                e = np.maximum(0, self._mean(rest))
        elif free:
            a, e = self._line(fall)
        else:
            e = np.full_like(exponents, fixed or 0.0)
            a = self._slope(fall, self.errors - e[:, None])
        left = (self.errors - e[:, None] - a[:, None] * fall) * self.weights
        return np.square(left).sum(1), a * self.middle**exponents, e

    def _line(self, fall: Floats) -> tuple[Floats, Floats]:
        """Regress on a fall and a constant, which must not be negative."""
        centre = self._mean(fall)[:, None]
        mean = self._mean(self.errors[None])
        a = self._slope(fall - centre, (self.errors - mean)[None])
        e = mean - a * centre[:, 0]
        through_zero = self._slope(fall, self.errors[None])
        return np.where(e < 0, through_zero, a), np.maximum(e, 0)

    def _mean(self, values: Floats) -> Floats:
        w = np.square(self.weights)
        mean: Floats = (values * w).sum(-1) / w.sum()
        return mean

    def _slope(self, x: Floats, y: Floats) -> Floats:
        w = np.square(self.weights)
        slope: Floats = (x * y * w).sum(-1) / (x * x * w).sum(-1)
        return slope

    def best(
        self, prefactor: float | None = None, asymptote: float | None = None
    ) -> tuple[float, float]:
        """Return the least sum of squares over all exponents, and its exponent."""
        grid = self.misfit(_GRID, prefactor, asymptote)[0]
        i = int(grid.argmin())
        bounds = np.log([_GRID[max(i - 1, 0)], _GRID[min(i + 1, len(_GRID) - 1)]])

        def of(log_exponent: float) -> float:
            exponent = np.exp(np.array([log_exponent]))
            return float(self.misfit(exponent, prefactor, asymptote)[0][0])

        found = optimize.minimize_scalar(
            of, bounds=tuple(bounds), method="bounded", options={"xatol": 1e-8}
        )
        if found.fun <= grid[i]:
            return float(found.fun), float(np.exp(found.x))
        return float(grid[i]), float(_GRID[i])


def _fitted(curve: _Curve, level: float) -> PowerLaw:
    """Fit without intervals; NaN with a warning where there is no power law."""
    widths = tuple(int(w) for w in curve.widths)
    if len(widths) < curve.parameters:
        few = f"{curve.parameters} parameters need as many widths; got {len(widths)}"
        return _unfitted(few, level, widths)
    total, exponent = curve.best()
    _, prefactors, asymptotes = curve.misfit(np.array([exponent]))
    if not prefactors[0] > 0:
        return _unfitted("the errors do not fall with the width", level, widths)
    if not _LEAST * 1.001 < exponent < _MOST / 1.001:
        end = "the best exponent is at an end of the range searched, 0.01 to 10"
        return _unfitted(end, level, widths)
    return PowerLaw(
        _alone(exponent),
        _alone(float(prefactors[0])),
        _alone(float(asymptotes[0])),
        level,
        math.sqrt(total / len(widths)),
        widths,
    )


def _unfitted(cause: str, level: float, widths: tuple[int, ...]) -> PowerLaw:
    """Warn that there is no power law, and return none."""
    nan = undefined(f"The power law is undefined (NaN): {cause}.")
    none = Estimate(nan, nan, nan)
    return PowerLaw(none, none, none, level, nan, widths)


def _alone(value: float) -> Estimate:
    return Estimate(value, value, value)


def _profiled(law: PowerLaw, curve: _Curve) -> PowerLaw:
    """Add the intervals of the profile likelihood."""
    least = _threshold(law, curve)

    def exponents(value: float) -> float:
        return float(curve.misfit(np.array([value]))[0][0])

    b, a, e = law.exponent.value, law.prefactor.value, law.asymptote.value
    law = replace(
        law,
        exponent=Estimate(
            b,
            _end(exponents, b, _LEAST, least, -math.inf),
            _end(exponents, b, _MOST, least, math.inf),
        ),
        # A prefactor is the error extrapolated to one neuron: it spans decades.
        prefactor=Estimate(
            a,
            _end(lambda v: curve.best(prefactor=v)[0], a, a * 1e-6, least, 0.0),
            _end(lambda v: curve.best(prefactor=v)[0], a, a * 1e6, least, math.inf),
        ),
    )
    if curve.asymptote is not None:
        return law
    most = float(curve.errors.max())
    asymptote = Estimate(
        e,
        _end(lambda v: curve.best(asymptote=v)[0], e, 0.0, least, 0.0),
        _end(lambda v: curve.best(asymptote=v)[0], e, most, least, math.inf),
    )
    return replace(law, asymptote=asymptote)


def _threshold(law: PowerLaw, curve: _Curve) -> float:
    """Return the sum of squares up to which a parameter is in its interval."""
    total = law.misfit**2 * len(curve.widths)
    if curve.known_noise:
        return total + float(stats.chi2.ppf(law.level, 1))
    free = len(curve.widths) - curve.parameters
    if free == 0:
        return math.inf  # nothing is left to tell the noise from
    return total * (1 + float(stats.f.ppf(law.level, 1, free)) / free)


def _end(
    misfit: Callable[[float], float],
    best: float,
    limit: float,
    threshold: float,
    beyond: float,
) -> float:
    """Return where a misfit crosses the threshold, or ``beyond`` if it never does."""
    if best == limit:
        return best
    if misfit(limit) <= threshold:
        return beyond
    positive = best > 0 and limit > 0
    to, back = (math.log, math.exp) if positive else (float, float)
    if misfit(back(to(best))) >= threshold:
        return best  # a perfect fit: the interval is a point
    root = optimize.brentq(
        lambda v: misfit(back(v)) - threshold, to(best), to(limit), xtol=1e-12
    )
    return float(back(root))


def _bootstrapped(
    law: PowerLaw, curve: _Curve, table: Floats, generator: torch.Generator | None
) -> PowerLaw:
    """Add percentiles of the fits to chunks drawn with replacement."""
    if table.ndim != 2 or generator is None:
        raise ValueError(
            "A bootstrap needs `errors` of each chunk, with shape (m, r), and a "
            f"`generator`; got shape {table.shape} and {generator!r}."
        )
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    random = np.random.default_rng(seed)
    fits = []
    for _ in range(_RESAMPLES):
        again = replace(curve, errors=_resampled(table, random))
        exponent = again.best()[1]
        _, prefactor, asymptote = again.misfit(np.array([exponent]))
        fits.append((exponent, prefactor[0], asymptote[0]))
    tail = (1 - law.level) / 2
    ends = np.quantile(np.array(fits), [tail, 1 - tail], axis=0).T.tolist()
    return replace(
        law,
        exponent=Estimate(law.exponent.value, *ends[0]),
        prefactor=Estimate(law.prefactor.value, *ends[1]),
        asymptote=Estimate(law.asymptote.value, *ends[2]),
    )


# Percentiles at 2.5 % then rest on ten fits: their own noise is a fifth of a deviation.
_RESAMPLES = 400


def _resampled(table: Floats, random: np.random.Generator) -> Floats:
    """Return the mean errors of as many chunks drawn with replacement."""
    means = []
    for row in table:
        seen = row[~np.isnan(row)]
        means.append(random.choice(seen, len(seen)).mean())
    return np.array(means)


def _noise_of(table: Floats) -> Floats | None:
    """Return the standard errors of means over chunks, where there are chunks."""
    if table.ndim == 1:
        return None
    counts = (~np.isnan(table)).sum(axis=1)
    several = counts > 1
    if not several.any():
        return None
    sigma = np.full(len(table), np.inf)
    variance = np.nanvar(table[several], axis=1) * counts[several]
    sigma[several] = np.sqrt(variance / (counts[several] - 1) / counts[several])
    sigma[~(sigma > 0)] = np.inf
    if not np.isfinite(sigma).any():
        return None
    # All chunks of the full width are one: no spread is no certainty.
    sigma[~np.isfinite(sigma)] = sigma[np.isfinite(sigma)].min()
    return sigma


def _check_table(widths: Floats, table: Floats) -> None:
    if widths.ndim != 1 or table.ndim not in (1, 2) or len(table) != len(widths):
        raise ShapeError(
            f"`errors` must have shape ({len(widths)},) or ({len(widths)}, r) to match "
            f"`widths`; got {table.shape}."
        )
    if np.isinf(table).any():
        raise NonFiniteError("`errors` must be finite or NaN; got infinity.")
    if not (widths >= 1).all() or len(set(widths.tolist())) < len(widths):
        raise ValueError(
            f"`widths` must be distinct and at least 1; got {widths.tolist()}."
        )


def _checked_noise(noise: Tensor, kept: NDArray[np.bool_]) -> Floats:
    sigma: Floats = noise.detach().to("cpu", torch.float64).numpy()
    if sigma.shape != kept.shape:
        raise ShapeError(
            f"`noise` must have shape {kept.shape} to match `widths`; got "
            f"{sigma.shape}."
        )
    if not ((sigma > 0) & np.isfinite(sigma)).all():
        raise ValueError("`noise` must be finite and above 0 for every width.")
    return sigma[kept]
