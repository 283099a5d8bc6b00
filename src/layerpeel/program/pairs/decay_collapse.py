r"""The imbalance ratio at which minority classes merge under weight decay.

They do exactly when :math:`\pi_B \leq \mu \delta_B`, with the loss weight
:math:`\pi_B = n_B / N`, the multiplier :math:`\mu = \sqrt{\lambda_W \lambda_H}`, and the
feature weight :math:`\delta_B = \sqrt{n_B}` for decay per sample, 1 for decay per class.
What remains is to say which number of samples is fixed while the ratio grows.
"""

from __future__ import annotations

import math

from layerpeel.program.decay import Decay
from layerpeel.program.pairs.log_mix import log_mix


def log_decay_collapse(
    K_A: int,
    K_B: int,
    decay: Decay,
    *,
    total: float | None = None,
    majority_samples: float | None = None,
    minority_samples: float | None = None,
) -> float:
    """Return the log of the ratio from which minority classifiers are equal, or zero.

    At most one number of samples is given: none for decay per class.
    """
    log_c = math.log(decay.multiplier)
    if majority_samples is not None:
        return _log_larger_root(K_A, K_B, -2 * log_c - math.log(majority_samples))
    # Collapse is K_A R + K_B >= e^need, in each of the other cases.
    need = -log_c
    if minority_samples is not None:
        need -= 0.5 * math.log(minority_samples)
    if total is not None:
        need -= log_c + math.log(total)
    K = K_A + K_B
    return log_mix(math, need - math.log(K), K / K_A) if need > math.log(K) else 0.0


def _log_larger_root(K_A: int, K_B: int, need: float) -> float:
    r"""Return the log of the larger root of :math:`(K_A R + K_B)^2 = R e^{need}`.

    Or zero, where the left side is larger throughout.
    """
    # At R = r^2, K_A r + K_B / r is a cosh of log r, least at log(K_B / K_A) / 2.
    half = 0.5 * (need - math.log(4 * K_A * K_B))
    if half <= 0:
        return 0.0
    arccosh = half + math.log1p(math.sqrt(-math.expm1(-2 * half)))  # of e^half
    return max(0.0, math.log(K_B / K_A) + 2 * arccosh)
