import pytest
import torch

from layerpeel.measurement.distributed.exchange import (
    as_bytes,
    as_text,
    is_distributed,
)


@pytest.mark.parametrize("text", ["", "a", "é\n\x00 – 字", "x" * 10_000])
def test_a_text_comes_back(text):
    data = as_bytes(text)
    assert data.dtype == torch.uint8
    assert as_text(data) == text


def test_this_process_is_alone():
    assert not is_distributed()
