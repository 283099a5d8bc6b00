import subprocess
import sys

import pytest

from layerpeel._progress import track


class Terminal:
    """A stream that claims to be a terminal, and remembers what it was sent."""

    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize("show", [None, True, False])
@pytest.mark.parametrize("tty", [True, False])
def test_shown_on_a_terminal_or_when_forced(show, tty, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal(tty)
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(track([1, 2, 3], "Counting", show=show)) == [1, 2, 3]
    expected = tty if show is None else show
    assert ("Counting" in stream.text) == expected
    assert capsys.readouterr().out == ""


def test_items_are_taken_one_at_a_time():
    taken = []

    def items():
        for i in range(3):
            taken.append(i)
            yield i

    for show in (False, True):
        taken.clear()
        tracked = track(items(), "Lazy", show=show)
        assert next(tracked) == 0
        assert taken == [0]
        tracked.close()


def test_length_is_found_or_given(monkeypatch):
    for iterable, total in (([1] * 4, None), (iter([1] * 4), 4)):
        stream = Terminal(False)
        monkeypatch.setattr(sys, "stderr", stream)
        list(track(iterable, "Known", total=total, show=True))
        assert "100%" in stream.text


def test_errors_pass_through():
    def failing():
        yield 1
        raise KeyError("inside")

    for show in (False, True):
        with pytest.raises(KeyError, match="inside"):
            list(track(failing(), "Failing", show=show))


def test_nothing_is_imported_where_nothing_is_shown():
    script = (
        "import sys; from layerpeel._progress import track;"
        "list(track([1], 'x')); sys.exit('rich.progress' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
