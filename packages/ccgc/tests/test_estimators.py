import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import tenfold.ccgc as package
from tenfold.ccgc import CCGC, SCGC, SSGC, KMeansBaseline, attributed_graph, settings, training
from tenfold.ccgc.data.generated import to_scipy
from tenfold.ccgc.estimators import confidence
from tenfold.ccgc.model import UnsharedEncoders
from tenfold.ccgc.smoothing import SmoothedFeatures, normalized_adjacency, smooth
from tenfold.shared import compute
from tenfold.shared.errors import InputError

QUICK = {"epochs": 25, "warm_up": 11, "embedding_dim": 32, "n_init": 2, "device": "cpu"}
GIVEN = {"hops": 2, "learning_rate": 1e-3}

MAKERS = {
    "CCGC": lambda k=3, **o: CCGC(k, **(QUICK | GIVEN | o)),
    "CCGC official-best": lambda k=3, **o: CCGC(k, protocol="official-best", **(QUICK | GIVEN | o)),
    "CCGC mini-batch": lambda k=3, **o: CCGC(k, batch_size=100, **(QUICK | GIVEN | o)),
    "KMeansBaseline": lambda k=3, **o: KMeansBaseline(k, n_init=3, **o),
    "SSGC": lambda k=3, **o: SSGC(k, hops=2, n_init=3, **o),
    "SCGC": lambda k=3, **o: SCGC(k, hops=2, epochs=20, embedding_dim=32, n_init=3, **o),
}


@pytest.fixture(params=MAKERS)
def maker(request):
    return MAKERS[request.param]


def test_a_fitted_estimator_has_labels_confidence_and_an_embedding(maker, planted):
    estimator = maker()
    assert estimator.fit(planted) is estimator
    assert estimator.n_clusters_ == 3
    assert estimator.labels_.shape == (300,)
    assert estimator.labels_.dtype == np.int64
    assert set(estimator.labels_) == {0, 1, 2}
    assert estimator.confidence_.shape == (300,)
    assert estimator.confidence_.dtype == np.float32
    assert estimator.confidence_.min() >= 0
    assert estimator.confidence_.max() <= 1
    assert estimator.confidence_.std() > 0
    assert estimator.embedding_.shape[0] == 300
    assert estimator.embedding_.dtype == np.float32


def test_fit_predict_and_fit_transform_are_the_fitted_attributes(maker, planted):
    estimator = maker().fit(planted)
    np.testing.assert_array_equal(maker().fit_predict(planted), estimator.labels_)
    np.testing.assert_array_equal(maker().fit_transform(planted), estimator.embedding_)


def test_transform_of_the_fitted_graph_is_its_embedding(maker, planted):
    estimator = maker().fit(planted)
    np.testing.assert_allclose(estimator.transform(planted), estimator.embedding_, atol=1e-5)


def test_the_planted_clusters_are_found(maker, planted):
    assert adjusted_rand_score(planted.y, maker().fit_predict(planted)) > 0.8


def test_adjacency_and_features_give_the_same_as_a_data(maker, planted):
    if "official" in str(maker().__dict__.get("config", "")):
        pytest.skip("official-best needs labels, which matrices do not carry")
    expected = maker().fit(planted)
    for adjacency in (to_scipy(planted), to_scipy(planted).toarray()):
        estimator = maker().fit((adjacency, planted.x.numpy()))
        np.testing.assert_array_equal(estimator.labels_, expected.labels_)
        np.testing.assert_array_equal(estimator.embedding_, expected.embedding_)


def test_an_estimator_leaves_the_graph_as_it_was(maker, planted):
    before = planted.clone()
    maker().fit(planted)
    assert sorted(planted.keys()) == sorted(before.keys())
    for key in before.keys():  # noqa: SIM118 - a Data is no dict
        assert torch.equal(planted[key], before[key])


def test_the_seed_decides_everything(maker, planted):
    first, again = maker(seed=3).fit(planted), maker(seed=3).fit(planted)
    np.testing.assert_array_equal(first.labels_, again.labels_)
    np.testing.assert_array_equal(first.embedding_, again.embedding_)
    np.testing.assert_array_equal(first.confidence_, again.confidence_)


def test_another_seed_trains_other_encoders(planted):
    for name in ("CCGC", "SCGC"):
        first, other = (MAKERS[name](seed=s).fit_transform(planted) for s in (0, 1))
        assert not np.allclose(first, other)


def test_more_clusters_than_nodes_are_refused(maker, planted):
    with pytest.raises(InputError, match="n_clusters=301 for 300 nodes; expected at most as many"):
        maker(301).fit(planted)


@pytest.mark.parametrize("k", [0, -2, 2.5, "3", None])
def test_a_number_of_clusters_that_is_none_is_refused(maker, k):
    with pytest.raises(InputError, match=r"n_clusters=.*; expected a whole number >= 1"):
        maker(k)


def test_one_cluster_is_the_whole_graph(maker, planted):
    estimator = maker(1).fit(planted)
    assert set(estimator.labels_) == {0}
    assert set(estimator.confidence_) == {1.0}
    assert np.isfinite(estimator.embedding_).all()


def test_transform_before_fit_is_refused(planted):
    for name in ("CCGC", "SCGC"):
        with pytest.raises(InputError, match=f"{name} is not fitted; call fit first"):
            MAKERS[name]().transform(planted)


def test_a_graph_of_another_width_is_refused_by_transform(planted):
    other = attributed_graph(200, features=5, clusters=2)
    for name in ("CCGC", "SCGC"):
        estimator = MAKERS[name]().fit(planted)
        with pytest.raises(InputError, match="has 5 features; the encoders expect 16"):
            estimator.transform(other)


def test_nan_in_the_features_is_refused_by_node_and_column(maker, planted):
    planted.x[5, 2] = float("nan")
    with pytest.raises(InputError, match="node 5, column 2 is nan"):
        maker().fit(planted)


def test_an_asymmetric_graph_warns_and_is_fitted(maker, planted):
    expected = maker().fit(planted)
    directed = planted.clone()
    directed.edge_index = planted.edge_index[:, planted.edge_index[0] < planted.edge_index[1]]
    with pytest.warns(UserWarning, match="not symmetric"):
        labels = maker().fit_predict(directed)
    np.testing.assert_array_equal(labels, expected.labels_)


def test_edge_weights_count(maker, planted):
    if isinstance(maker(), KMeansBaseline) and maker().hops == 0:
        pytest.skip("k-means on the features does not use the graph")
    unit = planted.clone()
    unit.edge_weight = torch.ones(planted.edge_index.shape[1])
    expected = maker().fit(planted)
    np.testing.assert_allclose(maker().fit(unit).embedding_, expected.embedding_, atol=1e-5)
    between = planted.y[planted.edge_index[0]] != planted.y[planted.edge_index[1]]
    unit.edge_weight[between] = 10.0
    assert not np.allclose(maker().fit(unit).embedding_, expected.embedding_, atol=1e-2)


@pytest.mark.parametrize("open_", [{}, {"hops": None, "learning_rate": None}])
@pytest.mark.parametrize("batch_size", [None, 100])
def test_shuffling_the_labels_changes_nothing_in_the_default_protocol(
    planted, monkeypatch, open_, batch_size
):
    for kind in ("COMMUNITIES", "ROLES"):
        monkeypatch.setattr(settings, kind, ((("narrow", 1), ("wide", 3)), 1e-3))
    shuffled, none = planted.clone(), planted.clone()
    shuffled.y = planted.y[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    none.y = None
    options = QUICK | GIVEN | {"batch_size": batch_size} | open_
    expected = CCGC(3, **options).fit(planted)
    assert bool(expected.trials_) is bool(open_)
    for graph in (shuffled, none):
        estimator = CCGC(3, **options).fit(graph)
        np.testing.assert_array_equal(estimator.labels_, expected.labels_)
        np.testing.assert_array_equal(estimator.embedding_, expected.embedding_)
        np.testing.assert_array_equal(estimator.confidence_, expected.confidence_)
        assert estimator.trials_ == expected.trials_
        assert estimator.history_ == expected.history_


def test_the_labels_do_choose_in_the_published_protocol(planted):
    shuffled = planted.clone()
    shuffled.y = planted.y[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    first, other = (
        CCGC(3, protocol="official-best", **(QUICK | GIVEN)).fit(g) for g in (planted, shuffled)
    )
    assert first.clustering_.scores["ACC"] > other.clustering_.scores["ACC"]


def test_official_best_without_labels_is_refused(planted):
    planted.y = None
    for graph in (planted, (to_scipy(planted), planted.x.numpy())):
        with pytest.raises(InputError, match="take protocol='final'"):
            CCGC(3, protocol="official-best", **(QUICK | GIVEN)).fit(graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "best"}, "protocol='best'; expected 'final' or 'official-best'"),
        ({"epochz": 5}, "epochz"),
        ({"tau": 2.0}, "tau=2.0; expected from 0 to 1"),
        ({"hops": -1}, "hops=-1; expected >= 0"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001; expected > 0"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"precision": "64-true"}, "precision='64-true'"),
    ],
)
def test_bad_options_are_refused_by_name(planted, options, message):
    with pytest.raises(InputError, match=message):
        CCGC(3, **(QUICK | GIVEN | options)).fit(planted)


def test_given_hops_and_learning_rate_run_no_pilots(planted, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a pilot ran")

    monkeypatch.setattr(settings, "Training", forbidden)
    estimator = CCGC(3, **QUICK, **GIVEN).fit(planted)
    assert estimator.trials_ == []
    assert (estimator.hops_, estimator.learning_rate_) == (2, 1e-3)


def test_official_best_takes_the_official_settings_without_pilots(planted, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a pilot ran")

    monkeypatch.setattr(settings, "Training", forbidden)
    estimator = CCGC(3, protocol="official-best", **QUICK).fit(planted)
    assert (estimator.hops_, estimator.learning_rate_) == (4, 1e-4)


@pytest.mark.parametrize(
    ("given", "pairs"),
    [({}, [(1, 2e-3), (3, 2e-3)]), ({"learning_rate": 5e-3}, [(1, 5e-3), (3, 5e-3)])],
)
def test_open_hops_are_chosen_by_the_quality_of_their_trainings(planted, monkeypatch, given, pairs):
    monkeypatch.setattr(settings, "ROLES", ((("wide", 1), ("wide", 3)), 2e-3))
    monkeypatch.setattr(settings, "MODULAR", 2.0)  # no graph has communities
    estimator = CCGC(3, **QUICK, **given).fit(planted)
    assert [(t.hops, t.learning_rate) for t in estimator.trials_] == pairs
    best = max(estimator.trials_, key=lambda t: t.quality.score)
    assert (estimator.hops_, estimator.learning_rate_) == (best.hops, best.learning_rate)
    assert estimator.clustering_.quality == best.quality  # the trial is the run


def test_the_preferred_trial_is_gone_on_with_as_if_it_had_never_paused(planted, monkeypatch):
    monkeypatch.setattr(settings, "COMMUNITIES", ((("narrow", 1), ("wide", 3)), 1e-3))
    found = CCGC(3, **QUICK).fit(planted)
    given = {"hops": found.hops_, "learning_rate": found.learning_rate_, "space": found.space_}
    alone = CCGC(3, **QUICK, **given).fit(planted)
    assert len(found.trials_) == 2
    assert alone.trials_ == []
    assert found.history_ == alone.history_
    np.testing.assert_array_equal(found.labels_, alone.labels_)
    np.testing.assert_array_equal(found.embedding_, alone.embedding_)


def test_a_graph_without_communities_takes_the_settings_for_roles(planted, monkeypatch):
    monkeypatch.setattr(settings, "COMMUNITIES", ((("wide", 1),), 2e-3))
    monkeypatch.setattr(settings, "ROLES", ((("wide", 2),), 7e-3))
    random = attributed_graph(300, features=16, clusters=3, mean_degree=20, homophily=0.0)
    for graph, chosen in ((planted, (1, 2e-3)), (random, (2, 7e-3))):
        estimator = CCGC(3, **QUICK).fit(graph)
        assert (estimator.hops_, estimator.learning_rate_) == chosen


def test_the_narrow_space_is_preferred_until_it_costs_modularity():
    quality = settings.Quality(0.5, 0.9, 0.5)
    narrow = settings.Trial(4, 1e-4, "narrow", 0.70, quality)
    near, far = (settings.Trial(3, 1e-4, "wide", m, quality) for m in (0.72, 0.73))
    assert settings.preferred([narrow, near]) is narrow
    assert settings.preferred([narrow, far]) is far
    assert settings.preferred([far]) is far
    better = settings.Trial(8, 1e-4, "wide", 0.1, settings.Quality(0.6, 0.9, 0.5))
    assert settings.preferred([near, better]) is better


def test_a_given_space_leaves_the_hops_open(planted, monkeypatch):
    monkeypatch.setattr(settings, "COMMUNITIES", ((("narrow", 1), ("wide", 3)), 2e-3))
    estimator = CCGC(3, **QUICK, space="narrow").fit(planted)
    assert [(t.space, t.hops) for t in estimator.trials_] == [("narrow", 1), ("narrow", 3)]
    assert estimator.space_ == "narrow"


def test_the_narrow_space_holds_both_views(planted):
    estimator = CCGC(3, **QUICK, **GIVEN, space="narrow").fit(planted)
    width = estimator.config.embedding_dim
    assert estimator.embedding_.shape == (300, 2 * width)
    np.testing.assert_allclose(np.linalg.norm(estimator.embedding_, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(estimator.transform(planted), estimator.embedding_, atol=1e-5)
    assert estimator.clustering_.read_out is not None
    np.testing.assert_array_equal(estimator.predict(planted), estimator.labels_)


def test_given_hops_leave_only_the_learning_rate_to_the_kind_of_graph(planted, monkeypatch):
    monkeypatch.setattr(settings, "COMMUNITIES", ((("wide", 1), ("wide", 3)), 2e-3))
    estimator = CCGC(3, **QUICK, hops=2).fit(planted)
    assert estimator.trials_ == []
    assert (estimator.hops_, estimator.learning_rate_) == (2, 2e-3)


def test_the_history_holds_every_refresh(planted):
    estimator = CCGC(3, **QUICK, **GIVEN).fit(planted)
    assert [metrics["epoch"] for metrics in estimator.history_] == [0, 10, 20, 24]
    assert estimator.clustering_.epoch in [20, 24]


@pytest.mark.parametrize("balance", ["always", "never"])
def test_predict_of_the_fitted_graph_is_its_labels(planted, balance):
    estimator = CCGC(3, **QUICK, **GIVEN, balance=balance).fit(planted)
    assert bool(estimator.clustering_.offsets.any()) is (balance == "always")
    agreement = (estimator.predict(planted) == estimator.labels_).mean()
    assert agreement >= 0.99


def test_predict_carries_the_clusters_to_another_graph(planted):
    estimator = CCGC(3, **QUICK, **GIVEN).fit(planted)
    keep = torch.arange(300) < 200
    from torch_geometric.utils import subgraph

    part = planted.clone()
    part.edge_index = subgraph(keep, planted.edge_index, relabel_nodes=True)[0]
    part.x, part.y = planted.x[:200], planted.y[:200]
    assert (estimator.predict(part) == estimator.labels_[:200]).mean() > 0.9


def test_official_best_that_prefers_the_start_has_no_encoder(planted, monkeypatch):
    scores = iter([{"ACC": a, "NMI": 0, "ARI": 0, "F1": 0} for a in (90, *[10] * 99)])
    monkeypatch.setattr(training, "label_scores", lambda *_: next(scores))
    estimator = CCGC(3, protocol="official-best", **QUICK, **GIVEN).fit(planted)
    assert estimator.clustering_.epoch == -1
    with pytest.raises(InputError, match="state before training, which has no encoder"):
        estimator.transform(planted)


def test_confidence_is_one_minus_the_ratio_of_the_two_nearest_distances():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [100.0, 0.0]])
    found = confidence(rows, centers, torch.tensor([0, 0, 0, 1]))
    np.testing.assert_allclose(found, [1, 1 - 1 / 9, 0, 1], atol=1e-6)


def test_the_baselines_embed_the_features_and_the_smoothed_features(planted):
    np.testing.assert_array_equal(KMeansBaseline(3).fit_transform(planted), planted.x)
    np.testing.assert_array_equal(
        SSGC(3, hops=5).fit_transform(planted), smooth(planted.x, planted.edge_index, 5)
    )


def test_scgc_trains_on_the_literal_error_between_z1_z2_and_a_plus_i():
    data = attributed_graph(
        120, features=6, clusters=3, mean_degree=5, homophily=0.8, signal=1.0, seed=0
    )
    data.edge_index = torch.cat([data.edge_index, torch.tensor([[4], [4]])], 1)  # a self-loop
    options = {"hops": 2, "learning_rate": 1e-2, "sigma": 0.1, "embedding_dim": 8}
    estimator = SCGC(3, epochs=12, **options).fit(data)

    compute.seed_everything(0)
    features = SmoothedFeatures(normalized_adjacency(data.edge_index, 120), data.x, 2).dense
    target = torch.eye(120)
    target[tuple(data.edge_index)] = 1
    encoders = UnsharedEncoders(6, 8)
    optimizer = torch.optim.Adam(encoders.parameters(), lr=1e-2)
    for _ in range(12):
        z1, z2 = encoders(features)
        z2 = torch.nn.functional.normalize(z2 + 0.1 * torch.randn_like(z2))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(z1 @ z2.T, target).backward()
        optimizer.step()
    z1, z2 = encoders(features)
    np.testing.assert_allclose(estimator.embedding_, (z1 + z2).detach() / 2, atol=2e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("bat", [57.00, 39.14, 28.10, 54.43]),
        ("eat", [47.62, 26.35, 20.47, 42.47]),
        ("uat", [36.64, 9.54, 5.23, 27.86]),
        ("cora", [63.66, 50.76, 40.31, 55.70]),
    ],
)
def test_k_means_on_smoothed_features_is_near_the_reference(real, name, reference):
    from tenfold.ccgc import label_scores

    data = real(name)
    scores = label_scores(data.y, SSGC(len(data.y.unique()), hops=4).fit_predict(data))
    found = [scores[m] for m in ("ACC", "NMI", "ARI", "F1")]
    assert found == pytest.approx(reference, abs=5)  # the reference's own starts are not known


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_a_function_or_class(name):
    assert callable(getattr(package, name))


def test_a_name_that_is_not_public_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        package.absent  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import tenfold.ccgc, sys; assert not {'torch', 'sklearn'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
