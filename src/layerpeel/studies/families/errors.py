"""Counting the errors of a family of widths, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import BatchError, at_least
from layerpeel.measurement.clones.chunks import draw_chunks
from layerpeel.measurement.clones.errors.chunk_errors import ChunkClassifiers
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.extraction import Batches
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.studies.families.members import Member
from layerpeel.studies.families.sub_ensembles import draw_subsets, wrong_of_sums

Members = Mapping[int, Sequence[Member]]
Chunks = dict[int, Int64[Tensor, "r w"]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is drawn, before any data are read.

    Attributes:
        ensembles: The members of each ensemble, by width, with shapes :math:`(e, k)`;
            empty where there are too few networks.
        members: How many networks an ensemble of each width has.
        chunks: The chunks of each of the widest networks, by chunk width.
    """

    ensembles: dict[int, Int64[Tensor, "e k"]]
    members: tuple[int, ...]
    chunks: tuple[Chunks, ...]

    @classmethod
    def drawn(
        cls,
        counts: Mapping[int, int],
        chunk_widths: Sequence[int],
        repeats: int,
        members: Mapping[int, int],
        ensemble_repeats: int,
        generator: torch.Generator,
    ) -> Plan:
        """Draw ensembles and chunks.

        Args:
            counts: The number of networks of each width, narrowest first.
            chunk_widths: Widths of chunks, narrowest first.
            repeats: Chunks of each width, of each of the widest networks.
            members: The number of networks of an ensemble, by width.
            ensemble_repeats: Ensembles of each width.
            generator: Where randomness comes from.

        Raises:
            ValueError: If nothing is to be drawn.
        """
        at_least("repeats", repeats, 1)
        at_least("ensemble_repeats", ensemble_repeats, 1)
        ensembles = {
            width: draw_subsets(count, members[width], ensemble_repeats, generator)
            if 1 <= members[width] <= count
            else torch.empty(0, members[width], dtype=torch.int64)
            for width, count in counts.items()
        }
        widest = max(counts)
        chunks = tuple(
            {
                # All chunks of the full width are the whole layer: one is enough.
                w: draw_chunks(widest, w, repeats, generator)
                if w < widest
                else torch.arange(widest)[None]
                for w in chunk_widths
            }
            for _ in range(counts[widest])
        )
        return cls(ensembles, tuple(members[width] for width in counts), chunks)

    @property
    def chunk_widths(self) -> tuple[int, ...]:
        """The widths of chunks, narrowest first."""
        return tuple(self.chunks[0])


@dataclass(frozen=True, eq=False)
class FamilyErrors:
    """Errors of a family; see the attributes of ``WidthFamily``."""

    independent: Float64[Tensor, "m s"]
    ensembles: Float64[Tensor, "m e"]
    whole: Float64[Tensor, " m"]
    raw: Float64[Tensor, "c r"]
    folded: Float64[Tensor, "c r"]
    samples: int


def family_errors(
    members: Members, plan: Plan, batches: Batches, train: Batches | None
) -> FamilyErrors:
    """Run all networks side by side over the data, and count their errors.

    Args:
        members: The networks by width, narrowest first, in eval mode.
        plan: What was drawn.
        batches: The data to measure errors on.
        train: The data whose covariance folded chunks reconstruct with; those of
            ``batches`` when ``None``.

    Raises:
        BatchError: If data that can be read once must be read twice.
        LabelError: If labels are no class indices.
        NonFiniteError: If a network gives NaN or infinite values.
    """
    if train is None and not batches.repeatable:
        raise BatchError(
            "Without `train_loader`, `loader` is read twice, for the covariance and for "
            "the errors, and must be one that can be: got one that cannot. Pass a list "
            "or a DataLoader, or `train_loader`."
        )
    widest = members[max(members)]
    covariances = _covariances(widest, batches if train is None else train)
    readers = [
        _Readers.of(member, chunks, covariance)
        for member, chunks, covariance in zip(
            widest, plan.chunks, covariances, strict=True
        )
    ]
    tally = _Tally(members, plan, readers)
    for batch in batches.run(_labels(widest[0])):
        tally.add(batch)
    _check_finite(members)
    return tally.errors()


@dataclass(frozen=True, eq=False)
class _Readers:
    """What reads chunks of one network, by chunk width."""

    raw: dict[int, ChunkClassifiers]
    folded: dict[int, ChunkClassifiers]

    @classmethod
    def of(
        cls, member: Member, chunks: Chunks, fitted: tuple[Covariance, float]
    ) -> _Readers:
        weight, bias = member.head.weight, member.head.bias
        raw = {w: ChunkClassifiers.of(weight, bias, c) for w, c in chunks.items()}
        covariance, eps = fitted
        folded = {
            # Nothing is left to reconstruct of the whole layer.
            w: raw[w]
            if w == member.width
            else ChunkClassifiers.folded(
                weight, bias, [reconstruct(covariance, c, eps=eps) for c in drawn]
            )
            for w, drawn in chunks.items()
        }
        return cls(raw, folded)


@dataclass(eq=False)
class _Tally:
    """Counts of wrong decisions: they add up over batches."""

    members: Members
    plan: Plan
    readers: Sequence[_Readers]
    samples: int = 0
    wrong: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Run all networks on a batch, and count."""
        self.samples += len(batch.labels)
        for width, found in self.members.items():
            outputs = [member.run(batch) for member in found]
            logits = torch.stack([z.double() for _, z in outputs])
            self._add_networks(width, logits, batch.labels)
            if width == max(self.members):
                features = [h for h, _ in outputs]
                self._add_chunks(features, batch.labels)

    def _add_networks(self, width: int, logits: Tensor, labels: Tensor) -> None:
        every = torch.arange(len(logits))
        subsets = {
            "independent": every[:, None],
            "whole": every[None],
            "ensembles": self.plan.ensembles[width],
        }
        for name, rows in subsets.items():
            if len(rows):
                self._count(name, width, 0, wrong_of_sums(logits, labels, rows))

    def _add_chunks(self, features: Sequence[Tensor], labels: Tensor) -> None:
        for i, (readers, h) in enumerate(zip(self.readers, features, strict=True)):
            for w in self.plan.chunk_widths:
                self._count("raw", w, i, readers.raw[w].wrong(h, labels))
                self._count("folded", w, i, readers.folded[w].wrong(h, labels))

    def _count(self, name: str, width: int, network: int, wrong: Tensor) -> None:
        key = (name, width, network)
        self.wrong[key] = self.wrong.get(key, 0) + wrong

    def errors(self) -> FamilyErrors:
        """Return shares of all samples."""
        widths, chunks = tuple(self.members), self.plan.chunk_widths
        return FamilyErrors(
            self._table("independent", widths),
            self._table("ensembles", widths),
            self._table("whole", widths)[:, 0],
            self._table("raw", chunks),
            self._table("folded", chunks),
            self.samples,
        )

    def _table(self, name: str, widths: Sequence[int]) -> Float64[Tensor, "m r"]:
        """Return one row per width, with NaN where it is shorter than others."""
        none = torch.empty(0, dtype=torch.int64)
        rows = [
            torch.cat(
                [self.wrong.get((name, w, i), none) for i in range(len(self.readers))]
            )
            for w in widths
        ]
        table = torch.full(
            (len(rows), max(1, *map(len, rows))), torch.nan, dtype=torch.float64
        )
        for i, row in enumerate(rows):
            table[i, : len(row)] = row.double() / self.samples
        return table


def _covariances(
    widest: Sequence[Member], batches: Batches
) -> list[tuple[Covariance, float]]:
    """Return the covariance of each network's features, and the unit of their dtype."""
    found = [Covariance.empty(member.width) for member in widest]
    eps = [0.0] * len(widest)
    for batch in batches.run(_labels(widest[0])):
        for i, member in enumerate(widest):
            features, _ = member.run(batch)
            found[i] = found[i].merge(Covariance.of(features))
            eps[i] = max(eps[i], float(torch.finfo(features.dtype).eps))
    _check_finite({widest[0].width: widest})
    return list(zip(found, eps, strict=True))


def _labels(member: Member) -> int:
    """Return how many classes labels tell apart: a single logit tells two."""
    return max(member.head.module.out_features, 2)


def _check_finite(members: Members) -> None:
    for found in members.values():
        for member in found:
            names = [str(k) for k in range(_labels(member))]
            member.guard.check(names)
