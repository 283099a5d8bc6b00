"""Samples with NaN or infinite values: counted, named by class, refused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from layerpeel._checks import NonFiniteError, listed


class FiniteGuard:
    """Counts samples with non-finite values per class, and refuses them at the end.

    Args:
        what: What is looked at, for the message.
        num_classes: The number of classes :math:`K`.
    """

    def __init__(self, what: str, num_classes: int) -> None:
        self._what = what
        self._bad = torch.zeros(num_classes, dtype=torch.int64)
        self._seen = 0

    def bad_rows(
        self, values: Tensor, labels: Int64[Tensor, " n"]
    ) -> Bool[Tensor, " n"]:
        """Count the samples whose values are not all finite, and return which."""
        self._seen += len(labels)
        # The extremes tell at a tenth of the cost; NaN is larger than any number here.
        if not values.numel() or bool(torch.stack(values.aminmax()).isfinite().all()):
            return torch.zeros_like(labels, dtype=torch.bool)
        bad = ~values.isfinite().all(1).to(labels.device)
        self._bad += torch.bincount(labels[bad], minlength=len(self._bad)).cpu()
        return bad

    def check(self, class_names: Sequence[str]) -> None:
        """Raise if there were such samples.

        Raises:
            NonFiniteError: With their number, by class.
        """
        if not bool(self._bad.any()):
            return
        counts = {k: int(n) for k, n in enumerate(self._bad.tolist()) if n}
        worst = sorted(counts, key=lambda k: -counts[k])
        classes = listed([f"{class_names[k]} ({counts[k]})" for k in worst])
        raise NonFiniteError(
            f"The {self._what} must be finite; {sum(counts.values())} of {self._seen} "
            f"samples have NaN or infinite ones, by class: {classes}. Check their "
            "inputs, and the model's weights and precision (float16 ends at 65504)."
        )
