import pytest
import torch

from layerpeel._tolerances import VANISHED_NORM
from layerpeel.measurement.metrics.directions import directions, unit_scaled
from tests.measurement.metrics.vectors import random_rows, with_gaps


def test_unit_length_and_same_direction():
    rows = random_rows(5, 3)
    units = directions(rows)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(5).double())
    torch.testing.assert_close(units * rows.norm(dim=1)[:, None], rows)
    torch.testing.assert_close(directions(1e-6 * rows), units)


def test_what_vanished_or_is_absent_has_none():
    rows = torch.eye(3).double()
    rows[1] *= VANISHED_NORM / 2
    rows[2] *= VANISHED_NORM * 2
    units = directions(with_gaps(rows, 0))
    assert units.isnan().any(1).tolist() == [True, False, True, False]
    assert directions(torch.zeros(2, 3).double()).isnan().all()
    assert directions(torch.zeros(0, 3).double()).shape == (0, 3)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-310, 1.0])
def test_any_size_has_directions(scale):
    rows = random_rows(4, 3)
    rtol = 1e-3 if scale == 1e-310 else 1e-12  # few digits are left so near to zero
    torch.testing.assert_close(
        directions(scale * rows), directions(rows), rtol=rtol, atol=rtol
    )


def test_scaling_keeps_every_digit():
    rows = with_gaps(1e180 * random_rows(4, 3), 1)
    scaled, factor = unit_scaled(rows)
    assert 0.5 <= scaled.nan_to_num().abs().max() < 1
    assert torch.equal((scaled / factor).nan_to_num(), rows.nan_to_num())
    zero = torch.zeros(2, 3).double()
    assert torch.equal(unit_scaled(zero)[0], zero)
