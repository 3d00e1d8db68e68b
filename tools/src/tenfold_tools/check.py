"""The rules of the workspace that a machine can see; each finding says where and what is right."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tenfold_tools.errors import InputError
from tenfold_tools.workspace import Member, Workspace, read_toml

LICENCE = "Apache-2.0"
PYTHON = ">=3.11"
REGISTRY = "https://pypi.org/simple"

_PACKAGE_FILES = ("__init__.py", "cli.py", "py.typed", "published.toml")
_NAMELESS = ("utils", "util", "helpers", "helper", "common", "misc")
_UNPICKLERS = (
    *(
        f"{module}.{name}"
        for module in ("pickle", "_pickle", "dill", "cloudpickle")
        for name in ("load", "loads", "Unpickler")
    ),
    "joblib.load",
    "pandas.read_pickle",
)
_HEADING = re.compile(r"^## \[?(?P<version>[^\]\s]+)\]?(?: - (?P<date>\S+))?\s*$")


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """One place where a rule is broken."""

    path: str
    """Relative to the root, with `/`."""
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        """Writes it the way editors and CI logs link it."""
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def check(workspace: Workspace) -> list[Finding]:
    """Looks at every member and at the lockfile.

    Args:
        workspace: The workspace.

    Returns:
        The findings, sorted by place.

    Raises:
        InputError: If a file of the workspace cannot be read at all.
    """
    findings: list[Finding] = [*_lockfile(workspace), *_mypy_path(workspace)]
    for member in workspace.members:
        place = _Place(workspace, member)
        findings += _project(place)
        findings += _contract(place)
        findings += _changelog(place)
        findings += _files(place)
        findings += _sources(place)
    return sorted(set(findings))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A member, with the words for a finding in it."""

    workspace: Workspace
    member: Member

    def at(self, path: Path, line: int, rule: str, message: str) -> Finding:
        """Makes a finding."""
        return Finding(path.relative_to(self.workspace.root).as_posix(), line, rule, message)

    def key(self, key: str, rule: str, message: str) -> Finding:
        """Makes a finding at a key of the member's `pyproject.toml`, or at its first line."""
        path = self.member.path / "pyproject.toml"
        lines = path.read_text(encoding="utf-8").splitlines()
        found = (i for i, line in enumerate(lines, 1) if line.lstrip(" [\"'").startswith(key))
        return self.at(path, next(found, 1), rule, message)


def _project(place: _Place) -> Iterator[Finding]:
    """The member's `pyproject.toml`: names, licence, Python, build, entry point, groups."""
    member, rule = place.member, "project"
    project: dict[str, Any] = member.pyproject.get("project", {})
    build = member.pyproject.get("build-system", {}).get("build-backend")
    module = member.pyproject.get("tool", {}).get("uv", {}).get("build-backend", {})
    wanted = {
        "name": (project.get("name"), member.distribution),
        "license": (project.get("license"), LICENCE),
        "requires-python": (project.get("requires-python"), PYTHON),
        "readme": (project.get("readme"), "README.md"),
        "build-backend": (build, "uv_build"),
        "module-name": (module.get("module-name"), member.module),
    }
    for key, (value, right) in wanted.items():
        if value != right and not (key == "requires-python" and _is_narrower(value)):
            yield place.key(key, rule, f"{key} is {value!r}, expected {right!r}")
    if not str(project.get("description", "")).strip():
        yield place.key("description", rule, "description is missing; one sentence goes here")
    dev = member.pyproject.get("dependency-groups", {}).get("dev", [])
    if not any(isinstance(need, str) and need.startswith("pytest") for need in dev):
        yield place.key("dev", rule, "the dependency group `dev` has no pytest")
    needs = {canonicalize_name(need.name) for need in member.requirements()}
    allowed = {"tenfold-shared"} if member.kind == "package" else set()
    for need in sorted(needs):
        if need.startswith("tenfold-") and need not in allowed | {member.distribution}:
            message = f"{member.distribution} may not depend on {need}: {_arrows(member)}"
            yield place.key(need, "arrows", message)
    if member.kind == "package":
        if "tenfold-shared" not in needs:
            yield place.key("dependencies", rule, "the dependency tenfold-shared is missing")
        points = project.get("entry-points", {}).get("tenfold", {})
        expected = {member.name: f"{member.module}.cli:app"}
        if points != expected:
            message = f"[project.entry-points.tenfold] is {points}, expected {expected}"
            yield place.key("project.entry-points", rule, message)


def _is_narrower(value: object) -> bool:
    """Says whether a member asks for a newer Python than the workspace does."""
    try:
        asked = SpecifierSet(str(value))
    except InvalidSpecifier:
        return False
    return bool(asked) and not any(asked.contains(f"3.{minor}") for minor in range(11))


def _contract(place: _Place) -> Iterator[Finding]:
    """The files that every member has, and those that every package has."""
    member = place.member
    wanted = [member.path / name for name in ("README.md", "CHANGELOG.md", "tests")]
    wanted.append(member.source / "py.typed")
    if member.kind == "package":
        wanted += [member.source / name for name in _PACKAGE_FILES]
        wanted += [member.source / "recipes", member.path / "benchmarks"]
    for path in wanted:
        if not path.exists():
            yield place.at(path, 1, "contract", f"is missing; {member.name} must have it")
    for folder, pattern in (
        (member.source / "recipes", "*.toml"),
        (member.path / "tests", "test_*.py"),
    ):
        if folder.is_dir() and not any(folder.rglob(pattern)):
            yield place.at(folder, 1, "contract", f"holds no {pattern}")
    for path in [member.source / "published.toml", *sorted(member.source.glob("recipes/*.toml"))]:
        if path.is_file():
            try:
                content = read_toml(path)
            except InputError as error:
                yield place.at(path, 1, "contract", str(error))
                continue
            if path.name == "published.toml" and not content.get("source", {}).get("title"):
                yield place.at(path, 1, "contract", "[source] has no title")


def _changelog(place: _Place) -> Iterator[Finding]:
    """The newest version in the CHANGELOG is the one in `pyproject.toml`."""
    member, rule = place.member, "changelog"
    try:
        version = Version(member.version)
    except InvalidVersion:
        yield place.key("version", rule, f"version is {member.version!r}, expected like '1.2.3'")
        return
    path = member.path / "CHANGELOG.md"
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = [(at, match) for at, line in enumerate(lines, 1) if (match := _HEADING.match(line))]
    if not matches or matches[0][1]["version"].lower() != "unreleased":
        at = matches[0][0] if matches else 1
        yield place.at(path, at, rule, "the first section is not `## [Unreleased]`")
    released = [item for item in matches if item[1]["version"].lower() != "unreleased"]
    if released and released[0][1]["version"] != str(version):
        message = f"the newest version is {released[0][1]['version']}, but pyproject.toml says"
        yield place.at(path, released[0][0], rule, f"{message} {version}")
    for at, match in released:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", match["date"] or ""):
            yield place.at(path, at, rule, f"expected `## [{match['version']}] - YYYY-MM-DD`")


def _files(place: _Place) -> Iterator[Finding]:
    """Files that may not be there."""
    member = place.member
    namespace = member.path / "src" / "tenfold" / "__init__.py"
    if namespace.exists():
        message = "`tenfold` is a namespace that the packages share; delete this file"
        yield place.at(namespace, 1, "namespace", message)
    for path in sorted((member.path / "src").rglob("*")):
        is_module = path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
        if is_module and path.stem.lower() in _NAMELESS:
            message = f"`{path.name}` says nothing; name it after what it holds"
            yield place.at(path, 1, "names", message)


def _sources(place: _Place) -> Iterator[Finding]:
    """What the Python files import and load."""
    member = place.member
    others = {item.module for item in place.workspace.members} - {member.module}
    for folder in ("src", "tests", "benchmarks"):
        for path in sorted((member.path / folder).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                yield place.at(path, line, "syntax", f"is not Python: {error}")
                continue
            for line, name in _imports(tree, _module_of(member, path)):
                made_up = folder == "tests" and not _is_below(name, others)  # made by the test
                if not made_up and not _may_import(member, name):
                    message = f"{member.name} may not import {name}: {_arrows(member)}"
                    yield place.at(path, line, "arrows", message)
            if folder != "tests":
                for line, message in _unsafe_loads(tree):
                    yield place.at(path, line, "unsafe-load", message)


def _module_of(member: Member, path: Path) -> list[str]:
    """Gives the parts of the package that a file belongs to, for its relative imports."""
    source = member.path / "src"
    return list(path.relative_to(source).parts[:-1]) if source in path.parents else []


def _imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Yields the line and the full name of everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def _is_below(name: str, modules: set[str]) -> bool:
    """Says whether a full name is one of these modules or in one of them."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _may_import(member: Member, name: str) -> bool:
    """Says whether the arrows allow an import."""
    parts = name.split(".")
    if parts[0] == "tenfold_tools":
        return member.kind == "tools"
    if parts[0] != "tenfold" or len(parts) == 1:
        return True
    own = {"tools": set(), "shared": {"shared"}}.get(
        member.kind, {"shared", member.module.removeprefix("tenfold.")}
    )
    return parts[1] in own


def _arrows(member: Member) -> str:
    """Says what a member may import."""
    if member.kind == "package":
        return f"a package imports only itself ({member.module}) and tenfold.shared"
    if member.kind == "shared":
        return "shared imports no package and no tools"
    return "tools imports no other member"


def _unsafe_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields the calls that may run code from a file."""
    names = _full_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        options = {word.arg: word.value for word in node.keywords if word.arg}
        if called == "torch.load" and not _is_constant(options.get("weights_only"), True):
            yield node.lineno, "torch.load needs weights_only=True"
        elif called in ("numpy.load", "numpy.lib.npyio.load"):
            if "allow_pickle" in options and not _is_constant(options["allow_pickle"], False):
                yield node.lineno, "numpy.load needs allow_pickle=False"
        elif called in _UNPICKLERS:
            message = f"{called} runs code from the file; take JSON, parquet, safetensors"
            yield node.lineno, f"{message} or an Unpickler whose find_class refuses the rest"


def _full_names(tree: ast.AST) -> dict[str, str]:
    """Gives the full name behind each name that an import binds."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.split(".")[0]
                names[alias.asname or full] = full
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Writes `np.load` as `numpy.load`; empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _is_constant(node: ast.expr | None, value: bool) -> bool:
    """Says whether an argument is literally this value."""
    return isinstance(node, ast.Constant) and node.value is value


def _mypy_path(workspace: Workspace) -> Iterator[Finding]:
    """The root names the sources of every member to mypy, if it names any."""
    path = workspace.root / "pyproject.toml"
    named = read_toml(path).get("tool", {}).get("mypy", {}).get("mypy_path")
    if named is None:
        return
    folders = named.split(":") if isinstance(named, str) else named
    lines = path.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines, 1) if "mypy_path" in line)
    for member in workspace.members:
        if f"{member.folder}/src" not in folders:
            yield Finding("pyproject.toml", at, "types", f"mypy_path lacks {member.folder}/src")


def _lockfile(workspace: Workspace) -> Iterator[Finding]:
    """The lockfile is there, takes everything from PyPI and knows every member."""
    path = workspace.root / "uv.lock"
    if not path.is_file():
        yield Finding("uv.lock", 1, "lock", "is missing; run `uv lock`")
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.search(r'\b(registry|git|url) = "([^"]*)"', line)
        if match is None:
            continue
        kind, address = match.groups()
        if kind == "registry" and address.rstrip("/") != REGISTRY:
            yield Finding("uv.lock", number, "lock", f"registry {address}, expected {REGISTRY}")
        elif kind == "git" or (
            kind == "url" and not address.startswith("https://files.pythonhosted.org/")
        ):
            yield Finding("uv.lock", number, "lock", f"{address} is not a file of {REGISTRY}")
    known = {package["name"] for package in read_toml(path).get("package", [])}
    for member in workspace.members:
        if member.distribution not in known:
            message = f"does not know {member.distribution}; run `uv lock`"
            yield Finding("uv.lock", 1, "lock", message)
