"""Dynamics: what training converges to, and how fast, where there is a formula for it."""

from layerpeel.program.dynamics.central_path import (
    CentralPath,
    central_path,
    least_squares_loss,
    signal_to_noise,
)
from layerpeel.program.dynamics.deep_linear import DeepLinear, deep_linear
from layerpeel.program.dynamics.gradient_flow import (
    BalancedFlow,
    balanced_flow,
    gradient_flow_margin,
)

__all__ = [
    # gradient flow of the cross-entropy
    "BalancedFlow",
    "balanced_flow",
    "gradient_flow_margin",
    # gradient flow of the squared error, along the central path
    "CentralPath",
    "central_path",
    "least_squares_loss",
    "signal_to_noise",
    # global minima of deep linear networks
    "DeepLinear",
    "deep_linear",
]
