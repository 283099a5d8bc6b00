"""From a trained network, or from bare arrays, to a report in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from layerpeel._checks import BatchError
from layerpeel.measurement import (
    AnyArray,
    clone_profile,
    clone_profile_features,
    measure,
    measure_features,
)
from layerpeel.reports.report import Report


def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    eval_loader: Iterable[Any] | None = None,
    head: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    minority: Sequence[int] | None = None,
    clones: bool = False,
    device: str | torch.device | None = None,
    check_deterministic: bool = True,
    cache_bytes: int = 2**30,
    title: str | None = None,
    progress: bool | None = None,
) -> Report:
    """Measure a trained classifier, hold it against theory, and say what to do.

    Args:
        model: Any classifier whose logits are the output of a linear layer. It is
            measured in eval mode and left as it was.
        loader: Batches of training data, ``(input, label)`` or dictionaries with
            ``"labels"``; one pass is made.
        eval_loader: Held-out data, for the recall of each class.
        head: The path of the last linear layer, when it should not be searched for.
        num_classes: The number of classes :math:`K`; the outputs of the head by default.
        class_names: Their names, for the report.
        minority: The rare classes; found from the counts by default
            (:func:`layerpeel.geometry.split_classes`).
        clones: Whether to profile the input of the last layer as well: is it wide, or
            several copies of the same thing? Features of ``eval_loader`` are then judged
            by, too, and the loaders are gone through again.
        device: Where batches are moved to; by default they are used as they come.
        check_deterministic: Whether to run the first batch twice and compare.
        cache_bytes: How much memory features may take before a second pass is made.
        title: The name of the report.
        progress: Whether to show progress bars; by default when standard error is a
            terminal.

    Returns:
        The report.

    Raises:
        LayerpeelError: If model and data do not fit: see
            :func:`layerpeel.measurement.measure`.
        BatchError: If clones are asked for of data that can be read once.

    Example:
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> model.weight.data = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> inputs = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
        >>> labels = torch.tensor([0, 1]).repeat(10)
        >>> diagnose(model, [(inputs, labels)]).verdict
        'Nothing to report: every check that applies has passed.'
    """
    if clones:
        _check_rereadable("loader", loader)
        _check_rereadable("eval_loader", eval_loader)
    measurement = measure(
        model,
        loader,
        eval_loader=eval_loader,
        head=head,
        num_classes=num_classes,
        class_names=class_names,
        minority=minority,
        device=device,
        check_deterministic=check_deterministic,
        cache_bytes=cache_bytes,
        progress=progress,
    )
    if not clones:
        return Report.of(measurement, title)
    profile = clone_profile(
        model,
        loader,
        eval_loader=eval_loader,
        head=head,
        num_classes=num_classes,
        device=device,
        check_deterministic=False,  # it was checked above
        cache_bytes=cache_bytes,
        progress=progress,
    )
    return Report.of(measurement, title, profile)


def diagnose_features(
    features: AnyArray,
    labels: AnyArray,
    *,
    weight: AnyArray,
    bias: AnyArray | None = None,
    eval_features: AnyArray | None = None,
    eval_labels: AnyArray | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    minority: Sequence[int] | None = None,
    clones: bool = False,
    title: str | None = None,
    progress: bool | None = None,
) -> Report:
    """Diagnose the last layer of a network of any framework from arrays.

    Args:
        features: Inputs of the last layer, with shape :math:`(N, d)`.
        labels: Class indices, with shape :math:`(N,)`.
        weight: The last weight matrix, with shape :math:`(K, d)`.
        bias: The last bias, with shape :math:`(K,)`.
        eval_features: Held-out features, with shape :math:`(M, d)`.
        eval_labels: Their labels, with shape :math:`(M,)`.
        num_classes: The number of classes :math:`K`; the rows of ``weight`` by default.
        class_names: Their names, for the report.
        minority: The rare classes; found from the counts by default.
        clones: Whether to profile the layer as well: is it wide, or several copies of
            the same thing?
        title: The name of the report.
        progress: Whether to show a progress bar; by default when standard error is a
            terminal.

    Returns:
        The report.

    Raises:
        LayerpeelError: If the arrays do not fit together: see
            :func:`layerpeel.measurement.measure_features`.
    """
    measurement = measure_features(
        features,
        labels,
        weight=weight,
        bias=bias,
        eval_features=eval_features,
        eval_labels=eval_labels,
        num_classes=num_classes,
        class_names=class_names,
        minority=minority,
        progress=progress,
    )
    if not clones:
        return Report.of(measurement, title)
    profile = clone_profile_features(
        features,
        labels,
        weight=weight,
        bias=bias,
        eval_features=eval_features,
        eval_labels=eval_labels,
        num_classes=num_classes,
        progress=progress,
    )
    return Report.of(measurement, title, profile)


def _check_rereadable(name: str, loader: Iterable[Any] | None) -> None:
    """Refuse an iterator, which is empty after it was measured."""
    if isinstance(loader, Iterator):
        raise BatchError(
            f"`{name}` must be readable more than once for `clones=True`; got a "
            f"{type(loader).__name__}, which is used up by measuring. Pass a list of "
            "batches or a `DataLoader`."
        )
