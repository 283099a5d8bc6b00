import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError, NonFiniteError, ShapeError
from layerpeel.edits.width.compatible_embedding import CompatibleEmbedding
from layerpeel.edits.width.embed import embed
from tests.edits.networks import (
    Residual,
    convolutional,
    critical_data,
    data_for,
    gradient,
    mlp,
    normal,
    outputs,
    risk_of,
    seeded,
    set_vector,
    tanh_pair,
)


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def linear_part(model, embedding):
    """The matrix of the embedding, by differences: it is affine in the parameters."""
    start, columns = vector(model), []
    base = vector(embed(model, embedding).model)
    for i in range(len(start)):
        moved = start.clone()
        moved[i] += 1
        set_vector(model, moved)
        columns.append(vector(embed(model, embedding).model) - base)
    set_vector(model, start)
    return torch.stack(columns, 1)


def hessian(model, data, loss=F.mse_loss):
    risk, point = risk_of(model, data, loss)
    return torch.autograd.functional.hessian(risk, point)


def of_kind(kind, widths, seed):
    layer = 1 + seed % (len(widths) - 2)
    if kind == "splitting":
        alpha = (0.5, -0.7, 1.6)[seed % 3]
        return CompatibleEmbedding.splitting(widths, layer, seed % widths[layer], alpha)
    if kind == "null":
        return CompatibleEmbedding.null(widths, layer, 0.4)
    if kind == "coupled":
        return coupled(widths)
    if kind == "composed":
        first = of_kind("splitting", widths, seed)
        second = of_kind("null", first.wide, seed + 1)
        third = of_kind("splitting", second.wide, seed + 2)
        return first.then(second).then(third)
    return getattr(CompatibleEmbedding, kind)(widths)


def coupled(widths):
    """Null neurons that read each other and are read by others, with copies that cancel."""
    last = len(widths) - 2
    made = CompatibleEmbedding.splitting(widths, last, 0, 0.5)
    for layer, bias in ((max(last - 1, 1), 0.7), (last, -0.3)):
        made = made.then(CompatibleEmbedding.null(made.wide, layer, bias))
    if last == 1:
        return made
    # The null neuron of the last hidden layer reads that of the one before, and the two
    # copies of neuron 0 read it with opposite signs, which their shares cancel.
    factors = [f.clone() for f in made.factors]
    factors[last - 1][-1, -1] = 1.3
    factors[last - 1][0, -1], factors[last - 1][-2, -1] = 0.8, -0.8
    return CompatibleEmbedding(made.widths, made.sources, tuple(factors), made.resting)


KINDS = ["splitting", "null", "threefold", "twofold_null", "coupled", "composed"]
WIDTHS = st.lists(st.integers(1, 5), min_size=3, max_size=5)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(WIDTHS, st.integers(0, 999), st.sampled_from([nn.Tanh, nn.ReLU, nn.Sigmoid]))
def test_outputs_are_preserved(kind, widths, seed, activation):
    model = mlp(widths, activation, seed)
    x = 3 * normal(20, widths[0], seed=seed)
    edit = embed(model, of_kind(kind, tuple(widths), seed))
    change = (outputs(edit.model, [(x, x)]) - outputs(model, [(x, x)])).abs().max()
    assert change <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(1, 2, 1), (2, 2, 2, 1)])
def test_hessians_are_congruent_on_the_image_and_critical_points_stay_so(kind, widths):
    model, embedding = mlp(widths, nn.Tanh, 3), of_kind(kind, widths, 4)
    A = linear_part(model, embedding)
    assert torch.linalg.matrix_rank(A) == A.shape[1]
    elsewhere = [(normal(9, widths[0]), normal(9, 1, seed=2))]
    for data in (elsewhere, critical_data(model, widths[0])):
        edit = embed(model, embedding, data=data, loss_fn=F.mse_loss)
        narrow, wide = hessian(model, data), hessian(edit.model, data)
        scale = narrow.abs().max()
        torch.testing.assert_close(A.T @ wide @ A, narrow, rtol=0, atol=1e-11 * scale)
        assert edit.proof.gradient_before == pytest.approx(
            float(gradient(model, data, F.mse_loss).norm()), rel=1e-6, abs=1e-14
        )
    assert edit.proof.gradient_before <= 1e-12
    assert edit.proof.gradient_after <= 1e-10


def test_the_map_is_affine():
    model, embedding = mlp([2, 3, 2, 1], nn.Tanh, 1), coupled((2, 3, 2, 1))
    A, start = linear_part(model, embedding), vector(model)
    base = vector(embed(model, embedding).model)
    step = normal(len(start), seed=8)
    set_vector(model, start + step)
    torch.testing.assert_close(
        vector(embed(model, embedding).model), base + A @ step, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_threefold_embedding_opens_a_strict_saddle_where_its_proof_says(seed):
    # A minimum with residuals: the second part of the Hessian is not zero.
    widths = (1, 2, 1)
    model = tanh_pair()
    data = critical_data(model, 1, scale=1e-2, seed=seed)
    x = data[0][0]
    assert torch.linalg.eigvalsh(hessian(model, data))[0] > 1e-8
    edit = embed(model, CompatibleEmbedding.threefold(widths), data=data)
    assert gradient(edit.model, data, F.mse_loss).norm() <= 1e-10
    wide = hessian(edit.model, data)
    # The part of the Hessian with second derivatives of the network, in the layers
    # before the last one.
    own = 4
    error = (outputs(model, data) - data[0][1]) * 2 / len(x)

    def pulled(values):
        weight, bias = values[:2, None], values[2:]
        hidden = torch.tanh(x @ weight.T + bias)
        return (error * (hidden @ model[2].weight.T)).sum()

    start = vector(model)[:own]
    H2 = torch.autograd.functional.hessian(pulled, start)
    values, vectors = torch.linalg.eigh(H2)
    assert values.abs().max() > 1e-6
    for value, v in zip(values, vectors.T, strict=True):
        weights = (0.5, 0.5, 1.0) if value > 0 else (1.0, -1.0, 0.0)
        u = torch.zeros(len(wide)).double()
        parts = [w * v for w in weights]
        u[:6] = torch.cat([p[:2] for p in parts])
        u[6:12] = torch.cat([p[2:] for p in parts])
        wanted = -value / 2 if value > 0 else 2 * value
        assert float(u @ wide @ u) == pytest.approx(float(wanted), abs=1e-10)
    assert torch.linalg.eigvalsh(wide)[0] < -1e-7


def test_shares_are_those_of_the_errors():
    widths = (2, 3, 2, 1)
    model, embedding = mlp(widths, nn.Tanh), coupled(widths)
    edit = embed(model, embedding)
    x, y = normal(5, 2), normal(5, 1, seed=3)

    def errors(network):
        found, h = [], x
        for module in network:
            h = module(h)
            if isinstance(module, nn.Linear):
                h.retain_grad()
                found.append(h)
        (h - y).square().mean().backward()
        return [values.grad for values in found]

    pairs = zip(errors(model), errors(edit.model), strict=True)
    for level, (narrow, wide) in enumerate(pairs, 1):
        sources = embedding.sources[level]
        wanted = narrow[:, sources.clamp_min(0)] * embedding.shares[level]
        wanted = torch.where(sources < 0, 0.0, wanted)
        torch.testing.assert_close(wide, wanted, rtol=0, atol=1e-12)


def changed(embedding, level, i, j, value):
    factors = [f.clone() for f in embedding.factors]
    factors[level - 1][i, j] = value
    return CompatibleEmbedding(
        embedding.widths, embedding.sources, tuple(factors), embedding.resting
    )


def test_broken_conditions_are_named_with_their_place():
    embedding = CompatibleEmbedding.splitting((2, 3, 2), 1, 2, 0.5)
    with pytest.raises(
        EditError, match=r"Forward condition, layer 2: .* neuron 1 .* 2"
    ):
        changed(embedding, 2, 1, 3, 0.7)
    both = changed(changed(embedding, 2, 1, 3, 0.5), 2, 1, 3, 0.5)
    assert both.shares[1].tolist() == [1, 1, 0.5, 0.5]
    factors = [f.clone() for f in embedding.factors]
    factors[1][1, 2:] = torch.tensor([0.3, 0.7])
    with pytest.raises(EditError, match="Backward condition, layer 2: neuron 2"):
        CompatibleEmbedding(embedding.widths, embedding.sources, tuple(factors))
    null = CompatibleEmbedding.null((2, 3, 2), 1, 0.3)
    with pytest.raises(EditError, match=r"Forward condition, layer 1: .* neuron 3"):
        changed(null, 1, 3, 0, 0.1)
    with pytest.raises(EditError, match="Backward condition, layer 2: neuron 3"):
        changed(null, 2, 0, 3, 0.1)
    with pytest.raises(EditError, match="Bias condition, layer 1: neuron 3"):
        CompatibleEmbedding(
            null.widths,
            null.sources,
            null.factors,
            null.resting,
            (torch.zeros(4).double(), torch.zeros(2).double()),
        )


def test_sources_and_shapes_are_checked():
    embedding = CompatibleEmbedding.splitting((2, 3, 2), 1, 2, 0.5)
    with pytest.raises(ShapeError, match="shape"):
        CompatibleEmbedding(embedding.widths, embedding.sources, embedding.factors[:1])
    for sources, message in (
        ((0, 1, 1, 1), "each neuron must have a copy"),
        ((0, 1, 2, 5), "no neurons"),
    ):
        given = (torch.arange(2), torch.tensor(sources), torch.arange(2))
        with pytest.raises(EditError, match=f"(?i){message}"):
            CompatibleEmbedding(embedding.widths, given, embedding.factors)
    with pytest.raises(EditError, match="copy themselves"):
        CompatibleEmbedding(
            embedding.widths,
            (torch.tensor([1, 0]), *embedding.sources[1:]),
            embedding.factors,
        )
    with pytest.raises(ValueError, match="hidden layer"):
        CompatibleEmbedding.splitting((2, 3, 2), 2, 0, 0.5)
    with pytest.raises(ShapeError, match="widths"):
        embedding.then(embedding)


def test_null_neurons_that_are_read_need_the_activation():
    embedding = coupled((2, 3, 2, 1))
    with pytest.raises(EditError, match="activations"):
        embedding.bias(2)
    known = embedding.bias(2, (torch.tanh, torch.tanh))
    null = -0.3 - 1.3 * torch.tanh(torch.tensor(0.7)).double()
    assert float(known[-1]) == pytest.approx(float(null), abs=1e-7)


def test_models_that_are_no_chain_are_refused():
    embedding = CompatibleEmbedding.threefold((4, 5, 3))
    for model in (seeded(Residual), convolutional()):
        with pytest.raises(EditError, match="chain"):
            embed(model, embedding)
    with pytest.raises(EditError, match="widths"):
        embed(mlp([4, 6, 3]), embedding)
    with pytest.raises(ValueError, match="data=loader"):
        embed(mlp([4, 5, 3]), embedding, loss_fn=F.mse_loss)
    bare = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    assert embed(bare, embedding).model[0].bias is None
    with pytest.raises(EditError, match="has none"):
        embed(bare, CompatibleEmbedding.null((4, 5, 3), 1, 0.5))


def test_the_proof_measures_outputs_and_names_its_limits():
    model, data = mlp([4, 5, 3]), data_for(4, 3)
    edit = embed(model, CompatibleEmbedding.threefold((4, 5, 3)), data=data)
    assert edit.proof.output_change <= 1e-12
    assert edit.proof.samples == 12
    assert edit.proof.gradient_after is None
    assert "(4, 5, 3) into (4, 15, 3)" in edit.summary()


TWO = (torch.arange(2), torch.tensor([0, 1, 1]), torch.arange(1))
NO_EMBEDDINGS = {
    "neuron": (lambda: CompatibleEmbedding.splitting((2, 2, 1), 1, 2, 0.5), ValueError),
    "no neuron": (
        lambda: CompatibleEmbedding.splitting((2, 2, 1), 1, -1, 0.5),
        ValueError,
    ),
    "share": (
        lambda: CompatibleEmbedding.splitting((2, 2, 1), 1, 0, float("nan")),
        ValueError,
    ),
    "bias": (lambda: CompatibleEmbedding.null((2, 2, 1), 1, float("inf")), ValueError),
    "biases": (
        lambda: CompatibleEmbedding.twofold_null((2, 2, 1), float("nan")),
        ValueError,
    ),
    "rest": (
        lambda: CompatibleEmbedding(
            (2, 2, 1),
            TWO,
            (torch.ones(3, 2), torch.tensor([[1.0, 0.5, 0.5]])),
            (torch.full((3,), float("nan")),),
        ),
        NonFiniteError,
    ),
}


@pytest.mark.parametrize("case", NO_EMBEDDINGS)
def test_what_is_no_embedding_is_refused(case):
    build, error = NO_EMBEDDINGS[case]
    with pytest.raises(error, match="must be"):
        build()
