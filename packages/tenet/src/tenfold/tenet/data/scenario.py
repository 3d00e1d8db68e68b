"""Scenarios: the parquet files of Argoverse 2 motion forecasting as dense arrays, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic

if TYPE_CHECKING:
    import pyarrow

STEPS = 110
"""Steps of a scenario, at 10 Hz."""
HISTORY = 50
"""Observed steps."""
FUTURE = 60
"""Steps to predict."""
NOW = HISTORY - 1
"""The last observed step."""
SECONDS_PER_STEP = 0.1

OBJECT_TYPES = (
    "vehicle",
    "pedestrian",
    "motorcyclist",
    "cyclist",
    "bus",
    "static",
    "background",
    "construction",
    "riderless_bicycle",
    "unknown",
)
"""The names of the object types, in the order of their numbers."""
UNKNOWN = OBJECT_TYPES.index("unknown")

FRAGMENT, UNSCORED, SCORED, FOCAL = range(4)
"""The categories of a track."""

AV = "AV"
"""The track id of the recording vehicle."""

_NUMBERS = ("position_x", "position_y", "heading", "velocity_x", "velocity_y")
_COLUMNS = {
    "track_id": "string",
    "object_type": "string",
    "object_category": "integer",
    "timestep": "integer",
    **dict.fromkeys(_NUMBERS, "number"),
    "scenario_id": "string",
    "start_timestamp": "number",
    "end_timestamp": "number",
    "num_timestamps": "integer",
    "focal_track_id": "string",
    "city": "string",
}
_OPTIONAL = {"map_id": "integer", "slice_id": "string"}


@dataclass(frozen=True, eq=False)
class Scenario:
    """One scenario as dense arrays; N tracks, 110 steps, the city's frame, metres, radians, m/s.

    Where ``valid`` is false the numbers are zero. A scenario of the test split has no valid step
    after the 50th.
    """

    scenario_id: str
    city: str
    track_ids: tuple[str, ...]
    """[N], in the file's order."""
    object_type: np.ndarray
    """int8 [N], an index into ``OBJECT_TYPES``."""
    category: np.ndarray
    """int8 [N]: 0 fragment, 1 unscored, 2 scored, 3 focal."""
    focal: int
    """The row of the focal track."""
    position: np.ndarray
    """float64 [N, 110, 2]."""
    heading: np.ndarray
    """float64 [N, 110], in (-pi, pi]."""
    velocity: np.ndarray
    """float64 [N, 110, 2]."""
    valid: np.ndarray
    """bool [N, 110]."""
    start_timestamp: float = 0.0
    """Nanoseconds."""
    end_timestamp: float = 0.0
    """Nanoseconds."""
    num_timestamps: int = STEPS
    map_id: int | None = None
    slice_id: str | None = None

    @property
    def focal_track_id(self) -> str:
        """The id of the focal track."""
        return self.track_ids[self.focal]

    @property
    def has_future(self) -> bool:
        """Whether any step after the 50th is known; false for the test split."""
        return bool(self.valid[:, HISTORY:].any())

    @property
    def scored(self) -> np.ndarray:
        """int64 [M]: the rows of the multi-agent task, the focal track first."""
        others = np.flatnonzero(self.category == SCORED)
        return np.concatenate([[self.focal], others[others != self.focal]])


def scenario_path(folder: Path) -> Path:
    """Gives the parquet file in a scenario's folder ``<scenario_id>/``."""
    return folder / f"scenario_{folder.name}.parquet"


def read_scenario(path: Path | str) -> Scenario:
    """Reads ``scenario_<id>.parquet``.

    Args:
        path: The file, or the scenario's folder. Steps may be stored as floats (143 official test
            files are), rows may stand in any order, ``map_id`` and ``slice_id`` may be missing.

    Returns:
        The scenario; tracks in the order of their first row. Types that are not known become
        ``unknown``, with a warning.

    Raises:
        InputError: If the file is not parquet, a column is missing or of a wrong kind, a number is
            not finite, a step is not one of 0..109 or given twice, or the focal track is missing.
    """
    path = Path(path)
    if path.is_dir():
        path = scenario_path(path)
    table = _read_table(path)
    if len(table) == 0:
        raise InputError(f"{path}: has no rows; expected one for each track and step")
    track_ids, track = _tracks(table)
    step = _steps(path, table)
    cell = track * STEPS + step
    count = len(track_ids)
    valid = np.zeros(count * STEPS, bool)
    valid[cell] = True
    if valid.sum() != len(cell):
        seen = np.bincount(cell)
        twice = int(seen.argmax())
        raise InputError(
            f"{path}: track {track_ids[twice // STEPS]!r} has step {twice % STEPS} "
            f"{seen[twice]} times in column 'timestep'; expected once"
        )
    flat = np.zeros((count * STEPS, len(_NUMBERS)))
    for index, name in enumerate(_NUMBERS):
        values = _numbers(table, name)
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{path}: column {name!r} of track {track_ids[track[row]]!r} at step {step[row]} "
                f"is {values[row]}; expected a finite number"
            )
        flat[cell, index] = values
    state = flat.reshape(count, STEPS, len(_NUMBERS))
    first = np.empty(count, np.int64)
    first[track[::-1]] = np.arange(len(track))[::-1]
    category = _numbers(table, "object_category")[first]
    if ((category < 0) | (category > FOCAL)).any():
        raise InputError(
            f"{path}: column 'object_category' holds {category[(category < 0) | (category > 3)][0]}"
            "; expected 0 (fragment), 1 (unscored), 2 (scored) or 3 (focal)"
        )
    focal_id = _constant(path, table, "focal_track_id")
    if focal_id not in track_ids:
        raise InputError(
            f"{path}: focal_track_id is {focal_id!r}, but no row has this track_id; "
            f"the {count} tracks begin with {', '.join(track_ids[:3])}"
        )
    map_id = _constant(path, table, "map_id") if "map_id" in table.column_names else None
    slice_id = _constant(path, table, "slice_id") if "slice_id" in table.column_names else None
    return Scenario(
        scenario_id=str(_constant(path, table, "scenario_id")),
        city=str(_constant(path, table, "city")),
        track_ids=track_ids,
        object_type=_types(path, table)[first],
        category=category.astype(np.int8),
        focal=track_ids.index(focal_id),
        position=np.ascontiguousarray(state[..., :2]),
        heading=np.ascontiguousarray(state[..., 2]),
        velocity=np.ascontiguousarray(state[..., 3:]),
        valid=valid.reshape(count, STEPS),
        start_timestamp=float(_constant(path, table, "start_timestamp")),
        end_timestamp=float(_constant(path, table, "end_timestamp")),
        num_timestamps=int(_constant(path, table, "num_timestamps")),
        map_id=None if map_id is None else int(map_id),
        slice_id=None if slice_id is None else str(slice_id),
    )


def write_scenario(scenario: Scenario, path: Path | str) -> None:
    """Writes a scenario in the official form, atomically; numbers come back exactly.

    Args:
        scenario: The scenario.
        path: The parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    track, step = np.nonzero(scenario.valid)
    rows = len(track)
    ids = pa.array(scenario.track_ids, pa.string())
    types = pa.array(OBJECT_TYPES, pa.string())
    columns: dict[str, Any] = {
        "observed": pa.array(step < HISTORY),
        "track_id": ids.take(pa.array(track)),
        "object_type": types.take(pa.array(scenario.object_type[track])),
        "object_category": pa.array(scenario.category[track].astype(np.int64)),
        "timestep": pa.array(step.astype(np.int64)),
        "position_x": pa.array(scenario.position[track, step, 0]),
        "position_y": pa.array(scenario.position[track, step, 1]),
        "heading": pa.array(scenario.heading[track, step]),
        "velocity_x": pa.array(scenario.velocity[track, step, 0]),
        "velocity_y": pa.array(scenario.velocity[track, step, 1]),
    }
    constants: dict[str, tuple[Any, Any]] = {
        "scenario_id": (scenario.scenario_id, pa.string()),
        "start_timestamp": (scenario.start_timestamp, pa.float64()),
        "end_timestamp": (scenario.end_timestamp, pa.float64()),
        "num_timestamps": (scenario.num_timestamps, pa.int64()),
        "focal_track_id": (scenario.focal_track_id, pa.string()),
        "city": (scenario.city, pa.string()),
    }
    if scenario.map_id is not None:
        constants["map_id"] = (scenario.map_id, pa.uint64())
    if scenario.slice_id is not None:
        constants["slice_id"] = (scenario.slice_id, pa.string())
    for name, (value, kind) in constants.items():
        columns[name] = pa.repeat(pa.scalar(value, kind), rows)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    write_atomic(Path(path), sink.getvalue().to_pybytes())


def _read_table(path: Path) -> pyarrow.Table:
    """Reads the columns that are used; strings come as dictionaries, which is several times
    faster."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); a scenario parquet goes here"
        ) from error
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        names = set(metadata.schema.names)
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            raise InputError(
                f"{path}: column {', '.join(map(repr, missing))} is missing; "
                "it is not an Argoverse 2 motion-forecasting scenario"
            )
        wanted = [name for name in (*_COLUMNS, *_OPTIONAL) if name in names]
        strings = [name for name in wanted if (_COLUMNS | _OPTIONAL)[name] == "string"]
        file = pq.ParquetFile(pa.BufferReader(content), metadata=metadata, read_dictionary=strings)
        table = file.read(columns=wanted, use_threads=False)
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a whole parquet file: {error}") from error
    except OSError as error:  # pyarrow reports broken pages this way
        raise InputError(f"{path}: not a whole parquet file: {error}") from error
    for name in wanted:
        _check_kind(path, name, table.schema.field(name).type, (_COLUMNS | _OPTIONAL)[name])
        if table.column(name).null_count and name not in _OPTIONAL:
            raise InputError(f"{path}: column {name!r} has empty cells; expected a value in each")
    return table


def _check_kind(path: Path, name: str, kind: Any, wanted: str) -> None:
    """Refuses a column of another kind; whole numbers may come as floats."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    text = types.is_string(kind) or types.is_large_string(kind)
    number = types.is_integer(kind) or types.is_floating(kind)
    if not (text if wanted == "string" else number):
        raise InputError(f"{path}: column {name!r} is of type {kind}; expected a {wanted}")


def _numbers(table: pyarrow.Table, name: str) -> np.ndarray:
    """Gives a column as a NumPy array."""
    return table.column(name).to_numpy()


def _dictionary(table: pyarrow.Table, name: str) -> tuple[list[str], np.ndarray]:
    """Gives a string column as its distinct values and, for each row, the index of its value."""
    column = table.column(name).combine_chunks()
    if hasattr(column, "chunks"):
        column = column.chunk(0)
    if not hasattr(column, "dictionary"):
        column = column.dictionary_encode()
    return column.dictionary.to_pylist(), column.indices.to_numpy()


def _tracks(table: pyarrow.Table) -> tuple[tuple[str, ...], np.ndarray]:
    """Gives the track ids in the order of their first rows, and the track of each row."""
    names, codes = _dictionary(table, "track_id")
    first = np.full(len(names), len(codes), np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    order = np.argsort(first, kind="stable")
    order = order[: int((first < len(codes)).sum())]  # a dictionary may hold values without rows
    place = np.zeros(len(names), np.int64)
    place[order] = np.arange(len(order))
    return tuple(names[index] for index in order), place[codes]


def _steps(path: Path, table: pyarrow.Table) -> np.ndarray:
    """Gives the step of each row."""
    values = _numbers(table, "timestep")
    steps = values if values.dtype == np.int64 else values.astype(np.int64)
    wrong = (steps != values) | (steps < 0) | (steps >= STEPS)
    if wrong.any():
        raise InputError(
            f"{path}: column 'timestep' holds {values[wrong.argmax()]}; "
            f"expected whole numbers from 0 to {STEPS - 1}"
        )
    return steps


def _types(path: Path, table: pyarrow.Table) -> np.ndarray:
    """Gives the number of each row's object type."""
    names, codes = _dictionary(table, "object_type")
    numbers = np.array(
        [OBJECT_TYPES.index(name) if name in OBJECT_TYPES else -1 for name in names], np.int8
    )
    strange = [names[code] for code in np.unique(codes) if numbers[code] < 0]
    if strange:
        warnings.warn(
            f"{path}: object type {', '.join(map(repr, strange))} is taken as 'unknown'; "
            f"known: {', '.join(OBJECT_TYPES)}",
            stacklevel=3,
        )
    return np.where(numbers < 0, np.int8(UNKNOWN), numbers)[codes]


def _constant(path: Path, table: pyarrow.Table, name: str) -> Any:
    """Gives the one value of a column that is the same in all rows."""
    if name in ("scenario_id", "focal_track_id", "city"):
        names, codes = _dictionary(table, name)
        if (codes != codes[0]).any():
            raise InputError(f"{path}: column {name!r} holds several values; expected one")
        return names[codes[0]]
    return table.column(name)[0].as_py()
