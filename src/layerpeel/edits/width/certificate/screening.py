r"""Which neuron to split: the lowest curvatures of all of them, by a few products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import EditError, at_least
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph, Layer
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.width.certificate.capture import Site
from layerpeel.edits.width.certificate.certificate import NeuronCertificate
from layerpeel.edits.width.certificate.finite import finite
from layerpeel.edits.width.certificate.products import products
from layerpeel.edits.width.certificate.quadratic import ALPHAS
from layerpeel.edits.width.certificate.splits import check_neurons, split_certificate
from layerpeel.edits.width.certificate.sweep import sweep

# Two matrix products as large as the layer each, and what backward passes cost of those.
_STEPS = 6
# One for the errors; in float64 one more for what rounding does to them.
_LOOKS = 2
# For a neuron on its own, whose matrices are too large: a step costs little.
_MORE_STEPS = 64


@dataclass(frozen=True, eq=False)
class Screening:
    r"""The lowest curvature that splitting each neuron gives, as far as it was found.

    Attributes:
        neurons: The neurons that were looked at.
        curvatures: The Ritz value of each: the curvature :math:`u^\top H u` along some
            unit direction, in the precision of the model. Negative ones are where to
            look for an escape; :meth:`certificate` says whether there is one.
        alphas: The part of the outgoing weights that gives it.
        backward_passes: What was spent, in backward passes of the network over all
            data; no more than that.
    """

    neurons: tuple[int, ...]
    curvatures: Float64[Tensor, " m"]
    alphas: Float64[Tensor, " m"]
    backward_passes: int
    _site: Site
    _choices: tuple[float, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The neurons, that of the lowest curvature first."""
        return tuple(self.neurons[i] for i in self.curvatures.argsort().tolist())

    def certificate(self, neuron: int, share: float = 1.0) -> NeuronCertificate:
        """Return the certificate of a neuron, in float64.

        Args:
            neuron: One of those that were looked at, or any other of the layer.
            share: The part of the neuron's outgoing weights that the pair has, if it
                was split before.

        Raises:
            EditError: If the layer has no such neuron.
            ValueError: If the share is no finite number.
        """
        (neuron,) = check_neurons([neuron], self._site.layout.width)
        number = finite("share", share)
        return split_certificate(self._site, neuron, self._choices, number, _MORE_STEPS)


def screen_splits(
    graph_or_model: Graph | nn.Module,
    layer: Layer,
    data: Data,
    loss_fn: LossFunction,
    *,
    alpha: float | None = None,
    neurons: Sequence[int] | None = None,
    iterations: int = _STEPS,
) -> Screening:
    r"""Return the lowest curvatures that splitting the neurons of a layer gives.

    A copy of neuron :math:`s` that takes the part :math:`\alpha` of its outgoing weights
    makes room for a direction :math:`u(v, r)`: the neuron goes along :math:`\alpha v`,
    the copy along :math:`-(1 - \alpha) v`, and outgoing weights along :math:`\pm r`.
    Outputs do not change along it to first order, and

    .. math::
        u^\top H u = \alpha (1 - \alpha) v^\top B_s v + 2 v^\top C_s r, \qquad
        |u|^2 = (\alpha^2 + (1 - \alpha)^2) |v|^2 + 2 |r|^2.

    All neurons are looked at together, by products that need no matrix: each costs less
    than a backward pass where activations alone stand between linear layers, and about
    three where there are convolutions, batch normalisation or pooling.

    Args:
        graph_or_model: The graph that the layer is of, or a model with its modules; in
            eval mode.
        layer: The layer.
        data: The data; what the layer reads of them is held.
        loss_fn: Takes outputs and targets and returns the mean, or sum, over the batch.
        alpha: The part of outgoing weights that the copy gets. When omitted, it is for
            each neuron the better one of 1/2 and :math:`(1 + \sqrt 2) / 2`: the sign of
            :math:`\alpha (1 - \alpha)` decides which eigenvalues of :math:`B_s` lower
            the loss, and its size is 1/4 for both.
        neurons: Those to look at; all when omitted.
        iterations: The number of products.

    Raises:
        EditError: If the layer's neurons cannot be split: something else reads them,
            their weights are frozen, or channels come in groups.
        LossError: If the loss function gives no finite scalar with a gradient.
        ValueError: If ``alpha`` or ``iterations`` is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> data = Data([(torch.randn(8, 2), torch.arange(8) % 2)], model)
        >>> graph, loss = Graph(model), nn.functional.cross_entropy
        >>> screening = screen_splits(graph, graph.layer("0"), data, loss)
        >>> certificate = screening.certificate(screening.order[0])
        >>> certificate.kind, certificate.is_negative
        ('split', True)
    """
    steps = at_least("iterations", iterations, 1)
    choices = ALPHAS if alpha is None else (finite("alpha", alpha),)
    site = Site(graph_or_model, layer, data, loss_fn)
    chosen = check_neurons(neurons, site.layout.width)
    capture = site.quick
    product = products(capture, layer, chosen)
    like = capture.batches[0].errors[0]
    space = sweep(product, len(chosen), site.layout.sizes, steps, like)
    found = torch.stack([space.lowest(choice)[0] for choice in choices]).cpu()
    if not bool(found.isfinite().all()):
        raise EditError(
            f"The curvatures of {layer.path!r} must be finite; some are NaN or infinite. "
            "Look for an activation or a loss without a second derivative on the data."
        )
    curvatures, best = found.min(0)
    return Screening(
        tuple(chosen),
        curvatures,
        torch.tensor(choices, dtype=torch.float64)[best],
        _LOOKS + steps * product.passes,
        site,
        choices,
    )
