import numpy as np
import pytest
import torch

from layerpeel.measurement import ClassMoments
from layerpeel.measurement.statistics.subspace import MeanSubspace, mean_directions


def moments(classes, width, shift=0.0, absent=()):
    g = torch.Generator().manual_seed(0)
    y = torch.tensor([k for k in range(classes) if k not in absent] * 7)
    h = torch.randn(len(y), width, generator=g).double() + shift
    return h, ClassMoments.of(h, y, classes)


@pytest.mark.parametrize(
    ("classes", "width", "rank", "absent"),
    [(4, 6, 3, ()), (9, 4, 4, ()), (5, 6, 2, (0, 3)), (3, 4, 0, (0, 2)), (2, 1, 1, ())],
)
def test_nearest_is_that_of_whole_distances(classes, width, rank, absent):
    h, m = moments(classes, width, shift=1e3, absent=absent)
    space = MeanSubspace.of(m)
    assert space.basis.shape == (rank, width)
    distances = np.linalg.norm(h[:, None].numpy() - m.class_means.numpy(), axis=2)
    expected = np.nanargmin(distances, axis=1)
    assert space.nearest(space.coordinates(h)).tolist() == expected.tolist()


def test_coordinates_keep_distances_between_means():
    _, m = moments(4, 6)
    space = MeanSubspace.of(m)
    torch.testing.assert_close(
        torch.cdist(space.means, space.means), torch.cdist(m.mean, m.mean)
    )


def test_equally_near_means_give_the_first_class():
    h = torch.tensor([[1.0], [-1.0]]).double()
    space = MeanSubspace.of(ClassMoments.of(h, torch.tensor([1, 0]), 2))
    assert space.nearest(space.coordinates(torch.zeros(1, 1))).tolist() == [0]


def test_directions_are_orthonormal_and_sorted():
    _, m = moments(5, 8)
    singular, directions = mean_directions(m.mean - m.mean.mean(0))
    assert singular.tolist() == sorted(singular.tolist(), reverse=True)
    torch.testing.assert_close(directions @ directions.T, torch.eye(4).double())
