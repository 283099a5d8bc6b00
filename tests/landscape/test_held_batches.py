import numpy as np
import pytest
import torch

from layerpeel._checks import BatchError
from layerpeel.landscape.held_batches import hold

CPU = torch.device("cpu")


def held(*batches):
    return hold(batches, torch.float64, CPU, progress=False)


def test_floats_are_converted_and_indices_stay():
    x, tokens = torch.ones(2, 3), torch.tensor([[1, 2], [3, 4]])
    first, second = held((x, [0, 1]), ([tokens, {"mask": x}], np.ones((2, 1), "f4")))
    assert first.args[0].dtype == torch.float64
    assert first.target.tolist() == [0, 1]
    assert second.args[0][0].dtype == torch.int64
    assert second.args[0][1]["mask"].dtype == second.target.dtype == torch.float64


def test_mappings_are_keyword_arguments():
    x = torch.ones(2, 3)
    for raw in [
        ({"x": x}, [0, 1]),
        {"x": x, "labels": [0, 1]},
        {"x": x, "label": [0, 1]},
    ]:
        (batch,) = held(raw)
        assert batch.args == ()
        assert list(batch.kwargs) == ["x"]
        assert batch.target.tolist() == [0, 1]


def test_what_is_held_is_a_copy():
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    (batch,) = held((x, y))
    x.zero_(), y.fill_(5)
    assert float(batch.args[0].min()) == 1.0
    assert float(batch.target.max()) == 0.0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ((torch.ones(2), 1), "single target"),
        ((torch.ones(2), "ab"), "a str"),
        (torch.ones(2), "a Tensor"),
        ({"x": 1, "target": 2}, "'target', 'x'"),
        ({"x": 1, "label": 2, "labels": 2}, "one of the keys"),
        ((torch.ones(0, 2), torch.ones(0)), "at least one sample"),
    ],
)
def test_other_batches_are_refused(raw, message):
    with pytest.raises(BatchError, match=message):
        held(raw)
