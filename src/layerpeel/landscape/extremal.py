"""The lowest and highest eigenpairs of a Hessian, from products with vectors alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from layerpeel._checks import NonFiniteError, at_least, positive
from layerpeel.landscape.eigenpair import Eigenpair
from layerpeel.landscape.hessian_operator import HessianOperator
from layerpeel.landscape.risk import Risk

# Below this the dense Hessian costs no more than the products that Lanczos takes.
_SMALL = 64

# What ARPACK calls the largest in absolute value, the lowest and the highest.
_Which: TypeAlias = Literal["LM", "SA", "LA"]

# Vectors of the Krylov space beyond those that are wanted.
_SPARE = 24


@dataclass(frozen=True, eq=False)
class Extremal:
    """The ends of a spectrum.

    Attributes:
        lowest: The lowest eigenpairs, ascending.
        highest: The highest eigenpairs, descending.
        converged: Whether both ends met the tolerance; if not, they are the best found,
            whose residuals tell how good they are.
        products: The number of Hessian-vector products that it took.
    """

    lowest: tuple[Eigenpair, ...]
    highest: tuple[Eigenpair, ...]
    converged: bool
    products: int


def extremal_eigenpairs(
    risk: Risk,
    num_eigenvalues: int = 1,
    *,
    tolerance: float = 1e-10,
    max_products: int = 4000,
    seed: int = 0,
    at: Tensor | None = None,
) -> Extremal:
    r"""Return the eigenpairs at both ends of the Hessian's spectrum.

    Lanczos with implicit restarts, on the Hessian shifted by its largest eigenvalue in
    absolute value, so that a lowest eigenvalue that is zero is as easy as any other.
    Lanczos sees one vector of each eigenspace: multiple eigenvalues may be found once.

    References:
        | ARPACK Users' Guide (Lehoucq, Sorensen and Yang, 1998),
        | https://doi.org/10.1137/1.9780898719628

    Args:
        risk: The risk.
        num_eigenvalues: How many at each end.
        tolerance: The residual to reach, as a share of the largest eigenvalue.
        max_products: About how many products each end may take.
        seed: The seed of the first vector.
        at: Where to take the Hessian; the model's own point when omitted.

    Raises:
        ValueError: If a number is out of its range.
        NonFiniteError: If the Hessian holds NaN or infinity.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> risk = Risk.of(model, torch.nn.functional.mse_loss, data)
        >>> found = extremal_eigenpairs(risk)
        >>> round(found.highest[0].value, 6), round(found.lowest[0].value, 6)
        (11.656854, 0.343146)
    """
    count = min(at_least("num_eigenvalues", num_eigenvalues, 1), risk.size)
    positive("tolerance", tolerance)
    at_least("max_products", max_products, 1)
    if risk.size <= max(_SMALL, 2 * count + 2):
        return _dense(risk, count, at)
    search = _Search(risk, at, count, tolerance, max_products, seed)
    radius, found = search.largest()
    ends = [search.end(radius, side) for side in (-1.0, 1.0)] if radius else [found] * 2
    pairs = [
        sorted(
            (Eigenpair.of(risk, v, at) for v in vectors), key=lambda pair: pair.value
        )
        for vectors in ends
    ]
    products = search.products + sum(map(len, pairs))
    return Extremal(
        tuple(pairs[0]), tuple(reversed(pairs[1])), search.converged, products
    )


class _Search:
    """Runs Lanczos with one start vector, and counts what it takes."""

    def __init__(
        self,
        risk: Risk,
        at: Tensor | None,
        count: int,
        tolerance: float,
        max_products: int,
        seed: int,
    ) -> None:
        self._risk, self._at, self._count = risk, at, count
        self._tolerance, self._most = tolerance, max_products
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(risk.size, generator=generator, dtype=torch.float64)
        self._start = start.numpy()
        self.converged, self.products = True, 0

    def largest(self) -> tuple[float, list[Tensor]]:
        """Return a bit more than the largest absolute eigenvalue; zero for none."""
        operator = HessianOperator(self._risk, self._at)
        image = operator @ self._start
        if not np.isfinite(image).all():
            raise NonFiniteError(
                "Products with the Hessian must be finite; one holds NaN or infinity. "
                "Look for roots, norms and logarithms at zero in the model and the loss."
            )
        if not np.any(image):
            # The Hessian is zero: any vectors will do.
            self.products += operator.products
            eye = torch.eye(self._risk.size, self._count, dtype=torch.float64)
            return 0.0, list(eye.T)
        # Its size is all that is needed, not its digits.
        vectors = self._lanczos(operator, 1, "LM", 1e-2)
        value = abs(Eigenpair.of(self._risk, _vectors(vectors)[0], self._at).value)
        self.products += operator.products
        return 1.1 * max(
            value, float(np.linalg.norm(image / np.linalg.norm(self._start)))
        ), []

    def end(self, radius: float, side: float) -> list[Tensor]:
        """Return the eigenvectors at one end."""
        operator = HessianOperator(self._risk, self._at, side * radius)
        which: _Which = "SA" if side < 0 else "LA"
        vectors = self._lanczos(operator, self._count, which, self._tolerance)
        self.products += operator.products
        return _vectors(vectors)

    def _lanczos(
        self, operator: HessianOperator, count: int, which: _Which, tolerance: float
    ) -> NDArray[Any]:
        size = min(self._risk.size, 2 * count + _SPARE)
        restarts = max(1, self._most // (size - count))
        try:
            return np.asarray(
                eigsh(
                    operator, k=count, which=which, tol=tolerance, ncv=size,
                    maxiter=restarts, v0=self._start,
                )[1]
            )  # fmt: skip
        except ArpackNoConvergence as error:
            self.converged = False
            missing = count - error.eigenvectors.shape[1]
            rest = _krylov(operator, self._start, size, missing, which)
            return np.concatenate([error.eigenvectors, rest], 1)


def _krylov(
    operator: HessianOperator,
    start: NDArray[Any],
    steps: int,
    count: int,
    which: _Which,
) -> NDArray[Any]:
    """Return Ritz vectors of one Krylov space, orthogonalised in full."""
    basis = np.empty((len(start), steps))
    image = start
    for step in range(steps):
        for _ in range(2):  # twice is enough
            image = image - basis[:, :step] @ (basis[:, :step].T @ image)
        basis[:, step] = image / np.linalg.norm(image)
        image = operator @ basis[:, step]
    values, vectors = np.linalg.eigh(basis.T @ (operator @ basis))
    order = np.argsort(-np.abs(values) if which == "LM" else values)
    chosen = order[-count:] if which == "LA" else order[:count]
    return np.asarray(basis @ vectors[:, chosen])


def _vectors(columns: NDArray[Any]) -> list[Tensor]:
    return list(torch.from_numpy(np.array(columns.T, dtype=np.float64)))


def _dense(risk: Risk, count: int, at: Tensor | None) -> Extremal:
    matrix = risk.hessian(at, progress=False)
    vectors = torch.linalg.eigh((matrix + matrix.T) / 2)[1].T
    lowest = [Eigenpair.of(risk, v, at) for v in vectors[:count]]
    highest = [Eigenpair.of(risk, v, at) for v in vectors.flip(0)[:count]]
    products = risk.size + 2 * count
    return Extremal(tuple(lowest), tuple(highest), True, products)
