r"""What a layer without clones looks like: floors and nulls to compare a profile with.

Three of them answer three doubts. The **floor** is the mean absolute correlation that
independent residuals show because there are only so many samples. The **rotated
covariance** has the layer's own eigenvalues and no preferred neurons: what it shows as
well follows from low rank alone. The **untrained copy** has the layer's architecture
and data: what it shows as well was not learned.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: the curves
    | How to generate random matrices from the classical compact groups
    | (Mezzadri, 2007), https://arxiv.org/abs/math-ph/0609050: random rotations
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from layerpeel._checks import LayerError, at_least, listed, one_of, undefined
from layerpeel._tolerances import EPS
from layerpeel.measurement.clones.keeping.pivots import pivots
from layerpeel.measurement.clones.reconstruction.reconstruction import SCOPES
from layerpeel.measurement.statistics.covariance import Covariance


@dataclass(frozen=True, eq=False)
class NullCurves:
    """Reconstruction from random chunks of a layer that has no preferred neurons.

    Attributes:
        widths: Chunk widths, ascending, with shape :math:`(m,)`.
        r_squared: In-sample :math:`R^2` at each width, one column per repeat, with shape
            :math:`(m, r)`; NaN where no neuron is in scope.
        correlation: Mean absolute correlation of residuals, with shape :math:`(m, r)`;
            NaN where no two neurons in scope have one.
        scope: Which neurons count, ``"all"`` or those of the ``"complement"``.
    """

    widths: Int64[Tensor, " m"]
    r_squared: Float64[Tensor, "m r"]
    correlation: Float64[Tensor, "m r"]
    scope: str


def correlation_floor(
    num_samples: int, *, fitted: int = 0, exact: bool = True
) -> float:
    r"""Return the mean absolute correlation of independent Gaussian residuals.

    With :math:`\nu = N - 1 - w` degrees of freedom the residuals of two neurons are
    random directions in :math:`\mathbb{R}^\nu`, and

    .. math::
        E |r| = \frac{\Gamma(\nu / 2)}{\sqrt \pi \, \Gamma((\nu + 1) / 2)}
        \approx \sqrt{\frac{2}{\pi N}} .

    A mean absolute correlation near it is none: no number of neurons averages it away.

    Args:
        num_samples: The number of samples :math:`N`.
        fitted: The number of neurons :math:`w` that the residuals were regressed on.
        exact: Whether to use the exact value rather than the approximation for many
            samples.

    Returns:
        The floor; NaN with a warning when no degree of freedom is left.

    Raises:
        ValueError: If the numbers are no integers of at least 1 and 0.

    Example:
        >>> round(correlation_floor(10_000, exact=False), 4)
        0.008
        >>> round(correlation_floor(3), 4)  # two degrees of freedom: an angle
        0.6366
    """
    samples = at_least("num_samples", num_samples, 1)
    free = samples - 1 - at_least("fitted", fitted, 0)
    if free < 1:
        return undefined(
            f"The correlation of residuals of {samples} samples after a regression on "
            f"{fitted} neurons is undefined (NaN): there are none."
        )
    if not exact:
        return math.sqrt(2 / (math.pi * samples))
    logarithm = math.lgamma(free / 2) - math.lgamma((free + 1) / 2)
    return math.exp(logarithm) / math.sqrt(math.pi)


def rotated(covariance: Covariance, generator: torch.Generator) -> Covariance:
    r"""Return the covariance of features turned by a uniformly random rotation.

    :math:`Q G Q^\top` has the eigenvalues of :math:`G`, while each of its "neurons" is a
    random direction: all that made neurons of the layer alike or different is gone.

    Args:
        covariance: Covariance of the layer.
        generator: Where randomness comes from.

    Example:
        >>> found = Covariance.of(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> turned = rotated(found, torch.Generator().manual_seed(0))
        >>> turned.eigenvalues.round(decimals=9).tolist()
        [1.0, 0.0]
    """
    rotation = _rotation(covariance.width, generator).to(covariance.mean.device)
    scatter = rotation @ covariance.scatter @ rotation.T
    mean = rotation @ covariance.mean
    return Covariance(covariance.count, mean, (scatter + scatter.T) / 2)


def spectrum_null(
    covariance: Covariance,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    repeats: int = 10,
    scope: str = "complement",
) -> NullCurves:
    r"""Return the reconstruction curves of random rotations of a layer.

    A chunk of a rotated layer is a random projection to as many dimensions. One
    factorisation per rotation gives all widths.

    Args:
        covariance: Covariance of the layer, of at least one sample.
        widths: Chunk widths, between 1 and the layer's.
        generator: Where randomness comes from.
        repeats: The number of rotations :math:`r`.
        scope: Which neurons count: ``"complement"``, those outside the chunk, or
            ``"all"``, with the chunk's own, which are reconstructed trivially.

    Returns:
        The curves, NaN with a warning where nothing is left to reconstruct or to
        correlate. A neuron without residual, up to rounding, has no correlation: it
        counts as zero among all neurons, and is left out of the complement.

    Raises:
        ValueError: If a width, the repeats or the scope is none, or the covariance is of
            no data.
    """
    one_of("scope", scope, SCOPES)
    if not bool(covariance.count):
        raise ValueError(
            "`covariance` must be of at least one sample; got one of no data."
        )
    ascending = _checked_widths(widths, covariance.width)
    columns = [
        _curves(rotated(covariance, generator).scatter.cpu(), ascending, scope)
        for _ in range(at_least("repeats", repeats, 1))
    ]
    r_squared, correlation = torch.stack(columns, dim=-1)
    nowhere = [
        w for w, row in zip(ascending, correlation, strict=True) if row.isnan().any()
    ]
    if nowhere:
        undefined(
            "The null of the residual correlation is undefined (NaN) for chunks of "
            f"{listed(nowhere)} neurons: fewer than two others have a residual."
        )
    return NullCurves(torch.tensor(ascending), r_squared, correlation, scope)


def untrained(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a copy of a model with fresh parameters, by each module's own reset.

    Modules are reset from the inside out, so that a container has the last word on what
    it holds. Running statistics of normalisation layers are reset with them.

    Args:
        model: The model; not changed.
        generator: Where randomness comes from. The global state of randomness is left
            as it was.

    Raises:
        LayerError: If a module has parameters of its own but no ``reset_parameters``:
            a copy with some of its trained parameters would be no null.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> fresh = untrained(model, torch.Generator().manual_seed(0))
        >>> bool((fresh.weight == model.weight).any())
        False
    """
    _check_resettable(model)
    fresh = copy.deepcopy(model)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # Seeding reaches every device, whether or not the model is there.
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        for module in _inside_out(fresh):
            reset = _reset_of(module)
            if reset is not None:
                reset()
    return fresh


def _rotation(width: int, generator: torch.Generator) -> Float64[Tensor, "W W"]:
    """Draw a rotation or reflection, uniform over all of them."""
    gauss = torch.randn(
        width, width, generator=generator, dtype=torch.float64, device=generator.device
    )
    q, r = torch.linalg.qr(gauss.cpu())
    # The factorisation fixes signs by convention; uniform ones are those of a unique one.
    turned: Tensor = q * r.diagonal().sign()
    return turned


def _curves(scatter: Tensor, widths: list[int], scope: str) -> Tensor:
    """Return R^2 and mean absolute residual correlation of the first few neurons."""
    order = torch.arange(len(scatter))
    factor = pivots(scatter, width=max(widths), order=order)
    cutoff = len(scatter) * EPS * scatter.diagonal()
    pairs = []
    for width in widths:
        rows = factor.rows[: int((factor.neurons < width).sum())]
        start = width if scope == "complement" else 0
        left = scatter[start:, start:] - rows[:, start:].T @ rows[:, start:]
        gone = left.diagonal() <= cutoff[start:]
        gone[: width - start] = True  # the chunk itself
        left = left.masked_fill(gone[:, None] | gone, 0)
        count = int((~gone).sum()) if scope == "complement" else len(left)
        total = scatter.diagonal()[start:].sum()
        pairs.append((1 - left.trace() / total, _mean_correlation(left, count)))
    return torch.tensor(pairs, dtype=torch.float64).T


def _mean_correlation(scatter: Tensor, count: int) -> float:
    """Return the mean absolute correlation over all pairs of ``count`` neurons.

    Those without variance add nothing, whether or not they are counted.
    """
    if count < 2:
        return math.nan
    scale = scatter.diagonal().clamp(min=0).sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0.0)
    total = (scatter * scale).mul_(scale[:, None]).abs_().fill_diagonal_(0).sum()
    return float(total) / (count * (count - 1))


def _checked_widths(widths: Sequence[int], most: int) -> list[int]:
    ascending = sorted({at_least("widths", width, 1) for width in widths})
    if not ascending or ascending[-1] > most:
        raise ValueError(
            f"`widths` must lie between 1 and the layer's, {most}; got "
            f"{listed(list(widths)) or 'none'}."
        )
    return ascending


def _inside_out(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from _inside_out(child)
    yield module


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    """Return the method that re-initialises a module's own parameters, if any."""
    names = ("reset_parameters", "_reset_parameters")
    found = (getattr(module, name, None) for name in names)
    return next((method for method in found if callable(method)), None)


def _check_resettable(model: nn.Module) -> None:
    stuck = [
        f"{path or 'the model itself'} ({type(module).__name__})"
        for path, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and _reset_of(module) is None
    ]
    if stuck:
        raise LayerError(
            "Every module with parameters of its own must have `reset_parameters` for "
            f"an untrained copy; these have none: {listed(stuck)}. Give it to them, or "
            "build an untrained network yourself and measure it as well."
        )
