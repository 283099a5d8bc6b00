"""Networks whose layers are measured, and the slow measurement of one layer."""

import itertools

import numpy as np
import torch
from torch import nn

from layerpeel.measurement.layers.observer import LayerObserver
from tests.measurement.reference import sq

CLASSES = 4


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def mlp():
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6), nn.GELU(),
        nn.Linear(6, 4),
    )  # fmt: skip


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 2),
        nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


class Swish(nn.Module):
    """An activation from elsewhere, without parameters."""

    def forward(self, x):
        return x * x.sigmoid()


class Split(nn.Module):
    """No activation: it has no parameters and changes the shape."""

    def forward(self, x):
        return x.unflatten(-1, (2, -1)).transpose(1, 2).flatten(0, 1)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(3, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.up, self.act, self.down = nn.Linear(6, 12), Swish(), nn.Linear(12, 6)
        self.split = Split()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = x + self.positions(torch.arange(x.shape[1]))
        x = self.norm(x + self.attention(x, x, x)[0])
        x = x + self.down(self.act(self.up(x)))
        self.split(x)
        return self.head(x.mean(1))


class SharedReLU(nn.Module):
    """A residual block with one activation in two places."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(49, 4)

    def forward(self, x):
        out = self.conv2(self.relu(self.conv1(x)))
        return self.fc(self.relu(out + x).flatten(1))


def data(shape, n=40, seed=1):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    x = torch.randn(n, *shape, generator=g) + y.view(-1, *[1] * len(shape)) / 2
    return x, y


def observed(model, x, y, batch=16, layers="all", classes=CLASSES, **options):
    observer = LayerObserver(model, layers, num_classes=classes, **options)
    with torch.no_grad(), observer:
        for a, b in zip(x.split(batch), y.split(batch), strict=True):
            model(a)
            observer.fold(b)
    return observer.value()


def reference(h, y):
    """Metrics of features, one sample at a time, in float64."""
    h, y = h.double().numpy(), y.numpy()
    of = [h[y == k] for k in range(CLASSES)]
    mu = [part.mean(0) for part in of]
    v = [sq(part - m).mean() for part, m in zip(of, mu, strict=True)]
    within = sum(sq(part - m).sum() for part, m in zip(of, mu, strict=True)) / len(h)
    between = np.mean([sq(m - h.mean(0)) for m in mu])
    pairs = itertools.combinations(range(CLASSES), 2)
    s = np.linalg.svd(h - h.mean(0), compute_uv=False)
    p = s / s.sum()
    return {
        "cdnv": np.mean([(v[j] + v[k]) / 2 / sq(mu[j] - mu[k]) for j, k in pairs]),
        "nc1_quotient": within / between,
        "numerical_rank": (s > 1e-5 * s[0]).sum(),
        "effective_rank": np.exp(-sum(q * np.log(q) for q in p if q > 0)),
        "participation_ratio": (s**2).sum() ** 2 / (s**4).sum(),
    }


def unit_reference(x, y):
    """Metrics of units of a nonlinearity, one at a time; rows are observations."""
    x, y = x.double().numpy(), y.double().numpy()
    moving = [j for j in range(x.shape[1]) if np.ptp(x[:, j]) and np.ptp(y[:, j])]
    rho = [abs(np.corrcoef(x[:, j], y[:, j])[0, 1]) for j in moving]
    on = (y > 0).mean(0)
    bits = [-sum(q * np.log2(q) for q in (p, 1 - p) if q > 0) for p in on]
    return {
        "linearity": min(rho),
        "median_linearity": sorted(rho)[(len(rho) - 1) // 2],
        "on_off_entropy": np.mean(bits),
        "dead_units": (y == 0).all(0).sum(),
    }
