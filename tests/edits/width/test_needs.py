import pytest

from layerpeel.edits.width.growth import checked_neurons
from layerpeel.edits.width.needs import check_data


def test_what_is_no_loss_and_what_are_no_neurons():
    with pytest.raises(TypeError, match="a function of outputs and targets"):
        check_data([], "mse", needed=False)
    for neurons in (1, None):
        with pytest.raises(ValueError, match="'auto' or a list"):
            checked_neurons(neurons, 1, 3, "split")
