import json

import pytest
import torch

import layerpeel
from layerpeel._json import json_text
from layerpeel.cli import inputs
from layerpeel.cli.sources import load_data, load_features, load_model
from layerpeel.measurement.files import load_measurement
from tests.cli.conftest import save_features

MODEL = ["small_net.py:make", "--data", "small_net.py:loader"]


@pytest.fixture
def measured(user):
    return layerpeel.measure(
        load_model(f"{user}:make").model, load_data(f"{user}:loader", 1)
    )


def test_json_is_the_measurement_of_the_api(run, measured):
    expected = json_text(measured.to_dict())
    assert run("measure", *MODEL, "--json") == (0, expected + "\n", "")


def test_text_shows_network_and_collapse(run, measured):
    code, out, err = run("measure", *MODEL)
    assert (code, err) == (0, "")
    assert str(measured.num_samples) in out
    assert "NC1" in out


def test_layers_are_a_table_of_their_own(user, run):
    code, out, err = run("measure", *MODEL, "--layers", "all")
    assert (code, err) == (0, "")
    table = out.partition("Layer by layer")[2]
    for words in ("CDNV", "linear", "dead", "Linear"):
        assert words in table
    assert "Layer by layer" not in run("measure", *MODEL)[1]


@pytest.mark.parametrize("option", ["-o", "--out"])
def test_statistics_are_written(run, measured, tmp_path, option):
    path = tmp_path / "stats.safetensors"
    code, out, err = run("measure", *MODEL, option, path, "--json")
    assert (code, err) == (0, f"Wrote {path}\n")
    loaded = load_measurement(path)
    assert json_text(loaded.to_dict()) + "\n" == out
    assert loaded.moments.scatter.equal(measured.moments.scatter)
    assert run("measure", *MODEL, option, path, "--quiet") == (0, "", "")


def test_features_are_measured_too(run, tmp_path):
    path = save_features(tmp_path / "f.npz")
    source = load_features(str(path))
    expected = layerpeel.measure_features(
        source.features, source.labels, weight=source.weight, light=True
    )
    code, out, _ = run("measure", "--features", path, "--light", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json_text(expected.to_dict()))


def test_options_reach_the_api(user, run, measured, monkeypatch):
    calls = {}

    def record(model, loader, **options):
        calls.update(options)
        return measured

    monkeypatch.setattr(layerpeel, "measure", record)
    typed = ["--layers", "0, 1", "--light", "--nc4", "skip", "--minority", "2,3"]
    assert run("measure", *MODEL, *typed, "--head", "3", "--quiet")[0] == 0
    assert calls == {
        "eval_loader": None,
        "head": "3",
        "device": None,
        "num_classes": None,
        "class_names": None,
        "minority": [2, 3],
        "light": True,
        "nc4": "skip",
        "progress": False,
        "layers": ["0", "1"],
    }
    assert run("measure", *MODEL, "--layers", "all", "--quiet")[0] == 0
    assert calls["layers"] == "all"


EARLY = [
    ([], "Give either MODEL with --data, or --features; got nothing"),
    ([*MODEL, "--features", "f.npz"], "got MODEL and --features"),
    (["small_net.py:make"], "MODEL needs --data"),
    (["--features", "f.npz", "--layers", "all"], "does not go with --layers"),
    ([*MODEL, "-o", "stats.pt"], "ends in .safetensors"),
    ([*MODEL, "-o", "no/such.safetensors"], "must exist"),
    ([*MODEL, "--minority", "cat"], "--minority must be integers"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), EARLY, ids=lambda v: " ".join(v)[-30:]
)
def test_bad_usage_is_refused_before_any_work(
    user, run, monkeypatch, arguments, message
):
    def work(*_):
        raise AssertionError("nothing may be loaded yet")

    monkeypatch.setattr(inputs, "load_model", work)
    monkeypatch.setattr(inputs, "load_features", work)
    code, out, err = run("measure", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_bad_input_is_told_in_one_message(user, run):
    code, out, err = run("measure", *MODEL, "--nc4", "twice")
    assert (code, out) == (2, "")
    assert err.startswith("Error: `nc4` must be one of")


def test_a_failed_measurement_leaves_the_old_file(user, run, tmp_path):
    old = tmp_path / "stats.safetensors"
    old.write_bytes(b"old")
    typed = ["small_net.py:make", "--data", "small_net.py:stumbling", "-o", old]
    assert run("measure", *typed)[0] == 2
    assert old.read_bytes() == b"old"
    assert torch.is_grad_enabled()
