import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tenfold.ccgc.evaluation import (
    block_weights,
    conductance,
    graph_scores,
    label_scores,
    match_clusters,
    modularity,
)
from tenfold.shared.errors import InputError

nx = pytest.importorskip("networkx")

LABELLINGS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
    )
)


def test_the_worked_example():
    scores = label_scores([0, 0, 0, 1, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0, 2, 2])
    assert scores["ACC"] == pytest.approx(87.5, abs=1e-9)
    assert scores["NMI"] == pytest.approx(75.50042925, abs=1e-7)
    assert scores["ARI"] == pytest.approx(54.54545455, abs=1e-7)
    assert scores["F1"] == pytest.approx(88.57142857, abs=1e-7)


def test_fewer_clusters_than_classes_leave_the_predictions_as_they_are():
    true, predicted = [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]
    scores = label_scores(true, predicted)
    assert scores["ACC"] == pytest.approx(100 * 4 / 6)
    # The matched cluster has F1 2/3 (precision 1/2), the class without a cluster 0, the third 1.
    assert scores["F1"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)


def test_more_clusters_than_classes_leave_a_cluster_unmatched():
    true, predicted = [0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, 1]
    scores = label_scores(true, predicted)
    assert scores["ACC"] == pytest.approx(100 * 5 / 6)
    assert scores["F1"] == pytest.approx(100 * (0.8 + 1) / 2)
    assert scores["purity"] == 100


def test_one_cluster_scores_the_largest_class():
    scores = label_scores([0, 1, 1, 1], [7, 7, 7, 7])
    assert scores["ACC"] == 75
    assert scores["NMI"] == 0
    assert scores["ARI"] == 0


@settings(max_examples=20, deadline=None)
@given(LABELLINGS)
def test_accuracy_is_the_best_over_all_one_to_one_maps(pair):
    true, predicted = (np.array(part) for part in pair)
    size = max(true.max(), predicted.max()) + 1
    best = max(
        np.mean(np.array(renamed)[predicted] == true)
        for renamed in itertools.permutations(range(size))
    )
    assert label_scores(true, predicted)["ACC"] == pytest.approx(100 * best)


@settings(max_examples=20, deadline=None)
@given(LABELLINGS)
def test_the_scores_are_scikit_learns(pair):
    true, predicted = pair
    scores = label_scores(true, predicted)
    table = metrics.cluster.contingency_matrix(true, predicted)
    assert scores["NMI"] == pytest.approx(
        100 * metrics.normalized_mutual_info_score(true, predicted, average_method="arithmetic")
    )
    assert scores["ARI"] == pytest.approx(100 * metrics.adjusted_rand_score(true, predicted))
    assert scores["homogeneity"] == pytest.approx(100 * metrics.homogeneity_score(true, predicted))
    assert scores["completeness"] == pytest.approx(
        100 * metrics.completeness_score(true, predicted)
    )
    assert scores["purity"] == pytest.approx(100 * table.max(0).sum() / len(true))


@settings(max_examples=20, deadline=None)
@given(LABELLINGS, st.permutations(range(6)), st.integers(-3, 100))
def test_renaming_clusters_or_classes_changes_no_score(pair, names, shift):
    true, predicted = (np.array(part) for part in pair)
    scores = label_scores(true, predicted)
    renamed = label_scores(true + shift, np.array(names)[predicted])
    # Several maps may have the same ACC and different F1.
    for name in set(scores) - {"F1"}:
        assert renamed[name] == pytest.approx(scores[name], abs=1e-9)


def test_renaming_clusters_does_not_change_f1_when_the_map_is_unique():
    true = np.repeat([0, 1, 2], 10)
    predicted = true.copy()
    predicted[[0, 10, 20]] = [1, 2, 1]
    score = label_scores(true, predicted)["F1"]
    for names in itertools.permutations(range(3)):
        assert label_scores(true, np.array(names)[predicted])["F1"] == pytest.approx(score)


@settings(max_examples=20, deadline=None)
@given(LABELLINGS)
def test_a_permutation_of_the_nodes_changes_no_score(pair):
    true, predicted = (np.array(part) for part in pair)
    order = np.random.default_rng(0).permutation(len(true))
    scores, permuted = label_scores(true, predicted), label_scores(true[order], predicted[order])
    assert permuted == pytest.approx(scores, abs=1e-9)


def test_matching_keeps_the_partition():
    true, predicted = np.array([0, 0, 1, 1, 1]), np.array([3, 3, 0, 0, 2])
    matched = match_clusters(true, predicted)
    assert matched.tolist() == [0, 0, 1, 1, 2]
    assert metrics.adjusted_rand_score(matched, predicted) == 1


def test_texts_and_labels_from_one_are_scored():
    assert label_scores(["a", "a", "b"], [5, 5, 9])["ACC"] == 100
    assert label_scores([1, 1, 2], [0, 0, 1])["F1"] == 100


@pytest.mark.parametrize(
    ("true", "predicted"), [([0, 1], [0, 1, 1]), ([], []), ([[0], [1]], [[0], [1]])]
)
def test_labels_of_different_or_wrong_shapes_are_refused(true, predicted):
    with pytest.raises(InputError, match=r"expected two equal \[N\]"):
        label_scores(true, predicted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_modularity_and_conductance_are_networkxs(random_adjacency, seed, weighted):
    adjacency = random_adjacency(40, density=0.15, seed=seed)
    if weighted:
        adjacency = adjacency * (1 + adjacency.sum(1)[:, None] + adjacency.sum(1)[None, :])
    adjacency = sp.csr_array(adjacency)
    labels = np.random.default_rng(seed).integers(0, 4, 40)
    graph = nx.from_scipy_sparse_array(adjacency)
    groups = [set(np.flatnonzero(labels == k).tolist()) for k in range(4)]
    assert modularity(adjacency, labels) == pytest.approx(nx.community.modularity(graph, groups))
    literal = np.mean([nx.conductance(graph, group, weight="weight") for group in groups])
    assert conductance(adjacency, labels) == pytest.approx(literal)


def test_block_weights_equal_those_of_a_double_loop(random_adjacency):
    adjacency = random_adjacency(15)
    labels = np.arange(15) % 3
    literal = np.zeros((3, 3))
    for i in range(15):
        for j in range(15):
            literal[labels[i], labels[j]] += adjacency[i, j]
    np.testing.assert_allclose(block_weights(adjacency, labels, 3), literal)


def test_two_separate_cliques_have_modularity_a_half_and_no_conductance():
    clique = np.ones((4, 4)) - np.eye(4)
    adjacency = sp.csr_array(sp.block_diag([clique, clique]))
    labels = np.repeat([0, 1], 4)
    assert modularity(adjacency, labels) == pytest.approx(0.5)
    assert conductance(adjacency, labels) == 0
    assert modularity(adjacency, np.zeros(8, int)) == pytest.approx(0)
    assert conductance(adjacency, np.arange(8) % 2) == pytest.approx(2 / 3)


def test_a_graph_without_edges_scores_zero():
    empty = sp.csr_array((5, 5))
    assert modularity(empty, np.arange(5) % 2) == 0
    assert conductance(empty, np.arange(5) % 2) == 0


def test_graph_scores_add_the_silhouette_of_an_embedding(random_adjacency):
    labels = np.arange(30) % 3
    embedding = np.random.default_rng(0).standard_normal((30, 4)) + 2 * labels[:, None]
    scores = graph_scores(random_adjacency(30), labels, embedding)
    assert scores["silhouette"] == pytest.approx(metrics.silhouette_score(embedding, labels))
    assert set(graph_scores(random_adjacency(30), labels)) == {"modularity", "conductance"}


def test_one_cluster_has_no_silhouette(random_adjacency):
    scores = graph_scores(random_adjacency(30), np.zeros(30, int), np.ones((30, 2)))
    assert "silhouette" not in scores
