"""Calling git and uv."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tenfold_tools.errors import CommandError


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs a program to its end.

    Args:
        command: The program and its arguments.
        cwd: The folder in which it runs.
        env: Variables beyond those of this process.

    Returns:
        What it wrote to standard output.

    Raises:
        CommandError: If there is no such program or it fails; with the end of what it wrote.
    """
    words = [str(word) for word in command]
    environment = clean_environment() | dict(env or {})
    try:
        answer = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise CommandError(
            f"{words[0]} cannot be run: {error.strerror}; is it installed?"
        ) from error
    if answer.returncode:
        said = (answer.stderr.strip() or answer.stdout.strip())[-2000:]
        raise CommandError(f"`{' '.join(words)}` failed ({answer.returncode}): {said}")
    return answer.stdout


def clean_environment() -> dict[str, str]:
    """Gives this process's variables without those that point uv at the environment it runs in."""
    hidden = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in hidden}
