r"""What curves of chunks say: critical widths by stated thresholds, and what survives.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.measurement.clones.evidence import claims
from layerpeel.measurement.clones.evidence.claims import Claim
from layerpeel.measurement.clones.evidence.critical_width import (
    CRITERIA,
    READOUT_SLACK,
    RECONSTRUCTION_LEAST,
    CriticalWidth,
    critical_widths,
)
from layerpeel.measurement.clones.evidence.nulls import NullCurves, correlation_floor
from layerpeel.measurement.clones.profile.curves import CloneCurves

# Neurons that share less of their variance are no copies of anything.
_SHARED_LEAST = 0.5


@dataclass(frozen=True, eq=False)
class Judgement:
    r"""Curves with what is asked of them.

    Attributes:
        width: The width :math:`W` of the layer.
        widths: Widths of chunks, ascending, with shape :math:`(m,)`.
        scope: Which neurons count.
        fitted: Curves on the training set.
        held_out: Curves on held-out data, if there are any.
        shared: What each neuron shares with all others on the data judged by.
        dimensions: The participation ratio of the layer's covariance.
        spectrum: Curves of random rotations, if there are any.
        untrained: Curves of an untrained copy, if there is one.
    """

    width: int
    widths: Sequence[int]
    scope: str
    fitted: CloneCurves
    held_out: CloneCurves | None
    shared: float
    dimensions: float
    spectrum: NullCurves | None
    untrained: CloneCurves | None

    @property
    def scored(self) -> CloneCurves:
        """The curves that are judged by."""
        return self.fitted if self.held_out is None else self.held_out

    @property
    def known(self) -> Tensor:
        """At which widths everything was computed, rather than R^2 alone."""
        return (~self.fitted.correlation["all"].isnan()).any(1)

    @property
    def floor(self) -> Float64[Tensor, " m"]:
        """The mean absolute correlation of independent residuals, for each width."""
        fitted = self.held_out is None
        freedom = [self.scored.count - 1 - fitted * w for w in self.widths]
        values = [correlation_floor(nu + 1) if nu > 0 else math.nan for nu in freedom]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def r_squared(self) -> Float64[Tensor, " m"]:
        r"""The mean R^2 in scope as it is judged.

        In sample it is adjusted for the :math:`w` coefficients of each neuron,
        :math:`1 - (1 - R^2) (N - 1) / (N - 1 - w)`: without that any chunk of as many
        neurons as there are samples would reconstruct everything. The whole layer leaves
        nothing to reconstruct.
        """
        values = self._adjusted(self.scored, fitted=self.held_out is None)
        whole = torch.tensor([w == self.width for w in self.widths])
        return torch.where(whole, 1.0, values)

    @property
    def reconstruction_least(self) -> float:
        """The mean R^2 from which on a chunk counts as reconstructing the layer."""
        ceiling = self.shared
        if self.held_out is None:
            freedom = self.fitted.count - self.width
            share = (self.fitted.count - 1) / freedom if freedom > 0 else math.nan
            ceiling = 1 - (1 - ceiling) * share
        # Of wider chunks the few neurons left say little of the layer.
        narrow = [2 * w <= self.width for w in self.widths]
        measured = self.r_squared[torch.tensor(narrow)].nan_to_num(-math.inf)
        ceiling = min(1.0, max([-math.inf, ceiling, *measured.tolist()]))
        # Written so that NaN, which nothing is known of, asks for everything.
        return RECONSTRUCTION_LEAST * (ceiling if ceiling >= _SHARED_LEAST else 1.0)

    @property
    def readout_slack(self) -> float:
        r"""By how much raw and folded error may differ where a chunk is read as it is."""
        e, count = self.scored.full_error, self.scored.count
        return max(READOUT_SLACK, math.sqrt(e * (1 - e) / count))

    def critical(self) -> dict[str, CriticalWidth]:
        """Return the critical width by each criterion that there is a curve for.

        Chunks of more than half of the layer are asked nothing: there is no second one
        beside them, and the few neurons left say little. The whole layer meets every
        criterion.
        """
        half = torch.tensor([2 * w <= self.width for w in self.widths])
        full, errors = self.scored.full_error, self.scored.errors
        curves: dict[str, Any] = {}
        if self.fitted.has_errors:
            train = self.fitted.full_error
            curves["train_errors"] = _with_whole(
                self.fitted.raw, half & self.known, train
            )
            curves["full_train_error"] = train
        if self.scored.has_errors:
            for name in ("raw", "folded"):
                values = _with_whole(errors[name], half & self.known, full)
                curves[f"{name}_errors"] = values
            curves["readout_slack"] = self.readout_slack
        at = self._widths_of(half & self.known)
        found = critical_widths(self.width, at, **curves) if curves else {}
        found |= critical_widths(
            self.width,
            self._widths_of(half),
            r_squared=_with_whole(self.r_squared[:, None], half, 1.0),
            reconstruction_least=self.reconstruction_least,
        )
        return {name: found[name] for name in CRITERIA if name in found}

    def _widths_of(self, rows: Tensor) -> list[int]:
        """Return the widths of some rows, and that of the layer."""
        chosen = rows.nonzero().flatten().tolist()
        return [*(self.widths[i] for i in chosen), self.width]

    def claims(self, critical: dict[str, CriticalWidth]) -> tuple[Claim, ...]:
        """Return what is claimed of a layer of clones, and what survives.

        Args:
            critical: The critical widths.
        """
        interpolated = critical.get("interpolation")
        w1 = math.nan if interpolated is None else interpolated.width
        w2 = critical["reconstruction"].width
        # Chunks are judged where they pass for the layer, and at half of it if none does.
        passing = max_width(critical)
        narrow = [w for w in (passing, w2) if w < self.width]
        w3 = narrow[0] if narrow else float(self.widths[max(0, len(self.widths) - 2)])
        at, read_at = self._at, w3 if narrow else float(self.width)
        return (
            claims.interpolation(
                w1,
                self.width,
                at(self.fitted.raw.nanmean(1), w1),
                self.fitted.full_error,
            ),
            claims.reconstruction(
                w2,
                self.width,
                at(self.r_squared, w2),
                self._untrained_at(w2),
                self.reconstruction_least,
            ),
            claims.independence(
                w3,
                at(self.scored.correlation[self.scope].nanmean(1), w3),
                at(self.floor, w3),
                self._rotated_at(w3),
                self.dimensions,
            ),
            claims.readout(
                read_at, self.width, at(self.scored.clone_score, w3), self.readout_slack
            ),
        )

    def _untrained_at(self, width: float) -> float:
        if self.untrained is None:
            return math.nan
        # The copy has no held-out data: it is judged in sample.
        return self._at(self._adjusted(self.untrained, fitted=True), width)

    def _rotated_at(self, width: float) -> float:
        if self.spectrum is None or width not in self.spectrum.widths.tolist():
            return math.nan
        place = self.spectrum.widths.tolist().index(int(width))
        return float(self.spectrum.correlation[place].nanmean())

    def _adjusted(self, curves: CloneCurves, *, fitted: bool) -> Float64[Tensor, " m"]:
        values = curves.r_squared[self.scope].nanmean(1)
        if not fitted:
            return values
        freedom = torch.tensor([curves.count - 1.0 - w for w in self.widths]).double()
        share = (curves.count - 1) / torch.where(freedom > 0, freedom, torch.nan)
        return 1 - (1 - values) * share

    def _at(self, curve: Float64[Tensor, " m"], width: float) -> float:
        """Return the value of a curve at one of the widths; NaN for NaN."""
        if math.isnan(width) or width not in self.widths:
            return math.nan
        return float(curve[list(self.widths).index(int(width))])


def _with_whole(
    table: Float64[Tensor, "m r"], rows: Tensor, whole: float
) -> Float64[Tensor, " q"]:
    """Return the means of some rows, and the value of the whole layer."""
    return torch.cat([table[rows].nanmean(1), table.new_tensor([whole])])


def max_width(critical: dict[str, CriticalWidth]) -> float:
    """Return the largest of critical widths; NaN if one of them is."""
    widths = [answer.width for answer in critical.values()]
    return math.nan if any(map(math.isnan, widths)) else max(widths)
