"""A new package from the template: small, real, and right by every rule from its first minute."""

import dataclasses
import keyword
import re
import shutil
import textwrap
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from tenfold_tools.check import check
from tenfold_tools.errors import CommandError, InputError
from tenfold_tools.processes import run
from tenfold_tools.workspace import Workspace

PACKAGES_BEGIN, PACKAGES_END = "<!-- packages:begin -->", "<!-- packages:end -->"
_LISTS = ("README.md", "pyproject.toml", ".github/CODEOWNERS", "uv.lock")
_RESERVED = ("shared", "tools", "list", "demo", "doctor", "test", "tests")


@dataclasses.dataclass(frozen=True)
class NewPackage:
    """What has been made."""

    name: str
    distribution: str
    module: str
    folder: str
    files: tuple[str, ...]
    """The new files, relative to the root."""
    changed: tuple[str, ...]
    """The files that were there and have changed."""


def new(
    workspace: Workspace,
    name: str,
    title: str,
    arxiv: str,
    *,
    authors: str = "",
    venue: str = "",
    owner: str = "",
    lock: bool = True,
) -> NewPackage:
    """Makes `packages/<name>` from the template and enters it where packages are listed.

    Nothing is left behind on failure.

    Args:
        workspace: The workspace.
        name: The short name: lower-case letters and digits, parts joined by hyphens.
        title: The title of the paper.
        arxiv: Its number at arXiv, e.g. `2301.01098`.
        authors: Its authors.
        venue: Where it appeared; by default arXiv.
        owner: Who reviews the package, for CODEOWNERS, e.g. `@someone`; by default as for `*`.
        lock: Whether to update `uv.lock`.

    Returns:
        What has been made.

    Raises:
        InputError: If an argument is wrong, or the folder exists.
        CommandError: If `uv lock` fails.
    """
    _validate(name, title, arxiv, authors, venue, owner)
    folder = workspace.root / "packages" / name
    if folder.exists():
        raise InputError(f"packages/{name} exists already; choose another name or remove it")
    values = {
        "name": name,
        "module": name.replace("-", "_"),
        "prefix": "".join(part.capitalize() for part in name.split("-")),
        "title": " ".join(title.split()),
        "arxiv": arxiv,
        "authors": " ".join(authors.split()),
        "venue": " ".join(venue.split()),
        "source": f"{' '.join(venue.split())}, arXiv:{arxiv}".removeprefix(", "),
        "shared": _minor(workspace.member("shared").version),
    }
    listed = {
        path: path.read_bytes()
        for path in (workspace.root / item for item in _LISTS)
        if path.is_file()
    }
    try:
        made = _render(files("tenfold_tools") / "template", folder, values)
        _enter_in_readme(workspace.root / "README.md", values)
        _enter_in_mypy_path(workspace.root / "pyproject.toml", name)
        _enter_in_codeowners(workspace.root / ".github" / "CODEOWNERS", name, owner)
        if lock:
            run("uv", "lock", cwd=workspace.root)
        made_workspace = Workspace.find(workspace.root)
        broken = [
            item for item in check(made_workspace) if item.path.startswith(f"packages/{name}/")
        ]
        if broken:
            raise CommandError(f"the template breaks a rule: {broken[0]}")
        member = made_workspace.member(name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in listed.items():
            path.write_bytes(content)
        raise
    return NewPackage(
        name=name,
        distribution=member.distribution,
        module=member.module,
        folder=member.folder,
        files=tuple(path.relative_to(workspace.root).as_posix() for path in made),
        changed=tuple(
            path.relative_to(workspace.root).as_posix()
            for path, content in listed.items()
            if path.read_bytes() != content
        ),
    )


def _validate(name: str, title: str, arxiv: str, authors: str, venue: str, owner: str) -> None:
    """Refuses arguments that would give a broken package."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise InputError(
            f"name {name!r}: expected lower-case letters and digits, a letter first, parts joined "
            f"by single hyphens, e.g. 'ccgc' or 'l2w-den'"
        )
    if name in _RESERVED or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise InputError(f"name {name!r} is taken by the command or the language; choose another")
    if not title.strip():
        raise InputError("--title is empty; the title of the paper goes here")
    for option, text in (("--title", title), ("--authors", authors), ("--venue", venue)):
        if not " ".join(text.split()).isprintable():
            raise InputError(f"{option} {text!r}: expected printable text")
    if not re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?/\d{7}(v\d+)?", arxiv):
        raise InputError(f"--arxiv {arxiv!r}: expected a number such as 2301.01098")
    if owner and not re.fullmatch(r"@[\w-]+(/[\w.-]+)?", owner):
        raise InputError(f"--owner {owner!r}: expected @user or @organisation/team")


def _minor(version: str) -> str:
    """Gives the first two numbers of a version, as a floor for a dependency."""
    return ".".join(version.split(".")[:2])


def _render(template: Traversable, folder: Path, values: dict[str, str]) -> list[Path]:
    """Writes every file of the template; `__module__` in a path becomes the module's name."""
    # The usual delimiters are Python's and TOML's own, so the template has others.
    engine = Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        keep_trailing_newline=True,
        trim_blocks=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    engine.filters |= {"toml": _toml_string, "literal": _python_string, "fill": _docstring}
    made = []
    for relative, source in sorted(_walk(template, ())):
        path = folder.joinpath(*(part.replace("__module__", values["module"]) for part in relative))
        path = path.with_name(path.name.removesuffix(".jinja"))
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        path.write_text(engine.from_string(text).render(values), encoding="utf-8")
        made.append(path)
    return made


def _walk(folder: Traversable, above: tuple[str, ...]) -> list[tuple[tuple[str, ...], Traversable]]:
    """Lists the files below a folder with the parts of their paths."""
    found = []
    for item in folder.iterdir():
        parts = (*above, item.name)
        if item.is_dir():
            found += _walk(item, parts)
        elif item.name.endswith(".jinja"):
            found.append((parts, item))
    return found


def _toml_string(text: str) -> str:
    """Writes text as a string of TOML, which is also one of Python."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _python_string(text: str, used: int) -> str:
    """Writes text as a string of Python, over several lines if one (`used` so far) is too short."""
    lines = textwrap.wrap(text, 80, drop_whitespace=False)
    written = [_quoted(line) for line in lines]
    if len(written) == 1 and len(written[0]) + used <= 100:
        return written[0]
    return "(\n" + "".join(f"    {line}\n" for line in written) + ")"


def _quoted(text: str) -> str:
    """Writes text in the quotes that need fewer backslashes, as the formatter does."""
    if text.count('"') <= text.count("'"):
        return _toml_string(text)
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _docstring(text: str) -> str:
    """Writes text as the first paragraph of a module's docstring, after its opening quotes."""
    safe = text.replace("\\", "\\\\").replace('"', "'")
    return "\n".join(textwrap.wrap(safe, 96))


def _enter_in_readme(path: Path, values: dict[str, str]) -> None:
    """Enters the package in the table that the README marks; a planned row becomes its link."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    begin, end = text.find(PACKAGES_BEGIN), text.find(PACKAGES_END)
    if begin < 0 or end < begin:
        return
    rows = [line for line in text[begin:end].splitlines() if line.startswith("|")]
    name = values["name"]
    there = re.search(rf"^\| *\[?`?{re.escape(name)}`?[\]| ].*$", text[begin:end], re.MULTILINE)
    if there is not None:
        row = there[0].replace(f"| `{name}` |", f"| [`{name}`](packages/{name}) |", 1)
        row = re.sub(r"\| planned \|$", "| 0.0.0 |", row)
        path.write_text(text[:begin] + text[begin:end].replace(there[0], row) + text[end:], "utf-8")
        return
    cells = [f"[{name}](packages/{name})", values["title"].replace("|", "\\|")]
    columns = rows[0].strip("|").count("|") + 1 if rows else len(cells)
    cells = (cells + [""] * columns)[:columns]
    row = "| " + " | ".join(cells) + " |\n"
    path.write_text(text[:end] + row + text[end:], encoding="utf-8")


def _enter_in_mypy_path(path: Path, name: str) -> None:
    """Adds the sources to those that mypy knows, if the root names them one by one."""
    text = path.read_text(encoding="utf-8")
    added = rf'\g<1>:packages/{name}/src"'
    path.write_text(re.sub(r'^(mypy_path = "[^"\n]*)"', added, text, flags=re.M), encoding="utf-8")


def _enter_in_codeowners(path: Path, name: str, owner: str) -> None:
    """Adds the line of the package."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    if not owner:
        default = re.search(r"^\*\s+(.+)$", text, re.MULTILINE)
        if default is None:
            return
        owner = default[1].strip()
    ending = "" if text.endswith("\n") or not text else "\n"
    path.write_text(f"{text}{ending}/packages/{name}/ {owner}\n", encoding="utf-8")
