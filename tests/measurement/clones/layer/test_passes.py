import random

import numpy as np
import pytest
import torch
from torch import nn

from layerpeel._checks import BatchError, DeviceError, LabelError
from layerpeel.measurement.clones.layer.passes import Passes, copied
from layerpeel.measurement.sources.batches import unpack


class Drawing:
    """A loader that draws from every global random state."""

    def __iter__(self):
        for _ in range(3):
            x = [
                torch.rand(2, 1).numpy(),
                np.random.rand(2, 1),
                [[random.random()]] * 2,
            ]
            yield torch.from_numpy(np.concatenate(x, 1)), torch.tensor([0, 1])


def inputs_of(passes):
    return torch.cat([x for x, _ in passes.run(lambda batch: batch.args[0], 2)])


def test_random_states_are_the_same_in_every_pass_and_put_back():
    passes = Passes(nn.Linear(1, 1), Drawing())
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = inputs_of(passes)
    assert len(torch.unique(first)) == 3 * 5
    torch.rand(3)
    for _ in range(2):
        assert torch.equal(inputs_of(passes), first)
    torch.set_rng_state(before[0])
    inputs_of(passes)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_the_model_is_in_eval_mode_only_while_it_runs():
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout().eval())
    modes = []

    def step(batch):
        modes.append([m.training for m in model.modules()])
        return batch.labels

    for _ in Passes(model, Drawing()).run(step, 2):
        assert [m.training for m in model.modules()] == [True, True, False]
    assert modes == [[False] * 3] * 3


def test_batches_that_are_kept_are_read_from_then_on():
    loader = iter([(torch.ones(2, 1), torch.tensor([0, 1]))])
    passes = Passes(nn.Linear(1, 1), loader)
    assert not passes.repeatable
    kept = [copied(passes.first)[0]]
    assert torch.equal(inputs_of(passes), torch.ones(2, 1))
    with pytest.raises(BatchError, match="gave other labels, 0 after 2"):
        inputs_of(passes)
    passes.keep(kept)
    assert torch.equal(inputs_of(passes), torch.ones(2, 1))


def test_copies_have_their_own_memory():
    raw = {"x": torch.zeros(3, 2), "more": [torch.zeros(4)], "labels": [0, 1, 1]}
    own, size = copied(unpack(raw))
    assert size == 4 * 6 + 4 * 4 + 8 * 3
    raw["x"].fill_(1)
    assert torch.equal(own.kwargs["x"], torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("loader", "device", "kind", "match"),
    [
        ([], None, BatchError, "`data` must yield at least one sample"),
        (Drawing(), "meta", DeviceError, "is on 'cpu'"),
    ],
)
def test_bad_loaders(loader, device, kind, match):
    with pytest.raises(kind, match=match):
        Passes(nn.Linear(1, 1), loader, "data", device)


def test_labels_are_checked_in_every_pass():
    passes = Passes(nn.Linear(1, 1), Drawing())
    with pytest.raises(LabelError, match=r"\[0, 1\)"):
        list(passes.run(lambda batch: batch.labels, 1))


def test_other_inputs_with_the_same_labels_are_refused():
    class Augmented:
        def __iter__(self):
            for _ in range(3):
                yield torch.rand(5, 1, generator=self.generator), torch.zeros(5).long()

        generator = torch.Generator().manual_seed(0)

    passes = Passes(nn.Linear(1, 1), Augmented())
    inputs_of(passes)
    with pytest.raises(BatchError, match=r"same inputs.*augmentation"):
        inputs_of(passes)
