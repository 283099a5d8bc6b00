"""Which modules are elementwise nonlinearities, whose units can be fitted one by one."""

from __future__ import annotations

from torch import Tensor, nn

# Activations of torch act on each entry by itself, but for these.
_MIXING = (
    nn.GLU,
    nn.LogSoftmax,
    nn.MultiheadAttention,
    nn.Softmax,
    nn.Softmax2d,
    nn.Softmin,
)


def may_be_nonlinear(module: nn.Module) -> bool:
    """Whether a module is an elementwise nonlinearity, as far as its type tells.

    Activations of ``torch.nn`` that do not mix units are. Of its other modules none is:
    dropout is the identity in eval mode, and norms and pooling mix. A module from
    elsewhere may be one if it has no parameters; its first call tells, see
    :func:`fits`.
    """
    home = type(module).__module__
    if home == "torch.nn.modules.activation":
        return not isinstance(module, _MIXING)
    return not home.startswith("torch.nn.") and not any(
        True for _ in module.parameters()
    )


def fits(module: nn.Module, inputs: object, output: Tensor) -> bool:
    """Whether a call was that of an elementwise nonlinearity.

    Args:
        module: The module.
        inputs: Its first argument.
        output: The tensor it returned.
    """
    return (
        may_be_nonlinear(module)
        and isinstance(inputs, Tensor)
        and inputs.shape == output.shape
        and inputs.is_floating_point()
    )


def overwrites(module: nn.Module) -> bool:
    """Whether a nonlinearity may work in place, so that its input has to be copied.

    A module from elsewhere may, without saying so.
    """
    elsewhere = not type(module).__module__.startswith("torch.nn.")
    return elsewhere or bool(getattr(module, "inplace", False))
