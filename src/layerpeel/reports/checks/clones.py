"""Checks of a clone profile: clones, what looks like them, and what can be left out.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math

from layerpeel.measurement.clones.evidence.claims import FLOOR_FACTOR
from layerpeel.measurement.clones.reconstruction.reconstruction import constant_neurons
from layerpeel.reports import thresholds as limits
from layerpeel.reports.checks.check import Check
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.finding import Outcome, Severity
from layerpeel.reports.narrower import Narrower

PAPER = "Doimo et al. 2021 (arXiv 2106.03485)"

KEEP = f"lp.clone_profile(model, loader).keep(tolerance={limits.NARROWER_TOLERANCE:g})"

NO_ERRORS = (
    "chunks have no errors without a classifier and labels, and reconstruction alone "
    "cannot tell clones from low rank"
)
UNINFORMATIVE = (
    "chunks of every width decide alike, which a single class in the data or a bias that "
    "decides would explain as well"
)
TRIVIAL = (
    "there are fewer samples than neurons and no held-out data, so that reconstruction "
    "in sample proves nothing"
)


def _unjudged(evidence: CloneEvidence) -> str:
    """Say why clones cannot be told from what looks like them; empty if they can."""
    if not evidence.has_errors:
        return NO_ERRORS
    if evidence.trivial:
        return TRIVIAL
    return UNINFORMATIVE if evidence.uninformative else ""


def _ask_clones(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    if reason := _unjudged(evidence):
        return check.not_applicable(reason)
    width = evidence.profile.width
    if not evidence.narrow:
        return check.passed(f"No chunk of half of the {width} neurons passes for it.")
    if evidence.refuted:
        return check.not_applicable(
            f"chunks of {evidence.critical_width:.0f} of {width} neurons pass for the "
            "layer, but a null explains one of the claims (LP033)"
        )
    return check.finding(
        Severity.NOTE,
        measured=(
            f"Chunks of {evidence.critical_width:.0f} of {width} neurons fit the "
            f"training set, reconstruct the layer and are read as they are: "
            f"{evidence.num_clones:.3g} clones.{_untested(evidence)}"
        ),
        threshold=(
            f"At least {limits.CLONES_LEAST} clones by every criterion, and no claim "
            "that its null explains."
        ),
        action=f"The layer could be narrower.{_cost(evidence, evidence.at_critical)}",
        command=(
            f"lp.clone_profile(model, loader).keep(width={evidence.critical_width:.0f})"
        ),
    )


def _untested(evidence: CloneEvidence) -> str:
    """Name the claims that there was nothing to hold against."""
    open_ = [c for c in evidence.claims.values() if c.survives is None]
    return f" Not tested: {'; '.join(c.statement for c in open_)}." if open_ else ""


def _advised(evidence: CloneEvidence) -> str:
    """Say what the advised tolerance costs, where it saves a neuron."""
    tolerance = limits.NARROWER_TOLERANCE
    found = [one for one in evidence.narrower if one.tolerance == tolerance]
    narrow = found and found[0].width < evidence.profile.width
    return _cost(evidence, found[0]) if narrow else ""


def _cost(evidence: CloneEvidence, one: Narrower | None) -> str:
    """Say what keeping some neurons costs, as it was measured."""
    if one is None:
        return ""
    before, after = one.errors
    read = "the output" if evidence.profile.consumer is not None else "the layer"
    errors = (
        ""
        if math.isnan(after)
        else f", and the {evidence.data} error from {before:.4g} to {after:.4g}"
    )
    return (
        f" {one.width} neurons, with the others folded into them, change {read} by "
        f"{one.change:.2g} of its spread{errors}."
    )


def _ask_low_rank(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    if reason := _unjudged(evidence):
        return check.not_applicable(reason)
    profile, answer = evidence.profile, evidence.critical["reconstruction"]
    if not answer.clones >= limits.CLONES_LEAST:
        return check.passed("No chunk of half of the neurons reconstructs the layer.")
    place = evidence.at(answer.width)
    measured = (
        f"Chunks of {answer.width:.0f} of {profile.width} neurons reconstruct the layer. "
        f"Read as they are they err on {float(profile.scored.raw[place].nanmean()):.4g}, "
        f"folded on {float(profile.scored.folded[place].nanmean()):.4g}, and the network "
        f"on {profile.scored.full_error:.4g} of the {evidence.data} samples."
    )
    if evidence.critical["readout"].clones >= limits.CLONES_LEAST:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=(
            "Raw and folded error of clones differ by at most "
            f"{evidence.critical['readout'].threshold:.2g}, from half of the neurons on "
            "at the latest."
        ),
        action=(
            "Fold what the other neurons say into the classifier instead of leaving them "
            f"out.{_advised(evidence)}"
        ),
        command=KEEP,
    )


def _ask_nulls(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    if not evidence.reconstructs:
        return check.not_applicable("no chunk narrower than the layer reconstructs it")
    refuted = evidence.refuted
    if not refuted:
        known = [evidence.claims[name] for name in ("reconstruction", "independence")]
        said = [claim.evidence for claim in known if claim.survives]
        if not said:
            return check.not_applicable("there was no null to hold a claim against")
        return check.passed(" ".join(said))
    return check.finding(
        Severity.WARNING,
        measured=" ".join(claim.evidence for claim in refuted),
        threshold=(
            f"An untrained copy stays below R^2 = "
            f"{evidence.critical['reconstruction'].threshold:.4g}; what chunks miss is "
            f"correlated by at most {FLOOR_FACTOR:g} times as much as noise is, or as "
            "clones that know their signals up to noise."
        ),
        action=(
            "Do not call these chunks clones by this claim. Look at the readout, which "
            "low rank does not explain, and at wider chunks, which miss less."
        ),
        command="lp.clone_profile(model, loader, eval_loader=test).plot()",
    )


def _ask_spare(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    profile = evidence.profile
    constant = int(constant_neurons(profile.covariance).sum())
    said = f"{constant} of {profile.width} neurons are constant"
    spare, lossless = constant, evidence.lossless
    if lossless is not None:
        spare = max(constant, profile.width - lossless.width)
    if not spare:
        return check.passed(f"{said}{_tried(evidence)}.")
    if lossless is not None:
        read = "the output" if profile.consumer is not None else "the layer"
        said += (
            f"; without {spare} of them in all, {read} changes by {lossless.change:.2g} "
            "of its spread, which is rounding"
        )
    return check.finding(
        Severity.NOTE,
        measured=f"{said}.",
        threshold=(
            "A neuron can be left out if what reads the layer changes by no more than "
            "sqrt(W eps) of its spread, eps = 2.2e-16."
        ),
        action="Leave them out: their share goes into the bias and the other weights.",
        command="lp.clone_profile(model, loader).keep(tolerance=0)",
    )


def _tried(evidence: CloneEvidence) -> str:
    """Say whether more than constants was looked for."""
    if evidence.lossless is None:
        return ", and what copies others was not looked for"
    return ", and each of the others is needed"


CLONES = Check(
    code="LP030",
    title="The layer consists of clones",
    question="Does the layer consist of clones?",
    source=f"Clones: {PAPER}; the values of the criteria: convention of this package.",
    explanation=(
        "In a wide enough layer of a network that fits its training set, neurons can fall "
        "into groups that carry the same information and differ by independent noise. "
        "Any chunk of so many neurons then does what the layer does: it fits the training "
        "set, it reconstructs all other neurons linearly, what it misses is uncorrelated, "
        "and the classifier reads it as it is. The critical width is the narrowest chunk "
        "that meets all criteria, and the number of clones is the layer's width over it. "
        "That a layer consists of clones does not say that a network of the critical "
        "width would train as well: averaging over clones lowers the error."
    ),
    ask=_ask_clones,
)

LOW_RANK = Check(
    code="LP031",
    title="Chunks hold the layer, but the classifier does not read them",
    question="Does the classifier read chunks that reconstruct the layer?",
    source="Convention of this package.",
    explanation=(
        "A chunk reconstructs the layer as soon as the layer has few directions, as every "
        "collapsed one does. Clones are more than that: each contributes its share of "
        "every logit, so that the classifier can be restricted to one. Where the error of "
        "the restricted classifier stays above that of the classifier with the "
        "reconstruction folded into it, the layer is of low rank and its neurons share "
        "the work of reading it. It can be made narrower all the same, by folding."
    ),
    ask=_ask_low_rank,
)

NULLS = Check(
    code="LP033",
    title="A claim of clones does not survive its null",
    question="Do the claims of clones survive their nulls?",
    source=(
        f"The claims: {PAPER}; the nulls and the factor: convention of this package; "
        "noise is that of independent normal samples, and what clones have in common is "
        "derived in the documentation of claims."
    ),
    explanation=(
        "R^2 near 1 says that the layer has fewer directions than the chunk has neurons. "
        "A layer of an untrained network often has so, too; then training did not make "
        "clones. And clones differ by independent noise: if what a chunk misses is "
        "correlated between neurons by more than chance and the noise of the chunk itself "
        "make it, the neurons share something that the chunk does not have."
    ),
    ask=_ask_nulls,
)

SPARE = Check(
    code="LP036",
    title="Neurons can be left out without any change",
    question="Is every neuron of the layer needed?",
    source="Numerical analysis: a covariance in float64 knows an output to sqrt(W eps).",
    explanation=(
        "A neuron that is constant on the data, an exact copy of another or a linear "
        "combination of others adds nothing to a linear map that it could not have "
        "without it, and one with weights of zero adds nothing at all. On data where "
        "such a neuron does vary this is no longer so: a dead unit may wake."
    ),
    ask=_ask_spare,
)
