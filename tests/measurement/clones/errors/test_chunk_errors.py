import numpy as np
import pytest
import torch

from layerpeel._checks import LabelError, ShapeError
from layerpeel.measurement.clones.chunks import (
    disjoint_chunks,
    draw_chunks,
    dyadic_sizes,
)
from layerpeel.measurement.clones.errors.chunk_errors import (
    ChunkClassifiers,
    DyadicTree,
    chunk_errors,
    dyadic_errors,
)
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import least_squares, normal, seeded


def problem(samples=150, width=12, classes=4, seed=0, dtype=torch.float64):
    """Features that a random classifier mostly gets right, some of them dead."""
    weight = normal(classes, width, seed=seed).to(dtype)
    bias = normal(classes, seed=seed + 1).to(dtype)
    features = normal(samples, width, seed=seed + 2).relu().to(dtype)
    noise = normal(samples, classes, seed=seed + 3).to(dtype)
    labels = (features @ weight.T + bias + noise).argmax(1)
    return features, labels, weight, bias


def slow_error(features, labels, weight, bias, chunk, scale=1.0):
    """One sample at a time, with the decision of NumPy."""
    wrong = 0
    for h, y in zip(features.double().numpy(), labels.tolist(), strict=True):
        logits = scale * weight.double().numpy()[:, chunk] @ h[chunk]
        wrong += np.argmax(logits + (0 if bias is None else bias.numpy())) != y
    return wrong / len(labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("reading", "power"), [("raw", 0), ("rescaled", 1)])
@pytest.mark.parametrize("size", [1, 3, 12])
def test_errors_are_those_of_decisions_one_by_one(size, reading, power, dtype):
    features, labels, weight, bias = problem(dtype=dtype)
    chunks = draw_chunks(12, size, 5, seeded(4))
    found = chunk_errors(
        features, labels, ChunkClassifiers.of(weight, bias, chunks, reading)
    )
    expected = [
        slow_error(features, labels, weight, bias, chunk, (12 / size) ** power)
        for chunk in chunks.tolist()
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-15)


def test_folded_errors_are_those_of_the_reconstructed_layer():
    features, labels, weight, bias = problem(samples=400)
    chunks = draw_chunks(12, 7, 4, seeded(4))
    covariance = Covariance.of(features)
    found = chunk_errors(
        features,
        labels,
        ChunkClassifiers.folded(
            weight, bias, [reconstruct(covariance, chunk) for chunk in chunks]
        ),
    )
    for error, chunk in zip(found.tolist(), chunks, strict=True):
        whole = least_squares(features, chunk, features)
        expected = ((whole @ weight.T + bias).argmax(1) != labels).double().mean()
        assert error == pytest.approx(float(expected))
    raw = chunk_errors(features, labels, ChunkClassifiers.of(weight, bias, chunks))
    assert float(found.mean()) < float(raw.mean())


@pytest.mark.parametrize("width", [1, 2, 8, 11, 12, 44])
@pytest.mark.parametrize("biased", [True, False])
def test_a_tree_has_all_disjoint_chunks_of_all_sizes(width, biased):
    features, labels, weight, bias = problem(width=width, samples=70)
    bias = bias if biased else None
    order = torch.randperm(width, generator=seeded(2))
    found = dyadic_errors(features, labels, weight, bias, order)
    assert tuple(found) == dyadic_sizes(width)
    for size, errors in found.items():
        chunks = disjoint_chunks(order, size)
        direct = ChunkClassifiers.of(weight, bias, chunks)
        assert errors.tolist() == chunk_errors(features, labels, direct).tolist()
        expected = slow_error(features, labels, weight, bias, chunks[0].tolist())
        assert float(errors[0]) == pytest.approx(expected)


def test_a_single_logit_decides_by_its_sign():
    features = torch.tensor([[1.0, -3.0], [2.0, 1.0], [0.0, 5.0]])
    weight, labels = torch.ones(1, 2), torch.tensor([1, 1, 0])
    chunks = torch.tensor([[0], [1]])
    both = ChunkClassifiers.of(weight, None, chunks)
    # A logit of zero is an error for either class.
    assert both.wrong(features, labels).tolist() == [1, 2]
    tree = DyadicTree(weight, None, torch.arange(2)).wrong(features, labels)
    assert tree[2].tolist() == [2]


def test_counts_of_batches_add_up():
    features, labels, weight, bias = problem(samples=500)
    classifiers = ChunkClassifiers.of(weight, bias, draw_chunks(12, 5, 3, seeded()))
    tree = DyadicTree(weight, bias, torch.arange(12))
    parts = [*zip(features.split(130), labels.split(130), strict=True)]
    added = sum(classifiers.wrong(h, y) for h, y in parts)
    assert torch.equal(added, classifiers.wrong(features, labels))
    whole = tree.wrong(features, labels)
    for size in tree.sizes:
        added = sum(tree.wrong(h, y)[size] for h, y in parts)
        assert torch.equal(added, whole[size])


def test_exact_clones_make_chunks_as_good_as_the_layer():
    features, labels, weight, _ = problem(width=6, samples=300)
    wide, readers = features.repeat(1, 8), weight.repeat(1, 8)
    order = torch.arange(48).view(8, 6).flip(1).flatten()
    full = chunk_errors(
        wide, labels, ChunkClassifiers.of(readers, None, order[None])
    ).item()
    found = dyadic_errors(wide, labels, readers, None, order)
    for size in (6, 12, 24, 48):
        assert found[size].tolist() == [full] * (48 // size)


def test_what_does_not_fit_is_refused():
    features, labels, weight, bias = problem()
    classifiers = ChunkClassifiers.of(weight, bias, torch.tensor([[0, 1]]))
    cases = [
        (lambda: classifiers.wrong(features[:, :5], labels), ShapeError, "n, 12"),
        (lambda: classifiers.wrong(features, labels[1:]), ShapeError, "labels"),
        (lambda: classifiers.wrong(features, labels + 9), LabelError, "labels"),
        (lambda: ChunkClassifiers.of(weight[0], None, torch.ones(1, 1).long()),
         ShapeError, "K, W"),
        (lambda: ChunkClassifiers.of(weight, bias[1:], torch.ones(1, 1).long()),
         ShapeError, "`bias`"),
        (lambda: ChunkClassifiers.of(weight, bias, torch.tensor([[0, 12]])),
         ValueError, "outside: 12"),
        (lambda: ChunkClassifiers.of(weight, bias, torch.tensor([[0]]), "mean"),
         ValueError, "`reading`"),
        (lambda: DyadicTree(weight, bias, torch.arange(5)), ShapeError, "all 12"),
    ]  # fmt: skip
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
