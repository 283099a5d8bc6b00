import torch

from layerpeel._tolerances import VANISHED_NORM
from layerpeel.measurement.metrics.directions import directions
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
