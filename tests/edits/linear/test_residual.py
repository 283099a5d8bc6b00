from __future__ import annotations

import pytest
import torch

from layerpeel.edits.linear.residual import _norm_bound

SIZES = [(300, 300), (300, 90), (90, 300), (1, 40)]


def matrix(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + columns)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e-200, 1e150])
def test_the_bound_is_above_the_norm_and_near_it(
    size: tuple[int, int], scale: float
) -> None:
    found = scale * matrix(*size)
    norm = float(torch.linalg.matrix_norm(found, 2))
    assert norm * (1 - 1e-12) <= _norm_bound(found) <= 1.01 * norm


def test_a_norm_that_the_first_step_is_blind_to_is_bounded() -> None:
    blind = torch.diag(torch.tensor([1.0, 1.0]).double())
    blind = blind + 5 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    norm = float(torch.linalg.matrix_norm(blind, 2))
    assert norm * (1 - 1e-12) <= _norm_bound(blind) <= 1.01 * norm
