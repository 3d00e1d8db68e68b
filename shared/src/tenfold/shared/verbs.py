"""The verbs of the `tenfold` command itself: `list`, `doctor`, `demo`."""

import sys
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tenfold.shared.cli import Outcome, installed, summary, table
from tenfold.shared.errors import InputError, UnavailableError, did_you_mean
from tenfold.shared.progress import message, progress

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from tenfold.shared.report import DemoResult


def list_packages() -> Outcome:
    """Lists the installed packages: name, version, summary."""
    found = {name: summary(entry) for name, entry in installed().items()}
    rows = [{"name": name, "version": v, "summary": text} for name, (v, text) in found.items()]
    lines = [f"{row['name']:<10} {row['version']:<8} {row['summary']}" for row in rows]
    return Outcome({"packages": rows}, view="\n".join(lines) or "no packages are installed")


def doctor() -> Outcome:
    """Says what is installed, which devices there are and what is missing.

    The exit code is 1 if an installed package does not load or lacks a required dependency.
    """
    from tenfold.shared.compute import environment
    from tenfold.shared.datasets import data_root

    packages = [_diagnose(name, entry) for name, entry in installed().items()]
    data = {
        "executable": sys.executable,
        **environment(),
        "data_root": data_root(),
        "data_root_exists": data_root().is_dir(),
        "tenfold_packages": packages,
    }
    broken = any(item["problem"] or item["missing"] for item in packages)
    return Outcome(data, exit_code=int(broken))


def _diagnose(name: str, entry: metadata.EntryPoint) -> dict[str, Any]:
    """Loads a package's app and looks for what it requires."""
    from packaging.requirements import Requirement

    problem = ""
    try:
        entry.load()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    missing: dict[str, list[str]] = {"": []}  # extra, or nothing → what is not there
    dist = entry.dist
    extras = (dist.metadata.get_all("Provides-Extra") or []) if dist else []
    for need in map(Requirement, (dist.requires or []) if dist else []):
        asking = [x for x in ("", *extras) if not need.marker or need.marker.evaluate({"extra": x})]
        if asking and not _is_there(need):
            missing.setdefault(asking[0], []).append(f"{need.name}{need.specifier}")
    return {
        "name": name,
        "version": summary(entry)[0],
        "loads": not problem,
        "problem": problem,
        "missing": missing.pop(""),
        "missing_for_extras": missing,
    }


def _is_there(need: "Requirement") -> bool:
    """Says whether a distribution that satisfies a requirement is installed."""
    try:
        return need.specifier.contains(metadata.version(need.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def demo(
    *packages: str,
    output: Annotated[Path | None, Parameter(help="[default: runs/demo-<time>]")] = None,
) -> Outcome:
    """Runs the demos of the installed packages and makes one page of them.

    Args:
        packages: The packages; by default all that are installed.
        output: The folder for the page, the pictures and the demos' own files.
    """
    from tenfold.shared.report import Report

    known = installed()
    for name in packages:
        if name not in known:
            raise InputError(did_you_mean(name, known, kind="package"))
    chosen = list(dict.fromkeys(packages)) or list(known)
    if not chosen:
        raise InputError("no packages are installed; install one, e.g. tenfold-ccgc")
    folder = output or Path("runs", f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    results: dict[str, DemoResult] = {}
    with progress("demos", total=len(chosen)) as bar:
        for name in chosen:
            results[name] = _run_demo(name, known[name], folder / name)
            bar.update(package=name)
    rows = [result.row() for result in results.values()]
    report = Report("Tenfold: the demos", time.strftime("%Y-%m-%d %H:%M"))
    # The page has the notes below, beside the pictures; in the table they would be narrow columns.
    report.table([{key: row[key] for key in row if key != "note"} for row in rows])
    for name, result in results.items():
        report.text(f"## {result.paper}\n\n{result.note}")
        for index, (path, caption) in enumerate(result.pictures):
            report.picture(path, f"{name}-{index + 1}", caption)
    page = report.write(folder / "index.html")
    message(f"page: {page}")
    failed = [name for name, result in results.items() if result.value is None]
    data = {"demos": results, "failed": failed, "page": page}
    return Outcome(data, view=table(rows), exit_code=int(bool(failed)))


def _run_demo(name: str, entry: metadata.EntryPoint, folder: Path) -> "DemoResult":
    """Runs one package's demo in this process; a failure becomes a result that says so."""
    from tenfold.shared.report import DemoResult

    started = time.perf_counter()
    try:
        app, arguments = entry.load(), ["demo", "--output", str(folder)]
        silent = {"exit_on_error": False, "print_error": False, "result_action": "return_value"}
        result = app(arguments, **silent).data.get("demo")
        if not isinstance(result, DemoResult):
            raise TypeError("the verb `demo` must return Outcome({'demo': DemoResult(...)})")
        return result
    except (Exception, SystemExit) as error:
        if not isinstance(error, InputError | UnavailableError):
            message(traceback.format_exc())
        note = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
        seconds = time.perf_counter() - started
        return DemoResult(
            paper=name, task="", data="", metric="", value=None, seconds=seconds, note=note
        )
