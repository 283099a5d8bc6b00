import pytest
import torch

from layerpeel.measurement.clones.keeping.pivots import pivots


def scatter(width=8, rank=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(40, rank, generator=g, dtype=torch.float64)
    h = h @ torch.randn(rank, width, generator=g, dtype=torch.float64)
    return h.T @ h


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("given_order", [True, False])
def test_pivots_factor_the_scatter(rank, given_order):
    g = scatter(rank=rank)
    order = torch.arange(7, -1, -1) if given_order else None
    found = pivots(g, width=8, order=order)
    assert len(found.neurons) == rank
    torch.testing.assert_close(found.rows.T @ found.rows, g, rtol=0, atol=1e-10)
    triangle = found.rows[:, found.neurons]
    assert torch.equal(triangle, triangle.triu())
    assert sorted(found.taken.tolist()) == list(range(8))
    assert float(found.left[-1]) < 1e-12


@pytest.mark.parametrize("taken", [1, 4, 7])
@pytest.mark.parametrize("outputs", [None, 3, 20])
def test_what_is_left_is_the_schur_complement(taken, outputs):
    g = scatter()
    v = None if outputs is None else scatter(20, 20, seed=1)[:outputs, :8]
    found = pivots(g, v, width=taken)
    s = found.taken
    left = g - g[:, s] @ torch.linalg.solve(g[s][:, s], g[s])
    seen = torch.eye(8, dtype=torch.float64) if v is None else v
    share = (seen @ left @ seen.T).trace() / (seen @ g @ seen.T).trace()
    assert float(found.left[-1]) == pytest.approx(float(share), rel=1e-8)
    expected = torch.linalg.solve(g[s][:, s], g[s])
    torch.testing.assert_close(found.coefficients, expected, rtol=1e-8, atol=1e-10)


def test_neurons_of_tiny_scale_count_as_much_as_others():
    scales = torch.logspace(0, -7, 8).double()
    g = scatter() * scales[:, None] * scales
    assert len(pivots(g, width=8).neurons) == 8


def test_nothing_to_take_from():
    found = pivots(torch.zeros(3, 3, dtype=torch.float64))
    assert (found.taken.tolist(), found.neurons.tolist()) == ([0], [])
    assert found.coefficients.shape == (0, 3)
    assert found.left.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("sign", "taken"), [(1, 2), (-1, 3)])
def test_what_rounding_of_a_cancelled_output_may_hide_is_taken(sign, taken):
    generator = torch.Generator().manual_seed(0)
    x, y, u = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    h = torch.stack([x, x + y, u], 1)
    v = torch.tensor([[1.0, sign, 1e-9]], dtype=torch.float64)
    assert len(pivots(h.T @ h, v).taken) == taken
