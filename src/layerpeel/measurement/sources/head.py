r"""The classifier head: the linear layer whose :math:`W h + b` are the logits.

It is found by what it computes, not by its name: on one batch, the last ``nn.Linear``
whose output is the model's output, and reproduces it from weight, bias and input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import HeadError, listed
from layerpeel._tolerances import HEAD_MATCH_ULPS
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.forward import Call, forward, recorded_calls
from layerpeel.measurement.sources.nested import tensors

_ELSEWHERE = (
    "Return the raw logits of an nn.Linear from the model, or call `measure_features` "
    "with features and weights."
)
_MOST_TRIED = 12


@dataclass(frozen=True, eq=False)
class Head:
    """A verified classifier head.

    Attributes:
        path: Its path in the model; empty when the model itself is the head.
        module: The caller's module; it is only read.
    """

    path: str
    module: nn.Linear

    @property
    def weight(self) -> Float64[Tensor, "K d"]:
        """A copy of the classifiers, with shape :math:`(K, d)`."""
        return _float64_copy(self.module.weight)

    @property
    def bias(self) -> Float64[Tensor, " K"] | None:
        """A copy of the bias, with shape :math:`(K,)`, if there is one."""
        return None if self.module.bias is None else _float64_copy(self.module.bias)

    def run(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the features and the logits of a batch, on the CPU.

        Returns:
            The head's inputs, with shape :math:`(B, d)`, and the model's logits, with
            shape :math:`(B, K)`, both in their own dtype.

        Raises:
            HeadError: If the head's output is not the logits on this batch.
        """
        with recorded_calls({self.path: self.module}) as calls:
            logits = forward(model, batch)
        for call in reversed(calls):
            features, output, mismatch = _rows_of(call, logits)
            mismatch = mismatch or _output_mismatch(output, logits)
            if not mismatch:
                return features, logits.to("cpu", copy=True)
        raise HeadError(
            f"The head {shown(self.path)} must give the logits on every batch; on one "
            f"it does not: {mismatch if calls else 'it was not called'}. Does the "
            "model change its path with the data?"
        )


def find_head(model: nn.Module, batch: Batch, path: str | None = None) -> Head:
    """Find the head of a model, or verify the one that is named.

    Args:
        model: A model in eval mode.
        batch: Some of its data.
        path: The head's path; every ``nn.Linear`` is tried when omitted.

    Returns:
        The last linear layer that gives the logits.

    Raises:
        HeadError: If there is none, or the named one is not it; the message says what
            was tried and why not.
    """
    candidates = linear_modules(model) if path is None else _named(model, path)
    # A first run tells the number of logits, so that the second keeps the inputs and
    # outputs of few layers: a language model has hundreds.
    classes = forward(model, batch).shape[1]
    fitting = {p: m for p, m in candidates.items() if m.out_features == classes}
    with recorded_calls(fitting) as calls:
        logits = forward(model, batch)
    reasons = {
        p: f"it has {m.out_features} outputs, and the model returns {classes} logits"
        for p, m in candidates.items()
    } | dict.fromkeys(fitting, "it was not called")
    for call in reversed(calls):
        reason = _mismatch(call, fitting[call.path], logits)
        if reason is None:
            return Head(call.path, fitting[call.path])
        reasons[call.path] = reason
    raise HeadError(_not_found(candidates, reasons, path))


def linear_modules(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a model, by path."""
    return {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear)}


def shown(path: str) -> str:
    """Return a path for a message; the model itself has an empty one."""
    return repr(path) if path else "(the model itself)"


def _named(model: nn.Module, path: str) -> dict[str, nn.Linear]:
    modules = dict(model.named_modules(remove_duplicate=False))
    module = modules.get(path)
    if isinstance(module, nn.Linear):
        return {path: module}
    linear = [p for p, m in modules.items() if isinstance(m, nn.Linear)]
    close = get_close_matches(path, linear, n=1)
    what = "there is none" if module is None else f"it is a {type(module).__name__}"
    raise HeadError(
        f"`head` must be the path of an nn.Linear; got {path!r}, and {what}."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + f" Linear layers: {listed(list(map(shown, linear[::-1])), _MOST_TRIED)}."
    )


def _mismatch(call: Call, module: nn.Linear, logits: Tensor) -> str | None:
    """Say why a call is not the head's, if so."""
    features, output, mismatch = _rows_of(call, logits)
    return (
        mismatch
        or _output_mismatch(output, logits)
        or _affine_mismatch(features, module, logits)
    )


def _rows_of(call: Call, logits: Tensor) -> tuple[Tensor, Tensor, str | None]:
    """Return one row of input and of output per sample.

    Sequence classifiers apply their head to all tokens and then pick one of each
    sample, so of several rows the one that is the logits is taken.
    """
    inputs, output = next(tensors(call.inputs)), call.output
    if not isinstance(output, Tensor):
        return inputs, inputs, f"it returns a {type(output).__name__}"
    if output.ndim < 2 or (len(output), output.shape[-1]) != tuple(logits.shape):
        shape = f"its output has shape {tuple(output.shape)}"
        return inputs, output, f"{shape}, and the logits {tuple(logits.shape)}"
    samples, classes = logits.shape
    output = output.detach().reshape(samples, -1, classes)
    inputs = inputs.detach().reshape(samples, -1, inputs.shape[-1])
    row = (output - logits[:, None].to(output.device)).abs().amax(2).argmin(1)
    index = torch.arange(samples, device=row.device)
    # A copy: a view would keep all tokens of a sequence alive for one of them.
    return _cpu_copy(inputs[index, row]), output[index, row].cpu(), None


def _output_mismatch(output: Tensor, logits: Tensor) -> str | None:
    """Compare a layer's output with the logits, which may have been cast."""
    logits = logits.cpu()
    error = (output.double() - logits.double()).abs()
    # NaN outputs are compared as equal here: they are reported where they matter.
    if bool(
        (error <= _eps(output, logits) * logits.double().abs())
        .logical_or(error.isnan())
        .all()
    ):
        return None
    normalised = {
        "log_softmax": output.double().log_softmax(1),
        "softmax": output.double().softmax(1),
        "sigmoid": output.double().sigmoid(),
    }
    for name, values in normalised.items():
        if torch.allclose(values, logits.double(), rtol=1e-2, atol=1e-3):
            return f"the model returns the {name} of its output"
    return f"its output differs from the logits by up to {float(error.max()):.3g}"


def _affine_mismatch(features: Tensor, module: nn.Linear, logits: Tensor) -> str | None:
    r"""Compare :math:`W h + b` with the logits.

    Rounding inputs and outputs errs by ``eps`` of the size of the sum, summing by an
    ``eps`` of float32 or finer for each of ``d`` terms, which add like their root.
    """
    logits, w, h = logits.cpu(), _float64_copy(module.weight), features.double()
    bias = torch.zeros(()) if module.bias is None else _float64_copy(module.bias)
    exact = h @ w.T + bias.to(h)
    square = h.square() @ w.square().T + bias.to(h).square()
    coarse = _eps(features, module.weight, logits)
    fine = min(coarse, torch.finfo(torch.float32).eps)
    unit = coarse + fine * h.shape[1] ** 0.5
    # Overflowed logits are reported as such, where the samples are counted.
    error = (exact - logits.double()).abs().masked_fill(~logits.isfinite(), 0)
    if not bool((error > HEAD_MATCH_ULPS * unit * square.sqrt()).any()):
        return None
    return (
        "its output is the logits, but not W h + b of its weight, bias and input, by "
        f"up to {float(error.nan_to_num().max()):.3g}: it is no plain linear map"
    )


def _eps(*values: Tensor) -> float:
    return max(float(torch.finfo(value.dtype).eps) for value in values)


def _not_found(
    candidates: Mapping[str, nn.Linear], reasons: Mapping[str, str], path: str | None
) -> str:
    if not candidates:
        return (
            f"The model must have an nn.Linear as its head; it has none. {_ELSEWHERE}"
        )
    # The last layers are the likely ones.
    lines = [
        f"  {shown(p)} {tuple(m.weight.shape)}: {reasons[p]}"
        for p, m in reversed(list(candidates.items()))
    ]
    left_out = len(lines) - _MOST_TRIED
    if left_out > 0:
        lines = [*lines[:_MOST_TRIED], f"  ... and {left_out} more"]
    tried = "\n".join(lines)
    if path is not None:
        return f"`head` must give the logits; it does not:\n{tried}\n{_ELSEWHERE}"
    return (
        "No nn.Linear of the model gives its output as W h + b. Tried, last first:\n"
        f"{tried}\n{_ELSEWHERE} A layer that is not listed can be named with "
        "`head='module.path'`."
    )


def _float64_copy(values: Tensor) -> Tensor:
    # First to the CPU: some accelerators have no float64.
    return values.detach().cpu().to(torch.float64, copy=True)


def _cpu_copy(values: Tensor) -> Tensor:
    return values.to("cpu", copy=True).contiguous()
