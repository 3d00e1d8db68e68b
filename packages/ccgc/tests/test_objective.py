import math

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, normalize

from tenfold.ccgc.model import UnsharedEncoders, fuse
from tenfold.ccgc.objective import (
    cluster_means,
    confident_nodes,
    graph_regression_loss,
    negative_loss,
    positive_loss_mean_field,
    positive_loss_sampled,
    warm_up_loss,
)

HALF = math.sqrt(0.5)
Z1 = torch.tensor([[1, 0], [HALF, HALF], [0, 1], [-HALF, HALF]], dtype=torch.float64)
Z2 = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1])
MEMBERS = [torch.tensor([0, 1]), torch.tensor([2, 3])]


def identity(n, k):
    return torch.arange(k)


def views(nodes=7, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        normalize(torch.randn(nodes, dim, dtype=torch.float64, generator=generator))
        for _ in range(2)
    )


def test_the_graph_regression_is_the_mean_squared_error_to_the_graph():
    z1, z2 = views(nodes=9)
    adjacency = torch.rand(9, 9, generator=torch.Generator().manual_seed(1)) < 0.3
    source, target = adjacency.nonzero().T
    expected = (z1 @ z2.T - adjacency.double()).square().mean()
    torch.testing.assert_close(graph_regression_loss(z1, z2, source, target), expected)


@pytest.mark.parametrize(
    ("width", "count"),
    [
        (1433, 1_434_000),
        (3703, 3_704_000),
        (745, 746_000),
        (81, 82_000),
        (203, 204_000),
        (239, 240_000),
        (334, 335_000),
        (500, 501_000),
        (767, 768_000),
        (8710, 8_711_000),
        (4973, 4_974_000),
        (128, 129_000),
    ],
)
def test_the_encoders_hold_1000_times_d_plus_one_parameters(width, count):
    with torch.device("meta"):
        encoders = UnsharedEncoders(width)
    assert sum(p.numel() for p in encoders.parameters()) == count


def test_the_two_views_are_torchs_linear_layers_drawn_in_order():
    torch.manual_seed(3)
    first, second = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)
    torch.manual_seed(3)
    encoders = UnsharedEncoders(6, 4)
    x = torch.randn(9, 6)
    for z, layer in zip(encoders(x), (first, second), strict=True):
        torch.testing.assert_close(z, normalize(layer(x)))


def test_rows_of_both_views_have_norm_one_and_the_fused_at_most_one():
    encoders = UnsharedEncoders(6, 4)
    with torch.no_grad():
        z1, z2 = encoders(torch.cat([torch.randn(50, 6), torch.zeros(1, 6)]))
    torch.testing.assert_close(z1.norm(dim=1), torch.ones(51))
    torch.testing.assert_close(z2.norm(dim=1), torch.ones(51))
    assert float(fuse(z1, z2).norm(dim=1).max()) <= 1 + 1e-6
    assert float(fuse(z1, z2).norm(dim=1).min()) < 0.99  # not normalised again


def test_a_zero_row_with_zero_bias_stays_zero():
    encoders = UnsharedEncoders(6, 4)
    for layer in (encoders.view1, encoders.view2):
        torch.nn.init.zeros_(layer.bias)
    z1, z2 = encoders(torch.zeros(1, 6))
    assert torch.equal(z1, torch.zeros(1, 4))
    assert torch.equal(z2, torch.zeros(1, 4))


def test_warm_up_loss_of_the_worked_example():
    assert float(warm_up_loss(Z1, Z2)) == pytest.approx(0.3232232928, abs=5e-8)


@pytest.mark.parametrize("shape", [(7, 5), (7, 7), (4, 9), (1, 3), (30, 2)])
def test_closed_form_warm_up_equals_the_n_by_n_definition_with_its_gradient(shape):
    z1, z2 = (z.requires_grad_() for z in views(*shape))
    closed = 3 * warm_up_loss(z1, z2)  # a factor, so that the incoming gradient counts too
    literal = 3 * mse_loss(z1 @ z2.T, torch.eye(len(z1), dtype=torch.float64))
    torch.testing.assert_close(closed, literal)
    for ours, definition in zip(
        torch.autograd.grad(closed, (z1, z2)), torch.autograd.grad(literal, (z1, z2)), strict=True
    ):
        torch.testing.assert_close(ours, definition)


def test_losses_pass_gradcheck():
    z1, z2 = (z.requires_grad_() for z in views(6, 3))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])

    def refine(a, b):
        means = cluster_means(a, labels, 3), cluster_means(b, labels, 3)
        return positive_loss_mean_field(*means) + 0.5 * negative_loss(*means)

    assert torch.autograd.gradcheck(warm_up_loss, (z1, z2))
    assert torch.autograd.gradcheck(refine, (z1, z2))


def test_mean_field_positive_of_the_worked_example():
    means = cluster_means(Z1, LABELS, 2), cluster_means(Z2, LABELS, 2)
    for k in range(2):
        one = positive_loss_mean_field(means[0][k : k + 1], means[1][k : k + 1])
        assert float(one) == pytest.approx(0.2928932188, abs=1e-9)
    assert float(positive_loss_mean_field(*means)) == pytest.approx(0.2928932188, abs=1e-9)


def test_mean_field_positive_is_the_expectation_over_all_cross_view_pairs():
    z1, z2 = views(20, 4)
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] * 10)
    per_cluster = []
    for k in range(3):
        nodes = (labels == k).nonzero()[:, 0].tolist()
        pairs = [2 - 2 * float(z1[i] @ z2[j]) for i in nodes for j in nodes]
        per_cluster.append(sum(pairs) / len(pairs))
    ours = positive_loss_mean_field(cluster_means(z1, labels, 3), cluster_means(z2, labels, 3))
    assert float(ours) == pytest.approx(np.mean(per_cluster), rel=1e-12)


def test_sampled_positive_with_the_identity_pairing_of_the_reference():
    loss = positive_loss_sampled(Z1, Z2, MEMBERS, 2, identity, keep=1.0)
    assert float(loss) == pytest.approx((0 + 0.5857864376 + 0 + 0.5857864376) / 2, abs=1e-9)
    terms = [
        float(positive_loss_sampled(Z1, Z2, [torch.tensor([i])], 1, identity, keep=1.0))
        for i in range(4)
    ]
    assert terms == pytest.approx([0, 0.5857864376, 0, 0.5857864376], abs=1e-9)


def test_sampled_positive_is_a_sum_over_pairs_of_two_draws_a_cluster():
    asked = []

    def record(n, k):
        asked.append((n, k))
        return torch.arange(n).flip(0)[:k]

    z1, z2 = views(10, 4)
    members = [torch.arange(6), torch.arange(6, 10)]
    loss = positive_loss_sampled(z1, z2, members, 5, record, keep=0.8)
    assert asked == [(6, 4), (6, 4), (4, 3), (4, 3)]
    pairs = [5, 4, 3, 2, 9, 8, 7]
    literal = sum(2 - 2 * float(z1[i] @ z2[i]) for i in pairs) / 5
    assert float(loss) == pytest.approx(literal, rel=1e-12)


def test_a_cluster_of_one_node_gives_no_pair():
    loss = positive_loss_sampled(Z1, Z2, [torch.tensor([1])], 2, identity, keep=0.8)
    assert float(loss) == 0


def test_positive_loss_is_zero_only_if_all_rows_of_a_cluster_coincide_in_both_views():
    same = torch.tensor([[0.6, 0.8], [0.6, 0.8], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)

    def loss(a, b):
        return float(
            positive_loss_mean_field(cluster_means(a, LABELS, 2), cluster_means(b, LABELS, 2))
        )

    assert loss(same, same) == pytest.approx(0, abs=1e-15)
    for view in range(2):
        for row in range(4):
            moved = [same.clone(), same.clone()]
            moved[view][row] = torch.tensor([0.8, 0.6])
            assert loss(*moved) > 1e-3


def test_negative_loss_of_the_worked_example():
    means = cluster_means(Z1, LABELS, 2), cluster_means(Z2, LABELS, 2)
    similarity = normalize(means[0]) @ normalize(means[1]).T
    np.testing.assert_allclose(similarity, [[0.92388, 0.38268], [-0.38268, 0.92388]], atol=5e-6)
    loss = float(negative_loss(*means))
    assert loss == pytest.approx(0.0732233047, abs=1e-9)
    between = similarity[~torch.eye(2, dtype=torch.bool)]
    assert float((between**2).mean()) == pytest.approx(0.1464466094, abs=1e-9)


def test_negative_loss_of_one_cluster_is_zero():
    assert float(negative_loss(Z1[:1], Z2[1:2])) == 0


def test_cluster_means_equal_those_of_a_loop_and_are_zero_without_rows():
    z1, _ = views(12, 3)
    labels = torch.tensor([0, 0, 3, 3, 3, 0, 1, 1, 1, 1, 0, 3])
    means = cluster_means(z1, labels, 4)
    for k in (0, 1, 3):
        torch.testing.assert_close(means[k], z1[labels == k].mean(0))
    assert torch.equal(means[2], torch.zeros(3, dtype=torch.float64))


def test_permuting_the_nodes_changes_no_loss():
    z1, z2 = views(20, 4)
    labels = torch.arange(20) % 3
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warm_up_loss(z1[order], z2[order]), warm_up_loss(z1, z2))
    for z in (z1, z2):
        torch.testing.assert_close(
            cluster_means(z[order], labels[order], 3), cluster_means(z, labels, 3)
        )


@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5, 0.9])
def test_the_confident_nodes_are_the_nearest_tau_n(tau):
    h = torch.rand(40, generator=torch.Generator().manual_seed(1))
    chosen = confident_nodes(h, tau)
    assert int(chosen.sum()) == int(40 * tau)
    assert float(h[chosen].max()) < float(h[~chosen].min())


def test_tau_zero_gives_no_confident_node():
    assert not confident_nodes(torch.rand(10), 0.0).any()


def test_tau_one_gives_all_but_the_farthest_node():
    h = torch.tensor([0.3, 0.1, 0.9, 0.2])
    assert confident_nodes(h, 1.0).tolist() == [True, True, False, True]


def test_ties_at_the_threshold_are_not_confident():
    h = torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0, 2.0])
    assert confident_nodes(h, 0.5).tolist() == [True, False, False, False, False, False]


def test_equal_distances_give_no_confident_node():
    assert not confident_nodes(torch.full((10,), 0.25), 0.5).any()
