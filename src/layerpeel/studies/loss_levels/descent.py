"""Gradient descent from small weights, recorded at steps that are evenly spaced in log."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError, at_least, positive
from layerpeel._progress import track
from layerpeel.measurement.files.container import Container
from layerpeel.measurement.files.digest import content_digest
from layerpeel.studies.loss_levels.files import read
from layerpeel.studies.loss_levels.networks import Hidden, checked_hidden, network
from layerpeel.studies.one_thread import one_thread

_PER_DOUBLING = 8
# How long a run goes on before it is kept.
_SECONDS = 5.0


@dataclass(frozen=True)
class Descent:
    r"""A run of full-batch gradient descent.

    Attributes:
        hidden: The widths of the hidden layers.
        scale: The standard deviation of all parameters at the start. Small ones lead
            past saddles: deeper networks need larger ones, as their gradient at zero
            vanishes to a higher order.
        learning_rate: The step size.
        steps: The number of steps.
        seed: Where the parameters at the start come from.
    """

    hidden: Hidden
    scale: float = 1e-4
    learning_rate: float = 0.1
    steps: int = 25_000
    seed: int = 0

    def __post_init__(self) -> None:
        checked_hidden("hidden", self.hidden, 1)
        positive("scale", self.scale)
        positive("learning_rate", self.learning_rate)
        at_least("steps", self.steps, 1)
        at_least("seed", self.seed, 0)

    @property
    def records(self) -> tuple[int, ...]:
        """The steps that are recorded, eight per doubling, and the last."""
        count = int(_PER_DOUBLING * math.log2(self.steps))
        found = {int(2 ** (k / _PER_DOUBLING)) for k in range(count + 1)}
        return tuple(sorted(found | {self.steps}))


@dataclass(frozen=True, eq=False)
class Curve:
    """What a run of descent has recorded.

    Attributes:
        steps: The steps, with shape :math:`(r,)`.
        losses: The losses there, with shape :math:`(r,)`.
        outputs: The outputs on all data there, with shape :math:`(r, n, k)`.
    """

    steps: Int64[Tensor, " r"]
    losses: Float64[Tensor, " r"]
    outputs: Float64[Tensor, "r n k"]


def descend(
    descent: Descent,
    inputs: Float64[Tensor, "n d"],
    targets: Float64[Tensor, "n k"],
    activation: str,
    path: Path | None = None,
    *,
    progress: bool | None = None,
) -> Curve:
    """Train a network by gradient descent on the mean squared error.

    Args:
        descent: The run.
        inputs: All inputs, with shape :math:`(n, d)`.
        targets: Their targets, with shape :math:`(n, k)`.
        activation: A key of ``ACTIVATIONS``.
        path: Where the run is kept every few seconds; a run that was killed goes on
            from there, to the same end. Nowhere when omitted.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Raises:
        NonFiniteError: If the loss diverges.
        FileError: If the file is damaged, or of another run.
        OSError: If it cannot be written.
    """
    data = content_digest({}, {"inputs": inputs, "targets": targets})
    about = {"descent": asdict(descent), "activation": activation, "data": data}
    widths = (inputs.shape[1], *descent.hidden, targets.shape[1])
    run = _Running(network(widths, activation, descent.scale, descent.seed), [])
    if path is not None and path.exists():
        run.restore(read(path, "Descent", about))
    remaining = [step for step in descent.records if step > run.step]
    name = f"Training {'-'.join(map(str, descent.hidden))}"
    kept_at = time.monotonic()
    with one_thread():
        for step in track(remaining, name, show=progress):
            run.advance(step, inputs, targets, descent.learning_rate)
            late = time.monotonic() - kept_at >= _SECONDS or step == descent.steps
            if path is not None and late:
                Container("Descent", about, run.content()).write(path)
                kept_at = time.monotonic()
    return run.curve()


class _Running:
    """A network on its way, and what was recorded of it."""

    def __init__(
        self, model: nn.Sequential, records: list[tuple[int, float, Tensor]]
    ) -> None:
        self.model, self.records = model, records

    @property
    def step(self) -> int:
        return self.records[-1][0] if self.records else 0

    def advance(self, to: int, inputs: Tensor, targets: Tensor, rate: float) -> None:
        """Take the steps up to a record, and record."""
        parameters: list[Tensor] = list(self.model.parameters())
        for _ in range(self.step, to):
            loss = nn.functional.mse_loss(self.model(inputs), targets)
            gradient = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, gradient, alpha=-rate)
        with torch.no_grad():
            outputs = self.model(inputs)
            loss = nn.functional.mse_loss(outputs, targets)
        if not math.isfinite(loss.item()):
            raise NonFiniteError(
                f"The loss must stay finite; it is {loss.item()} at step {to}. Lower "
                "the learning rate of the run, or its scale."
            )
        self.records.append((to, loss.item(), outputs))

    def curve(self) -> Curve:
        steps, losses, outputs = zip(*self.records, strict=True)
        heights = torch.tensor(losses, dtype=torch.float64)
        return Curve(torch.tensor(steps), heights, torch.stack(outputs))

    def content(self) -> dict[str, Tensor]:
        return vars(self.curve()) | dict(self.model.state_dict(prefix="model."))

    def restore(self, content: Container) -> None:
        tensors: dict[str, Any] = dict(content.tensors)
        columns = [tensors.pop(name) for name in ("steps", "losses", "outputs")]
        steps, losses, outputs = columns
        self.records = list(zip(steps.tolist(), losses.tolist(), outputs, strict=True))
        state = {name.removeprefix("model."): value for name, value in tensors.items()}
        self.model.load_state_dict(state)
