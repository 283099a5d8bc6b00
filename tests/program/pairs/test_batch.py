import math

import numpy as np
import pytest

from layerpeel.program.pairs.batch import TwoGroupBatch
from layerpeel.program.pairs.two_groups import TwoGroupLogits, TwoGroups
from tests.program.pairs.test_two_groups import CASES, entrywise, logits_of


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_batch_of_one_says_what_the_logits_say(case):
    logits = logits_of(case)
    batch = TwoGroupBatch.of(logits)
    assert batch.nuclear_norm.tolist() == pytest.approx([logits.nuclear_norm])
    assert batch.minority_cosine.tolist() == pytest.approx([logits.minority_cosine])
    expected = logits.program.log_frequencies()
    assert [f.item() for f in batch.log_frequencies] == pytest.approx(expected)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_margins_and_norms_are_those_of_the_matrix(case):
    K_A, K_B = case[:2]
    matrix = entrywise(case)
    batch = TwoGroupBatch.of(logits_of(case))
    y, s = (margin.item() for margin in batch.margins)
    assert y == pytest.approx(matrix[0, 0] - matrix[K_A, 0])
    assert s == pytest.approx(matrix[K_A, K_A] - matrix[0, K_A])
    left, values, _ = np.linalg.svd(matrix)
    squares = np.diag((left * values) @ left.T) * (K_A + K_B) / batch.tau
    found = [square.item() for square in batch.squared_norms]
    assert found == pytest.approx([squares[0], squares[-1]])


def test_a_vanished_minority_has_no_cosine_and_no_norm():
    program = TwoGroups(3, 4, math.log(100), 8.0)
    batch = TwoGroupBatch.of(TwoGroupLogits(program, 4.0, 0.0, 0.0, 1.0, 0.0))
    assert np.isnan(batch.minority_cosine).all()
    assert batch.squared_norms[1].item() == 0
    # All the energy is the majority's: K_A |w|^2 = K.
    assert batch.squared_norms[0].item() == pytest.approx(7 / 3)
