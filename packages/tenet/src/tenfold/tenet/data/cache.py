"""The preprocessed cache: scenes in shards of memory-mapped arrays.

A shard holds a fixed range of scenarios, so the files are the same, bit for bit, whichever worker
or machine makes them and in whatever order. A shard appears whole or not at all (it is made beside
its place and renamed); what is there already is not made again, so a killed preprocessing goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.config import to_json
from tenfold.shared.errors import InputError, UnavailableError
from tenfold.shared.files import sync_folder, write_atomic
from tenfold.shared.progress import message, progress
from tenfold.tenet.data.index import Index
from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import read_scenario
from tenfold.tenet.data.scene import Batch, Scene, SceneConfig, SceneStore, make_scene

VERSION = 1
HEADER = "cache.json"


@dataclass(frozen=True)
class ShardTask:
    """One shard to make; plain values, so that it travels to another process or machine."""

    folder: str
    target: str
    scenario_ids: tuple[str, ...]
    config: SceneConfig


def preprocess(
    index: Index,
    target: Path,
    config: SceneConfig | None = None,
    shard_size: int = 1024,
    workers: int = 1,
    scheduler: str | None = None,
) -> ShardedStore:
    """Makes the cache of a split, or goes on with it.

    Args:
        index: The scenarios.
        target: The cache's folder.
        config: What becomes a scene.
        shard_size: Scenarios of a shard.
        workers: Processes on this machine.
        scheduler: The address of a Dask scheduler (extra ``dask``): its workers make the shards
            instead. They must see both folders under the same paths.

    Returns:
        The cache, opened.

    Raises:
        InputError: If a scenario cannot be read (the message names the file), or the folder holds a
            cache of other scenarios or another configuration.
        UnavailableError: If the scheduler cannot be reached or Dask is not installed.
    """
    config = config or SceneConfig()
    if shard_size < 1 or workers < 1:
        raise InputError(f"shard_size={shard_size}, workers={workers}; expected >= 1")
    header = {
        "version": VERSION,
        "config": asdict(config),
        "shard_size": shard_size,
        "scenarios": len(index),
        "ids": hashlib.sha256("\n".join(index.scenario_ids).encode()).hexdigest(),
    }
    _claim(target, header)
    tasks = [
        ShardTask(
            str(index.folder.absolute()),
            str(target.absolute() / f"shard-{start // shard_size:05d}"),
            index.scenario_ids[start : start + shard_size],
            config,
        )
        for start in range(0, len(index), shard_size)
    ]
    open_tasks = [task for task in tasks if not Path(task.target).is_dir()]
    if len(open_tasks) < len(tasks):
        message(f"{len(tasks) - len(open_tasks)} of {len(tasks)} shards are there already")
    with progress("preprocess", total=len(index)) as bar:
        bar.update(len(index) - sum(len(task.scenario_ids) for task in open_tasks))
        for count in _run(open_tasks, workers, scheduler):
            bar.update(count)
    return open_cache(target)


def _claim(target: Path, header: dict[str, Any]) -> None:
    """Writes the header of a new cache, or compares it with the one that is there."""
    path = target / HEADER
    if path.is_file():
        found = _read_header(path)
        for key, value in header.items():
            if found.get(key) != value:
                raise InputError(
                    f"{target} holds a cache with {key} {found.get(key)}, not {value}; "
                    "give another folder or remove this one"
                )
        return
    write_atomic(path, to_json(header, indent=2) + "\n")


def _read_header(path: Path) -> dict[str, Any]:
    """Reads the header of a cache."""
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not the header of a cache ({error})") from error
    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise InputError(f"{path}: not a cache of version {VERSION}; preprocess again")
    return header


def _run(tasks: Sequence[ShardTask], workers: int, scheduler: str | None) -> Iterator[int]:
    """Makes shards, and yields the number of scenarios of each as it is done."""
    if scheduler is not None:
        yield from _run_on_dask(tasks, scheduler)
    elif workers == 1 or len(tasks) < 2:
        yield from map(make_shard, tasks)
    else:
        import multiprocessing

        # "spawn": a forked child of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
            try:
                yield from pool.map(make_shard, tasks)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _run_on_dask(tasks: Sequence[ShardTask], scheduler: str) -> Iterator[int]:
    """Makes shards on the workers of a Dask cluster."""
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise UnavailableError("--scheduler needs Dask: install tenfold-tenet[dask]") from error
    try:
        client = Client(scheduler, timeout=20)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        futures = client.map(make_shard, tasks, pure=False)
        for future in as_completed(futures):
            yield future.result()


def make_shard(task: ShardTask) -> int:
    """Makes one shard, unless it is there; the same code on one machine and on many.

    Returns:
        The number of its scenarios.
    """
    target = Path(task.target)
    if target.is_dir():
        return len(task.scenario_ids)
    scenes = [read_scene(Path(task.folder) / name, task.config) for name in task.scenario_ids]
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        save_store(SceneStore.of(scenes), part)
        try:
            os.rename(part, target)
        except OSError:
            if not target.is_dir():  # else another worker was faster, with the same bits
                raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return len(scenes)


def read_scene(folder: Path, config: SceneConfig | None = None) -> Scene:
    """Reads a scenario folder as a scene; errors name the file."""
    scenario = read_scenario(folder / f"scenario_{folder.name}.parquet")
    lane_map = read_map(folder / f"log_map_archive_{folder.name}.json")
    return make_scene(scenario, lane_map, config)


def save_store(store: SceneStore, folder: Path) -> None:
    """Writes a store as one ``.npy`` file an array, flushed to the disk.

    Args:
        store: The scenes.
        folder: A new folder.
    """
    folder.mkdir(parents=True)
    arrays = store.arrays | {
        "agent_offsets": store.agent_offsets,
        "line_offsets": store.line_offsets,
    }
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def load_store(folder: Path) -> SceneStore:
    """Maps a store from the disk; nothing is read until it is used.

    Raises:
        InputError: If a file is missing or damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            try:  # an empty array cannot be mapped
                arrays[path.stem] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"{path}: damaged ({error}); remove {folder} and go on") from error
    try:
        offsets = [np.array(arrays.pop(name)) for name in ("agent_offsets", "line_offsets")]
        return SceneStore(arrays, *offsets)
    except KeyError as error:
        raise InputError(
            f"{folder}: {error}.npy is missing; remove the folder and go on"
        ) from error


@dataclass
class ShardedStore:
    """Scenes that lie in several shards; looks like one store."""

    shards: list[SceneStore]

    def __post_init__(self) -> None:
        """Counts the scenes."""
        self._starts = np.concatenate([[0], np.cumsum([len(shard) for shard in self.shards])])

    def __len__(self) -> int:
        """The number of scenes."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Scene:
        """One scene."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.shards[shard][index - int(self._starts[shard])]

    def take(self, indices: Sequence[int] | np.ndarray) -> SceneStore:
        """Copies some scenes into memory, in this order."""
        return SceneStore.of([self[int(index)] for index in indices])

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        max_agents: int = 64,
        max_lines: int = 128,
        fixed: bool = False,
    ) -> Batch:
        """As :meth:`SceneStore.batch`; only the pages that are asked for are read."""
        return self.take(indices).batch(range(len(indices)), max_agents, max_lines, fixed)

    def in_memory(self) -> SceneStore:
        """Reads everything into one store."""
        arrays = {
            name: np.concatenate([shard.arrays[name] for shard in self.shards])
            for name in self.shards[0].arrays
        }
        offsets = []
        for name in ("agent_offsets", "line_offsets"):
            lengths = np.concatenate([np.diff(getattr(shard, name)) for shard in self.shards])
            offsets.append(np.concatenate([[0], np.cumsum(lengths)]))
        return SceneStore(arrays, *offsets)

    @property
    def nbytes(self) -> int:
        """The size of all arrays."""
        return sum(array.nbytes for shard in self.shards for array in shard.arrays.values())


def open_cache(folder: Path | str) -> ShardedStore:
    """Opens a cache that is complete.

    Args:
        folder: Made by :func:`preprocess`.

    Raises:
        InputError: If it is not a cache, or shards are missing.
    """
    folder = Path(folder)
    header = _read_header(folder / HEADER)
    count = -(-header["scenarios"] // header["shard_size"])
    missing = [row for row in range(count) if not (folder / f"shard-{row:05d}").is_dir()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {count} shards are missing (shard-{missing[0]:05d}); run "
            "`preprocess` again, it goes on where it stopped"
        )
    return ShardedStore([load_store(folder / f"shard-{row:05d}") for row in range(count)])


def is_cache(folder: Path | str) -> bool:
    """Says whether a folder is a cache, complete or not."""
    return Path(folder, HEADER).is_file()
