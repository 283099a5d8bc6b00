"""A clone profile in a sentence or two."""

from __future__ import annotations

import math

from layerpeel.measurement.clones import CriticalWidth
from layerpeel.reports import thresholds as limits
from layerpeel.reports.clone_evidence import CloneEvidence


def clone_verdict(evidence: CloneEvidence) -> str:
    """Say how many clones a layer consists of and what decides it, or why of none.

    Args:
        evidence: The profile, and what follows from it.
    """
    if not evidence.has_errors:
        return f"Clones cannot be told from low rank here. {_reconstruction(evidence)}"
    if evidence.trivial:
        return (
            f"Clones cannot be told here: with {evidence.profile.num_samples} samples "
            f"for {evidence.profile.width} neurons, chunks reconstruct whatever they are "
            "fitted to."
        )
    if evidence.uninformative:
        return (
            "Clones cannot be told here: chunks of every width decide alike, as with a "
            f"single class in the data. {_reconstruction(evidence)}"
        )
    if not evidence.narrow:
        return f"No clones: {_why_none(evidence)}"
    if evidence.refuted:
        return (
            f"{_size(evidence)} pass for the layer, but are not shown to be clones. "
            + " ".join(claim.evidence for claim in evidence.refuted)
        )
    return f"{counted(evidence.num_clones)} clones: {_passing(evidence)}"


def counted(clones: float) -> str:
    """Return a number of clones as it is said: 8, or 2.5."""
    return f"{clones:.3g}"


def _size(evidence: CloneEvidence) -> str:
    return (
        f"Chunks of {evidence.critical_width:.0f} of {evidence.profile.width} neurons"
    )


def _passing(evidence: CloneEvidence) -> str:
    size = _size(evidence)
    return f"{size[0].lower()}{size[1:]} pass for the layer. {_decided(evidence)}"


def _decided(evidence: CloneEvidence) -> str:
    """Name the criterion that decides, and what the others say."""
    first, *ties = evidence.deciding
    others = [a for a in evidence.critical.values() if a not in (first, *ties)]
    names = " and ".join(answer.criterion for answer in (first, *ties))
    if len(ties) == 2:
        names = "all criteria alike"
    said = [f"The critical width is decided by {names}", *map(_other, others)]
    return f"{'; '.join(said)}."


def _other(answer: CriticalWidth) -> str:
    if answer.clones == 1:
        return f"{answer.criterion} needs the whole layer"
    neurons = "a neuron" if answer.width == 1 else f"{answer.width:.0f} neurons"
    return f"{answer.criterion} is met from {neurons} on"


def _why_none(evidence: CloneEvidence) -> str:
    deciding, whole = evidence.deciding[0], evidence.profile.width
    if math.isnan(deciding.width):
        return (
            f"the criterion of {deciding.criterion} is met at no width measured. "
            f"{_decided(evidence)}"
        )
    if deciding.width == whole:
        return f"no chunk passes for the layer of {whole} neurons. {_decided(evidence)}"
    return (
        f"chunks must have {deciding.width:.0f} of {whole} neurons to pass for the "
        f"layer, {counted(deciding.clones)} of which are no "
        f"{limits.CLONES_LEAST} clones. {_decided(evidence)}"
    )


def _reconstruction(evidence: CloneEvidence) -> str:
    """Say what reconstruction alone says."""
    answer, profile = evidence.critical["reconstruction"], evidence.profile
    threshold = f"R^2 = {answer.threshold:.4g}"
    if not answer.width < profile.width:
        return f"No chunk narrower than {profile.width} neurons reaches {threshold}."
    return (
        f"Chunks of {answer.width:.0f} of {profile.width} neurons reconstruct the layer "
        f"to {threshold}, which a layer of low rank does as well."
    )
