r"""The bias under collapse: the logits of the global mean vanish.

A collapsed classifier compares features with the global mean :math:`\mu_G`: its bias is
:math:`-W \mu_G`, up to what softmax ignores.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor


def bias_distance(
    weight: Float64[Tensor, "K d"],
    bias: Float64[Tensor, " K"] | None,
    global_mean: Float64[Tensor, " d"],
    *,
    centred: bool = False,
) -> float:
    r"""Return :math:`\| W \mu_G + b \|`, zero under collapse of balanced classes.

    Args:
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`; ``None`` counts as zero.
        global_mean: The global mean :math:`\mu_G` of the features, with shape
            :math:`(d,)`.
        centred: Whether to remove the mean of the :math:`K` logits first, which softmax
            does not see. Not by default: weight decay takes it to zero, and the
            published measure has it.

    Returns:
        The norm, in units of logits.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
        >>> mean = torch.tensor([3.0, 4.0]).double()
        >>> bias_distance(weight, None, mean), bias_distance(weight, -mean, mean)
        (5.0, 0.0)
    """
    logits = weight @ global_mean
    if bias is not None:
        logits = logits + bias
    if centred:
        logits = logits - logits.mean()
    return float(logits.norm())
