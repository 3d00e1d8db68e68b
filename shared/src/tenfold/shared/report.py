"""A run's report as one self-contained HTML page, and the one form of a demo's result."""

import base64
import dataclasses
import io
import mimetypes
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tenfold.shared.files import write_atomic


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What a package's `demo` verb found, as one row of the table of `tenfold demo`.

    The verb takes `--output FOLDER` and returns `Outcome({"demo": DemoResult(...), ...})`.
    """

    paper: str
    """The paper's short name, e.g. `CCGC (AAAI 2023)`."""
    task: str
    """What is done, e.g. `graph clustering`."""
    data: str
    """The data, e.g. `digits, 1,797 images`."""
    metric: str
    """The metric, e.g. `ACC, %`."""
    value: float | None
    """The value here; None if the demo failed."""
    seconds: float
    """How long it took."""
    paper_value: float | None = None
    """The paper's value of the metric, where the paper has one."""
    comparable: bool = False
    """Whether the paper's value was measured on the same data in the same way."""
    note: str = ""
    """What a reader must know about the two values."""
    pictures: Sequence[tuple[Path, str]] = ()
    """The pictures: file and caption."""
    report: Path | None = None
    """The demo's own page."""

    def row(self) -> dict[str, Any]:
        """Gives the row of the table: the paper's value stands there only where comparable."""
        return {
            "paper": self.paper,
            "task": self.task,
            "data": self.data,
            "metric": self.metric,
            "paper's value": self.paper_value if self.comparable else None,
            "value here": self.value,
            "seconds": round(self.seconds, 1),
            "note": self.note,
        }


class Report:
    """A page that is built part by part, from top to bottom, and written once.

    Example:
        >>> report = Report("CCGC on Cora", "final protocol, ten seeds")
        >>> report.text("The embedding is **not** trained with labels.")
        >>> report.table([{"metric": "ACC", "paper": 73.88, "here": None}], caption="Cora")
        >>> report.write(Path("report.html"))
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._parts: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}

    def text(self, markdown: str) -> None:
        """Adds text.

        Args:
            markdown: CommonMark; HTML in it is shown as text, pictures in it are not loaded.
        """
        from markdown_it import MarkdownIt

        parser = MarkdownIt("commonmark", {"html": False}).disable("image")
        self._parts.append({"kind": "text", "html": parser.render(markdown)})

    def table(self, rows: Sequence[Any], caption: str = "") -> None:
        """Adds a table; numbers are aligned, None gives an empty cell.

        Args:
            rows: Dicts or dataclasses; the columns are the keys of the first.
            caption: What the table shows.
        """
        names, cells = as_cells(rows)
        numeric = [any(map(is_number, column)) for column in zip(*cells, strict=True)]
        made = {"kind": "table", "names": names, "rows": cells, "numeric": numeric}
        self._parts.append(made | {"caption": caption})

    def picture(self, source: Any, name: str, caption: str = "") -> None:
        """Adds a picture; `write` also saves it as a file beside the page.

        Args:
            source: The path of a picture, or a matplotlib figure.
            name: The file's name without its ending.
            caption: What the picture shows; also its text for those who cannot see it.
        """
        if hasattr(source, "savefig"):
            buffer = io.BytesIO()
            source.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
            name, content = f"{name}.png", buffer.getvalue()
        else:
            name, content = name + Path(source).suffix.lower(), Path(source).read_bytes()
        self._files[name] = content
        encoded = base64.b64encode(content).decode()
        data = f"data:{mimetypes.guess_type(name)[0]};base64,{encoded}"
        self._parts.append({"kind": "picture", "data": data, "caption": caption})

    def config(self, config: Any, caption: str = "Configuration") -> None:
        """Adds a configuration, folded up.

        Args:
            config: A dataclass.
            caption: The heading.
        """
        pairs = [(key, str(value)) for key, value in vars(config).items() if value is not None]
        self._parts.append({"kind": "config", "pairs": pairs, "caption": caption})

    def write(self, path: Path | str) -> Path:
        """Writes the page and, beside it, the pictures.

        Args:
            path: The HTML file.

        Returns:
            The path.
        """
        from jinja2 import Environment

        source = (files("tenfold.shared") / "report.html.jinja").read_text(encoding="utf-8")
        template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        page = template.from_string(source).render(
            title=self.title, subtitle=self.subtitle, parts=self._parts
        )
        for name, content in self._files.items():
            write_atomic(Path(path).parent / name, content)
        write_atomic(Path(path), page)
        return Path(path)


def as_cells(rows: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Turns records into the text of a table's cells.

    Args:
        rows: Dicts or dataclasses; the columns are the keys of the first.

    Returns:
        The names of the columns, and the cells row by row.
    """
    records = [row if isinstance(row, Mapping) else vars(row) for row in rows]
    names = list(records[0]) if records else []
    return names, [[as_text(record.get(name)) for name in names] for record in records]


def as_text(value: Any) -> str:
    """Writes a value as a reader wants it: floats with four digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {as_text(item)}" for key, item in value.items())
    return str(value)


def is_number(cell: str) -> bool:
    """Says whether a cell holds a number, perhaps with its deviation (`73.9 ± 1.2`)."""
    return re.fullmatch(r"[+−-]?[\d.,]+(e[+-]?\d+)?( ?(±|\+-) ?[\d.,]+)?( ?%)?", cell) is not None
