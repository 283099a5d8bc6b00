import pytest

from layerpeel._json import json_text
from layerpeel.measurement.files import (
    load_measurement,
    merge_measurements,
    save_measurement,
)
from tests.measurement.files.measurements import measured, thirds


@pytest.fixture
def files(tmp_path):
    """Three parts of some data, measured apart."""
    paths = [tmp_path / f"part-{i}.safetensors" for i in range(3)]
    for path, part in zip(paths, thirds(), strict=True):
        save_measurement(part, path)
    return paths


def test_files_merge_to_what_the_api_makes_of_them(run, files, tmp_path):
    out = tmp_path / "all.safetensors"
    code, printed, err = run("merge", *files, "-o", out, "--json")
    assert (code, err) == (0, f"Wrote {out}\n")
    expected = merge_measurements(*map(load_measurement, files))
    assert printed == json_text(expected.to_dict()) + "\n"
    loaded = load_measurement(out)
    assert loaded.moments.scatter.equal(expected.moments.scatter)
    assert loaded.class_counts == measured().class_counts


def test_merging_in_two_steps_is_merging(run, files, tmp_path):
    half, whole = tmp_path / "half.safetensors", tmp_path / "whole.safetensors"
    assert run("merge", *files[:2], "-o", half, "--quiet") == (0, "", "")
    assert run("merge", half, files[2], "-o", whole, "--quiet") == (0, "", "")
    assert load_measurement(whole).class_counts == measured().class_counts


def test_text_shows_what_was_merged(run, files):
    code, out, err = run("merge", *files)
    assert (code, err) == (0, "")
    assert str(measured().num_samples) in out


def test_the_same_data_twice_are_refused(run, files, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(files[1].read_bytes())
    for twice in ([*files, files[1]], [*files, copy]):
        code, out, err = run("merge", *twice, "-o", tmp_path / "all.safetensors")
        assert (code, out) == (2, "")
        assert "holds the same as" in err
        assert str(files[1]) in err
    assert not (tmp_path / "all.safetensors").exists()


def test_other_networks_are_refused_and_named(run, files, tmp_path):
    other = tmp_path / "other.safetensors"
    save_measurement(measured(bias=None), other)
    code, _, err = run("merge", *files, other)
    assert code == 2
    assert f"`{other}` does not fit `{files[0]}`" in err
    assert "its bias" in err


def test_bad_files_are_refused(run, files, tmp_path):
    files[1].write_bytes(files[1].read_bytes()[:500])
    code, out, err = run("merge", *files)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: `{files[1]}` is damaged")
    assert run("merge", files[0], tmp_path / "none.safetensors")[0] == 2
    assert run("merge")[0] == 2
    code, _, err = run("merge", files[0], "-o", "all.npz")
    assert code == 2
    assert "ends in .safetensors" in err


@pytest.mark.parametrize("name", ["itself", "another spelling", "link", "link in"])
def test_no_part_is_overwritten(run, files, tmp_path, name):
    link = tmp_path / "link.safetensors"
    link.symlink_to(files[1])
    inputs = [files[0], link if name == "link in" else files[1], files[2]]
    out = {
        "itself": files[1],
        "another spelling": tmp_path / ".." / tmp_path.name / files[1].name,
        "link": link,
        "link in": files[1],
    }[name]
    before = files[1].read_bytes()
    code, printed, err = run("merge", *inputs, "-o", out)
    assert (code, printed) == (2, "")
    assert f"`{out}` is `{inputs[1]}`" in err
    assert files[1].read_bytes() == before


def test_another_file_may_be_overwritten(run, files, tmp_path):
    out = tmp_path / "all.safetensors"
    for _ in range(2):
        assert run("merge", *files, "-o", out, "--quiet") == (0, "", "")
    assert load_measurement(out).class_counts == measured().class_counts
