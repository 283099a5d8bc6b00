import pytest
import torch

from layerpeel._checks import LabelError, ShapeError
from layerpeel.datasets import ArrayLoader

INPUTS = torch.arange(14.0).reshape(7, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 7, 8, 100])
@pytest.mark.parametrize("order", [None, [3, 0, 3, 6], [5], list(range(7))])
def test_batches_hold_the_chosen_samples_in_order(batch_size, order):
    indices = None if order is None else torch.tensor(order)
    loader = ArrayLoader(INPUTS, LABELS, batch_size, indices)
    wanted = list(range(7)) if order is None else order
    assert loader.num_samples == len(wanted)
    for _ in range(2):
        samples = []
        batches = list(loader)
        for inputs, labels in batches:
            samples += list(zip(inputs.tolist(), labels.tolist(), strict=True))
        assert samples == [(INPUTS[i].tolist(), int(LABELS[i])) for i in wanted]
        sizes = [len(labels) for _, labels in batches]
        assert len(loader) == len(batches)
        assert all(size == batch_size for size in sizes[:-1])
        assert 0 < sizes[-1] <= batch_size


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = ArrayLoader(INPUTS, LABELS, 3)
    pairs = [
        (a.tolist(), b.tolist()) for (_, a), (_, b) in zip(loader, loader, strict=True)
    ]
    assert pairs == [([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [0, 1, 2]), ([0], [0])]


def test_named_inputs_give_dicts_with_labels():
    named = {"input_ids": LABELS[:, None], "attention_mask": torch.ones(7, 1)}
    loader = ArrayLoader(named, LABELS, 4)
    first, second = loader
    assert list(first) == ["input_ids", "attention_mask", "labels"]
    assert (
        first["input_ids"].flatten().tolist()
        == first["labels"].tolist()
        == [0, 1, 2, 0]
    )
    assert second["labels"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_labels_become_int64(dtype):
    ((_, labels),) = ArrayLoader(INPUTS, LABELS.to(dtype), 7)
    assert labels.dtype == torch.int64
    assert labels.equal(LABELS)


REFUSED = [
    ({"labels": LABELS[:6]}, ShapeError, r"`inputs`.*per label, 6.*\(7, 2\)"),
    ({"inputs": torch.tensor(1.0)}, ShapeError, r"got shape \(\)"),
    ({"inputs": {"pixels": INPUTS[:3]}}, ShapeError, "`pixels`"),
    ({"labels": torch.eye(7)}, ShapeError, "argmax"),
    ({"labels": LABELS.double()}, LabelError, "integers"),
    ({"labels": LABELS - 1}, LabelError, "from -1"),
    ({"batch_size": 0}, ValueError, "`batch_size`.*>= 1"),
    ({"inputs": INPUTS[:0], "labels": LABELS[:0]}, ValueError, "number of samples"),
    ({"indices": torch.tensor([], dtype=torch.int64)}, ValueError, "number of samples"),
    ({"indices": torch.tensor([0, 7])}, IndexError, r"\[0, 7\).*from 0 to 7"),
    ({"indices": torch.tensor([-1])}, IndexError, r"\[0, 7\)"),
    ({"indices": torch.ones(7, dtype=torch.bool)}, ShapeError, "int64.*torch.bool"),
    ({"indices": torch.tensor([[0]])}, ShapeError, r"\(m,\)"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_arrays_that_do_not_fit_are_refused(change, error, message):
    arguments = {"inputs": INPUTS, "labels": LABELS, "batch_size": 2} | change
    with pytest.raises(error, match=message):
        ArrayLoader(**arguments)
