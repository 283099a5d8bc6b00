"""Small networks of all styles, with data, and slow derivatives of them by other means."""

from itertools import pairwise

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def mlp(widths, activation=nn.ReLU, seed=0):
    def build():
        layers = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), activation()]
        return nn.Sequential(*layers[:-1])

    return seeded(build, seed)


def data_for(inputs, classes, samples=12, seed=0, batches=2):
    x = normal(samples, inputs, seed=seed)
    y = torch.arange(samples) % classes
    return list(zip(x.chunk(batches), y.chunk(batches), strict=True))


class Functional(nn.Module):
    """Calls its activations as functions and methods, in place too."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 5)
        self.fc3, self.fc4 = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x, mask=None):
        h = F.relu(self.fc1(x), inplace=True)
        if mask is not None:
            h = h * mask
        h = torch.relu(self.fc2(h))
        h = self.fc3(h).relu()
        return self.fc4(h.view(h.size(0), -1))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return F.relu(x + self.fc2(F.relu(self.fc1(x))))


class Residual(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.block1, self.block2 = Block(width), Block(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.block2(self.block1(torch.relu_(self.stem(x)))))


class Convolutional(nn.Module):
    def __init__(self, padding_mode="zeros"):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(
            4, 3, 3, padding=1, stride=2, bias=False, padding_mode=padding_mode
        )
        self.bn2 = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return self.fc(self.drop(torch.flatten(h, 1)))


def convolutional(seed=0, **options):
    model = seeded(lambda: Convolutional(**options), seed)
    for i, norm in enumerate((model.bn1, model.bn2)):
        norm.running_mean.copy_(0.3 * normal(norm.num_features, seed=i))
        norm.running_var.copy_(normal(norm.num_features, seed=i).square() + 0.5)
        norm.weight.data = normal(norm.num_features, seed=i + 5)
        norm.bias.data = normal(norm.num_features, seed=i + 9)
    return model


def images(samples=6, seed=0):
    x = normal(samples, 2, 4, 4, seed=seed)
    return [(x, torch.arange(samples) % 3)]


def outputs(model, data):
    with torch.no_grad():
        return torch.cat([model(x) for x, _ in data])


def risk_of(model, data, loss=F.cross_entropy):
    """The mean loss as a function of all parameters in one vector."""
    named = dict(model.named_parameters())
    x, y = (torch.cat([batch[i] for batch in data]) for i in (0, 1))

    def risk(vector):
        parts = vector.split([p.numel() for p in named.values()])
        values = {
            name: part.view_as(p)
            for (name, p), part in zip(named.items(), parts, strict=True)
        }
        return loss(functional_call(model, values, (x,)), y)

    point = torch.cat([p.detach().flatten() for p in named.values()])
    return risk, point


def gradient(model, data, loss=F.cross_entropy):
    risk, point = risk_of(model, data, loss)
    point.requires_grad_()
    return torch.autograd.grad(risk(point), point)[0]


def inertia(model, data, loss=F.mse_loss, cut=1e-9):
    risk, point = risk_of(model, data, loss)
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(risk, point))
    zero = cut * values.abs().max()
    below, above = int((values < -zero).sum()), int((values > zero).sum())
    return below, len(values) - below - above, above


def set_vector(model, vector):
    parameters = list(model.parameters())
    parts = vector.split([p.numel() for p in parameters])
    with torch.no_grad():
        for p, part in zip(parameters, parts, strict=True):
            p.copy_(part.view_as(p))


def polished(model, data, loss=F.mse_loss, steps=60):
    """Move a network to a critical point, by pseudo-inverse Newton steps."""
    risk, point = risk_of(model, data, loss)
    for _ in range(steps):
        g = torch.func.grad(risk)(point)
        hessian = torch.autograd.functional.hessian(risk, point)
        step = torch.linalg.pinv(hessian, rtol=1e-9, hermitian=True) @ g
        size = 1.0
        while size > 1e-8:
            if torch.func.grad(risk)(point - size * step).norm() < g.norm():
                point = point - size * step
                break
            size /= 2
        else:
            break
    set_vector(model, point)
    return model


def relu_minimum():
    """A 1-2-1 ReLU network at a minimum, and the data of that."""
    model = mlp([1, 2, 1])
    values = [1.5, -1.2, 0.7, 0.5, 1.0, -0.8, 0.1]
    set_vector(model, torch.tensor(values, dtype=torch.float64))
    x = torch.linspace(-2, 2, 16, dtype=torch.float64)[:, None]
    data = [(x, outputs(model, [(x, x)]) + 0.1 * normal(16, 1))]
    return polished(model, data), data


def critical_data(model, inputs, scale=1.0, seed=0):
    """Data on which a network is at a critical point of the mean squared error.

    The residuals are orthogonal to all derivatives of the outputs; small ones make it a
    minimum, if there are no flat directions.
    """
    size = sum(p.numel() for p in model.parameters())
    x = normal(size + 6, inputs, seed=seed)
    named = dict(model.named_parameters())

    def run(values):
        return functional_call(model, values, (x,))

    with torch.no_grad():
        y = run(named)
    parts = torch.func.jacrev(run)({k: v.detach() for k, v in named.items()})
    rows = torch.cat([parts[k].reshape(y.numel(), -1) for k in named], 1)
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    basis = left[:, values > 1e-12 * values[0]]
    residual = normal(y.numel(), seed=seed + 1)
    for _ in range(2):
        residual = residual - basis @ (basis.T @ residual)
    return [(x, y - scale * residual.reshape(y.shape))]


def tanh_pair():
    """A 1-2-1 tanh network whose neurons are far from linear and from each other."""
    model = mlp([1, 2, 1], nn.Tanh)
    values = [2.0, -1.2, 0.7, 0.5, 1.0, -0.8, 0.1]
    set_vector(model, torch.tensor(values, dtype=torch.float64))
    return model
