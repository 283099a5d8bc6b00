import os
import pickle
import signal
import stat
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from layerpeel import _files
from layerpeel._checks import FileError
from layerpeel._files import (
    check_writable,
    make_directory,
    read_arrays,
    read_weights,
    write_whole,
)

SOURCE = Path(_files.__file__).parents[1]


def run(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], env=environment
    )


def test_written_content_is_the_content(tmp_path):
    path = tmp_path / "report.html"
    assert write_whole(path, "Gram matrix Ĝ\r\n") == path
    assert path.read_bytes() == "Gram matrix Ĝ\r\n".encode()
    write_whole(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["report.html"]


def test_new_file_has_the_users_permissions_and_an_old_one_keeps_its_own(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "report.json"
    plain.write_text("")
    write_whole(path, "{}")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    write_whole(path, "[]")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_relative_path_and_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole("a.json", "1")
    Path("link.json").symlink_to("a.json")
    write_whole("link.json", "2")
    assert Path("link.json").is_symlink()
    assert Path("a.json").read_text() == "2"


def missing_parent(folder):
    return folder / "no" / "report.html"


def parent_is_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "report.html"


def is_directory(folder):
    (folder / "report.html").mkdir()
    return folder / "report.html"


def is_pipe(folder):
    os.mkfifo(folder / "report.html")
    return folder / "report.html"


def on_a_file_system_without_files(_folder):
    return Path("/proc/report.html")  # even root cannot write there


UNWRITABLE = [
    (missing_parent, "must exist"),
    (parent_is_file, "must be a directory"),
    (is_directory, "must be a file"),
    (is_pipe, "regular file"),
    (on_a_file_system_without_files, "cannot be written|must exist"),
]


@pytest.mark.parametrize(("make", "message"), UNWRITABLE)
@pytest.mark.parametrize("act", [check_writable, lambda p: write_whole(p, "x")])
def test_unwritable_path_is_refused(tmp_path, make, message, act):
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=message):
        act(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_write_protected_file_is_refused(tmp_path, monkeypatch):
    # Root may write anywhere, so the answer of the system is put in its place.
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="write-protected"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_check_leaves_nothing_behind(tmp_path):
    assert check_writable(tmp_path / "report.html") == tmp_path / "report.html"
    assert os.listdir(tmp_path) == []


def test_directories_are_made_or_refused(tmp_path):
    made = make_directory(tmp_path / "a" / "b")
    assert made.is_dir()
    assert make_directory(made) == made
    (tmp_path / "file").write_text("")
    for path in [tmp_path / "file", tmp_path / "file" / "below"]:
        with pytest.raises(OSError, match="cannot be made"):
            make_directory(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_error_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, error):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error), match=r"No space left|^$"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    script = """
import resource, signal, sys
from layerpeel._files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(sys.argv[1], "x" * 5000)
except OSError as error:
    assert "could not be written" in str(error)
    sys.exit(7)
"""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert run(script, path).wait() == 7
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


KILLED = """
import builtins, os, signal, sys
from layerpeel import _files
path, step = sys.argv[1:]

class HalfWritten:
    def __init__(self, *args): self.file = builtins.open(*args)
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        kill()

def kill(*_): os.kill(os.getpid(), signal.SIGKILL)

if step == "write": _files.open = HalfWritten
else: setattr(os, step, kill)
_files.write_whole(path, "new " * 100_000)
"""


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_killed_writer_leaves_the_old_file_or_nothing(tmp_path, step, old):
    path = tmp_path / "report.html"
    if old is not None:
        path.write_text(old)
    assert run(KILLED, path, step).wait() == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old


def test_readers_see_whole_files_whenever_the_writer_is_killed(tmp_path):
    path, size = tmp_path / "report.html", 1_000_000
    script = """
import sys
from layerpeel._files import write_whole
for turn in range(1_000_000):
    write_whole(sys.argv[1], b"ab"[turn % 2 : turn % 2 + 1] * int(sys.argv[2]))
"""
    writer = run(script, path, size)
    whole = {b"a" * size, b"b" * size}
    reads, seen, end = 0, set(), time.monotonic() + 60
    try:
        while (reads < 200 or len(seen) < 2) and time.monotonic() < end:
            if path.exists():
                content = path.read_bytes()
                assert content in whole
                reads += 1
                seen.add(content[:1])
    finally:
        writer.kill()
        writer.wait()
    assert reads >= 200
    assert seen == {b"a", b"b"}
    assert path.read_bytes() in whole


DTYPES = ["f2", "f4", "f8", ">f8", "i1", "i4", "i8", ">i4", "u1", "u2", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_npz_arrays_are_read_as_they_were_written(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.asfortranarray(array))
    arrays = read_arrays(tmp_path / "a.npz")
    assert list(arrays) == ["x", "y"]
    for name in arrays:
        assert isinstance(arrays[name], torch.Tensor)
        assert arrays[name].numpy().dtype == np.dtype(dtype).newbyteorder("=")
        assert arrays[name].tolist() == array.tolist()


def test_npz_text_stays_numpy(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["cat", "dög"]))
    assert read_arrays(tmp_path / "a.npz")["names"].tolist() == ["cat", "dög"]


def test_safetensors_are_read_in_their_dtype(tmp_path):
    value = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    save_file({"x": value}, tmp_path / "a.safetensors")
    for read in (read_arrays, read_weights):
        assert read(tmp_path / "a.safetensors")["x"].equal(value)


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("array", [[{}], ["a", None], [[1], [1, 2]]], ids=str)
def test_object_arrays_are_refused_by_name(tmp_path, array):
    np.savez(tmp_path / "a.npz", fine=np.ones(2), bad=np.array(array, dtype=object))
    with pytest.raises(FileError, match=r"`bad`.*objects.*never unpickled"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "array",
    [np.array(["2020-01-01"], dtype="M8[D]"), np.array([b"cat"]), np.zeros(2, "f4,i4")],
    ids=["date", "bytes", "record"],
)
def test_arrays_of_other_types_are_refused_by_name(tmp_path, array):
    np.savez(tmp_path / "a.npz", fine=np.ones(2), bad=array)
    with pytest.raises(FileError, match=r"`bad`.*numbers or text"):
        read_arrays(tmp_path / "a.npz")


def test_no_reader_unpickles(tmp_path):
    trap = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "a.npz", x=np.array([trap], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(trap))
    torch.save({"x": trap}, tmp_path / "c.pt")
    (tmp_path / "d.bin").write_bytes(pickle.dumps(trap, protocol=2))
    for name, read in [
        ("a.npz", read_arrays),
        ("b.npz", read_arrays),
        ("c.pt", read_weights),
        ("d.bin", read_weights),
    ]:
        with pytest.raises(FileError):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap))  # noqa: S301  # the point of the trap
    assert (tmp_path / "sprung").exists(), "the trap must work, or nothing was tested"


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("layer,weight\n1,2\n")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def random_values(size):
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def save_npz(path):
    np.savez_compressed(path, x=random_values(3000).numpy())


def save_safetensors(path):
    save_file({"x": random_values(3000)}, path)


def save_torch(path):
    torch.save({"x": random_values(3000)}, path)


DAMAGED = [
    *((save_npz, ".npz", hurt) for hurt in (truncated, emptied, text, flipped)),
    *((save_safetensors, ".safetensors", h) for h in (truncated, emptied, text)),
    *((save_torch, ".pt", hurt) for hurt in (truncated, emptied, text)),
]


@pytest.mark.parametrize(("save", "suffix", "hurt"), DAMAGED)
def test_damaged_files_are_refused(tmp_path, save, suffix, hurt):
    path = tmp_path / f"a{suffix}"
    read = read_arrays if suffix == ".npz" else read_weights
    save(path)
    assert read(path)["x"].shape == (3000,)
    hurt(path)
    with pytest.raises(FileError, match=rf"`.*a{suffix}`.* is damaged"):
        read(path)


def test_other_formats_under_the_suffix_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(2))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(FileError, match="not a zip archive"):
        read_arrays(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(FileError, match=r"`notes\.txt`"):
        read_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize("read", [read_arrays, read_weights])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none.safetensors", FileNotFoundError, "no file"),
        ("a.csv", FileError, r"must end in one of .*\.safetensors.*got \.csv"),
        ("weights", FileError, "got no suffix"),
    ],
)
def test_missing_file_and_unknown_suffix(tmp_path, read, name, error, message):
    with pytest.raises(error, match=message):
        read(tmp_path / name)


def test_directory_is_no_file(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="no file"):
        read_arrays(tmp_path / "a.npz")


def weights():
    return torch.nn.Linear(2, 3).state_dict()


WRAPPED = [
    lambda state: state,
    dict,
    lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    lambda state: {"model": state, "step": torch.tensor(4)},
    lambda state: {"model_state_dict": state, "model": "resnet"},
    lambda state: {**state, "_extra_state": {"version": 1}},
]


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_state_dicts_are_unwrapped(tmp_path, wrap, suffix):
    state = weights()
    torch.save(wrap(state), tmp_path / f"a{suffix}")
    read = read_weights(tmp_path / f"a{suffix}")
    assert set(read) - {"_extra_state"} == {"weight", "bias"}
    assert all(read[name].equal(state[name]) for name in state)


NO_STATE = [
    ({"state_dict": weights(), "model": weights()}, "keys state_dict, model"),
    ({"epoch": 3, "ema": weights()}, "keys epoch, ema"),
    ({}, "dict"),
    ([torch.zeros(2)], "list"),
    (torch.zeros(2), "Tensor"),
]


@pytest.mark.parametrize(("content", "message"), NO_STATE, ids=lambda v: str(v)[:20])
def test_ambiguous_or_absent_state_dicts_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FileError, match=f"one state dict.*{message}.*safetensors"):
        read_weights(tmp_path / "a.pt")


def test_whole_models_are_refused_with_what_to_do(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pt")
    with pytest.raises(FileError, match=r"torch\.nn.*Linear.*model\.state_dict\(\)"):
        read_weights(tmp_path / "a.pt")


def test_plain_pickle_is_refused_in_one_message(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": [1, 2]}))
    with warnings.catch_warnings(record=True) as told, pytest.raises(FileError):
        read_weights(tmp_path / "a.pt")
    assert told == []
