"""Absolute correlations between what neurons miss, summed over pairs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

# What Doimo et al. (2021) add to the product of two deviations before dividing by it.
PAPER_FLOOR = 1e-8


def floored_sum(covariance: Float64[Tensor, "c c"]) -> float:
    """Return the sum over pairs, with the floor of the protocol."""
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.outer(deviation, deviation).add_(PAPER_FLOOR)
    ratios = covariance.abs().div_(scale)
    return float(ratios.sum() - ratios.diagonal().sum()) / 2


def correlation_sum(
    residual: Float64[Tensor, "c c"], left: Bool[Tensor, " c"]
) -> float:
    """Return the sum of absolute correlations over pairs of the neurons left.

    As a quadratic form: no matrix of the products of deviations is needed.
    """
    inverse = torch.where(left, residual.diagonal().clamp(min=0).rsqrt(), 0.0)
    whole = inverse @ (residual.abs() @ inverse)
    return float(whole - left.sum()) / 2
