import math

import pytest
import torch

from layerpeel._checks import ShapeError
from layerpeel.geometry import (
    Geometry,
    geometry_distance,
    orthogonal_frame,
    simplex_etf,
)

FIELDS = (
    "classifier_gram",
    "feature_gram",
    "logits",
    "classifier_cosine",
    "feature_cosine",
)


def random_geometry(num_classes, seed, unseen=()):
    generator = torch.Generator().manual_seed(seed)
    size = (num_classes, 5)
    W = torch.randn(size, dtype=torch.float64, generator=generator)
    H = torch.randn(size, dtype=torch.float64, generator=generator)
    H[list(unseen)] = math.nan
    return W, H


def values(distance):
    return [getattr(distance, name) for name in FIELDS]


def test_scale_and_rotation_do_not_matter():
    W, H = random_geometry(4, 0)
    generator = torch.Generator().manual_seed(9)
    square = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    rotation = torch.linalg.qr(square)[0]
    moved = Geometry.of(3e4 * W @ rotation, 1e-6 * H @ rotation)
    distance = geometry_distance(Geometry.of(W, H), moved)
    assert values(distance) == pytest.approx([0.0] * 5, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_orthogonal_against_simplex_frame_in_closed_form(num_classes):
    K = num_classes
    orthogonal, simplex = orthogonal_frame(K), simplex_etf(K)
    distance = geometry_distance(
        Geometry.of(orthogonal, orthogonal), Geometry.of(simplex, simplex)
    )
    gram = math.sqrt(2 - 2 * math.sqrt((K - 1) / K))
    expected = [gram, gram, gram, 1 / (K - 1), 1 / (K - 1)]
    assert values(distance) == pytest.approx(expected, rel=1e-12)


def test_opposite_logits_are_as_far_as_can_be():
    W, H = random_geometry(4, 0)
    distance = geometry_distance(Geometry.of(W, H), Geometry.of(W, -H))
    assert distance.logits == pytest.approx(2.0)
    assert distance.feature_gram == pytest.approx(0.0, abs=1e-12)


def test_is_symmetric_and_keeps_the_triangle_inequality_of_the_gram_part():
    a, b, c = (Geometry.of(*random_geometry(4, seed)) for seed in range(3))
    assert values(geometry_distance(a, b)) == values(geometry_distance(b, a))
    sides = [
        geometry_distance(x, y).classifier_gram for x, y in [(a, b), (b, c), (a, c)]
    ]
    assert sides[2] <= sides[0] + sides[1]


def test_unseen_classes_are_left_out_of_entries_and_norms():
    W, H = random_geometry(5, 0, unseen=[3])
    V, M = random_geometry(5, 1)
    seen = [0, 1, 2, 4]
    whole = geometry_distance(Geometry.of(W, H), Geometry.of(V, M))
    part = geometry_distance(
        Geometry.of(W[seen], H[seen]), Geometry.of(V[seen], M[seen])
    )
    assert whole.feature_gram == pytest.approx(part.feature_gram)
    assert whole.feature_cosine == pytest.approx(part.feature_cosine)
    # Logits lose the column of the class, not its row: its classifier exists.
    first, second = (W @ H[seen].T).flatten(), (V @ M[seen].T).flatten()
    expected = (first / first.norm() - second / second.norm()).norm()
    assert whole.logits == pytest.approx(float(expected))


def test_pairs_without_a_cosine_are_left_out_of_the_mean():
    W, H = random_geometry(4, 0)
    V, M = random_geometry(4, 1)
    V[0] = 0
    whole = geometry_distance(Geometry.of(W, H), Geometry.of(V, M))
    part = geometry_distance(Geometry.of(W[1:], H[1:]), Geometry.of(V[1:], M[1:]))
    assert whole.classifier_cosine == pytest.approx(part.classifier_cosine)


def test_numbers_of_classes_must_agree():
    small, large = (Geometry.of(*random_geometry(k, 0)) for k in (3, 4))
    with pytest.raises(ShapeError, match="same number of classes; got 3 and 4"):
        geometry_distance(small, large)
