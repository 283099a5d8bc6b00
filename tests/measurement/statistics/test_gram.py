import pytest
import torch

from layerpeel.measurement.statistics import gram as module
from layerpeel.measurement.statistics.gram import add_gram, mirror


def draw(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("panel", [1, 2, 3, 64])
@pytest.mark.parametrize("width", [0, 1, 2, 7, 8, 13, 130])
def test_sum_of_outer_products(width, panel, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_PANEL", panel)
    found = torch.zeros(width, width).double()
    rows = draw(20, width)
    for part in rows.split(6):
        add_gram(found, part)
    add_gram(found, rows[:4], 0.25 * rows[:4], sign=-1)
    mirror(found)
    scaled = rows * torch.cat([torch.full((4,), 0.75), torch.ones(16)])[:, None]
    torch.testing.assert_close(found, rows.T @ scaled, rtol=1e-13, atol=1e-13)


def test_a_mirrored_sum_can_be_added_to():
    rows = draw(9, 300)
    found = torch.zeros(300, 300).double()
    for part in rows.split(3):
        add_gram(found, part)
        mirror(found)
    torch.testing.assert_close(found, rows.T @ rows, rtol=1e-13, atol=1e-13)


def test_wide_sums_leave_out_entries_below_the_diagonal():
    found = torch.zeros(256, 256).double()
    add_gram(found, draw(3, 256))
    assert not found[64:, :64].any()
    assert found[:64].all()
