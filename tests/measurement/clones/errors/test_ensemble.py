import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from layerpeel._checks import LabelError, ShapeError, UndefinedWarning
from layerpeel.measurement.clones.errors.ensemble import (
    BASELINE,
    SCORES,
    ChunkEnsemble,
    chunk_ensemble,
    error_detection,
)


def draw(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def layer(n=60, width=12, classes=4):
    return draw(n, width), draw(classes, width, seed=1), draw(classes, seed=2)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.sets(st.integers(1, 11)))
def test_members_sum_to_the_network_for_any_partition(order, cuts):
    h, v, b = layer()
    chunks = torch.tensor(order).tensor_split(sorted(cuts))
    found = chunk_ensemble(h, v, b, chunks)
    assert len(found.members) == len(cuts) + 1
    torch.testing.assert_close(found.logits, h @ v.T + b, rtol=1e-12, atol=1e-12)
    first = (len(cuts) + 1) * h[:, chunks[0]] @ v[:, chunks[0]].T + b
    torch.testing.assert_close(found.members[0], first)


def test_error_of_the_members_is_error_of_the_mean_and_ambiguity():
    found = chunk_ensemble(*layer(), torch.arange(12).split(3))
    target = draw(60, 4, seed=5)
    members = (found.members - target).square().sum(2).mean(0)
    whole = (found.logits - target).square().sum(1)
    torch.testing.assert_close(members, whole + found.ambiguity)
    torch.testing.assert_close(found.disagreement("variance"), found.ambiguity)


def test_exact_clones_agree():
    h, v, b = layer(width=4)
    found = chunk_ensemble(h.repeat(1, 3), v.repeat(1, 3), b, torch.arange(12).split(4))
    for score in SCORES:
        assert float(found.disagreement(score).max()) < 1e-13


def test_scores_by_hand():
    # Two members, two samples: they agree on the first, and are opposed on the second.
    logits = torch.tensor([[[0.0, 2.0], [9.0, 0.0]], [[0.0, 2.0], [0.0, 3.0]]])
    found = ChunkEnsemble(logits.double())
    assert found.disagreement("votes").tolist() == [0.0, 0.5]
    assert found.disagreement("variance").tolist() == [0.0, 4.5**2 + 1.5**2]

    def entropy(p):
        return -sum(x * math.log(x) for x in (p, 1 - p))

    a, b = 1 / (1 + math.exp(-9)), 1 / (1 + math.exp(3))
    expected = entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2
    assert found.disagreement()[0] == pytest.approx(0)
    assert found.disagreement()[1] == pytest.approx(expected)


def test_areas_are_those_of_scikit_learn():
    h, v, b = layer(n=200)
    found = chunk_ensemble(h, v, b, torch.arange(12).split(2))
    labels = (h @ v.T + b + 2 * draw(200, 4, seed=8)).argmax(1)
    detection = error_detection(found, labels)
    wrong = found.logits.argmax(1) != labels
    assert (detection.wrong, detection.total) == (int(wrong.sum()), 200)
    for score in SCORES:
        area = roc_auc_score(wrong, found.disagreement(score))
        assert detection.auroc[score] == pytest.approx(area)
    softmax = 1 - (h @ v.T + b).softmax(1).amax(1)
    assert detection.auroc[BASELINE] == pytest.approx(roc_auc_score(wrong, softmax))
    assert detection.winner == max(detection.auroc, key=detection.auroc.get)


def test_whichever_is_best_wins_and_the_baseline_wins_ties():
    # Certain in the mean but split, and wrong there: only disagreement can tell.
    agree, split = [[5.0, 0.0]] * 2, [[30.0, 0.0], [-10.0, 0.0]]
    members = torch.tensor([agree, split, agree, split]).double().transpose(0, 1)
    found = error_detection(ChunkEnsemble(members), torch.tensor([0, 1, 0, 1]))
    assert found.auroc["votes"] == 1
    assert found.auroc[BASELINE] == 0
    assert found.winner in SCORES
    plain = ChunkEnsemble(torch.tensor([[[3.0, 0.0], [1.0, 0.0]]]).double())
    tied = error_detection(plain, torch.tensor([0, 1]))
    assert tied.auroc == {BASELINE: 1, "variance": 0.5, "votes": 0.5} | {
        "information": 0.5
    }
    assert tied.winner == BASELINE


def test_detection_without_errors_is_nan_with_its_cause():
    found = chunk_ensemble(*layer(), torch.arange(12).split(4))
    with pytest.warns(UndefinedWarning, match="0 of 60 are wrong"):
        detection = error_detection(found, found.logits.argmax(1))
    assert detection.winner is None
    assert all(math.isnan(area) for area in detection.auroc.values())


PARTS = {
    "missing": [torch.arange(11)],
    "twice": [torch.arange(12), torch.tensor([3])],
    "outside": [torch.arange(1, 13)],
    "none": [],
}


@pytest.mark.parametrize("case", PARTS)
def test_refuses_chunks_that_are_no_partition(case):
    with pytest.raises(ValueError, match="each of the 12 neurons exactly once"):
        chunk_ensemble(*layer(), PARTS[case])


def test_refuses_other_shapes_and_names():
    h, v, b = layer()
    with pytest.raises(ShapeError, match=r"\(60, 12\), \(4, 11\) and \(4,\)"):
        chunk_ensemble(h, v[:, 1:], b, torch.arange(12).split(4))
    found = chunk_ensemble(h, v, b, torch.arange(12).split(4))
    with pytest.raises(ValueError, match="'votes'"):
        found.disagreement("vote")
    with pytest.raises(ShapeError, match=r"\(60,\)"):
        error_detection(found, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(LabelError):
        error_detection(found, torch.full((60,), 4))
