r"""The empirical risk of a model as a function of its flat parameter vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError, one_of
from layerpeel._progress import track
from layerpeel._tolerances import JITTER_ULPS
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.functional import (
    Functional,
    copied,
    copied_loss,
    differentiable,
)
from layerpeel.landscape.held_batches import hold
from layerpeel.landscape.parameters import Parameters
from layerpeel.landscape.probe import Probe
from layerpeel.landscape.reduction import REDUCTIONS, LossFunction
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.pairs import Pair

# How often a curvature is taken with parameters and direction moved by their rounding.
_SHAKES = 3

# Columns of a dense Hessian that are computed at once; each holds its activations.
_COLUMNS = 64


@dataclass(frozen=True, eq=False)
class Risk:
    r"""The risk :math:`R(\theta)` of a model on data, its gradient and its Hessian.

    :math:`R` is what ``loss_fn`` gives on all data as one batch: the mean or the sum of
    its samples' losses. The model is a copy in ``float64`` and in eval mode, with its
    buffers and frozen parameters as constants: statistics of batch normalisation are
    the running ones, and dropout is the identity. The batches are read once and held.

    Vectors go in and come out in float64 on the CPU; methods take the point at which to
    evaluate, which is the model's own when omitted.

    References:
        | Fast Exact Multiplication by the Hessian (Pearlmutter, 1994),
        | https://doi.org/10.1162/neco.1994.6.1.147

    Attributes:
        parameters: Where the trainable parameters are in the vector.
        point: The model's own vector, with shape :math:`(p,)`.
        samples: The number of samples.
        notes: What the caller should know about what is a variable and what is not.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> risk = Risk.of(model, nn.functional.mse_loss, data)
        >>> risk.parameters.names, risk.hessian().tolist()
        (('weight', 'bias'), [[10.0, 4.0], [4.0, 2.0]])
        >>> risk.product(torch.tensor([1.0, 0.0])).tolist()
        [10.0, 4.0]
    """

    parameters: Parameters
    point: Float64[Tensor, " p"]
    samples: int
    notes: tuple[str, ...]
    _functional: Functional
    _batches: tuple[Pair, ...]
    _weights: tuple[float, ...]
    _dtype: torch.dtype
    _device: torch.device

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss_fn: LossFunction,
        loader: Iterable[Any],
        dtype: torch.dtype = torch.float64,
        *,
        reduction: str = "mean",
        progress: bool | None = None,
    ) -> Risk:
        """Return the risk of a model on data.

        Args:
            model: Any module; it is copied, and stays as it is.
            loss_fn: Takes the model's outputs and the targets of a batch and returns a
                scalar. Of outputs with ``logits`` it is given those. A module is copied
                to ``dtype``, with its class weights.
            loader: Batches ``(input, target)``, where a mapping as input becomes
                keyword arguments; or mappings with ``"labels"`` or ``"label"``. Floating
                numbers are converted to ``dtype``, and all go where the model is.
            dtype: The type to compute in.
            reduction: ``"mean"`` or ``"sum"``: what ``loss_fn`` does over the samples
                of a batch. It is checked on the halves of a batch.
            progress: Whether to show a progress bar; on a terminal when omitted.

        Raises:
            ValueError: If the model has no trainable real parameter or no copy.
            NonFiniteError: If weights are NaN or infinite, or the risk is.
            BatchError: If there is no sample, a batch has another form, or the model
                does not run on it.
            LossError: If the loss is no scalar, or no mean or sum as ``reduction`` says.
            NondeterminismError: If the same batch gives other outputs the second time.
        """
        one_of("reduction", reduction, REDUCTIONS)
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(
                f"`dtype` must be torch.float64 or torch.float32; got {dtype}."
            )
        parameters = Parameters.of(model)
        device = next(model.parameters()).device
        training = [module.training for module in model.modules()]
        # In this context global random states stay as they are, the loader's too.
        with evaluating(model), differentiable():
            copy = copied(model, dtype)
            batches = hold(loader, dtype, device, progress)
            loss_fn = copied_loss(loss_fn, dtype, device)
            functional = Functional(copy, loss_fn, parameters)
            point = parameters.read(model)
            probe = Probe(functional, point.to(device, dtype), batches)
            probe.check(reduction)
            notes = probe.notes(training)
        samples = sum(batch.size for batch in batches)
        weights = [b.size / samples if reduction == "mean" else 1.0 for b in batches]
        risk = cls(
            parameters, point, samples, notes, functional, batches, tuple(weights),
            dtype, device,
        )  # fmt: skip
        if not math.isfinite(risk.value()):
            raise NonFiniteError(
                f"The risk must be finite; it is {risk.value()}. Look for NaN in the "
                "inputs and targets, and for weights that are too large."
            )
        return risk

    @property
    def size(self) -> int:
        """The number of variables :math:`p`."""
        return self.parameters.size

    @property
    def batches(self) -> tuple[Pair, ...]:
        """The data, as they are held."""
        return self._batches

    @property
    def model(self) -> nn.Module:
        """The copy of the model, at its own point."""
        return self._functional.model

    @property
    def dtype(self) -> torch.dtype:
        """The type it is computed in."""
        return self._dtype

    def loss(self, batch: Pair, at: Tensor | None = None) -> Tensor:
        """Return the loss of one batch."""
        return self._functional.loss(self._vector(at), batch)

    def value(self, at: Tensor | None = None) -> float:
        """Return the risk."""
        vector = self._vector(at)
        with differentiable(), torch.no_grad():
            losses = [float(self._functional.loss(vector, b)) for b in self._batches]
        return math.fsum(w * x for w, x in zip(self._weights, losses, strict=True))

    def gradient(self, at: Tensor | None = None) -> Float64[Tensor, " p"]:
        """Return the gradient, with shape :math:`(p,)`."""
        vector = self._vector(at)
        return self._summed(lambda batch: self._functional.gradient(vector, batch))

    def product(
        self, direction: Tensor, at: Tensor | None = None
    ) -> Float64[Tensor, "*shape"]:
        """Return the Hessian times a vector, or times the columns of a matrix.

        Args:
            direction: With shape :math:`(p,)` or :math:`(p, k)`.
            at: Where to take the Hessian; the model's own point when omitted.
        """
        directions = direction.to(self._device, self._dtype)
        if direction.ndim == 1:
            return self._products(directions[:, None], at)[:, 0]
        blocks = torch.split(directions, _COLUMNS, 1)
        return torch.cat([self._products(block, at) for block in blocks], 1)

    def hessian(
        self, at: Tensor | None = None, *, progress: bool | None = None
    ) -> Float64[Tensor, "p p"]:
        """Return the dense Hessian as it is computed, symmetric up to rounding.

        Args:
            at: Where to take it; the model's own point when omitted.
            progress: Whether to show a progress bar; on a terminal when omitted.

        Raises:
            NonFiniteError: If it holds NaN or infinity.
        """
        matrix = torch.empty(self.size, self.size, dtype=torch.float64)
        starts = range(0, self.size, _COLUMNS)
        # A short one needs no bar.
        show = progress if len(starts) > 1 else False
        for start in track(starts, "Computing the Hessian", show=show):
            columns = slice(start, min(start + _COLUMNS, self.size))
            unit = torch.zeros(self.size, columns.stop - start, dtype=torch.float64)
            unit[range(start, columns.stop), range(columns.stop - start)] = 1.0
            matrix[:, columns] = self.product(unit, at)
        if not bool(matrix.isfinite().all()):
            raise NonFiniteError(
                "The Hessian must be finite; it holds NaN or infinity. Look for roots, "
                "norms and logarithms at zero in the model and the loss."
            )
        return matrix

    def curvature(self, direction: Tensor, at: Tensor | None = None) -> Curvature:
        r"""Return :math:`v^\top H v / v^\top v` with a bound on its rounding.

        Raises:
            ValueError: If the direction is zero.
        """
        unit = _unit(direction)
        v, vector = unit.to(self._device, self._dtype), self._vector(at)
        functional = self._second_order
        products = self._each(lambda batch: functional.product(vector, batch, v))
        terms = torch.stack([unit * product for product in products])
        sizes = [terms.abs().flatten()]
        if functional.forward_mode:
            sizes += self._each(lambda b: functional.magnitude(vector, b, v))
        return Curvature.of(
            # Summed without further rounding.
            (math.fsum(terms.flatten().tolist()), *self._second_derivatives(vector, v)),
            math.fsum(float(size.sum()) for size in sizes),
            self.size + self.samples,
            torch.finfo(self._dtype).eps,
        )

    def _second_derivatives(self, vector: Tensor, v: Tensor) -> list[float]:
        """Return the curvature along a direction, here and where rounding may lead."""
        functional = self._second_order
        found = []
        for at, along in _shaken(vector, v):

            def of_batch(b: Pair, at: Tensor = at, along: Tensor = along) -> Tensor:
                return functional.second_derivative(at, b, along)

            found.append(math.fsum(map(float, self._each(of_batch))))
        return found

    @cached_property
    def _second_order(self) -> Functional:
        with differentiable():
            return self._functional.supported(self._vector(None), self._batches[0])

    def _products(self, columns: Tensor, at: Tensor | None) -> Float64[Tensor, "p k"]:
        vector, functional = self._vector(at), self._second_order

        def of_batch(batch: Pair) -> Tensor:
            def product(v: Tensor) -> Tensor:
                return functional.product(vector, batch, v)

            return _mapped(product, columns)

        return self._summed(of_batch)

    def _each(self, of_batch: Callable[[Pair], Tensor]) -> list[Tensor]:
        """Return the weighted parts of all batches, in float64 on the CPU."""
        with differentiable():
            return [
                (weight * of_batch(batch).detach().to(torch.float64)).cpu()
                for weight, batch in zip(self._weights, self._batches, strict=True)
            ]

    def _summed(self, of_batch: Callable[[Pair], Tensor]) -> Tensor:
        """Return the weighted sum over batches, in float64 on the CPU."""
        total: Tensor | None = None
        with differentiable():
            for weight, batch in zip(self._weights, self._batches, strict=True):
                part = weight * of_batch(batch).detach().to(torch.float64)
                # One at a time: the parts of all batches need not fit in memory.
                total = part if total is None else total + part
        assert total is not None  # There is a batch, or there would be no risk.
        return total.cpu()

    def _vector(self, at: Tensor | None) -> Tensor:
        vector = self.point if at is None else at
        return vector.to(self._device, self._dtype)


def _mapped(product: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
    if columns.shape[1] == 1:
        return product(columns[:, 0])[:, None]
    try:
        with warnings.catch_warnings():
            # Some operations are batched one by one, which is nothing to the caller.
            warnings.filterwarnings("ignore", "There is a performance drop")
            found: Tensor = torch.func.vmap(product, in_dims=1, out_dims=1)(columns)
        return found
    except (NotImplementedError, RuntimeError):
        # Not all operations can be batched; one after the other all can.
        return torch.stack([product(column) for column in columns.T], 1)


def _unit(direction: Tensor) -> Float64[Tensor, " p"]:
    vector = direction.detach().to("cpu", torch.float64)
    norm = float(vector.norm())
    if not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"A direction must have a finite length above 0; got {norm}.")
    return vector / norm


def _shaken(point: Tensor, direction: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a point and a direction, and then both moved by what rounding may do."""
    yield point, direction
    size = JITTER_ULPS * torch.finfo(point.dtype).eps
    for seed in range(_SHAKES):
        generator = torch.Generator().manual_seed(seed)
        yield (
            point * (1 + size * _signs(point, generator)),
            direction * (1 + size * _signs(direction, generator)),
        )


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs in the shape, dtype and place of a tensor."""
    return (2 * torch.randint(2, like.shape, generator=generator) - 1).to(like)
