"""Whether the same batch gives the same features twice; if not, whose fault it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerpeel._checks import NondeterminismError
from layerpeel._tolerances import DETERMINISM_ULPS, LOW_PRECISION_DETERMINISM_ULPS
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.forward import Call, forward, recorded_calls
from layerpeel.measurement.sources.head import Head, shown
from layerpeel.measurement.sources.nested import tensors


def check_deterministic(model: nn.Module, batch: Batch, head: Head) -> None:
    """Run a batch twice, and compare features and logits.

    Args:
        model: A model in eval mode.
        batch: Some of its data.
        head: Its head.

    Raises:
        NondeterminismError: If they differ; the message names the first module whose
            output does.
    """
    first, second = head.run(model, batch), head.run(model, batch)
    if _same(first, second):
        return
    raise NondeterminismError(
        "The same batch must give the same features twice in eval mode; it does not. "
        f"{_culprit(model, batch)} Make it deterministic in eval mode, or pass "
        "`check_deterministic=False` to measure features that depend on the run."
    )


def _culprit(model: nn.Module, batch: Batch) -> str:
    leaves = {p: m for p, m in model.named_modules() if not list(m.children())}
    first, second = (_calls(model, batch, leaves) for _ in range(2))
    for before, after in zip(first, second, strict=False):
        named = f"{shown(after.path)} ({type(leaves[after.path]).__name__})"
        if before.path != after.path:
            return f"The order of modules differs, first at {named}."
        if not _same(before.inputs, after.inputs):
            return (
                f"The input of {named} differs first, though all modules called before "
                f"it agree: the cause is in {_around(model, after.path)}, just before "
                "that call. Look for a functional dropout with `training=True`."
            )
        if not _same(before.output, after.output):
            return f"The first module whose output differs is {named}."
    return (
        f"No module's output differs: the cause is in {_around(model, '')}, at its end."
    )


def _around(model: nn.Module, path: str) -> str:
    parent = path.rpartition(".")[0]
    return (
        f"the forward of {shown(parent)} ({type(model.get_submodule(parent)).__name__})"
    )


def _calls(model: nn.Module, batch: Batch, modules: dict[str, nn.Module]) -> list[Call]:
    with recorded_calls(modules, copy=_clones) as calls:
        forward(model, batch)
    return calls


def _clones(value: object) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone() for tensor in tensors(value))


def _same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return len(first) == len(second) and all(
        _close(a, b) for a, b in zip(first, second, strict=True)
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point():
        return torch.equal(a, b)
    low = torch.finfo(a.dtype).bits < 32
    tolerance = LOW_PRECISION_DETERMINISM_ULPS if low else DETERMINISM_ULPS
    tolerance *= torch.finfo(a.dtype).eps
    x, y = a.cpu().double().nan_to_num(), b.cpu().double().nan_to_num()
    return (
        bool(((x - y).abs() <= tolerance * x.abs().max()).all()) if x.numel() else True
    )
