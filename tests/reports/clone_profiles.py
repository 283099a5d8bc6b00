"""Profiles of layers in which something is planted, small enough to be made in tests."""

import warnings
from functools import cache

import torch

from layerpeel.measurement import clone_profile_covariance, clone_profile_features
from layerpeel.measurement.statistics.covariance import Covariance

WIDTH = 64


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def noisy_clones(noise=1.0):
    """Copies of one signal with independent noise: chunks of several average it out."""
    signal = normal(3000, 1)
    signal = signal[signal[:, 0].abs() > 0.8]
    features = signal.repeat(1, WIDTH) + noise * normal(len(signal), WIDTH, seed=1)
    readout = torch.tensor([[1.0], [-1.0]]).double().repeat(1, WIDTH) / WIDTH
    return features, (signal[:, 0] < 0).long(), readout


def low_rank():
    """Mixtures of four signals with a little noise, read through their inverse."""
    signals, classifiers = normal(900, 4), normal(3, 4, seed=1)
    logits = signals @ classifiers.T
    best = logits.sort(1).values
    clear = best[:, 2] - best[:, 1] > 1.0
    mixing = normal(4, WIDTH, seed=2)
    features = signals @ mixing + 0.05 * normal(900, WIDTH, seed=3)
    readout = classifiers @ torch.linalg.pinv(mixing).T
    return features[clear], logits.argmax(1)[clear], readout


def correlated():
    """The same, with three weak directions that many neurons share besides."""
    features, labels, readout = low_rank()
    shared = 0.05 * normal(len(features), 3, seed=4) @ normal(3, WIDTH, seed=5)
    return features + shared, labels, readout


def independent():
    """Neurons that have nothing to do with each other, and decide together."""
    features, readout = normal(900, 32), normal(3, 32, seed=1)
    return features, (features @ readout.T).argmax(1), readout


def copies():
    """Four neurons, each 16 times, and two that are constant."""
    base = normal(600, 4).repeat(1, 16)
    features = torch.cat([base, torch.full((600, 2), 0.5).double()], 1)
    readout = normal(3, 66, seed=1)
    return features, (features @ readout.T).argmax(1), readout


def profiled(layer, held_out=True, samples=None, **options):
    """Fit to the first two thirds of the samples; the last third is held out."""
    features, labels, readout = layer
    end = len(features) * 2 // 3
    fitted = slice(0, end if samples is None else samples)
    others = {}
    if held_out:
        others = {"eval_features": features[end:], "eval_labels": labels[end:]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer samples than neurons
        return clone_profile_features(
            features[fitted],
            labels[fitted],
            weight=readout,
            repeats=options.pop("repeats", 12),
            progress=False,
            **others,
            **options,
        )


def without_classifier():
    return clone_profile_features(low_rank()[0], repeats=5, progress=False)


def one_class():
    features, labels, readout = low_rank()
    return profiled((features, torch.zeros_like(labels), 0 * readout))


def of_covariance():
    return clone_profile_covariance(
        Covariance.of(low_rank()[0]), repeats=5, progress=False
    )


PROFILES = {
    "clones": lambda: profiled(noisy_clones()),
    "low rank": lambda: profiled(low_rank()),
    "correlated": lambda: profiled(correlated()),
    "independent": lambda: profiled(independent()),
    "copies": lambda: profiled(copies()),
    "in sample": lambda: profiled(low_rank(), held_out=False),
    "few samples": lambda: profiled(independent(), held_out=False, samples=20),
    "few, held out": lambda: profiled(independent(), samples=20),
    "one class": one_class,
    "no classifier": without_classifier,
    "covariance": of_covariance,
}


@cache
def planted(name):
    return PROFILES[name]()
