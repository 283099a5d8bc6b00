r"""How affine a nonlinearity acts: its output regressed on its input, unit by unit.

References:
    | Embedding Principle in Depth for the Loss Landscape Analysis of Deep Neural
    | Networks (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283
    | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
    | (Chan, Golub & LeVeque, 1979)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, undefined
from layerpeel.measurement.statistics.statistic import Statistic

# Observations converted to float64 at a time: what a core's cache holds of both sides.
_BLOCK_ENTRIES = 2**16
_BLOCK_ROWS = 16


@dataclass(frozen=True, eq=False)
class AffineFit(Statistic):
    r"""Moments of the input :math:`x` and the output :math:`y` of each of :math:`d` units.

    They say how close :math:`y` is to :math:`\lambda x + \mu` with a slope and an
    intercept of each unit's own:

    .. math::
        \rho = \frac{S_{xy}}{\sqrt{S_{xx} S_{yy}}}, \qquad
        \lambda = \frac{S_{xy}}{S_{xx}}, \qquad
        \mu = \bar y - \lambda \bar x .

    Attributes:
        count: The number of observations :math:`n`.
        input_mean: Means :math:`\bar x`, with shape :math:`(d,)`.
        output_mean: Means :math:`\bar y`, with shape :math:`(d,)`.
        input_scatter: Centred sums of squares :math:`S_{xx}`, with shape :math:`(d,)`.
        output_scatter: Centred sums of squares :math:`S_{yy}`, with shape :math:`(d,)`.
        cross_scatter: Centred sums of products :math:`S_{xy}`, with shape :math:`(d,)`.
        input_low: Smallest inputs, with shape :math:`(d,)`.
        input_high: Largest inputs, with shape :math:`(d,)`.
        output_low: Smallest outputs, with shape :math:`(d,)`.
        output_high: Largest outputs, with shape :math:`(d,)`.

    Example:
        >>> x = torch.tensor([[-1.0, 1.0, -1.0], [1.0, 2.0, -2.0], [2.0, 3.0, -3.0]])
        >>> fit = AffineFit.of(x, x.relu())
        >>> [round(value, 4) for value in fit.correlation.tolist()]
        [0.982, 1.0, nan]
        >>> fit.one_sided.tolist(), fit.constant.tolist()
        ([False, True, True], [False, False, True])
        >>> round(fit.linearity(), 4)
        0.982
    """

    count: Int64[Tensor, ""]
    input_mean: Float64[Tensor, " d"]
    output_mean: Float64[Tensor, " d"]
    input_scatter: Float64[Tensor, " d"]
    output_scatter: Float64[Tensor, " d"]
    cross_scatter: Float64[Tensor, " d"]
    input_low: Float64[Tensor, " d"]
    input_high: Float64[Tensor, " d"]
    output_low: Float64[Tensor, " d"]
    output_high: Float64[Tensor, " d"]

    @classmethod
    def empty(cls, width: int) -> AffineFit:
        """Return the fit of no data, the neutral element of ``merge``."""
        zero = torch.zeros(width, dtype=torch.float64)
        low = torch.full_like(zero, torch.inf)
        return cls(torch.tensor(0), zero, zero, zero, zero, zero, low, -low, low, -low)

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor) -> AffineFit:
        """Compute the fit of some observations in float64, on their device.

        Args:
            inputs: Finite inputs :math:`x` of the units, with shape :math:`(n, d)`.
            outputs: Their outputs :math:`y`, with the same shape.

        Raises:
            ShapeError: If the shapes differ, or are not :math:`(n, d)`.
        """
        if inputs.ndim != 2 or inputs.shape != outputs.shape:
            raise ShapeError(
                "`inputs` and `outputs` must both have shape (n, d), one row per "
                f"observation; got {tuple(inputs.shape)} and {tuple(outputs.shape)}."
            )
        inputs, outputs = inputs.detach(), outputs.detach()
        if not len(inputs):
            return cls.empty(inputs.shape[1]).to(inputs.device)
        # About a row of the data sums are small.
        x, y = inputs[0].to(torch.float64), outputs[0].to(torch.float64)
        return fit_about(x, y, inputs, outputs).moved(x, y)

    @property
    def width(self) -> int:
        """The number of units :math:`d`."""
        return len(self.input_mean)

    @property
    def constant(self) -> Bool[Tensor, " d"]:
        """Units whose input or output has one value; they have no correlation."""
        return (self.input_low >= self.input_high) | (
            self.output_low >= self.output_high
        )

    @property
    def one_sided(self) -> Bool[Tensor, " d"]:
        """Units whose inputs all lie on one side of zero, which may be among them.

        A piecewise linear nonlinearity with its kink at zero, such as (leaky) ReLU, is
        exactly affine there. For kinks elsewhere compare with ``input_low`` and
        ``input_high``.
        """
        return (self.count > 0) & ((self.input_low >= 0) | (self.input_high <= 0))

    @property
    def correlation(self) -> Float64[Tensor, " d"]:
        r"""Pearson correlation :math:`\rho` of each unit; NaN for constant ones."""
        # Roots before the product, which would under- or overflow.
        size = self.input_scatter.sqrt() * self.output_scatter.sqrt()
        rho = (self.cross_scatter / size).clamp(-1, 1)
        return rho.masked_fill(self.constant, torch.nan)

    @property
    def slope(self) -> Float64[Tensor, " d"]:
        r"""Slope :math:`\lambda` of each unit; NaN where the input is constant."""
        slope = self.cross_scatter / self.input_scatter
        return slope.masked_fill(self.input_low >= self.input_high, torch.nan)

    @property
    def intercept(self) -> Float64[Tensor, " d"]:
        r"""Intercept :math:`\mu` of each unit; NaN where the input is constant."""
        return self.output_mean - self.slope * self.input_mean

    @property
    def residual(self) -> Float64[Tensor, " d"]:
        r"""Root mean square of :math:`y - \lambda x - \mu`, relative to the output's own.

        The size of the output is :math:`\sqrt{\sum y^2 / n}`, about zero: what replacing
        the unit by its fit costs the next layer, which sees the mean too. A correlation
        of 0.99 can go with a large one. Accurate to about ``1e-7``. NaN for constant
        units.
        """
        left = self.output_scatter * (1 - self.correlation.square())
        total = self.output_scatter + self.count * self.output_mean.square()
        return (left / total).sqrt()

    def linearity(self) -> float:
        r"""Return the smallest :math:`|\rho|` over units, 1 where all act affinely.

        Its authors call it minimal Pearson correlation, and a layer effectively linear
        above 0.99. Units whose input or output is constant have no correlation, and are
        left out: they are affine as they are, see ``constant``.

        Returns:
            The minimum; NaN with a warning when every unit is constant.

        References:
            | Embedding Principle in Depth for the Loss Landscape Analysis of Deep
            | Neural Networks (Bai, Luo, Xu & Zhang, 2022),
            | https://arxiv.org/abs/2205.13283
        """
        sizes = self._sizes()
        return float(sizes.min()) if len(sizes) else undefined(_CONSTANT)

    def median_linearity(self) -> float:
        r"""Return the median :math:`|\rho|` over units, which one odd unit cannot decide.

        Returns:
            The median, the lower of the two middle ones of an even number; NaN with a
            warning when every unit is constant.
        """
        sizes = self._sizes()
        return float(sizes.median()) if len(sizes) else undefined(_CONSTANT)

    def moved(
        self, input_offset: Float64[Tensor, " d"], output_offset: Float64[Tensor, " d"]
    ) -> AffineFit:
        """Return the fit of the same data with offsets added to the means only.

        Args:
            input_offset: What was subtracted from the inputs before they were summed.
            output_offset: The same for outputs.
        """
        seen = self.count > 0
        return self._replaced(
            {
                "input_mean": self.input_mean + input_offset * seen,
                "output_mean": self.output_mean + output_offset * seen,
            }
        )

    def _sizes(self) -> Float64[Tensor, " moving"]:
        return self.correlation[~self.constant].abs()

    def _merged(self, other: AffineFit) -> AffineFit:
        count = self.count + other.count
        # Without any data the weight is 0 / 1, not 0 / 0.
        weight = other.count / count.clamp(min=1).to(torch.float64)
        dx = other.input_mean - self.input_mean
        dy = other.output_mean - self.output_mean
        # Zero where either side has no data, so that its zero means cannot enter.
        share = self.count * weight
        return AffineFit(
            count,
            self.input_mean + weight * dx,
            self.output_mean + weight * dy,
            self.input_scatter + other.input_scatter + share * dx * dx,
            self.output_scatter + other.output_scatter + share * dy * dy,
            self.cross_scatter + other.cross_scatter + share * dx * dy,
            torch.minimum(self.input_low, other.input_low),
            torch.maximum(self.input_high, other.input_high),
            torch.minimum(self.output_low, other.output_low),
            torch.maximum(self.output_high, other.output_high),
        )


def fit_about(
    input_origin: Float64[Tensor, " d"],
    output_origin: Float64[Tensor, " d"],
    inputs: Tensor,
    outputs: Tensor,
) -> AffineFit:
    """Return the fit of at least one observation, with its means about an origin.

    Args:
        input_origin: A point near the inputs, with shape :math:`(d,)`.
        output_origin: A point near the outputs, with shape :math:`(d,)`.
        inputs: Finite inputs, with shape :math:`(n, d)`.
        outputs: Their outputs, with the same shape.
    """
    rows = max(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, len(input_origin)))
    parts = -(-len(inputs) // rows)
    blocks = zip(inputs.tensor_split(parts), outputs.tensor_split(parts), strict=True)
    return reduce(
        AffineFit.merge,
        (_block_fit(input_origin, output_origin, x, y) for x, y in blocks),
    )


def _block_fit(
    input_origin: Tensor, output_origin: Tensor, inputs: Tensor, outputs: Tensor
) -> AffineFit:
    x, y = inputs - input_origin, outputs - output_origin
    x_mean, y_mean = x.mean(0), y.mean(0)
    x.sub_(x_mean), y.sub_(y_mean)
    return AffineFit(
        torch.tensor(len(x), device=x.device),
        x_mean,
        y_mean,
        x.square().sum(0),
        y.square().sum(0),
        (x * y).sum(0),
        *(end.to(torch.float64) for end in (inputs.amin(0), inputs.amax(0))),
        *(end.to(torch.float64) for end in (outputs.amin(0), outputs.amax(0))),
    )


_CONSTANT = (
    "Linearity is undefined (NaN): the input or the output of every unit is constant."
)
