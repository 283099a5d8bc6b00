import sys

import numpy as np
import pytest
import sklearn.datasets
import torch

from layerpeel._checks import FileError
from layerpeel.datasets import load_digits


def test_digits_are_those_of_scikit_learn():
    digits, original = load_digits(), sklearn.datasets.load_digits()
    assert digits.inputs.dtype == torch.float32
    assert digits.labels.dtype == torch.int64
    assert np.array_equal(16 * digits.inputs.numpy(), original.data)
    assert np.array_equal(digits.labels.numpy(), original.target)
    assert digits.class_names == tuple(map(str, original.target_names))
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 1)


def cut(pixels, labels):
    return pixels[:-1], labels[:-1]


def relabelled(pixels, labels):
    return pixels, np.where(labels == 9, 8, labels)


def rescaled(pixels, labels):
    return pixels / 16, labels


def cropped(pixels, labels):
    return pixels[:, :60], labels


@pytest.mark.parametrize("change", [cut, relabelled, rescaled, cropped])
def test_other_data_under_the_name_are_refused(monkeypatch, change):
    other = change(*sklearn.datasets.load_digits(return_X_y=True))
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda **_: other)
    with pytest.raises(FileError, match=r"must be 1797 images.*got shape"):
        load_digits()


def test_missing_package_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'layerpeel\[study\]'"):
        load_digits()
