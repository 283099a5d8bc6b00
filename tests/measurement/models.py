"""Small classifiers of every family, and modules that misbehave."""

import torch
from torch import nn
from torch.nn import functional as F


class Recipe:
    """A model and its input shape, built under a fixed seed."""

    def __init__(self, build, shape):
        self.build, self.shape = build, shape

    def __call__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build()

    def data(self, n=24, classes=4, seed=1, batch=8):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(n, *self.shape, generator=g)
        y = torch.arange(n) % classes
        return list(zip(x.split(batch), y.split(batch), strict=True))


def mlp(width=6, classes=4):
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, width),
        nn.ReLU(), nn.Linear(width, classes),
    )  # fmt: skip


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4),
    )  # fmt: skip


class ResNet(nn.Module):
    """Two residual blocks that share one convolution, which is called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)])
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        for norm in self.norms:
            x = F.relu(x + norm(self.shared(x)))
        return self.fc(x.mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.3)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(x)[:, 0])


class TokenHead(nn.Module):
    """The head reads every token; the logits are those of the last one that counts."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 6)
        self.score = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        self.last = (x[:, :, 0] > 0).float().cumsum(1).argmax(1)
        return self.score(torch.tanh(self.mix(x)))[torch.arange(len(x)), self.last]

    def features(self, x):
        h = torch.tanh(self.mix(x))
        last = (x[:, :, 0] > 0).float().cumsum(1).argmax(1)
        return torch.stack([h[i, t] for i, t in enumerate(last.tolist())])


class CalledTwice(nn.Module):
    """One linear layer serves an auxiliary and the main output, in either order."""

    def __init__(self, main_first):
        super().__init__()
        self.main_first = main_first
        self.body = nn.Linear(5, 6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        calls = [h, h * 2] if self.main_first else [h * 2, h]
        outputs = [self.fc(c) for c in calls]
        return outputs[0] if self.main_first else outputs[1]


class Wrapped(nn.Module):
    """Returns the logits of a model in another wrapping."""

    def __init__(self, model, wrap):
        super().__init__()
        self.model, self.wrap = model, wrap

    def forward(self, x):
        return self.wrap(self.model(x))


class FunctionalDropout(nn.Module):
    """Dropout that eval mode does not switch off, inside the root's forward."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc2(F.dropout(self.fc1(x), 0.5, training=True))


class AlwaysDropout(nn.Module):
    """The same as a module of its own."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


MODELS = {
    "mlp": Recipe(mlp, (5,)),
    "linear": Recipe(lambda: nn.Linear(5, 4), (5,)),
    "cnn": Recipe(cnn, (1, 7, 7)),
    "resnet": Recipe(ResNet, (3, 6, 6)),
    "transformer": Recipe(Transformer, (3, 8)),
    "tokens": Recipe(TokenHead, (7, 5)),
    "called_twice": Recipe(lambda: CalledTwice(True), (5,)),
    "called_twice_reversed": Recipe(lambda: CalledTwice(False), (5,)),
}
HEADS = {
    "mlp": "6",
    "linear": "",
    "cnn": "5",
    "resnet": "fc",
    "transformer": "head",
    "tokens": "score",
    "called_twice": "fc",
    "called_twice_reversed": "fc",
}
