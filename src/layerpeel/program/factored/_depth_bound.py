r"""Below several layers: a one-layer program whose bound holds for them as well.

A point of objective :math:`f` or less has no singular value above
:math:`\bar\sigma`, where :math:`\frac{M+1}{2} c \, \bar\sigma^q = f - \ell` with
:math:`q = 2/(M+1)` and :math:`\ell` the least of the loss alone. Up to there the chord
:math:`\sigma \bar\sigma^{q-1}` is below :math:`\sigma^q`: a nuclear norm below the
penalty. The bound is far from tight. It says how much there is to gain at most.
"""

from __future__ import annotations

from dataclasses import replace

from layerpeel.program.class_level import ClassLevel
from layerpeel.program.regulariser import Regulariser


def chord_program(program: ClassLevel, objective: float, least: float) -> ClassLevel:
    """Return a one-layer program whose optimum is no higher.

    Args:
        program: A penalised program of several layers.
        objective: The objective of any point.
        least: A lower bound on the loss alone, below it.
    """
    regulariser = program.regulariser
    assert regulariser.multiplier is not None
    power = 2 / (regulariser.depth + 1)
    factor = regulariser.multiplier / power
    chord = factor * ((objective - least) / factor) ** ((power - 1) / power)
    below = Regulariser(budget=None, multiplier=chord, depth=1, balance=1.0)
    # Features that need not be nonnegative, of any width, can only do better.
    return replace(program, regulariser=below, nonnegative=False, width=None)
