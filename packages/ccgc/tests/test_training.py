import copy

import numpy as np
import pytest
import torch

from tenfold.ccgc import experiments
from tenfold.ccgc import training as training_module
from tenfold.ccgc.data import as_data, attributed_graph
from tenfold.ccgc.estimators import prepare
from tenfold.ccgc.evaluation import label_scores
from tenfold.ccgc.kmeans import kmeans
from tenfold.ccgc.objective import (
    cluster_means,
    negative_loss,
    positive_loss_mean_field,
    warm_up_loss,
)
from tenfold.ccgc.training import TrainConfig, with_defaults
from tenfold.shared import compute
from tenfold.shared.errors import InputError
from tenfold.shared.runs import Run

SHORT = {
    "clusters": 3,
    "hops": 2,
    "learning_rate": 1e-3,
    "epochs": 60,
    "warm_up": 21,
    "embedding_dim": 32,
    "n_init": 2,
    "device": "cpu",
}


def training(data, **changes):
    config = TrainConfig(**(SHORT | changes))
    return prepare(as_data(data), config, compute.fabric("cpu"))


def run_and_watch(made):
    seen = []
    return made.run(lambda _, metrics: seen.append(metrics)), seen


def percent(scores):
    return [round(scores[name], 2) for name in ("ACC", "NMI", "ARI", "F1")]


# The published protocol ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _official_runs():
    return {}


@pytest.fixture
def official_bat(real, _official_runs):
    """Runs the published protocol on BAT: the start, the training, the best, all refreshes."""

    def run(seed):
        if seed not in _official_runs:
            settings = {"clusters": 4, "hops": 4, "learning_rate": 1e-4, "seed": seed}
            config = TrainConfig(protocol="official-best", device="cpu", **settings)
            made = prepare(as_data(real("bat")), config, compute.fabric("cpu"))
            _official_runs[seed] = made.best, made, *run_and_watch(made)
        return _official_runs[seed]

    return run


@pytest.mark.data
def test_official_mode_on_bat_gives_the_reference_numbers_of_seed_0(official_bat):
    start, made, best, seen = official_bat(0)
    assert percent(start.scores) == [64.89, 40.91, 36.43, 61.28]
    assert start.epoch == -1
    assert percent(best.scores) == [67.18, 48.06, 42.72, 63.43]
    assert seen[-1]["epoch"] == 390  # the last refresh
    assert percent(seen[-1]) == [66.41, 44.96, 40.07, 63.19]
    assert percent(label_scores(made.y, made.labels)) == [66.41, 44.96, 40.07, 63.19]


@pytest.mark.data
def test_official_mode_on_bat_gives_the_reference_mean_of_seeds_0_to_2(official_bat):
    best = [official_bat(seed)[2].scores for seed in range(3)]
    mean = [np.mean([scores[name] for scores in best]) for name in ("ACC", "NMI", "ARI", "F1")]
    assert mean == pytest.approx([68.19, 46.81, 40.25, 67.02], abs=0.006)


def test_official_mode_keeps_the_refresh_that_the_labels_like_best(planted):
    best, seen = run_and_watch(training(planted, protocol="official-best"))
    start = training(planted, protocol="official-best").best.scores["ACC"]
    assert best.scores["ACC"] == max([start, *(metrics["ACC"] for metrics in seen)])
    assert label_scores(planted.y, best.labels)["ACC"] == pytest.approx(best.scores["ACC"])


def test_official_mode_sees_the_running_sum_of_all_gradients(planted):
    made = training(planted, protocol="official-best", epochs=3)
    sums = [torch.zeros_like(p) for p in made.encoders.parameters()]
    step = made.optimizer.step

    def check(*arguments, **options):
        z1, z2 = made.encoders(made.features)
        fresh = torch.autograd.grad(warm_up_loss(z1, z2), list(made.encoders.parameters()))
        for total, gradient, parameter in zip(sums, fresh, made.encoders.parameters(), strict=True):
            total += gradient
            torch.testing.assert_close(parameter.grad, total, rtol=1e-3, atol=1e-9)
        return step(*arguments, **options)

    made.optimizer.step = check
    made.run()
    assert any(float(total.abs().max()) > 0 for total in sums)


def test_final_mode_clears_the_gradients_and_uses_every_cluster(planted):
    made = training(planted, epochs=22, refresh_every=100)
    while made.epoch < 20:
        made.epoch += 1
        made._warm_up()
    made._refresh()
    assert sorted(made.labels[made.confident].unique().tolist()) == [0, 1, 2]
    z1, z2 = made.encoders(made.features)
    groups = [((made.labels == k) & made.confident).nonzero()[:, 0] for k in range(3)]
    means = [torch.stack([z[group].mean(0) for group in groups]) for z in (z1, z2)]
    literal = positive_loss_mean_field(*means) + 0.5 * negative_loss(*means)
    gradients = torch.autograd.grad(literal, list(made.encoders.parameters()))
    loss = made._refine()
    assert float(loss) == pytest.approx(float(literal), rel=1e-4)
    for parameter, gradient in zip(made.encoders.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_official_mode_leaves_the_smallest_label_out(planted, monkeypatch):
    used = []
    sampled = training_module.positive_loss_sampled

    def record(z1, z2, members, *rest):
        used.append(len(members))
        return sampled(z1, z2, members, *rest)

    monkeypatch.setattr(training_module, "positive_loss_sampled", record)
    training(planted, protocol="official-best", epochs=25).run()
    assert used == [2] * 4  # of three clusters, in each epoch after the warm-up


# Determinism, resumption -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"protocol": "official-best"}, {"batch_size": 64}])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(planted, options):
    first, again, other = (run_and_watch(training(planted, seed=s, **options)) for s in (0, 0, 1))
    assert first[1] == again[1]
    assert torch.equal(first[0].labels, again[0].labels)
    for name, weight in first[0].weights.items():
        assert torch.equal(weight, again[0].weights[name])
    assert first[1] != other[1]


class Killed(Exception):
    pass


def killed_at(made, epoch, keep):
    def stop(made, metrics):
        if metrics["epoch"] == epoch:
            keep(made)
            raise Killed

    with pytest.raises(Killed):
        made.run(stop)


def assert_same_clustering(left, right):
    assert left.epoch == right.epoch
    assert left.quality == right.quality
    assert left.scores == right.scores
    for name in ("labels", "distances", "centers"):
        assert torch.equal(getattr(left, name), getattr(right, name))
    assert left.weights.keys() == right.weights.keys()
    for name, weight in left.weights.items():
        assert torch.equal(weight, right.weights[name])
    if left.space is not None:
        assert torch.equal(left.space.basis, right.space.basis)


@pytest.mark.parametrize(
    "options", [{}, {"protocol": "official-best"}, {"batch_size": 64}, {"space": "narrow"}]
)
@pytest.mark.parametrize("epoch", [10, 40])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(planted, options, epoch):
    whole, expected = run_and_watch(training(planted, **options))
    kept = []
    killed_at(
        training(planted, **options), epoch, lambda t: kept.append(copy.deepcopy(t.state_dict()))
    )
    resumed = training(planted, **options)
    resumed.load_state_dict(*kept[0])
    assert resumed.epoch == epoch
    best, seen = run_and_watch(resumed)
    assert_same_clustering(best, whole)
    assert seen == [metrics for metrics in expected if metrics["epoch"] > epoch]


def test_the_narrow_start_keeps_the_similarities_of_the_features(planted):
    made = training(planted, space="narrow", embedding_dim=64)  # more than the 16 features
    rows = torch.nn.functional.normalize(made.features.dense)
    z = torch.cat(list(made.embed()))
    torch.testing.assert_close(z @ z.T, rows @ rows.T, atol=1e-4, rtol=0)
    first, second = made.encoders.view1.weight, made.encoders.view2.weight
    assert not torch.allclose(first, second, atol=1e-3)  # un-shared: two rotations


def test_a_narrow_training_ends_when_the_clustering_leaves_the_features(planted, monkeypatch):
    values = iter([0.8, 0.783, 0.785, 0.783, 0.7, 0.79, 0.9])
    module = "tenfold.ccgc.training"
    monkeypatch.setattr(f"{module}.explained", lambda *_: next(values))
    made = training(planted, space="narrow", warm_up=1, epochs=400)
    best, seen = run_and_watch(made)
    # The bound is 0.98 * 0.8 = 0.784: one refresh below it is passed over, two in a row end it.
    explained = [m["explained"] for m in seen if "explained" in m]
    assert explained == [0.8, 0.783, 0.785, 0.783, 0.7]
    assert best.epoch in (seen[-5]["epoch"], seen[-3]["epoch"])
    assert made.finished
    assert made.epoch < 399


def test_a_narrow_run_that_ends_early_leaves_its_last_checkpoint(planted, tmp_path, monkeypatch):
    values = iter([0.8, 0.75, 0.7])
    monkeypatch.setattr("tenfold.ccgc.training.explained", lambda *_: next(values))
    config = TrainConfig(
        hops=2, learning_rate=1e-3, space="narrow", clusters=3, warm_up=1, embedding_dim=16,
        device="cpu",
    )  # fmt: skip
    run = Run.create("ccgc", "toy", config, root=tmp_path)
    result = experiments.train(experiments.opened(config, planted), run)
    assert result.epoch < 30
    _, state, _ = run.load()
    assert state["below"] == 2


@pytest.mark.parametrize("options", [{}, {"protocol": "official-best"}])
def test_a_run_folder_resumes_to_the_same_result_after_a_kill(planted, tmp_path, options):
    whole = training(planted, **options)
    expected = whole.run()
    killed = training(planted, **options)
    run = Run.create("ccgc", "toy", killed.config, root=tmp_path)
    killed_at(killed, 40, lambda t: run.save(*t.state_dict(), t.epoch))
    again = Run.open(run.folder)
    weights, state, epoch = again.load()
    assert epoch == 40
    resumed = prepare(as_data(planted), again.config(TrainConfig), compute.fabric("cpu"))
    resumed.load_state_dict(weights, state)
    assert_same_clustering(resumed.run(), expected)
    for name, weight in whole.encoders.state_dict().items():
        assert torch.equal(weight, resumed.encoders.state_dict()[name])


def test_permuting_the_nodes_permutes_the_result_from_the_same_start(planted):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    number = torch.empty_like(order)
    number[order] = torch.arange(300)
    permuted = planted.clone()
    permuted.x, permuted.y = planted.x[order], planted.y[order]
    permuted.edge_index = number[planted.edge_index]
    straight, other = training(planted), training(permuted)
    other.encoders.load_state_dict(straight.encoders.state_dict())
    before = straight.encoders.view1.weight.detach().clone()
    for made in (straight, other):
        for _ in range(5):
            made._warm_up()
    straight._refresh()
    other.labels, other.confident = straight.labels[order], straight.confident[order]
    losses = [[float(made._refine()) for _ in range(5)] for made in (straight, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert not torch.allclose(straight.encoders.view1.weight, before)
    z, z_other = (torch.cat(list(made.embed())).detach() for made in (straight, other))
    torch.testing.assert_close(z_other, z[order], rtol=1e-3, atol=1e-5)
    start = torch.stack([z[planted.y == k].mean(0) for k in range(3)])
    labels, labels_other = (kmeans(rows, 3, init=start).labels for rows in (z, z_other))
    assert torch.equal(labels_other, labels[order])


# Schedule and scale ----------------------------------------------------------------------------


def test_k_means_runs_every_tenth_epoch_and_at_the_end(planted):
    _, seen = run_and_watch(training(planted, epochs=36))
    assert [metrics["epoch"] for metrics in seen] == [0, 10, 20, 30, 35]
    _, seen = run_and_watch(training(planted, epochs=36, protocol="official-best"))
    assert [metrics["epoch"] for metrics in seen] == [0, 10, 20, 30]


def test_the_chosen_refresh_has_the_best_score_after_the_warm_up(planted):
    best, seen = run_and_watch(training(planted))
    later = [metrics for metrics in seen if metrics["epoch"] >= 21]
    assert best.quality.score == max(metrics["score"] for metrics in later)
    assert best.epoch == max(later, key=lambda metrics: metrics["score"])["epoch"]


def test_the_loss_is_finite_and_falls_within_each_phase(planted):
    _, seen = run_and_watch(training(planted, refresh_every=1))
    losses = [metrics["loss"] for metrics in seen]
    assert np.isfinite(losses).all()
    assert losses[20] < losses[0]
    assert losses[-1] < losses[21]


def test_mini_batches_cluster_a_generated_graph_well_above_chance():
    data = attributed_graph(
        2000, features=16, clusters=5, mean_degree=8, homophily=0.8, signal=0.8, seed=2
    )
    settings = {"clusters": 5, "batch_size": 256, "epochs": 60, "n_init": 3}
    best = training(data, **settings).run()
    scores = label_scores(data.y, best.labels)
    largest_class = 100 * int(data.y.bincount().max()) / 2000
    assert scores["ACC"] > largest_class + 30
    assert scores["NMI"] > 60


def test_a_mini_batch_holds_at_most_its_size_of_distinct_nodes(planted):
    made = training(planted, batch_size=64)
    batches = [made._batch() for _ in range(20)]
    for batch in batches:
        assert 32 < len(batch) <= 64
        assert len(batch.unique()) == len(batch)
    assert len(torch.cat(batches).unique()) > 280


def test_a_mini_batch_refines_on_its_confident_nodes(planted, monkeypatch):
    made = training(planted, batch_size=100)
    made._warm_up()
    made._refresh()
    batch = torch.arange(0, 300, 3)
    monkeypatch.setattr(made, "_batch", lambda: batch)
    z1, z2 = (z.detach() for z in made.encoders(made.features))
    nodes = batch[made.confident[batch]]
    means = [cluster_means(z[nodes], made.labels[nodes], 3) for z in (z1, z2)]
    literal = positive_loss_mean_field(*means) + 0.5 * negative_loss(*means)
    assert float(made._refine()) == pytest.approx(float(literal), rel=1e-4)


def test_a_mini_batch_without_a_confident_node_has_no_nan(planted, monkeypatch):
    made = training(planted, batch_size=100)
    made._warm_up()
    made._refresh()
    monkeypatch.setattr(made, "_batch", lambda: (~made.confident).nonzero()[:5, 0])
    loss = made._refine()
    assert loss is None or np.isfinite(float(loss))
    assert finite(made)


# Edge cases -------------------------------------------------------------------------------


def finite(made):
    return all(bool(torch.isfinite(p).all()) for p in made.encoders.parameters())


def test_no_confident_node_skips_the_step_but_still_refreshes(planted):
    made = training(planted, tau=0.0)
    weights = []
    best, seen = None, []

    def watch(made, metrics):
        seen.append(metrics)
        weights.append({k: v.clone() for k, v in made.encoders.state_dict().items()})

    best = made.run(watch)
    assert [metrics["epoch"] for metrics in seen] == [*range(0, 60, 10), 59]
    assert all(metrics["confident"] == 0 for metrics in seen)
    assert np.isnan(seen[-1]["loss"])  # there was no step
    after = weights[3:]  # from epoch 30
    for name, value in after[0].items():
        assert torch.equal(value, after[-1][name])
    assert finite(made)
    assert torch.isfinite(best.distances).all()


def test_official_mode_skips_the_refresh_together_with_the_step(planted):
    made = training(planted, tau=0.0, protocol="official-best")
    _, seen = run_and_watch(made)
    assert [metrics["epoch"] for metrics in seen] == [0, 10, 20]
    assert finite(made)


def test_equal_rows_and_one_cluster_train_without_nan(planted):
    planted.x = torch.ones_like(planted.x)
    planted.edge_index = torch.empty(2, 0, dtype=torch.int64)
    made = training(planted, clusters=1)
    best = made.run()
    assert finite(made)
    assert best.labels.unique().tolist() == [0]
    assert np.isfinite(best.quality.score)


def test_equal_rows_and_two_clusters_are_refused(planted):
    planted.x = torch.ones_like(planted.x)
    planted.edge_index = torch.empty(2, 0, dtype=torch.int64)
    with pytest.raises(InputError, match="n_clusters=2 but x has only 1 distinct rows"):
        training(planted, clusters=2).run()


@pytest.mark.parametrize("protocol", ["final", "official-best"])
def test_one_cluster_has_no_negative_loss_and_stays_finite(planted, protocol):
    made = training(planted, clusters=1, protocol=protocol)
    best = made.run()
    assert best.labels.unique().tolist() == [0]
    assert finite(made)


@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_extreme_shares_of_confident_nodes_train(planted, tau):
    made = training(planted, tau=tau)
    made.run()
    assert finite(made)


def test_a_cluster_of_one_node_takes_part(planted):
    planted.x[0] = 100.0
    keep = (planted.edge_index != 0).all(0)
    planted.edge_index = planted.edge_index[:, keep]
    made = training(planted, tau=1.0)
    made.run()
    assert finite(made)


@pytest.mark.parametrize("protocol", ["final", "official-best"])
def test_isolated_nodes_and_zero_rows_train(planted, protocol):
    planted.x[:10] = 0
    keep = (planted.edge_index >= 20).all(0)
    planted.edge_index = planted.edge_index[:, keep]
    made = training(planted, protocol=protocol)
    best = made.run()
    assert finite(made)
    assert len(best.labels) == 300


def test_float64_features_train(planted):
    planted.x = planted.x.double()
    assert len(training(planted).run().labels) == 300


def test_mixed_precision_trains_and_finds_the_clusters(planted):
    config = TrainConfig(**SHORT, precision="bf16-mixed")
    fabric = compute.fabric("cpu", precision="bf16-mixed")
    wide = torch.zeros(300, 3000)
    wide[:, :16] = planted.x * (planted.x.abs() > 1)
    planted.x = wide  # wide enough for the factored product
    made = prepare(as_data(planted), config, fabric)
    assert made.features.factored
    assert label_scores(planted.y, made.run().labels)["NMI"] > 60


@pytest.mark.parametrize("protocol", ["final", "official-best"])
def test_the_factored_and_the_dense_product_train_alike(planted, protocol):
    made = [training(planted, protocol=protocol, epochs=15) for _ in range(2)]
    features = made[0].features
    adjacency = training_module.SmoothedFeatures
    from tenfold.ccgc.smoothing import normalized_adjacency

    operator = normalized_adjacency(planted.edge_index, 300)
    made[1].features = adjacency(operator, planted.x, 2, factored=True)
    assert not features.factored
    for one in made:
        one.run()
    for left, right in zip(*(one.encoders.parameters() for one in made), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-3)


# Options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("clusters", 0, ">= 1"),
        ("hops", -1, ">= 0"),
        ("epochs", 0, ">= 1"),
        ("warm_up", -1, ">= 0"),
        ("refresh_every", 0, ">= 1"),
        ("embedding_dim", 0, ">= 1"),
        ("tau", 1.5, "from 0 to 1"),
        ("tau", float("nan"), "from 0 to 1"),
        ("alpha", -0.5, ">= 0"),
        ("keep", 1.01, "from 0 to 1"),
        ("n_init", 0, ">= 1"),
        ("batch_size", 1, ">= 2"),
        ("learning_rate", 0.0, "> 0"),
        ("learning_rate", float("inf"), "> 0"),
        ("precision", "64-true", "'32-true', '16-mixed' or 'bf16-mixed'"),
    ],
)
def test_an_option_that_no_run_can_have_is_refused_by_name(name, value, expected):
    with pytest.raises(InputError, match=rf"{name}={value!r}; expected {expected}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("changes", [{"batch_size": 10}, {"devices": 2}])
def test_official_best_takes_no_mini_batches_and_one_device(changes):
    with pytest.raises(InputError, match="full-batch on one device"):
        TrainConfig(protocol="official-best", **changes)


def test_official_best_without_labels_is_refused(planted):
    planted.y = None
    with pytest.raises(InputError, match=r"true labels, and the graph has none \(y\)"):
        training(planted, protocol="official-best")


@pytest.mark.parametrize("missing", ["clusters", "hops"])
def test_a_training_needs_the_choices_made(planted, missing):
    with pytest.raises(InputError, match="clusters and hops must be given"):
        training(planted, **{missing: None})


def test_a_training_needs_a_learning_rate(planted):
    with pytest.raises(InputError, match="learning_rate is not given"):
        training(planted, learning_rate=None)


def test_defaults_fill_in_only_what_is_open():
    config = with_defaults(TrainConfig(hops=7), 2, 1e-3)
    assert (config.hops, config.learning_rate) == (7, 1e-3)
