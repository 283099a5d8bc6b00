import pytest
import torch
from torch import nn

from layerpeel.measurement.layers.layout import (
    Layout,
    as_features,
    as_rows,
    width_of,
)

MAP = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_pooled_maps(axis):
    features, rows = (f(MAP, axis, "pooled") for f in (as_features, as_rows))
    d = MAP.shape[axis]
    assert features.shape == (2, d)
    assert rows.shape == (120 // d, d)
    assert width_of(MAP, axis, "pooled") == d
    for sample in range(2):
        for unit in range(d):
            entries = MAP[sample].select(axis - 1, unit)
            assert features[sample, unit] == entries.mean()
            mine = rows.view(2, -1, d)[sample, :, unit]
            assert sorted(mine.tolist()) == sorted(entries.flatten().tolist())


@pytest.mark.parametrize("function", [as_features, as_rows])
def test_flattened_maps_have_a_feature_per_entry(function):
    assert torch.equal(function(MAP, 1, "flattened"), MAP.view(2, 60))
    assert width_of(MAP, 1, "flattened") == 60


@pytest.mark.parametrize("maps", ["pooled", "flattened"])
def test_rows_and_numbers_are_as_they_are(maps):
    rows, numbers = torch.ones(3, 4), torch.ones(3)
    for function in (as_features, as_rows):
        assert torch.equal(function(rows, 1, maps), rows)
        assert torch.equal(function(numbers, 1, maps), numbers[:, None])
    assert (width_of(rows, 1, maps), width_of(numbers, 1, maps)) == (4, 1)


@pytest.mark.parametrize("values", [MAP, torch.ones(3, 4), torch.ones(3)])
@pytest.mark.parametrize("maps", ["pooled", "flattened"])
def test_features_are_a_tensor_of_their_own(values, maps):
    assert as_features(values, 1, maps).data_ptr() != values.data_ptr()


def test_half_precision_is_pooled_in_float64():
    wide = torch.full((1, 1, 300, 300), 60000.0, dtype=torch.float16)
    assert as_features(wide, 1, "pooled").item() == 60000.0


def test_the_axis_passes_from_layer_to_layer_until_the_batch_ends():
    layout = Layout(nn.Sequential(nn.Conv1d(2, 2, 1)))
    tokens, after, fresh = torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3, 4)
    assert layout.note(nn.Linear(4, 4), (), tokens) == 2
    assert layout.note(nn.ReLU(), (tokens,), after) == 2
    assert layout.note(nn.ReLU(), (fresh,), torch.ones(2, 3, 4)) is None
    assert layout.note(nn.Flatten(0, 1), (after,), torch.ones(2, 4, 3)) is None
    layout.forget()
    assert layout.note(nn.ReLU(), (tokens,), after) is None


def test_usual_axes():
    sequences = Layout(nn.Linear(2, 2))
    assert sequences.assumed(torch.ones(2, 3, 4)) == 2
    assert sequences.assumed(MAP) == 1
    assert Layout(nn.Conv1d(1, 1, 1)).assumed(torch.ones(2, 3, 4)) is None
