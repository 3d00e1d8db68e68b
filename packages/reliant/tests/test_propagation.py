import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.nn import GCNConv

from tenfold.reliant.propagation import Adjacency, adjacency_of, dropout, keep_mask


@pytest.fixture
def adjacency(biased):
    return Adjacency(biased.edge_index, biased.num_nodes)


def dense(adjacency):
    pattern = sp.csr_array(
        (np.ones(adjacency.entries), adjacency.column.numpy(), adjacency.crow.numpy())
    )
    return torch.from_numpy(pattern.toarray())


def test_the_pattern_is_symmetric_with_one_loop_a_node(adjacency, biased):
    matrix = dense(adjacency)
    assert torch.equal(matrix, matrix.T)
    assert (matrix.diagonal() == 1).all()
    assert adjacency.entries == biased.edge_index.shape[1] + biased.num_nodes


def test_products_and_their_gradients_are_those_of_the_dense_matrix(adjacency):
    torch.manual_seed(0)
    x = torch.randn(adjacency.nodes, 3, dtype=torch.float64, requires_grad=True)
    kept, scale = keep_mask(adjacency.entries, 0.3, x.device)
    mask = dense(adjacency)
    mask[adjacency.row.long(), adjacency.column.long()] = kept.double() * scale
    degree = adjacency.degree.double()
    root = degree.rsqrt().diag()
    for ours, matrix in (
        (adjacency.product, dense(adjacency)),
        (adjacency.normalised, root @ dense(adjacency) @ root),
        (
            adjacency.average,
            (dense(adjacency) + torch.eye(adjacency.nodes)) / (degree[:, None] + 1),
        ),
        (lambda x: adjacency.masked_product(kept, scale, x), mask),
    ):
        weight = torch.randn(adjacency.nodes, 3, dtype=torch.float64)
        made = ours(x)
        torch.testing.assert_close(made, matrix @ x, rtol=1e-6, atol=1e-6)
        (gradient,) = torch.autograd.grad((made * weight).sum(), x)
        torch.testing.assert_close(gradient, matrix.T @ weight, rtol=1e-6, atol=1e-6)


def test_the_normalised_product_is_pygs_graph_convolution(adjacency, biased):
    convolution = GCNConv(6, 5, bias=False)
    ours = adjacency.normalised(biased.x) @ convolution.lin.weight.T
    torch.testing.assert_close(ours, convolution(biased.x, biased.edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_dropout_keeps_its_share_and_its_mean(p):
    torch.manual_seed(0)
    kept, scale = keep_mask(200_003, p, torch.device("cpu"))
    assert kept.shape == (200_003,)
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=0.004)
    assert scale == pytest.approx(1 / (1 - p), rel=1e-4)
    # The four lanes of a draw are independent of one another.
    lanes = kept[:200_000].view(-1, 4).float()
    assert torch.corrcoef(lanes.T).fill_diagonal_(0).abs().max() < 0.02
    x = torch.ones(1000, 100)
    assert float(dropout(x, p, True).mean()) == pytest.approx(1, abs=0.03)
    assert dropout(x, p, False) is x


def test_the_adjacency_is_made_once_for_each_edge_list(biased):
    first = adjacency_of(biased.edge_index, biased.num_nodes)
    assert adjacency_of(biased.edge_index, biased.num_nodes) is first
    edges = biased.edge_index.clone()
    other = adjacency_of(edges, biased.num_nodes)
    assert other is not first
    edges.copy_(edges.flip(1))  # the same tensor with another content
    assert adjacency_of(edges, biased.num_nodes) is not other
