import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from layerpeel.program.spectrum import BlockSpectrum


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def spectrum(groups, within, between):
    """Random orthonormal vectors between the groups."""
    generator = torch.Generator().manual_seed(0)
    size = (2, len(groups), len(groups))
    square = torch.randn(size, dtype=torch.float64, generator=generator)
    left, right = torch.linalg.qr(square)[0][:, :, : len(between)]
    return BlockSpectrum(groups, tensor(within), tensor(between), left, right)


CASES = {
    "two groups": spectrum(((0, 2, 5), (1, 3, 4, 6)), [3.0, 0.5], [2.0]),
    "groups of one class": spectrum(((0,), (1,), (2,)), [0.0] * 3, [3.0, 2.0, 1.0]),
    "three groups": spectrum(((3, 4), (0,), (1, 2, 5)), [1.0, 9.0, 4.0], [2.0, 0.3]),
    "collapsed": spectrum(((0, 1), (2, 3, 4)), [1.0, 0.0], [2.0]),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-13)


@cases
def test_is_the_singular_value_decomposition(case):
    singular_values = np.linalg.svd(case.matrix.numpy(), compute_uv=False)
    expected = sorted(
        [
            value
            for group, value in zip(case.groups, case.within.tolist(), strict=True)
            for _ in group[1:]
        ]
        + case.between.tolist()
    )
    close(sorted(singular_values)[-len(expected) :], expected)
    assert case.nuclear_norm == pytest.approx(singular_values.sum())
    assert case.rank == np.linalg.matrix_rank(case.matrix.numpy(), tol=1e-12)


@cases
def test_roots_square_to_the_gram_matrices(case):
    matrix, left, right = case.matrix, case.left_power(), case.right_power()
    close(left @ left, matrix @ matrix.T)
    close(right @ right, matrix.T @ matrix)
    assert np.linalg.eigvalsh(left.numpy()).min() > -1e-13


def test_left_root_agrees_with_a_matrix_square_root():
    matrix = CASES["three groups"].matrix.numpy()
    regular = sqrtm(matrix @ matrix.T + 0j).real
    np.testing.assert_allclose(
        CASES["three groups"].left_power(), regular, rtol=0, atol=1e-6
    )


@cases
def test_factors_share_a_basis_and_have_the_rank_as_width(case):
    left, right = case.left_factor(), case.right_factor()
    assert left.shape == right.shape == (case.num_classes, case.rank)
    close(left @ right.T, case.matrix)
    close(left @ left.T, case.left_power())
    close(right @ right.T, case.right_power())


@cases
def test_matrix_is_symmetric_under_permutations_within_groups(case):
    order = list(range(case.num_classes))
    group = max(case.groups, key=len)
    for k, other in zip(group, group[1:] + group[:1], strict=True):
        order[k] = other
    assert torch.equal(case.matrix[order][:, order], case.matrix)


def test_collapsed_rows_are_equal_to_the_last_bit():
    case = CASES["collapsed"]
    for rows in (case.left_factor()[2:], case.left_power()[2:], case.matrix[2:]):
        assert torch.equal(rows, rows[:1].expand_as(rows))


def test_singular_values_at_rounding_do_not_count_as_rank():
    case = spectrum(((0, 1), (2, 3)), [1.0, 1e-17], [0.5])
    assert case.rank == 2
    assert case.left_factor().shape == (4, 2)
