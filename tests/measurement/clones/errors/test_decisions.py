import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.measurement.clones.errors.decisions import wrong_decisions
from tests.measurement.clones.layers import seeded


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_ties_go_to_the_first_class(seed, classes):
    generator = seeded(seed)
    logits = torch.randint(3, (4, classes, 30), generator=generator).double()
    labels = torch.randint(classes, (30,), generator=generator).sort().values
    expected = (logits.numpy().argmax(1) != labels.numpy()).sum(1)
    assert wrong_decisions(logits, labels).tolist() == expected.tolist()
