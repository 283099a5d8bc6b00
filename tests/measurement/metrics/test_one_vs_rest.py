import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics.one_vs_rest import one_vs_rest
from tests.measurement.metrics.vectors import on_circle, random_rows, with_gaps


@pytest.mark.parametrize(("classes", "width"), [(2, 1), (4, 3), (5, 30)])
def test_simplex_in_closed_form_whatever_the_lengths(classes, width):
    rows = torch.arange(1, classes + 1).double()[:, None] * simplex_etf(classes, width)
    expected = np.full(classes, classes / (classes - 1))
    np.testing.assert_allclose(one_vs_rest(rows), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "degrees", [(0, 90, 180, 270), (0, 91, 179, 272), (0, 72, 143, 216, 288)]
)
def test_polygons_in_closed_form(degrees):
    # Neighbours at angles a and b away: the distance to their chord.
    K, gaps = len(degrees), np.diff([*degrees, degrees[0] + 360])
    expected = [
        np.cos(np.radians(gaps[k] - gaps[k - 1]) / 2)
        - np.cos(np.radians(gaps[k] + gaps[k - 1]) / 2)
        for k in range(K)
    ]
    np.testing.assert_allclose(one_vs_rest(on_circle(*degrees)), expected, rtol=1e-12)


def test_agrees_with_a_search_over_combinations():
    units = torch.nn.functional.normalize(random_rows(5, 3), dim=1).numpy()
    g = np.random.default_rng(0)
    weights = g.dirichlet(np.full(4, 0.3), size=100_000)
    for k, distance in enumerate(one_vs_rest(torch.from_numpy(units)).tolist()):
        found = np.linalg.norm(
            units[k] - weights @ np.delete(units, k, 0), axis=1
        ).min()
        assert distance <= found < distance + 0.02


def test_width_beyond_the_classes_changes_nothing():
    rows = random_rows(6, 4)
    wide = (
        torch.nn.functional.pad(rows, (0, 50)) @ torch.linalg.qr(random_rows(54, 54))[0]
    )
    np.testing.assert_allclose(one_vs_rest(wide), one_vs_rest(rows), rtol=1e-10)


def test_absent_and_vanished_classes_have_none_and_are_in_no_hull():
    rows = on_circle(0, 100, 200, 300)
    gaps = one_vs_rest(with_gaps(rows, 1))
    np.testing.assert_allclose(gaps[[0, 2, 3, 4]], one_vs_rest(rows))
    assert gaps[1].isnan()
    with pytest.warns(UndefinedWarning, match="of 1 classes .*vanished"):
        vanished = one_vs_rest(torch.cat([rows, 0 * rows[:1]]))
    np.testing.assert_allclose(vanished[:4], one_vs_rest(rows))
    assert vanished[4].isnan()


@pytest.mark.parametrize(
    "rows", [torch.ones(1, 2), torch.ones(0, 2), torch.zeros(3, 2)]
)
def test_undefined_without_two_directions(rows):
    with pytest.warns(UndefinedWarning, match="two directions"):
        assert one_vs_rest(rows.double()).isnan().tolist() == [True] * len(rows)
