"""Errors of chunks, of independent networks and of ensembles against their width."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import UndefinedWarning, one_of
from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel.measurement.clones.evidence.power_law import PowerLaw, fit_power_law
from layerpeel.studies.families.picture import CURVES, Curve, draw_family

_FITTED = ("raw", "folded", "independent")


@dataclass(frozen=True, eq=False)
class WidthFamily:
    r"""Errors of chunks, networks and ensembles against their width.

    Tables of errors have one row per width, and NaN where a row is shorter.

    Attributes:
        widths: The widths of the networks, narrowest first.
        chunk_widths: The widths of chunks of the widest networks, narrowest first.
        independent: Errors of the networks, a column per network, with shape
            :math:`(m, s)`.
        ensembles: Errors of ensembles of ``members`` networks of each width, a column
            per ensemble, with shape :math:`(m, e)`.
        members: How many networks an ensemble of each width has; 0 where none is
            asked for.
        whole: The error of the ensemble of all networks of each width, with shape
            :math:`(m,)`.
        raw: Errors of chunks read as they are, a column per chunk of each of the widest
            networks, with shape :math:`(c, r)`. All chunks of the full width are one.
        folded: Errors of the same chunks with the reconstruction of the other neurons
            folded into the classifier.
        error_inf: The error :math:`e_\infty` that excess errors are above; NaN if
            there is none.
        folded_on: Where the covariance of the reconstruction is from:
            ``"train_loader"``, or ``"loader"``, which is the data errors are measured
            on; labels are not used.
        samples: The number of samples that errors are measured on.
        least_width: The narrowest width that power laws are fitted to.
    """

    widths: tuple[int, ...]
    chunk_widths: tuple[int, ...]
    independent: Float64[Tensor, "m s"]
    ensembles: Float64[Tensor, "m e"]
    members: tuple[int, ...]
    whole: Float64[Tensor, " m"]
    raw: Float64[Tensor, "c r"]
    folded: Float64[Tensor, "c r"]
    error_inf: float
    folded_on: str
    samples: int
    least_width: int

    def errors(self, curve: str) -> tuple[tuple[int, ...], Float64[Tensor, "m r"]]:
        """Return the widths of a curve and all errors behind it.

        Args:
            curve: A key of ``CURVES``.

        Raises:
            ValueError: If there is no such curve.
        """
        one_of("curve", curve, CURVES)
        widths = self.chunk_widths if curve in ("raw", "folded") else self.widths
        return widths, getattr(self, curve)

    def mean(self, curve: str) -> Float64[Tensor, " m"]:
        """Return the mean error at every width; NaN where there is none.

        Raises:
            ValueError: If there is no such curve.
        """
        return self.errors(curve)[1].nanmean(1)

    def spread(self, curve: str) -> Float64[Tensor, " m"]:
        """Return the standard deviation of errors; NaN where there are not two.

        Raises:
            ValueError: If there is no such curve.
        """
        table = self.errors(curve)[1]
        count = (~table.isnan()).sum(1)
        squares = (table - table.nanmean(1, keepdim=True)).square().nansum(1)
        # A degree of freedom less than there are errors: of a single one, 0 / 0.
        return (squares / (count - 1).clamp(min=0)).sqrt()

    def law(
        self, curve: str, *, least_width: int | None = None, level: float = 0.95
    ) -> PowerLaw:
        r"""Fit :math:`e_\infty + A w^{-b}` to a curve.

        The asymptote is ``error_inf`` where it is defined, and fitted otherwise. The
        noise of a mean is known from its spread over chunks, networks or ensembles,
        where there are several. Chunks of one network share it, so that their intervals
        are about which chunks were drawn, not about which network was trained. A
        ``misfit`` far above 1 says that the curve is no power law, and that its
        intervals mean nothing: fit wider ones only.

        Args:
            curve: A key of ``CURVES``.
            least_width: The narrowest width to fit; that of the family when omitted.
            level: The level of the intervals.

        Returns:
            The fit; all of it NaN with a warning where there is no power law.

        Raises:
            ValueError: If there is no such curve.
        """
        widths, table = self.errors(curve)
        known = ~table.isnan().all(1)
        return fit_power_law(
            [w for w, has in zip(widths, known.tolist(), strict=True) if has],
            table[known],
            asymptote=None if math.isnan(self.error_inf) else self.error_inf,
            least_width=self.least_width if least_width is None else least_width,
            level=level,
        )

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        r"""Draw excess errors against the width, both logarithmic.

        Bands are a standard deviation to either side. Ensembles of narrow networks stand
        at the width of a member; unless other sizes were asked for, all members together
        have about as many last-layer neurons as the widest network. What is not above
        ``error_inf`` has no logarithm and is left out; where ``error_inf`` is undefined,
        errors themselves are drawn. A power law is drawn, dotted, where it is within a
        factor of two of every mean fitted.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        with _silenced():
            curves = {name: self._curve(name) for name in CURVES}
        return draw_family(ax, curves, self.error_inf)

    def to_dict(self) -> dict[str, Any]:
        """Return all errors and power laws, ready for JSON; undefined is ``None``."""
        with _silenced():
            laws = {name: asdict(self.law(name)) for name in _FITTED}
        content: dict[str, Any] = plain(
            {
                "samples": self.samples,
                "folded_on": self.folded_on,
                "error_inf": self.error_inf,
                "least_width": self.least_width,
                "widths": self.widths,
                "chunk_widths": self.chunk_widths,
                "members": self.members,
                "whole": self.whole,
                "errors": {name: self.errors(name)[1] for name in CURVES},
                "laws": laws,
            }
        )
        return content

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with one row per curve and width.

        Raises:
            ImportError: If pandas is not installed.
        """
        rows = [row for name in CURVES for row in self._rows(name)]
        return data_frame(rows, list(rows[0]))

    def __repr__(self) -> str:
        """One line with what is looked at first."""
        shown = ", ".join(map(str, self.widths))
        return (
            f"WidthFamily(widths {shown}, {self.raw.shape[1]} chunks a width, "
            f"{self.samples} samples, error_inf {self.error_inf:.4g})"
        )

    def _curve(self, name: str) -> Curve:
        return Curve(
            self.errors(name)[0],
            self.mean(name).numpy(),
            self.spread(name).numpy(),
            self.law(name) if name in _FITTED else None,
        )

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """Return one row per width of a curve."""
        widths, table = self.errors(name)
        members = self.members if name == "ensembles" else (1,) * len(widths)
        columns = {
            "width": widths,
            "members": members,
            "count": (~table.isnan()).sum(1).tolist(),
            "error": self.mean(name).tolist(),
            "spread": self.spread(name).tolist(),
            "excess": (self.mean(name) - self.error_inf).tolist(),
        }
        return [
            {"curve": name} | {key: values[i] for key, values in columns.items()}
            for i in range(len(widths))
        ]


@contextmanager
def _silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        yield
