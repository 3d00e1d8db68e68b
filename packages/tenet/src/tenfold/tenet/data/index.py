"""The index of a split: which scenarios are there, how large, and whether they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.datasets import Dataset, File, data_root
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.files import write_atomic
from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import NOW, read_scenario

SPLITS = {"train": 199_908, "val": 24_988, "test": 24_984}
"""The official splits and their numbers of scenarios."""
FOLDER = "av2/motion-forecasting"
BUCKET = "s3://argoverse/datasets/av2/motion-forecasting"
_TARS = "https://s3.amazonaws.com/argoverse/datasets/av2/tars/motion-forecasting"
MANIFEST = "index.parquet"


@dataclass(frozen=True, eq=False)
class Index:
    """The scenarios of one folder, in the order of their ids."""

    folder: Path
    scenario_ids: tuple[str, ...]
    sizes: np.ndarray
    """int64 [S, 2]: bytes of the parquet and of the map; 0 for a file that is missing."""

    def __len__(self) -> int:
        """The number of scenarios."""
        return len(self.scenario_ids)

    def paths(self, row: int) -> tuple[Path, Path]:
        """Gives the parquet and the map of one scenario."""
        name = self.scenario_ids[row]
        folder = self.folder / name
        return folder / f"scenario_{name}.parquet", folder / f"log_map_archive_{name}.json"


def split_folder(name_or_path: str | Path) -> Path:
    """Finds a split by its name under the data root, or takes a folder as it is.

    Args:
        name_or_path: train, val or test, or a folder of scenario folders.

    Raises:
        InputError: If it is neither.
    """
    if str(name_or_path) in SPLITS:
        path = data_root() / FOLDER / str(name_or_path)
        if not path.is_dir():
            raise InputError(
                f"{path} is not there; get the split with `{s5cmd(str(name_or_path))}`, or give a "
                "folder of scenario folders"
            )
        return path
    path = Path(name_or_path)
    if not path.is_dir():
        hint = did_you_mean(str(name_or_path), SPLITS, kind="split")
        raise InputError(f"{hint}; or give a folder of scenario folders")
    return path


def s5cmd(split: str, limit: int | None = None) -> str:
    """Writes the command that downloads a split; it goes on where an earlier one stopped.

    Args:
        split: train, val or test.
        limit: Only the first so many scenarios of the listing.
    """
    target = data_root() / FOLDER / split
    copy = f"s5cmd --no-sign-request cp -n -s '{BUCKET}/{split}/*' '{target}/'"
    if limit is None:
        return copy
    return (
        f"s5cmd --no-sign-request ls '{BUCKET}/{split}/' | awk '{{print $NF}}' | head -n {limit} "
        f"| sed \"s|.*|cp -n -s '{BUCKET}/{split}/&*' '{target}/&'|\" "
        "| s5cmd --no-sign-request run"
    )


def catalogue() -> dict[str, Dataset]:
    """Gives the official archives, one data set a split; their checksums are not published."""
    return {
        split: Dataset(
            name=split,
            title=f"Argoverse 2 motion forecasting, {split}",
            folder=FOLDER,
            files=(
                File(f"{split}.tar", f"{_TARS}/{split}.tar", None, unpack=True, provides=(split,)),
            ),
            licence="CC BY-NC-SA 4.0 (non-commercial; weights trained on it inherit that)",
            homepage="https://www.argoverse.org/av2.html",
            needs_acceptance=True,
            package="tenet",
        )
        for split in SPLITS
    }


def scan(folder: Path | str) -> Index:
    """Lists the scenarios of a folder; files are not opened.

    Args:
        folder: train, val or test, or a folder of scenario folders.

    Raises:
        InputError: If it holds none.
    """
    import os

    path = split_folder(folder)
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    index = Index(path, tuple(names), np.zeros((len(names), 2), np.int64))
    for row in range(len(names)):
        for column, file in enumerate(index.paths(row)):
            try:
                index.sizes[row, column] = file.stat().st_size
            except FileNotFoundError:
                continue
    kept = np.flatnonzero(index.sizes.any(axis=1))
    if len(kept) == 0:
        raise InputError(
            f"{path}: holds no scenario; expected folders <id>/ with scenario_<id>.parquet and "
            "log_map_archive_<id>.json"
        )
    return Index(path, tuple(names[row] for row in kept), index.sizes[kept])


def write_manifest(index: Index, path: Path | None = None) -> Path:
    """Writes the manifest of a folder: id, sizes and sha256 of both files.

    Args:
        index: From :func:`scan`.
        path: The parquet file; by default ``index.parquet`` in the folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path or index.folder / MANIFEST
    digests = [[_sha256(file) for file in index.paths(row)] for row in range(len(index))]
    table = pa.table(
        {
            "scenario_id": list(index.scenario_ids),
            "parquet_bytes": index.sizes[:, 0],
            "map_bytes": index.sizes[:, 1],
            "parquet_sha256": [pair[0] for pair in digests],
            "map_sha256": [pair[1] for pair in digests],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    try:
        write_atomic(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give --output") from error
    return path


def verify(
    index: Index, manifest: Path | None = None, read: bool = True, split: str | None = None
) -> Iterator[dict[str, Any]]:
    """Checks a folder, scenario by scenario, and yields what is wrong.

    Args:
        index: From :func:`scan`.
        manifest: An earlier manifest: sizes and checksums must be as they were.
        read: Also read each scenario and map, and look for the focal track at step 49.
        split: Also compare the number of scenarios with the official one.

    Yields:
        ``{"scenario_id", "problem"}``; nothing for a folder that is whole.
    """
    if split is not None and len(index) != SPLITS[split]:
        problem = f"{len(index)} scenarios, the official split has {SPLITS[split]}"
        yield {"scenario_id": "", "problem": problem}
    known = _read_manifest(manifest) if manifest else {}
    missing = sorted(set(known) - set(index.scenario_ids))
    for name in missing:
        yield {"scenario_id": name, "problem": "in the manifest, but not in the folder"}
    for row, name in enumerate(index.scenario_ids):
        paths = index.paths(row)
        gone = [path.name for path, size in zip(paths, index.sizes[row], strict=True) if size == 0]
        problems = [f"{item} is missing or empty" for item in gone]
        if not problems and manifest:
            problems = _differences(paths, index.sizes[row], known.get(name))
        if not problems and read:
            try:
                scenario = read_scenario(paths[0])
                read_map(paths[1])
                if not scenario.valid[scenario.focal, NOW]:
                    problems.append(f"the focal track is not there at step {NOW}")
                if scenario.scenario_id != name:
                    problems.append(f"column 'scenario_id' is {scenario.scenario_id!r}")
            except InputError as error:
                problems.append(str(error))
        for problem in problems:
            yield {"scenario_id": name, "problem": problem}


def _differences(paths: tuple[Path, Path], sizes: Any, known: dict[str, Any] | None) -> list[str]:
    """Compares the two files of a scenario with the manifest."""
    if known is None:
        return ["is not in the manifest"]
    found = []
    for kind, path, size in zip(("parquet", "map"), paths, sizes, strict=True):
        if size != known[f"{kind}_bytes"]:
            found.append(
                f"{path.name} has {size} bytes, the manifest says {known[kind + '_bytes']}"
            )
        elif _sha256(path) != known[f"{kind}_sha256"]:
            found.append(f"{path.name} has another sha256 than the manifest")
    return found


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Reads a manifest: scenario id → its row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
        return {row["scenario_id"]: row for row in rows}
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{path}: not a manifest of `tenfold tenet data index`: {error}"
        ) from error


def _sha256(path: Path) -> str:
    """Computes a checksum; empty for a file that is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
