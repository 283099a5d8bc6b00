import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import NonFiniteError
from layerpeel.landscape import Risk, extremal_eigenpairs
from tests.landscape.networks import classification, normal, perceptron, seeded


@pytest.fixture(scope="module")
def large():
    """About 1,000 parameters, with the dense eigenvalues."""
    model = seeded(lambda: perceptron(3, 26, 26, 6))
    risk = Risk.of(model, F.cross_entropy, classification(perceptron, 30))
    assert 900 < risk.size < 1100
    matrix = risk.hessian(progress=False)
    return risk, torch.linalg.eigvalsh((matrix + matrix.T) / 2)


def test_ends_are_those_of_the_dense_hessian(large):
    risk, values = large
    found = extremal_eigenpairs(risk, 3)
    assert found.converged
    assert 0 < found.products < risk.size
    scale = float(values.abs().max())
    for pairs, dense in [
        (found.lowest, values[:3]),
        (found.highest, values.flip(0)[:3]),
    ]:
        for pair, value in zip(pairs, dense.tolist(), strict=True):
            assert abs(pair.value - value) <= 1e-8 * scale
            assert pair.residual <= 1e-8 * scale
            residual = risk.product(pair.vector) - pair.value * pair.vector
            assert float(residual.norm()) == pytest.approx(pair.residual, abs=1e-15)
            assert float(pair.vector.norm()) == pytest.approx(1.0)


def test_the_seed_decides_and_nothing_global():
    x, y = normal(8, 40), torch.arange(8) % 2
    risk = Risk.of(seeded(lambda: wide(True)), F.cross_entropy, [(x, y)])
    before = torch.get_rng_state()
    first, second = (extremal_eigenpairs(risk, seed=5) for _ in range(2))
    assert torch.equal(first.lowest[0].vector, second.lowest[0].vector)
    assert torch.equal(before, torch.get_rng_state())


def test_a_limit_on_products_gives_the_best_so_far():
    model = seeded(lambda: perceptron(3, 10, 10, 6))
    risk = Risk.of(model, F.cross_entropy, classification(perceptron, 30))
    values = torch.linalg.eigvalsh(risk.hessian(progress=False))
    found = extremal_eigenpairs(risk, 2, tolerance=1e-14, max_products=1)
    assert not found.converged
    scale = float(values.abs().max())
    for pairs in (found.lowest, found.highest):
        assert len(pairs) == 2
        for pair in pairs:
            nearest = float((values - pair.value).abs().min())
            assert nearest <= pair.residual + 1e-12 * scale
    assert found.lowest[0].value >= float(values[0]) - 1e-12 * scale
    # Ritz values of one Krylov space are well on the way already.
    assert found.highest[0].value >= 0.9 * float(values[-1])


def wide(bias):
    return nn.Linear(40, 2, bias=bias)


def test_a_singular_hessian_has_a_lowest_eigenvalue_of_zero():
    model = seeded(lambda: wide(True))
    x, y = normal(8, 40), torch.arange(8) % 2
    risk = Risk.of(model, F.cross_entropy, [(x, y)])
    found = extremal_eigenpairs(risk)
    assert found.converged
    assert abs(found.lowest[0].value) <= 1e-9 * found.highest[0].value


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_sided_spectra_have_both_ends(sign):
    model = seeded(lambda: wide(False))
    x, y = normal(200, 40), normal(200, 2)
    risk = Risk.of(model, lambda f, t: sign * F.mse_loss(f, t), [(x, y)])
    values = torch.linalg.eigvalsh(risk.hessian())
    found = extremal_eigenpairs(risk)
    assert found.lowest[0].value == pytest.approx(float(values[0]), rel=1e-8)
    assert found.highest[0].value == pytest.approx(float(values[-1]), rel=1e-8)


def test_a_hessian_of_zero_has_eigenvalues_of_zero():
    model = seeded(lambda: wide(True))
    risk = Risk.of(model, lambda f, t: f.mean(), [(normal(8, 40), normal(8, 2))])
    found = extremal_eigenpairs(risk, 2)
    assert [pair.value for pair in (*found.lowest, *found.highest)] == [0.0] * 4
    assert found.converged


@pytest.mark.parametrize("count", [1, 2, 50])
def test_small_hessians_are_dense(count):
    model = seeded(lambda: nn.Linear(2, 2))
    risk = Risk.of(model, F.cross_entropy, [(normal(5, 2), torch.arange(5) % 2)])
    values = torch.linalg.eigvalsh(risk.hessian())
    found = extremal_eigenpairs(risk, count)
    count = min(count, 6)
    lowest = torch.tensor([p.value for p in found.lowest], dtype=torch.float64)
    highest = torch.tensor([p.value for p in found.highest], dtype=torch.float64)
    torch.testing.assert_close(lowest, values[:count], rtol=0, atol=1e-12)
    torch.testing.assert_close(highest, values.flip(0)[:count], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"num_eigenvalues": 0}, {"tolerance": 0.0}, {"max_products": 0}],
    ids=str,
)
def test_bad_numbers_are_refused(large, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        extremal_eigenpairs(large[0], **options)


def test_products_agree_with_curvlinops(large):
    curvlinops = pytest.importorskip("curvlinops")
    risk, _ = large
    model = seeded(lambda: perceptron(3, 26, 26, 6)).double()
    data = classification(perceptron, 30)
    operator = curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), dict(model.named_parameters()), data
    )
    v = normal(risk.size)
    torch.testing.assert_close(risk.product(v), (operator @ v).detach())


def test_a_hessian_that_is_not_finite_is_told():
    model = seeded(lambda: wide(True))
    risk = Risk.of(model, lambda f, t: ((f - f.detach()) ** 2).pow(0.75).mean(), [
        (normal(8, 40), normal(8, 2))
    ])  # fmt: skip
    with pytest.raises(NonFiniteError, match="finite"):
        extremal_eigenpairs(risk)
