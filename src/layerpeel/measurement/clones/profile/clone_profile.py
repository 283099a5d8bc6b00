"""Profile a layer of a network: is it wide, or several copies of the same thing?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from layerpeel._checks import LayerError
from layerpeel.measurement.clones.evidence.nulls import untrained
from layerpeel.measurement.clones.layer.array_data import array_data
from layerpeel.measurement.clones.layer.layer_data import HEAD_INPUT, LayerData
from layerpeel.measurement.clones.layer.model_data import model_data
from layerpeel.measurement.clones.profile.assembly import assembled, profile_of
from layerpeel.measurement.clones.profile.profile import CloneProfile
from layerpeel.measurement.clones.profile.protocol import Protocol, Widths
from layerpeel.measurement.clones.profile.reconstruction_curves import (
    reconstruction_curves,
)
from layerpeel.measurement.clones.reconstruction.rounding import constant_neurons
from layerpeel.measurement.sources.arrays import AnyArray
from layerpeel.measurement.statistics.covariance import Covariance


def clone_profile(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str = HEAD_INPUT,
    *,
    widths: Widths = "dyadic",
    repeats: int = 40,
    eval_loader: Iterable[Any] | None = None,
    scope: str | None = None,
    paper: bool = False,
    generator: torch.Generator | None = None,
    untrained_null: bool = True,
    head: str | None = None,
    num_classes: int | None = None,
    maps: str = "pooled",
    device: str | torch.device | None = None,
    check_deterministic: bool = True,
    cache_bytes: int = 2**30,
    progress: bool | None = None,
) -> CloneProfile:
    r"""Measure how much of a layer its chunks hold, and how well they are read.

    For each width, random chunks of the layer's neurons (Doimo et al., 2021): the error
    of the classifier restricted to a chunk (raw), of the same rescaled, and of the one
    with the linear reconstruction of all other neurons folded into it; :math:`R^2` of
    that reconstruction and the mean absolute correlation of what it misses, in sample
    and on held-out data. Beside them what a layer without clones shows: the noise floor,
    random rotations of the layer, an untrained copy of the network, and the error that
    drawing chunks at random implies by itself.

    The data are gone through once for the covariance, from which all reconstructions
    come, and once more for the errors; features that fit into ``cache_bytes`` are kept.
    Memory is :math:`O(W^2)` beyond that. Nothing is reconstructed from neurons that hardly
    ever fire on the training set (``CloneProfile.silent``): on held-out data their
    coefficients mean nothing.

    References:
        | Redundant representations help generalization in wide neural networks
        | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485

    Args:
        model: Any classifier that ends in an ``nn.Linear``. It is run in eval mode and
            left as it was.
        loader: Batches of training data, without augmentation. The paper passes test data
            here, and has no others.
        layer: ``"head input"``, or the path of a layer, which means its output after its
            activation where one follows.
        widths: Chunk widths: ``"dyadic"``, :math:`\lfloor W / 2^i \rfloor`; a list;
            or ``"all"``, which adds :math:`R^2` at every width to the dyadic ones.
        repeats: The number of chunks of each width.
        eval_loader: Held-out data.
        scope: Which neurons a reconstruction is judged by: those of the ``"complement"``
            of the chunk, the default; or ``"all"``, the default of the paper's
            definitions, where its own count as well. Both are measured.
        paper: Whether to use the paper's definitions to the letter: a ridge of 1e-8, and
            1e-8 added to the denominators of correlations.
        generator: Where randomness comes from; a new one with seed 0 when omitted.
        untrained_null: Whether to profile an untrained copy of the network as well.
        head: Path of the last linear layer; found by what it computes when omitted.
        num_classes: Number of classes; the head's outputs when omitted.
        maps: What the neurons of maps and tokens are: ``"pooled"`` or ``"flattened"``;
            see :func:`layerpeel.measurement.measure`.
        device: Where to move the batches.
        check_deterministic: Whether to run the first batch twice and compare.
        cache_bytes: How much memory features may take, in bytes, for each loader.
        progress: Whether to show progress bars; on a terminal when omitted.

    Returns:
        The profile. In a hidden layer each error takes a pass of the network, and the
        first few chunks of each width are read. Where the layer has no linear consumer of
        its own, ``CloneProfile.cause`` says why.

    Raises:
        LayerpeelError: If model and data do not fit; see
            :func:`layerpeel.measurement.measure`.
        LayerError: If the layer cannot be profiled.
        ShapeError: If held-out data have another shape.
        ValueError: If a width is not between 1 and the layer's, or a choice is none.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(400, 4, generator=generator)
        >>> wide = nn.Linear(4, 32)  # 8 copies of 4 neurons
        >>> with torch.no_grad():
        ...     _ = wide.weight.copy_(torch.eye(4).repeat(8, 1))
        >>> model = nn.Sequential(wide, nn.Linear(32, 2))
        >>> labels = model(x).argmax(1)
        >>> profile = clone_profile(model, [(x, labels)])
        >>> profile.keep(tolerance=0.0).width
        4
    """
    protocol = Protocol.of(
        widths, repeats, scope, generator, paper=paper, progress=progress
    )

    def of(network: nn.Module, batches: Iterable[Any], name: str) -> LayerData:
        return model_data(
            network,
            batches,
            layer,
            head=head,
            num_classes=num_classes,
            maps=maps,
            device=device,
            cache_bytes=cache_bytes,
            check_deterministic=check_deterministic,
            progress=progress,
            name=name,
        )

    data = of(model, loader, "loader")
    held_out = None if eval_loader is None else of(model, eval_loader, "eval_loader")
    fresh = _untrained_copy(model, loader, protocol.generator, wanted=untrained_null)
    return profile_of(
        protocol,
        data,
        held_out,
        fresh if isinstance(fresh, str) else of(fresh, loader, "loader"),
    )


def _untrained_copy(
    model: nn.Module,
    loader: Iterable[Any],
    generator: torch.Generator,
    *,
    wanted: bool,
) -> nn.Module | str:
    """Return an untrained copy of a model, or why there is none."""
    if not wanted:
        return "No untrained copy was asked for."
    if isinstance(loader, Iterator):
        return "The loader can be read once: no untrained copy was run on its data."
    try:
        return untrained(model, generator)
    except LayerError as error:
        return str(error)


def clone_profile_features(
    features: AnyArray,
    labels: AnyArray | None = None,
    *,
    weight: AnyArray | None = None,
    bias: AnyArray | None = None,
    eval_features: AnyArray | None = None,
    eval_labels: AnyArray | None = None,
    num_classes: int | None = None,
    widths: Widths = "dyadic",
    repeats: int = 40,
    scope: str | None = None,
    paper: bool = False,
    generator: torch.Generator | None = None,
    batch_size: int = 4096,
    progress: bool | None = None,
) -> CloneProfile:
    """Profile a layer whose features are given as arrays.

    Args:
        features: The layer's output, with shape :math:`(N, W)`; read slice by slice.
        labels: Class indices, with shape :math:`(N,)`; without them, or without
            ``weight``, there are no errors.
        weight: The classifiers that read the layer, with shape :math:`(K, W)`.
        bias: Their bias, with shape :math:`(K,)`.
        eval_features: Held-out features, with shape :math:`(M, W)`.
        eval_labels: Their labels, with shape :math:`(M,)`.
        num_classes: Number of classes; the rows of ``weight`` when omitted.
        widths: See :func:`~layerpeel.measurement.clones.clone_profile`; so are all others.
        repeats: The number of chunks of each width.
        scope: Which neurons a reconstruction is judged by.
        paper: Whether to use the paper's definitions to the letter.
        generator: Where randomness comes from.
        batch_size: Rows to take at a time.
        progress: Whether to show progress bars.

    Returns:
        The profile.

    Raises:
        ShapeError: If the arrays do not fit together.
        LabelError: If labels are no class indices.
        NonFiniteError: If features have NaN or infinite values.
        ValueError: If a width is not between 1 and the layer's, or a choice is none.
    """
    protocol = Protocol.of(
        widths, repeats, scope, generator, paper=paper, progress=progress
    )

    def of(rows: AnyArray, y: AnyArray | None, name: str) -> LayerData:
        return array_data(
            rows,
            y,
            weight=weight,
            bias=bias,
            num_classes=num_classes,
            batch_size=batch_size,
            progress=progress,
            name=name,
        )

    data = of(features, labels, "features")
    held_out = None
    if eval_features is not None:
        held_out = of(eval_features, eval_labels, "eval_features")
    return profile_of(
        protocol, data, held_out, "There is no network to copy untrained."
    )


def clone_profile_covariance(
    covariance: Covariance,
    held_out: Covariance | None = None,
    *,
    eps: float = 0.0,
    widths: Widths = "dyadic",
    repeats: int = 40,
    scope: str | None = None,
    paper: bool = False,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> CloneProfile:
    """Profile a layer of which only a covariance was accumulated: without errors.

    Args:
        covariance: Of the layer, of at least two samples.
        held_out: Of the layer on held-out data.
        eps: The unit of the dtype that features were computed in, such as
            ``torch.finfo(torch.float32).eps``.
        widths: See :func:`~layerpeel.measurement.clones.clone_profile`; so are all others.
        repeats: The number of chunks of each width.
        scope: Which neurons a reconstruction is judged by.
        paper: Whether to use the paper's definitions to the letter.
        generator: Where randomness comes from.
        progress: Whether to show progress bars.

    Returns:
        The profile; its errors are NaN.

    Raises:
        TypeError: If there is no covariance, or ``generator`` is none.
        ValueError: If a width is not between 1 and the layer's, or a choice is none.
    """
    if not isinstance(covariance, Covariance):
        raise TypeError(
            "`covariance` must be a Covariance, such as `Covariance.of(features)`; got "
            f"{type(covariance).__name__}."
        )
    protocol = Protocol.of(
        widths, repeats, scope, generator, paper=paper, progress=progress
    )
    grid = protocol.grid(covariance.width)
    # Which neurons fire on a few samples only, a covariance does not know.
    silent = constant_neurons(covariance, eps)
    found = reconstruction_curves(
        grid, covariance, held_out, paper=paper, eps=eps, progress=progress
    )
    nothing = "A covariance has no samples to read chunks on."
    return assembled(
        protocol, grid, covariance, silent, found, eps=eps, causes=(nothing,)
    )
