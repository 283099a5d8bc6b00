"""Checks of what a clone profile rests on: samples, and the errors of the network.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

from layerpeel.measurement.clones.evidence.critical_width import INTERPOLATION_SLACK
from layerpeel.reports.checks.check import Check
from layerpeel.reports.checks.clones import PAPER
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.finding import Outcome, Severity


def _ask_samples(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    profile = evidence.profile
    measured = f"{profile.num_samples} samples for {profile.width} neurons."
    if not profile.rank_deficient:
        return check.passed(measured)
    chunk = max(1, profile.num_samples - 1)
    judged = profile.held_out is not None
    return check.finding(
        Severity.NOTE if judged else Severity.WARNING,
        measured=(
            f"{measured} In sample, chunks of {chunk} reconstruct everything, whatever "
            "the layer is."
            + (" This report judges by held-out data." if judged else "")
        ),
        threshold="There must be more samples than neurons.",
        action=(
            "Pass more samples; what neurons do on others is fitted to too few."
            if judged
            else "Pass more samples, and held-out data as `eval_loader`."
        ),
        command="lp.clone_profile(model, loader, eval_loader=eval_loader)",
    )


def _ask_held_out(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    profile = evidence.profile
    if profile.held_out is not None:
        return check.passed(
            f"Judged on {profile.held_out.count} held-out samples, beside "
            f"{profile.num_samples} to fit to."
        )
    share = profile.width / profile.num_samples
    return check.finding(
        Severity.NOTE,
        measured=(
            f"All numbers are of the {profile.num_samples} samples that reconstructions "
            f"were fitted to; the layer has {profile.width} neurons, {share:.2g} for "
            "each sample."
        ),
        threshold=(
            "In sample, what w neurons miss is too small by about w / N for N samples."
        ),
        action="Pass held-out data.",
        command="lp.clone_profile(model, loader, eval_loader=eval_loader)",
    )


def _ask_interpolation(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    profile = evidence.profile
    if not profile.fitted.has_errors:
        return check.not_applicable("the network's training error is not known")
    error = profile.fitted.full_error
    measured = (
        f"The network errs on {error:.4g} of {profile.num_samples} training samples."
    )
    if error <= INTERPOLATION_SLACK:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=f"At most {INTERPOLATION_SLACK:g} counts as zero.",
        action=(
            "Train until the training error is zero, and profile again on training data "
            "without augmentation."
        ),
    )


def _ask_flat(check: Check[CloneEvidence], evidence: CloneEvidence) -> Outcome:
    profile = evidence.profile
    if not profile.fitted.has_errors or len(profile.widths) < 2:
        return check.not_applicable("there are no errors of chunks of several widths")
    narrowest = profile.widths[0]
    raw = float(profile.fitted.raw[0].nanmean())
    measured = (
        f"Chunks of {narrowest} of {profile.width} neurons err on {raw:.4g} of the "
        f"training set, the network on {profile.fitted.full_error:.4g}."
    )
    if not evidence.flat:
        return check.passed(measured)
    return check.finding(
        Severity.WARNING,
        measured=f"{measured} It is the same for every chunk.",
        threshold="Errors that say something about chunks differ between them.",
        action=(
            "Look at the data: is there more than one class in them? And at the layer: "
            "are its neurons copies of one, or does the bias alone decide?"
        ),
    )


SAMPLES = Check(
    code="LP032",
    title="There are fewer samples than neurons",
    question="Are there more samples than neurons?",
    source="Linear algebra: N centred samples span N - 1 dimensions.",
    explanation=(
        "A linear regression with as many coefficients as samples fits anything. R^2 in "
        "sample is then 1 for noise, its residuals are zero, and the folded classifier "
        "repeats the network on the samples it was made from, and on no others."
    ),
    ask=_ask_samples,
)

HELD_OUT = Check(
    code="LP034",
    title="No held-out data were profiled",
    question="Were held-out data profiled?",
    source="Statistics: residuals of a least-squares fit have fewer degrees of freedom.",
    explanation=(
        "Reconstructions fitted and judged on the same samples look better than they are, "
        "the more so the wider the chunk. The paper's protocol has one set of data; with "
        "a second one R^2, residual correlation and the folded error are those on samples "
        "that no coefficient has seen."
    ),
    ask=_ask_held_out,
)

INTERPOLATION = Check(
    code="LP035",
    title="The network does not fit its training set",
    question="Does the network fit its training set?",
    source=f"Zero training error: {PAPER}; the value: convention of this package.",
    explanation=(
        "Clones were found in networks trained until their training error is zero, and "
        "appear after it is. In a network that still errs on its training set each "
        "neuron may be needed. A training set seen with augmentation, or a head that was "
        "regularised strongly, gives the same picture."
    ),
    ask=_ask_interpolation,
)

FLAT = Check(
    code="LP037",
    title="Chunks of every width decide alike",
    question="Do errors depend on the chunk?",
    source="Convention of this package.",
    explanation=(
        "Errors tell clones from low rank only where they depend on the neurons read. "
        "With samples of one class, or where the bias outweighs the features, the "
        "narrowest chunk errs exactly as the network does. Copies of a single neuron do "
        "so as well; R^2 tells them from the others if they are exact."
    ),
    ask=_ask_flat,
)
