"""Which members a change affects: by its files, by the workspace's arrows, by the lockfile.

- A file of a member affects the member and all that depend on it.
- `uv.lock` affects the members whose transitive dependencies are resolved differently.
- The root `pyproject.toml` affects everything if what uv or pytest read in it has changed; the
  settings of ruff and mypy concern the lint job only, which always runs.
- `.github/` and `.ci/` affect no member.
- Documentation (`*.md`, `docs/`, pictures, licence, citation) affects nothing, except below
  `src/`, `tests/` and `benchmarks/`, where such a file is data.
- Any other file of the root affects everything.
"""

import dataclasses
import json
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

from tenfold_tools import lockfile
from tenfold_tools.errors import CommandError, InputError
from tenfold_tools.processes import run
from tenfold_tools.workspace import Workspace

_DOCUMENT_ENDINGS = (".md", ".rst", ".cff", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")
_DOCUMENT_NAMES = ("LICENSE", "LICENSE.txt", "NOTICE", ".gitignore", ".gitattributes")
_HARMLESS_FOLDERS = (".github", ".ci", "docs")
_DATA_FOLDERS = ("src", "tests", "benchmarks")


@dataclasses.dataclass(frozen=True)
class Affected:
    """What a change affects."""

    reasons: dict[str, list[str]]
    """Short name of each affected member → why."""
    note: str = ""
    """Why everything was taken, where the change itself could not be seen."""


def affected(workspace: Workspace, base: str, head: str | None = None) -> Affected:
    """Finds the members that a change affects.

    Args:
        workspace: The workspace, as it is in the working tree.
        base: The commit that the change starts from; the comparison is with the last common
            ancestor. Empty, all zeros or not there (a new branch, a shallow clone): everything.
        head: The commit that the change ends with; by default the working tree, with files that
            git does not know yet.

    Returns:
        The affected members and the reasons.

    Raises:
        InputError: If `head` is not a commit, or a lockfile cannot be read.
        CommandError: If this is not a git repository.
    """
    root = workspace.root
    run("git", "rev-parse", "--git-dir", cwd=root)
    if head is not None and not _commit(root, head):
        raise InputError(f"--head {head!r} is not a commit in {root}")
    start, note = _starting_point(root, base, head or "HEAD")
    if start is None:
        return Affected({member.name: [note] for member in workspace.members}, note)
    reasons: dict[str, list[str]] = {member.name: [] for member in workspace.members}
    for file in changed_files(root, start, head):
        for name in _touched(workspace, file, start, head):
            reasons[name].append(f"file: {file}")
    before, now = (_lock(root, commit) for commit in (start, head))
    for member in workspace.members:
        closures = (lockfile.closure(lock, member.distribution) for lock in (before, now))
        reasons[member.name] += [f"lock: {line}" for line in lockfile.differences(*closures)]
    direct = {name for name, why in reasons.items() if why}
    for member in workspace.members:
        for name in sorted(workspace.dependencies(member) & direct):
            reasons[member.name].append(f"depends on {name}")
    return Affected({name: why for name, why in reasons.items() if why})


def changed_files(root: Path, start: str, head: str | None) -> list[str]:
    """Lists the files that differ between a commit and another one, or the working tree.

    Args:
        root: The root of the workspace.
        start: The commit.
        head: The other commit; None for the working tree.

    Returns:
        Paths relative to the root, with `/`; of a renamed file both.
    """
    options = ["--name-only", "--no-renames", "--relative", "-z"]
    commits = [start] if head is None else [start, head]
    names = run("git", "diff", *options, *commits, "--", cwd=root).split("\0")
    if head is None:
        unknown = run("git", "ls-files", "--others", "--exclude-standard", "-z", cwd=root)
        names += unknown.split("\0")
    return sorted({name for name in names if name})


def is_documentation(file: str) -> bool:
    """Says whether a file is read by people only.

    Args:
        file: Its path relative to the root.
    """
    path = PurePosixPath(file)
    folders = path.parts[:-1]
    if any(folder in _DATA_FOLDERS for folder in folders):
        return False
    return "docs" in folders or path.name in _DOCUMENT_NAMES or path.suffix in _DOCUMENT_ENDINGS


def _starting_point(root: Path, base: str, head: str) -> tuple[str | None, str]:
    """Finds the last common ancestor; where there is none, says so."""
    if not base.strip("0"):
        return None, "there is no earlier commit to compare with: everything is affected"
    if not _commit(root, base):
        return (
            None,
            f"{base!r} is not in this clone (new branch or shallow): everything is affected",
        )
    if not _commit(root, head):
        return None, "nothing has been committed yet: everything is affected"
    try:
        return run("git", "merge-base", base, head, cwd=root).strip(), ""
    except CommandError:
        return None, f"{base!r} has no common ancestor with {head!r}: everything is affected"


def _commit(root: Path, name: str) -> str:
    """Gives the full name of a commit; empty if there is none."""
    try:
        words = ["--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
        return run("git", "rev-parse", *words, cwd=root).strip()
    except CommandError:
        return ""


def _content(root: Path, commit: str | None, file: str) -> str:
    """Reads a file as it is in a commit or, without one, in the working tree; empty if absent."""
    if commit is None:
        path = root / file
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        return run("git", "show", f"{commit}:./{file}", cwd=root)
    except CommandError:
        return ""


def _touched(workspace: Workspace, file: str, start: str, head: str | None) -> list[str]:
    """Names the members that a changed file touches directly."""
    for member in workspace.members:
        if file.startswith(f"{member.folder}/"):
            return [] if is_documentation(file) else [member.name]
    first = file.split("/", 1)[0]
    if is_documentation(file) or first in _HARMLESS_FOLDERS or file == "uv.lock":
        return []
    if file == "pyproject.toml":
        before, now = (_settings(_content(workspace.root, at, file)) for at in (start, head))
        if before == now:
            return []
    if first == "packages":  # of a package that is gone
        return []
    return [member.name for member in workspace.members]


def _settings(pyproject: str) -> str:
    """Picks from the root `pyproject.toml` what can change the outcome of a member's tests."""
    try:
        content = tomllib.loads(pyproject)
    except tomllib.TOMLDecodeError:
        return pyproject
    tool: dict[str, Any] = content.get("tool", {})
    in_lock = ("workspace", "sources", "conflicts")  # what these change is seen in the lockfile
    uv = {key: value for key, value in tool.get("uv", {}).items() if key not in in_lock}
    python = content.get("project", {}).get("requires-python")
    return json.dumps([python, uv, tool.get("pytest")], sort_keys=True)


def _lock(root: Path, commit: str | None) -> dict[str, Any]:
    """Reads the lockfile as it is in a commit or, without one, in the working tree."""
    text = _content(root, commit, "uv.lock")
    return lockfile.parse(text, f"uv.lock at {commit or 'the working tree'}")
