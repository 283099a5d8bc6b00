import torch

from layerpeel.measurement.clones.reconstruction.folded import FoldedClassifier
from tests.measurement.clones.layers import normal


def test_logits_read_the_chunk_in_float64():
    chunk, weight, bias = torch.tensor([4, 1]), normal(3, 2), normal(3, seed=1)
    rows = normal(7, 5, seed=2).float()
    found = FoldedClassifier(chunk, weight, bias).logits(rows)
    for h, logits in zip(rows.double(), found, strict=True):
        expected = weight[:, 0] * h[4] + weight[:, 1] * h[1] + bias
        assert torch.allclose(logits, expected, rtol=1e-14)
