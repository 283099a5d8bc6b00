import math

import pytest
import torch

from layerpeel.measurement.statistics import outcomes as module
from layerpeel.measurement.statistics.outcomes import outcomes


@pytest.mark.parametrize("held", [1, 50, 10**6], ids="held={}".format)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_outcomes_agree_with_a_loop_over_samples(dtype, held, monkeypatch):
    monkeypatch.setattr(module, "_LOGITS", held)
    g = torch.Generator().manual_seed(0)
    z, y = (9 * torch.randn(20, 6, generator=g)).to(dtype), torch.arange(20) % 6
    found = outcomes(z, y)
    for i, (row, k) in enumerate(zip(z.double().tolist(), y.tolist(), strict=True)):
        assert int(found.predictions[i]) == row.index(max(row))
        top = max(row)
        loss = top + math.log(sum(math.exp(v - top) for v in row)) - row[k]
        assert math.isclose(float(found.losses[i]), loss, rel_tol=1e-12, abs_tol=1e-15)
        others = max(v for j, v in enumerate(row) if j != k)
        assert float(found.margins[i]) == row[k] - others


def test_no_samples_have_no_outcomes():
    found = outcomes(torch.zeros(0, 3), torch.zeros(0).long())
    assert [len(column) for column in found] == [0, 0, 0]
