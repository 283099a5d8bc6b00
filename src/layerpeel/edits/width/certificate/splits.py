r"""The matrices of one neuron, and its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import EditError, at_least
from layerpeel._tolerances import EPS
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph, Layer
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.width.certificate.capture import Site
from layerpeel.edits.width.certificate.certificate import NeuronCertificate
from layerpeel.edits.width.certificate.neuron import Bend, Neuron
from layerpeel.edits.width.certificate.products import products
from layerpeel.edits.width.certificate.quadratic import Quadratic
from layerpeel.edits.width.certificate.sweep import sweep
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.inertia import Inertia

# Up to this many rows and columns matrices are computed, and all eigenvalues of them.
MOST_DENSE = 1024


@dataclass(frozen=True, eq=False)
class SplitMatrices:
    r"""The matrices of a neuron, with where its parameters are in them.

    Attributes:
        B: The Hessian of :math:`\psi_s` in :math:`\theta_s`, with shape :math:`(p, p)`.
        C: Its mixed part, with shape :math:`(p, q)`; :math:`C_s a_s` is the gradient of
            the risk with respect to :math:`\theta_s`.
        moves: Where each parameter is in :math:`\theta_s`, by name.
        reads: Where each weight is in :math:`a_s`, by name.
    """

    B: Float64[Tensor, "p p"]
    C: Float64[Tensor, "p q"]
    moves: dict[str, slice]
    reads: dict[str, slice]


def split_matrices(
    graph_or_model: Graph | nn.Module,
    layer: Layer,
    data: Data,
    loss_fn: LossFunction,
    neuron: int,
) -> SplitMatrices:
    r"""Return the matrices that decide what splitting a neuron does.

    With :math:`\theta_s` the parameters of the neuron, :math:`a_s` its outgoing weights
    and :math:`e` the gradient of the risk with respect to what the next layers return,
    held fixed, they are the second derivatives of

    .. math::
        \psi_s(\theta_s, a_s) = \sum \langle e, a_s \, \sigma_s(\theta_s) \rangle,
        \qquad \nabla^2 \psi_s = \begin{pmatrix} B_s & C_s \\ C_s^\top & 0 \end{pmatrix}.

    Splitting the neuron in parts :math:`1 - \alpha` and :math:`\alpha` adds the inertia
    of the same matrix with :math:`\alpha (1 - \alpha) B_s` to that of the Hessian.

    References:
        | Local minima and plateaus in hierarchical structures of multilayer perceptrons
        | (Fukumizu & Amari, 2000): splits of one hidden layer; the statement for every
        | layer and every point is this package's own.

    Args:
        graph_or_model: The graph that the layer is of, or a model with its modules.
        layer: The layer.
        data: The data.
        loss_fn: Takes outputs and targets and returns the mean, or sum, over the batch.
        neuron: Which neuron of the layer, or channel.

    Raises:
        EditError: If the layer's neurons cannot be split, or there is no such neuron.
        LossError: If the loss function gives no finite scalar with a gradient.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)).double()
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> graph, data = Graph(model), Data([(x, x)], model)
        >>> loss = nn.functional.mse_loss
        >>> found = split_matrices(graph, graph.layer("0"), data, loss, 0)
        >>> found.B.shape, found.moves
        (torch.Size([2, 2]), {'0.weight': slice(0, 1, None), '0.bias': slice(1, 2, None)})
    """
    site = Site(graph_or_model, layer, data, loss_fn)
    (neuron,) = check_neurons([neuron], site.layout.width)
    found = Neuron.of(site.exact, neuron)
    slices = site.layout.slices
    B, C = found.matrices(found.errors)
    return SplitMatrices(
        B.cpu(),
        C.cpu(),
        {block.name: slices[block.name] for block in site.layout.moves},
        {block.name: slices[block.name] for block in site.layout.reads},
    )


def split_certificate(
    site: Site, neuron: int, alphas: Sequence[float], share: float, steps: int
) -> NeuronCertificate:
    """Return the lowest curvature that splitting a neuron gives, of some ways to do it.

    Args:
        site: The layer, with data.
        neuron: The neuron.
        alphas: Parts of the outgoing weights, of which the best is taken.
        share: The part of the neuron's outgoing weights that the pair has.
        steps: Krylov steps, where matrices are too large.
    """
    found = Neuron.of(site.exact, neuron)
    if sum(site.layout.sizes) <= MOST_DENSE:
        return _dense(site, found, alphas, share)
    return _iterated(site, found, alphas, share, steps)


def _dense(
    site: Site, neuron: Neuron, alphas: Sequence[float], share: float
) -> NeuronCertificate:
    B, C = neuron.matrices(neuron.errors)
    forms = [Quadratic(B, C, alpha, share) for alpha in alphas]
    solved = [(form, *form.lowest()) for form in forms]
    form, values, v, r = min(solved, key=lambda found: float(found[1][0]))
    # What rounding of residuals does to the matrices bounds what it does to eigenvalues.
    unsure = Quadratic(*neuron.matrices(site.doubts), form.alpha, share).matrix()
    inertia = Inertia.of(values.cpu(), error=float(unsure.norm()))
    gradient = float((C @ neuron.rows()[1]).norm())
    return certified(
        site,
        neuron,
        form.alpha,
        share,
        (v, r),
        form.value(v, r),
        gradient,
        inertia.signs,
    )


def _iterated(
    site: Site, neuron: Neuron, alphas: Sequence[float], share: float, steps: int
) -> NeuronCertificate:
    assert neuron.index is not None
    product = products(site.exact, site.layer, [neuron.index])
    theta, a = neuron.rows()
    space = sweep(product, 1, site.layout.sizes, steps, theta)
    solved = [(alpha, *space.lowest(alpha, share)) for alpha in alphas]
    alpha, _, v, r = min(solved, key=lambda found: float(found[1]))
    both, across = product(v, r)
    mixed = float((across * r).sum())
    part = share * alpha * (1 - alpha)
    value = part * (float((v * both).sum()) - mixed) + 2 * mixed
    slope = product(v.new_zeros(v.shape), a[None])[0]
    return certified(
        site, neuron, alpha, share, (v[0], r[0]), value, float(slope.norm()), None
    )


def certified(
    site: Site,
    neuron: Neuron,
    alpha: float,
    share: float,
    direction: tuple[Tensor, Tensor],
    value: float,
    gradient: float,
    inertia: tuple[int, int, int] | None,
) -> NeuronCertificate:
    """Return the certificate of a direction, whose curvature is evaluated once more."""
    bend = neuron.bend(*direction, share * alpha * (1 - alpha), site.doubts)
    parts = site.layout.parts
    return NeuronCertificate(
        kind="split",
        neuron=neuron.index,
        alpha=alpha,
        share=share,
        curvature=value,
        rounding=rounding(site, value, bend),
        gradient=gradient,
        inertia=inertia,
        moves={n: t.cpu() for n, t in parts(direction[0], reads=False).items()},
        reads={n: t.cpu() for n, t in parts(direction[1], reads=True).items()},
    )


def rounding(site: Site, value: float, bend: Bend) -> float:
    """Return a bound on the rounding of a curvature that was evaluated twice."""
    rows = sum(batch.errors[0].numel() for batch in site.exact.batches)
    terms = rows + sum(site.layout.sizes)
    return (
        Curvature.of((value, bend.value), bend.size, terms, EPS).rounding + bend.doubt
    )


def check_neurons(neurons: Sequence[int] | None, width: int) -> list[int]:
    """Return neurons of a layer, all when none are given.

    Raises:
        EditError: If there are others than it has, or none.
    """
    if neurons is None:
        return list(range(width))
    found = [at_least("neurons", neuron, 0) for neuron in neurons]
    if not found or max(found) >= width:
        raise EditError(
            f"`neurons` must be some of the layer's, from 0 to {width - 1}; got {found}."
        )
    return found
