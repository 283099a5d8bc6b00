"""The factors themselves, optimised directly: for every program, the best found."""

from layerpeel.program.factored.blocks import Block, best_blocks
from layerpeel.program.factored.deep_cross_entropy import solve_deep_cross_entropy
from layerpeel.program.factored.deep_etf import DeepETF, deep_etf
from layerpeel.program.factored.factored import solve_factored

__all__ = [
    "solve_factored",
    "solve_deep_cross_entropy",
    "DeepETF",
    "deep_etf",
    "Block",
    "best_blocks",
]
