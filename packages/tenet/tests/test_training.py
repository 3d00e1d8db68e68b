import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.backends.debugging import aot_eager

from tenfold.shared.errors import InputError
from tenfold.shared.runs import Run
from tenfold.tenet.objective import loss
from tenfold.tenet.scenes import load_scenes, truth_of_store
from tenfold.tenet.training import (
    TrainConfig,
    Training,
    augment,
    batch_loss,
    epoch_order,
    learning_rate,
    load_model,
    parameter_groups,
    targets_of,
)

SHORT = TrainConfig(
    data="generated:6:3",
    val="",
    size="tenet-tiny",
    max_agents=4,
    max_lines=8,
    val_agents=8,
    val_lines=16,
    epochs=3,
    batch_size=3,
    device="cpu",
)


class Killed(Exception):
    pass


def kill_in_the_third_epoch(monkeypatch):
    original = Training._epoch

    def killed(self):
        if self.epoch == 2:
            raise Killed
        return original(self)

    monkeypatch.setattr(Training, "_epoch", killed)


def test_a_resumed_training_reaches_the_same_numbers(store, tmp_path, monkeypatch):
    whole = Run.create("tenet", None, SHORT, tmp_path / "whole")
    Training(SHORT, store).run(whole)
    cut = Run.create("tenet", None, SHORT, tmp_path / "cut")
    training = Training(SHORT, store)
    kill_in_the_third_epoch(monkeypatch)
    with pytest.raises(Killed):
        training.run(cut)
    monkeypatch.undo()
    torch.rand(7)  # another process has other random numbers
    Training(SHORT, store).run(Run.open(cut.folder))
    a, b = whole.load(), cut.load()
    assert a[2] == b[2] == 2
    assert all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    losses = [[row["loss"] for row in run.metrics()] for run in (whole, cut)]
    assert losses[0] == losses[1]


def test_patience_keeps_the_best_weights_and_resumes(store, tmp_path, monkeypatch):
    scores = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    seen = []

    def validate(self):
        seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return {"brier-minFDE6": next(scores, 2.0)}

    monkeypatch.setattr(Training, "validate", validate)
    config = replace(SHORT, val="generated:6:4", epochs=9, patience=2)
    run = Run.create("tenet", None, config, tmp_path)
    with monkeypatch.context() as killing:
        kill_in_the_third_epoch(killing)
        with pytest.raises(Killed):
            Training(config, store, store).run(run)
    Training(config, store, store).run(Run.open(run.folder))
    weights, state, epoch = run.load()
    assert epoch == 3  # the second score was the best, two more were not better
    assert (state["best"]["score"], state["best"]["since"]) == (2.0, 2)
    assert all(torch.equal(weights[name], seen[1][name]) for name in weights)
    assert not all(torch.equal(weights[name], seen[3][name]) for name in weights)
    count = len(run.metrics())
    Training(config, store, store).run(Run.open(run.folder))  # killed before its result: no more
    assert len(run.metrics()) == count == 4


def test_the_same_seed_gives_the_same_weights_and_another_not(store):
    short = replace(SHORT, epochs=1)
    found = []
    for seed in (0, 0, 1):
        training = Training(replace(short, seed=seed), store)
        training.run()
        found.append(training.network.score[0].weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_each_scene_is_seen_once_an_epoch_over_all_ranks():
    config = replace(SHORT, batch_size=10)
    seen = [list(epoch_order(40, config, 5, rank, 2)) for rank in (0, 1)]
    assert sorted(np.concatenate([*seen[0], *seen[1]]).tolist()) == list(range(40))
    assert all(len(a) == len(b) == 5 for a, b in zip(*seen, strict=True))
    again = list(epoch_order(40, config, 5, 0, 2))
    assert all((a == b).all() for a, b in zip(seen[0], again, strict=True))
    other = np.concatenate(list(epoch_order(40, config, 6, 0, 2)))
    assert (other != np.concatenate(seen[0])).any()


def test_the_learning_rate_rises_and_falls():
    config = replace(SHORT, epochs=60, learning_rate=1e-3)
    rates = [learning_rate(config, step, 10) for step in range(600)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == rates[100] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5, abs=1e-6)
    assert np.argmax(rates) in (99, 100)
    short = [learning_rate(replace(config, epochs=10), step, 10) for step in range(100)]
    assert np.argmax(short) in (4, 5)  # 5 % of the steps


def test_biases_norms_and_embeddings_do_not_decay(store):
    network = Training(SHORT, store).network
    decaying, free = parameter_groups(network, 0.01)
    names = {id(p): name for name, p in network.named_parameters()}
    assert len(decaying["params"]) + len(free["params"]) == len(names)
    free_names = {names[id(p)] for p in free["params"]}
    assert {"mode_embed", "time_embed", "future_embed", "encoder_norm.weight"} <= free_names
    assert not any(
        name.endswith("weight") and "norm" not in name and "embed.1" not in name
        for name in free_names
        if network.get_parameter(name).ndim > 1
    )
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.01, 0.0)


def test_augmentation_keeps_scenes_whole(store):
    config = replace(SHORT, rotate=10.0, mirror=True)
    before = store.batch(range(6), 8, 16)
    after = augment(store.batch(range(6), 8, 16), config, np.random.default_rng(0))

    def distances(b):
        points = torch.cat([b.state[..., :2].flatten(1, 2), b.lines.flatten(1, 2)], dim=1)
        return torch.cdist(points.double(), points.double())

    torch.testing.assert_close(distances(after), distances(before), atol=2e-2, rtol=0)
    assert (after.lines - before.lines).abs().max() > 0.1
    # Headings turn with the motion: cos and sin still point along the velocity.
    for b in (before, after):
        fast = b.valid & (b.state[..., 3:].norm(dim=-1) > 3)
        course = torch.atan2(b.state[..., 4], b.state[..., 3])
        gap = torch.remainder(course - b.state[..., 2] + torch.pi, 2 * torch.pi) - torch.pi
        assert gap[fast].abs().median() < 0.1
    wide = augment(
        store.batch(range(6), 8, 16), replace(SHORT, stretch=0.2), np.random.default_rng(0)
    )
    for name in ("future", "lines", "half_width"):
        ratio = getattr(wide, name)[0] / getattr(before, name)[0]
        ratio = ratio[getattr(before, name)[0].abs() > 1e-3]
        by = wide.state[0, 0, 0, 0] / before.state[0, 0, 0, 0]
        torch.testing.assert_close(ratio, by.expand_as(ratio), atol=1e-4, rtol=0)
        assert abs(by - 1) > 0.01
    late = augment(
        store.batch(range(6), 8, 16), replace(SHORT, forget=1.0), np.random.default_rng(0)
    )
    begins = late.valid[:, 0].int().argmax(dim=1)
    assert len(begins.unique()) > 1
    assert late.valid[:, 0, -1].all()
    for row in range(6):
        assert not late.valid[row, :, : begins[row]].any()
        assert torch.equal(late.valid[row, :, begins[row] :], before.valid[row, :, begins[row] :])
    thin = augment(store.batch(range(6), 8, 16), replace(SHORT, drop=0.5), np.random.default_rng(0))
    assert torch.equal(thin.valid[:, 0], before.valid[:, 0])
    assert thin.valid.sum() < before.valid.sum()
    assert thin.line_valid.sum() < before.line_valid.sum()


@pytest.mark.parametrize(
    "change",
    [
        {"worlds": True},
        {"dense": True, "laplace": True, "flow_all_modes": True},
        {"classification": "soft", "kinematic": True, "likeliest_weight": 1.0, "evolving": 0.5},
        {"worlds": True, "kinematic": True},
    ],
)
def test_variants_train(store, tmp_path, change):
    config = replace(SHORT, epochs=1, **change)
    run = Run.create("tenet", None, config, tmp_path)
    found = Training(config, store, store).run(run)
    assert np.isfinite(found["loss"])
    assert np.isfinite(found["brier-minFDE6"])
    assert ("avgMinFDE6" in found) == ("worlds" in change)
    model, again = load_model(run)
    assert again == config
    assert not model.training


def test_the_past_of_the_winners_alone_is_the_same_loss(store):
    """What the loop asks for, against the Temporal Flow Header run on all modes."""
    config = replace(SHORT, dropout=0.0)
    training = Training(config, store)
    batch = store.batch(range(4), 8, 16)
    total, parts, forecast = batch_loss(training.network.train(), batch, config)
    assert forecast.history.shape == (4, 1, 50, 2)
    whole = training.network(batch)
    assert whole.history.shape == (4, 6, 50, 2)
    again, other = loss(whole, targets_of(batch, None), config.loss())
    assert other["flow"] == pytest.approx(float(parts["flow"]), rel=1e-5)
    assert again.item() == pytest.approx(total.item(), rel=1e-5)
    everything, _, _ = batch_loss(training.network, batch, replace(config, flow_all_modes=True))
    assert everything.item() != pytest.approx(total.item(), rel=1e-3)


def test_bf16_trains(store):
    found = Training(replace(SHORT, epochs=1, precision="bf16-mixed"), store).run()
    assert np.isfinite(found["loss"])


def test_two_processes_take_the_steps_of_one(store, tmp_path):
    """Over gloo, each with half of every batch; without dropout the weights agree."""
    # In double precision, since how single precision rounds depends on the processor.
    alone = replace(SHORT, batch_size=2, epochs=1, dropout=0.0, precision="64-true")
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import torch
from safetensors.torch import save_file
from tenfold.tenet.scenes import load_scenes
from tenfold.tenet.training import TrainConfig, Training

torch.set_num_threads(1)
config = TrainConfig(**{asdict(replace(alone, devices=2))!r})
training = Training(config, load_scenes(config.data))
training.run()
assert training.fabric.world_size == 2
if training.fabric.global_rank == 0:
    save_file(training.network.state_dict(), {str(tmp_path / "two.safetensors")!r})
"""
    )
    subprocess.run([sys.executable, script], check=True, timeout=120, cwd=tmp_path)
    one = Training(alone, store)
    before = one.network.score[0].weight.clone()
    one.run()
    two = load_file(tmp_path / "two.safetensors")
    gaps = [(two[k] - v).abs().flatten() for k, v in one.network.state_dict().items()]
    gap = torch.cat(gaps)
    # Adam blows up the rounding of gradients that are zero, such as those of the keys' biases.
    assert gap.median() < 1e-9
    assert (gap > 1e-4).float().mean() < 0.01
    assert (one.network.score[0].weight - before).abs().mean() > 1e-3


@pytest.mark.slow
def test_a_compiled_training_takes_the_same_steps(store, monkeypatch):
    """Graphs are captured and differentiated as for any backend; C++ is not compiled (minutes)."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: whole(model, backend=backend))
    config = replace(SHORT, epochs=1, dropout=0.0)
    losses = [Training(replace(config, compile=on), store).run()["loss"] for on in (False, True)]
    assert graphs
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
def test_the_gpu_keeps_the_data_and_trains(store):
    training = Training(replace(SHORT, device="cuda", epochs=1), store, store)
    assert training.scenes.arrays["state"].is_cuda
    assert np.isfinite(training.run()["brier-minFDE6"])


def test_scenes_of_all_sources(split, tmp_path):
    from tenfold.tenet.data.cache import preprocess
    from tenfold.tenet.data.index import scan

    folder = load_scenes(str(split))
    cache = preprocess(scan(split), tmp_path / "c")
    opened = load_scenes(str(tmp_path / "c"))
    assert len(folder) == len(cache) == len(opened) == 7
    made = load_scenes("generated:7:5")
    ids = {made[i].scenario_id: i for i in range(7)}
    for row in range(7):
        scene, other = folder[row], made[ids[folder[row].scenario_id]]
        np.testing.assert_allclose(scene.state, other.state, atol=1e-6)
        np.testing.assert_allclose(scene.lines, other.lines, atol=1e-6)
    truth = truth_of_store(folder)
    assert truth.is_focal.sum() == 7
    for source in ("generated:0", "generated:x", "sensor:/nowhere", "/nowhere"):
        with pytest.raises(InputError, match=r"expected|unknown split"):
            load_scenes(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"patience": -1}, "patience=-1"),
        ({"patience": 1, "val": ""}, "val=''"),
        ({"learning_rate": 1e-6}, "final_learning_rate <= learning_rate"),
        ({"drop": 1.0}, "drop=1.0"),
        ({"stretch": -0.1}, "stretch=-0.1"),
        ({"forget": 2.0}, "forget=2.0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"worlds": True, "classification": "soft"}, "worlds with classification='soft'"),
        ({"size": "tenet-huge"}, "unknown size 'tenet-huge'"),
    ],
)
def test_impossible_runs_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SHORT, **change)
