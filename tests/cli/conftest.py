import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

import layerpeel
from layerpeel import cli
from layerpeel.cli.sources import load_features

MODULE = '''
import torch
from torch import nn


def images(count, seed):
    """Noisy unit vectors of four classes, the last two of them rare."""
    labels = torch.arange(4).repeat_interleave(torch.tensor([count, count, 3, 3]))
    noise = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(seed))
    return torch.eye(4, 6)[labels] + 0.1 * noise, labels


def make():
    """A network that tells the classes apart, with weights written down."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4))
    for index, height in [(0, 5), (3, 4)]:
        model[index].weight.data = 4 * torch.eye(height, model[index].in_features)
        model[index].bias.data.zero_()
    return model


def drawn():
    model = make()
    model[3].weight.data += 0.1 * torch.randn(4, 5)
    return model


def loader():
    return [images(20, 0), images(10, 1)]


def held_out():
    return [images(5, 2)]


def stumbling():
    yield images(20, 0)
    raise ZeroDivisionError("bad sample 20")


def interrupted():
    raise KeyboardInterrupt


def needs(width):
    return nn.Linear(width, 4)


def warns():
    import warnings
    warnings.warn("an old format")
    return make()
'''


@pytest.fixture(autouse=True)
def same_path(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture
def user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small_net.py").write_text(MODULE)
    return "small_net.py"


@pytest.fixture
def run(capfd):
    """Run the command as typed, and return its exit code, stdout and stderr."""

    def typed(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return exit_info.value.code, out, err

    return typed


def save_features(path, minority_spread=1.0, **more):
    """Features at the corners of a simplex; a small spread lets two classes collapse."""
    weight = np.eye(4) - 0.25
    weight[2:] = weight[2:].mean(0) + minority_spread * (
        weight[2:] - weight[2:].mean(0)
    )
    labels = np.repeat(np.arange(4), [50, 50, 5, 5])
    np.savez(path, features=4 * weight[labels], labels=labels, weight=weight, **more)
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A file of features, and the report that the API makes of it."""
    path = save_features(tmp_path_factory.mktemp("features") / "f.npz")
    source = load_features(str(path))
    report = layerpeel.diagnose_features(
        source.features, source.labels, weight=source.weight
    )
    return path, report


@pytest.fixture
def seen(monkeypatch, features):
    """Record what the API is called with, and answer with a report made before."""
    calls = {}

    def record(name):
        signature = inspect.signature(getattr(layerpeel, name))

        def recorded(*args, **kwargs):
            calls[name] = signature.bind(*args, **kwargs).arguments
            return features[1]

        monkeypatch.setattr(layerpeel, name, recorded)

    record("diagnose")
    record("diagnose_features")
    return calls
