"""What the checks of a clone profile look at: the profile, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones import Claim, CriticalWidth, PowerLaw
from layerpeel.reports import thresholds as limits
from layerpeel.reports.causes import causes
from layerpeel.reports.narrower import Narrower, narrowed, narrower


@dataclass(frozen=True, eq=False)
class CloneEvidence:
    """All that a check of clones may look at.

    Attributes:
        profile: What was measured.
        narrower: How many neurons suffice for some tolerances.
        at_critical: The layer narrowed down to its critical width; ``None`` where that
            would leave more than half of it.
        law: The power law of the errors of chunks; ``None`` where there is none.
        no_law: Why there is none, as a sentence; empty where there is one.
    """

    profile: CloneProfile
    narrower: tuple[Narrower, ...]
    at_critical: Narrower | None
    law: PowerLaw | None
    no_law: str = ""

    @classmethod
    def of(cls, profile: CloneProfile) -> CloneEvidence:
        """Work out what follows from a profile.

        Args:
            profile: The profile of a layer.
        """
        with causes():  # what is undefined is said where it is shown
            law, no_law = _power_law(profile)
            rows = narrower(profile)
            # The width is NaN, and the number of clones with it, if there is none.
            half = profile.num_clones >= limits.CLONES_LEAST and rows
            one = narrowed(profile, int(profile.critical_width)) if half else None
            return cls(profile, rows, one, law, no_law)

    @property
    def claims(self) -> dict[str, Claim]:
        """The claims by name."""
        with causes():
            return {claim.name: claim for claim in self.profile.claims}

    @property
    def critical(self) -> dict[str, CriticalWidth]:
        """The critical widths by criterion."""
        with causes():
            return self.profile.critical

    @property
    def critical_width(self) -> float:
        """The critical width; NaN where a criterion is not met."""
        with causes():
            return self.profile.critical_width

    @property
    def deciding(self) -> tuple[CriticalWidth, ...]:
        """The criteria that are met last, or not at all."""
        answers = tuple(self.critical.values())
        missed = tuple(answer for answer in answers if math.isnan(answer.width))
        last = max(answer.width for answer in answers)
        return missed or tuple(a for a in answers if a.width == last)

    @property
    def has_errors(self) -> bool:
        """Whether chunks were read, on the training set and on the data judged by."""
        profile = self.profile
        return profile.fitted.has_errors and profile.scored.has_errors

    @property
    def flat(self) -> bool:
        """Whether chunks of every width err equally often."""
        raw = self.profile.fitted.raw
        known = raw[~raw.isnan()]
        return len(known) > 1 and bool((known == known[0]).all())

    @property
    def reconstructs(self) -> bool:
        """Whether chunks narrower than the layer reconstruct it."""
        return self.critical["reconstruction"].width < self.profile.width

    @property
    def uninformative(self) -> bool:
        """Whether errors do not tell clones from a single class, or a bias that decides.

        All chunks decide alike then, those of a single neuron, too. Exact copies of one
        neuron do so as well, but each of them reconstructs the layer.
        """
        return self.flat and self.critical["reconstruction"].below > 0

    @property
    def num_clones(self) -> float:
        """The number of clones; NaN where a criterion is not met."""
        return self.profile.width / self.critical_width

    @property
    def narrow(self) -> bool:
        """Whether at least two clones would fit into the layer, by all criteria."""
        return self.num_clones >= limits.CLONES_LEAST

    @property
    def trivial(self) -> bool:
        """Whether reconstruction proves nothing: in sample, with too few samples."""
        return self.profile.rank_deficient and self.profile.held_out is None

    @property
    def refuted(self) -> tuple[Claim, ...]:
        """The claims that something else explains, where chunks reconstruct the layer."""
        names = ("reconstruction", "independence") if self.reconstructs else ()
        found = [self.claims[name] for name in names]
        return tuple(claim for claim in found if claim.survives is False)

    @property
    def lossless(self) -> Narrower | None:
        """The layer without what it does not need; ``None`` where that is not known.

        Too few samples span less than the neurons do.
        """
        if (
            not self.narrower
            or self.narrower[-1].tolerance
            or self.profile.rank_deficient
        ):
            return None
        return self.narrower[-1]

    @property
    def data(self) -> str:
        """What the data are called that are judged by."""
        return "training" if self.profile.held_out is None else "held-out"

    def at(self, width: float) -> int:
        """Return the place of a width among those measured."""
        return self.profile.widths.index(int(width))


def _power_law(profile: CloneProfile) -> tuple[PowerLaw | None, str]:
    """Fit a power law, or say why there is none."""
    if not (profile.fitted.has_errors and profile.scored.has_errors):
        return None, "No power law: there are no errors of chunks to fit it to."
    with causes() as found:
        profile.critical  # noqa: B018 - what it warns of is no cause of this
        found.clear()
        law = profile.power_law()
    return (None, " ".join(found)) if math.isnan(law.exponent.value) else (law, "")
