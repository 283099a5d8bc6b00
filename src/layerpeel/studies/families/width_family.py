r"""Chunks of a wide network against networks that are narrow from the start.

Any random chunk of a wide layer loses error as it grows: so do sums of random terms.
What tells clones is how chunks of the widest network compare with networks of the same
width that were trained by themselves, and with ensembles of them.

Claim
    Doimo et al. 2021 (arXiv 2106.03485): above a critical width a chunk of a wide
    network errs about as often as a whole network of the chunk's width, and the excess
    error of both over that of an infinitely wide one falls alike.
Curves
    The keys of ``CURVES``, each against the width.
Expected
    Above the critical width raw chunks lie near the independent networks; where only
    folded ones do, the layer is of low rank, and its chunks are no clones.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
    | Scaling description of generalization with number of parameters in deep learning
    | (Geiger et al., 2020), https://arxiv.org/abs/1901.01608: excess error, ensembles
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import at_least, undefined
from layerpeel.measurement.clones.chunks import checked_size
from layerpeel.measurement.sources.extraction import Batches
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.studies.families.curves import WidthFamily
from layerpeel.studies.families.errors import Plan, family_errors
from layerpeel.studies.families.members import (
    Networks,
    checked_networks,
    distinct_widths,
    found_members,
)


def width_family(
    networks: Networks,
    loader: Iterable[Any],
    *,
    generator: torch.Generator,
    head: str | None = None,
    num_classes: int | None = None,
    repeats: int = 40,
    widths: Sequence[int] | None = None,
    members: Mapping[int, int] | None = None,
    ensemble_repeats: int = 10,
    error_inf: float | None = None,
    train_loader: Iterable[Any] | None = None,
    least_width: int = 1,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> WidthFamily:
    r"""Compare chunks of the widest networks with independent networks and ensembles.

    A network's width is the number of inputs of its last linear layer. All networks see
    each batch before the next one is read, so that a loader may shuffle, and no features
    are kept. Networks run in eval mode and are given back as they were. Ensembles sum
    logits, not probabilities. Draws are made in this order: ensembles of each width,
    narrowest first; then, network by network of the widest, chunks of each width.

    Args:
        networks: One network or several seeds of each width, by width.
        loader: Held-out data, as :func:`~layerpeel.measurement.measure` takes it.
        generator: Where the randomness of chunks and ensembles comes from.
        head: Path of the head in every network; found by what it computes when omitted.
        num_classes: The number of classes :math:`K`; the heads' outputs when omitted.
        repeats: Chunks of each width, of each of the widest networks.
        widths: Widths of chunks; those of the networks when omitted.
        members: The number of networks of an ensemble, by width. When omitted,
            :math:`\lfloor W / w \rfloor`, which has as many last-layer neurons as the
            widest network of :math:`W`, where there are as many networks. Widths that
            are left out have no ensembles.
        ensemble_repeats: Random ensembles of each width; all of them if there are no
            more.
        error_inf: The error of an infinitely wide network; that of the ensemble of all
            widest networks when omitted, if there are at least two.
        train_loader: Training data, for the covariance that folded chunks reconstruct
            with. When omitted it is that of ``loader``, which is then read twice; labels
            are not used.
        least_width: The narrowest width to fit power laws to: they hold above a
            critical width only.
        device: Where to move the batches; the networks must be there.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The errors. Ensembles are NaN, with a warning, where there are too few networks,
        and so is ``error_inf`` with a single widest network.

    Raises:
        TypeError: If a network is no ``torch.nn.Module``.
        ValueError: If there is no network, a width is none or appears twice, a chunk is
            wider than the widest network, or an ensemble that is asked for needs more
            networks.
        HeadError: If a network has no head, one of another width than it is given
            under, or another number of classes.
        BatchError: If a batch has another form, there is none, or data that can be read
            once must be read twice.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        DeviceError: If networks and data are on different devices.
        NonFiniteError: If a network gives NaN or infinite values.
    """
    found = checked_networks(networks)
    least_width = at_least("least_width", least_width, 1)
    if error_inf is not None and not 0 <= error_inf <= 1:
        raise ValueError(f"`error_inf` must be a share from 0 to 1; got {error_inf}.")
    counts = {width: len(models) for width, models in found.items()}
    plan = Plan.drawn(
        counts,
        checked_chunk_widths(widths, counts),
        repeats,
        checked_ensembles(members, counts),
        ensemble_repeats,
        generator,
    )
    with _evaluating_all(found) as first:
        batches = Batches(first, loader, "loader", device, progress)
        train = None
        if train_loader is not None:
            train = Batches(first, train_loader, "train_loader", device, progress)
        assert batches.first is not None  # there is a sample
        runners = found_members(found, batches.first, head, num_classes)
        errors = family_errors(runners, plan, batches, train)
    if error_inf is None:
        error_inf = _ensemble_of_widest(errors.whole, counts)
    return WidthFamily(
        widths=tuple(counts),
        chunk_widths=plan.chunk_widths,
        members=plan.members,
        independent=errors.independent,
        ensembles=errors.ensembles,
        whole=errors.whole,
        raw=errors.raw,
        folded=errors.folded,
        error_inf=error_inf,
        folded_on="loader" if train_loader is None else "train_loader",
        samples=errors.samples,
        least_width=least_width,
    )


def checked_chunk_widths(
    widths: Sequence[int] | None, counts: Mapping[int, int]
) -> tuple[int, ...]:
    """Return the widths of chunks, narrowest first.

    Args:
        widths: What the caller asks for, if anything.
        counts: The number of networks of each width, narrowest first.

    Raises:
        ValueError: If one is not between 1 and the widest network's, or appears twice.
    """
    wanted = distinct_widths("widths", list(counts) if widths is None else widths)
    return tuple(sorted(checked_size(width, max(counts)) for width in wanted))


def checked_ensembles(
    members: Mapping[int, int] | None, counts: Mapping[int, int]
) -> dict[int, int]:
    """Return how many networks an ensemble of each width has.

    Args:
        members: What the caller asks for, if anything.
        counts: The number of networks of each width, narrowest first.

    Raises:
        ValueError: If a width has no networks, or fewer than an ensemble needs.
    """
    if members is None:
        wanted = {width: max(counts) // width for width in counts}
        short = [f"{w} needs {k}" for w, k in wanted.items() if k > counts[w]]
        if short:
            undefined(
                "Ensembles with as many neurons as the widest network are undefined "
                f"(NaN) where there are too few networks: {', '.join(short)}. Train "
                "more seeds, or give `members`."
            )
        return wanted
    for width, count in members.items():
        there = counts.get(width, 0)
        if at_least("a number of `members`", count, 1) > there:
            raise ValueError(
                f"An ensemble of {count} networks of width {width} needs as many; got "
                f"{there}. Train more seeds, or ask for fewer `members`."
            )
    return {width: members.get(width, 0) for width in counts}


def _ensemble_of_widest(
    whole: Float64[Tensor, " m"], counts: Mapping[int, int]
) -> float:
    if counts[max(counts)] > 1:
        return float(whole[-1])
    return undefined(
        "The error of an infinitely wide network is undefined (NaN): its estimate is an "
        f"ensemble of networks of width {max(counts)}, and there is one. Train more "
        "seeds of it, or give `error_inf`; errors are drawn and fitted as they are."
    )


@contextmanager
def _evaluating_all(networks: Mapping[int, Sequence[nn.Module]]) -> Iterator[nn.Module]:
    """Put all networks into eval mode and back, and yield the first of them."""
    every = [model for models in networks.values() for model in models]
    with ExitStack() as stack:
        for model in every:
            stack.enter_context(evaluating(model))
        yield every[0]
