"""Every public class that is not a statistic: it copies, pickles and says what it is.

Statistics have a contract of their own, in ``test_contract``.
"""

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch

import layerpeel.measurement as room
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import Statistic

LABELS = torch.arange(4).repeat(6)
NOISE = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)).double()
FRAME = 3 * simplex_etf(4, 5)


def measured():
    features = FRAME[LABELS] + 0.1 * NOISE
    return room.measure_features(features, LABELS, weight=FRAME)


def history():
    past = room.History()
    past.append(0, {"nc1": 1.0})
    past.append(3, {"nc1": 0.5})
    return past


def clones():
    features = FRAME[LABELS] + 0.1 * NOISE
    return room.clone_profile_features(features, LABELS, weight=FRAME, repeats=2)


# Hooks, files and writers are what these hold on to; they are not values.
NOT_VALUES = {
    room.CSVLogger,
    room.JSONLinesLogger,
    room.TensorBoardLogger,
    room.LayerObserver,
    room.Tracker,
}
MAKERS = {
    room.Measurement: measured,
    room.History: history,
    room.CloneProfile: clones,
    room.Clones: lambda: room.Clones([2, 4]),
    room.Angles: lambda: measured().angles(room.frame_geometry("simplex", 4)),
    room.KernelEnergy: lambda: measured().kernel_energy(),
    room.MinorityBlock: lambda: measured().classifier_block,
    room.NC2: lambda: measured().nc2_means(),
    room.Ranks: lambda: measured().ranks("class_means"),
}


def discovered():
    named = [getattr(room, name) for name in room.__all__]
    classes = {one for one in named if inspect.isclass(one)} - {Any}
    return {one for one in classes if not issubclass(one, Statistic)}


def content(value):
    """What a value says of itself, to the last bit."""
    if isinstance(value, room.Measurement | room.CloneProfile):
        return value.to_dict()
    if isinstance(value, room.History):
        return value.to_frame().to_dict()
    return {name: plain_number(part) for name, part in vars(value).items()}


def plain_number(part):
    return part.tolist() if isinstance(part, torch.Tensor) else part


def test_every_public_class_is_made_here():
    assert discovered() == {*MAKERS, *NOT_VALUES}


@pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda v: pickle.loads(pickle.dumps(v))],  # noqa: S301
    ids=["deepcopy", "copy", "pickle"],
)
def test_copies_say_the_same(cls, copied):
    value = MAKERS[cls]()
    assert type(value) is cls
    assert content(value)
    assert str(content(copied(value))) == str(content(value))


@pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)
def test_a_value_names_its_class(cls):
    assert cls.__name__ in repr(MAKERS[cls]())
