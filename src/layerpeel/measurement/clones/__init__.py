"""Is a layer wide because it has to be, or several copies of the same thing?"""

from layerpeel.measurement.clones.chunk_errors import (
    ChunkClassifiers,
    DyadicTree,
    chunk_errors,
    dyadic_errors,
)
from layerpeel.measurement.clones.chunks import (
    disjoint_chunks,
    draw_chunks,
    draw_permutation,
    dyadic_sizes,
)
from layerpeel.measurement.clones.critical_width import (
    CriticalWidth,
    critical_widths,
    crossing,
)
from layerpeel.measurement.clones.ensemble import (
    ChunkEnsemble,
    ErrorDetection,
    chunk_ensemble,
    error_detection,
)
from layerpeel.measurement.clones.gaussian_curve import GaussianCurve
from layerpeel.measurement.clones.keep import Kept, OutputChange, keep, output_change
from layerpeel.measurement.clones.nested import nested_r_squared
from layerpeel.measurement.clones.nulls import (
    NullCurves,
    correlation_floor,
    rotated,
    spectrum_null,
    untrained,
)
from layerpeel.measurement.clones.pivots import Pivots, pivots
from layerpeel.measurement.clones.power_law import Estimate, PowerLaw, fit_power_law
from layerpeel.measurement.clones.reconstruction import (
    FoldedClassifier,
    Reconstruction,
    reconstruct,
)

__all__ = [
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
    "OutputChange",
    "Pivots",
    "keep",
    "output_change",
    "pivots",
]
