import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.measurement.sources.reading import Reader, Watch
from tests.measurement.sources.tapped import inputs

MATRIX = torch.ones(6, 4)

# What a network does with the output h of a layer: which functions read it.
READ = {
    "1 - h": (lambda h: 1 - h, ["sub"]),
    "h / 2": (lambda h: h / 2, ["div"]),
    "h @ w": (lambda h: h @ MATRIX, ["matmul"]),
    "h += 1": (lambda h: h.add_(1), ["add"]),
    "h[:, 0]": (lambda h: h[:, 0], ["getitem"]),
    "h[:, 0] = 0": (lambda h: h.__setitem__((slice(None), 0), 0), ["setitem"]),
    "out=h": (lambda h: torch.add(torch.ones(7, 6), 1, out=h), ["add"]),
    "through h.T": (lambda h: h.T.sum(), ["sum"]),
    "through h.data": (lambda h: h.data.float().exp(), ["exp"]),
    "through a copy": (lambda h: torch.clone(h).contiguous().sin(), ["sin"]),
    "in a list": (lambda h: torch.cat([h, h]), ["cat"]),
    "twice": (lambda h: h.sin().sum() + h.view(2, -1).cos(), ["sin", "cos"]),
    "as a weight": (lambda h: F.linear(torch.ones(2, 6), h), ["linear"]),
    "eval dropout": (lambda h: F.dropout(h, 0.5, False).mean(), ["mean"]),
    "dropout": (lambda h: F.dropout(h, 0.5, True), ["dropout"]),
    "shape alone": (lambda h: torch.ones_like(h).sum() + h.new_zeros(1), []),
    "a property": (lambda h: (h.shape, h.device, h.grad, h.is_leaf), []),
    "another tensor": (lambda h: torch.ones(3).sum(), []),
}


class After(nn.Module):
    def __init__(self, use):
        super().__init__()
        self.fc, self.use = nn.Linear(5, 6), use

    def forward(self, x):
        return self.use(self.fc(x))


def watched(use):
    model = After(use).eval()
    watch = Watch(model, model.fc)
    watch.begin()
    try:
        with torch.no_grad():
            model(inputs(5))
    finally:
        watch.end()
    return watch


@pytest.mark.parametrize(("use", "expected"), READ.values(), ids=READ)
def test_which_functions_read(use, expected):
    readers = watched(use).value.readers
    assert [reader.function for reader in readers] == expected
    assert not any(reader.is_linear for reader in readers)


def test_a_linear_function_shows_its_weights():
    bias = torch.ones(4)
    for call in (
        lambda h: F.linear(h, MATRIX.T, bias),
        lambda h: F.linear(bias=bias, weight=MATRIX.T, input=h),
    ):
        (reader,) = watched(call).value.readers
        assert torch.equal(reader.weight, MATRIX.T)
        assert reader.bias is bias
        assert reader.whole
    assert not Reader("relu", "relu").is_linear


def test_nothing_is_kept_of_the_network():
    watch = watched(lambda h: h.view(-1).sin())
    assert (watch._known, watch._alive, watch._handles) == ({}, [], [])
    assert watch.calls == 1
