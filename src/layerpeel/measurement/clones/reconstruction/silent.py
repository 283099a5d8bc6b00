r"""Neurons that hardly ever fire: nothing is to be reconstructed from them.

A ReLU that fires a little on one training sample is no constant, so that least squares
gives it whatever coefficient fits that sample. On held-out data it fires more, and the
reconstruction is off by that coefficient: one such neuron is enough to make :math:`R^2`
of a chunk anything below zero. A neuron that varies little but on all samples, such as a
scaled copy of another, is none of these.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel.measurement.clones.reconstruction.rounding import constant_neurons
from layerpeel.measurement.statistics.covariance import Covariance

# A neuron that fires like others, but on a single sample, varies as much in all samples
# together as they do in one. What varies less than a hundredth of that has fired by
# less than a tenth of what it may fire elsewhere.
SILENT_SHARE = 1e-2

# Samples that carry a neuron's variance: with so few, a coefficient is fitted to them.
# Of normal features a third of all samples do; of one that fires once, one does.
FEW_CARRIERS = 10.0


def hardly_varying(covariance: Covariance, eps: float) -> Bool[Tensor, " W"]:
    r"""Return which neurons hardly vary over all samples together.

    Those with a scatter below ``SILENT_SHARE`` times the mean variance of neurons that
    vary, which is a share of about :math:`1 / N` of their scatter. Constant ones are
    among them.

    Args:
        covariance: Of the layer.
        eps: The unit of the dtype that features were computed in.
    """
    scatter = covariance.scatter.diagonal()
    constant = constant_neurons(covariance, eps)
    if bool(constant.all()):
        return constant
    typical = scatter[~constant].mean() / covariance.count
    return constant | (scatter < SILENT_SHARE * typical)


def carriers(
    samples: Iterable[tuple[Tensor, Tensor]], mean: Float64[Tensor, " W"]
) -> Float64[Tensor, " W"]:
    r"""Return how many samples carry the variance of each neuron.

    .. math::
        \Bigl(\sum_i d_{ij}^2\Bigr)^2 \Big/ \sum_i d_{ij}^4, \qquad d = h - m

    Args:
        samples: Features, with shape :math:`(n, W)`, and labels, which are not read.
        mean: The mean of all features.

    Returns:
        Numbers from 1 to :math:`N`; NaN for a constant neuron.
    """
    squares, fourths = torch.zeros_like(mean), torch.zeros_like(mean)
    for features, _ in samples:
        deviation = (features.to(torch.float64) - mean).square()
        squares += deviation.sum(0)
        fourths += deviation.square().sum(0)
    return squares.square() / fourths


def silent_neurons(
    covariance: Covariance, samples: Iterable[tuple[Tensor, Tensor]], eps: float
) -> Bool[Tensor, " W"]:
    """Return which neurons hardly vary, and that on a few samples only.

    Args:
        covariance: Of the layer.
        samples: The samples it is of; gone through only where a neuron hardly varies.
        eps: The unit of the dtype that features were computed in.
    """
    weak = hardly_varying(covariance, eps)
    if torch.equal(weak, constant_neurons(covariance, eps)):
        return weak
    return weak & ~(carriers(samples, covariance.mean) > FEW_CARRIERS)


def silenced(covariance: Covariance, neurons: Bool[Tensor, " W"]) -> Covariance:
    """Return the covariance with some neurons held at their mean.

    Args:
        covariance: Of the layer.
        neurons: Which.
    """
    if not bool(neurons.any()):
        return covariance
    scatter = covariance.scatter.clone()
    scatter[neurons] = 0.0
    scatter[:, neurons] = 0.0
    return Covariance(covariance.count, covariance.mean, scatter)
