import pytest
import torch
from torch.nn import functional as F

from layerpeel._checks import LossError
from layerpeel.landscape.reduction import check_reduction, has_own_parameters
from tests.landscape.networks import normal

OUTPUTS, LABELS = normal(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
LOSSES = {
    "mean": F.cross_entropy,
    "sum": lambda f, y: F.cross_entropy(f, y, reduction="sum"),
    "other": lambda f, y: F.cross_entropy(f, y) * len(y) ** 0.5,
}


@pytest.mark.parametrize("said", ["mean", "sum"])
@pytest.mark.parametrize("done", LOSSES, ids=str)
@pytest.mark.parametrize("batches", [1, 2])
def test_only_what_is_said_passes(said, done, batches):
    def check():
        check_reduction(LOSSES[done], OUTPUTS, LABELS, said, batches)

    if said == done or (done == "other" and batches == 1):
        check()
        return
    with pytest.raises(
        LossError, match="one batch" if done == "other" else f"={done!r}"
    ):
        check()


def test_a_constant_added_to_a_mean_is_still_a_mean():
    check_reduction(lambda f, y: F.cross_entropy(f, y) + 5, OUTPUTS, LABELS, "mean", 2)


def test_a_single_sample_and_a_loss_of_zero_tell_nothing():
    check_reduction(LOSSES["other"], OUTPUTS[:1], LABELS[:1], "mean", 2)
    check_reduction(lambda f, y: f.sum() * 0, OUTPUTS, LABELS, "sum", 2)


def test_parameters_of_the_loss_are_seen():
    own = torch.ones((), requires_grad=True)
    assert has_own_parameters(lambda f, y: F.cross_entropy(f, y) + own, OUTPUTS, LABELS)
    assert not has_own_parameters(F.cross_entropy, OUTPUTS, LABELS)
