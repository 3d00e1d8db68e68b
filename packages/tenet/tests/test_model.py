from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import HISTORY
from tenfold.tenet.data.scene import Batch, SceneStore, make_scene, rotation, wrap
from tenfold.tenet.model import SIZES, ModelConfig, Tenet, model_config, world_logits
from tenfold.tenet.model.attention import CrossAttention, SelfAttention
from tenfold.tenet.model.baselines import constant_velocity
from tenfold.tenet.model.flow import ResidualBlock
from tenfold.tenet.objective import LossConfig, Targets, loss
from tenfold.tenet.prediction import PredictConfig, fit_temperature, predict
from tenfold.tenet.training import TrainConfig, batch_loss, targets_of


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "total", "flow"),
    [
        ("tenet-tiny", 1_106_095, 316_332),
        ("tenet-base", 3_553_455, 442_028),
        ("tenet-large", 13_191_343, 840_876),
    ],
)
def test_the_sizes_have_exactly_these_parameters(size, total, flow):
    model = Tenet(SIZES[size])
    assert parameters(model) == total
    assert parameters(model.flow) == flow
    assert parameters(Tenet(model_config(size, flow=False))) == total - flow


@pytest.mark.parametrize("d", [64, 128])
def test_the_parts_have_exactly_these_parameters(d):
    assert parameters(SelfAttention(d, 0.1)) == 12 * d * d + 13 * d
    assert parameters(CrossAttention(d, 4, 0.1)) == 12 * d * d + 15 * d
    assert parameters(ResidualBlock(d, d)) == 6 * d * d + 4 * d


def test_the_parts_of_the_default_model_add_up():
    m = Tenet()
    assert parameters(m.agent_embed) == 19_456
    assert parameters(m.point_embed) + parameters(m.line_embed) == 67_840
    assert parameters(m.encoder) == 1_785_216
    assert parameters(m.decoder) == 1_190_144
    assert (parameters(m.regression), parameters(m.score)) == (16_770, 16_641)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Tenet(SIZES["tenet-tiny"]).eval()


def run(model, batch, targets=None):
    with torch.no_grad():
        return model(batch, targets)


def near(a, b, atol=2e-4):
    torch.testing.assert_close(a.trajectories, b.trajectories, atol=atol, rtol=0)
    torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=0)


def moved(scenario, lane_map, angle, shift):
    """A rigid motion of the whole scene, in float64."""
    turn = rotation(angle)

    def place(points):
        flat = points[..., :2] @ turn.T + shift
        return np.concatenate([flat, points[..., 2:]], axis=-1)

    lines = {
        name: replace(getattr(lane_map, name), values=place(getattr(lane_map, name).values))
        for name in ("left", "right")
    }
    there = scenario.valid[..., None]
    turned = replace(
        scenario,
        position=np.where(there, place(scenario.position), 0.0),
        velocity=scenario.velocity @ turn.T,
        heading=np.where(scenario.valid, wrap(scenario.heading + angle), 0.0),
    )
    return turned, replace(lane_map, **lines, crossings=place(lane_map.crossings))


@pytest.fixture(params=["generated", pytest.param("real", marks=pytest.mark.data)])
def scene_source(request, made):
    if request.param == "generated":
        return made[0]
    folder = request.getfixturevalue("sample")
    return request.getfixturevalue("sample_scenario"), read_map(folder)


@pytest.mark.parametrize("angle", [0.3, -2.9, np.pi])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (4321.7, -8765.4)])
def test_forecasts_move_with_the_scene(model, scene_source, angle, shift):
    before = predict(model, [make_scene(*scene_source)])
    turned = moved(*scene_source, angle, np.array(shift))
    after = predict(model, [make_scene(*turned)])
    expected = before.trajectories @ rotation(angle).T + np.array(shift)
    np.testing.assert_allclose(after.trajectories, expected, atol=1e-3, rtol=0)
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-5)


def test_padding_changes_nothing(model, scene_source):
    store = SceneStore.of([make_scene(*scene_source)])
    plain = run(model, store.batch([0], 64, 128))
    assert plain.trajectories.shape == (1, 6, 60, 2)
    near(run(model, store.batch([0], 64, 128, fixed=True)), plain)
    other = SceneStore.of([make_scene(*scene_source)] * 2 + [store[0]])
    near(
        run(model, other.batch([0, 1, 2], 64, 128)),
        run(model, SceneStore.of([store[0]] * 3).batch([0, 1, 2], 64, 128)),
    )


def test_packing_changes_nothing(scene_source):
    torch.manual_seed(1)
    model = Tenet(SIZES["tenet-tiny"]).eval()
    batch = SceneStore.of([make_scene(*scene_source)]).batch([0], 64, 128, fixed=True)
    packed = run(model, batch)
    model.packed = False
    near(run(model, batch), packed)


def test_the_order_of_agents_and_lines_does_not_matter(model, scene_source):
    batch = SceneStore.of([make_scene(*scene_source)]).batch([0], 64, 128)
    plain = run(model, batch)
    agents = torch.cat([torch.zeros(1).long(), 1 + torch.randperm(batch.state.shape[1] - 1)])
    lines = torch.randperm(batch.lines.shape[1])
    by_agent = ("state", "valid", "object_type", "category", "is_av", "future", "future_valid")
    by_line = ("lines", "line_kind", "in_intersection", "half_width", "line_valid")
    changes = {name: getattr(batch, name)[:, agents] for name in by_agent}
    changes |= {name: getattr(batch, name)[:, lines] for name in by_line}
    near(run(model, replace(batch, **changes)), plain)


@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_what_stands_in_invalid_places_has_no_influence(model, scene_source, garbage):
    batch = SceneStore.of([make_scene(*scene_source)]).batch([0], 64, 128, fixed=True)
    plain = run(model, batch)
    wild = replace(batch, state=batch.state.clone(), lines=batch.lines.clone())
    wild.state[~batch.valid] = garbage
    wild.lines[~batch.line_valid] = garbage
    near(run(model, wild), plain)


def test_one_agent_and_no_map_will_do(model, scene_source):
    scenario, _ = scene_source
    store = SceneStore.of([make_scene(scenario, None)])
    alone = run(model, store.batch([0], max_agents=1))
    assert alone.trajectories.shape == (1, 6, 60, 2)
    assert torch.isfinite(alone.trajectories).all()
    near(run(model, store.batch([0], max_agents=1, max_lines=9, fixed=True)), alone)
    mapped = SceneStore.of([make_scene(*scene_source)]).batch([0], 64, 128)
    with_map = run(model, mapped)
    assert (run(model, store.batch([0], 64)).logits - with_map.logits).abs().max() > 1e-5


@pytest.mark.parametrize("change", [{"map_cross": "last"}, {"agent_attention": False}, {}])
def test_the_shortened_last_layer_gives_the_same(store, change):
    torch.manual_seed(2)
    model = Tenet(model_config("tenet-tiny", **change)).eval()
    batch = store.batch(range(4), 16, 32)
    focal = torch.zeros_like(batch.scored)
    focal[:, 0] = True
    near(run(model, batch), run(model, batch, focal))


@pytest.mark.parametrize(
    "change", [{"use_map": False}, {"agent_attention": False}, {"modes": 1}, {"laplace": True}]
)
def test_ablations_run_and_differ(store, change):
    torch.manual_seed(0)
    model = Tenet(model_config("tenet-tiny", **change))
    batch = store.batch(range(3), 8, 16)
    found = model(batch)
    assert found.trajectories.shape == (3, change.get("modes", 6), 60, 2)
    total, _ = loss(found, targets_of(batch, None))
    total.backward()
    assert torch.isfinite(total)
    assert found.history.shape == (3, change.get("modes", 6), 50, 2)
    assert parameters(model) != 1_106_095 or "modes" in change


def kinematic_model():
    torch.manual_seed(0)
    return Tenet(model_config("tenet-tiny", kinematic=True)).eval()


def test_kinematic_modes_start_at_constant_velocity_and_its_variants(store):
    model = kinematic_model()
    assert parameters(model) == 1_106_095 + 2 * 6 + 1
    batch = store.batch(range(len(store)), 8, 16)
    batch.line_valid[:] = False
    # At constant speed over the last second the first mode is constant velocity, as the baseline.
    batch.state[:, 0, 40:, 3:] = batch.state[:, 0, -1:, 3:]
    found = run(model, batch)
    state = batch.state[:, 0].numpy()
    straight = constant_velocity(state[..., :2], state[..., 3:])
    np.testing.assert_allclose(found.trajectories[:, 0], straight, atol=1e-3)
    assert found.logits[0].tolist() == [1.5, 0, 0, 0, 0, 0]
    # One that slows by 1 m/s in the last second: v - a tau (1 - exp(-t / tau)), summed over steps.
    speed = 9.0 - 1.0 * (torch.arange(50) - 49) * 0.1
    batch.state[:, 0, :, 2:] = 0.0
    batch.state[:, 0, :, 3] = speed
    batch.valid[:, 0, -2] = False  # a gap: the line is fitted to the rest
    batch.state[:, 0, -2, 3] = 1e6
    t = np.arange(1, 61) * 0.1
    slowing = 9.0 - 1.5 * (1 - np.exp(-t / 1.5))
    found = run(model, batch).trajectories[0].numpy()
    np.testing.assert_allclose(found[0, :, 0], np.cumsum(slowing) * 0.1, atol=1e-3)
    np.testing.assert_allclose(found[..., 1], 0.0, atol=1e-5)
    braking = np.maximum(slowing - 1.5 * t, 0)
    np.testing.assert_allclose(found[3, :, 0], np.cumsum(braking) * 0.1, atol=1e-3)
    # No jump at the first step, where positions as they are would be metres apart.
    torch.nn.init.normal_(model.regression[-1].weight, std=0.1)
    after = run(model, batch).trajectories[0].numpy()
    assert np.abs(after[:, 0] - found[:, 0]).max() < 0.5
    assert np.abs(after[:, -1] - found[:, -1]).max() > 3


def crossroads(kind=0):
    """One agent at 8 m/s, 10 m before lanes part: left on a circle of 12 m, straight on, right."""
    angle = np.linspace(0, np.pi / 2, 10)
    turn = np.stack([10 + 12 * np.sin(angle), 12 * (1 - np.cos(angle))], axis=-1)
    share = np.linspace(0, 1, 10)[:, None]
    lanes = [
        np.array([-40.0, 0.0]) + share * [50.0, 0.0],
        turn,
        np.array([10.0, 0.0]) + share * [60.0, 0.0],
        turn * [1, -1],
        np.array([22.0, 12.0]) + share * [0.0, 50.0],
        np.array([22.0, -12.0]) + share * [0.0, -50.0],
        np.array([60.0, 1.0]) + share * [-80.0, 0.0],  # the other way, a metre beside
    ]
    state = torch.zeros(1, 1, 50, 5)
    state[..., 0] = 0.8 * (torch.arange(50) - 49)
    state[..., 3] = 8.0
    m = len(lanes)
    one = torch.zeros(1, 1, dtype=torch.long)
    return Batch(
        state=state,
        valid=torch.ones(1, 1, 50, dtype=torch.bool),
        object_type=one + kind,
        category=one + 3,
        is_av=one.bool(),
        future=torch.zeros(1, 1, 60, 2),
        future_valid=torch.zeros(1, 1, 60, dtype=torch.bool),
        lines=torch.from_numpy(np.stack(lanes)).float()[None],
        line_kind=torch.zeros(1, m, dtype=torch.long),
        in_intersection=torch.zeros(1, m, dtype=torch.bool),
        half_width=torch.ones(1, m),
        line_valid=torch.ones(1, m, dtype=torch.bool),
    )


def test_kinematic_modes_follow_lanes_and_part_where_lanes_part():
    model = kinematic_model()
    batch = crossroads()
    paths = run(model, batch).trajectories[0].numpy()
    for mode in (0, 1, 2):  # no side: straight on
        assert np.abs(paths[mode, :, 1]).max() < 0.1
    lines = batch.lines[0].numpy()
    for mode, lanes, sign in ((4, (0, 1, 4), 1), (5, (0, 3, 5), -1)):
        dense = np.concatenate(
            [np.linspace(a, b, 50) for n in lanes for a, b in pairwise(lines[n])]
        )
        away = np.linalg.norm(paths[mode][:, None] - dense, axis=-1).min(axis=1)
        assert away.max() < 0.9  # a lane is 3.6 m wide
        assert sign * paths[mode, -1, 1] > 15
        steps = np.linalg.norm(np.diff(paths[mode], axis=0), axis=1)
        speeds = 8.0 - 0.3 * np.arange(2, 61) * 0.1
        np.testing.assert_allclose(steps, speeds * 0.1, atol=0.02)
    # Pedestrians do not follow lanes, nor does anybody without the map.
    straight = run(model, crossroads(kind=1)).trajectories[0]
    assert straight[..., 1].abs().max() < 1e-5
    no_map = Tenet(model_config("tenet-tiny", kinematic=True, use_map=False)).eval()
    torch.testing.assert_close(run(no_map, batch).trajectories[0], straight, atol=1e-4, rtol=0)


def test_kinematic_padding_and_order_change_nothing(store):
    model = kinematic_model()
    torch.nn.init.normal_(model.regression[-1].weight, std=0.1)
    batch = store.batch(range(3), 64, 128)
    plain = run(model, batch)
    near(run(model, store.batch(range(3), 64, 128, fixed=True)), plain, atol=1e-3)
    order = torch.randperm(batch.lines.shape[1])
    by_line = ("lines", "line_kind", "in_intersection", "half_width", "line_valid")
    mixed = replace(batch, **{name: getattr(batch, name)[:, order] for name in by_line})
    near(run(model, mixed), plain, atol=1e-3)


def test_kinematic_forecasts_move_with_the_scene(scene_source):
    model = kinematic_model()
    torch.nn.init.normal_(model.regression[-1].weight, std=0.1)
    config = PredictConfig(worlds=True)
    before = predict(model, [make_scene(*scene_source)], config)
    after = predict(
        model, [make_scene(*moved(*scene_source, 2.1, np.array([912.0, -8.0])))], config
    )
    expected = before.trajectories @ rotation(2.1).T + np.array([912.0, -8.0])
    np.testing.assert_allclose(after.trajectories, expected, atol=2e-3, rtol=0)


def test_the_flow_header_changes_no_forecast(store):
    torch.manual_seed(0)
    model = Tenet(SIZES["tenet-tiny"]).eval()
    without = Tenet(model_config("tenet-tiny", flow=False)).eval()
    without.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("flow")}
    )
    batch = store.batch(range(3), 8, 16)
    a, b = run(model, batch), run(without, batch)
    assert torch.equal(a.trajectories, b.trajectories)
    assert torch.equal(a.logits, b.logits)
    assert a.history is None


def test_permuting_the_mode_embedding_permutes_the_modes(store):
    torch.manual_seed(0)
    model = Tenet(SIZES["tenet-tiny"]).eval()
    batch = store.batch(range(3), 8, 16)
    before = run(model, batch)
    order = torch.randperm(6)
    with torch.no_grad():
        model.mode_embed.copy_(model.mode_embed[order].clone())
    after = run(model, batch)
    torch.testing.assert_close(after.trajectories, before.trajectories[:, order], atol=1e-4, rtol=0)
    torch.testing.assert_close(after.logits, before.logits[:, order], atol=1e-5, rtol=0)
    # With embeddings of std 1 the modes differ from the start.
    assert before.trajectories[:, :, -1].std(dim=1).mean() > 0.5


def test_worlds_forecast_all_scored_agents(model, store):
    batch = store.batch(range(4), 16, 32)
    chosen = batch.scored & batch.valid[:, :, -1]
    found = run(model, batch, chosen)
    assert len(found.trajectories) == int(chosen.sum()) > 4
    logits = world_logits(found, chosen)
    scene = chosen.nonzero(as_tuple=True)[0]
    for s in range(4):
        torch.testing.assert_close(logits[s], found.logits[scene == s].mean(dim=0))
    made = predict(model, store, PredictConfig(worlds=True))
    assert made.joint
    assert len(made.offsets) - 1 == len(store)
    assert len(made) == int(
        (
            store.batch(range(len(store)), 64).scored
            & store.batch(range(len(store))).valid[..., -1]
        ).sum()
    )


def test_probabilities_sum_to_one_and_fall(model, store):
    found = predict(model, store, PredictConfig(batch_size=4))
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-12)
    assert (np.diff(found.probabilities, axis=1) <= 0).all()
    again = predict(model, store, PredictConfig(batch_size=1))
    np.testing.assert_allclose(again.trajectories, found.trajectories, atol=2e-4)
    hot = predict(model, store, PredictConfig(temperature=100.0))
    np.testing.assert_allclose(hot.probabilities, 1 / 6, atol=0.01)


@pytest.mark.slow
def test_a_scene_is_learnt_by_heart(made):
    batch = SceneStore.of([make_scene(*made[1])]).batch([0], 8, 16)
    torch.manual_seed(0)
    model = Tenet(model_config("tenet-tiny", dropout=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    first, steps = None, 900
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20, (steps - step) / 400)
        total, parts, found = batch_loss(model, batch, TrainConfig())
        first = first or parts
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    ends = (found.trajectories[0, :, -1] - batch.future[0, 0, -1]).norm(dim=-1)
    assert ends.min() < 0.1
    assert parts["flow"] < 0.2 * first["flow"]


def test_the_loss_by_hand():
    from tenfold.tenet.model import Forecast

    future = torch.zeros(2, 60, 2)
    valid = torch.ones(2, 60, dtype=torch.bool)
    valid[1, 30:] = False
    path = torch.zeros(2, 3, 60, 2)
    path[0, 0] += 3.0
    path[0, 1] += 0.5  # wins
    path[0, 2, -1] += 9.0
    path[1, 0, 29] += 1.0
    path[1, 1, 30:] += 50.0  # wins: the error is after the last valid step
    path[1, 2] += 4.0
    logits = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    past = torch.zeros(2, HISTORY, 5)
    seen = torch.ones(2, HISTORY, dtype=torch.bool)
    history = torch.zeros(2, 3, HISTORY, 2)
    history[0, 1] += 2.0
    targets = Targets(future, valid, past, seen)
    config = LossConfig(evolving=0.0)
    total, parts = loss(Forecast(path, logits, history=history), targets, config)
    assert parts["reg"] == pytest.approx(0.125 * 60 / 90)
    expected = (np.log(np.e + 2) - 1 + np.log(np.e**2 + 2)) / 2
    assert parts["cls"] == pytest.approx(expected, abs=1e-6)
    assert parts["flow"] == pytest.approx(1.5 / 2)
    assert total == pytest.approx(float(parts["reg"] + parts["cls"] + 0.5 * parts["flow"]))
    # At the beginning of an evolving loss all modes are pulled, at its end the winner only.
    early, _ = loss(Forecast(path, logits), targets, LossConfig(evolving=0.5), progress=0.0)
    late, _ = loss(Forecast(path, logits), targets, LossConfig(evolving=0.5), progress=0.5)
    assert early > late
    assert late == pytest.approx(float(parts["reg"] + parts["cls"]))


def test_garbage_in_invalid_steps_gives_no_gradient(store):
    torch.manual_seed(0)
    model = Tenet(SIZES["tenet-tiny"])
    model.eval()
    batch = store.batch(range(2), 8, 16)
    targets = targets_of(batch, None)
    targets.future_valid[:, 40:] = False
    targets.future = torch.where(targets.future_valid[..., None], targets.future, float("nan"))
    total, _ = loss(model(batch), targets)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_most_probable_mode_is_pulled_even_when_it_loses():
    from tenfold.tenet.model import Forecast

    path = torch.zeros(1, 2, 60, 2)
    path[0, 1] += 3.0
    valid = torch.ones(1, 60, dtype=torch.bool)
    truth = Targets(torch.zeros(1, 60, 2), valid, torch.zeros(1, 50, 5), valid[:, :50])
    forecast = Forecast(path.requires_grad_(), torch.tensor([[0.0, 1.0]]))
    total, parts = loss(forecast, truth, LossConfig(likeliest_weight=0.5))
    assert parts["reg"] == 0.0
    assert parts["likeliest"] == pytest.approx(2.5)
    assert float(total) == pytest.approx(float(parts["cls"]) + 0.5 * 2.5)
    total.backward()
    assert path.grad[0, 1].abs().min() > 0


def test_max_margin_and_soft_classification():
    from tenfold.tenet.model import Forecast

    path = torch.zeros(1, 2, 60, 2)
    path[0, 1] += 5.0
    valid = torch.ones(1, 60, dtype=torch.bool)
    truth = Targets(torch.zeros(1, 60, 2), valid, torch.zeros(1, 50, 5), valid[:, :50])
    logits = torch.tensor([[0.1, 0.0]])
    config = LossConfig(classification="max-margin")
    assert loss(Forecast(path, logits), truth, config)[1]["cls"] == pytest.approx(0.1)
    far = Forecast(path, torch.tensor([[0.3, 0.0]]))
    assert loss(far, truth, config)[1]["cls"] == 0.0
    share = np.exp(-np.hypot(5, 5) / 2)
    target = np.array([1, share]) / (1 + share)
    log_p = np.log(np.exp([0.1, 0.0]) / np.exp([0.1, 0.0]).sum())
    found = loss(Forecast(path, logits), truth, LossConfig(classification="soft"))[1]["cls"]
    assert found == pytest.approx(-(target * log_p).sum(), abs=1e-5)


def test_the_temperature_of_honest_logits_is_one():
    torch.manual_seed(0)
    logits = torch.randn(20_000, 6) * 2
    best = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits, best) == pytest.approx(1.0, abs=0.03)
    assert fit_temperature(logits * 3, best) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"), [({"width": 100}, "multiple"), ({"dropout": 1.0}, "dropout=1.0")]
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)
    with pytest.raises(InputError, match="did you mean 'tenet-tiny'"):
        model_config("tenet-tyni")
