import numpy as np
import pytest
import torch

from layerpeel.measurement import measure_features
from layerpeel.measurement.files.digest import digest
from layerpeel.measurement.sources.arrays import as_tensor, own_tensor

LABELS = torch.arange(4).repeat(10)
FEATURES = torch.eye(4)[LABELS] + torch.arange(40)[:, None] / 100
WEIGHT = torch.eye(4)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (FEATURES.to(torch.complex64), "real numbers .*got torch.complex64"),
        (FEATURES.to(torch.float8_e4m3fn), "real numbers .*got torch.float8_e4m3fn"),
        (FEATURES.to_sparse(), r"dense; .*torch.sparse_coo.*`to_dense\(\)`"),
        (FEATURES.numpy().astype(complex), "real numbers; got complex128"),
        (FEATURES.numpy().astype(np.longdouble), "real numbers; got "),
        (FEATURES.numpy().astype(str), "real numbers; got <U"),
    ],
)
def test_only_dense_real_numbers_are_arrays(values, match):
    with pytest.raises(ValueError, match=match):
        as_tensor(values)
    with pytest.raises(ValueError, match=match):
        measure_features(values, LABELS, weight=WEIGHT)
    with pytest.raises(ValueError, match=match):
        measure_features([(values, LABELS)], weight=WEIGHT)
    with pytest.raises(ValueError, match=match):
        measure_features(FEATURES, LABELS, weight=values)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
        *(torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.int64),
    ],
)
def test_every_standard_type_is_taken(dtype):
    values = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1]]).to(dtype)
    assert as_tensor(values).dtype == own_tensor(values).dtype == dtype
    m = measure_features(values, [0, 1, 0, 1], weight=torch.eye(2), nc4="skip")
    assert m.accuracy == 1


def test_memory_is_shared_or_not():
    assert as_tensor(FEATURES).data_ptr() == FEATURES.data_ptr()
    for values in (FEATURES, FEATURES.numpy(), FEATURES[:1].expand(3, 4)):
        own = own_tensor(values)
        assert own.data_ptr() != FEATURES.data_ptr()
        assert own.equal(torch.as_tensor(values))


class OneBuffer:
    """Reads slices on demand, each into the same memory."""

    shape = FEATURES.shape

    def __init__(self):
        self.buffer = torch.empty(8, 4)

    def __getitem__(self, rows):
        return self.buffer.copy_(FEATURES[rows])


def test_slices_read_into_one_buffer_are_kept_apart():
    options = {"weight": WEIGHT, "batch_size": 8}
    found = measure_features(OneBuffer(), LABELS, **options)
    expected = measure_features(FEATURES, LABELS, **options)
    assert digest(found.statistics) == digest(expected.statistics)
    assert found.nc4() == expected.nc4()
