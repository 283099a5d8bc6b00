r"""Products of all neurons' matrices with vectors, without the matrices.

The function :math:`\Psi = \sum_s \psi_s(\theta_s, a_s)` is a sum over neurons, so that
one Hessian-vector product of it gives the products of every neuron at once.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerpeel.edits.activations import is_elementwise
from layerpeel.edits.graph import Layer
from layerpeel.edits.width.certificate.capture import Capture, Held

Rows = tuple[Tensor, Tensor]


@runtime_checkable
class Products(Protocol):
    r"""The products :math:`(B_s v_s + C_s r_s,\; C_s^\top v_s)` of all neurons.

    Attributes:
        passes: How many backward passes of the network one call costs at most, about.
    """

    passes: int

    def __call__(self, v: Float[Tensor, "m p"], r: Float[Tensor, "m q"]) -> Rows:
        """Return both products, one neuron per row."""


def products(capture: Capture, layer: Layer, neurons: list[int]) -> Products:
    """Return the cheapest way to the products of some neurons of a layer."""
    if is_plain(layer):
        return Plain(capture, layer, neurons)
    return General(capture, neurons)


def is_plain(layer: Layer) -> bool:
    """Whether an activation alone stands between linear layers."""
    affines = (layer.producer, *layer.consumers)
    linear = all(a is not None and isinstance(a.module, nn.Linear) for a in affines)
    known = layer.activation is None or (
        is_elementwise(layer.activation) and not isinstance(layer.activation, nn.PReLU)
    )
    return linear and known and not layer.before and not layer.between


class General:
    """Products through any way of a layer, by differentiating twice."""

    passes = 3

    def __init__(self, capture: Capture, neurons: list[int]) -> None:
        self._capture, self._neurons = capture, neurons

    def __call__(self, v: Tensor, r: Tensor) -> Rows:
        """Return both products, one neuron per row."""
        capture, layout = self._capture, self._capture.layout
        direction = layout.tensors(*(self._among(rows) for rows in (v, r)))
        total = {name: torch.zeros_like(d) for name, d in direction.items()}
        for batch in capture.batches:
            for name, product in self._of(batch, direction).items():
                total[name] += product
        moved, read = layout.rows(total)
        return moved[self._neurons], read[self._neurons]

    def _among(self, rows: Tensor) -> Tensor:
        """Return rows of all neurons, zero for those that are left out."""
        everyone = rows.new_zeros(self._capture.layout.width, rows.shape[1])
        everyone[self._neurons] = rows
        return everyone

    def _of(self, batch: Held, direction: dict[str, Tensor]) -> dict[str, Tensor]:
        values = self._capture.values
        leaves = {n: values[n].detach().requires_grad_() for n in direction}
        along = list(direction.values())
        with torch.enable_grad():
            psi = weighted(self._capture, {**values, **leaves}, batch)
            slopes = _grad(psi, list(leaves.values()), create_graph=True)
            slope = sum((s * d).sum() for s, d in zip(slopes, along, strict=True))
            assert isinstance(slope, Tensor)
            return dict(zip(leaves, _grad(slope, list(leaves.values())), strict=True))


def weighted(capture: Capture, values: dict[str, Tensor], batch: Held) -> Tensor:
    r"""Return :math:`\Psi` of a batch: what consumers return, times fixed errors."""
    returned = capture.chain.outputs(batch.x, values, batch.external)
    parts = [(e * y).sum() for e, y in zip(batch.errors, returned, strict=True)]
    return torch.stack(parts).sum()


def _grad(
    value: Tensor, leaves: list[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    if not value.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(
        value, leaves, create_graph=create_graph, materialize_grads=True
    )


class Plain:
    r"""Products in closed form, where the activation alone is between linear layers.

    With inputs :math:`\tilde f`, errors :math:`e` and :math:`z_s = a_s^\top e`, it is
    :math:`B_s = \sum z_s \sigma''_s \tilde f \tilde f^\top` and
    :math:`C_s = \sum \sigma'_s \tilde f e^\top`: four matrix products for all neurons.
    """

    passes = 1

    def __init__(self, capture: Capture, layer: Layer, neurons: list[int]) -> None:
        self._neurons = neurons
        layout = capture.layout
        assert layer.producer is not None
        path = layer.producer.path
        names = [block.name for block in layout.moves]
        self._weight = f"{path}.weight" in names
        self._bias = f"{path}.bias" in names
        trained = {block.name for block in layout.reads}
        self._trained = [f"{c.path}.weight" in trained for c in layer.consumers]
        self._batches = [
            self._prepared(capture, layer, batch) for batch in capture.batches
        ]

    def _prepared(
        self, capture: Capture, layer: Layer, batch: Held
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs, errors of what trains, first and weighted second derivatives."""
        assert layer.producer is not None
        values, path = capture.values, layer.producer.path
        x = batch.x.reshape(-1, batch.x.shape[-1])
        into = values[f"{path}.weight"][self._neurons]
        bias = values.get(f"{path}.bias")
        bias = None if bias is None else bias[self._neurons]
        pre = nn.functional.linear(x, into, bias)
        first, second = slopes(capture.chain.activation, pre)
        errors = [e.reshape(-1, e.shape[-1]) for e in batch.errors]
        weights = [values[f"{c.path}.weight"] for c in layer.consumers]
        z = torch.zeros_like(pre)
        for error, weight in zip(errors, weights, strict=True):
            z.addmm_(error, weight[:, self._neurons])
        kept = [e for e, keep in zip(errors, self._trained, strict=True) if keep]
        return x, torch.cat(kept, 1), first, second.mul_(z)

    def __call__(self, v: Tensor, r: Tensor) -> Rows:
        """Return both products, one neuron per row."""
        moved, read = torch.zeros_like(v), torch.zeros_like(r)
        inputs = v.shape[1] - self._bias
        for x, errors, first, second in self._batches:
            change = x @ v[:, :inputs].T if self._weight else 0.0
            if self._bias:
                change = change + v[:, -1]
            read.addmm_((first * change).T, errors)
            back = (errors @ r.T).mul_(first).add_(second * change)
            if self._weight:
                moved[:, :inputs].addmm_(back.T, x)
            if self._bias:
                moved[:, -1] += back.sum(0)
        return moved, read


def slopes(activation: nn.Module | None, pre: Tensor) -> Rows:
    """Return the first and second derivatives of an activation at some values."""
    if activation is None:
        return torch.ones_like(pre), torch.zeros_like(pre)
    with torch.enable_grad():
        at = pre.detach().requires_grad_()
        first = _grad(activation(at).sum(), [at], create_graph=True)[0]
        second = _grad(first.sum(), [at])[0]
    return first.detach(), second
