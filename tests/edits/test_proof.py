from dataclasses import replace

import pytest
from torch import nn

from layerpeel.edits import Edit, LiftProof

PROOF = LiftProof(
    exact=True,
    everywhere=False,
    samples=12,
    output_change=1e-15,
    output_scale=2.0,
    gradient_before=None,
    gradient_after=None,
    margin=0.5,
    radius=0.25,
    manifold_dimension=6,
    inertia_shift=(0, 6, 0),
    inertia_checked=False,
    slope=None,
    unit_slope=None,
    caveats=("Mind this.",),
)


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "exact: largest change 1.00e-15 of 2.00e+00, on 12", "gradient"),
        ({"exact": False}, "approximate", "slope"),
        ({"gradient_before": 1.0, "gradient_after": 2.0}, "2.00e+00 after", "slope"),
        ({"inertia_shift": None}, "6 dimensions", "inertia"),
        ({"inertia_checked": True}, "plus (0, 6, 0) (checked)", "predicted"),
        ({"slope": -0.5, "unit_slope": -0.25}, "-5.00e-01 per step", "gradient"),
        ({}, "Mind this.", "checked"),
        ({"everywhere": True}, "exact for every input: largest", "slope"),
        ({"output_change": None}, "exact, not measured: there are no data", "largest"),
    ],
)
def test_a_proof_says_what_it_holds_and_no_more(changes, said, unsaid):
    edit = Edit(nn.Identity(), replace(PROOF, **changes), "Did a thing.")
    text = edit.summary()
    assert text.startswith("Did a thing.\n")
    assert said in text
    assert unsaid not in text
