"""The Hessian of a risk as SciPy's linear operator, never formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from layerpeel.landscape.risk import Risk

if TYPE_CHECKING:
    _Base = LinearOperator[np.float64]
else:
    # It takes a type in SciPy's stubs only.
    _Base = LinearOperator


class HessianOperator(_Base):
    r"""The symmetric operator :math:`v \mapsto H v + \sigma v` of shape :math:`(p, p)`.

    Args:
        risk: The risk.
        at: Where to take the Hessian; the model's own point when omitted.
        shift: The number :math:`\sigma`.

    Attributes:
        products: How many products with vectors were computed.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> risk = Risk.of(model, torch.nn.functional.mse_loss, data)
        >>> HessianOperator(risk) @ np.array([1.0, 0.0])
        array([10.,  4.])
    """

    def __init__(
        self, risk: Risk, at: Tensor | None = None, shift: float = 0.0
    ) -> None:
        # The stubs know no initialiser for those who inherit.
        super().__init__(np.dtype(np.float64), (risk.size, risk.size))  # type: ignore[call-arg]
        self._risk, self._at, self._shift = risk, at, shift
        self.products = 0

    def _matvec(self, x: NDArray[Any]) -> NDArray[np.float64]:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _matmat(self, X: NDArray[Any]) -> NDArray[np.float64]:
        self.products += X.shape[1]
        directions = torch.from_numpy(np.array(X, dtype=np.float64))
        product = self._risk.product(directions, self._at).numpy()
        return np.asarray(product + self._shift * X, dtype=np.float64)

    def _adjoint(self) -> HessianOperator:
        return self
