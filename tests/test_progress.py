import io
import sys

import pytest

from hear_tune.progress import progress_bar, say


def test_no_bar_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3))) == [0, 1, 2]
    say("nobody reads this")


def test_a_log_file_gets_no_line_per_item(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    items = list(progress_bar(range(10_000), mininterval=3600))
    assert len(items) == 10_000
    assert log.getvalue().count("\r") <= 3


@pytest.mark.parametrize("terminal", [True, False])
def test_updates_are_rarer_in_a_log_file(monkeypatch, terminal):
    log = io.StringIO()
    log.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", log)
    assert progress_bar(total=1).mininterval == (0.1 if terminal else 1.0)


def test_say_goes_to_standard_error(capsys):
    say("a line")
    assert capsys.readouterr().err == "a line\n"
