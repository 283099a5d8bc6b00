"""Every named tolerance of the package, each with the reason for its size."""

from __future__ import annotations

import math

import torch

EPS = torch.finfo(torch.float64).eps

# A vector this much shorter than the longest of its family has no direction left: its
# Gram entries are rounding noise (eps), magnified by sums of a few thousand terms.
VANISHED_NORM = 1e-7

# The classifier is recomputed as W h + b on captured inputs. Low-precision matmuls
# accumulate in another order than ours; 32 units in the last place cover that, with
# the square root of the width taken into account by the caller.
HEAD_MATCH_ULPS = 32.0

# Two evaluations of the same batch in eval mode must agree to the last bit on CPU; some
# CUDA kernels reorder sums. Anything above this share of the feature scale is randomness.
DETERMINISM_ULPS = 256.0

# The same for bfloat16 and float16, whose unit is so large that 256 of them would let
# dropout pass: reordered float32 sums are rounded once per layer, to a neighbour.
LOW_PRECISION_DETERMINISM_ULPS = 8.0

# Class counts whose largest is below this multiple of the smallest count as balanced:
# random splits of balanced data stay well inside it.
BALANCED_RATIO = 1.5

# Gaps between class counts within this share of the widest one are as wide: rounding
# the counts of an exponential tail moves its equal gaps by about a tenth.
GAP_TIE = 0.9

# A group of classes is described by its mean count when no count leaves this factor.
# The two-group prediction is then an approximation, and is labelled so.
GROUP_SPREAD = 1.5

# The relative gap below which a convex solve calls itself certified.
CERTIFIED_GAP = 1e-8

# Singular values of a solved program below this share of the largest are zero: the
# squared factors of an absent direction converge to zero quadratically, far past it.
ABSENT_DIRECTION = 1e-12

# No relative gap is reported below this: the objective at the factors that are handed
# out differs from the reported one by one or two eps, however small the gap of the
# scalars they are made of.
RESOLVED_GAP = 4 * EPS

# Class counts that differ by less than this, relatively, are the same count: means of
# equal counts differ by a few ulps, and real counts by far more.
EQUAL_COUNTS = 1e-12

# Oversampling aims this far above the balanced cosine. The balanced cosine itself needs
# the full ratio n_A / n_B; measured cosines scatter by about this much around it.
OVERSAMPLING_MARGIN = 0.01

# A factored solve polishes until its gradient, relative to the objective, is below this:
# ten times what it promises, and a hundred times what rounding leaves.
STATIONARY_GRADIENT = 1e-10

# Starts of a factored solve agree when their objectives differ by less, relatively:
# values converge twice as fast as gradients, and distinct optima lie further apart.
SAME_OBJECTIVE = 1e-8

# No class has a smaller share of a loss: its logarithm, its square and what is divided by
# it are still floats, with room for scales and energies.
LEAST_WEIGHT = 1e-100

# A squared distance below this share of the squared lengths it is the difference of has
# lost more than three digits to cancellation, and is recomputed: about twelve are left.
CANCELLED_SHARE = 1e-3


def rank_cutoff(largest: float, rows: int, columns: int) -> float:
    """Return the singular value below which a direction is numerically absent.

    The LAPACK convention, ``max(shape) * eps * largest``: rounding in an SVD is of the
    order of ``eps * largest`` for each of up to ``max(shape)`` accumulated terms.
    """
    return max(rows, columns) * EPS * largest


def covariance_rank_tolerance(width: int, eps: float) -> float:
    """Return the share of the largest singular value that counts as zero.

    Rounding of features to a dtype with this ``eps`` adds up like the root of the width.
    The eigenvalues of a covariance in float64 are known to ``EPS`` per term of the
    largest, and singular values to the root of that.
    """
    return max(math.sqrt(width) * eps, math.sqrt(width * EPS))


# A neuron whose deviation is below this many units in the last place of its mean is
# constant: its mean is known to a few of them, and merging means adds a few more.
CONSTANT_ULPS = 64.0

# Class means within this many units in the last place of their size coincide: sums and
# merges in another order move a mean by a few, and centring adds a few more.
COINCIDENT_ULPS = 64.0

# Lengths between these have squares and sums of squares that are float64 numbers with all
# their digits, and so have variances far below them.
LEAST_SQUARED = 1e-140
MOST_SQUARED = 1e140


def rounding_noise(size: float, eps: float) -> float:
    """Return the largest singular value that rounding of features leaves of a zero.

    Of features over the root of their number, whose root mean square length is ``size``.
    Each entry is rounded by at most half an ``eps`` of itself, so that all rounding
    together has at most half an ``eps`` of that length, whatever its direction; the other
    half is for sums inside of a layer.
    """
    return size * eps


# Features of a second pass differ by less than this share of their length, each its own
# way: deep networks in bfloat16 (a unit of 2**-7) leave a few hundredths when batches
# are put together differently, and augmentation changes some tenths.
REPEATED_NOISE = 0.125

# And by less than this share all in the same way, as by another kernel's rounding.
REPEATED_BIAS = 1e-3

# Eigenvalues of a Hessian within this many units of the largest one, per parameter, are
# zero: LAPACK loses a few of them, and the entries of the Hessian are sums themselves.
ZERO_EIGENVALUE_ULPS = 16.0

# An eigenvalue below this multiple of the gradient norm is not judged. Away from a
# critical point the curvature of the parametrisation, times the gradient, is added to
# the Hessian; for parameters of order one it is about one, and ten leaves a margin.
GRADIENT_MARGIN = 10.0

# A gradient below this belongs to a critical point, where losses and parameters are of
# order one. Networks that were trained in float32 end four digits above; published
# pictures of eigenvalues at 1e-4 show what the gradient adds.
CRITICAL_GRADIENT = 1e-8

# A pre-activation within this many units of the largest one of its call is on the kink:
# which side it falls on is rounding.
KINK_ULPS = 256.0

# An eigenvalue that counts as other than zero is this many times what counts as zero:
# between them, a sign could be that of rounding that was underestimated.
EIGENVALUE_GAP = 10.0

# Parameters and directions are moved by this many units in the last place of each, at
# random, to see what rounding inside of a network does to a curvature: a layer returns
# what it would of inputs and weights that differ by a few.
JITTER_ULPS = 8.0

# Two neurons are equal when their incoming weights differ by at most this many units of
# the dtype of the layer, of the length of all terms that they are sums of: scaling,
# folding a normalisation and adding shares round by half a unit each.
EQUAL_NEURON_ULPS = 4.0

# The outputs of a network are known to this many units in the last place: sums over wide
# layers lose a few, and each layer adds its own. Residuals are known no better.
OUTPUT_ULPS = 64.0

# An eigenvalue that belongs to a critical point nearby keeps this share of itself along
# Newton's step to it. At a cubic degenerate point it keeps a half, at a quartic one less.
KEPT_CURVATURE = 0.75

# Sums of the factors of an embedding that must be one or zero are so up to this share of
# the largest: they are typed in, or made of a few operations.
COMPATIBLE = 1e-9

# A curvature along a direction in the model's own precision is that of its certificate up
# to this share: parameters and directions in float32 move it by 1e-6 or so, and a sample
# that crosses a kink by much more.
CERTIFIED_SHARE = 1e-3
