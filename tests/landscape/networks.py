"""Small networks with data, and slow derivatives of them by other means."""

from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def two_neurons(activation, weights, noise=0.1, seed=0, span=3.0, samples=25):
    """A 1-2-1 network, and noisy data of the same network."""
    model = nn.Sequential(nn.Linear(1, 2), activation, nn.Linear(2, 1)).double()
    shapes = [(2, 1), (2,), (1, 2), (1,)]
    for parameter, values, shape in zip(
        model.parameters(), weights, shapes, strict=True
    ):
        parameter.data = torch.tensor(values, dtype=torch.float64).reshape(shape)
    x = torch.linspace(-span, span, samples, dtype=torch.float64)[:, None]
    with torch.no_grad():
        y = model(x) + noise * normal(samples, 1, seed=seed)
    return model, [(x, y)]


def tanh_network(seed=0):
    weights = ([2.0, -1.5], [3.0, 2.0], [1.0, -0.8], [0.1])
    return two_neurons(nn.Tanh(), weights, seed=seed)


def relu_network(seed=0):
    weights = ([1.5, -1.2], [0.7, 0.5], [1.0, -0.8], [0.1])
    return two_neurons(nn.ReLU(), weights, seed=seed, span=2.0, samples=16)


def lifted(model, slope_low=1.0, slope_high=2.0):
    """A 1-2-1 ReLU network with a layer more, linear on the data, of width 2."""
    first, _, last = model
    inserted, after = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
    # Features are not negative and below 20 here: all of them pass on the slope of one.
    scale = (slope_high - slope_low) / 20
    inserted.weight.data = scale * torch.eye(2, dtype=torch.float64)
    inserted.bias.data = torch.full((2,), slope_low, dtype=torch.float64)
    after.weight.data = last.weight.data / scale
    after.bias.data = last.bias.data - after.weight.data @ inserted.bias.data
    return nn.Sequential(first, nn.ReLU(), inserted, nn.ReLU(), after)


class Residual(nn.Module):
    """A residual network whose activations are functions, with tied weights."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = (
            nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3),
        )  # fmt: skip
        self.again = self.block

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        x = x + F.softplus(self.block(x))
        return self.head(x + self.again(x).relu())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, dropout=0.3)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x)[:, 0])


class WithLogits(nn.Module):
    """Takes its inputs by name, and returns a mapping."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, pixels, scale):
        return {"logits": self.head(torch.sigmoid(self.mix(pixels)) * scale)}


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Dropout(), nn.Linear(8, 3),
    )  # fmt: skip


def normalised():
    return nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.GroupNorm(2, 4), nn.Linear(4, 3)
    )


def perceptron(*widths):
    layers = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


SHAPES = {convolutional: (1, 4, 4), Attention: (5, 4)}


def classification(build, samples=11, seed=1, classes=3):
    """Batches of different sizes, whose means do not add up by themselves."""
    x = normal(samples, *SHAPES.get(build, (3,)), seed=seed)
    y = torch.arange(samples) % classes
    cut = [samples // 2 + 1, samples - samples // 2 - 1]
    pairs = list(zip(x.split(cut), y.split(cut), strict=True))
    if build is WithLogits:
        return [({"pixels": a, "scale": torch.tensor(2.0)}, b) for a, b in pairs]
    return pairs


def reference(model, loss_fn, data):
    """The risk as a function of a vector, by `functional_call` on all data at once."""
    copy = deepcopy(model).double().eval()
    named = [(n, p.detach()) for n, p in copy.named_parameters() if p.requires_grad]
    start = torch.cat([p.flatten() for _, p in named])

    def risk(vector):
        parts = vector.split([p.numel() for _, p in named])
        state = {n: part.view_as(p) for part, (n, p) in zip(parts, named, strict=True)}
        total, count = 0.0, 0
        for x, y in data:
            args, kwargs = ((), x) if isinstance(x, dict) else ((x,), {})
            kwargs = {k: v.double() for k, v in kwargs.items()}
            out = functional_call(copy, state, args, kwargs)
            out = out["logits"] if isinstance(out, dict) else out
            total = total + len(y) * loss_fn(out, y)
            count += len(y)
        return total / count

    return risk, start
