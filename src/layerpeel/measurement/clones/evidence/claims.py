r"""What is claimed of a layer that consists of clones, and what survives its nulls.

Three things make a chunk of a layer a clone (Doimo et al., 2021): its training error with
the original weights is that of the network, it reconstructs the layer linearly, and what
it misses is uncorrelated between neurons. Each has something else that looks like it:

- chunks of *any* layer err less the wider they are, since a sum over a random chunk
  comes closer to that over all neurons;
- chunks reconstruct any layer of low rank, trained or not;
- a mean absolute correlation is never zero for finitely many samples.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from layerpeel._json import plain

CLAIMS: Mapping[str, str] = MappingProxyType(
    {
        "interpolation": "a chunk fits the training set as the network does",
        "reconstruction": "a chunk reconstructs the layer, and training made it so",
        "independence": "what a chunk misses is uncorrelated between neurons",
        "readout": "the classifier reads a chunk as it is, with nothing refitted",
    }
)
"""What is claimed, by name."""

# Residuals count as uncorrelated up to this many times what those of noisy clones show
# on average; a convention, not the paper's.
FLOOR_FACTOR = 2.0


@dataclass(frozen=True)
class Claim:
    """A claim about a layer, held against what looks like it.

    Attributes:
        name: A key of ``CLAIMS``.
        survives: Whether it is true and its null does not explain it; ``None`` where that
            cannot be judged.
        evidence: The numbers, as a sentence.
    """

    name: str
    survives: bool | None
    evidence: str

    @property
    def statement(self) -> str:
        """What is claimed."""
        return CLAIMS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        content: dict[str, Any] = plain(asdict(self) | {"statement": self.statement})
        return content


def interpolation(width: float, layer: int, error: float, full: float) -> Claim:
    """Judge whether a chunk narrower than the layer fits the training set.

    Args:
        width: The critical width by interpolation; NaN if it is not met.
        layer: The width of the layer.
        error: Mean training error of chunks of that width.
        full: Training error of the network; NaN if there is no classifier.
    """
    if math.isnan(full):
        return Claim(
            "interpolation", None, "There is no classifier to read chunks with."
        )
    if math.isnan(width) or width >= layer:
        return Claim(
            "interpolation",
            False,
            f"No chunk fits as well as the network, whose training error is {full:.4g}.",
        )
    return Claim(
        "interpolation",
        True,
        f"Chunks of {width:.0f} of {layer} neurons err on {error:.4g} of the training "
        f"set; the network on {full:.4g}.",
    )


def reconstruction(
    width: float, layer: int, r_squared: float, untrained: float, least: float
) -> Claim:
    """Judge whether chunks reconstruct the layer, and those of an untrained copy do not.

    Args:
        width: The critical width by reconstruction; NaN if it is not met.
        layer: The width of the layer.
        r_squared: Mean of chunks of that width.
        untrained: The same for the untrained copy; NaN without one.
        least: What was to be reached.
    """
    if math.isnan(width) or width >= layer:
        return Claim(
            "reconstruction", False, f"No chunk reconstructs it to R^2 = {least:.4g}."
        )
    said = f"Chunks of {width:.0f} of {layer} neurons reach R^2 = {r_squared:.4g}"
    if math.isnan(untrained):
        return Claim(
            "reconstruction", None, f"{said}; there is no untrained copy beside it."
        )
    return Claim(
        "reconstruction",
        untrained < least,
        f"{said}; those of an untrained copy R^2 = {untrained:.4g}.",
    )


def independence(
    width: float, correlation: float, floor: float, null: float, dimensions: float
) -> Claim:
    r"""Judge whether residuals are as uncorrelated as those of noisy clones look.

    Of :math:`k` signals with independent noise a chunk knows the signals up to the noise
    of its own :math:`w` neurons, and what it misses of others has that error in common.
    Neurons that mix the signals in random directions then show a mean absolute
    correlation of about :math:`k E|\cos| / (w + k)` (derived here), on top of the noise
    floor of finitely many samples.

    Args:
        width: The width :math:`w` of chunks looked at.
        correlation: Mean absolute correlation of what they miss.
        floor: What independent residuals show for as many samples.
        null: The mean of random rotations of the layer; NaN without one.
        dimensions: The number of signals :math:`k`, such as the participation ratio.
    """
    if math.isnan(correlation) or math.isnan(floor) or math.isnan(dimensions):
        return Claim(
            "independence", None, "Too few neurons are missed to correlate, or samples."
        )
    rotated = "" if math.isnan(null) else f", random rotations of the layer {null:.3g}"
    common = shared_error(width, dimensions)
    return Claim(
        "independence",
        correlation <= FLOOR_FACTOR * max(floor, common),
        f"What chunks of {width:.0f} neurons miss has a mean absolute correlation of "
        f"{correlation:.3g}; independent noise {floor:.3g}, clones of {dimensions:.3g} "
        f"signals {common:.3g}{rotated}.",
    )


def shared_error(width: float, dimensions: float) -> float:
    r"""Return :math:`k E|\cos| / (w + k)`, with the cosine of random directions.

    Args:
        width: The number of neurons :math:`w` that signals are read from.
        dimensions: The number of signals :math:`k`.

    Example:
        >>> round(shared_error(9, 1), 3)  # one signal: 1 / (w + 1)
        0.1
    """
    k = dimensions
    log_cosine = math.lgamma(k / 2) - math.lgamma((k + 1) / 2) - math.log(math.pi) / 2
    return k * math.exp(log_cosine) / (width + k)


def readout(width: float, layer: int, score: float, slack: float) -> Claim:
    """Judge whether the classifier reads chunks as well as their reconstruction.

    Args:
        width: The width of the chunks that are read: where they pass for the layer, or
            at least reconstruct it.
        layer: The width of the layer.
        score: Raw less folded error there; NaN without a classifier.
        slack: By how much they may differ.
    """
    if math.isnan(score) or math.isnan(width) or width >= layer:
        return Claim("readout", None, "There is no chunk that reconstructs it to read.")
    return Claim(
        "readout",
        score <= slack,
        f"At {width:.0f} neurons, where chunks reconstruct the layer, the raw error less "
        f"the folded one is {score:.4g}; up to {slack:.4g} is none.",
    )
