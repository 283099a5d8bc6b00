r"""All maps of this kind from the points of a network to those of a wider one.

A fully connected network of widths :math:`m_0, \dots, m_L` is embedded into one of widths
:math:`m'_l` by saying of each new neuron which old one it copies, :math:`I_l(i)`, or that
it is a null neuron; and by factors:

.. math::
    W'^l_{ij} = \alpha^l_{ij} W^l_{I_l(i), I_{l-1}(j)}, \qquad
    b'^l_i = (\alpha_b^l)_i + b^l_{I_l(i)},

where entries of :math:`W` for null neurons read as one, and those of :math:`b` as zero.
For every network and all data, outputs are the same and critical points stay critical, if
these hold:

- forward: for each old neuron :math:`s`, the sum of :math:`\alpha^l_{ij}` over its copies
  :math:`j` is one if :math:`i` copies a neuron, and zero if it is null;
- backward: with numbers :math:`\beta^l`, which are ones at the output, the sum of
  :math:`\beta^l_i \alpha^l_{ij}` over the copies :math:`i` of an old neuron is the same
  for all of those, namely :math:`\beta^{l-1}_j`, and zero if :math:`j` is null. These are
  the shares of the errors that copies receive;
- bias: what null neurons of the layer before add, which have the constant pre-activations
  :math:`b^*`, is made up for by :math:`\alpha_b`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import EditError, ShapeError, at_least
from layerpeel.edits.resizing import NULL
from layerpeel.edits.width.certificate.finite import finite
from layerpeel.edits.width.index_maps import (
    check_hidden,
    check_sources,
    check_tensors,
    copied_factors,
    first_wrong,
    merged,
    per_source,
    sources_after,
)
from layerpeel.edits.width.splits import Split, Splits

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class CompatibleEmbedding:
    r"""An embedding of fully connected networks into wider ones.

    References:
        | Embedding Principle: a hierarchical structure of loss landscape of deep neural
        | networks (Zhang, Li, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2111.15527

    Args:
        widths: Those of the narrow network, from the input to the output.
        sources: For each of them, and each neuron of the wide network, the neuron that it
            copies, or -1 for a null neuron. Inputs and outputs copy themselves.
        factors: :math:`\alpha^l` for each layer, of shape :math:`(m'_l, m'_{l-1})`.
        resting: :math:`b^*` for each hidden layer: the constant pre-activations of null
            neurons; those of others are not looked at. Zeros when omitted.
        biases: :math:`\alpha_b^l` for each layer; the ones that fit when omitted.
        activations: The activation of each hidden layer, as a function of tensors; needed
            if null neurons are read.

    Raises:
        ShapeError: If shapes do not fit.
        EditError: If one of the conditions does not hold; it says which, and where.

    Example:
        >>> embedding = CompatibleEmbedding.splitting((2, 3, 1), 1, neuron=2, alpha=0.3)
        >>> embedding.wide, embedding.shares[1].tolist()
        ((2, 4, 1), [1.0, 1.0, 0.7, 0.3])
    """

    widths: tuple[int, ...]
    sources: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]
    resting: tuple[Tensor, ...] = ()
    biases: tuple[Tensor, ...] = ()
    activations: tuple[Activation, ...] = ()

    def __post_init__(self) -> None:
        """Check all conditions."""
        object.__setattr__(self, "widths", tuple(self.widths))
        check_tensors(
            sources=self.sources,
            factors=self.factors,
            resting=self.resting,
            biases=self.biases,
        )
        self._check_shapes()
        for level in range(1, len(self.widths)):
            self._check_forward(level)
        _ = self.shares
        if self.biases:
            self._check_biases()

    @property
    def wide(self) -> tuple[int, ...]:
        """The widths of the wide network."""
        return tuple(len(s) for s in self.sources)

    @cached_property
    def shares(self) -> tuple[Float64[Tensor, " wide"], ...]:
        r"""The numbers :math:`\beta^l`: the share of the error each neuron receives.

        Raises:
            EditError: If the backward condition does not hold.
        """
        shares = [torch.ones(self.wide[-1], dtype=torch.float64)]
        for level in range(len(self.widths) - 1, 0, -1):
            shares.insert(0, self._backward(level, shares[0]))
        return tuple(shares)

    def bias(
        self, level: int, activations: Sequence[Activation] = ()
    ) -> Float64[Tensor, " wide"]:
        r"""Return what is added to the biases of a layer, :math:`\alpha_b`.

        Args:
            level: The layer, from 1.
            activations: The activation of each hidden layer; those of the embedding when
                omitted.

        Raises:
            EditError: If null neurons are read, and no activation is known.
        """
        null = self._null(level)
        wanted = torch.zeros(self.wide[level], dtype=torch.float64)
        if bool(null.any()):
            wanted[null] = self._rest(level)[null]
        return wanted - self._from_null(level, activations or self.activations)

    @classmethod
    def splitting(
        cls, widths: Sequence[int], layer: int, neuron: int, alpha: float
    ) -> CompatibleEmbedding:
        """Return the embedding that splits one neuron of a hidden layer.

        Args:
            widths: Those of the narrow network.
            layer: The hidden layer, from 1.
            neuron: The neuron, from 0.
            alpha: The share of its outgoing weights that the new one takes.

        Raises:
            ValueError: If there is no such layer or neuron, or the share is not finite.
        """
        check_hidden(widths, layer)
        if at_least("neuron", neuron, 0) >= widths[layer]:
            raise ValueError(
                f"`neuron` must be one of layer {layer}, from 0 to {widths[layer] - 1}; "
                f"got {neuron}."
            )
        splits = Splits(widths[layer], (Split(neuron, finite("alpha", alpha)),))
        return cls._widened(widths, layer, splits, 0.0)

    @classmethod
    def null(
        cls, widths: Sequence[int], layer: int, bias: float = 0.0
    ) -> CompatibleEmbedding:
        """Return the embedding that adds a null neuron to a hidden layer.

        Args:
            widths: Those of the narrow network.
            layer: The hidden layer, from 1.
            bias: The bias of the null neuron.

        Raises:
            ValueError: If there is no such layer, or the bias is not finite.
        """
        check_hidden(widths, layer)
        splits = Splits.null(widths[layer], 1)
        return cls._widened(widths, layer, splits, finite("bias", bias))

    @classmethod
    def threefold(cls, widths: Sequence[int]) -> CompatibleEmbedding:
        """Return the embedding with all hidden neurons threefold.

        The three copies of the network do not read each other; the last layer adds the
        first two and subtracts the third.
        """
        signs = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
        return cls._manifold(widths, signs, torch.arange)

    @classmethod
    def twofold_null(
        cls, widths: Sequence[int], bias: float = 0.0
    ) -> CompatibleEmbedding:
        """Return the embedding with as many null neurons as hidden ones.

        Args:
            widths: Those of the narrow network.
            bias: The bias of the null neurons, which read nothing.

        Raises:
            ValueError: If there is no hidden layer, or the bias is not finite.
        """
        bias = finite("bias", bias)
        ones = torch.tensor([1.0, 0.0], dtype=torch.float64)
        made = cls._manifold(widths, ones, lambda m: torch.full((m,), NULL))
        resting = tuple(torch.full((m,), bias).double() for m in made.wide[1:-1])
        return cls(made.widths, made.sources, made.factors, resting)

    def then(self, other: CompatibleEmbedding) -> CompatibleEmbedding:
        r"""Return this embedding and another one of its wide networks as one.

        Raises:
            ShapeError: If the other one is not of networks of these widths.
        """
        if other.widths != self.wide:
            raise ShapeError(
                f"The second embedding must be of networks of widths {self.wide}; got "
                f"{other.widths}. Make it with the `.wide` of the first."
            )
        sources = [
            sources_after(a, b)
            for a, b in zip(self.sources, other.sources, strict=True)
        ]
        factors = [
            theirs * copied_factors(mine, i, j)
            for mine, theirs, j, i in zip(
                self.factors,
                other.factors,
                other.sources[:-1],
                other.sources[1:],
                strict=True,
            )
        ]
        hidden = range(1, len(self.widths) - 1)
        resting = [
            merged(self._rest(k), other._rest(k), other.sources[k]) for k in hidden
        ]
        return CompatibleEmbedding(
            self.widths, tuple(sources), tuple(factors), tuple(resting),
            activations=self.activations or other.activations,
        )  # fmt: skip

    @classmethod
    def _widened(
        cls, widths: Sequence[int], layer: int, splits: Splits, bias: float
    ) -> CompatibleEmbedding:
        """Return the embedding that adds neurons to one layer."""
        sources = [torch.arange(m) for m in widths]
        factors = [torch.ones(b, a).double() for a, b in pairwise(widths)]
        sources[layer] = splits.sources
        ones = torch.where(splits.sources < 0, 0.0, 1.0).double()
        factors[layer - 1] = ones[:, None].expand(-1, widths[layer - 1]).clone()
        factors[layer] = splits.shares.expand(widths[layer + 1], -1).clone()
        rest = [torch.full((len(s),), bias).double() for s in sources[1:-1]]
        return cls(tuple(widths), tuple(sources), tuple(factors), tuple(rest))

    @classmethod
    def _manifold(
        cls, widths: Sequence[int], last: Tensor, more: Callable[[int], Tensor]
    ) -> CompatibleEmbedding:
        """Return the embedding with several networks next to each other."""
        fold, depth = len(last), len(widths) - 1
        check_hidden(widths, 1)
        sources = [torch.arange(m) for m in widths]
        for level in range(1, depth):
            again = [more(widths[level]) for _ in range(fold - 1)]
            sources[level] = torch.cat([sources[level], *again])
        factors = list[Tensor]()
        for level, (ins, outs) in enumerate(pairwise(widths), 1):
            ones = torch.ones(outs, ins).double()
            if level == 1:
                factors.append(ones.repeat(fold, 1))
            elif level < depth:
                factors.append(torch.kron(torch.eye(fold).double(), ones))
            else:
                factors.append(torch.cat([sign * ones for sign in last], 1))
        made = tuple(
            torch.where(sources[i + 1][:, None] < 0, 0.0, factor)
            for i, factor in enumerate(factors)
        )
        return cls(tuple(widths), tuple(sources), made)

    def _null(self, level: int) -> Tensor:
        return self.sources[level] < 0

    def _rest(self, level: int) -> Tensor:
        if not self.resting:
            return torch.zeros(self.wide[level], dtype=torch.float64)
        return self.resting[level - 1]

    def _from_null(self, level: int, activations: Sequence[Activation]) -> Tensor:
        """Return what the null neurons of the layer before add to the pre-activations."""
        null = self._null(level - 1)
        read = self.factors[level - 1][:, null]
        if not bool((read != 0).any()):
            return torch.zeros(self.wide[level], dtype=torch.float64)
        if len(activations) < level - 1:
            raise EditError(
                f"Null neurons of layer {level - 1} are read, so the activation of each "
                "hidden layer must be known. Pass `activations=(torch.tanh, ...)`."
            )
        return read @ activations[level - 2](self._rest(level - 1)[null])

    def _check_shapes(self) -> None:
        depth = len(self.widths) - 1
        wanted = [(b, a) for a, b in pairwise(self.wide)]
        given = [tuple(f.shape) for f in self.factors]
        hidden = [len(r) for r in self.resting]
        if depth < 1 or len(self.sources) != depth + 1 or given != wanted:
            raise ShapeError(
                "An embedding needs `sources` for each width, and `factors` of shape "
                f"(wide neurons, wide neurons before) for each layer: {wanted}; got "
                f"{len(self.sources)} sources for widths {self.widths}, and {given}."
            )
        if hidden and hidden != list(self.wide[1:-1]):
            raise ShapeError(
                f"`resting` must have {self.wide[1:-1]} values, one per wide neuron of "
                f"each hidden layer; got {hidden}."
            )
        for level, (width, sources) in enumerate(
            zip(self.widths, self.sources, strict=True)
        ):
            check_sources(level, depth, width, sources)

    def _check_forward(self, level: int) -> None:
        sums = per_source(self.factors[level - 1], self.sources[level - 1], 1)
        sums = sums[:, : self.widths[level - 1]]
        wanted = torch.where(self._null(level)[:, None], 0.0, 1.0).expand_as(sums)
        wrong = first_wrong(sums, wanted)
        if wrong is not None:
            i, s = wrong
            raise EditError(
                f"Forward condition, layer {level}: the factors of neuron {i} for the "
                f"copies of neuron {s} of the layer before must add up to "
                f"{wanted[i, s]:g}; they add up to {sums[i, s]:g}."
            )

    def _backward(self, level: int, shares: Tensor) -> Tensor:
        """Return the shares of the layer before."""
        weighted = shares[:, None] * self.factors[level - 1]
        sums = per_source(weighted, self.sources[level], 0)[: self.widths[level]]
        wanted = torch.where(self._null(level - 1), 0.0, sums[0])
        wrong = None if level == 1 else first_wrong(sums, wanted.expand_as(sums))
        if wrong is not None:
            k, j = wrong
            raise EditError(
                f"Backward condition, layer {level}: neuron {j} of the layer before must "
                f"be read by the copies of each neuron with one total share, "
                f"{wanted[j]:g}; by those of neuron {k} it is {sums[k, j]:g}."
            )
        return wanted

    def _check_biases(self) -> None:
        if len(self.biases) != len(self.widths) - 1:
            raise ShapeError(
                f"`biases` must be given for each of {len(self.widths) - 1} layers; got "
                f"{len(self.biases)}."
            )
        for level, given in enumerate(self.biases, 1):
            wanted = self.bias(level)
            if given.shape != wanted.shape:
                raise ShapeError(
                    f"The biases of layer {level} must have shape {tuple(wanted.shape)}; "
                    f"got {tuple(given.shape)}."
                )
            wrong = first_wrong(given[:, None], wanted[:, None])
            if wrong is not None:
                i, _ = wrong
                raise EditError(
                    f"Bias condition, layer {level}: neuron {i} must have "
                    f"{wanted[i]:g} added to its bias, to make up for the null neurons "
                    f"before it; got {given[i]:g}."
                )
