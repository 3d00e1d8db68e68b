"""Releasing one member: its version, its CHANGELOG, the lockfile, a wheel that works, the tag."""

import dataclasses
import datetime
import difflib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from tenfold_tools.changelog import move_unreleased
from tenfold_tools.errors import CommandError, InputError
from tenfold_tools.processes import run
from tenfold_tools.workspace import Member, Workspace

Level = Literal["patch", "minor", "major"]


@dataclasses.dataclass(frozen=True)
class Release:
    """A release that is prepared, or would be."""

    name: str
    distribution: str
    old: str
    new: str
    tag: str
    diff: str
    """What changes in `pyproject.toml` and `CHANGELOG.md`."""
    wheels: tuple[str, ...] = ()
    """The wheels that were built, installed and imported; they are not kept."""


def release(
    workspace: Workspace,
    name: str,
    level: Level,
    dry_run: bool = False,
    today: datetime.date | None = None,
) -> Release:
    """Prepares the release of one member; what is left to do is to commit, tag and push.

    Args:
        workspace: The workspace; without uncommitted changes, unless `dry_run`.
        name: The member.
        level: Which number of the version goes up.
        dry_run: Whether to change nothing and only say what would change.
        today: The day of the release.

    Returns:
        What was done, or would be.

    Raises:
        InputError: If there are uncommitted changes, the tag exists, the version is not of the
            form X.Y.Z, or the CHANGELOG says nothing.
        CommandError: If the wheel does not build, install or import; every file is then as before.
    """
    member = workspace.member(name)
    if not dry_run:
        _require_clean(workspace.root)
    new = bump(member.version, level, f"{member.folder}/pyproject.toml")
    tag = f"{member.name}-v{new}"
    if run("git", "tag", "--list", tag, cwd=workspace.root).strip():
        raise InputError(f"the tag {tag} exists already; is {member.folder}/pyproject.toml behind?")
    changed = _changed_files(workspace, member, new, today or datetime.date.today())
    planned = Release(
        name=member.name,
        distribution=member.distribution,
        old=member.version,
        new=new,
        tag=tag,
        diff="".join(_diff(workspace.root, path, text) for path, text in changed.items()),
    )
    if dry_run:
        return planned
    with _restored_on_failure([*changed, workspace.root / "uv.lock"]):
        for path, text in changed.items():
            path.write_text(text, encoding="utf-8")
        run("uv", "lock", cwd=workspace.root)
        return dataclasses.replace(planned, wheels=try_wheel(workspace, member))


def bump(version: str, level: Level, where: str) -> str:
    """Raises one number of a version and sets those after it to zero.

    Args:
        version: `X.Y.Z`.
        level: Which number.
        where: What the file is called in messages.

    Raises:
        InputError: If the version has another form.
    """
    try:
        parsed = Version(version)
    except InvalidVersion:
        parsed = Version("0.dev0")
    if str(parsed) != version or len(parsed.release) != 3 or parsed.is_prerelease or parsed.local:
        raise InputError(f"{where}: version is {version!r}, expected X.Y.Z")
    major, minor, patch = parsed.release
    raised = {
        "major": (major + 1, 0, 0),
        "minor": (major, minor + 1, 0),
        "patch": (major, minor, patch + 1),
    }
    return ".".join(map(str, raised[level]))


def try_wheel(workspace: Workspace, member: Member) -> tuple[str, ...]:
    """Builds a member's wheel, with that of shared, and uses them in an empty environment.

    Args:
        workspace: The workspace.
        member: The member.

    Returns:
        The names of the wheels.

    Raises:
        CommandError: If something of this fails.
    """
    wanted = [member]
    if member.kind == "package":
        wanted.append(workspace.member("shared"))
    with tempfile.TemporaryDirectory(prefix="tenfold-release-") as temporary:
        folder = Path(temporary)
        for item in wanted:
            build = ("uv", "build", "--package", item.distribution, "--wheel", "--out-dir", folder)
            run(*build, cwd=workspace.root)
        wheels = sorted(folder.glob("*.whl"))
        environment = folder / "environment"
        run("uv", "venv", environment, cwd=folder)
        scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        run("uv", "pip", "install", "--python", scripts / "python", *wheels, cwd=folder)
        run(scripts / "python", "-c", f"import {member.module}", cwd=folder)
        if member.kind != "tools":
            listed = run(scripts / "tenfold", "list", cwd=folder)
            if member.kind == "package" and not re.search(rf"\b{member.name}\b", listed):
                raise CommandError(f"`tenfold list` does not know {member.name}: {listed.strip()}")
        return tuple(wheel.name for wheel in wheels)


def _require_clean(root: Path) -> None:
    """Refuses to go on where something is not committed."""
    dirty = run("git", "status", "--porcelain", cwd=root).splitlines()
    if dirty:
        shown = ", ".join(line[3:] for line in dirty[:5])
        raise InputError(
            f"{len(dirty)} files are not committed ({shown}); commit or stash them first"
        )


def _changed_files(
    workspace: Workspace, member: Member, new: str, date: datetime.date
) -> dict[Path, str]:
    """Makes the new content of the two files that a release changes."""
    project, changelog = member.path / "pyproject.toml", member.path / "CHANGELOG.md"
    for path in (project, changelog):
        if not path.is_file():
            raise InputError(f"{path.relative_to(workspace.root)} is missing")
    text = project.read_text(encoding="utf-8")
    pattern = re.compile(
        rf"^(\[project\]\n(?:(?!\[).*\n)*?version\s*=\s*)([\"']){re.escape(member.version)}\2",
        re.MULTILINE,
    )
    replaced, count = pattern.subn(rf"\g<1>\g<2>{new}\g<2>", text, count=1)
    if not count:
        raise InputError(f"{member.folder}/pyproject.toml: [project] has no line `version = …`")
    where = f"{member.folder}/CHANGELOG.md"
    moved = move_unreleased(changelog.read_text(encoding="utf-8"), new, date, where)
    return {project: replaced, changelog: moved}


def _diff(root: Path, path: Path, text: str) -> str:
    """Shows how a file changes."""
    name = path.relative_to(root).as_posix()
    old = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = difflib.unified_diff(old, text.splitlines(keepends=True), f"a/{name}", f"b/{name}")
    return "".join(lines)


@contextmanager
def _restored_on_failure(paths: list[Path]) -> Iterator[None]:
    """Gives files their content back if the block does not come to its end."""
    before = {path: path.read_bytes() if path.is_file() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise
