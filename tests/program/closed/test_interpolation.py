import pytest
import torch

from layerpeel.program import MSE, Energy, PeeledProblem
from layerpeel.program.closed.interpolation import interpolates
from tests.program.reference import cvxpy_solve

COUNTS = [50.0, 20.0, 20.0, 5.0]


def problem(norm, bias, per="class"):
    scale = 75.0 + 20.0 if per == "sample" else 4.0
    return PeeledProblem(
        COUNTS, loss=MSE(), energy=Energy(norm / 4, norm / scale, per), bias=bias
    )


@pytest.mark.parametrize(("bias", "norm"), [("free", 3.0), (0.3, 4.0)])
def test_zero_loss_needs_exactly_this_budget(bias, norm):
    below, above = (problem(norm * factor, bias) for factor in (0.98, 1.02))
    assert interpolates(above.class_level())
    assert not interpolates(below.class_level())
    assert cvxpy_solve(below.class_level())[0] > 1e-5
    solution = above.solve()
    assert (solution.status.name, solution.objective) == ("CLOSED_FORM", 0.0)


@pytest.mark.parametrize("per", ["class", "sample"])
def test_labels_are_reproduced(per):
    solution = problem(80.0, "free", per).solve()
    seen = solution.logits + solution.bias[:, None]
    torch.testing.assert_close(seen, torch.eye(4, dtype=torch.float64))
    W, H = solution.classifiers(), solution.class_means()
    torch.testing.assert_close(W @ H.T, solution.logits)


def test_free_bias_takes_the_least_norm_of_all_biases():
    program = problem(80.0, "free", "sample").class_level()
    delta = program.feature_weights

    def norm(bias):
        return float(
            torch.linalg.svdvals(torch.diag(delta) - torch.outer(bias, delta)).sum()
        )

    solution = problem(80.0, "free", "sample").solve()
    generator = torch.Generator().manual_seed(0)
    least = norm(solution.bias)
    for _ in range(200):
        other = solution.bias + 0.1 * torch.randn(4, generator=generator).double()
        assert norm(other) >= least
