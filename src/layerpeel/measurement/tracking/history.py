"""What was recorded in the course of a training run: a tidy table, and its picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from layerpeel._checks import listed
from layerpeel._figures import axes, colour, plain, style
from layerpeel._files import write_whole
from layerpeel._frames import DataFrame, data_frame
from layerpeel.measurement.tracking.clone_picture import draw_clones
from layerpeel.measurement.tracking.records import (
    COLUMNS,
    CSVFormat,
    JSONLinesFormat,
    Record,
)
from layerpeel.measurement.tracking.series import Series

# What a picture shows when it is not told: one measure of each kind, zero or one under
# collapse, as far as they were recorded.
_SHOWN = ("nc1", "nc2_means_angle", "nc2_classifiers_angle", "nc3", "nc4")
_ROLES = ("measured", "majority", "minority", "ideal", "predicted")
_MARKERS = ("o", "^", "s", "D", "v")
# Values over less than this factor are compared better on a linear axis.
_LOGARITHMIC_RANGE = 10.0
_MOST_MARKERS = 12


class History:
    """Scalars by step: records ``(step, epoch, metric, value)``, one number each.

    Example:
        >>> history = History()
        >>> history.append(10, {"nc1": 2.0, "accuracy": 0.5}, epoch=1)
        >>> history.append(20, {"nc1": 1.0, "accuracy": 0.75}, epoch=2)
        >>> history["nc1"].values.tolist(), history.last_step
        ([2.0, 1.0], 20)
    """

    def __init__(self) -> None:
        self._records: list[Record] = []

    def __len__(self) -> int:
        """The number of records: one for each metric at each step."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records, in the order of time."""
        return iter(self._records)

    def __getitem__(self, metric: str) -> Series:
        """Return one metric over time.

        Raises:
            KeyError: If it was not recorded; the message lists what was.
        """
        rows = [record for record in self._records if record.metric == metric]
        if not rows:
            raise KeyError(
                f"{metric!r} was not recorded; there are {listed(self.metrics, 20)}."
            )
        return Series(
            np.array([row.step for row in rows], dtype=np.int64),
            np.array([row.epoch for row in rows], dtype=np.float64),
            np.array([row.value for row in rows], dtype=np.float64),
        )

    def __repr__(self) -> str:
        """One line with the extent."""
        steps = len({record.step for record in self._records})
        return f"History({steps} steps, metrics: {listed(self.metrics) or 'none'})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the recorded metrics, in the order of their first record."""
        return tuple(dict.fromkeys(record.metric for record in self._records))

    @property
    def last_step(self) -> int | None:
        """The last recorded step; ``None`` without any."""
        return self._records[-1].step if self._records else None

    def append(
        self, step: int, scalars: Mapping[str, float], epoch: float | None = None
    ) -> None:
        """Record some metrics at one step.

        Args:
            step: The step; larger than the last one.
            scalars: Values by the name of their metric; NaN where undefined.
            epoch: The epoch, possibly a fraction.

        Raises:
            ValueError: If the step is not larger than the last one.
        """
        self._records += records(self.checked(step), scalars, epoch)

    def checked(self, step: int) -> int:
        """Return the step, if it can be recorded next.

        Raises:
            ValueError: If the step is not larger than the last one.
        """
        if self.last_step is not None and step <= self.last_step:
            raise ValueError(
                f"`step` must grow from record to record; got {step} after "
                f"{self.last_step}. Pass the number of updates so far, or load the state "
                "that belongs to the step."
            )
        return int(step)

    def to_frame(self) -> DataFrame:
        """Return the records as a pandas table, one row for each.

        Raises:
            ImportError: If pandas is not installed.
        """
        return data_frame(self._records, COLUMNS)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the records as lines ``step,epoch,metric,value`` under a header.

        Args:
            path: The file to write, whole or not at all.

        Returns:
            The path written.

        Raises:
            OSError: If the file cannot be written.
        """
        lines = map(CSVFormat.line, self._records)
        return write_whole(path, CSVFormat.header + "".join(lines))

    def to_jsonl(self, path: str | os.PathLike[str]) -> Path:
        """Write the records as JSON objects, one a line; NaN becomes ``null``.

        Args:
            path: The file to write, whole or not at all.

        Returns:
            The path written.

        Raises:
            OSError: If the file cannot be written.
        """
        return write_whole(path, "".join(map(JSONLinesFormat.line, self._records)))

    def state_dict(self) -> dict[str, Any]:
        """Return the records as tensors and names, for :func:`torch.save`."""
        names = self.metrics
        return {
            "metrics": list(names),
            "metric": torch.tensor(
                [names.index(r.metric) for r in self._records]
            ).long(),
            "step": torch.tensor([r.step for r in self._records]).long(),
            "epoch": _float64([r.epoch for r in self._records]),
            "value": _float64([r.value for r in self._records]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the records by those of a state.

        Args:
            state: What :meth:`state_dict` returned; lists may stand for tensors.
        """
        names = state["metrics"]
        columns = zip(
            torch.as_tensor(state["step"]).tolist(),
            _float64(state["epoch"]).tolist(),
            (names[int(index)] for index in state["metric"]),
            _float64(state["value"]).tolist(),
            strict=True,
        )
        self._records = [Record(int(step), *rest) for step, *rest in columns]

    @style()
    def plot(
        self,
        ax: Axes | None = None,
        *,
        metrics: Sequence[str] | None = None,
        clones: str | Sequence[int] | None = None,
        panel: str | None = None,
    ) -> tuple[Figure, Axes]:
        r"""Draw metrics over steps, or clones.

        Args:
            ax: Where to draw; a figure of its own by default.
            metrics: Which; when omitted, one measure of each of NC1 to NC4. NC4 is then
                drawn as the mismatch :math:`1 - \mathrm{NC4}`, so that every line falls
                to zero under collapse.
            clones: Widths of chunks that were followed, or ``"all"``: their
                reconstruction of the layer, the correlation of what they miss, and their
                errors beside the network's, one panel above another.
            panel: One of these panels, ``"reconstruction"``, ``"residuals"`` or
                ``"errors"``; the first one when ``ax`` is given.

        Returns:
            The figure and the axes, of several panels those of the first. The vertical
            axis of metrics is logarithmic where their values are positive and span more
            than a factor of 10.

        Raises:
            KeyError: If a metric, or clones of a width, were not recorded.
            ValueError: If there is no such panel, or both metrics and clones are asked
                for.
        """
        if clones is not None:
            if metrics is not None:
                raise ValueError("Pass either `metrics` or `clones`, not both.")
            recorded = {name: self[name] for name in self.metrics}
            return draw_clones(ax, recorded, clones, panel)
        chosen = metrics or [name for name in _SHOWN if name in self.metrics]
        lines = {
            plain(name, 32): self[name] for name in (chosen or list(self.metrics)[:5])
        }
        if metrics is None and "nc4" in lines:
            mismatch = lines.pop("nc4")
            lines["1 − nc4"] = mismatch._replace(values=1 - mismatch.values)
        fig, ax = axes(ax)
        for index, (name, series) in enumerate(lines.items()):
            _draw(ax, index, name, series)
        if _is_logarithmic([series.values for series in lines.values()]):
            ax.set_yscale("log")
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_lines(ax)
        return fig, ax


def records(
    step: int, scalars: Mapping[str, float], epoch: float | None
) -> list[Record]:
    """Return one record for each scalar."""
    time = math.nan if epoch is None else float(epoch)
    return [Record(step, time, name, float(value)) for name, value in scalars.items()]


def _float64(values: Any) -> Tensor:  # noqa: ANN401 - a list, an array or a tensor
    return torch.as_tensor(values, dtype=torch.float64)


def _draw(ax: Axes, index: int, name: str, series: Series) -> None:
    """Draw a line whose colour, marker and name tell it from the others."""
    role = _ROLES[index % len(_ROLES)]
    ax.plot(
        series.steps,
        series.values,
        color=colour(role),
        label=name,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=4.5,
        markeredgecolor=colour("surface"),
        markeredgewidth=0.6,
        markevery=max(1, -(-len(series.steps) // _MOST_MARKERS)),
    )


def _is_logarithmic(values: Sequence[np.ndarray]) -> bool:
    known = np.concatenate([*values, np.empty(0)])
    known = known[np.isfinite(known)]
    # Zero has no logarithm: such a point is left out rather than the whole scale.
    positive = known[known > 0]
    return (
        bool((known >= 0).all())
        and len(positive) > 0
        and float(positive.max() / positive.min()) > _LOGARITHMIC_RANGE
    )


def _name_lines(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            handlelength=1.6,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
