"""To and from the objects of the official API; needs the extra ``tenfold-tenet[av2]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.shared.errors import UnavailableError
from tenfold.tenet.data.maps import LaneMap, write_map
from tenfold.tenet.data.scenario import HISTORY, OBJECT_TYPES, STEPS, Scenario

if TYPE_CHECKING:
    from av2.datasets.motion_forecasting.data_schema import ArgoverseScenario
    from av2.datasets.motion_forecasting.eval.submission import ChallengeSubmission
    from av2.map.map_api import ArgoverseStaticMap

    from tenfold.tenet.evaluation.submission import Submission


def _av2(name: str) -> Any:
    """Imports a module of av2."""
    import importlib

    try:
        return importlib.import_module(f"av2.{name}")
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "this needs the official API: install tenfold-tenet[av2] on Python 3.11 or 3.12"
        ) from error


def from_argoverse_scenario(scenario: ArgoverseScenario) -> Scenario:
    """Makes a scenario from av2's object."""
    count = len(scenario.tracks)
    position, velocity = np.zeros((count, STEPS, 2)), np.zeros((count, STEPS, 2))
    heading, valid = np.zeros((count, STEPS)), np.zeros((count, STEPS), bool)
    for row, track in enumerate(scenario.tracks):
        steps = [int(state.timestep) for state in track.object_states]
        position[row, steps] = [state.position for state in track.object_states]
        velocity[row, steps] = [state.velocity for state in track.object_states]
        heading[row, steps] = [state.heading for state in track.object_states]
        valid[row, steps] = True
    ids = tuple(str(track.track_id) for track in scenario.tracks)
    return Scenario(
        scenario_id=str(scenario.scenario_id),
        city=str(scenario.city_name),
        track_ids=ids,
        object_type=np.array(
            [OBJECT_TYPES.index(track.object_type.value) for track in scenario.tracks], np.int8
        ),
        category=np.array([track.category.value for track in scenario.tracks], np.int8),
        focal=ids.index(str(scenario.focal_track_id)),
        position=position,
        heading=heading,
        velocity=velocity,
        valid=valid,
        start_timestamp=float(scenario.timestamps_ns[0]),
        end_timestamp=float(scenario.timestamps_ns[-1]),
        num_timestamps=len(scenario.timestamps_ns),
        map_id=None if scenario.map_id is None else int(scenario.map_id),
        slice_id=None if scenario.slice_id is None else str(scenario.slice_id),
    )


def to_argoverse_scenario(scenario: Scenario) -> ArgoverseScenario:
    """Makes av2's object from a scenario."""
    schema = _av2("datasets.motion_forecasting.data_schema")
    tracks = []
    for row, name in enumerate(scenario.track_ids):
        states = [
            schema.ObjectState(
                observed=bool(step < HISTORY),
                timestep=int(step),
                position=tuple(scenario.position[row, step].tolist()),
                heading=float(scenario.heading[row, step]),
                velocity=tuple(scenario.velocity[row, step].tolist()),
            )
            for step in np.flatnonzero(scenario.valid[row])
        ]
        kind = schema.ObjectType(OBJECT_TYPES[scenario.object_type[row]])
        category = schema.TrackCategory(int(scenario.category[row]))
        tracks.append(
            schema.Track(track_id=name, object_states=states, object_type=kind, category=category)
        )
    return schema.ArgoverseScenario(
        scenario_id=scenario.scenario_id,
        timestamps_ns=np.linspace(
            scenario.start_timestamp, scenario.end_timestamp, num=scenario.num_timestamps
        ),
        tracks=tracks,
        focal_track_id=scenario.focal_track_id,
        city_name=scenario.city,
        map_id=scenario.map_id,
        slice_id=scenario.slice_id,
    )


def to_argoverse_map(lane_map: LaneMap) -> ArgoverseStaticMap:
    """Makes av2's map from ours."""
    import tempfile

    api = _av2("map.map_api")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log_map_archive_tenfold.json")
        write_map(lane_map, path)
        return api.ArgoverseStaticMap.from_json(path)


def from_argoverse_map(static_map: ArgoverseStaticMap) -> LaneMap:
    """Makes our map from av2's; centre lines of the file are not kept there, so there are none."""
    from tenfold.tenet.data.maps import LANE_TYPES, MARK_TYPES, NO_LANE, Ragged

    lanes = list(static_map.vector_lane_segments.values())
    crossings = list(static_map.vector_pedestrian_crossings.values())
    areas = list(static_map.vector_drivable_areas.values())
    neighbors = [
        np.array([NO_LANE if item is None else item for item in side], np.int64)
        for side in (
            [lane.left_neighbor_id for lane in lanes],
            [lane.right_neighbor_id for lane in lanes],
        )
    ]
    return LaneMap(
        lane_ids=np.array([lane.id for lane in lanes], np.int64),
        lane_type=np.array([LANE_TYPES.index(lane.lane_type.value) for lane in lanes], np.int8),
        in_intersection=np.array([lane.is_intersection for lane in lanes], bool),
        left=Ragged.of([lane.left_lane_boundary.xyz for lane in lanes], np.float64, 3),
        right=Ragged.of([lane.right_lane_boundary.xyz for lane in lanes], np.float64, 3),
        left_mark=np.array(
            [MARK_TYPES.index(lane.left_mark_type.value) for lane in lanes], np.int8
        ),
        right_mark=np.array(
            [MARK_TYPES.index(lane.right_mark_type.value) for lane in lanes], np.int8
        ),
        left_neighbor=neighbors[0],
        right_neighbor=neighbors[1],
        successors=Ragged.of([lane.successors for lane in lanes], np.int64),
        predecessors=Ragged.of([lane.predecessors for lane in lanes], np.int64),
        file_centerline=None,
        crossing_ids=np.array([item.id for item in crossings], np.int64),
        crossings=np.array(
            [[item.edge1.xyz, item.edge2.xyz] for item in crossings], np.float64
        ).reshape(len(crossings), 2, 2, 3),
        area_ids=np.array([item.id for item in areas], np.int64),
        areas=Ragged.of([item.xyz for item in areas], np.float64, 3),
    )


def to_challenge_submission(submission: Submission) -> ChallengeSubmission:
    """Makes av2's object, in the layout of the av2 that is installed (0.3.0 changed it)."""
    from importlib.metadata import version

    from tenfold.tenet.evaluation.submission import to_predictions

    api = _av2("datasets.motion_forecasting.eval.submission")
    worlds = tuple(map(int, version("av2").split(".")[:2])) >= (0, 3)
    return api.ChallengeSubmission(to_predictions(submission, worlds=worlds))


def from_challenge_submission(submission: ChallengeSubmission) -> Submission:
    """Makes our submission from av2's object, of either layout."""
    from tenfold.tenet.evaluation.submission import from_predictions

    return from_predictions(submission.predictions)
