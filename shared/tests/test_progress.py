import io
import sys

import pytest

from tenfold.shared import progress as module
from tenfold.shared.progress import message, progress, set_quiet


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def run_bar(clock, total, steps, seconds):
    with progress("training", total=total) as bar:
        for step in range(steps):
            clock.now += seconds
            bar.update(loss=step / 3)


def test_slow_work_gives_a_line_each_tenth(clock, capsys):
    run_bar(clock, 400, 400, seconds=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training 1/400 loss=0 1.0 s"
    assert lines[1] == "training 41/400 loss=13.33 41.0 s"
    assert lines[-1] == "training 400/400 loss=133 400.0 s"
    assert len(lines) == 11


def test_quick_work_gives_the_first_and_the_last_line(clock, capsys):
    run_bar(clock, 400, 400, seconds=0.001)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "1/400",
        "400/400",
    ]


def test_an_unknown_total_stays_bounded(clock, capsys):
    run_bar(clock, None, 100_000, seconds=1)
    assert 10 < len(capsys.readouterr().err.splitlines()) < 25


def test_one_step_is_one_line(clock, capsys):
    run_bar(clock, 1, 1, seconds=1)
    assert capsys.readouterr().err == "training 1/1 loss=0 1.0 s\n"


def test_quiet_is_silent(clock, capsys):
    set_quiet(True)
    run_bar(clock, 4, 4, seconds=9)
    message("hello")
    assert capsys.readouterr() == ("", "")


def test_messages_go_to_stderr(capsys):
    message("hello [bold]world[/bold]")
    assert capsys.readouterr() == ("", "hello [bold]world[/bold]\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_share_one_display_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("outer", total=2) as outer:
        display = module._display
        with progress("inner", total=3) as inner:
            assert module._display is display
            assert [task.description for task in display.tasks] == ["outer", "inner"]
            inner.update(advance=3, loss=0.25)
            message("a [word]")
        outer.update()
        assert [(task.description, task.completed) for task in display.tasks] == [("outer", 1)]
    assert module._display is None
    shown = sys.stderr.getvalue()
    assert "a [word]" in shown
    assert "1/2" in shown


def test_an_error_closes_the_display(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyError), progress("outer", total=2):
        raise KeyError
    assert module._display is None
