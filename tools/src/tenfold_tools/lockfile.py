"""What `uv.lock` resolves for each member: the transitive closure of its dependencies."""

import json
import tomllib
from collections import defaultdict
from typing import Any

from tenfold_tools.errors import InputError

Closure = dict[str, frozenset[tuple[str, str, str]]]
"""Name of a distribution → its (version, source, marker), one for each way it is reached."""


def parse(text: str, where: str) -> dict[str, Any]:
    """Reads a lockfile.

    Args:
        text: Its content.
        where: What it is called in messages.

    Raises:
        InputError: If it is not a lockfile of uv.
    """
    try:
        lock = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML: {error}; run `uv lock`") from error
    packages = lock.get("package", [])
    if not isinstance(packages, list) or not all(
        isinstance(item, dict) and "name" in item and "source" in item for item in packages
    ):
        raise InputError(
            f"{where}: not a lockfile of uv: every [[package]] has a name and a source"
        )
    return lock


def closure(lock: dict[str, Any], distribution: str) -> Closure | None:
    """Collects everything that a member can have installed, on any Python and platform.

    The member's own extras and dependency groups count; of what it depends on, only the extras
    that are asked for. Other members of the workspace are walked through but not listed, because
    their own changes are seen in their files.

    Args:
        lock: From `parse`.
        distribution: The member, e.g. `tenfold-ccgc`.

    Returns:
        The closure; None if the lockfile does not have the member.
    """
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for package in lock.get("package", []):
        by_name[package["name"]].append(package)
    if distribution not in by_name:
        return None
    start = by_name[distribution][0]
    edges = [*start.get("dependencies", [])]
    for table in ("optional-dependencies", "dev-dependencies"):
        for listed in start.get(table, {}).values():
            edges += listed
    found: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    walked: set[tuple[str, str]] = set()
    while edges:
        edge = edges.pop()
        for package in by_name[edge["name"]]:
            if not _is_meant(edge, package):
                continue
            source = _key(package["source"])
            if package["name"] != distribution and not _is_local(package["source"]):
                version = str(package.get("version", ""))
                found[package["name"]].add((version, source, edge.get("marker", "")))
            for extra in ("", *edge.get("extra", [])):
                step = (f"{package['name']} {package.get('version')} {source}", extra)
                if step not in walked:
                    walked.add(step)
                    table = package.get("optional-dependencies", {}).get(extra, [])
                    edges += table if extra else package.get("dependencies", [])
    return {name: frozenset(ways) for name, ways in found.items()}


def differences(old: Closure | None, new: Closure | None) -> list[str]:
    """Says how a closure has changed, one line a distribution.

    Args:
        old: The closure before; None if there was none.
        new: The closure now; None if there is none.

    Returns:
        For example `torch 2.9.0 → 2.9.1`; empty if nothing has changed.
    """
    if old is None or new is None:
        return [] if old is new else ["not in the lockfile " + ("before" if old is None else "now")]
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name, frozenset()), new.get(name, frozenset())
        if before == now:
            continue
        versions = [", ".join(sorted({item[0] for item in ways})) for ways in (before, now)]
        if not before:
            lines.append(f"{name} {versions[1]} is new")
        elif not now:
            lines.append(f"{name} {versions[0]} is gone")
        elif versions[0] != versions[1]:
            lines.append(f"{name} {versions[0]} → {versions[1]}")
        elif {item[:2] for item in before} != {item[:2] for item in now}:
            lines.append(f"{name} {versions[0]} has another source")
        else:
            lines.append(f"{name} {versions[0]} is installed under other conditions")
    return lines


def _is_meant(edge: dict[str, Any], package: dict[str, Any]) -> bool:
    """Says whether a dependency means this entry, where there are several of the name."""
    return all(key not in edge or edge[key] == package.get(key) for key in ("version", "source"))


def _is_local(source: dict[str, Any]) -> bool:
    """Says whether a source is a folder of the workspace."""
    return any(key in source for key in ("editable", "virtual", "directory"))


def _key(source: dict[str, Any]) -> str:
    """Writes a source as text that can be compared."""
    return json.dumps(source, sort_keys=True)
