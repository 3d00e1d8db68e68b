"""The uv workspace as its files describe it: members, names, versions, dependencies."""

import dataclasses
import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tenfold_tools.errors import InputError

Kind = Literal["package", "shared", "tools"]


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of the workspace."""

    name: str
    """The short name: `ccgc`, `shared`, `tools`."""
    kind: Kind
    folder: str
    """Relative to the root, with `/`: `packages/ccgc`."""
    path: Path
    """The folder."""
    pyproject: dict[str, Any]
    """The content of its `pyproject.toml`."""

    @property
    def distribution(self) -> str:
        """The name of the distribution: `tenfold-ccgc`."""
        return f"tenfold-{self.name}"

    @property
    def module(self) -> str:
        """The name of the import: `tenfold.ccgc`, `tenfold.l2w_den`; `tenfold_tools` for tools."""
        name = self.name.replace("-", "_")
        return f"tenfold_{name}" if self.kind == "tools" else f"tenfold.{name}"

    @property
    def source(self) -> Path:
        """The folder of the module."""
        return self.path.joinpath("src", *self.module.split("."))

    @property
    def version(self) -> str:
        """The version in `pyproject.toml`; empty if there is none."""
        return str(self.pyproject.get("project", {}).get("version", ""))

    def requirements(self) -> list[Requirement]:
        """Reads the dependencies, with those of all extras.

        Raises:
            InputError: If one of them cannot be read.
        """
        project = self.pyproject.get("project", {})
        texts = [*project.get("dependencies", [])]
        for extra in project.get("optional-dependencies", {}).values():
            texts += extra
        try:
            return [Requirement(text) for text in texts]
        except InvalidRequirement as error:
            raise InputError(
                f"{self.folder}/pyproject.toml: a dependency is wrong: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The workspace: its root, and its members: shared, tools, packages by name."""

    root: Path
    members: tuple[Member, ...]

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """Reads the workspace around a folder.

        Args:
            start: The folder; by default the current one.

        Raises:
            InputError: If neither the folder nor one above it is the root of a workspace, or a
                file of the workspace cannot be read.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            file = folder / "pyproject.toml"
            if file.is_file():
                patterns = read_toml(file).get("tool", {}).get("uv", {}).get("workspace", {})
                if patterns:
                    return cls(folder, _read_members(folder, patterns))
        raise InputError(f"{here} is not in a workspace: no pyproject.toml has [tool.uv.workspace]")

    @property
    def packages(self) -> tuple[Member, ...]:
        """The members below `packages/`."""
        return tuple(member for member in self.members if member.kind == "package")

    def member(self, name: str) -> Member:
        """Finds a member by its short name or the name of its distribution.

        Args:
            name: `ccgc` or `tenfold-ccgc`.

        Raises:
            InputError: If there is none; with the nearest name.
        """
        known = {member.name: member for member in self.members}
        short = name.removeprefix("tenfold-")
        if short in known:
            return known[short]
        near = difflib.get_close_matches(short, known, n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]!r}?" if near else ";"
        raise InputError(f"no member {name!r} in {self.root}{guess} known: {', '.join(known)}")

    def dependencies(self, member: Member) -> set[str]:
        """Names the members that a member depends on, directly or by way of others.

        Args:
            member: The member.

        Returns:
            Short names.
        """
        known = {item.distribution: item for item in self.members}
        found: set[str] = set()
        waiting = [member]
        while waiting:
            for need in waiting.pop().requirements():
                other = known.get(canonicalize_name(need.name))
                if other is not None and other.name not in found and other.name != member.name:
                    found.add(other.name)
                    waiting.append(other)
        return found


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read or is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error


def _read_members(root: Path, table: dict[str, Any]) -> tuple[Member, ...]:
    """Reads the members that the table `[tool.uv.workspace]` names."""
    excluded = {path for pattern in table.get("exclude", []) for path in root.glob(pattern)}
    members: dict[Path, Member] = {}
    for pattern in table.get("members", []):
        for path in sorted(root.glob(pattern)):
            file = path / "pyproject.toml"
            if file.is_file() and path not in excluded:
                members[path] = _read_member(root, path, read_toml(file))
    order = {"shared": 0, "tools": 1, "package": 2}
    return tuple(sorted(members.values(), key=lambda item: (order[item.kind], item.name)))


def _read_member(root: Path, path: Path, pyproject: dict[str, Any]) -> Member:
    """Describes one member; its short name is that of its folder."""
    folder = path.relative_to(root).as_posix()
    kinds: dict[str, Kind] = {"shared": "shared", "tools": "tools"}
    return Member(
        name=path.name,
        kind=kinds.get(folder, "package"),
        folder=folder,
        path=path,
        pyproject=pyproject,
    )
