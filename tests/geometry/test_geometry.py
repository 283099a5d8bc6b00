import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import ShapeError
from layerpeel.geometry import Geometry, block_mean, off_diagonal, simplex_etf


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def cosine(a, b):
    a, b = a.numpy(), b.numpy()
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


def test_agrees_with_pairwise_loops():
    W, H = random(4, 6), random(4, 6, seed=1)
    geometry = Geometry.of(W, H)
    assert geometry.num_classes == 4
    for j in range(4):
        assert geometry.classifier_norms[j] == pytest.approx(
            np.linalg.norm(W[j].numpy())
        )
        assert geometry.feature_norms[j] == pytest.approx(np.linalg.norm(H[j].numpy()))
        for k in range(4):
            logit = sum(float(w * h) for w, h in zip(W[j], H[k], strict=True))
            assert geometry.logits[j, k] == pytest.approx(logit)
            assert geometry.classifier_cosines[j, k] == pytest.approx(
                cosine(W[j], W[k])
            )
            assert geometry.feature_cosines[j, k] == pytest.approx(cosine(H[j], H[k]))


def test_column_k_of_the_logits_belongs_to_the_mean_of_class_k():
    W, H = random(3, 5), random(3, 5, seed=1)
    torch.testing.assert_close(Geometry.of(W, H).logits[:, 2], W @ H[2])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 1000))
def test_rotation_changes_nothing(num_classes, width, seed):
    W, H = (
        random(num_classes, width, seed=seed),
        random(num_classes, width, seed=seed + 1),
    )
    rotation = torch.linalg.qr(random(width, width, seed=seed + 2))[0]
    first, second = Geometry.of(W, H), Geometry.of(W @ rotation, H @ rotation)
    for name in ("classifier_gram", "feature_gram", "logits"):
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("length", [0.0, 1e-9])
def test_a_vanished_vector_has_a_norm_and_no_cosine(length):
    W = random(4, 4)
    W[1] *= length / W[1].norm()
    geometry = Geometry.of(W, random(4, 4, seed=1))
    assert geometry.classifier_norms[1] == pytest.approx(length)
    undefined = geometry.classifier_cosines.isnan()
    assert undefined[1].all()
    assert undefined[:, 1].all()
    kept = [0, 2, 3]
    assert not undefined[kept][:, kept].any()
    assert not geometry.feature_cosines.isnan().any()


def test_a_short_vector_still_has_a_direction():
    W = random(3, 3)
    expected = Geometry.of(W, W).classifier_cosines
    W[2] *= 1e-5
    torch.testing.assert_close(Geometry.of(W, W).classifier_cosines, expected)


def test_when_everything_vanishes_no_cosine_is_defined():
    zero = torch.zeros(3, 2, dtype=torch.float64)
    assert Geometry.of(zero, zero).classifier_cosines.isnan().all()


def test_a_class_never_seen_is_nan_in_its_row_and_column_only():
    H = random(4, 3)
    H[2] = math.nan
    cosines = Geometry.of(random(4, 3, seed=1), H).feature_cosines
    seen = [0, 1, 3]
    assert cosines[2].isnan().all()
    assert cosines[:, 2].isnan().all()
    assert not cosines[seen][:, seen].isnan().any()


def test_cosines_never_leave_their_range():
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)
    rows = torch.outer(lengths, random(3))
    geometry = Geometry.of(rows, -rows)
    assert geometry.classifier_cosines.max() <= 1
    torch.testing.assert_close(
        geometry.classifier_cosines, torch.ones(6, 6, dtype=torch.float64)
    )


def test_block_cosine_is_the_mean_over_pairs_of_the_block():
    W = random(5, 4)
    geometry = Geometry.of(W, W)
    pairs = [cosine(W[j], W[k]) for j, k in [(0, 2), (0, 4), (2, 4)]]
    assert geometry.block_cosine([4, 0, 2]) == pytest.approx(np.mean(pairs))


def test_block_cosine_is_undefined_without_pairs_or_directions():
    W = random(4, 4)
    W[3] = 0
    geometry = Geometry.of(W, W)
    assert math.isnan(geometry.block_cosine([1]))
    assert math.isnan(geometry.block_cosine([0, 1, 3]))


def test_off_diagonal_goes_row_by_row():
    matrix = torch.arange(9, dtype=torch.float64).reshape(3, 3)
    assert off_diagonal(matrix).tolist() == [1, 2, 3, 5, 6, 7]
    assert block_mean(matrix, range(len(matrix))) == 4.0
    assert math.isnan(block_mean(matrix, [0]))


def test_shapes_must_match():
    with pytest.raises(
        ShapeError, match=r"same shape \(K, p\); got \(3, 4\) and \(3, 5\)"
    ):
        Geometry.of(random(3, 4), random(3, 5))


@pytest.mark.parametrize("weights", [[1.0, 1, 1, 1], [9.0, 3, 1, 1]], ids=str)
def test_centring_gram_matrices_is_centring_vectors(weights):
    random = torch.Generator().manual_seed(0)
    rows, means = torch.randn(2, 4, 6, generator=random, dtype=torch.float64)
    shares = torch.tensor(weights, dtype=torch.float64)
    centred = means - (shares[:, None] * means).sum(0) / shares.sum()
    found, expected = Geometry.of(rows, means).about(shares), Geometry.of(rows, centred)
    torch.testing.assert_close(found.feature_gram, expected.feature_gram)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.classifier_gram, expected.classifier_gram)


def test_blocks_are_chosen_by_any_sequence():
    frame = simplex_etf(4)
    geometry = Geometry.of(frame, frame)
    assert geometry.block_cosine((1, 3)) == pytest.approx(-1 / 3)
    assert math.isnan(geometry.block_cosine(()))


@pytest.mark.parametrize("norms", [[1.0, 1, 1], [1.0, 1, 0]], ids=["all", "vanished"])
def test_a_geometry_draws_its_cosines_where_it_is_told(norms):
    frame = torch.tensor(norms, dtype=torch.float64)[:, None] * simplex_etf(3)
    fig, ax = Geometry.of(frame, frame).plot()
    assert ax.get_title(loc="left") == "cosines between classifiers"
    again, same = Geometry.of(frame, frame).plot(ax)
    assert (again, same) == (fig, ax)
    fig.canvas.draw()
