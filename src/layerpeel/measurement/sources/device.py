"""Where the model is, and whether the data are there too."""

from __future__ import annotations

import torch
from torch import nn

from layerpeel._checks import DeviceError
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.nested import tensors


def model_device(model: nn.Module) -> torch.device | None:
    """Return where the model's first parameter or buffer is; None without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


def check_device(model: nn.Module, device: str | torch.device) -> torch.device:
    """Return the device to which batches go, if the model is there.

    Raises:
        DeviceError: If there is no such device, or the model is elsewhere; it belongs
            to the caller and stays.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(
            f"`device` must name a device, such as 'cpu' or 'cuda:0'; got {device!r}."
        ) from error
    actual = model_device(model)
    if actual is None:
        return wanted
    # "cuda" means any of them.
    if actual.type != wanted.type or wanted.index not in (None, actual.index):
        raise DeviceError(
            f"`device` is '{wanted}', but the model is on '{actual}', and measuring "
            f"never moves it. Call `model.to('{wanted}')` first."
        )
    return actual


def check_batch(model: nn.Module, batch: Batch) -> None:
    """Check that a batch is where the model is.

    Some of it may be elsewhere: recurrent layers want the lengths of sequences on the CPU.

    Raises:
        DeviceError: If none of its tensors is.
    """
    actual = model_device(model)
    devices = [tensor.device for tensor in tensors((batch.args, batch.kwargs))]
    if actual is None or not devices or actual in devices:
        return
    raise DeviceError(
        f"Model and data must be on the same device; the model is on '{actual}', a batch "
        f"on '{devices[0]}'. Pass `device='{actual}'` to move the batches, or call "
        f"`model.to('{devices[0]}')`."
    )
