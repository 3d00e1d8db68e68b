"""Writes what a benchmark measured into `results.json`, each benchmark under its own name."""

import json
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tenfold.shared.compute import environment

PATH = Path(__file__).with_name("results.json")
PACKAGES = ("tenfold-spaic", "torch", "numba", "numpy")
"""What the measured code of this package runs on."""


def recorded() -> dict[str, Any]:
    """Reads what all benchmarks measured so far: benchmark → date, machine, results."""
    found: dict[str, Any] = json.loads(PATH.read_text("utf-8")) if PATH.is_file() else {}
    return found


def record(name: str, results: Mapping[str, Any], peers: Mapping[str, str] | None = None) -> None:
    """Replaces the entry of one benchmark.

    Args:
        name: The benchmark: the name of its script.
        results: Task → what was measured.
        peers: The other packages that were compared → their versions.
    """
    machine = {key: environment()[key] for key in ("cpu", "cores", "python")}
    machine["packages"] = {package: metadata.version(package) for package in PACKAGES}
    entry = {"date": time.strftime("%Y-%m-%d"), "machine": machine}
    if peers is not None:
        entry["peers"] = dict(peers)
    made = recorded() | {name: {**entry, "results": dict(results)}}
    PATH.write_text(json.dumps(made, indent=2) + "\n", "utf-8")
