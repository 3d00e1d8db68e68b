"""Every member's tests, each in an environment of its own.

The environment of a member holds only what the member needs; it lies in `.venvs/<name>` and is
kept, its files linked from uv's cache, so that the second run starts at once.
"""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from tenfold_tools.errors import CommandError
from tenfold_tools.processes import clean_environment, run
from tenfold_tools.workspace import Member, Workspace

_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b")
_CLOSING = re.compile(r"(?:\x1b\[[\d;]*m)*=+ .*\bin \d+[\d.]*s\b")
_ANSI = re.compile(r"\x1b\[[\d;]*m")


@dataclasses.dataclass(frozen=True)
class Suite:
    """The outcome of one member's tests."""

    name: str
    seconds: float
    """With the making of the environment."""
    closing: str
    """The closing line of pytest."""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str = ""
    """Why the suite failed, beyond tests that failed; empty if it did not."""

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return not self.failed and not self.problem


def run_suite(
    workspace: Workspace,
    member: Member,
    options: Sequence[str] = (),
    here: bool = False,
    limit: float = 600.0,
    out: Callable[[str], None] = print,
) -> Suite:
    """Runs the tests of one member.

    Args:
        workspace: The workspace.
        member: The member.
        options: Further arguments for pytest.
        here: Whether to use the environment of this process instead of the member's own.
        limit: Seconds after which the tests are ended; that is a failure.
        out: Where each line that pytest writes goes.

    Returns:
        The outcome.
    """
    started = time.monotonic()
    environment = clean_environment()
    if here:
        command = [sys.executable, "-m", "pytest"]
    else:
        environment["UV_PROJECT_ENVIRONMENT"] = str(workspace.root / ".venvs" / member.name)
        package = ["--package", member.distribution]
        try:
            run("uv", "sync", "--locked", *package, cwd=workspace.root, env=environment)
        except CommandError as error:
            return Suite(member.name, time.monotonic() - started, "", problem=str(error))
        command = ["uv", "run", "--no-sync", *package, "pytest"]
    code, closing = _watch(
        [*command, member.folder, *options], workspace.root, environment, limit, out
    )
    counts = {kind: int(number) for number, kind in _COUNT.findall(closing)}
    return Suite(
        name=member.name,
        seconds=time.monotonic() - started,
        closing=closing,
        passed=counts.get("passed", 0) + counts.get("xpassed", 0),
        failed=counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0),
        skipped=counts.get("skipped", 0) + counts.get("xfailed", 0),
        problem=_problem(code, member, limit),
    )


def total(suites: Sequence[Suite], seconds: float) -> str:
    """Writes the line that closes everything.

    Args:
        suites: The outcomes.
        seconds: How long all of it took.
    """
    passed, failed, skipped = (
        sum(getattr(suite, kind) for suite in suites) for kind in ("passed", "failed", "skipped")
    )
    broken = [suite.name for suite in suites if not suite.ok]
    ending = f"; not in order: {', '.join(broken)}" if broken else ""
    return f"{passed} passed, {failed} failed, {skipped} skipped in {seconds:.0f} s{ending}"


def _problem(code: int | None, member: Member, limit: float) -> str:
    """Says what an exit code of pytest means beyond tests that failed."""
    if code is None:
        return f"ended after {limit:.0f} s; mark what takes long with `slow`"
    if code == 5:
        return f"no tests were collected in {member.folder}/tests; every member has some"
    return "" if code in (0, 1) else f"pytest ended with code {code}"


def _watch(
    command: list[str],
    cwd: Path,
    environment: dict[str, str],
    limit: float,
    out: Callable[[str], None],
) -> tuple[int | None, str]:
    """Runs a program, passing its lines on; leaves none of its children behind.

    Returns:
        The exit code (None if it took too long) and the last line that looks like pytest's end.
    """
    closing = [""]

    def pass_on(stream: IO[str]) -> None:
        for line in stream:
            out(line.rstrip("\n"))
            if _CLOSING.match(line):
                closing[0] = _ANSI.sub("", line).strip()

    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error.strerror}") from error
    reader = threading.Thread(target=pass_on, args=(cast(IO[str], process.stdout),), daemon=True)
    reader.start()
    code: int | None = None
    try:
        code = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end_group(process)
        reader.join(timeout=10)
    return code, closing[0]


def _end_group(process: subprocess.Popen[str]) -> None:
    """Ends a program and what it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
