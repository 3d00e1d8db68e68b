import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from tenfold.ccgc.data import attributed_graph
from tenfold.ccgc.evaluation import modularity
from tenfold.ccgc.kmeans import squared_distances
from tenfold.ccgc.selection import BlockGraph, ClusterSpace, cluster, explained


def rows_of(space_dim=6, nodes=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(nodes, space_dim, generator=generator))


@pytest.mark.parametrize("block", [30, 100])
def test_projected_rows_are_the_leading_singular_vectors_times_the_root_of_their_values(block):
    z = torch.randn(100, 20, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 21)
    rows = ClusterSpace.fit(z.split(block), 4).project(z).double()
    u, sigma, _ = torch.linalg.svd(z.double(), full_matrices=False)
    expected = torch.nn.functional.normalize(u[:, :4] * sigma[:4].sqrt())
    assert rows.shape == (100, 4)
    torch.testing.assert_close(rows @ rows.T, expected @ expected.T, atol=1e-4, rtol=0)


def test_projected_rows_have_norm_one():
    z = torch.randn(50, 20)
    rows = ClusterSpace.fit([z], 6).project(z)
    assert rows.shape == (50, 6)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))


def test_a_space_wider_than_the_embedding_has_all_its_directions():
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    space = ClusterSpace.fit([z], 6)
    assert space.basis.shape == (4, 4)
    assert int(torch.linalg.matrix_rank(space.project(z))) == 4


def test_an_embedding_of_low_rank_gives_finite_rows():
    z = torch.outer(torch.rand(50) + 0.5, torch.rand(20))
    rows = ClusterSpace.fit([z], 6).project(z)
    assert torch.isfinite(rows).all()


def test_what_a_clustering_explains_is_one_for_equal_rows_and_falls_with_noise():
    rows = torch.tensor([[0.0, 0], [0, 0], [3, 4], [3, 4]])
    assert explained(rows, torch.tensor([0, 0, 1, 1]), 2) == pytest.approx(1)
    assert explained(rows, torch.tensor([0, 1, 0, 1]), 2) == pytest.approx(0)
    assert explained(rows[:2], torch.tensor([0, 1]), 2) == 1.0  # nothing to explain
    moved = rows + torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    assert explained(moved, torch.tensor([0, 0, 1, 1]), 2) == pytest.approx(25 / 29)


@pytest.mark.parametrize("seed", range(3))
def test_modularity_is_that_of_the_scores(random_adjacency, seed):
    adjacency = random_adjacency(40, seed=seed)
    labels = np.random.default_rng(seed).integers(0, 3, 40)
    index = torch.as_tensor(np.stack(adjacency.nonzero()))
    ours = BlockGraph(index).modularity(torch.as_tensor(labels), 3)
    assert ours == pytest.approx(modularity(adjacency, labels))


def test_a_graph_without_edges_has_no_modularity():
    graph = BlockGraph(torch.empty(2, 0, dtype=torch.int64))
    assert graph.modularity(torch.tensor([0, 1]), 2) == 0


@pytest.mark.parametrize("seed", range(3))
def test_information_is_the_likelihood_ratio_of_a_double_loop(random_adjacency, seed):
    adjacency = random_adjacency(40, seed=seed).toarray()
    labels = np.random.default_rng(seed).integers(0, 3, 40)
    share = np.bincount(labels) / 40
    joint = np.zeros((3, 3))
    for i in range(40):
        for j in range(40):
            joint[labels[i], labels[j]] += adjacency[i, j] / adjacency.sum()
    literal = sum(
        joint[k, m] * math.log(joint[k, m] / (share[k] * share[m]))
        for k in range(3)
        for m in range(3)
        if joint[k, m] > 0
    )
    index = torch.as_tensor(np.stack(np.nonzero(adjacency)))
    ours = BlockGraph(index).information(torch.as_tensor(labels), 3)
    assert ours == pytest.approx(literal, rel=1e-10)


def test_information_is_mutual_information_when_degrees_do_not_differ():
    nodes = 30
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    index = torch.cat([ring, ring.flip(0)], 1)
    labels = torch.arange(nodes) // 10
    ours = BlockGraph(index).information(labels, 3)
    literal = mutual_info_score(labels[index[0]].numpy(), labels[index[1]].numpy())
    assert ours == pytest.approx(literal)


def test_self_loops_carry_no_information():
    index = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0]])
    labels = torch.tensor([0, 1])
    assert BlockGraph(index).information(labels, 2) == pytest.approx(
        BlockGraph(index[:, 2:]).information(labels, 2)
    )


def test_a_graph_without_edges_has_no_information():
    graph = BlockGraph(torch.empty(2, 0, dtype=torch.int64))
    assert graph.information(torch.tensor([0, 1]), 2) == 0


def test_the_planted_clusters_look_better_than_random_ones():
    data = attributed_graph(500, features=4, clusters=4, mean_degree=10)
    graph = BlockGraph(data.edge_index)
    shuffled = data.y[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    planted, random = (graph.quality(labels, 4, 0.5) for labels in (data.y, shuffled))
    assert planted.information > 5 * random.information
    assert planted.score > random.score


def test_equal_sizes_have_balance_one_and_one_cluster_has_none():
    graph = BlockGraph(torch.tensor([[0, 1], [1, 0]]))
    assert graph.quality(torch.arange(8) % 4, 4, 0.5).balance == pytest.approx(1)
    assert graph.quality(torch.zeros(8, dtype=torch.int64), 4, 0.5).balance == pytest.approx(0)
    single = graph.quality(torch.zeros(8, dtype=torch.int64), 1, 0.5)
    assert (single.information, single.balance) == (0, 0)


def test_quality_does_not_depend_on_the_names_of_the_clusters(planted):
    graph = BlockGraph(planted.edge_index)
    renamed = torch.tensor([2, 0, 1])[planted.y]
    assert graph.quality(renamed, 3, 0.5).score == pytest.approx(
        graph.quality(planted.y, 3, 0.5).score
    )


def test_cluster_goes_on_from_the_previous_labels_when_they_are_better():
    rows = rows_of()
    good, _ = cluster(rows, 8, 50, torch.Generator().manual_seed(0))
    alone, helped = (
        [cluster(rows, 8, 1, torch.Generator().manual_seed(s), p)[0].inertia for s in range(5)]
        for p in (None, good.labels)
    )
    assert max(alone) > 1.01 * good.inertia
    assert max(helped) <= good.inertia * (1 + 1e-6)


def test_compactness_is_the_variance_between_the_clusters():
    rows = rows_of()
    result, compactness = cluster(rows, 4, 3, torch.Generator().manual_seed(0))
    within = float(squared_distances(rows, result.centers).min(1).values.sum())
    total = float((rows - rows.mean(0)).square().sum())
    assert compactness == pytest.approx(1 - within / total, abs=1e-5)


def test_equal_rows_are_wholly_compact():
    _, compactness = cluster(torch.ones(5, 2), 1, 2, None)
    assert compactness == 1
