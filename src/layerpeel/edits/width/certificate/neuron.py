r"""One neuron by itself: the function whose Hessian its matrices are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from layerpeel.edits.width.certificate.capture import Capture, Held
from layerpeel.edits.width.certificate.layout import Block
from layerpeel.landscape.functional import differentiable

Errors = tuple[tuple[Tensor, ...], ...]

# Rows of a matrix that are computed at once.
_ROWS = 64


@dataclass(frozen=True, eq=False)
class Neuron:
    r"""A neuron of a layer, or one that is to be added to it.

    Attributes:
        capture: The layer with its data, in float64.
        parts: The neuron's parts of all tensors, by name.
        index: Which neuron it is; ``None`` if it is to be added.
    """

    capture: Capture
    parts: Mapping[str, Tensor]
    index: int | None

    @classmethod
    def of(cls, capture: Capture, index: int) -> Neuron:
        """Return a neuron of the layer."""
        layout = capture.layout
        moves, reads = (rows[index] for rows in capture.rows)
        parts = {
            **layout.held(capture.values, index),
            **layout.parts(moves, reads=False),
            **layout.parts(reads, reads=True),
        }
        return cls(capture, parts, index)

    def rows(self) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\theta` and :math:`a`, as vectors."""
        layout = self.capture.layout
        return (
            torch.cat([self.parts[b.name].flatten() for b in layout.moves]),
            torch.cat([self.parts[b.name].flatten() for b in layout.reads]),
        )

    @property
    def errors(self) -> Errors:
        """The errors of each batch and consumer."""
        return tuple(batch.errors for batch in self.capture.batches)

    def matrices(self, errors: Errors) -> tuple[Tensor, Tensor]:
        r"""Return :math:`B` and :math:`C` for given errors.

        Args:
            errors: One tensor per batch and consumer; the matrices are linear in them.
        """
        p, q = self.capture.layout.sizes
        theta, a = (row.detach().requires_grad_() for row in self.rows())
        B, C = theta.new_zeros(p, p), theta.new_zeros(p, q)
        with differentiable():
            for batch, own in zip(self.capture.batches, errors, strict=True):
                outputs = self._outputs(batch, theta, a)
                psi = sum((e * y).sum() for e, y in zip(own, outputs, strict=True))
                assert isinstance(psi, Tensor)
                (slope,) = torch.autograd.grad(psi, theta, create_graph=True)
                for rows in torch.split(torch.eye(p).to(theta), _ROWS):
                    first = int(rows[0].argmax())
                    found = _rows(slope, (theta, a), rows)
                    B[first : first + len(rows)] += found[0]
                    C[first : first + len(rows)] += found[1]
        return (B + B.T) / 2, C

    def bend(self, v: Tensor, r: Tensor, part: float, doubts: Errors) -> Bend:
        r"""Return the second derivative along a direction, with its rounding.

        Args:
            v: The direction of :math:`\theta`.
            r: The direction of :math:`a`.
            part: What :math:`a` is multiplied by.
            doubts: How far errors may be off.
        """
        theta, a = self.rows()
        value = size = doubt = 0.0
        for batch, unsure in zip(self.capture.batches, doubts, strict=True):

            def along(step: Tensor, batch: Held = batch) -> tuple[Tensor, ...]:
                return tuple(
                    self._outputs(batch, theta + step * v, part * a + step * r)
                )

            for e, d, y in zip(
                batch.errors, unsure, _second(along, theta), strict=True
            ):
                value += float((e * y).sum())
                size += float((e * y).abs().sum())
                doubt += float((d * y.abs()).sum())
        return Bend(value, size, doubt)

    def constant(self) -> float | None:
        """Return what consumers read of it if that is one number; else ``None``."""
        batch = self.capture.batches[0]
        with torch.no_grad():
            read = self.capture.chain.inputs(
                batch.x, self._values(*self.rows()), batch.external
            )
            # In place of another neuron, the others are seen as well.
            own = [self._own(value) for value in read]
            values = torch.cat([value.flatten() for value in own])
        low, high = float(values.min()), float(values.max())
        near = high - low <= 1e-12 * max(abs(low), abs(high))
        return high if near else None

    @cached_property
    def alone(self) -> bool:
        """Whether the way through the layer can be gone with this neuron alone.

        Views with numbers of channels written out do not let it; the neuron then takes
        the place of another one, among all the others.
        """
        batch, chain = self.capture.batches[0], self.capture.chain
        values = self._placed(*self.rows(), alone=True)
        with torch.no_grad():
            full = chain.inputs(batch.x, self.capture.values, batch.external)
            try:
                own = chain.inputs(batch.x, values, batch.external)
            except RuntimeError:
                return False
        width = self.capture.layout.width
        return all(
            one.numel() * width == all_.numel() and len(one) == len(all_)
            for one, all_ in zip(own, full, strict=True)
        )

    def _own(self, read: Tensor) -> Tensor:
        if self.alone:
            return read
        axis = -3 if read.ndim > 3 else -1
        count = read.shape[axis] // self.capture.layout.width
        return read.narrow(axis, self._position * count, count)

    @property
    def _position(self) -> int:
        return 0 if self.index is None else self.index

    def _outputs(self, batch: Held, theta: Tensor, a: Tensor) -> list[Tensor]:
        values = self._values(theta, a)
        return self.capture.chain.outputs(batch.x, values, batch.external)

    def _values(self, theta: Tensor, a: Tensor) -> dict[str, Tensor]:
        return self._placed(theta, a, alone=self.alone)

    def _placed(self, theta: Tensor, a: Tensor, *, alone: bool) -> dict[str, Tensor]:
        layout = self.capture.layout
        parts = {
            **self.parts,
            **layout.parts(theta, reads=False),
            **layout.parts(a, reads=True),
        }
        blocks = (
            *(layout.moves + layout.reads),
            *(layout.fixed + layout.fixed_reads),
        )
        return {b.name: self._tensor(b, parts[b.name], alone=alone) for b in blocks}

    def _tensor(self, block: Block, part: Tensor, *, alone: bool) -> Tensor:
        row = part.reshape(1, -1)
        if alone:
            return block.tensor(row)
        width, at = self.capture.layout.width, self._position
        rows = block.rows(self.capture.values[block.name], width)
        return block.tensor(torch.cat([rows[:at], row, rows[at + 1 :]]))


@dataclass(frozen=True)
class Bend:
    """A second derivative, evaluated sample by sample.

    Attributes:
        value: The derivative.
        size: The sum of its terms in absolute value.
        doubt: How far errors that are off may move it.
    """

    value: float
    size: float
    doubt: float


def _rows(
    slope: Tensor, leaves: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, ...]:
    """Return products of rows with the derivatives of a gradient."""
    if not slope.requires_grad:
        return tuple(rows.new_zeros(len(rows), len(leaf)) for leaf in leaves)
    return torch.autograd.grad(
        slope,
        leaves,
        rows,
        retain_graph=True,
        is_grads_batched=True,
        materialize_grads=True,
    )


def _second(along: Callable[..., Any], like: Tensor) -> tuple[Tensor, ...]:
    """Return the second derivatives at zero of functions of one number."""
    zero, one = like.new_zeros(()), like.new_ones(())

    def first(step: Tensor) -> tuple[Tensor, ...]:
        return jvp(along, (step,), (one,))[1]  # type: ignore[no-any-return]

    with differentiable():
        return jvp(first, (zero,), (one,))[1]  # type: ignore[no-any-return]
