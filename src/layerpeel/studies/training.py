"""Full-batch training of a small network until its regularised loss is stationary.

Stationarity is judged by the decrease of the loss, not by the gradient: a ReLU network
often ends on a kink, where the gradient jumps and never becomes small.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from layerpeel._progress import track
from layerpeel.studies.one_thread import one_thread


@dataclass(frozen=True)
class Training:
    r"""How to train, and when to stop.

    Attributes:
        learning_rate: Step size of gradient descent with momentum.
        momentum: Its momentum.
        weight_decay: Decay :math:`\lambda` of every parameter, biases included; the
            regularised loss is cross-entropy plus :math:`\lambda / 2` times the squared
            norm of the parameters.
        window: Epochs between two looks at the regularised loss.
        tolerance: Training stops when the loss has changed by less than this share of
            itself over one window.
        max_epochs: Training stops here in any case.
    """

    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 1.5e-2
    window: int = 200
    tolerance: float = 1e-4
    max_epochs: int = 6000


@dataclass(frozen=True)
class Trained:
    """A trained network and how its training ended.

    Attributes:
        model: The network, in eval mode.
        epochs: How many full-batch epochs were run.
        loss: The final regularised loss.
        last_decrease: Relative decrease of the loss over the last window.
        stationary: Whether that is within the tolerance, up or down.
    """

    model: nn.Module
    epochs: int
    loss: float
    last_decrease: float
    stationary: bool


def perceptron(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """Return a ReLU multilayer perceptron, initialised from a seed.

    Args:
        widths: Input width, hidden widths, number of classes.
        seed: Seed of the initial weights; the global generator is left as it was.

    Returns:
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    settings: Training,
    *,
    description: str = "training",
    progress: bool | None = None,
) -> Trained:
    """Train a network on one batch until the regularised loss is stationary.

    Args:
        model: The network; trained in place.
        inputs: All training inputs, with shape :math:`(N, ...)`.
        labels: Their labels, with shape :math:`(N,)`.
        settings: How to train, and when to stop.
        description: Label of the progress bar.
        progress: Whether to show it; by default when standard error is a terminal.

    Returns:
        The trained network and how training ended.
    """
    with one_thread():
        return _train(model, inputs, labels, settings, description, progress)


def _train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    settings: Training,
    description: str,
    progress: bool | None,
) -> Trained:
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    model.train()
    before, decrease, epochs = float("inf"), float("inf"), 0
    for epochs in track(range(1, settings.max_epochs + 1), description, show=progress):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        if epochs % settings.window:
            continue
        now = regularised_loss(model, inputs, labels, settings.weight_decay)
        decrease, before = (before - now) / now, now
        if abs(decrease) < settings.tolerance:
            break
    model.eval()
    loss_now = regularised_loss(model, inputs, labels, settings.weight_decay)
    return Trained(
        model, epochs, loss_now, decrease, stationary=abs(decrease) < settings.tolerance
    )


@torch.no_grad()
def regularised_loss(
    model: nn.Module, inputs: Tensor, labels: Tensor, weight_decay: float
) -> float:
    """Return cross-entropy plus half the decay times the squared parameter norm."""
    penalty = sum(float(p.double().square().sum()) for p in model.parameters())
    loss = float(nn.functional.cross_entropy(model(inputs), labels))
    return loss + 0.5 * weight_decay * penalty
