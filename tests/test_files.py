import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerpeel import _files
from layerpeel._files import (
    check_writable,
    make_directory,
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
