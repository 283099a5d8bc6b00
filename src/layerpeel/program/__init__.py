"""The peeled program: class counts and energies in, the geometry of the optimum out."""

from layerpeel.program.closed import (
    collapse_count,
    nonnegative_collapse_threshold,
    smallest_safe_count,
)
from layerpeel.program.counts import two_group_counts
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.dynamics import (
    BalancedFlow,
    CentralPath,
    DeepLinear,
    balanced_flow,
    central_path,
    deep_linear,
    gradient_flow_margin,
    least_squares_loss,
    signal_to_noise,
)
from layerpeel.program.energy import Energy
from layerpeel.program.equivalence import equivalent_decay, equivalent_energy
from layerpeel.program.factored import DeepETF, deep_etf
from layerpeel.program.limits import (
    ContrastiveFrame,
    FixedFrame,
    Limit,
    fixed_frame,
    one_vs_rest_distances,
    one_vs_rest_optimum,
    peeled_contrastive,
    seli,
    supervised_contrastive,
)
from layerpeel.program.mse import MSE
from layerpeel.program.oversampling import Oversampling, oversampling
from layerpeel.program.pairs.decay_thresholds import DecayThresholds, decay_thresholds
from layerpeel.program.pairs.phase_diagram import PhaseDiagram, phase_diagram
from layerpeel.program.pairs.thresholds import collapse_threshold, vanishing_threshold
from layerpeel.program.problem import PeeledProblem
from layerpeel.program.solution import Certificate, Solution, Status

__all__ = [
    # problem and solution
    "Certificate",
    "CrossEntropy",
    "Decay",
    "Energy",
    "MSE",
    "PeeledProblem",
    "Solution",
    "Status",
    "equivalent_decay",
    "equivalent_energy",
    # minority collapse
    "DecayThresholds",
    "PhaseDiagram",
    "collapse_count",
    "collapse_threshold",
    "decay_thresholds",
    "nonnegative_collapse_threshold",
    "phase_diagram",
    "smallest_safe_count",
    "vanishing_threshold",
    # what to do about it
    "Oversampling",
    "oversampling",
    # several linear layers
    "DeepETF",
    "DeepLinear",
    "deep_etf",
    "deep_linear",
    # limits
    "ContrastiveFrame",
    "FixedFrame",
    "Limit",
    "fixed_frame",
    "one_vs_rest_distances",
    "one_vs_rest_optimum",
    "peeled_contrastive",
    "seli",
    "supervised_contrastive",
    # dynamics
    "BalancedFlow",
    "CentralPath",
    "balanced_flow",
    "central_path",
    "gradient_flow_margin",
    "least_squares_loss",
    "signal_to_noise",
    # counts
    "two_group_counts",
]
