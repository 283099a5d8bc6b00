"""What a model must be to be edited: deterministic, with finite weights."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from torch.nn.parameter import is_lazy

from layerpeel._checks import EditError, NonFiniteError, all_finite, listed


def check_editable(model: nn.Module) -> None:
    """Check that a model is deterministic, and its weights finite.

    Raises:
        TypeError: If it is no module.
        EditError: If batch normalisation or dropout is in train mode, or parameters have
            no shape yet.
        NonFiniteError: If a parameter or buffer holds NaN or infinity.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"The model must be a torch.nn.Module; got a {type(model).__name__}."
        )
    random = [p for p, m in model.named_modules() if _is_random(m)]
    if random:
        kinds = {type(model.get_submodule(p)).__name__ for p in random}
        raise EditError(
            "Dropout and batch normalisation must be in eval mode, or the model is no "
            f"fixed function of its input; in train mode are {listed(random)} "
            f"({', '.join(sorted(kinds))}). Call `model.eval()` first."
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise EditError(
                f"The parameters of a model must have their shapes; {name!r} gets it at "
                "the first call. Run the model on a batch first."
            )
        if not all_finite(tensor):
            raise NonFiniteError(
                f"The weights of a model must be finite; {name!r} holds NaN or infinity. "
                "Load a checkpoint from before training diverged."
            )


def check_unhooked(module: nn.Module, path: str) -> None:
    """Check that a layer is what its weights say: edits exchange it for another one.

    Raises:
        EditError: If it has hooks.
    """
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if hooks:
        raise EditError(
            "The edited layers must have no hooks, which would be lost or see other "
            f"shapes; {path!r} has {len(hooks)}. Remove them: handles by `.remove()`, "
            "pruning by `torch.nn.utils.prune.remove`, weight and spectral normalisation "
            "by `torch.nn.utils.remove_weight_norm` and `remove_spectral_norm`."
        )


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model.

    Raises:
        EditError: If it cannot be copied.
    """
    try:
        return deepcopy(model)
    except (RuntimeError, TypeError) as error:
        hooked = [p for p, m in model.named_modules() if m._forward_pre_hooks]
        hint = f" Those of {listed(hooked)} compute some." if hooked else ""
        raise EditError(
            "The model must be one that `copy.deepcopy` copies; it raised "
            f"{type(error).__name__}: {str(error).partition('.')[0]}. Pruning and weight "
            f"normalisation by hooks keep computed tensors: remove them first.{hint}"
        ) from error


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.training or module.running_mean is None
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.training and module.p > 0
    return isinstance(module, nn.RReLU) and module.training
