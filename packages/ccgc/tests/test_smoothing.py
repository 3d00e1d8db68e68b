import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.ccgc.smoothing import SmoothedFeatures, normalized_adjacency, smooth, smooth_with
from tenfold.shared.errors import InputError

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def reference(adjacency, x, hops):
    """The smoothing of the paper, literally, in dense float64."""
    a = np.array(adjacency, dtype=np.float64)
    np.fill_diagonal(a, 0)
    a += np.eye(len(a))
    scale = np.diag(a.sum(1) ** -0.5)
    laplacian = np.eye(len(a)) - scale @ a @ scale
    return np.linalg.matrix_power(np.eye(len(a)) - laplacian, hops) @ x


def edges(adjacency):
    return torch.as_tensor(np.stack(np.nonzero(adjacency)).astype(np.int64))


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        (
            1,
            [[0.5, 0.408248, 0], [0.408248, 0.333333, 0.408248], [0, 0.408248, 0.5]],
        ),
        (
            2,
            [
                [0.416667, 0.340207, 0.166667],
                [0.340207, 0.444444, 0.340207],
                [0.166667, 0.340207, 0.416667],
            ],
        ),
    ],
)
def test_smoothing_a_path_gives_the_numbers_of_the_reference(hops, expected):
    np.testing.assert_allclose(smooth(torch.eye(3), PATH, hops), expected, atol=6e-7)


FACTS = [  # data, hops, float32 norm, float64 norm, sum
    ("bat", 1, 3.796372, 3.796372, 107.380910),
    ("bat", 4, 1.805806, 1.805806, 105.118196),
    ("eat", 4, 2.287754, 2.287754, 306.591592),
    ("uat", 4, 5.989135, 5.989167, 820.153460),
    ("cora", 4, 93.075272, 93.090607, 45598.344149),
    ("citeseer", 4, 180.929306, 180.956177, 100660.410092),
    ("amap", 4, 953.546936, 953.578802, 1883099.7369),
]


@pytest.mark.data
@pytest.mark.parametrize(("name", "hops", "norm32", "norm64", "total"), FACTS)
def test_real_data_have_the_reference_norm_and_sum(real, name, hops, norm32, norm64, total):
    data = real(name)
    smoothed = smooth(data.x, data.edge_index, hops)
    assert smoothed.dtype == torch.float32
    assert float(smoothed.double().sum()) == pytest.approx(total, rel=1e-8)
    # The reference norms are torch's float32 accumulation, up to 2e-4 below the exact ones.
    assert float(smoothed.norm()) == pytest.approx(norm32, rel=2e-5)
    assert float(smoothed.double().norm()) == pytest.approx(norm64, rel=2e-8, abs=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("name", ["bat", "eat", "uat", "cora"])
def test_real_data_agree_with_scipy_in_float64(real, name):
    data = real(name)
    source, target = data.edge_index.numpy()
    inner = source != target
    nodes = data.num_nodes
    graph = sp.csr_array((np.ones(inner.sum()), (source[inner], target[inner])), (nodes, nodes))
    graph = graph + sp.eye_array(nodes)
    scale = sp.diags_array(graph.sum(1) ** -0.5)
    operator = (scale @ graph @ scale).tocsr()
    x = sp.csr_array(data.x.double().numpy())
    for _ in range(4):
        x = operator @ x
    smoothed = smooth(data.x, data.edge_index, 4)
    np.testing.assert_allclose(smoothed, x.toarray(), rtol=1e-6, atol=1e-9)
    assert float(smoothed.double().norm()) == pytest.approx(sp.linalg.norm(x), rel=1e-7)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_smoothing_equals_the_dense_definition_on_any_graph(data):
    nodes = data.draw(st.integers(1, 8), label="nodes")
    pairs = data.draw(
        st.sets(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=20),
        label="pairs",
    )
    hops = data.draw(st.integers(0, 5), label="hops")
    adjacency = np.zeros((nodes, nodes))
    for u, v in pairs:  # self-loops among them
        adjacency[u, v] = adjacency[v, u] = 1
    x = np.random.default_rng(len(pairs)).standard_normal((nodes, 3))
    result = smooth(torch.as_tensor(x), edges(adjacency), hops)
    np.testing.assert_allclose(result, reference(adjacency, x, hops), rtol=1e-5, atol=1e-6)


def test_weights_count_as_in_the_dense_definition(random_adjacency):
    adjacency = random_adjacency(20).toarray()
    adjacency *= np.add.outer(np.arange(20), np.arange(20)) / 7.0
    index = edges(adjacency)
    weight = torch.as_tensor(adjacency[tuple(index.numpy())])
    x = np.random.default_rng(0).standard_normal((20, 4))
    result = smooth_with(normalized_adjacency(index, 20, weight), torch.as_tensor(x), 3)
    np.testing.assert_allclose(result, reference(adjacency, x, 3), rtol=1e-5, atol=1e-6)


def test_a_repeated_edge_counts_once_without_weights_and_adds_up_with_them():
    twice = torch.cat([PATH, PATH], 1)
    once = normalized_adjacency(PATH, 3).to_dense()
    assert torch.equal(normalized_adjacency(twice, 3).to_dense(), once)
    weight = torch.cat([torch.full((4,), 0.25), torch.full((4,), 0.75)])
    torch.testing.assert_close(normalized_adjacency(twice, 3, weight).to_dense(), once)


def test_the_operator_is_symmetric_float64_csr():
    operator = normalized_adjacency(PATH, 3)
    assert operator.layout == torch.sparse_csr
    assert operator.dtype == torch.float64
    assert torch.equal(operator.to_dense(), operator.to_dense().T)


def test_self_loops_are_removed_before_smoothing():
    loops = torch.cat([PATH, torch.tensor([[0, 2], [0, 2]])], 1)
    assert torch.equal(smooth(torch.eye(3), loops, 3), smooth(torch.eye(3), PATH, 3))


def test_isolated_nodes_keep_their_features():
    x = torch.randn(5, 3)
    result = smooth(x, PATH, 4)
    torch.testing.assert_close(result[3:], x[3:])
    assert not torch.allclose(result[:3], x[:3])


def test_zero_rows_take_from_their_neighbours_and_stay_zero_when_isolated():
    x = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    result = smooth(x, PATH, 1)
    assert float(result[1]) == pytest.approx(2 * 0.408248, abs=1e-6)
    assert float(result[3]) == 0


def test_a_graph_without_edges_is_left_as_it_is():
    x = torch.randn(4, 3)
    torch.testing.assert_close(smooth(x, torch.empty(2, 0, dtype=torch.int64), 5), x)


def test_no_hops_give_the_features_themselves():
    x = torch.randn(3, 70, dtype=torch.float64)
    assert torch.equal(smooth(x, PATH, 0), x.float())


@pytest.mark.parametrize("scale", [1e-3, 2.0, 1e4])
def test_smoothing_is_linear_in_the_features(scale):
    x = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(smooth(scale * x, PATH, 3), scale * smooth(x, PATH, 3))


def test_sparse_and_dense_features_give_the_same():
    x = torch.randn(3, 5) * (torch.rand(3, 5) < 0.5)
    for sparse in (x.to_sparse(), x.to_sparse_csr()):
        assert torch.equal(smooth(sparse, PATH, 3), smooth(x, PATH, 3))


def test_features_wider_than_a_block_of_columns_are_whole(random_adjacency):
    adjacency = random_adjacency(12).toarray()
    x = np.random.default_rng(1).standard_normal((12, 150))
    result = smooth(torch.as_tensor(x), edges(adjacency), 2)
    np.testing.assert_allclose(result, reference(adjacency, x, 2), rtol=1e-5, atol=1e-6)


def test_permuting_the_nodes_permutes_the_smoothed_features(random_adjacency):
    adjacency = random_adjacency(30)
    x = torch.randn(30, 4)
    order = np.random.default_rng(0).permutation(30)
    permuted = smooth(x[order], edges(adjacency.toarray()[np.ix_(order, order)]), 4)
    torch.testing.assert_close(permuted, smooth(x, edges(adjacency.toarray()), 4)[order])


def test_negative_hops_are_refused():
    with pytest.raises(InputError, match="hops=-1; expected a number of smoothing steps >= 0"):
        smooth(torch.eye(3), PATH, -1)


def test_node_numbers_outside_the_graph_are_refused():
    with pytest.raises(InputError, match=r"node numbers 0\.\.2; expected 0\.\.1"):
        smooth(torch.eye(2), PATH, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_node_and_column(value):
    x = torch.eye(3)
    x[2, 1] = value
    with pytest.raises(InputError, match=rf"node 2, column 1 is {value}"):
        smooth(x, PATH, 1)


@pytest.mark.parametrize(("seed", "width"), [(0, 7), (1, 7), (2, 1), (3, 300)])
def test_the_factored_product_and_its_gradient_equal_the_dense_ones(random_adjacency, seed, width):
    generator = torch.Generator().manual_seed(seed)
    adjacency = random_adjacency(60, density=0.05, seed=seed).toarray()
    x = (torch.rand(60, 25, generator=generator) < 0.1).float()
    operator = normalized_adjacency(edges(adjacency), 60)
    weight = torch.randn(25, width, generator=generator)
    target = torch.randn(60, width, generator=generator)
    results = []
    for factored in (True, False):
        features = SmoothedFeatures(operator, x, 3, factored=factored)
        assert features.factored is factored
        leaf = weight.clone().requires_grad_()
        product = features @ leaf
        (product * target).sum().backward()
        results.append((product.detach(), leaf.grad))
    for factored, dense in zip(*results, strict=True):
        torch.testing.assert_close(factored, dense, rtol=1e-4, atol=1e-5)
    exact = reference(adjacency, x.numpy(), 3)
    np.testing.assert_allclose(results[0][0], exact @ weight.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results[0][1], exact.T @ target.numpy(), rtol=1e-4, atol=1e-5)


def test_the_cost_chooses_the_factored_form_for_sparse_features_only():
    nodes = 400
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    operator = normalized_adjacency(torch.cat([ring, ring.flip(0)], 1), nodes)
    wide = torch.zeros(nodes, 500)
    wide[torch.arange(nodes), torch.arange(nodes)] = 1
    assert SmoothedFeatures(operator, wide, 4).factored
    assert not SmoothedFeatures(operator, torch.randn(nodes, 30), 4).factored


def test_rows_of_factored_features_are_dense_rows():
    operator = normalized_adjacency(PATH, 3)
    features = SmoothedFeatures(operator, torch.eye(3), 2, factored=True)
    subset = features.rows(torch.tensor([2, 0]))
    assert subset.shape == (2, 3)
    torch.testing.assert_close(subset @ torch.eye(3), features.dense[[2, 0]])
