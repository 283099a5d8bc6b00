"""Small families of networks of several widths, and their data."""

import torch
from torch import nn


class Features(nn.Module):
    """A fixed map from inputs to neurons, followed by a head."""

    def __init__(self, mixing, weight, bias=None):
        super().__init__()
        self.register_buffer("mixing", mixing.double())
        classes, width = weight.shape
        self.head = nn.Linear(width, classes, bias=bias is not None).double()
        with torch.no_grad():
            self.head.weight.copy_(weight)
            if bias is not None:
                self.head.bias.copy_(bias)

    def forward(self, x):
        return self.head(x.double() @ self.mixing)


def random_network(width, seed, classes=3, inputs=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * width + seed)
        return nn.Sequential(
            nn.Linear(inputs, 2 * width), nn.Tanh(), nn.Dropout(),
            nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, classes),
        ).double()  # fmt: skip


def data(samples=60, classes=3, inputs=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, inputs, generator=random, dtype=torch.float64)
    y = torch.randint(classes, (samples,), generator=random)
    return x, y


def loader(x, y, batch=16):
    return list(zip(x.split(batch), y.split(batch), strict=True))
