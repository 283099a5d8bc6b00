r"""A layer as its chunks show it: how many clones it consists of, if any.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel.measurement.clones.evidence.claims import Claim
from layerpeel.measurement.clones.evidence.critical_width import CriticalWidth
from layerpeel.measurement.clones.evidence.nulls import NullCurves
from layerpeel.measurement.clones.evidence.power_law import PowerLaw, fit_power_law
from layerpeel.measurement.clones.keeping.keep import Kept, keep
from layerpeel.measurement.clones.keeping.measured_change import (
    MeasuredChange,
    measure_change,
)
from layerpeel.measurement.clones.keeping.pivots import pivots
from layerpeel.measurement.clones.layer.layer_data import Consumer, LayerData
from layerpeel.measurement.clones.profile.curves import CloneCurves
from layerpeel.measurement.clones.profile.judgement import Judgement, max_width
from layerpeel.measurement.clones.profile.picture import Drawn, draw_profile
from layerpeel.measurement.clones.reconstruction.rounding import rounding_scatter
from layerpeel.measurement.statistics.covariance import Covariance

# A power law with an asymptote has three parameters.
_LEAST_POINTS = 4


@dataclass(frozen=True, eq=False)
class CloneProfile:
    r"""What chunks of a layer do; see :func:`~layerpeel.measurement.clones.clone_profile`.

    It holds on to the samples, or to the model and loader that give them, so that
    :meth:`keep` can measure what it changes. Copies and pickles do not.

    Attributes:
        layer: The path of the layer, or ``"head input"``.
        width: Its number of neurons :math:`W`.
        widths: Widths of the chunks, ascending, with shape :math:`(m,)`.
        scope: Which neurons ``R^2`` and residual correlation are judged by: those of the
            ``"complement"`` of a chunk, or ``"all"``.
        paper: Whether definitions are those of Doimo et al. (2021) to the letter.
        fitted: On the data that reconstructions were fitted to: the training set.
        held_out: The same on held-out data, if there were any.
        covariance: Of the layer on the training set.
        eps: The unit of the dtype that features were computed in.
        silent: Neurons that hardly ever fire on the training set, and constant ones, with
            shape :math:`(s,)`. Nothing was reconstructed from them, except by the
            paper's definitions.
        held_out_covariance: Of the layer on held-out data.
        shared: The share of variance that each neuron shares with all others
            (:func:`~layerpeel.measurement.clones.reconstruction_ceiling`), on the data
            that are judged by.
        spectrum: Reconstruction of random rotations of the layer, at the widths of
            chunks below its own; ``None`` where there are none.
        untrained: Curves of the same layer of an untrained copy of the network, fitted to
            the same data; ``None`` where there is none.
        consumer: The linear map that reads the layer, if it is the only one that does.
        cause: Why there is no such consumer, no error, or no untrained copy: sentences.
    """

    layer: str
    width: int
    widths: tuple[int, ...]
    scope: str
    paper: bool
    fitted: CloneCurves
    held_out: CloneCurves | None
    covariance: Covariance
    eps: float
    silent: Int64[Tensor, " s"]
    held_out_covariance: Covariance | None
    shared: float
    spectrum: NullCurves | None
    untrained: CloneCurves | None
    consumer: Consumer | None
    cause: tuple[str, ...] = ()
    _data: LayerData | None = None
    _held_out_data: LayerData | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: all but the samples."""
        return self.__dict__ | {"_data": None, "_held_out_data": None}

    @property
    def scored(self) -> CloneCurves:
        """The curves that are judged by, on held-out data if there are any."""
        return self.fitted if self.held_out is None else self.held_out

    @property
    def num_samples(self) -> int:
        """The number of samples that reconstructions were fitted to."""
        return self.fitted.count

    @property
    def repeats(self) -> int:
        """The number of chunks of each width."""
        return self.fitted.raw.shape[1]

    @property
    def rank_deficient(self) -> bool:
        """Whether there are too few samples for the layer, :math:`N - 1 < W`.

        Chunks of :math:`N - 1` neurons then reconstruct everything in sample; on
        held-out data they do not.
        """
        return self.num_samples - 1 < self.width

    @property
    def clone_score(self) -> Float64[Tensor, " m"]:
        """Mean raw error less mean folded error, with shape :math:`(m,)`."""
        return self.scored.clone_score

    @cached_property
    def rank(self) -> int:
        r"""The least number of neurons that all others are combinations of, to rounding.

        Exact clones show here whatever random chunks do: copies of single neurons are
        all in a chunk of so many only by luck. ``keep(tolerance=0)`` finds them.
        """
        noise = rounding_scatter(self.covariance, self.eps)
        found = pivots(
            self.covariance.scatter, tolerance=0.0, eps=self.eps, noise=noise
        )
        return len(found.neurons)

    @cached_property
    def floor(self) -> Float64[Tensor, " m"]:
        """The mean absolute correlation of independent residuals, for each width.

        NaN where no degree of freedom is left.
        """
        return self._judgement.floor

    @property
    def reconstruction_least(self) -> float:
        """The mean R^2 from which on a chunk counts as reconstructing the layer.

        A share of 0.99 of what all other neurons reconstruct of each, since noise that
        clones do not share is reconstructed by none. Where neurons share less than half
        of their variance, it is 0.99 of all of it. In sample both are adjusted for the
        number of coefficients.
        """
        return self._judgement.reconstruction_least

    @property
    def readout_slack(self) -> float:
        r"""By how much raw and folded error may differ where a chunk is read as it is.

        A thousandth, or the standard deviation :math:`\sqrt{e (1 - e) / N}` of the error
        of the network where there are too few samples to tell so little.
        """
        return self._judgement.readout_slack

    @cached_property
    def critical(self) -> dict[str, CriticalWidth]:
        """The critical width by each criterion that there is a curve for.

        Interpolation is judged on the training set, the others on held-out data if there
        are any; see :func:`~layerpeel.measurement.clones.critical_widths`. Chunks of
        more than half of the layer are not asked: if none of the others meets a
        criterion, only the whole layer does.
        """
        return self._judgement.critical()

    @property
    def critical_width(self) -> float:
        r"""The critical width :math:`w_c^*`: the largest of those by all criteria.

        A random chunk of so many neurons passes for the layer whatever is asked of it;
        that of the layer if no chunk does.
        """
        return max_width(self.critical)

    @property
    def num_clones(self) -> float:
        r"""The number of clones :math:`W / w_c^*`; below 2 there are none.

        It says how narrow a *random* chunk may be. Planted copies may be more than that:
        see :attr:`rank`.
        """
        return self.width / self.critical_width

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What is claimed of a layer of clones, and what survives its null."""
        return self._judgement.claims(self.critical)

    def power_law(
        self, *, asymptote: float | None = None, least_width: int | None = None
    ) -> PowerLaw:
        r"""Fit a power law to the raw error of chunks narrower than the layer.

        Args:
            asymptote: The error :math:`e_\infty` at infinite width, such as that of an
                ensemble of networks of this width; fitted when omitted.
            least_width: The narrowest chunks to fit. By default those that fit the
                training set, if there are four such widths, and otherwise all.

        Returns:
            The fit; NaN with a warning where errors do not fall like any power law. The
            whole layer is left out: chunks close to it share their neurons, and their
            errors vary less for that reason alone.

        Raises:
            ValueError: If there is no classifier to read chunks with.
        """
        if not self.scored.has_errors:
            raise ValueError(
                "A power law is fitted to the errors of chunks; this profile has none. "
                + " ".join(self.cause)
            )
        kept = [
            i
            for i, known in enumerate(self._judgement.known.tolist())
            if known and self.widths[i] < self.width
        ]
        at = [self.widths[i] for i in kept]
        if least_width is None:
            answer = self.critical.get("interpolation")
            critical = math.nan if answer is None else answer.width
            enough = sum(w >= critical for w in at) >= _LEAST_POINTS
            least_width = int(critical) if enough else 1
        return fit_power_law(
            at, self.scored.raw[kept], asymptote=asymptote, least_width=least_width
        )

    def keep(
        self,
        *,
        width: int | None = None,
        tolerance: float | None = None,
        select: str = "pivoted",
        generator: torch.Generator | None = None,
    ) -> Kept:
        r"""Select neurons to keep, and fold all others into the consumer.

        Args:
            width: How many neurons to keep.
            tolerance: Or as many as it takes for a relative root-mean-square change of
                the consumer's output of at most this on the training set, floored at
                :math:`\sqrt{W \varepsilon}`.
            select: ``"pivoted"``, each the best beside those before it, or ``"random"``.
            generator: Where randomness comes from; needed for ``"random"``.

        Returns:
            The neurons and the new consumer, with the change of outputs and decisions as
            it was measured on the data of the profile. Without a linear consumer, the
            weights that give back the layer.

        Raises:
            ValueError: If not exactly one of ``width`` and ``tolerance`` is given, or
                one is out of range; see :func:`layerpeel.measurement.clones.keep`.
        """
        consumer = self.consumer
        weight = None if consumer is None else consumer.weight
        bias = None if consumer is None else consumer.bias
        kept = keep(
            self.covariance,
            weight,
            bias,
            width=width,
            tolerance=tolerance,
            select=select,
            generator=generator,
            eps=self.eps,
        )
        return replace(
            kept,
            measured=self._measured(kept, self._data),
            held_out=self._measured(kept, self._held_out_data),
        )

    def to_frame(self) -> DataFrame:
        """Return one row per width: means over chunks, and their spread.

        Raises:
            ImportError: If pandas is not installed.
        """
        columns: dict[str, Any] = {"width": list(self.widths)}
        sets = {"fitted": self.fitted, "held_out": self.held_out}
        sets["untrained"] = self.untrained
        for name, curves in sets.items():
            if curves is None:
                continue
            for key, values in curves.means(self.scope).items():
                columns[f"{name}_{key}"] = values.tolist()
            for key, values in curves.spreads(self.scope).items():
                columns[f"{name}_{key}_spread"] = values.tolist()
        columns["correlation_floor"] = self.floor.tolist()
        return data_frame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but covariances, ready for JSON."""
        content: dict[str, Any] = plain(
            {
                "layer": self.layer,
                "width": self.width,
                "widths": list(self.widths),
                "repeats": self.repeats,
                "scope": self.scope,
                "paper": self.paper,
                "num_samples": self.num_samples,
                "rank_deficient": self.rank_deficient,
                "silent": len(self.silent),
                "shared": self.shared,
                "reconstruction_least": self.reconstruction_least,
                "critical_width": self.critical_width,
                "num_clones": self.num_clones,
                "critical_widths": {k: str(v) for k, v in self.critical.items()},
                "claims": [claim.to_dict() for claim in self.claims],
                "correlation_floor": self.floor,
                "clone_score": self.clone_score,
                "fitted": self.fitted.to_dict(),
                "held_out": self.held_out and self.held_out.to_dict(),
                "untrained": self.untrained and self.untrained.to_dict(),
                "spectrum": self.spectrum
                and {
                    "widths": self.spectrum.widths,
                    "r_squared": self.spectrum.r_squared,
                    "residual_correlation": self.spectrum.correlation,
                },
                "cause": list(self.cause),
            }
        )
        return content

    @style()
    def plot(
        self,
        ax: Axes | None = None,
        panel: str | None = None,
        *,
        independent: Mapping[int, float] | None = None,
    ) -> tuple[Figure, Axes]:
        """Draw errors, reconstruction and residual correlation against chunk width.

        Args:
            ax: Where to draw one panel; a figure of its own by default.
            panel: ``"errors"``, ``"reconstruction"`` or ``"residuals"``. When omitted,
                all of them one above another, or with ``ax`` the first.
            independent: Errors of networks that are narrow from the start by their width,
                such as those of :func:`~layerpeel.studies.families.width_family`, to draw
                beside those of chunks.

        Returns:
            The figure, and the axes of the first panel.

        Raises:
            ValueError: If there is no such panel.
        """
        drawn = Drawn(
            width=self.width,
            widths=self.widths,
            scored=self.scored,
            held_out=self.held_out is not None,
            train_raw=self.fitted.raw,
            scope=self.scope,
            floor=self.floor,
            spectrum=self.spectrum,
            untrained=self.untrained,
            critical=self.critical_width,
            independent={} if independent is None else independent,
        )
        return draw_profile(ax, drawn, panel)

    @cached_property
    def _judgement(self) -> Judgement:
        return Judgement(
            width=self.width,
            widths=self.widths,
            scope=self.scope,
            fitted=self.fitted,
            held_out=self.held_out,
            shared=self.shared,
            dimensions=_participation(self.covariance),
            spectrum=self.spectrum,
            untrained=self.untrained,
        )

    def _measured(self, kept: Kept, data: LayerData | None) -> MeasuredChange | None:
        if data is None or self.consumer is None:
            return None
        decides = data.classifies and data.labelled
        return measure_change(
            data.samples(), self.consumer, kept.outputs, classifies=decides
        )


def _participation(covariance: Covariance) -> float:
    """Return the participation ratio of the eigenvalues; NaN where nothing varies."""
    squares = float(covariance.scatter.square().sum())
    return float(covariance.scatter.trace()) ** 2 / squares if squares else math.nan
