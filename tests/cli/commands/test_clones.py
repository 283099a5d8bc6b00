import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import layerpeel
from layerpeel import measurement
from layerpeel.cli import inputs
from layerpeel.cli.sources import load_data, load_features, load_model
from layerpeel.reports.clone_report import CloneReport
from tests.cli.conftest import save_features

MODEL = ["small_net.py:make", "--data", "small_net.py:loader"]
FEATURES = ["--features", "f.npz"]
FEW = ["--repeats", "3"]

NORMED = """
from torch import nn
from small_net import loader

def make():
    return nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 4)
    ).requires_grad_(False)

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.stem(x).relu())

def narrow_data():
    return [(x[:, :5], y) for x, y in loader()]
"""


def save_copies(path, **more):
    """Features that repeat 3 neurons 8 times, read by 3 classes, the last 40 held out."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(160, 3, generator=generator).repeat(1, 8)
    weight = torch.randn(3, 3, generator=generator).repeat(1, 8)
    labels = (features @ weight.T).argmax(1)
    np.savez(
        path,
        features=features[:120],
        labels=labels[:120],
        weight=weight,
        eval_features=features[120:],
        eval_labels=labels[120:],
        **more,
    )
    return path


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A file of features, and the report that the API makes of it."""
    path = save_copies(tmp_path_factory.mktemp("features") / "f.npz")
    return path, CloneReport.of(profiled(path))


def profiled(path, **options):
    source = load_features(str(path))
    return layerpeel.clone_profile_features(
        source.features,
        source.labels,
        weight=source.weight,
        eval_features=source.eval_features,
        eval_labels=source.eval_labels,
        **{"repeats": 3, **options},
    )


@pytest.fixture
def seen(monkeypatch, copies):
    """Record what the API is called with, and answer with a profile made before."""
    calls = {}

    def record(name):
        signature = inspect.signature(getattr(layerpeel, name))

        def recorded(*args, **kwargs):
            calls[name] = signature.bind(*args, **kwargs).arguments
            return copies[1].profile

        monkeypatch.setattr(layerpeel, name, recorded)

    record("clone_profile")
    record("clone_profile_features")
    return calls


# What goes in


def test_options_of_a_model_reach_the_api(user, run, seen):
    code, _, err = run(
        *["clones", *MODEL, "--eval-data", f"{user}:held_out", "--head", "3"],
        *["--layer", "0", "--widths", "4, 2", "--repeats", "7", "--scope", "all"],
        *["--paper", "--no-untrained", "--maps", "flattened", "--seed", "5"],
        *["--num-classes", "4", "--device", "cpu", "--quiet"],
    )
    assert (code, err) == (0, "")
    call = dict(seen["clone_profile"])
    assert not call.pop("model").training
    assert len(call.pop("loader")) == 2
    assert len(call.pop("eval_loader")) == 1
    assert call.pop("generator").initial_seed() == 5
    assert call == {
        "layer": "0",
        "head": "3",
        "widths": [4, 2],
        "repeats": 7,
        "scope": "all",
        "paper": True,
        "untrained_null": False,
        "maps": "flattened",
        "num_classes": 4,
        "device": "cpu",
        "progress": False,
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("clone_profile", MODEL), ("clone_profile_features", FEATURES)],
)
def test_defaults_are_those_of_the_api(user, run, seen, name, arguments):
    save_copies("f.npz")
    signature = inspect.signature(getattr(measurement, name))
    assert run("clones", *arguments)[0] == 0
    call = dict(seen[name])
    assert call.pop("generator").initial_seed() == 0
    data = ("model", "loader", "features", "labels", "weight")
    held_out = ("eval_features", "eval_labels")
    for option in call.keys() - {*data, *held_out}:
        assert call[option] == signature.parameters[option].default, option


def test_features_reach_the_api(run, seen, tmp_path):
    names = np.array(["a", "b", "c"])  # of no use here, but no reason to refuse a file
    path = save_copies(tmp_path / "f.npz", bias=np.ones(3), class_names=names)
    typed = ["--widths", "all", "--scope", "all", "--paper", "--num-classes", "3"]
    assert run("clones", "--features", path, *typed)[0] == 0
    call = seen["clone_profile_features"]
    with np.load(path) as saved:
        for name in set(saved.files) - {"class_names"}:
            assert np.array_equal(call[name], saved[name]), name
    chosen = ("widths", "scope", "paper", "num_classes")
    assert [call[name] for name in chosen] == ["all", "all", True, 3]


def test_weights_reach_the_api(user, run, seen):
    state = load_model(f"{user}:make").model.state_dict()
    save_file({k: 0.5 * v for k, v in state.items()}, "w.safetensors")
    assert run("clones", *MODEL, "--weights", "w.safetensors")[0] == 0
    loaded = seen["clone_profile"]["model"].state_dict()
    assert all(loaded[name].equal(0.5 * state[name]) for name in state)


# What comes out


def test_output_of_a_model_is_the_report_of_the_api(user, run):
    profile = layerpeel.clone_profile(
        load_model(f"{user}:make").model,
        load_data(f"{user}:loader", 1),
        eval_loader=load_data(f"{user}:held_out", 1),
        generator=torch.Generator().manual_seed(2),
        repeats=3,
    )
    arguments = ["clones", *MODEL, "--eval-data", f"{user}:held_out", *FEW]
    expected = CloneReport.of(profile).to_json() + "\n"
    assert run(*arguments, "--seed", 2, "--json") == (0, expected, "")
    assert json.loads(run(*arguments, "--seed", 3, "--json")[1]) != json.loads(expected)


def test_the_layer_and_the_null_are_those_asked_for(user, run):
    def profile(*typed):
        code, out, _ = run("clones", *MODEL, *FEW, "--json", *typed)
        assert code == 0
        return json.loads(out)["profile"]

    whole, hidden = profile(), profile("--layer", "0", "--no-untrained")
    assert (whole["layer"], hidden["layer"]) == ("head input", "0")
    assert whole["untrained"] is not None
    assert hidden["untrained"] is None
    assert hidden["cause"] == ["No untrained copy was asked for."]


@pytest.mark.parametrize(
    ("typed", "widths"),
    [
        ([], [1, 3, 6, 12, 24]),
        (["--widths", "dyadic"], [1, 3, 6, 12, 24]),
        (["--widths", "8,2, 8"], [2, 8]),
        (["--widths", " all "], list(range(1, 25))),
    ],
    ids=str,
)
def test_widths_are_those_asked_for(run, copies, typed, widths):
    code, out, _ = run("clones", "--features", copies[0], *FEW, "--json", *typed)
    assert (code, json.loads(out)["profile"]["widths"]) == (0, widths)


@pytest.mark.parametrize(
    "options",
    [{"paper": True}, {"scope": "all"}, {"repeats": 1}, {"widths": [3, 8, 12, 24]}],
    ids=str,
)
def test_options_change_the_numbers_as_they_do_in_the_api(run, copies, options):
    path, _ = copies
    typed = {
        "paper": ["--paper"],
        "scope": ["--scope", "all"],
        "repeats": ["--repeats", "1"],
        "widths": ["--widths", "3,8,12,24"],
    }
    (name,) = options
    said = json.loads(
        run("clones", "--features", path, *FEW, *typed[name], "--json")[1]
    )
    assert said == json.loads(CloneReport.of(profiled(path, **options)).to_json())


@pytest.mark.parametrize(("option", "suffix"), [("--out", ".html"), ("-o", ".json")])
def test_report_files_are_those_of_the_api(run, copies, tmp_path, option, suffix):
    path, report = copies
    report.save(tmp_path / f"api{suffix}")
    out = tmp_path / f"typed{suffix}"
    code, printed, err = run("clones", "--features", path, *FEW, option, out, "--json")
    assert (code, printed, err) == (0, report.to_json() + "\n", f"Wrote {out}\n")
    assert out.read_bytes() == (tmp_path / f"api{suffix}").read_bytes()


def test_text_is_that_of_the_report_at_the_width_of_the_terminal(
    run, copies, monkeypatch
):
    path, report = copies
    monkeypatch.setenv("COLUMNS", "77")
    assert report.to_text(77) != report.to_text(100)
    expected = (0, report.to_text(77) + "\n", "")
    assert run("clones", "--features", path, *FEW) == expected


def test_quiet_leaves_files_and_the_exit_code(run, copies, tmp_path):
    out, kept = tmp_path / "r.json", tmp_path / "k.safetensors"
    typed = ["--quiet", "-o", out, "--keep", "3", "--kept", kept, "--fail-on", "note"]
    assert run("clones", "--features", copies[0], *FEW, *typed) == (1, "", "")
    assert json.loads(out.read_text())["kept"]["width"] == 3
    assert len(load_file(kept)["neurons"]) == 3


@pytest.mark.parametrize(
    ("severity", "expected"), [(None, 0), ("note", 1), ("warning", 0), ("problem", 0)]
)
def test_fail_on_follows_the_worst_finding(run, copies, severity, expected):
    path, report = copies
    assert report.worst.value == "note"
    typed = [] if severity is None else ["--fail-on", severity]
    assert run("clones", "--features", path, *FEW, *typed)[0] == expected


# Neurons to keep


def test_kept_neurons_move_no_output_of_planted_copies(run, copies, tmp_path):
    path, _ = copies
    kept = tmp_path / "k.safetensors"
    typed = ["--tolerance", "0", "--kept", kept]
    code, out, err = run("clones", "--features", path, *FEW, *typed)
    assert (code, err) == (0, f"Wrote {kept}\n")
    assert "3 of 24 neurons are kept, selected by pivots" in out
    source, layer = load_features(str(path)), load_file(kept)
    narrow = source.eval_features[:, layer["neurons"]].double() @ layer["weight"].T
    before = source.eval_features.double() @ source.weight.double().T
    assert (narrow + layer["bias"] - before).abs().max() < 1e-9


def test_json_and_html_have_the_neurons_kept(run, copies, tmp_path):
    path, report = copies
    html = tmp_path / "r.html"
    typed = ["--keep", "2", "--json", "-o", html]
    code, out, _ = run("clones", "--features", path, *FEW, *typed)
    content = json.loads(out)
    expected = report.profile.keep(width=2)
    assert code == 0
    assert content["kept"]["neurons"] == expected.neurons.tolist()
    assert content["kept"]["change"]["relative"] == expected.change.relative
    assert content["kept"]["held_out"]["error_after"] == expected.held_out.error_after
    assert content["findings"] == report.to_dict()["findings"]
    assert "2 of 24 neurons are kept" in html.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [html]


def test_a_random_selection_follows_the_seed(run, copies):
    def kept(seed):
        typed = ["--keep", "3", "--select", "random", "--seed", seed, "--json"]
        code, out, _ = run("clones", "--features", copies[0], *FEW, *typed)
        assert code == 0
        return json.loads(out)["kept"]

    first = kept(1)
    assert first == kept(1)
    assert first["neurons"] != kept(2)["neurons"]
    assert first["select"] == "random"


def test_the_reader_of_a_model_is_named_by_its_path(user, run):
    _, out, _ = run("clones", *MODEL, *FEW, "--keep", "3")
    assert "folded into the weight and bias of `3`" in " ".join(out.split())


def test_a_layer_without_a_linear_consumer_is_given_back(user, run):
    Path("normed.py").write_text(NORMED)
    typed = ["--layer", "0", "--keep", "3", "--kept", "k.safetensors"]
    arguments = ["clones", "normed.py:make", *MODEL[1:], *FEW, *typed]
    code, out, err = run(*arguments)
    assert (code, err) == (0, "Wrote k.safetensors\n")
    assert "give back all of its neurons" in " ".join(out.split())
    assert load_file("k.safetensors")["weight"].shape == (5, 3)


def test_a_failed_profile_leaves_the_old_files(user, run):
    for name in ("k.safetensors", "r.html"):
        Path(name).write_text("old")
    typed = ["--keep", "3", "--kept", "k.safetensors", "-o", "r.html"]
    arguments = ["small_net.py:make", "--data", "small_net.py:stumbling", *typed]
    assert run("clones", *arguments)[0] == 2
    assert run("clones", *MODEL, *FEW, *typed[2:], "--keep", "6")[0] == 2
    assert Path("k.safetensors").read_text() == "old"
    assert Path("r.html").read_text() == "old"
    assert run("clones", *MODEL, *FEW, *typed)[0] == 0
    assert len(load_file("k.safetensors")["neurons"]) == 3
    assert not list(Path().glob(".layerpeel-*"))


# What is refused


def folder():
    Path("folder").mkdir()
    Path("folder/model.safetensors").write_bytes(b"weights")


def link():
    Path("w.safetensors").write_bytes(b"weights")
    Path("link.safetensors").symlink_to("w.safetensors")


def nothing():
    pass


KEPT = [*MODEL, "--keep", "3", "--kept"]

EARLY = [
    ([], "Give either MODEL with --data, or --features; got nothing"),
    ([*MODEL, *FEATURES], "got MODEL and --features"),
    (["small_net.py:make"], "MODEL needs --data"),
    ([*FEATURES, "--layer", "0"], "--features needs no model and does not go with"),
    ([*FEATURES, "--maps", "pooled"], "does not go with --maps"),
    ([*FEATURES, "--no-untrained"], "does not go with --no-untrained"),
    ([*FEATURES, "--head", "3", "--device", "cpu"], "with --head, --device"),
    ([*FEATURES, "--eval-data", "d.npz"], "does not go with --eval-data"),
    ([*MODEL, "--widths", "8,x"], "such as 8,16,32; got '8,x'"),
    ([*MODEL, "--widths", "0"], "--widths must be dyadic, all, or numbers"),
    ([*MODEL, "--widths", "4,-1"], "got '4,-1'"),
    ([*MODEL, "--widths", "some"], "got 'some'"),
    ([*MODEL, "--widths", ""], "got ''"),
    ([*MODEL, "--repeats", "0"], "--repeats"),
    ([*MODEL, "--scope", "every"], "`--scope` must be one of"),
    ([*MODEL, "--maps", "flat"], "Did you mean 'flattened'"),
    ([*MODEL, "--keep", "0"], "--keep"),
    ([*MODEL, "--keep", "3", "--tolerance", "0.1"], "either --keep or --tolerance"),
    ([*MODEL, "--tolerance", "-1"], "a finite number of at least 0"),
    ([*MODEL, "--tolerance", "nan"], "got nan"),
    ([*MODEL, "--keep", "3", "--select", "best"], "`--select` must be one of"),
    ([*MODEL, "--select", "random"], "--select must come with --keep or"),
    ([*MODEL, "--kept", "k.safetensors"], "--kept must come with --keep or"),
    ([*KEPT, "k.pt"], "--kept must end in .safetensors; got 'k.pt'"),
    ([*KEPT, "no/such.safetensors"], "must exist"),
    ([*MODEL, "--device", "gpu"], "device must be one of cpu"),
    ([*MODEL, "-o", "r.pdf"], "--out must end in .html or .json"),
    ([*MODEL, "--fail-on", "error"], "'error'"),
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
    code, out, err = run("clones", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


OVERWRITING = [
    (folder, ["folder", "--data", "d.npz"], "folder/model.safetensors"),
    (link, [*MODEL, "--weights", "w.safetensors"], "link.safetensors"),
    (link, [*MODEL, "--weights", "link.safetensors"], "w.safetensors"),
    (link, ["small_net.py:make", "--data", "w.safetensors"], "w.safetensors"),
    (link, [*MODEL, "--eval-data", "w.safetensors"], "./w.safetensors"),
    (link, ["--features", "w.safetensors"], "w.safetensors"),
]


@pytest.mark.parametrize(("prepare", "arguments", "kept"), OVERWRITING)
def test_no_input_is_overwritten(user, run, prepare, arguments, kept):
    prepare()
    code, out, err = run("clones", *arguments, "--keep", "3", "--kept", kept)
    assert (code, out) == (2, "")
    assert "--kept must be another file than those that are read" in err
    assert Path(kept).read_bytes() == b"weights"


def short_labels():
    ones = np.ones((4, 2))
    np.savez("f.npz", features=ones, labels=np.arange(3), weight=ones)


def no_labels():
    np.savez("f.npz", features=np.ones((4, 2)), weight=np.ones((3, 2)))


def other_eval_width():
    save_features("f.npz", eval_features=np.eye(4)[:, :3], eval_labels=np.arange(4))


def normed():
    Path("normed.py").write_text(NORMED)


NORMED_DATA = ["--eval-data", "normed.py:narrow_data"]

LATE = [
    (nothing, [*MODEL, "--layer", "9"], "the model has none at '9'"),
    (normed, ["normed.py:Named", *MODEL[1:], "--layer", "sten"], "'stem'"),
    (nothing, [*MODEL, "--head", "classifier"], "classifier"),
    (nothing, [*MODEL, "--num-classes", "7"], "7"),
    (nothing, [*MODEL, "--widths", "2,6"], "the 5 neurons of the layer; got 6"),
    (nothing, [*MODEL, *FEW, "--keep", "6"], "--keep must be at most the width"),
    (normed, [*MODEL, *NORMED_DATA], "torch.float32 (46, 5)"),
    (nothing, FEATURES, "no file `f.npz`"),
    (no_labels, FEATURES, "lacks `labels`"),
    (short_labels, FEATURES, "`labels` must have shape (4,)"),
    (other_eval_width, FEATURES, "`eval_features` must have shape (n, 4)"),
]


@pytest.mark.parametrize(("prepare", "arguments", "message"), LATE)
def test_bad_input_is_told_in_one_message(user, run, prepare, arguments, message):
    prepare()
    code, out, err = run("clones", *arguments, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "unexpected" not in err.split(":")[1]
    assert message in err
    assert "Traceback" not in err


def test_help_explains_every_option(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("clones", "--help")
    assert code == 0
    own = ["layer", "widths", "repeats", "scope", "paper", "no-untrained", "maps"]
    for name in [*own, "keep", "tolerance", "select", "kept", "fail-on", "out"]:
        (line,) = [line for line in out.splitlines() if f" --{name} " in line]
        assert len(line.split()) > 4, name
    for default in ["head input", "dyadic", "40", "complement", "pooled", "pivoted"]:
        assert default in out
