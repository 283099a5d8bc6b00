"""The handwritten digits that come inside scikit-learn: real data without a download.

References:
    | Optical Recognition of Handwritten Digits
    | (Alpaydin & Kaynak, 1998), https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from layerpeel._checks import FileError

_CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images with their labels.

    Attributes:
        inputs: Pixels in :math:`[0, 1]`, one flattened image per row, with shape
            :math:`(n, p)`.
        labels: Class indices, with shape :math:`(n,)`.
        class_names: The name of each class.
    """

    inputs: Float32[Tensor, "n p"]
    labels: Int64[Tensor, " n"]
    class_names: tuple[str, ...]


def load_digits() -> ImageData:
    """Load the digits: 1797 images of 8 x 8 pixels, about 180 for each of 10 classes.

    Returns:
        The data, in the order of scikit-learn.

    Raises:
        ImportError: If scikit-learn is not installed.
        FileError: If scikit-learn's file is not the one that is known.

    Example:
        >>> digits = load_digits()
        >>> tuple(digits.inputs.shape), digits.class_names[:3]
        ((1797, 64), ('0', '1', '2'))
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. "
            "Run `pip install 'layerpeel[study]'`."
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    data = ImageData(
        inputs=torch.as_tensor(pixels, dtype=torch.float32) / 16,  # 17 grey levels
        labels=torch.as_tensor(labels, dtype=torch.int64),
        class_names=tuple("0123456789"),
    )
    _check_digits(data)
    return data


def _check_digits(data: ImageData) -> None:
    shape, counts = tuple(data.inputs.shape), data.labels.bincount().tolist()
    low, high = float(data.inputs.min()), float(data.inputs.max())
    if (shape, counts, low, high) != ((1797, 64), _CLASS_COUNTS, 0.0, 1.0):
        raise FileError(
            "scikit-learn's digits must be 1797 images of 64 pixels from 0 to 16 with "
            f"class counts {_CLASS_COUNTS}; got shape {shape}, pixels from "
            f"{16 * low:g} to {16 * high:g} and counts {counts}. Reinstall it."
        )
