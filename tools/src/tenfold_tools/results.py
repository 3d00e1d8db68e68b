"""The README's results table, from the `result.json` of runs and the packages' published numbers.

The table stands between `<!-- results:begin -->` and `<!-- results:end -->`. A row is one data
set, method, metric and protocol of one package; of several runs the newest one is shown.
"""

import dataclasses
import datetime
import json
import shlex
from pathlib import Path, PurePath
from typing import Any

from tenfold_tools.errors import InputError
from tenfold_tools.workspace import Workspace, read_toml

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_HEAD = """\
| package | method | data set | metric | protocol | paper | here (mean ± std, n) | diff. | date |
|---|---|---|---|---|---:|---:|---:|---|"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    package: str
    method: str
    dataset: str
    metric: str
    protocol: str
    paper: float | None
    paper_std: float | None
    value: float
    std: float | None
    n: int
    date: str
    command: str

    @property
    def rank(self) -> tuple[float, int]:
        """The higher one is shown: the newer or, of the same second, that with more seeds."""
        return datetime.datetime.fromisoformat(self.date).timestamp(), self.n

    @property
    def difference(self) -> float | None:
        """Here minus paper; None where the paper does not have the number."""
        return None if self.paper is None else self.value - self.paper


def collect(workspace: Workspace, runs: Path, verb: str = "reproduce") -> list[Row]:
    """Reads the runs and puts each number beside the paper's.

    Args:
        workspace: The workspace, whose packages have a `published.toml`.
        runs: The folder below which each run has its `result.json`.
        verb: Only runs of this verb count; empty for all.

    Returns:
        The rows, sorted by package, data set, method, metric and protocol.

    Raises:
        InputError: If a file does not have the expected form.
    """
    papers = {
        package.name: _published(package.source / "published.toml")
        for package in workspace.packages
    }
    newest: dict[tuple[str, ...], Row] = {}
    for path in sorted(runs.rglob("result.json")):
        for row in _read_run(path, papers, verb):
            key = (row.package, row.dataset, row.method, row.metric, row.protocol)
            if key not in newest or newest[key].rank <= row.rank:
                newest[key] = row
    return [newest[key] for key in sorted(newest)]


def table(rows: list[Row]) -> str:
    """Writes the rows, and the commands that measured them, in Markdown.

    Args:
        rows: From `collect`.
    """
    if not rows:
        return "Nothing has been measured yet."
    lines = [_HEAD]
    for row in rows:
        # Shares of one need more digits than percent, metres or counts.
        digits = 4 if max(abs(row.value), abs(row.paper or 0.0)) < 2 else 2
        here = _number(row.value, row.std, digits)
        difference = ""
        if row.difference is not None:
            difference = f"{row.difference:+.{digits}f}".replace("-", "−")
        paper = "" if row.paper is None else _number(row.paper, row.paper_std, digits)
        names = (row.package, row.method, row.dataset, row.metric, row.protocol)
        values = (paper, f"{here}, {row.n}", difference, row.date[:10])
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in (*names, *values)]
        lines.append("| " + " | ".join(cells) + " |")
    commands = dict.fromkeys(row.command for row in rows)
    listed = [f"    {command}" for command in commands]
    return "\n".join([*lines, "", "Measured with:", "", *listed])


def insert(readme: str, content: str, where: str) -> str:
    """Puts the table between the two markers.

    Args:
        readme: The text with the markers.
        content: The table.
        where: What the file is called in messages.

    Raises:
        InputError: If the markers are not there, once each and in order.
    """
    begin, end = readme.find(BEGIN), readme.find(END)
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or end < begin:
        raise InputError(f"{where}: expected one line `{BEGIN}` and, below it, one line `{END}`")
    return f"{readme[: begin + len(BEGIN)]}\n{content}\n{readme[end:]}"


def _number(value: float, std: float | None, digits: int) -> str:
    """Writes a number with its deviation."""
    text = f"{value:.{digits}f}".replace("-", "−")
    return text if std is None else f"{text} ± {std:.{digits}f}"


def _published(path: Path) -> dict[tuple[str, str, str], tuple[float, float | None]]:
    """Reads a paper's numbers; one that its tables disagree on is left out."""
    found: dict[tuple[str, str, str], tuple[float, float | None]] = {}
    torn = set()
    for number, item in enumerate(read_toml(path).get("result", []), 1):
        try:
            key = _key(item["dataset"], item["method"], item["metric"])
            value = (float(item["value"]), float(item["std"]) if "std" in item else None)
        except (KeyError, TypeError, ValueError) as error:
            message = f"expected dataset, method, metric, value and perhaps std ({error!r})"
            raise InputError(f"{path}: [[result]] number {number}: {message}") from error
        if found.setdefault(key, value) != value:
            torn.add(key)
    return {key: value for key, value in found.items() if key not in torn}


def _key(dataset: object, method: object, metric: object) -> tuple[str, str, str]:
    """Makes the key of a number; names are compared without regard to case."""
    return str(dataset).casefold(), str(method).casefold(), str(metric).casefold()


def _read_run(
    path: Path, papers: dict[str, dict[tuple[str, str, str], tuple[float, float | None]]], verb: str
) -> list[Row]:
    """Reads the rows of one run; none if it is of another verb or of no package here."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        package, command = content["package"], _command(content["command"])
        words = shlex.split(command)
        if package not in papers or (verb and verb not in words[:4]):
            return []
        date = datetime.datetime.fromisoformat(content["date"])
        rows = []
        for item in content["results"]:
            key = _key(item["dataset"], item["method"], item["metric"])
            paper, paper_std = papers[package].get(key, (None, None))
            if item["value"] is None:  # a number that could not be computed
                continue
            row = Row(
                package=package,
                method=item["method"],
                dataset=item["dataset"],
                metric=item["metric"],
                protocol=item.get("protocol") or "",
                paper=paper,
                paper_std=paper_std,
                value=float(item["value"]),
                std=None if item.get("std") is None else float(item["std"]),
                n=int(item.get("n", 1)),
                date=date.isoformat(),
                command=command,
            )
            rows.append(row)
        return rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the result of a run: {error!r}; delete or repair it"
        ) from error


def _command(command: object) -> str:
    """Writes a run's command as a user types it: the program without its folder."""
    words = command if isinstance(command, list) else shlex.split(str(command))
    if not words:
        return ""
    return shlex.join([PurePath(str(words[0])).name, *map(str, words[1:])])
