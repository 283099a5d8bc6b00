"""One minimum, grown in depth and in width: its inertia, and where descent leads.

A 1-2-1 tanh network at a minimum is given a layer more and, apart from that, a neuron
more. Outputs are the same; the Hessians are not: the deeper one has zeros added, the wider
one a negative eigenvalue. Gradient descent from next to the three points, with the same
noise and a step of half the inverse of the largest eigenvalue, tells the rest.

Claim: inertias (0, 0, 7), (0, 6, 7) and (1, 1, 8), and only the wider network descends.

    python benchmarks/depth_and_width.py [--out embedding.svg]
    python benchmarks/depth_and_width.py --smoke    # fewer steps
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import layerpeel as lp
from layerpeel._figures import colour, save, style
from layerpeel._figures import figure as new_figure
from layerpeel.landscape import Risk

STEPS, SMOKE_STEPS = 2**15, 2**6
NOISE = 1e-3
WANTED = {"minimum": (0, 0, 7), "a layer more": (0, 6, 7), "a neuron more": (1, 1, 8)}


@dataclass(frozen=True)
class Grown:
    """A network, its Hessian's eigenvalues, and the risk as it descends."""

    model: nn.Module
    eigenvalues: Tensor
    inertia: tuple[int, int, int]
    risks: list[float]


def minimum() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Return a 1-2-1 tanh network at a minimum, and its data: another one with noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
    model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    values = [[[2.0], [-1.5]], [3.0, 2.0], [[1.0, -0.8]], [0.1]]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
        noise = torch.randn(25, 1, generator=generator, dtype=torch.float64)
        data = [(x, model(x) + 0.1 * noise)]
    polished = lp.polish(model, mse_loss, data, progress=False)
    return polished.model, data


def networks(
    model: nn.Module, data: list[tuple[Tensor, Tensor]]
) -> dict[str, nn.Module]:
    """Return the minimum, and what it becomes with a layer and with a neuron more."""
    deeper = lp.deepen(model, "0", data, activation=nn.ReLU(), loss_fn=mse_loss)
    wider = lp.widen(model, "0", 1, data=data, loss_fn=mse_loss)
    for edit in (deeper, wider):
        print(edit.summary())
    return {
        "minimum": model,
        "a layer more": deeper.model,
        "a neuron more": wider.model,
    }


def grown(model: nn.Module, data: list[tuple[Tensor, Tensor]], steps: int) -> Grown:
    """Return a network with its spectrum and its descent."""
    point = lp.classify_point(model, mse_loss, data, progress=False)
    risk = Risk.of(model, mse_loss, data, progress=False)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(risk.point.shape, generator=generator, dtype=torch.float64)
    at = risk.point + NOISE * noise / noise.norm()
    step, risks = 0.5 / float(point.eigenvalues[-1]), [risk.value(at)]
    copy = deepcopy(model)
    risk.parameters.write(copy, at)
    for count in range(1, steps + 1):
        loss = mse_loss(copy(data[0][0]), data[0][1])
        gradients = torch.autograd.grad(loss, list(copy.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(copy.parameters(), gradients, strict=True):
                parameter -= step * gradient
        if count & (count - 1) == 0:
            risks.append(float(loss))
    return Grown(model, point.eigenvalues, point.inertia.signs, risks)


@style()
def drawn(found: dict[str, Grown], steps: int) -> Figure:
    """Return the figure: eigenvalues beside descent."""
    fig = new_figure(640.0, 270.0)
    left, right = fig.subplots(1, 2)
    roles = ("measured", "predicted", "minority")
    for (name, case), role, marker in zip(found.items(), roles, "so^", strict=True):
        values = case.eigenvalues.numpy()
        left.plot(values, marker=marker, ls="", color=colour(role), label=name, ms=5)
        at = [2**i for i in range(len(case.risks) - 1)]
        right.plot(
            at, case.risks[1:], marker=marker, color=colour(role), label=name, ms=4
        )
    left.set_yscale("symlog", linthresh=1e-6)
    left.axhline(0, color=colour("muted"), lw=0.8)
    left.set(xlabel="eigenvalue, ascending", ylabel="eigenvalue of the Hessian")
    left.legend()
    right.set(xscale="log", xlabel="step of gradient descent", ylabel="risk")
    return fig


def main() -> None:
    """Print the inertias and where descent leads, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", help="where to save the figure")
    options = parser.parse_args()
    steps = SMOKE_STEPS if options.smoke else STEPS
    model, data = minimum()
    found = {n: grown(m, data, steps) for n, m in networks(model, data).items()}
    for name, case in found.items():
        print(
            f"{name:14} inertia {case.inertia}, wanted {WANTED[name]}; risk "
            f"{case.risks[0]:.6f} -> {case.risks[-1]:.6f} in {steps} steps"
        )
        assert case.inertia == WANTED[name]
    if options.out:
        save(drawn(found, steps), options.out)


if __name__ == "__main__":
    main()
