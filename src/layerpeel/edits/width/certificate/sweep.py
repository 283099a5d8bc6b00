r"""The lowest curvatures of all neurons at once, by Krylov steps and Ritz values.

A step costs one product for all neurons. Ritz values are curvatures along directions
that exist: none is below the lowest one, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerpeel.edits.width.certificate.products import Products
from layerpeel.edits.width.certificate.quadratic import scale_of

# Factors of both parts with which the form of alpha = 1/2 is that of the products.
_V, _R = math.sqrt(0.5), math.sqrt(2)


@dataclass(frozen=True, eq=False)
class Subspace:
    """Directions of each neuron, and the forms on them.

    Attributes:
        v: With shape :math:`(m, k, p)`, orthonormal or zero.
        r: With shape :math:`(m, k, q)`, the same.
        B: The first form, with shape :math:`(m, k, k)`.
        C: The mixed form, with shape :math:`(m, k, k)`.
    """

    v: Tensor
    r: Tensor
    B: Tensor
    C: Tensor

    def lowest(self, alpha: float, share: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lowest curvature of each neuron, and the unit directions of it."""
        c = scale_of(alpha)
        C = self.C / math.sqrt(2 * c)
        top = torch.cat([share * alpha * (1 - alpha) / c * self.B, C], 2)
        below = torch.cat([C.mT, torch.zeros_like(C)], 2)
        values, vectors = torch.linalg.eigh(torch.cat([top, below], 1))
        k = self.B.shape[1]
        low = vectors[:, :, 0].to(self.v.dtype)
        v = torch.einsum("mk,mkp->mp", low[:, :k], self.v) / math.sqrt(c)
        r = torch.einsum("mk,mkq->mq", low[:, k:], self.r) / math.sqrt(2)
        return values[:, 0], v, r


def sweep(
    product: Products, count: int, sizes: tuple[int, int], steps: int, like: Tensor
) -> Subspace:
    """Return the subspaces of so many Krylov steps from random directions.

    Args:
        product: The products of the neurons.
        count: The number of neurons.
        sizes: The sizes of both parts of their directions.
        steps: The number of products.
        like: A tensor of the dtype and device to compute in.
    """
    p, q = sizes
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, p + q, generator=generator, dtype=torch.float64)
    # Both parts are as long: neither is lost in the other, whatever their sizes.
    start[:, :p] *= math.sqrt(q / p)
    x = torch.nn.functional.normalize(start, dim=1).to(like)
    basis, images = [x], list[Tensor]()
    for _ in range(steps):
        y, z = product(_V * x[:, :p], _R * x[:, p:])
        images.append(torch.cat([y, z], 1))
        x = _next(torch.cat([_V * y, _R * z], 1), basis)
        basis.append(x)
    X, Y = torch.stack(basis[:-1], 1), torch.stack(images, 1)
    return _projected(X[..., :p], X[..., p:], Y[..., :p], Y[..., p:])


def _next(image: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """Return what is new in an image of the last direction, with length one or zero."""
    X = torch.stack(list(basis), 1)
    size = image.norm(dim=1, keepdim=True)
    rest = image
    # Twice is enough, whatever cancels.
    for _ in range(2):
        rest = rest - torch.einsum("mk,mkp->mp", torch.einsum("mkp,mp->mk", X, rest), X)
    length = rest.norm(dim=1, keepdim=True)
    least = X.shape[-1] * torch.finfo(rest.dtype).eps * size
    # Where nothing is new, a zero is divided by one.
    found = length > least
    new: Tensor = rest * found / torch.where(found, length, torch.ones_like(length))
    return new


def _projected(v: Tensor, r: Tensor, y: Tensor, z: Tensor) -> Subspace:
    """Return the subspace of all first parts and all second parts of a basis."""
    mixed = torch.einsum("mip,mjp->mij", z, r).double() / _V
    both = torch.einsum("mip,mjp->mij", v, y).double()
    B = (both - _R * mixed) / _V
    Wv, Wr = _orthonormal(v), _orthonormal(r)
    B = Wv.mT @ ((B + B.mT) / 2) @ Wv
    v = torch.einsum("mki,mkp->mip", Wv.to(v), v)
    r = torch.einsum("mki,mkp->mip", Wr.to(r), r)
    return Subspace(v, r, B, Wv.mT @ mixed @ Wr)


def _orthonormal(rows: Tensor) -> Tensor:
    """Return the combinations that make rows orthonormal, and zero for what is lost."""
    gram = torch.einsum("mip,mjp->mij", rows, rows).double()
    values, vectors = torch.linalg.eigh(gram)
    least = torch.finfo(rows.dtype).eps ** (2 / 3) * values[:, -1:]
    scales = torch.where(values > least, values.clamp_min(1e-300).rsqrt(), 0.0)
    combinations: Tensor = vectors * scales[:, None, :]
    return combinations
