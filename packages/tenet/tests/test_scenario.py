import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tenfold.shared.errors import InputError
from tenfold.tenet.data.scenario import (
    HISTORY,
    NOW,
    OBJECT_TYPES,
    read_scenario,
    write_scenario,
)
from tenfold.tenet.data.scene import make_scene


@pytest.mark.data
def test_the_sample_scenario_has_its_known_content(sample, sample_scenario):
    s = sample_scenario
    assert (sample / f"scenario_{sample.name}.parquet").stat().st_size == 123_374
    assert s.valid.sum() == 2434
    assert s.valid[:, :HISTORY].sum() == 1130
    assert len(s.track_ids) == 58
    assert np.bincount(s.category).tolist() == [51, 5, 1, 1]
    assert s.focal_track_id == "138951"
    assert s.track_ids[int(np.flatnonzero(s.category == 2)[0])] == "139344"
    assert s.valid[s.focal].all()
    types = {OBJECT_TYPES[i]: int(n) for i, n in enumerate(np.bincount(s.object_type)) if n}
    expected = {"vehicle": 32, "pedestrian": 12, "static": 8, "background": 2}
    assert types == {**expected, "riderless_bicycle": 4}
    assert (s.city, s.map_id, s.num_timestamps) == ("austin", 74806, 110)
    av = s.track_ids.index("AV")
    assert (s.category[av], s.valid[av].sum()) == (1, 110)
    assert s.valid[:, :HISTORY].any(axis=1).sum() == 38
    assert s.valid[:, NOW].sum() == 25
    assert s.position[s.focal, NOW] == pytest.approx((-421.921912, 1445.482461), abs=1e-6)
    assert s.heading[s.focal, NOW] == pytest.approx(1.489602, abs=1e-6)
    assert s.velocity[s.focal, NOW] == pytest.approx((0.149905, 1.846064), abs=1e-6)


@pytest.mark.data
def test_the_sample_scenario_comes_back_exactly(sample, sample_scenario, tmp_path):
    path = tmp_path / "scenario.parquet"
    write_scenario(sample_scenario, path)
    names = ["track_id", "timestep"]
    ours = pq.read_table(path).sort_by([(n, "ascending") for n in names])
    official = pq.read_table(sample / f"scenario_{sample.name}.parquet")
    official = official.sort_by([(n, "ascending") for n in names])
    assert ours.column_names == official.column_names
    for name in ours.column_names:
        assert ours.column(name).to_pylist() == official.column(name).to_pylist(), name
        assert ours.schema.field(name).type == official.schema.field(name).type, name


def same(a, b):
    for name in ("position", "heading", "velocity", "valid", "object_type", "category"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.track_ids == b.track_ids
    assert (a.focal, a.scenario_id, a.start_timestamp) == (
        b.focal,
        b.scenario_id,
        b.start_timestamp,
    )


def rewritten(scenario, path, change):
    """Writes a scenario, lets `change` edit its table, and gives the path."""
    write_scenario(scenario, path)
    pq.write_table(change(pq.read_table(path)), path)
    return path


def replaced(name, values):
    return lambda t: t.set_column(t.column_names.index(name), name, values(t))


def test_the_order_of_rows_does_not_matter(made, tmp_path):
    scenario = made[0][0]
    path = tmp_path / "s.parquet"
    order = np.random.default_rng(0).permutation(int(scenario.valid.sum()))
    found = read_scenario(rewritten(scenario, path, lambda t: t.take(pa.array(order))))
    rows = [found.track_ids.index(name) for name in scenario.track_ids]
    np.testing.assert_array_equal(found.position[rows], scenario.position)
    np.testing.assert_array_equal(found.valid[rows], scenario.valid)
    assert found.focal_track_id == scenario.focal_track_id


def test_steps_may_be_floats_and_optional_columns_missing(made, tmp_path):
    scenario = made[0][0]
    floats = replaced("timestep", lambda t: t.column("timestep").cast(pa.float64()))
    found = read_scenario(rewritten(scenario, tmp_path / "s.parquet", floats))
    same(found, scenario)
    assert found.map_id is None
    assert found.slice_id is None


def test_a_test_scenario_has_no_future(tmp_path):
    from tenfold.tenet.data.generated import generate

    scenario, lane_map = next(generate(1, future=False))
    write_scenario(scenario, tmp_path / "s.parquet")
    found = read_scenario(tmp_path / "s.parquet")
    assert not found.has_future
    scene = make_scene(found, lane_map)
    assert not scene.future_valid.any()
    assert not scene.future.any()


def test_an_incomplete_focal_track_is_masked(made, tmp_path):
    scenario, lane_map = made[0]
    focal = scenario.focal_track_id

    def gap(table):
        there = [
            not (name == focal and step in (0, 7, 80, 109))
            for name, step in zip(
                table["track_id"].to_pylist(), table["timestep"].to_pylist(), strict=True
            )
        ]
        return table.filter(pa.array(there))

    scene = make_scene(read_scenario(rewritten(scenario, tmp_path / "s.parquet", gap)), lane_map)
    assert (~scene.valid[0]).nonzero()[0].tolist() == [0, 7]
    assert (~scene.future_valid[0]).nonzero()[0].tolist() == [30, 59]
    assert not scene.state[0, [0, 7]].any()


def test_a_focal_track_that_is_gone_at_step_49_is_refused(made, tmp_path):
    scenario, lane_map = made[0]
    focal = scenario.focal_track_id

    def late(table):
        pairs = zip(table["track_id"].to_pylist(), table["timestep"].to_pylist(), strict=True)
        return table.filter(pa.array([pair != (focal, NOW) for pair in pairs]))

    found = read_scenario(rewritten(scenario, tmp_path / "s.parquet", late))
    with pytest.raises(InputError, match=f"{focal!r} has no row at step 49"):
        make_scene(found, lane_map)


def with_nan(table):
    values = table.column("position_y").to_numpy().copy()
    values[5] = np.nan
    return pa.array(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["heading"]), "column 'heading' is missing"),
        (replaced("position_y", with_nan), "column 'position_y'.*is nan; expected a finite"),
        (
            replaced("position_x", lambda t: pa.array(["a"] * len(t))),
            "column 'position_x' is of type string; expected a number",
        ),
        (
            replaced("timestep", lambda t: pa.array(t["timestep"].to_numpy() + 0.5)),
            "column 'timestep' holds 0.5",
        ),
        (
            replaced("timestep", lambda t: pa.array(t["timestep"].to_numpy() + 60)),
            "'timestep' holds 110; expected whole numbers from 0 to 109",
        ),
        (
            replaced("focal_track_id", lambda t: pa.array(["nobody"] * len(t))),
            "focal_track_id is 'nobody'",
        ),
        (
            replaced("object_category", lambda t: pa.array([7] * len(t))),
            "'object_category' holds 7",
        ),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "2 times in column 'timestep'"),
        (lambda t: t.slice(0, 0), "has no rows"),
    ],
)
def test_malformed_scenarios_name_file_and_column(made, tmp_path, change, message):
    path = rewritten(made[0][0], tmp_path / "wrong.parquet", change)
    with pytest.raises(InputError, match=message) as error:
        read_scenario(path)
    assert "wrong.parquet" in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_parquet_is_refused(made, tmp_path, share):
    path = tmp_path / "cut.parquet"
    write_scenario(made[0][0], path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut\.parquet: not a whole parquet"):
        read_scenario(path)


def test_an_unknown_type_becomes_unknown_with_a_warning(made, tmp_path):
    types = replaced("object_type", lambda t: pa.array(["hovercraft"] * len(t)))
    path = rewritten(made[0][0], tmp_path / "s.parquet", types)
    with pytest.warns(UserWarning, match="'hovercraft' is taken as 'unknown'"):
        found = read_scenario(path)
    assert (found.object_type == OBJECT_TYPES.index("unknown")).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: cannot be read"):
        read_scenario(tmp_path / "none.parquet")
