"""What geometry does this network have on this data? A value for every metric."""

from layerpeel.measurement.clones import (
    CloneProfile,
    clone_profile,
    clone_profile_covariance,
    clone_profile_features,
)
from layerpeel.measurement.distributed import all_merge, shared_errors, without_padding
from layerpeel.measurement.files import (
    load_measurement,
    load_statistic,
    merge_measurements,
    save_measurement,
    save_statistic,
)
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.layers.observer import MAPS, LayerObserver
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.measure import measure
from layerpeel.measurement.measure_features import measure_features
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.metrics.angles import (
    Angles,
    angles,
    frame_geometry,
    principal_angles,
)
from layerpeel.measurement.metrics.bias import bias_distance
from layerpeel.measurement.metrics.block import MinorityBlock, vector_block
from layerpeel.measurement.metrics.cdnv import cdnv
from layerpeel.measurement.metrics.energies import (
    ENERGY_CENTRINGS,
    ENERGY_CONVENTIONS,
    energies,
)
from layerpeel.measurement.metrics.frame_distance import FRAMES
from layerpeel.measurement.metrics.kernels import KERNELS, KernelEnergy, kernel_energy
from layerpeel.measurement.metrics.margins import MARGINS, class_margins
from layerpeel.measurement.metrics.nc1 import nc1, nc1_quotient
from layerpeel.measurement.metrics.nc2 import (
    NC2,
    general_orthogonal_distance,
    nc2,
    orthogonal_distance,
)
from layerpeel.measurement.metrics.nc3 import (
    NORMALISATIONS,
    duality_cosines,
    nc3,
    nc3_product,
)
from layerpeel.measurement.metrics.nc5 import nc5
from layerpeel.measurement.metrics.one_vs_rest import one_vs_rest
from layerpeel.measurement.metrics.rank import (
    SPECTRA,
    Ranks,
    effective_rank,
    numerical_rank,
    participation_ratio,
    ranks,
    stable_rank,
)
from layerpeel.measurement.sources.arrays import AnyArray
from layerpeel.measurement.statistics.affine_fit import AffineFit
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.conventions import CENTRINGS, POOLINGS
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.loss import LossSum
from layerpeel.measurement.statistics.margins import Margins
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.patterns import UnitPatterns
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.statistic import Statistic
from layerpeel.measurement.statistics.units import UnitRange
from layerpeel.measurement.tracking import (
    Clones,
    CSVLogger,
    History,
    JSONLinesLogger,
    TensorBoardLogger,
    Tracker,
)

__all__ = [
    # entry points
    "AnyArray",
    "LayerObserver",
    "Measurement",
    "measure",
    "measure_features",
    # during training
    "CSVLogger",
    "Clones",
    "History",
    "JSONLinesLogger",
    "TensorBoardLogger",
    "Tracker",
    # clones
    "CloneProfile",
    "clone_profile",
    "clone_profile_covariance",
    "clone_profile_features",
    # files and machines
    "all_merge",
    "load_measurement",
    "load_statistic",
    "merge_measurements",
    "save_measurement",
    "save_statistic",
    "shared_errors",
    "without_padding",
    # values
    "AffineFit",
    "ClassMoments",
    "Confusion",
    "Covariance",
    "FeatureSample",
    "LayerProfile",
    "LayerStatistics",
    "LossSum",
    "Margins",
    "NearestMean",
    "RightDecisions",
    "RowStatistics",
    "Statistic",
    "UnitPatterns",
    "UnitRange",
    # metrics
    "Angles",
    "KernelEnergy",
    "MinorityBlock",
    "NC2",
    "Ranks",
    "angles",
    "bias_distance",
    "cdnv",
    "class_margins",
    "duality_cosines",
    "effective_rank",
    "energies",
    "frame_geometry",
    "general_orthogonal_distance",
    "kernel_energy",
    "nc1",
    "nc1_quotient",
    "nc2",
    "nc3",
    "nc3_product",
    "nc5",
    "numerical_rank",
    "one_vs_rest",
    "orthogonal_distance",
    "participation_ratio",
    "principal_angles",
    "ranks",
    "stable_rank",
    "vector_block",
    # conventions
    "CENTRINGS",
    "ENERGY_CENTRINGS",
    "ENERGY_CONVENTIONS",
    "FRAMES",
    "KERNELS",
    "MAPS",
    "MARGINS",
    "NORMALISATIONS",
    "POOLINGS",
    "SPECTRA",
]
