r"""What was measured of a last layer: a value, and every metric that it yields.

Sources and formulas stand with the functions that are called, in
:mod:`layerpeel.measurement.metrics`. Choices that published measurements make
differently are arguments here, and are described in
:mod:`layerpeel.measurement.statistics.conventions`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import UndefinedWarning, one_of, undefined
from layerpeel._json import plain
from layerpeel.geometry import ClassGroups, Geometry
from layerpeel.measurement.metrics.block import (
    MinorityBlock,
    classifier_block,
    feature_block,
)
from layerpeel.measurement.metrics.energies import ENERGY_CONVENTIONS, energies
from layerpeel.measurement.metrics.nc1 import cdnv, nc1, nc1_quotient
from layerpeel.measurement.metrics.nc2 import NC2, nc2
from layerpeel.measurement.metrics.nc3 import nc3
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.conventions import (
    POOLINGS,
    centred_means,
    row_centred,
)
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.units import UnitRange

P = ParamSpec("P")
T = TypeVar("T")


def _has_nan(value: object) -> bool:
    if isinstance(value, NC2):
        return any(map(math.isnan, astuple(value)))
    return isinstance(value, float) and math.isnan(value)


def _remembered(method: Callable[P, T]) -> Callable[P, T]:
    """Compute a method once for each choice of arguments, and keep it on the instance."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        known = vars(args[0]).setdefault("_known", {})
        key = (method.__name__, args[1:], tuple(sorted(kwargs.items())))
        if key in known:
            remembered: T = known[key]
            return remembered
        value = method(*args, **kwargs)
        # What is undefined is computed anew, and says again why it is.
        if not _has_nan(value):
            known[key] = value
        return value

    return call


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """The last layer of a network on some data.

    Numbers are float64 on the CPU. Classes without samples have NaN wherever their
    features would be needed; means over classes leave them out.

    Attributes:
        moments: Counts, means and scatter of the features, per class.
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`; ``None`` without one.
        confusion: Decisions on the data that the moments describe.
        eval_confusion: Decisions on held-out data; ``None`` without any.
        nearest_mean: Agreement of the network with the nearest class mean (NC4).
        loss: Mean cross-entropy of the logits.
        units: Range of each feature.
        sample: A few features of each class, for pictures.
        head: Path of the head in the model; ``"arrays"`` for features from elsewhere.
        class_names: Names of the classes; their indices as text by default.
        groups: Which classes are frequent and which are rare.
    """

    moments: ClassMoments
    weight: Float64[Tensor, "K d"]
    bias: Float64[Tensor, " K"] | None
    confusion: Confusion
    eval_confusion: Confusion | None
    nearest_mean: NearestMean
    loss: float
    units: UnitRange
    sample: FeatureSample
    head: str
    class_names: tuple[str, ...]
    groups: ClassGroups

    # Sizes

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`, seen or not."""
        return self.moments.num_classes

    @property
    def num_samples(self) -> int:
        """The number of samples :math:`N`."""
        return self.moments.num_samples

    @property
    def width(self) -> int:
        """The number of features :math:`d`."""
        return self.moments.width

    @property
    def class_counts(self) -> tuple[int, ...]:
        """The number of samples of each class."""
        return tuple(int(n) for n in self.moments.count)

    # Accuracies

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly."""
        return self.confusion.accuracy

    @property
    def class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class; NaN for classes without samples."""
        return self.confusion.class_accuracy

    @property
    def majority_accuracy(self) -> float:
        """Share of samples of majority classes classified rightly."""
        return self.confusion.group_accuracy(self.groups.majority)

    @property
    def minority_accuracy(self) -> float:
        """The same for minority classes; NaN with a warning without a minority."""
        return self._of_minority(self.confusion.group_accuracy(self.groups.minority))

    @property
    def eval_accuracy(self) -> float:
        """Accuracy on held-out data; NaN with a warning without any."""
        return self._of_eval(range(self.num_classes))

    @property
    def eval_class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class on held-out data; NaN with a warning without any."""
        if self.eval_confusion is None:
            nan = undefined(_NO_EVAL)
            return torch.full((self.num_classes,), nan, dtype=torch.float64)
        return self.eval_confusion.class_accuracy

    @property
    def eval_majority_accuracy(self) -> float:
        """Accuracy on held-out data of majority classes; NaN without any."""
        return self._of_eval(self.groups.majority)

    @property
    def eval_minority_accuracy(self) -> float:
        """Accuracy on held-out data of minority classes; NaN without any."""
        return self._of_minority(self._of_eval(self.groups.minority))

    # Neural collapse

    @_remembered
    def nc1(self, centring: str = "sample", pooling: str = "pooled") -> float:
        r"""Return :math:`\mathrm{tr}(S_W S_B^+) / K`.

        See :func:`layerpeel.measurement.nc1`.

        Args:
            centring: Global mean in :math:`S_B`, ``"sample"`` (as in the code of Fang
                et al. 2021) or ``"class"``.
            pooling: A key of ``POOLINGS``; ``"class"`` keeps frequent classes from
                deciding under imbalance.

        Returns:
            The ratio, zero under full collapse.

        Raises:
            ValueError: If a choice is unknown.
        """
        one_of("pooling", pooling, POOLINGS)
        pooled = self.moments.scatter / self.num_samples
        within = (
            pooled
            if pooling == "pooled"
            else self.nearest_mean.class_averaged_covariance
        )
        return nc1(within, self._between(centring))

    def nc1_quotient(self, centring: str = "sample", pooling: str = "pooled") -> float:
        r"""Return :math:`\mathrm{tr}\, S_W / \mathrm{tr}\, S_B`.

        Args:
            centring: As for :meth:`nc1`.
            pooling: As for :meth:`nc1`.

        Returns:
            The quotient of total variances.

        Raises:
            ValueError: If a choice is unknown.
        """
        one_of("pooling", pooling, POOLINGS)
        moments = self.moments
        pooled = moments.trace.sum() / moments.count.sum()
        within = pooled if pooling == "pooled" else moments.class_variances.nanmean()
        return nc1_quotient(float(within), self._between(centring))

    @_remembered
    def cdnv(self) -> float:
        """Return the class-distance normalised variance, averaged over pairs."""
        return cdnv(self.moments.class_means, self.moments.class_variances)

    def nc2_classifiers(self, *, centred: bool = True, correction: int = 0) -> NC2:
        """Return how far the classifiers are from a simplex ETF.

        Args:
            centred: Whether to subtract the mean row, which softmax does not see.
            correction: As for :func:`layerpeel.measurement.nc2`.
        """
        return nc2(row_centred(self.weight) if centred else self.weight, correction)

    def nc2_means(self, centring: str = "sample", *, correction: int = 0) -> NC2:
        """Return how far the class means are from a simplex ETF.

        Args:
            centring: A key of ``CENTRINGS``.
            correction: As for :func:`layerpeel.measurement.nc2`.

        Raises:
            ValueError: If the choice is unknown.
        """
        return nc2(centred_means(self.moments, centring), correction)

    def nc3(self, centring: str = "sample", *, centred: bool = True) -> float:
        r"""Return :math:`\| W/\|W\|_F - M/\|M\|_F \|_F`.

        See :func:`layerpeel.measurement.nc3`.

        Args:
            centring: A key of ``CENTRINGS``, for the class means.
            centred: Whether to subtract the mean row of the classifiers.

        Raises:
            ValueError: If the choice is unknown.
        """
        rows = row_centred(self.weight) if centred else self.weight
        return nc3(rows, centred_means(self.moments, centring))

    def nc4(self) -> float:
        """Return the share of samples decided like the nearest class mean.

        One under NC4; ``nearest_mean`` has it by class, and the mismatch.
        """
        return self.nearest_mean.agreement

    # Geometry

    @_remembered
    def geometry(self, centring: str = "sample") -> Geometry:
        """Return the geometry of row-centred classifiers and centred class means.

        Args:
            centring: A key of ``CENTRINGS``, for the class means.

        Returns:
            The geometry; NaN for the features of classes without samples.

        Raises:
            ValueError: If the choice is unknown.
        """
        return Geometry.of(
            row_centred(self.weight), centred_means(self.moments, centring)
        )

    @cached_property
    def classifier_block(self) -> MinorityBlock:
        """Angles and lengths of the minority's row-centred classifiers."""
        return classifier_block(self.geometry(), self.groups)

    @cached_property
    def feature_block(self) -> MinorityBlock:
        """Angles and lengths of the minority's class means about the sample mean."""
        return feature_block(self.geometry(), self.groups)

    @property
    def minority_cosine(self) -> float:
        """Mean cosine between minority classifiers, 1 under minority collapse.

        NaN with a warning for fewer than two classes, or if a classifier vanished.
        """
        return _cosine("minority", self.groups.minority, self.classifier_block.cosine)

    @property
    def majority_cosine(self) -> float:
        """Mean cosine between majority classifiers; NaN as for the minority."""
        block = self.classifier_block
        return _cosine("majority", self.groups.majority, block.majority_cosine)

    @property
    def dead_units(self) -> Int64[Tensor, " dead"]:
        """Indices of features that are zero for every sample."""
        return self.units.dead.nonzero().flatten()

    @property
    def constant_units(self) -> Int64[Tensor, " constant"]:
        """Indices of features with one value for every sample, dead ones included."""
        return self.units.constant.nonzero().flatten()

    def energy(self, convention: str = "sample_mean") -> tuple[float, float]:
        """Return :math:`(E_W, E_H)` (see :func:`layerpeel.measurement.energies`).

        Args:
            convention: A key of ``ENERGY_CONVENTIONS``.

        Raises:
            ValueError: If the convention is unknown.
        """
        return energies(self.moments, self.weight, convention)

    # As text

    def to_dict(self) -> dict[str, Any]:
        """Return everything that is a number or a name, ready for JSON.

        Undefined numbers become ``None``, as JSON has no NaN.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedWarning)
            content: dict[str, Any] = plain(self._sections())
        return content

    def __repr__(self) -> str:
        """One line with what is looked at first."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedWarning)
            collapse = self.nc1_quotient()
        return (
            f"Measurement({self.num_classes} classes, {self.num_samples} samples, "
            f"width {self.width}, head {self.head!r}, accuracy {self.accuracy:.4f}, "
            f"NC1 quotient {collapse:.3g})"
        )

    def _sections(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "num_samples": self.num_samples,
            "width": self.width,
            "head": self.head,
            "class_names": self.class_names,
            "class_counts": self.class_counts,
            "groups": asdict(self.groups),
            "loss": self.loss,
            "accuracy": self._accuracies(),
            "recall": self._recalls(),
            "nc1": {
                "ratio": self.nc1(),
                "ratio_class_averaged": self.nc1(pooling="class"),
                "quotient": self.nc1_quotient(),
                "cdnv": self.cdnv(),
            },
            "nc2": {
                "classifiers": asdict(self.nc2_classifiers()),
                "class_means": asdict(self.nc2_means()),
            },
            "nc3": self.nc3(),
            "nc4": {
                "agreement": self.nc4(),
                "class_agreement": self.nearest_mean.class_agreement,
            },
            "minority": {
                "classifiers": asdict(self.classifier_block),
                "class_means": asdict(self.feature_block),
            },
            "units": {"dead": self.dead_units, "constant": self.constant_units},
            "energies": {name: self.energy(name) for name in ENERGY_CONVENTIONS},
        }

    def _accuracies(self) -> dict[str, Any]:
        return {
            "overall": self.accuracy,
            "majority": self.majority_accuracy,
            "minority": self.minority_accuracy,
            "classes": self.class_accuracy,
            "eval_overall": self.eval_accuracy,
            "eval_majority": self.eval_majority_accuracy,
            "eval_minority": self.eval_minority_accuracy,
            "eval_classes": self.eval_class_accuracy,
        }

    def _recalls(self) -> dict[str, float]:
        """Recall averaged over the classes of a group; accuracies weigh by samples."""
        data = {"": self.confusion, "eval_": self.eval_confusion}
        return {
            f"{prefix}{group}": confusion.group_recall(getattr(self.groups, group))
            for prefix, confusion in data.items()
            if confusion is not None
            for group in ("majority", "minority")
        }

    def _between(self, centring: str) -> Float64[Tensor, "K d"]:
        # S_B of uncentred means is not a scatter between classes.
        return centred_means(
            self.moments, one_of("centring", centring, ("sample", "class"))
        )

    def _of_minority(self, value: float) -> float:
        return undefined(_NO_MINORITY) if self.groups.balanced else value

    def _of_eval(self, classes: range | tuple[int, ...]) -> float:
        if self.eval_confusion is None:
            return undefined(_NO_EVAL)
        return self.eval_confusion.group_accuracy(classes)


def _cosine(group: str, classes: tuple[int, ...], value: float) -> float:
    """Return a mean cosine, or say why there is none."""
    if len(classes) < 2:
        return undefined(
            f"The {group} cosine is undefined (NaN): there are {len(classes)} {group} "
            "classes, and a cosine needs two. Name the minority with `minority=[...]`."
        )
    if math.isnan(value):
        return undefined(
            f"The {group} cosine is undefined (NaN): a {group} classifier has vanished, "
            "and has no direction."
        )
    return value


_NO_EVAL = (
    "Accuracy on held-out data is undefined (NaN): there are none. Pass `eval_loader`, "
    "or `eval_features` and `eval_labels`."
)
_NO_MINORITY = (
    "Minority statistics are undefined (NaN): the classes are balanced. Name the "
    "minority with `minority=[...]`."
)
