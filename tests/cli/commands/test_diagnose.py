import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import layerpeel
from layerpeel.cli import inputs
from layerpeel.cli.sources import load_data, load_model
from layerpeel.measurement.files import save_measurement
from tests.cli.conftest import save_features

# diagnose: what goes in


def test_model_options_reach_the_api(user, run, seen):
    code, _, err = run(
        *["diagnose", f"{user}:make", "--data", f"{user}:loader"],
        *["--eval-data", f"{user}:held_out", "--head", "3", "--num-classes", "4"],
        *["--class-names", "a, b,c ,d", "--minority", "1,3", "--device", "cpu"],
        "--quiet",
    )
    assert (code, err) == (0, "")
    call = seen["diagnose"]
    given = {name: call[name] for name in call if name not in ("model", "loader")}
    assert len(given.pop("eval_loader")) == 1
    assert given == {
        "head": "3",
        "num_classes": 4,
        "class_names": ["a", "b", "c", "d"],
        "minority": [1, 3],
        "device": "cpu",
        "progress": False,
    }
    assert not call["model"].training


def test_defaults_leave_the_choice_to_the_api(user, run, seen):
    assert run("diagnose", f"{user}:make", "--data", f"{user}:loader")[0] == 0
    call = seen["diagnose"]
    chosen = {name for name, value in call.items() if value is not None}
    assert chosen == {"model", "loader"}


def test_weights_and_array_files(user, run, seen, tmp_path):
    state = {
        k: 0.5 * v for k, v in load_model(f"{user}:make").model.state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    inputs = np.concatenate(
        [np.eye(4, 6), 2 * np.eye(4, 6)]
    )  # float64, as NumPy has it
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=np.arange(8) % 4)
    code, _, err = run(
        *["diagnose", f"{user}:make", "--weights", "w.safetensors", "--data", "d.npz"],
        *["--batch-size", "3"],
    )
    assert (code, err) == (0, "")
    loaded = seen["diagnose"]["model"].state_dict()
    assert all(loaded[name].equal(state[name]) for name in state)
    assert [len(labels) for _, labels in seen["diagnose"]["loader"]] == [3, 3, 2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A Hugging Face folder, and data under the names that its model takes."""
    import transformers

    monkeypatch.chdir(tmp_path)
    config = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )
    transformers.ResNetForImageClassification(config).save_pretrained("folder")
    pixels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    save_file({"pixel_values": pixels, "labels": labels}, "d.safetensors")
    return ["diagnose", "folder", "--data", "d.safetensors"]


def test_a_hugging_face_folder_is_diagnosed_with_its_class_names(run, folder):
    code, out, err = run(*folder)
    assert (code, err) == (0, "")
    assert all(name in out for name in ["cat", "dog", "owl"])


def test_typed_class_names_come_first(run, folder, seen):
    assert run(*folder)[0] == 0
    assert seen["diagnose"]["class_names"] == ("cat", "dog", "owl")
    assert run(*folder, "--class-names", "x,y,z")[0] == 0
    assert seen["diagnose"]["class_names"] == ["x", "y", "z"]


def test_features_reach_the_api(run, seen, tmp_path):
    more = {
        "bias": np.array([1.0, 2, 3, 4]),
        "eval_features": np.eye(4),
        "eval_labels": np.arange(4),
        "class_names": np.array(["a", "b", "c", "d"]),
    }
    path = save_features(tmp_path / "f.npz", **more)
    assert run("diagnose", "--features", path, "--num-classes", 4)[0] == 0
    call = seen["diagnose_features"]
    with np.load(path) as saved:
        for name in saved.files:
            assert np.array_equal(call[name], saved[name]), name
    assert (call["num_classes"], call["minority"]) == (4, None)


def test_seed_decides_what_a_random_model_is_and_nothing_else_does(user, run, seen):
    def weight(seed, unrelated):
        torch.manual_seed(unrelated)
        before = torch.get_rng_state()
        arguments = ["diagnose", f"{user}:drawn", "--data", f"{user}:loader"]
        assert run(*arguments, "--seed", seed)[0] == 0
        assert torch.get_rng_state().equal(before)
        return seen["diagnose"]["model"][3].weight.tolist()

    assert weight(1, unrelated=5) == weight(1, unrelated=6) != weight(2, unrelated=5)


def test_clones_are_asked_for_of_models_and_of_features(user, run, seen):
    save_features("f.npz")
    assert run("diagnose", *MODEL, "--clones")[0] == 0
    assert run("diagnose", "--features", "f.npz", "--clones")[0] == 0
    assert [call["clones"] for call in seen.values()] == [True, True]
    assert run("diagnose", *MODEL)[0] == 0
    assert "clones" not in seen["diagnose"]


# diagnose: what comes out


def test_clones_are_a_section_of_the_report(user, run):
    def titles(*typed):
        code, out, _ = run("diagnose", *MODEL, "--json", *typed)
        assert code == 0
        return [section["title"] for section in json.loads(out)["sections"]]

    title = "Clones of the last layer"
    assert title in titles("--clones")
    assert title not in titles()
    assert title in run("diagnose", *MODEL, "--clones")[1]


def test_model_output_is_the_report_of_the_api(user, run):
    report = layerpeel.diagnose(
        load_model(f"{user}:make").model, load_data(f"{user}:loader", 1)
    )
    arguments = ["diagnose", f"{user}:make", "--data", f"{user}:loader"]
    assert run(*arguments, "--json") == (0, report.to_json() + "\n", "")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert report.findings[0].title in out


@pytest.mark.parametrize("suffix", [".html", ".json"])
def test_features_output_is_the_report_of_the_api(run, features, tmp_path, suffix):
    path, report = features
    report.save(tmp_path / f"api{suffix}")
    out = tmp_path / f"typed{suffix}"
    code, printed, err = run("diagnose", "--features", path, "--out", out, "--json")
    assert (code, printed, err) == (0, report.to_json() + "\n", f"Wrote {out}\n")
    assert out.read_bytes() == (tmp_path / f"api{suffix}").read_bytes()


def test_text_is_that_of_the_report_at_the_width_of_the_terminal(
    run, features, monkeypatch
):
    path, report = features
    monkeypatch.setenv("COLUMNS", "77")
    expected = report.to_text(77)
    assert expected != report.to_text(100)
    assert run("diagnose", "--features", path) == (0, expected + "\n", "")


def test_quiet_leaves_files_and_the_exit_code(run, features, tmp_path):
    path, report = features
    out = tmp_path / "r.json"
    arguments = ["diagnose", "--features", path, "--quiet", "--out", out]
    assert run(*arguments, "--fail-on", "note") == (1, "", "")
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(report.to_json())


COLLAPSED = 0.02
CODES = [
    (1.0, "note", [], 0),
    (1.0, "note", ["--fail-on", "note"], 1),
    (1.0, "note", ["--fail-on", "warning"], 0),
    (COLLAPSED, "problem", ["--fail-on", "warning"], 1),
    (COLLAPSED, "problem", ["--fail-on", "problem"], 1),
    (COLLAPSED, "problem", [], 0),
]


@pytest.mark.parametrize(("spread", "worst", "options", "expected"), CODES)
def test_fail_on_follows_the_worst_finding(
    run, tmp_path, spread, worst, options, expected
):
    path = save_features(tmp_path / "f.npz", minority_spread=spread)
    code, out, _ = run("diagnose", "--features", path, "--json", *options)
    assert (code, json.loads(out)["severity"]) == (expected, worst)


# diagnose: what is refused


def array_file(path, **arrays):
    np.savez(path, **arrays)


def object_arrays():
    array_file("d.npz", inputs=np.array([{}, None]), labels=np.array([0, 1]))


def short_labels():
    array_file("d.npz", inputs=np.ones((3, 6)), labels=np.array([0, 1]))


def wrong_names():
    array_file("d.npz", X=np.ones((3, 6)), y=np.array([0, 1, 2]))


def other_width():
    array_file("d.npz", inputs=np.ones((4, 7)), labels=np.arange(4))


def unknown_label():
    array_file("d.npz", inputs=np.ones((4, 6)), labels=np.arange(4) + 3)


def whole_model():
    torch.save(torch.nn.Linear(6, 4), "w.pt")


def other_weights():
    torch.save(torch.nn.Linear(6, 4).state_dict(), "w.pt")


def short_feature_labels():
    ones = np.ones((4, 2))
    array_file("f.npz", features=ones, labels=np.arange(3), weight=ones)


def short_eval_labels():
    save_features("f.npz", eval_features=np.eye(4), eval_labels=np.arange(3))


def narrow_weight():
    ones = np.ones((4, 2))
    array_file("f.npz", features=ones, labels=np.arange(4), weight=np.ones((4, 3)))


def nothing():
    pass


MODEL = ["small_net.py:make", "--data", "small_net.py:loader"]
DATA = ["small_net.py:make", "--data", "d.npz"]
WEIGHTS = [*MODEL, "--weights", "w.pt"]
FEATURES = ["--features", "f.npz"]

EARLY = [
    ([], "got nothing"),
    ([*MODEL, *FEATURES], "got MODEL and --features"),
    (["small_net.py:make"], "MODEL needs --data"),
    ([*FEATURES, "--data", "d.npz"], "does not go with --data"),
    ([*FEATURES, "--eval-data", "d.npz", "--head", "fc"], "with --eval-data, --head"),
    ([*FEATURES, "--weights", "w.pt"], "does not go with --weights"),
    ([*MODEL, "--minority", "cat"], "--minority must be integers"),
    ([*MODEL, "--minority", ""], "--minority must be integers"),
    ([*MODEL, "--device", "gpu"], "device must be one of cpu"),
    ([*MODEL, "--out", "r.pdf"], "--out must end in .html or .json; got 'r.pdf'"),
    ([*MODEL, "--out", "report"], "--out must end in .html or .json"),
    ([*MODEL, "--out", "no/such/r.html"], "must exist"),
    ([*MODEL, "--out", "small_net.py/r.html"], "must be a directory"),
    ([*FEATURES, "--out", "no/such/r.json"], "must exist"),
    ([*MODEL, "--fail-on", "error"], "'error'"),
    ([*MODEL, "--batch-size", "0"], "--batch-size"),
    ([*MODEL, "--num-classes", "many"], "--num-classes"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), EARLY, ids=lambda v: " ".join(v)[-40:]
)
def test_bad_usage_is_refused_before_any_work(
    user, run, monkeypatch, arguments, message
):
    def work(*_):
        raise AssertionError("nothing may be loaded yet")

    monkeypatch.setattr(inputs, "load_model", work)
    monkeypatch.setattr(inputs, "load_features", work)
    code, out, err = run("diagnose", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_missing_jinja2_is_told_before_any_work(user, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, out, err = run("diagnose", *MODEL, "--out", "r.html")
    assert (code, out) == (2, "")
    assert "pip install 'layerpeel[report]'" in err


LATE = [
    (nothing, ["small_net.py:mak", *MODEL[1:]], "has no `mak`; it has"),
    (nothing, ["small_net:absent", *MODEL[1:]], "has no `absent`"),
    (nothing, ["small_net.py:needs", *MODEL[1:]], "without arguments"),
    (nothing, ["net.py:make", *MODEL[1:]], "no file `net.py`"),
    (nothing, ["no_such_module:make", *MODEL[1:]], "no module `no_such_module`"),
    (nothing, ["google/vit", *MODEL[1:]], "there is no folder 'google/vit'"),
    (nothing, DATA, "no file `d.npz`"),
    (nothing, [*DATA[:2], "data.csv"], "ends in .npz or .safetensors"),
    (nothing, WEIGHTS, "no file `w.pt`"),
    (nothing, FEATURES, "no file `f.npz`"),
    (whole_model, WEIGHTS, "must hold tensors alone"),
    (other_weights, WEIGHTS, "unexpected: weight, bias"),
    (object_arrays, DATA, "`inputs` in `d.npz`"),
    (wrong_names, DATA, "lacks `labels`"),
    (short_labels, DATA, "`inputs` must have one sample per label"),
    (unknown_label, DATA, "labels"),
    (nothing, [*MODEL, "--head", "classifier"], "classifier"),
    (nothing, [*MODEL, "--num-classes", "7"], "7"),
    (nothing, [*MODEL, "--class-names", "a,b"], "class_names"),
    (nothing, [*MODEL, "--minority", "9"], "9"),
    (short_feature_labels, FEATURES, "`labels` must have shape (4,)"),
    (short_eval_labels, FEATURES, "labels"),
    (narrow_weight, FEATURES, "`features` must have shape"),
]


@pytest.mark.parametrize(("prepare", "arguments", "message"), LATE)
def test_bad_input_is_told_in_one_message(user, run, prepare, arguments, message):
    prepare()
    code, out, err = run("diagnose", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "unexpected" not in err.split(":")[1]
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (nothing, [*MODEL[:2], "small_net.py:stumbling"], "bad sample 20"),
        (other_width, DATA, "7"),
    ],
)
def test_what_the_users_code_raises_is_not_taken_for_a_finding(
    user, run, prepare, arguments, message
):
    prepare()
    code, out, err = run("diagnose", *arguments, "--fail-on", "note")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    code, _, err = run("diagnose", *arguments, "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    assert message in err.splitlines()[-1]


def test_interrupt_is_not_taken_for_a_finding(user, run):
    arguments = ["diagnose", f"{user}:interrupted", *MODEL[1:]]
    assert run(*arguments, "--fail-on", "note") == (130, "", "")


def test_failed_report_leaves_the_old_one(user, run):
    Path("r.html").write_text("old")
    assert run("diagnose", *DATA, "--out", "r.html")[0] == 2
    assert Path("r.html").read_text() == "old"


# diagnose: statistics measured before


@pytest.fixture
def stats(features, tmp_path):
    """A file of statistics, and the report that the API makes of the same features."""
    path = tmp_path / "stats.safetensors"
    save_measurement(features[1].measurement, path)
    return path


def test_statistics_give_the_report_of_their_features(run, features, stats):
    report = features[1].to_json()
    assert run("diagnose", "--stats", stats, "--json") == (0, report + "\n", "")


def test_statistics_of_light_mode_are_diagnosed_too(run, tmp_path):
    path = save_features(tmp_path / "f.npz")
    stats = tmp_path / "stats.safetensors"
    assert run("measure", "--features", path, "--light", "-o", stats)[0] == 0
    code, out, _ = run("diagnose", "--stats", stats)
    assert code == 0
    assert "Findings" in out


def test_statistics_go_with_no_other_source(run, stats):
    for typed, message in [
        (["--features", "f.npz"], "got --features and --stats"),
        (["--data", "d.npz"], "--stats needs no model and does not go with --data"),
        (["--minority", "1,2"], "--stats does not go with --minority"),
        (["--class-names", "a,b"], "the file says what the classes are"),
        (["--clones"], "clones are looked for in features, and the file has none"),
    ]:
        code, out, err = run("diagnose", "--stats", stats, *typed)
        assert (code, out) == (2, "")
        assert message in err


def test_bad_statistics_are_told_in_one_message(run, stats):
    stats.write_bytes(stats.read_bytes()[:-9])
    code, out, err = run("diagnose", "--stats", stats)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "is damaged" in err
