import math

import cvxpy as cp
import numpy as np
import pytest
import torch

from layerpeel import LayerpeelError, simplex_etf
from layerpeel.program.limits import one_vs_rest_distances, one_vs_rest_optimum


def polygon(num_classes):
    angles = 2 * math.pi * torch.arange(num_classes, dtype=torch.float64) / num_classes
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def crosspolytope(width):
    eye = torch.eye(width, dtype=torch.float64)
    return torch.cat([eye, -eye])


def quadratic_program(vectors):
    distances = []
    for k in range(len(vectors)):
        others = np.delete(vectors, k, axis=0)
        weights = cp.Variable(len(others), nonneg=True)
        miss = vectors[k] - others.T @ weights
        problem = cp.Problem(cp.Minimize(cp.norm(miss)), [cp.sum(weights) == 1])
        distances.append(problem.solve(solver=cp.CLARABEL))
    return distances


@pytest.mark.parametrize(("num_classes", "width"), [(3, 2), (6, 3), (9, 4), (4, 7)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_distances_are_those_of_the_quadratic_program(num_classes, width, scale):
    generator = torch.Generator().manual_seed(num_classes)
    vectors = torch.randn(num_classes, width, dtype=torch.float64, generator=generator)
    distances = one_vs_rest_distances(vectors * scale) / scale
    np.testing.assert_allclose(distances, quadratic_program(vectors.numpy()), atol=1e-6)


FRAMES = {
    "simplex": (simplex_etf(5, 4), 4),
    "wide simplex": (simplex_etf(4, 9), 9),
    "octahedron": (crosspolytope(3), 3),
    "square": (polygon(4), 2),
    "heptagon": (polygon(7), 2),
    "two": (simplex_etf(2, 1), 1),
}


@pytest.mark.parametrize(("frame", "width"), FRAMES.values(), ids=FRAMES.keys())
def test_known_frames_attain_the_optimum(frame, width):
    distances = one_vs_rest_distances(frame)
    expected = one_vs_rest_optimum(len(frame), width)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)


@pytest.mark.parametrize(("num_classes", "width"), [(4, 3), (5, 3), (6, 3), (7, 2)])
def test_no_frame_found_by_search_beats_the_optimum(num_classes, width):
    """Random restarts of a local search on the sphere."""
    generator = torch.Generator().manual_seed(5)
    optimum, best = one_vs_rest_optimum(num_classes, width), 0.0
    for _ in range(3):
        frame = torch.randn(
            num_classes, width, dtype=torch.float64, generator=generator
        )
        frame = frame / frame.norm(dim=1, keepdim=True)
        value, step = float(one_vs_rest_distances(frame).min()), 0.5
        for _ in range(150):
            noise = torch.randn(frame.shape, dtype=torch.float64, generator=generator)
            there = frame + step * noise
            there = there / there.norm(dim=1, keepdim=True)
            found = float(one_vs_rest_distances(there).min())
            frame, value = (there, found) if found > value else (frame, value)
            step *= 0.975
        best = max(best, value)
    assert 0.6 * optimum < best <= optimum + 1e-12


def test_equal_vectors_are_at_distance_zero():
    assert (
        one_vs_rest_distances(torch.ones(3, 2, dtype=torch.float64)).tolist() == [0] * 3
    )
    inside = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
    assert one_vs_rest_distances(inside)[0] == pytest.approx(0, abs=1e-15)


def test_arrays_of_any_kind_are_vectors():
    frame = polygon(5).to(torch.float32).double()
    expected = one_vs_rest_distances(frame)
    for vectors in (
        frame.numpy(),
        frame.float().numpy(),
        frame.tolist(),
        frame.float(),
        frame.clone().requires_grad_(),
    ):
        found = one_vs_rest_distances(vectors)
        assert found.dtype == torch.float64
        assert not found.requires_grad
        assert found.equal(expected)
    assert one_vs_rest_distances([[0, 1], [0, 3]]).tolist() == [2, 2]


def test_says_what_is_wrong():
    with pytest.raises(LayerpeelError, match="at least two rows"):
        one_vs_rest_distances([1.0, 2.0])
    with pytest.raises(ValueError, match=r"must be real; got torch\.complex128"):
        one_vs_rest_distances(simplex_etf(3).to(torch.complex128))
    with pytest.raises(LayerpeelError, match="at least two rows"):
        one_vs_rest_distances(torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="finite"):
        one_vs_rest_distances(torch.full((2, 2), torch.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="no formula is known"):
        one_vs_rest_optimum(9, width=4)
    with pytest.raises(ValueError, match="num_classes"):
        one_vs_rest_optimum(1, width=4)
