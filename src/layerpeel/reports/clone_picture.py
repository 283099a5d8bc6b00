"""The picture of a report on clones: what it shows, in words too."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from layerpeel.measurement import CloneProfile
from layerpeel.reports.causes import causes
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.picture import Picture

_READINGS = (
    "Raw is the error of the classifier restricted to a chunk, as in Doimo et al. 2021; "
    "folded has the reconstruction of all other neurons folded into it. Raw errors fall "
    "for any layer as chunks get wider: the dashed curve is what drawing them at random "
    "implies. "
)
_RECONSTRUCTION = (
    "R^2 and the correlation of what chunks miss stand beside random rotations of the "
    "layer, which have its covariance spectrum and no clones: where the curves agree, "
    "low rank alone explains the reconstruction"
)


def clone_picture(evidence: CloneEvidence) -> Picture:
    """Return all panels of a profile as a picture.

    Args:
        evidence: The profile, and what follows from it.
    """
    profile = evidence.profile
    readings = _READINGS if profile.scored.has_errors else ""
    nulls = (
        "" if profile.untrained is None else ", and an untrained copy of the network"
    )
    return Picture(
        name="clones",
        title="Chunks of the layer, by their width",
        caption=(
            f"{readings}{_RECONSTRUCTION}{nulls}. Bands are one standard deviation over "
            "chunks."
        ),
        alt=(
            "Curves of error, reconstruction and residual correlation over the width of "
            f"chunks, from {profile.widths[0]} to {profile.widths[-1]} neurons."
        ),
        draw=partial(_drawn, profile),
    )


def _drawn(profile: CloneProfile) -> Figure:
    with causes():
        return profile.plot()[0]
