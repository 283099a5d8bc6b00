r"""Critical reduction: neurons that others can stand in for, whatever the input.

Neurons with equal effective incoming weights are one neuron, read with the sum of the
outgoing weights; so are those with opposite ones, where the activation is odd, even or a
sigmoid, and those with positive multiples, where it is positively homogeneous. What
nothing reads goes, and a constant goes into the biases of those that read it. The
narrower network has the same outputs for every input, and where the gradient of the risk
vanished, it still does.

References:
    | Geometry of Critical Sets and Existence of Saddle Branches for Two-layer Neural
    | Networks (Zhang, Li & Luo, 2024), https://arxiv.org/abs/2405.17501
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.substitution import GONE, Substitution

# Sums of a few thousand products, in the projection that sorts candidates.
_PROJECTION_ROUNDING = 64 * EPS


def critical(neurons: Neurons, width: int | None = None) -> Substitution:
    """Return which neurons others can stand in for, exactly.

    Args:
        neurons: The neurons of a layer.
        width: How many to keep at least; as few as possible when omitted.

    Returns:
        The substitution; it keeps more neurons than ``width`` where no fewer are exact.
    """
    least = 1 if width is None else width
    found = Substitution.none(neurons.width)
    left = neurons.width
    for neuron, leader, factor, shift in _removals(neurons):
        if left <= least:
            return found
        found.put(neuron, leader, factor, shift)
        left -= 1
    silent = found.cancelled(neurons.chains)
    return found.without(silent[: left - least])


def _removals(neurons: Neurons) -> Iterator[tuple[int, int, float, float]]:
    """Yield neurons with who stands in for them: first those that nobody has to."""
    done = torch.zeros(neurons.width, dtype=torch.bool)
    for neuron, value in _constants(neurons):
        done[neuron] = True
        yield neuron, GONE, 0.0, value
    yield from _steady(neurons, done)
    yield from _copies(neurons, done)


def _constants(neurons: Neurons) -> Iterator[tuple[int, float]]:
    """Yield neurons of which biases can take what is read, with their value."""
    everyone = torch.arange(neurons.width)
    silent = torch.ones(neurons.width, dtype=torch.bool)
    for chain in neurons.chains:
        silent &= chain.unread | (chain.scale == 0).all(1)
    values = torch.where(silent, 0.0, neurons.constants)
    holds = ~values.isnan()
    values = values.nan_to_num(nan=0.0)
    for chain in neurons.chains:
        zero = torch.zeros_like(values)
        holds &= chain.relation(everyone, everyone, zero, values).holds
    # Those that nothing reads at all come first.
    order = (~silent[holds]).long().argsort(stable=True)
    for neuron in everyone[holds][order].tolist():
        yield neuron, float(values[neuron])


def _steady(neurons: Neurons, done: Tensor) -> Iterator[tuple[int, int, float, float]]:
    """Yield constants that biases cannot take, as multiples of another such one."""
    leaders: list[int] = []
    waiting = (~done & ~neurons.constants.isnan()).nonzero()[:, 0].tolist()
    for neuron in waiting:
        value = float(neurons.constants[neuron])
        for leader in leaders:
            factor = value / float(neurons.constants[leader])
            if _holds(neurons, leader, neuron, factor, 0.0):
                done[neuron] = True
                yield neuron, leader, factor, 0.0
                break
        else:
            done[neuron] = True
            if value != 0:
                leaders.append(neuron)


def _copies(neurons: Neurons, done: Tensor) -> Iterator[tuple[int, int, float, float]]:
    """Yield neurons whose weights are those of an earlier one, up to a symmetry."""
    lengths = neurons.lengths
    scaled = neurons.symmetry.homogeneous
    sizes = lengths if scaled else torch.ones_like(lengths)
    leaders = torch.zeros(neurons.width, dtype=torch.bool)
    for neuron, candidates in _neighbours(neurons, sizes):
        if done[neuron]:
            continue
        for leader in candidates:
            if not leaders[leader]:
                continue
            match = _match(
                neurons, leader, neuron, float(sizes[neuron] / sizes[leader])
            )
            if match is not None:
                yield neuron, leader, *match
                break
        else:
            leaders[neuron] = True


def _match(
    neurons: Neurons, leader: int, neuron: int, ratio: float
) -> tuple[float, float] | None:
    """Return :math:`s` and :math:`t` by which a leader stands in for a neuron."""
    if not bool((neurons.slopes[leader] == neurons.slopes[neuron]).all()):
        return None
    allowed = neurons.rounding[neuron] + ratio * neurons.rounding[leader]
    reflections = [(1.0, 1.0, 0.0)]
    if neurons.symmetry.reflection is not None:
        reflections.append((-1.0, *neurons.symmetry.reflection))
    for sign, factor, shift in reflections:
        apart = neurons.rows[neuron] - sign * ratio * neurons.rows[leader]
        if not float(apart.norm()) <= float(allowed):
            continue
        if _holds(neurons, leader, neuron, factor * ratio, shift):
            return factor * ratio, shift
    return None


def _holds(
    neurons: Neurons, leader: int, neuron: int, factor: float, shift: float
) -> bool:
    """Whether all that read a neuron can read its leader instead."""
    pair = torch.tensor([leader]), torch.tensor([neuron])
    how = [torch.tensor([v], dtype=torch.float64) for v in (factor, shift)]
    return all(bool(c.relation(*pair, *how).holds) for c in neurons.chains)


def _neighbours(neurons: Neurons, sizes: Tensor) -> Iterator[tuple[int, list[int]]]:
    """Yield each neuron with earlier ones that it may be a copy of, up to a sign.

    Rows that are near each other have near projections on any line: sorting those
    leaves few pairs to compare. Rows up to a sign have projections up to a sign.
    """
    safe = torch.where(sizes > 0, sizes, 1.0)
    keys = _projected(neurons.rows / safe[:, None])
    signed = neurons.symmetry.reflection is not None
    near = neurons.rounding / safe
    margin = (
        near + near.max() + _PROJECTION_ROUNDING * (neurons.rows.norm(dim=1) / safe)
    )
    margin = margin + _PROJECTION_ROUNDING * keys.abs().max()
    keys = keys.abs() if signed else keys
    ordered, order = keys.sort()
    low = torch.searchsorted(ordered, keys - margin)
    high = torch.searchsorted(ordered, keys + margin, right=True)
    for neuron, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        found = order[a:b]
        yield neuron, found[found < neuron].sort().values.tolist()


def _projected(rows: Tensor) -> Tensor:
    """Return the rows along one line, of unit length, in no special direction."""
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
    keys: Tensor = rows @ (line / line.norm())
    return keys
