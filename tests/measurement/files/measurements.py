"""Measurements of parts of some data, and of all of it."""

import torch

from layerpeel.measurement import measure_features
from layerpeel.measurement.files import merge_measurements

CLASSES, WIDTH = 4, 6


def data(count=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    centres = torch.eye(CLASSES, WIDTH)
    noise = torch.randn(count, WIDTH, generator=generator)
    return centres[labels] + 0.4 * noise + 100, labels


def weight():
    return torch.eye(CLASSES, WIDTH) - 0.25


def measured(rows=slice(None), **options):
    features, labels = data()
    given = {"weight": weight(), "bias": torch.arange(CLASSES) / 10} | options
    return measure_features(features[rows], labels[rows], **given)


def thirds(**options):
    return [measured(slice(i, None, 3), **options) for i in range(3)]


def held_out():
    features, labels = data(30, seed=1)
    return {"eval_features": features, "eval_labels": labels}


MEASUREMENTS = {
    "plain": lambda: measured(),
    "light": lambda: measured(light=True),
    "no bias": lambda: measured(bias=None),
    "no NC4": lambda: measured(nc4="skip"),
    "one pass": lambda: measured(nc4="one_pass"),
    "held out": lambda: measured(**held_out()),
    "light and held out": lambda: measured(light=True, **held_out()),
    "named": lambda: measured(class_names=["a", "b,", 'c"', "dé"], minority=[3, 1]),
    "merged": lambda: merge_measurements(*thirds()),
}
