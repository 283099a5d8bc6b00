r"""How well chunks of every width reconstruct a layer, by one factorisation.

The first neurons of an order are chunks that grow one neuron at a time. The Cholesky
factor :math:`L` of the scatter in that order holds what each adds: its column :math:`k`
is what all neurons share with the part of neuron :math:`k` that is new. So a chunk of
the first :math:`w` misses

.. math::
    \mathrm{tr}\, \mathrm{Res}(w) = \sum_{k > w} \|L_{:k}\|^2 .

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, one_of, undefined
from layerpeel._tolerances import EPS, covariance_rank_tolerance
from layerpeel.measurement.clones.chunks import checked_chunk
from layerpeel.measurement.clones.reconstruction.reconstruction import SCOPES
from layerpeel.measurement.clones.reconstruction.rounding import (
    constant_neurons,
    rounding_scatter,
)
from layerpeel.measurement.clones.reconstruction.semidefinite import (
    semidefinite_cholesky,
)
from layerpeel.measurement.statistics.covariance import Covariance

__all__ = ["nested_r_squared", "semidefinite_cholesky"]


def nested_r_squared(
    covariance: Covariance,
    permutation: Int64[Tensor, " W"],
    scope: str = "all",
    held_out: Covariance | None = None,
    *,
    eps: float = EPS,
) -> Float64[Tensor, " W"]:
    r"""Return the share of variance reconstructed by the first 1 to :math:`W` neurons.

    One factorisation, :math:`W^3 / 3` operations, whatever the number of samples; held
    out, three products on top. Neurons that are constant, or a combination of earlier
    ones, add nothing and need no pivoting.

    Args:
        covariance: Of the layer, on the CPU.
        permutation: An order of its :math:`W` neurons.
        scope: ``"all"`` neurons, as in the paper; or those of the ``"complement"``, the
            ones after the chunk.
        held_out: The covariance of other data to score on. There, coefficients are
            those on the independent neurons of a chunk, so that with fewer samples than
            neurons they are not the ones of least norm.
        eps: The unit of the dtype that features were computed in; see
            :func:`~layerpeel.measurement.clones.reconstruct`.

    Returns:
        :math:`R^2` at the widths :math:`1, \dots, W`, with shape :math:`(W,)`. Of the
        complement it is NaN where no neuron is left that varies, at width :math:`W` in
        any case. NaN with a warning where nothing varies at all.

    Raises:
        ShapeError: If the other data have another width, or the order does not have all
            neurons.
        ValueError: If ``scope`` is another word, or the order repeats a neuron.

    Example:
        >>> h = torch.tensor([[0.0, 1, 1], [1, 3, 0], [2, 5, 0], [3, 7, 1]])
        >>> curve = nested_r_squared(Covariance.of(h), torch.tensor([0, 1, 2]))
        >>> [round(value, 4) for value in curve.tolist()]
        [0.9615, 0.9615, 1.0]
    """
    complement = one_of("scope", scope, SCOPES) == "complement"
    order = _checked_order(covariance, permutation)
    scored = covariance if held_out is None else _checked_width(held_out, covariance)
    varies = ~constant_neurons(scored, eps)[order]
    if not bool(varies.any()):
        cause = f"no neuron varies over the {int(scored.count)} samples"
        undefined(f"R^2 of nested chunks is undefined (NaN): {cause}.")
        return torch.full((len(order),), torch.nan, dtype=torch.float64)
    factor = _ordered_factor(covariance, order, eps)
    missed = _missed(factor)
    if held_out is not None:
        second = _about(covariance.mean, held_out)[order][:, order]
        missed = _missed_on(factor, second, complement=complement)
    variances = torch.where(varies, scored.scatter.diagonal()[order], 0.0)
    total = _after(variances) if complement else variances.sum()
    return 1 - missed / torch.where(total > 0, total, torch.nan)


def _ordered_factor(
    covariance: Covariance, order: Int64[Tensor, " W"], eps: float
) -> Float64[Tensor, "W W"]:
    """Factor the scatter in an order, with constant neurons as zeros."""
    scatter = covariance.scatter[order][:, order]
    dead = constant_neurons(covariance, eps)[order]
    scatter[dead] = 0.0
    scatter[:, dead] = 0.0
    tolerance = covariance_rank_tolerance(covariance.width, eps) ** 2
    # Centred samples span one direction less than there are.
    rank = max(int(covariance.count) - 1, 0)
    noise = rounding_scatter(covariance, eps)[order]
    return semidefinite_cholesky(scatter, tolerance, rank, noise)


def _missed(factor: Float64[Tensor, "W W"]) -> Float64[Tensor, " W"]:
    """Return what chunks miss in sample: what later neurons add."""
    return _after(factor.square().sum(0))


def _missed_on(
    factor: Float64[Tensor, "W W"],
    second: Float64[Tensor, "W W"],
    *,
    complement: bool,
) -> Float64[Tensor, " W"]:
    r"""Return what chunks miss of other data with second moment :math:`M`.

    With orthonormal coordinates :math:`Q = H L_B^{-\top}` on the independent neurons
    :math:`B`, a chunk predicts neuron :math:`j` as :math:`Q_w l_w` with the first entries
    of row :math:`j` of :math:`L`, and misses

    .. math::
        M_{jj} - 2\, l_w^\top (L_B^{-1} M)_{w j}
        + l_w^\top (L_B^{-1} M L_B^{-\top})_{ww} l_w ,

    to which each neuron adds one term. Nothing is summed over neurons of the chunk that
    are themselves: it would cancel, and only to the rounding of the largest.
    """
    basis = factor.diagonal() > 0
    thin, inner = factor[:, basis], factor[basis][:, basis]
    half = torch.linalg.solve_triangular(inner, second[basis], upper=False)
    whole = torch.linalg.solve_triangular(inner, half[:, basis].T, upper=False)
    before = whole.tril(-1) @ thin.T
    added = torch.zeros_like(factor)
    added[basis] = thin.T * (2 * (before - half) + whole.diagonal()[:, None] * thin.T)
    missed = second.diagonal() + added.cumsum(0)
    inside = torch.ones_like(factor).tril().bool()
    return missed.masked_fill(inside if complement else inside & basis, 0.0).sum(1)


def independent_width(
    covariance: Covariance, permutation: Int64[Tensor, " W"], *, eps: float = EPS
) -> int:
    """Return how many neurons of an order come before the first combination of others.

    Constant ones are no combinations. Of so many neurons coefficients are unique.

    Args:
        covariance: Of the layer, on the CPU.
        permutation: An order of its :math:`W` neurons.
        eps: The unit of the dtype that features were computed in.
    """
    order = _checked_order(covariance, permutation)
    factor = _ordered_factor(covariance, order, eps)
    left_out = ~constant_neurons(covariance, eps)[order] & (factor.diagonal() <= 0)
    dependent = left_out.nonzero().flatten()
    return int(dependent[0]) if len(dependent) else len(order)


def _about(
    mean: Float64[Tensor, " W"], covariance: Covariance
) -> Float64[Tensor, "W W"]:
    """Return the second moment about a point, the shift of the mean included."""
    shift = covariance.mean - mean
    return torch.addr(covariance.scatter, shift, shift * covariance.count)


def _after(values: Float64[Tensor, " W"]) -> Float64[Tensor, " W"]:
    """Return sums over later entries, from the end so that none cancels."""
    later = torch.zeros_like(values)
    later[:-1] = values[1:].flip(0).cumsum(0).flip(0)
    return later


def _checked_order(
    covariance: Covariance, permutation: Int64[Tensor, " W"]
) -> Int64[Tensor, " W"]:
    order = checked_chunk(permutation, covariance.width)
    if len(order) != covariance.width:
        raise ShapeError(
            f"`permutation` must order all {covariance.width} neurons; got "
            f"{len(order)}. Draw one with `draw_permutation`."
        )
    return order


def _checked_width(held_out: Covariance, covariance: Covariance) -> Covariance:
    if held_out.width != covariance.width:
        raise ShapeError(
            f"Held-out data must have the {covariance.width} neurons of the layer; got "
            f"{held_out.width}. Extract the same layer."
        )
    return held_out
