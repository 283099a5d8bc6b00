"""Is a layer wide because it has to be, or several copies of the same thing?"""

from layerpeel.measurement.clones.chunks import (
    disjoint_chunks,
    draw_chunks,
    draw_permutation,
    dyadic_sizes,
)
from layerpeel.measurement.clones.errors.chunk_errors import (
    ChunkClassifiers,
    DyadicTree,
    chunk_errors,
    dyadic_errors,
)
from layerpeel.measurement.clones.errors.ensemble import (
    ChunkEnsemble,
    ErrorDetection,
    chunk_ensemble,
    error_detection,
)
from layerpeel.measurement.clones.errors.gaussian_curve import GaussianCurve
from layerpeel.measurement.clones.evidence.claims import Claim
from layerpeel.measurement.clones.evidence.critical_width import (
    CriticalWidth,
    critical_widths,
    crossing,
)
from layerpeel.measurement.clones.evidence.nulls import (
    NullCurves,
    correlation_floor,
    rotated,
    spectrum_null,
    untrained,
)
from layerpeel.measurement.clones.evidence.power_law import (
    Estimate,
    PowerLaw,
    fit_power_law,
)
from layerpeel.measurement.clones.keeping.keep import (
    Kept,
    OutputChange,
    keep,
    output_change,
)
from layerpeel.measurement.clones.keeping.measured_change import MeasuredChange
from layerpeel.measurement.clones.keeping.pivots import Pivots, pivots
from layerpeel.measurement.clones.layer.layer_data import (
    HEAD_INPUT,
    Consumer,
    LayerData,
)
from layerpeel.measurement.clones.profile.clone_profile import (
    clone_profile,
    clone_profile_covariance,
    clone_profile_features,
)
from layerpeel.measurement.clones.profile.curves import CloneCurves
from layerpeel.measurement.clones.profile.profile import CloneProfile
from layerpeel.measurement.clones.reconstruction.ceiling import reconstruction_ceiling
from layerpeel.measurement.clones.reconstruction.nested import nested_r_squared
from layerpeel.measurement.clones.reconstruction.reconstruction import (
    FoldedClassifier,
    Reconstruction,
    reconstruct,
)

__all__ = [
    # From a layer to a profile
    "Claim",
    "CloneCurves",
    "CloneProfile",
    "Consumer",
    "HEAD_INPUT",
    "LayerData",
    "clone_profile",
    "clone_profile_covariance",
    "clone_profile_features",
    # Chunks
    "disjoint_chunks",
    "draw_chunks",
    "draw_permutation",
    "dyadic_sizes",
    # What they reconstruct
    "FoldedClassifier",
    "Reconstruction",
    "nested_r_squared",
    "reconstruct",
    "reconstruction_ceiling",
    # How they decide
    "ChunkClassifiers",
    "ChunkEnsemble",
    "DyadicTree",
    "ErrorDetection",
    "GaussianCurve",
    "chunk_ensemble",
    "chunk_errors",
    "dyadic_errors",
    "error_detection",
    # What it means
    "CriticalWidth",
    "Estimate",
    "NullCurves",
    "PowerLaw",
    "correlation_floor",
    "critical_widths",
    "crossing",
    "fit_power_law",
    "rotated",
    "spectrum_null",
    "untrained",
    # Neurons to keep
    "Kept",
    "MeasuredChange",
    "OutputChange",
    "Pivots",
    "keep",
    "output_change",
    "pivots",
]
