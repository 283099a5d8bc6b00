"""How narrow a layer is asked to be, and by which method."""

from __future__ import annotations

import math
from dataclasses import dataclass

from layerpeel._checks import as_number, at_least, one_of

METHODS = ("critical", "clones", "cosine")
"""How neurons are taken out: exactly, by reconstruction, or by direction."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        method: One of ``METHODS``.
        width: How many neurons to keep.
        tolerance: The relative change that is allowed.
        cosine: The least cosine in a group.

    Raises:
        ValueError: If one is out of range, or they do not go together.
    """

    method: str
    width: int | None
    tolerance: float | None
    cosine: float

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        if self.width is not None and self.tolerance is not None:
            raise ValueError(
                "At most one of `width` and `tolerance` must be given; got "
                f"{self.width!r} and {self.tolerance!r}."
            )
        if self.width is not None:
            at_least("width", self.width, 1)
        if self.tolerance is not None:
            _check_range("tolerance", self.tolerance, 0.0, math.inf)
        _check_range("cosine", self.cosine, -1.0, 1.0)
        if self.method == "clones" and self.width is None and self.tolerance is None:
            raise ValueError(
                "The method 'clones' must know how far to go; got neither `width` nor "
                "`tolerance`. Pass one of them, such as `tolerance=0.01`; "
                "`clone_profile` shows from which width on the error rises."
            )

    def check_data(self, loss_fn: object) -> None:
        """Check that nothing was asked for that needs data, where there are none.

        Raises:
            ValueError: If something was.
        """
        asking = {
            "method='clones'": self.method == "clones",
            f"tolerance={self.tolerance!r}": self.method == "cosine"
            and self.tolerance is not None,
            "loss_fn": loss_fn is not None,
        }
        for name, needs in asking.items():
            if needs:
                raise ValueError(
                    f"`data` must be given with `{name}`; got None. Pass a loader of "
                    "batches `(input, target)`."
                )

    def check_width(self, layer: str, before: int) -> None:
        """Check that the width is at most that of the layer.

        Raises:
            ValueError: If it is not.
        """
        if self.width is not None and self.width > before:
            raise ValueError(
                f"`width` must be at most the layer's, {before} for {layer!r}; got "
                f"{self.width}. Use `widen` for more."
            )


def _check_range(name: str, value: object, low: float, high: float) -> None:
    number = None if isinstance(value, bool | str) else as_number(value)
    if number is None or not (math.isfinite(number) and low <= number <= high):
        most = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(
            f"`{name}` must be a finite number of at least {low:g}{most}; got {value!r}."
        )
