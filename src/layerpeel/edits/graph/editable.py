"""What a model must be to be edited: deterministic, with finite weights."""

from __future__ import annotations

from torch import nn

from layerpeel._checks import EditError, NonFiniteError, listed


def check_editable(model: nn.Module) -> None:
    """Check that a model is deterministic, and its weights finite.

    Raises:
        EditError: If batch normalisation or dropout is in train mode.
        NonFiniteError: If a parameter or buffer holds NaN or infinity.
    """
    random = [p for p, m in model.named_modules() if _is_random(m)]
    if random:
        kinds = {type(model.get_submodule(p)).__name__ for p in random}
        raise EditError(
            "Dropout and batch normalisation must be in eval mode, or the model is no "
            f"fixed function of its input; in train mode are {listed(random)} "
            f"({', '.join(sorted(kinds))}). Call `model.eval()` first."
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"The weights of a model must be finite; {name!r} holds NaN or infinity. "
                "Load a checkpoint from before training diverged."
            )


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.training or module.running_mean is None
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.training and module.p > 0
    return isinstance(module, nn.RReLU) and module.training
