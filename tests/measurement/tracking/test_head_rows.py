import pytest
import torch
from torch import nn

from layerpeel._checks import HeadError
from layerpeel.measurement import measure
from layerpeel.measurement.distributed.reducer import LocalReducer
from layerpeel.measurement.tracking.head_rows import HeadRows, first_head
from tests.measurement.tracking.networks import arrays, loader, network


def seen_by_measure(model, head, batches, **options):
    seen = []
    rows = HeadRows(model, head, batches, lambda h, y: seen.append((h, y)))
    with rows:
        measure(model, rows, **options)
    return [torch.cat(part) for part in zip(*seen, strict=True)]


def features_of(model, x):
    model.eval()
    with torch.no_grad():
        return model[:6](x)


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
def test_features_are_those_of_the_first_pass(cache_bytes):
    model, (x, y) = network(), arrays()
    batches = list(zip(x.split(16), y.split(16), strict=True))
    empty = (x[:0], y[:0])
    held_out = [(x[:7] + 1, y[:7])]
    h, labels = seen_by_measure(
        model,
        model[6],
        [empty, batches[0], empty, *batches[1:]],
        cache_bytes=cache_bytes,
        eval_loader=held_out,
    )
    torch.testing.assert_close(h, features_of(model, x))
    assert torch.equal(labels, y)


def test_the_model_itself_may_be_the_head():
    x, y = arrays()
    model = nn.Linear(5, 3)
    h, _ = seen_by_measure(model, model, [(x, y)])
    assert torch.equal(h, x)


class Tokens(nn.Module):
    """A head on every token, of which the last one decides."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(5, 3)

    def forward(self, x):
        tokens = torch.stack([x - 1, x * 2, x], 1)
        return self.score(tokens)[:, -1]


def test_of_many_rows_the_one_that_decides_is_taken():
    x, y = arrays()
    model = Tokens()
    h, _ = seen_by_measure(model, model.score, [(x, y)])
    assert torch.equal(h, x)


def test_hooks_are_gone_whatever_happens():
    model = network()
    with (
        pytest.raises(RuntimeError, match="stop"),
        HeadRows(model, model[6], loader(), print),
    ):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_the_number_of_batches_is_that_of_the_loader():
    model = network()
    assert len(HeadRows(model, model[6], loader(), print)) == 4


def test_the_head_is_found_on_the_first_batch():
    model, job = network(), LocalReducer()
    head = first_head(model, loader(), None, job, None)
    assert (head.path, head.module) == ("6", model[6])
    assert model.training
    with pytest.raises(HeadError, match="must be the path"):
        first_head(model, loader(), "5", job, None)
