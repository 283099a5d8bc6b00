import json

import pytest
import torch
from safetensors import safe_open

from layerpeel.cli.kept_layer import KeptLayer
from layerpeel.cli.narrowing import Narrowing
from tests.reports.clone_profiles import copies, planted, profiled


def narrowed(name, width=None, tolerance=None, select="pivoted"):
    return Narrowing(width, tolerance, select, 0).of(planted(name), "the classifier")


def test_planted_copies_are_left_out_and_the_file_says_so(tmp_path):
    layer = narrowed("copies", tolerance=0.0)
    path = tmp_path / "kept.safetensors"
    layer.write(path)
    with safe_open(path, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["settings"])
    assert set(kept) == {"neurons", "weight", "bias"}
    assert kept["neurons"].tolist() == [0, 1, 2, 3]  # the others repeat these
    features, _, readout = copies()
    narrow = features[:, kept["neurons"]] @ kept["weight"].T + kept["bias"]
    assert (narrow - features @ readout.T).abs().max() < 1e-9
    assert (facts["layer"], facts["layer_width"]) == ("head input", 66)
    assert (facts["width"], facts["select"]) == (4, "pivoted")
    assert facts["held_out"]["error_before"] == facts["held_out"]["error_after"]
    assert facts["measured"]["count"] == 400
    assert layer.to_dict() == {**facts, "neurons": [0, 1, 2, 3]}


def test_numbers_are_those_of_the_profile():
    layer = narrowed("low rank", width=3)
    kept = planted("low rank").keep(width=3)
    assert layer.to_dict()["change"]["relative"] == kept.change.relative
    assert layer.to_dict()["tolerance"] is None
    (table,) = layer.section().tables
    for row, measured in zip(table.rows, (kept.measured, kept.held_out), strict=True):
        assert row[1:4] == (measured.count, measured.relative, measured.largest)
        assert row[4:6] == (measured.error_before, measured.error_after)
        assert row[6] == measured.decisions


TEXTS = [
    (("copies", 3), "3 of 66 neurons are kept, selected by pivots. They are"),
    (("copies", None, 0.0), "below which rounding hides a change"),
    (("low rank", None, 0.2), "at most 0.2 of its spread on the training set."),
    (("copies", 6), "all but 4 repeat what others hold, and are not read (weight 0)"),
    (("copies", 3, None, "random"), "selected at random"),
    (("low rank", 20), "... (4 more)"),
    (("low rank", 3), "the weight and bias of the classifier."),
    (("no classifier", 3), "weight and bias give back all of its neurons."),
]


@pytest.mark.parametrize(("arguments", "said"), TEXTS, ids=str)
def test_text_says_what_was_kept(arguments, said):
    assert said in narrowed(*arguments).section().text


def test_what_rounding_hides_is_not_said_of_a_tolerance_above_it():
    assert "rounding" not in narrowed("low rank", None, 0.2).section().text


def test_without_a_consumer_the_layer_is_given_back():
    layer = narrowed("no classifier", 5)
    (table,) = layer.section().tables
    ((name, count, change, largest),) = table.rows
    assert (name, count) == ("training", planted("no classifier").num_samples)
    assert (change, largest) == (layer.kept.change.relative, layer.kept.change.largest)
    assert layer.to_dict()["consumer"] is None
    assert layer.kept.weight.shape == (64, 5)


def test_the_map_that_reads_the_layer_has_its_own_name_by_default():
    profile = planted("low rank")
    layer = KeptLayer(profile, profile.keep(width=2), "pivoted")
    assert f"weight and bias of `{profile.consumer.name}`" in layer.section().text


def test_undefined_changes_are_explained_beside_the_numbers(recwarn):
    features, labels, readout = copies()
    profile = profiled((features, labels, torch.zeros_like(readout)))
    layer = Narrowing(2, None, "pivoted", 0).of(profile, None)
    assert not recwarn.list
    assert "output that does not vary is undefined" in layer.section().text
    assert layer.to_dict()["change"]["relative"] is None
