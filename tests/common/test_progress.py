import io
import sys
import time

import pytest

from hear_tune.common.progress import one_line, progress_bar, say


def test_no_bar_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3))) == [0, 1, 2]
    say("nobody reads this")


class Window:
    """A windowed program's substitute for a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_a_stream_need_not_know_whether_it_is_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Window())
    assert list(progress_bar(range(3))) == [0, 1, 2]
    say("a line")
    assert "a line\n" in sys.stderr.text


def test_a_closed_stream(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert list(progress_bar(range(3))) == [0, 1, 2]
    say("nobody reads this")


def test_control_characters_are_escaped():
    assert one_line("a\nb\x1b[31m é") == "a\\nb\\x1b[31m é"


def test_a_log_file_gets_no_line_per_item(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    begun = time.monotonic()
    assert len(list(progress_bar(range(100_000)))) == 100_000
    assert log.getvalue().count("\r") <= 3 + (time.monotonic() - begun)


@pytest.mark.parametrize("terminal", [True, False])
def test_updates_are_rarer_in_a_log_file(monkeypatch, terminal):
    log = io.StringIO()
    log.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", log)
    assert progress_bar(total=1).mininterval == (0.1 if terminal else 1.0)


def test_say_goes_to_standard_error(capsys):
    say("a line")
    assert capsys.readouterr().err == "a line\n"
