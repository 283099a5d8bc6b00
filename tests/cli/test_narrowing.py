from pathlib import Path

import pytest

from layerpeel.cli.narrowing import Narrowing
from tests.reports.clone_profiles import planted

NOTHING = {"width": None, "tolerance": None, "select": None, "file": None, "seed": 3}


def typed(**options):
    return Narrowing.typed(**{**NOTHING, **options})


def test_what_is_typed_is_what_is_kept():
    assert typed() is None
    assert typed(width=4) == Narrowing(4, None, "pivoted", 3)
    assert typed(tolerance=0.0) == Narrowing(None, 0.0, "pivoted", 3)
    assert typed(width=4, select="random") == Narrowing(4, None, "random", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4, "tolerance": 0.1}, "either --keep or --tolerance; got 4 neurons"),
        ({"select": "random"}, "--select must come with --keep or --tolerance"),
        ({"select": "random", "file": Path("k")}, "--select and --kept must come with"),
        ({"width": 4, "select": "best"}, "`--select` must be one of"),
        ({"tolerance": -0.1}, "a finite number of at least 0"),
        ({"tolerance": float("nan")}, "got nan"),
        ({"tolerance": float("inf")}, "got inf"),
    ],
    ids=str,
)
def test_contradictions_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        typed(**options)


def test_the_whole_layer_can_be_kept_and_no_more():
    profile = planted("copies")
    assert typed(width=profile.width).of(profile, None).kept.width == 66
    with pytest.raises(ValueError, match="at most the width of the layer, 66 neurons"):
        typed(width=profile.width + 1).of(profile, None)


def test_a_random_selection_is_drawn_from_the_seed():
    def drawn(seed):
        narrowing = typed(width=8, select="random", seed=seed)
        return narrowing.of(planted("independent"), None).kept.neurons.tolist()

    assert drawn(1) == drawn(1) != drawn(2)
