"""Progress and messages on standard error: a live bar on a terminal, sparse lines elsewhere.

Verbs use `progress` and `message` and never ask where they write: the command line says
once whether they are shown, and bars inside bars share the one display.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 3.0
_quiet = False
_display: "Progress | None" = None


def set_quiet(quiet: bool) -> None:
    """Says whether progress and messages are shown; the command line calls this once.

    Args:
        quiet: Whether nothing at all is shown.
    """
    global _quiet
    _quiet = quiet


def message(text: str) -> None:
    """Prints one message on standard error, above the bars if there are any.

    Args:
        text: The message.
    """
    if _display is not None:
        _display.console.print(text, markup=False, highlight=False)
    elif not _quiet:
        print(text, file=sys.stderr, flush=True)


class Bar:
    """One task's progress; `progress` makes it. `done` counts the steps so far."""

    def __init__(self, label: str, total: int | None, task: "TaskID | None" = None) -> None:
        self.label, self.total, self.done = label, total, 0
        self._task, self._fields = task, ""
        self._started = self._printed_at = time.monotonic()
        self._printed = 0

    def update(self, advance: int = 1, **fields: Any) -> None:
        """Moves the bar on.

        Args:
            advance: Steps done since the last call.
            **fields: What to show beside the bar, e.g. `loss=0.31`; floats get four digits.
        """
        self.done += advance
        if fields:
            texts = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in fields.values())
            self._fields = " ".join(map("=".join, zip(fields, texts, strict=True)))
        if self._task is not None and _display is not None:
            _display.update(self._task, completed=self.done, fields=self._fields)
        else:  # a line for the first step, then for each tenth (or doubling), never too often
            step = self.total / 10 if self.total else self._printed
            waited = time.monotonic() - self._printed_at >= _SECONDS_BETWEEN_LINES
            if not self._printed or (waited and self.done - self._printed >= step):
                self.print_line()

    def print_line(self) -> None:
        """Prints the state as one line, unless it has been printed."""
        if self.done != self._printed:
            self._printed_at, self._printed = time.monotonic(), self.done
            share = f"{self.done}/{self.total}" if self.total else str(self.done)
            seconds = f"{self._printed_at - self._started:.1f} s"
            message(" ".join(filter(None, (self.label, share, self._fields, seconds))))


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Bar]:
    """Shows the progress of a task while the block runs.

    Args:
        label: What is being done, e.g. `"training"`.
        total: The number of steps, if it is known.

    Yields:
        The bar; call its `update`.

    Example:
        >>> with progress("training", total=400) as bar:
        ...     for epoch in range(400):
        ...         bar.update(loss=0.5)
    """
    global _display
    # The display puts itself in the place of standard error, which then may deny being a terminal.
    if _quiet or (_display is None and not sys.stderr.isatty()):
        bar = Bar(label, total)
        yield bar
        bar.print_line()
        return
    display, outermost = _display or _make_display(), _display is None
    _display = display
    with display if outermost else nullcontext():
        task = display.add_task(label, total=total, fields="")
        try:
            yield Bar(label, total, task)
        finally:
            if outermost:
                _display = None
            else:
                display.remove_task(task)


def _make_display() -> "Progress":
    """Makes the rich display that all bars share."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[fields]}", markup=False),
        console=Console(stderr=True),
    )
