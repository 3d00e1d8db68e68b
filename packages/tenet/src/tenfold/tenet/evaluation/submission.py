"""Forecasts of many scenarios, and the parquet files of the challenge: submission, ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic
from tenfold.tenet.data.index import Index
from tenfold.tenet.data.scenario import FUTURE, HISTORY, Scenario, read_scenario

TIE = 1e-9
"""What separates equal probabilities in a file; the official reader sorts with an unstable sort."""


@dataclass(frozen=True, eq=False)
class Submission:
    """Forecasts of N tracks, K modes each, city frame; modes by descending probability.

    Tracks of one scenario stand together. A track with fewer modes than K has NaN trajectories with
    probability 0 at its end. In a multi-agent submission mode k of all tracks of a scenario is one
    world, and they share its probability.
    """

    scenario_ids: np.ndarray
    """str [N]."""
    track_ids: np.ndarray
    """str [N]."""
    probabilities: np.ndarray
    """float64 [N, K]."""
    trajectories: np.ndarray
    """float64 [N, K, 60, 2], metres."""

    def __post_init__(self) -> None:
        """Checks shapes and probabilities."""
        count = len(self.scenario_ids)
        shape = np.shape(self.probabilities)
        if len(shape) != 2 or shape[0] != count or len(self.track_ids) != count:
            raise InputError(
                f"{count} scenario ids, {len(self.track_ids)} track ids and probabilities of shape "
                f"{shape}; expected N, N and [N, K]"
            )
        if np.shape(self.trajectories) != (*shape, FUTURE, 2):
            raise InputError(
                f"trajectories has shape {np.shape(self.trajectories)}; "
                f"expected {(*shape, FUTURE, 2)}"
            )
        _check_probabilities("submission", self)

    def __len__(self) -> int:
        """The number of tracks."""
        return len(self.scenario_ids)

    @property
    def offsets(self) -> np.ndarray:
        """int64 [S + 1]: where each scenario begins."""
        new = np.flatnonzero(self.scenario_ids[1:] != self.scenario_ids[:-1]) + 1
        return np.concatenate([[0], new, [len(self)]])

    @property
    def joint(self) -> bool:
        """Whether all tracks of each scenario share their probabilities: modes are worlds."""
        same = self.scenario_ids[1:] == self.scenario_ids[:-1]
        equal = (self.probabilities[1:] == self.probabilities[:-1]).all(axis=1)
        return bool(equal[same].all())


def make_submission(
    scenario_ids: Sequence[str],
    track_ids: Sequence[str],
    probabilities: np.ndarray,
    trajectories: np.ndarray,
) -> Submission:
    """Makes a submission from forecasts in any order of modes and tracks.

    Args:
        scenario_ids: [N].
        track_ids: [N].
        probabilities: float [N, K]; sum to 1.
        trajectories: float [N, K, 60, 2], city frame.

    Raises:
        InputError: If shapes or probabilities are wrong, or a track is given twice.
    """
    scenarios, tracks = np.asarray(scenario_ids, str), np.asarray(track_ids, str)
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2:
        raise InputError(f"probabilities has shape {p.shape}; expected [N, K]")
    _, first, code = np.unique(scenarios, return_index=True, return_inverse=True)
    rows = np.argsort(first[code], kind="stable")  # scenarios by first appearance, together
    pairs = {(a, b) for a, b in zip(scenarios.tolist(), tracks.tolist(), strict=True)}
    if len(pairs) < len(scenarios):
        raise InputError("a track of a scenario is given twice; expected once, with all its modes")
    order = np.argsort(-p[rows], axis=1, kind="stable")
    full = np.asarray(trajectories, np.float64)
    if full.shape != (*p.shape, FUTURE, 2):
        raise InputError(f"trajectories has shape {full.shape}; expected {(*p.shape, FUTURE, 2)}")
    return Submission(
        scenarios[rows],
        tracks[rows],
        np.take_along_axis(p[rows], order, axis=1),
        full[rows[:, None], order],
    )


def write_submission(submission: Submission, path: Path | str) -> None:
    """Writes the challenge's parquet file, atomically.

    Equal probabilities of a track are set ``1e-9`` apart (and divided by their sum), so that
    readers with an unstable sort, the official one among them, do not mix up worlds.

    Args:
        submission: The forecasts.
        path: The file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, modes = submission.probabilities.shape
    there = ~np.isnan(submission.trajectories[..., 0, 0])
    p = distinct(submission.probabilities, there)
    names = [
        pa.array(ids.tolist(), pa.string())
        for ids in (submission.scenario_ids, submission.track_ids)
    ]
    row = np.repeat(np.arange(count, dtype=np.int32), modes)[there.ravel()]
    offsets = pa.array(np.arange(len(row) + 1, dtype=np.int32) * FUTURE)
    columns: dict[str, Any] = {
        "scenario_id": names[0].take(pa.array(row)),
        "track_id": names[1].take(pa.array(row)),
        "probability": pa.array(p[there]),
    }
    for axis, name in enumerate("xy"):
        flat = np.ascontiguousarray(submission.trajectories[..., axis][there]).ravel()
        columns[f"predicted_trajectory_{name}"] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    sink = pa.BufferOutputStream()
    # Coordinates hardly compress; dictionaries are for the ids.
    pq.write_table(
        pa.table(columns),
        sink,
        use_dictionary=["scenario_id", "track_id"],
        write_statistics=False,  # they take most of the time and serve nobody
    )
    write_atomic(Path(path), sink.getvalue().to_pybytes())


def distinct(probabilities: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Sets equal probabilities of a row apart by ``1e-9``; rows without ties stay as they are.

    Args:
        probabilities: float64 [N, K], descending.
        there: bool [N, K]: the modes that count.
    """
    there = np.ones(probabilities.shape, bool) if there is None else there
    gaps = probabilities[:, :-1] - probabilities[:, 1:]
    tied = ((gaps < TIE / 2) & there[:, 1:]).any(axis=1)
    rank = np.arange(probabilities.shape[1])[::-1]
    moved = np.where(there, probabilities + rank * TIE, 0.0)
    moved /= moved.sum(axis=1, keepdims=True)
    return np.where(tied[:, None], moved, probabilities)


def read_submission(path: Path | str) -> Submission:
    """Reads a submission of anybody, of the single-agent or the multi-agent track.

    Both historic layouts are read: the one of av2 up to 0.2.1, where each track of a scenario has
    probabilities of its own, and the one since 0.3.0, where the tracks share those of the worlds.
    Equal probabilities keep the order of the file.

    Args:
        path: The parquet file.

    Raises:
        InputError: If it is not such a file, or a trajectory or probability is wrong.
    """
    path = Path(path)
    columns = [
        "scenario_id",
        "track_id",
        "probability",
        "predicted_trajectory_x",
        "predicted_trajectory_y",
    ]
    table = _read(path, columns, "submission")
    scenarios, scenario = _encode(path, table, "scenario_id")
    tracks, track = _encode(path, table, "track_id")
    p = _floats(path, table, "probability")
    if not ((p >= 0) & (p <= 1)).all():
        row = int((~((p >= 0) & (p <= 1))).argmax())
        raise InputError(
            f"{path}: column 'probability' is {p[row]} for track {tracks[track[row]]!r} of "
            f"scenario {scenarios[scenario[row]]!r}; expected a number from 0 to 1"
        )
    x, y = (
        _trajectories(path, table, f"predicted_trajectory_{axis}", scenarios, scenario)
        for axis in "xy"
    )
    order = np.lexsort((-p, track, scenario))  # stable
    scenario, track, p = scenario[order], track[order], p[order]
    new = (np.diff(scenario) != 0) | (np.diff(track) != 0)
    group = np.concatenate([[0], np.cumsum(new)])
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    slot = np.arange(len(p)) - starts[group]
    shape = (len(starts), int(slot.max()) + 1)
    probabilities = np.zeros(shape)
    probabilities[group, slot] = p
    if len(p) == shape[0] * shape[1]:  # all tracks have as many modes: no padding
        full = np.empty((len(p), FUTURE, 2))
        full[..., 0], full[..., 1] = x[order], y[order]
        trajectories = full.reshape(*shape, FUTURE, 2)
    else:
        trajectories = np.full((*shape, FUTURE, 2), np.nan)
        trajectories[group, slot, :, 0] = x[order]
        trajectories[group, slot, :, 1] = y[order]
    total = probabilities.sum(axis=1)
    wrong = ~np.isclose(total, 1.0)
    if wrong.any():
        row = starts[int(wrong.argmax())]
        raise InputError(
            f"{path}: column 'probability' of track {tracks[track[row]]!r} of scenario "
            f"{scenarios[scenario[row]]!r} sums to {total[wrong][0]:.6g}; expected 1"
        )
    return Submission(
        np.asarray(scenarios, str)[scenario[starts]],
        np.asarray(tracks, str)[track[starts]],
        probabilities,
        trajectories,
    )


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What really happened, N tracks, city frame; tracks of one scenario stand together."""

    scenario_ids: np.ndarray
    """str [N]."""
    track_ids: np.ndarray
    """str [N]."""
    is_focal: np.ndarray
    """bool [N]."""
    trajectories: np.ndarray
    """float64 [N, 60, 2]; NaN where not known."""

    def __len__(self) -> int:
        """The number of tracks."""
        return len(self.scenario_ids)


def truth_of(scenarios: Sequence[Scenario]) -> GroundTruth:
    """Takes the futures of the scored tracks from scenarios that have them.

    Raises:
        InputError: If a scenario has no future (test split).
    """
    ids, tracks, focal, paths = [], [], [], []
    for scenario in scenarios:
        if not scenario.valid[scenario.focal, HISTORY:].any():
            raise InputError(
                f"scenario {scenario.scenario_id}: the focal track has no step after "
                f"{HISTORY - 1}; the test split holds no truth, give the annotation parquet"
            )
        for row in scenario.scored:
            ids.append(scenario.scenario_id)
            tracks.append(scenario.track_ids[row])
            focal.append(row == scenario.focal)
            known = scenario.valid[row, HISTORY:, None]
            paths.append(np.where(known, scenario.position[row, HISTORY:], np.nan))
    return GroundTruth(np.array(ids), np.array(tracks), np.array(focal), np.stack(paths))


def read_ground_truth(path: Path | str | Index) -> GroundTruth:
    """Reads the truth to score against.

    Args:
        path: The organisers' annotation parquet (columns scenario_id, track_id, is_focal_track,
            gt_trajectory_x, gt_trajectory_y), or an index of scenarios that hold their future.

    Raises:
        InputError: If the file is something else or a trajectory has a wrong length.
    """
    if isinstance(path, Index):
        return truth_of([read_scenario(path.paths(row)[0]) for row in range(len(path))])
    path = Path(path)
    names = ["scenario_id", "track_id", "is_focal_track", "gt_trajectory_x", "gt_trajectory_y"]
    table = _read(path, names, "ground truth")
    scenarios, scenario = _encode(path, table, "scenario_id")
    tracks, track = _encode(path, table, "track_id")
    focal = np.asarray(table.column("is_focal_track").to_numpy(zero_copy_only=False)).astype(bool)
    x, y = (
        _trajectories(path, table, f"gt_trajectory_{axis}", scenarios, scenario) for axis in "xy"
    )
    order = np.argsort(scenario, kind="stable")
    return GroundTruth(
        np.asarray(scenarios, str)[scenario[order]],
        np.asarray(tracks, str)[track[order]],
        focal[order],
        np.stack([x, y], axis=-1)[order],
    )


def write_ground_truth(truth: GroundTruth, path: Path | str) -> None:
    """Writes an annotation parquet in the organisers' form, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "scenario_id": pa.array(truth.scenario_ids.tolist()),
        "track_id": pa.array(truth.track_ids.tolist()),
        "is_focal_track": pa.array(truth.is_focal),
        "gt_trajectory_x": pa.array(list(truth.trajectories[..., 0])),
        "gt_trajectory_y": pa.array(list(truth.trajectories[..., 1])),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    write_atomic(Path(path), sink.getvalue().to_pybytes())


Predictions = Mapping[str, Any]
"""The ``predictions`` of av2's ``ChallengeSubmission``, of either layout."""


def from_predictions(predictions: Predictions) -> Submission:
    """Makes a submission from the dictionaries of av2's ``ChallengeSubmission``.

    Args:
        predictions: ``{scenario: (probabilities, {track: trajectories})}`` (av2 from 0.3.0) or
            ``{scenario: {track: (trajectories, probabilities)}}`` (up to 0.2.1), per scenario.
    """
    ids, tracks, p, paths = [], [], [], []
    for scenario, content in predictions.items():
        if isinstance(content, Mapping):
            items = [(track, pair[1], pair[0]) for track, pair in content.items()]
        else:
            items = [(track, content[0], path) for track, path in content[1].items()]
        for track, probability, path in items:
            ids.append(scenario)
            tracks.append(track)
            p.append(np.asarray(probability, np.float64))
            paths.append(np.asarray(path, np.float64))
    modes = max((len(item) for item in p), default=0)
    probabilities = np.zeros((len(p), modes))
    trajectories = np.full((len(p), modes, FUTURE, 2), np.nan)
    for row, (probability, path) in enumerate(zip(p, paths, strict=True)):
        if path.shape != (len(probability), FUTURE, 2):
            raise InputError(
                f"track {tracks[row]!r} of scenario {ids[row]!r}: trajectories have shape "
                f"{path.shape}; expected {(len(probability), FUTURE, 2)}"
            )
        probabilities[row, : len(probability)] = probability
        trajectories[row, : len(probability)] = path
    return make_submission(ids, tracks, probabilities, trajectories)


def to_predictions(submission: Submission, worlds: bool = True) -> dict[str, Any]:
    """Gives the dictionaries of av2's ``ChallengeSubmission``.

    Args:
        submission: The forecasts.
        worlds: The layout since 0.3.0, which needs probabilities that the tracks of a scenario
            share; false for the one up to 0.2.1.

    Raises:
        InputError: If worlds are asked for, but the tracks of a scenario have their own.
    """
    if worlds and not submission.joint:
        raise InputError(
            "the tracks of a scenario have different probabilities: they are no worlds; "
            "take worlds=False"
        )
    made: dict[str, Any] = {}
    for row, (scenario, track) in enumerate(
        zip(submission.scenario_ids.tolist(), submission.track_ids.tolist(), strict=True)
    ):
        there = ~np.isnan(submission.trajectories[row, :, 0, 0])
        p, path = submission.probabilities[row][there], submission.trajectories[row][there]
        if worlds:
            made.setdefault(scenario, (p, {}))[1][track] = path
        else:
            made.setdefault(scenario, {})[track] = (path, p)
    return made


def _check_probabilities(where: str, submission: Submission) -> None:
    """Refuses probabilities that do not sum to one."""
    p = submission.probabilities
    wrong = ~(np.isclose(p.sum(axis=1), 1.0) & (p >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{where}: the probabilities of track {submission.track_ids[row]!r} of scenario "
            f"{submission.scenario_ids[row]!r} are {p[row].tolist()}; expected numbers from 0 to 1 "
            "that sum to 1"
        )


def _read(path: Path, names: list[str], what: str) -> Any:
    """Reads the columns of a parquet file; strings come as dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path, memory_map=True)
        found = metadata.schema.to_arrow_schema().names
        missing = [name for name in names if name not in found]
        if missing:
            raise InputError(
                f"{path}: column {', '.join(map(repr, missing))} is missing; not a {what} file"
            )
        file = pq.ParquetFile(path, metadata=metadata, read_dictionary=names[:2], memory_map=True)
        table = file.read(columns=names)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; a {what} parquet goes here") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a whole parquet file: {error}") from error
    if len(table) == 0:
        raise InputError(f"{path}: has no rows")
    for name in names:
        if table.column(name).null_count:
            raise InputError(f"{path}: column {name!r} has empty cells; expected a value in each")
    return table


def _encode(path: Path, table: Any, name: str) -> tuple[list[str], np.ndarray]:
    """Gives the distinct values of an id column by first appearance, and each row's number."""
    import pyarrow as pa

    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"{path}: column {name!r} is of type {kind}; expected strings")
    column = column.unify_dictionaries().combine_chunks()
    column = column.chunk(0) if hasattr(column, "chunks") else column
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = column.indices.to_numpy()
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(used), np.int64)
    place[order] = np.arange(len(used))
    names = column.dictionary.to_pylist()
    return [names[code] for code in used[order]], place[inverse]


def _floats(path: Path, table: Any, name: str) -> np.ndarray:
    """Gives a column of numbers as float64."""
    values = table.column(name).to_numpy()
    if values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: column {name!r} is of type {table.schema.field(name).type}; expected numbers"
        )
    return values.astype(np.float64)


def _trajectories(
    path: Path, table: Any, name: str, scenarios: list[str], scenario: np.ndarray
) -> np.ndarray:
    """Gives a column of lists as float64 [rows, 60]."""
    import pyarrow as pa

    column = table.column(name).combine_chunks()
    column = column.chunk(0) if hasattr(column, "chunks") else column
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise InputError(f"{path}: column {name!r} is of type {kind}; expected lists of numbers")
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != FUTURE).any():
        row = int((lengths != FUTURE).argmax())
        raise InputError(
            f"{path}: column {name!r} has {lengths[row]} values in a row of scenario "
            f"{scenarios[scenario[row]]!r}; expected {FUTURE}"
        )
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    values = values.reshape(-1, FUTURE)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int((~finite).argmax())
        raise InputError(
            f"{path}: column {name!r} holds a number that is not finite in scenario "
            f"{scenarios[scenario[row]]!r}"
        )
    return values
