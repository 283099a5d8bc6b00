"""Small networks whose layers are read in different ways, with features known by hand."""

import torch
from torch import nn
from torch.nn import functional as F


class Functional(nn.Module):
    """Activations and dropout as functions, one of them in place."""

    def __init__(self, activate):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        self.activate = activate

    def forward(self, x):
        h = F.dropout(self.activate(self.fc1(x).view(len(x), 2, 3)), 0.5, self.training)
        return self.fc2(h.flatten(1))


class InPlace(nn.Module):
    """The result of the activation is dropped: its input was overwritten."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        h = self.fc1(x)
        torch.relu_(h)
        return self.fc2(h)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        h = F.relu(self.fc1(x))
        h = h + F.relu(self.fc2(h))
        return self.fc3(h)


class Accumulating(nn.Module):
    """A residual that is added in place."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        h = self.fc1(x)
        h += self.fc2(x)
        return self.fc3(h.relu_())


class Gated(nn.Module):
    """An activation that is put together from two functions."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(h))


class Tokens(nn.Module):
    """Attention over tokens, of which the first decides."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        h = self.mix(x)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        h = h + self.down(F.gelu(self.up(h)))
        return self.head(self.norm(h)[:, 0])


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.head, self.unused = nn.Linear(5, 5), nn.Linear(5, 4), nn.ReLU()
        self.count = Counting()

    def forward(self, x):
        self.count(x)
        return self.head(self.fc(torch.relu(self.fc(x))))


class Counting(nn.Module):
    """Returns no features."""

    def forward(self, x):
        return (x > 0).sum(1)


class Halves(nn.Module):
    """Two siblings in the same memory, and a module that returns several tensors."""

    def __init__(self):
        super().__init__()
        self.split, self.first, self.second = Split(), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        a, b = self.split(x)
        return self.first(a) + self.second(b)


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 12)

    def forward(self, x):
        return self.fc(x).chunk(2, dim=1)


def mlp():
    return nn.Sequential(
        nn.Linear(5, 6), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh(),
        nn.Linear(6, 4, bias=False),
    )  # fmt: skip


def normed():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def flat_cnn():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 2 * 2, 4)
    )


def built(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def inputs(*shape, n=7, seed=1):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def state_of(model):
    """All that a look at a model must leave alone."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [
            (len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in model.modules()
        ],
    )


def same_state(one, two):
    return one[1:] == two[1:] and all(torch.equal(one[0][k], two[0][k]) for k in one[0])
