import pytest
import torch

from layerpeel.measurement import CENTRINGS, ClassMoments
from layerpeel.measurement.statistics.conventions import (
    centred_means,
    global_mean,
    row_centred,
    seen,
)

# Class 0 three times at 1 on average, class 1 once at 5, class 2 never.
MOMENTS = ClassMoments.of(
    torch.tensor([[0.0], [1.0], [2.0], [5.0]]), torch.tensor([0, 0, 0, 1]), 3
)
CENTRES = {"sample": 2.0, "class": 3.0, "none": 0.0}


def test_every_convention_is_tested():
    assert set(CENTRES) == set(CENTRINGS)


@pytest.mark.parametrize("centring", CENTRES)
def test_global_mean_by_hand(centring):
    assert global_mean(MOMENTS, centring).tolist() == [CENTRES[centring]]
    means = centred_means(MOMENTS, centring)
    assert means[:2, 0].tolist() == [1 - CENTRES[centring], 5 - CENTRES[centring]]
    assert means[2].isnan().all()
    assert len(seen(means)) == 2


def test_unknown_convention_lists_the_known():
    with pytest.raises(
        ValueError, match=r"'sample', 'class', 'none'.*Did you mean 'sample'"
    ):
        global_mean(MOMENTS, "samples")


def test_row_centring_does_not_change_softmax():
    g = torch.Generator().manual_seed(0)
    W, h = (
        torch.randn(4, 3, generator=g).double(),
        torch.randn(5, 3, generator=g).double(),
    )
    centred = row_centred(W)
    torch.testing.assert_close((h @ W.T).softmax(1), (h @ centred.T).softmax(1))
    assert centred.sum(0).abs().max() < 1e-14
