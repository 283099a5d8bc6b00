from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from layerpeel.program.factored.blocks import best_blocks, logits_of_blocks
from tests.program.reference import make_program, objective


def simplex_and_polygon(size):
    yield np.eye(size) - 1 / size
    angle = 2 * np.pi * np.arange(size) / size
    yield np.cos(np.subtract.outer(angle, angle))


def runs(size):
    """All ways to cut `size` classes in a row into blocks."""
    if size == 0:
        yield ()
    for first in range(1, size + 1):
        for rest in runs(size - first):
            yield (first, *rest)


def brute_force(program):
    """Every cut, frame and scale, each block alone in the whole objective."""
    K, nothing = program.num_classes, np.log(program.num_classes)

    @cache
    def gain(start, size):
        gains = [
            minimize_scalar(
                lambda scale, frame=frame: (
                    alone(program, frame * scale, start) - nothing
                ),
                bounds=(0.01, 60.0),
                method="bounded",
            ).fun
            for frame in simplex_and_polygon(size)
        ]
        return min(0.0, *gains)

    def value(sizes):
        starts = np.cumsum((0, *sizes))[:-1]
        return nothing + sum(gain(*pair) for pair in zip(starts, sizes, strict=True))

    return min(value(sizes) for sizes in runs(K))


def alone(program, block, start):
    """The objective with one block; the classes of the others are given up."""
    logits = np.zeros((program.num_classes,) * 2)
    part = slice(start, start + len(block))
    logits[part, part] = block
    return objective(program, logits)


CASES = [
    {"counts": [1.0] * 6, "decay": (2e-3,) * 3},
    {"counts": [1.0] * 5, "decay": (2e-3,) * 4},
    {"counts": [50.0, 30.0, 20.0, 10.0, 4.0, 1.0], "decay": (3e-3,) * 3},
    {"counts": [40.0, 4.0, 3.0, 2.0, 1.0], "decay": (2e-2,) * 3, "per": "class"},
]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_no_cut_into_blocks_is_better(case):
    program = make_program(**case)
    blocks = best_blocks(program)
    value = sum(block.value for block in blocks)
    assert value == pytest.approx(brute_force(program), rel=1e-6)
    logits = logits_of_blocks(program.num_classes, blocks)
    assert objective(program, logits) == pytest.approx(value, rel=1e-12)


def test_every_class_is_in_one_block_whatever_the_order_of_counts():
    program = make_program([1.0, 90.0, 5.0, 30.0, 2.0], decay=(3e-3,) * 3)
    classes = [k for block in best_blocks(program) for k in block.classes]
    assert sorted(classes) == list(range(5))
    frequencies = [program.weights[k] for k in classes]
    assert frequencies == sorted(frequencies, reverse=True)


@pytest.mark.parametrize("K", [4, 6])
@pytest.mark.parametrize("M", [2, 3])
def test_strong_decay_gives_up_all_classes(K, M):
    program = make_program([1.0] * K, decay=(1.0,) * (M + 1))
    blocks = best_blocks(program)
    assert sum(block.value for block in blocks) == pytest.approx(np.log(K))
    assert not logits_of_blocks(K, blocks).any()
