import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.measurement.clones.errors.running_argmax import RunningArgmax
from tests.measurement.clones.layers import seeded


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 3))
def test_ties_go_to_the_first_class_in_memory_that_is_reused(seed, classes, times):
    generator = seeded(seed)
    running = RunningArgmax(4, 30, classes)
    for _ in range(times):
        logits = torch.randint(3, (4, classes, 30), generator=generator).double()
        labels = torch.randint(classes, (30,), generator=generator).sort().values
        running.begin(labels)
        for k in range(classes):
            running.enter(k, logits[:, k])
        expected = logits.numpy().argmax(1) != labels.numpy()
        assert running.wrong().tolist() == expected.tolist()
