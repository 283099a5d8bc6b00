"""The networks of a family of widths, checked and ready to be run side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerpeel._checks import HeadError, at_least, listed
from layerpeel.measurement.shared_data import bare
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.device import check_batch
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.sources.head import Head, find_head, shown

Networks = Mapping[int, nn.Module | Sequence[nn.Module]]


@dataclass(frozen=True, eq=False)
class Member:
    """A network of a family.

    Attributes:
        width: The number of inputs of its head.
        model: The network, in eval mode.
        head: Its head.
        guard: Counts samples whose features or logits are not finite.
    """

    width: int
    model: nn.Module
    head: Head
    guard: FiniteGuard

    def run(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features and logits of a batch, with shapes (B, w) and (B, K)."""
        features, logits = self.head.run(self.model, batch)
        self.guard.bad_rows(torch.cat([features, logits], dim=1), batch.labels)
        return features, logits


def checked_networks(networks: Networks) -> dict[int, tuple[nn.Module, ...]]:
    """Return the networks of each width, narrowest first.

    Raises:
        TypeError: If one is no ``torch.nn.Module``.
        ValueError: If there is none, a width is none or appears twice, or a network
            appears twice.
    """
    widths = distinct_widths("networks", list(networks))
    found = {
        width: tuple(map(bare, _several(given)))
        for width, given in zip(widths, networks.values(), strict=True)
    }
    if empty := [width for width, models in found.items() if not models]:
        raise ValueError(
            f"`networks` must have at least one network of every width; got none of "
            f"{listed(empty)}. Leave the width out."
        )
    every = [id(model) for models in found.values() for model in models]
    if len(set(every)) < len(every):
        raise ValueError(
            f"`networks` must be different ones; got {len(every)}, of which only "
            f"{len(set(every))} differ. Load each seed into a network of its own."
        )
    return dict(sorted(found.items()))


def distinct_widths(name: str, widths: Sequence[int]) -> list[int]:
    """Return widths as integers, in their order.

    Raises:
        ValueError: If there is none, one is below 1, or two are equal.
    """
    found = [at_least(f"a width of `{name}`", width, 1) for width in widths]
    if not found:
        raise ValueError(f"`{name}` must have at least one width; got none.")
    if len(set(found)) < len(found):
        raise ValueError(
            f"Widths of `{name}` must be distinct; got {listed(found)}. Give networks "
            "of one width together."
        )
    return found


def found_members(
    networks: Mapping[int, Sequence[nn.Module]],
    batch: Batch,
    head: str | None,
    num_classes: int | None,
) -> dict[int, list[Member]]:
    """Find the head of every network, and check what all of them have in common.

    Args:
        networks: Networks in eval mode, by width.
        batch: Some of their data.
        head: The path of the head in all of them; found when omitted.
        num_classes: The number of classes that the caller states, if any.

    Raises:
        DeviceError: If a network is not where the data are.
        HeadError: If a network has no head, one with another number of inputs than its
            width, or one with another number of classes.
    """
    members = {
        width: [_member(width, i, model, batch, head) for i, model in enumerate(models)]
        for width, models in networks.items()
    }
    outputs = {
        width: sorted({len(member.head.weight) for member in found})
        for width, found in members.items()
    }
    stated = next(iter(outputs.values()))[0]
    if any(counts != [stated] for counts in outputs.values()):
        lines = [f"{width}: {listed(counts)}" for width, counts in outputs.items()]
        raise HeadError(
            "All networks must have the same number of classes; got, by width, "
            f"{listed(lines)}. Compare networks that were trained on the same labels."
        )
    # A single logit tells two classes apart by its sign.
    if num_classes is not None and num_classes != max(stated, 2):
        raise HeadError(
            f"The heads must have one output per class; they have {stated}, and "
            f"`num_classes` is {num_classes}. Leave the argument out, or correct it."
        )
    return members


def _member(
    width: int, number: int, model: nn.Module, batch: Batch, path: str | None
) -> Member:
    called = f"network {number} of width {width}"
    check_batch(model, batch)
    try:
        head = find_head(model, batch, path)
    except HeadError as error:
        raise HeadError(f"In {called}: {error}") from error
    if head.module.in_features != width:
        raise HeadError(
            f"A network's width is the number of inputs of its last linear layer; "
            f"{called} has {head.module.in_features}, at {shown(head.path)}. Give it "
            "under that width."
        )
    classes = max(head.module.out_features, 2)
    return Member(
        width, model, head, FiniteGuard(f"features and logits of {called}", classes)
    )


def _several(given: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    if isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList):
        return [given]
    return list(given)
