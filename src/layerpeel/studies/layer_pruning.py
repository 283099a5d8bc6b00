r"""Fewer layers by linearity: a deep tanh network is pruned, and trained again.

Claim
    Bai, Luo, Xu & Zhang 2022 (arXiv 2205.13283): early layers of a trained deep
    network can act linearly on its data. Merged by multiplying their weights, and
    trained again for a short time, the network decides as before.
Data
    Scikit-learn's digits (8 x 8 pixels), centred and scaled by a fifth; a quarter of
    them is held out.
Network
    A perceptron of ten hidden layers of 50 tanh units, all parameters drawn from a
    normal distribution, cross-entropy, Adam in batches of 100.
Command
    ``layer_pruning()``; well under a minute on one core.
Expected
    About half of the hidden layers have a minimal Pearson correlation above 0.99 and
    are merged; almost all decisions on held-out digits stay, before and after the
    second training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from layerpeel._json import plain
from layerpeel._progress import track
from layerpeel.datasets import ArrayLoader, load_digits, stratified_split
from layerpeel.edits.edit import Edit
from layerpeel.edits.linear import Linearity, linearity, merge_layers

_BATCH = 256


@dataclass(frozen=True)
class PruningSettings:
    """What the study varies.

    Attributes:
        depth: The number of hidden layers.
        width: The number of units in each.
        variance: Variance of all initial parameters.
        scale: What the centred pixels are multiplied with.
        test_share: The share of every class that is held out.
        epochs: How long the deep network is trained.
        more_epochs: How long the pruned network is trained.
        batch_size: The number of samples per step.
        learning_rate: The step size of Adam.
        correlation: Layers with a minimal Pearson correlation above it are merged.
    """

    depth: int = 10
    width: int = 50
    variance: float = 0.02
    scale: float = 0.2
    test_share: float = 0.25
    epochs: int = 80
    more_epochs: int = 5
    batch_size: int = 100
    learning_rate: float = 5e-4
    correlation: float = 0.99


@dataclass(frozen=True, eq=False)
class LayerPruning:
    """What the study found.

    Attributes:
        edit: The merge, with its proof on the training digits.
        linearity: How linear the layers of the deep network act on them.
        retrained: The pruned network after the second training.
        hidden_before: The number of hidden layers of the deep network.
        hidden_after: The same of the pruned one.
        accuracy_before: The share of held-out digits that the deep network gets right.
        accuracy_merged: The same of the pruned network, as it was merged.
        accuracy_after: The same after the second training.
        train_accuracy_before: The deep network's share of the training digits.
        agreement_merged: The share of held-out digits on which the merged network
            decides as the deep one.
        agreement_after: The same after the second training.
    """

    edit: Edit
    linearity: Linearity
    retrained: nn.Module
    hidden_before: int
    hidden_after: int
    accuracy_before: float
    accuracy_merged: float
    accuracy_after: float
    train_accuracy_before: float
    agreement_merged: float
    agreement_after: float

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        names = (
            *("hidden_before", "hidden_after", "train_accuracy_before"),
            *("accuracy_before", "accuracy_merged", "accuracy_after"),
            *("agreement_merged", "agreement_after"),
        )
        content: dict[str, Any] = plain(
            {name: getattr(self, name) for name in names}
            | {"linearity": self.linearity.to_dict(), "merged": self.edit.what}
        )
        return content

    def summary(self) -> str:
        """Return what was found, as lines of text."""
        return "\n".join(
            [
                f"hidden layers       {self.hidden_before} -> {self.hidden_after}",
                f"held-out accuracy   {self.accuracy_before:.2%} deep, "
                f"{self.accuracy_merged:.2%} merged, "
                f"{self.accuracy_after:.2%} trained again",
                f"same decisions      {self.agreement_merged:.2%} merged, "
                f"{self.agreement_after:.2%} trained again",
            ]
        )


def layer_pruning(
    settings: PruningSettings | None = None,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> LayerPruning:
    """Train a deep tanh network on digits, merge what is linear, and train again.

    Args:
        settings: What to vary.
        seed: Seed of the split, the initial parameters and the order of the batches.
        progress: Whether to show progress bars; by default when standard error is a
            terminal.

    Returns:
        What was found.

    Raises:
        ImportError: If scikit-learn is not installed.

    References:
        | Embedding principle in depth for the loss landscape analysis of deep neural
        | networks (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283

    Example:
        >>> small = PruningSettings(depth=3, width=8, epochs=1, more_epochs=1)
        >>> found = layer_pruning(small, progress=False)
        >>> found.hidden_before, found.hidden_after <= 3
        (3, True)
    """
    settings = settings or PruningSettings()
    generator = torch.Generator().manual_seed(seed)
    digits = load_digits()
    train, test = stratified_split(digits.labels, settings.test_share, generator)
    mean = digits.inputs[train].mean(0)
    x, y = (digits.inputs - mean) * settings.scale, digits.labels
    model = _network(settings, x.shape[1], len(digits.class_names), generator)
    fit = _fitter(x[train], y[train], settings, generator, progress)
    fit(model, settings.epochs, "training")
    loader = ArrayLoader(x, y, _BATCH, train)
    measured = linearity(model, loader, progress=progress)
    edit = merge_layers(model, loader, correlation=settings.correlation)
    before, merged = _decisions(model, x[test]), _decisions(edit.model, x[test])
    # The edit's own model stays as it was merged.
    retrained = deepcopy(edit.model)
    fit(retrained, settings.more_epochs, "training again")
    after = _decisions(retrained, x[test])
    return LayerPruning(
        edit=edit,
        linearity=measured,
        retrained=retrained,
        hidden_before=_hidden(model),
        hidden_after=_hidden(edit.model),
        accuracy_before=_share(before, y[test]),
        accuracy_merged=_share(merged, y[test]),
        accuracy_after=_share(after, y[test]),
        train_accuracy_before=_share(_decisions(model, x[train]), y[train]),
        agreement_merged=_share(merged, before),
        agreement_after=_share(after, before),
    )


def _network(
    settings: PruningSettings, inputs: int, classes: int, generator: torch.Generator
) -> nn.Sequential:
    widths = (inputs, *[settings.width] * settings.depth, classes)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        # Made without values: no global random number is drawn.
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for parameter in linear.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(settings.variance**0.5 * drawn)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _fitter(
    inputs: Float32[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    settings: PruningSettings,
    generator: torch.Generator,
    progress: bool | None,
) -> Callable[[nn.Module, int, str], None]:
    """Return what trains a network for some epochs, and puts it into eval mode."""

    def batches() -> Iterator[Tensor]:
        order = torch.randperm(len(inputs), generator=generator)
        yield from torch.split(order, settings.batch_size)

    def fit(model: nn.Module, epochs: int, description: str) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        model.train()
        for _ in track(range(epochs), description, show=progress):
            for batch in batches():
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
                torch.autograd.backward(loss)
                optimizer.step()
        model.eval()

    return fit


def _hidden(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Tanh) for module in model.modules())


@torch.no_grad()
def _decisions(model: nn.Module, inputs: Float32[Tensor, "n p"]) -> Int64[Tensor, " n"]:
    decisions: Tensor = model(inputs).argmax(1)
    return decisions


def _share(found: Int64[Tensor, " n"], wanted: Int64[Tensor, " n"]) -> float:
    return float((found == wanted).double().mean())
