import numpy as np
import pytest
import torch

from layerpeel._checks import BatchError
from layerpeel.measurement import ClassMoments, measure
from layerpeel.measurement.sources.repeat_guard import RepeatGuard
from layerpeel.measurement.statistics.nearest_mean import Decisions
from tests.measurement.models import MODELS

LINEAR = MODELS["linear"]


def draw(n=600, K=5, d=16, seed=0, spread=0.5):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    centres = torch.randn(K, d, generator=torch.Generator().manual_seed(99))
    return centres[y] + spread * torch.randn(n, d, generator=g), y


def noise(h, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(h.shape, generator=g).to(h.dtype)


def checked(first, later, y, K=5, order=None):
    order = torch.arange(len(y)) if order is None else order
    guard = RepeatGuard(ClassMoments.of(first, y, K))
    rows = Decisions(later[order], y[order], y[order])
    parts = [Decisions(*part) for part in zip(*(c.split(37) for c in rows))]  # noqa: B905
    kept = list(guard.watched(parts))
    assert [id(part) for part in kept] == [id(part) for part in parts]
    guard.check()


@pytest.mark.parametrize("shift", [0, 100, -1e4])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize("n", [1, 7, 20_000])
def test_rounding_and_order_are_no_difference(n, dtype, scale, shift):
    h, y = draw(n)
    h = (scale * (h + (0 if dtype == torch.float16 else shift))).to(dtype)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    ulps = 2 * torch.finfo(dtype).eps
    # Those of bfloat16 are so large that they can only be due to chance.
    alike = [] if dtype == torch.bfloat16 else [h * (1 + ulps)]
    for later in (h, h * (1 - ulps * noise(h).sign()), *alike):
        checked(h, later, y, order=order)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("n", [1, 40, 20_000])
def test_a_network_that_computes_in_bfloat16_is_no_difference(n, dtype):
    h, y = draw(n)
    later = h + 0.03 * h.square().mean().sqrt() * noise(h)
    checked(h.to(dtype), later.to(dtype), y)


def test_the_same_features_by_all_classes_of_one_sample():
    h, _ = draw(300)
    checked(h, h + 1e-3 * noise(h), torch.arange(300), K=300)


@pytest.mark.parametrize("n", [40, 600, 20_000])
def test_features_that_are_drawn_anew_are_refused(n):
    (h, y), (other, _) = draw(n), draw(n, seed=5)
    with pytest.raises(BatchError, match=r"must bring the same features.*one_pass"):
        checked(h, other, y)


def test_features_that_moved_are_refused():
    h, y = draw()
    with pytest.raises(BatchError, match="same features"):
        checked(h, h + 0.1, y)


def test_classes_without_samples_and_shards_are_compared_with_their_own():
    h, y = draw(601)
    for shard in (y < 2, torch.arange(601) % 2 == 0):
        backwards = torch.arange(int(shard.sum())).flip(0)
        checked(h[shard], h[shard], y[shard], order=backwards)
    with pytest.raises(BatchError, match="same features"):
        checked(h[y == 1], h[y == 3], y[y == 1])


@pytest.mark.parametrize("value", [1e200, 1e308, 0.0])
def test_no_alarm_where_sums_overflow_or_vanish(value):
    h = torch.full((12, 3), value, dtype=torch.float64)
    checked(h, h.clone(), torch.arange(12) % 5)


class Augmenting:
    """The same labels, and other inputs in every pass."""

    def __init__(self, size):
        self.passes, self.size = 0, size

    def __iter__(self):
        self.passes += 1
        for batch, (x, y) in enumerate(LINEAR.data()):
            yield x + self.size * noise(x, seed=100 * self.passes + batch), y


def test_a_loader_that_augments_is_refused_where_it_is_read_again():
    with pytest.raises(BatchError, match="must bring the same features"):
        measure(LINEAR(), Augmenting(1.0), cache_bytes=0)
    loader = Augmenting(1.0)
    assert np.isfinite(measure(LINEAR(), loader).nc4())
    assert loader.passes == 1


@pytest.mark.parametrize("given", [{"check_deterministic": False}, {"nc4": "one_pass"}])
def test_a_loader_that_augments_is_taken_where_that_is_said(given):
    assert np.isfinite(measure(LINEAR(), Augmenting(1.0), cache_bytes=0, **given).nc4())
