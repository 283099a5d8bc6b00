"""A small network, its data and a plain loop that trains it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES, WIDTH = 3, 6


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES),
        )  # fmt: skip


def arrays(n=60, seed=1):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    return torch.randn(n, 5, generator=g) + 2 * torch.eye(5)[y], y


def loader(n=60, batch_size=16, shuffle=True, generator=None):
    return DataLoader(
        TensorDataset(*arrays(n)), batch_size, shuffle=shuffle, generator=generator
    )


def train(model, batches, each=lambda labels: None, lr=0.05):
    """One epoch of plain SGD; `each` hears of the labels after each forward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        each(y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
