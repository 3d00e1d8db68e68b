import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn.functional import normalize

from tenfold.reliant import frameworks as frameworks_module
from tenfold.reliant.frameworks import (
    CPF,
    EdgeDiscriminator,
    GraphAKD,
    LogitDiscriminator,
    SoftLabels,
    View,
    framework,
)
from tenfold.reliant.model.graphs import APPNP, GAT, GCN, MLP, SAGE, SGC
from tenfold.reliant.propagation import Adjacency, adjacency_of
from tenfold.shared.errors import InputError


def view_of(data, width=8):
    torch.manual_seed(3)
    logits = torch.randn(data.num_nodes, 2).log_softmax(1)
    embedding = torch.randn(data.num_nodes, width)
    train = data.train_mask
    return View(data.x, data.edge_index, data.y, data.sensitive, train, ~train, logits, embedding)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_parameter_counts():
    assert count(GCN(18, 2)) == 5_506
    assert count(SAGE(18, 2)) == 35_714
    assert count(GCN(20, 2, dropout=0.5)) == 5_634
    assert count(GCN(5694, 2)) == 368_770
    assert count(GCN(5696, 2)) == 368_898
    akd = GraphAKD(2, 64)
    assert [count(akd.of_logits), count(akd.of_edges), count(akd.of_summary)] == [12, 65, 65]
    assert count(akd) == 142


def test_sage_counts_its_own_term_twice(biased):
    model = SAGE(6, 2, hidden=5, layers=2, dropout=0.0).eval()
    a = torch.eye(240)
    a[biased.edge_index[0], biased.edge_index[1]] = 1
    h = biased.x
    for number, linear in enumerate(model.linears):
        h = linear((a @ h + h) / (a.sum(1, keepdim=True) + 1))
        if number == 0:
            first, h = h, torch.relu(h)
    found, embedding = model.embed(biased.x, biased.edge_index)
    torch.testing.assert_close(found, h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedding, first, rtol=1e-4, atol=1e-5)  # before its ReLU


def test_gcn_is_pygs(biased):
    from torch_geometric.nn import GCNConv

    ours = GCN(6, 2, hidden=5).eval()
    h = biased.x
    for number, linear in enumerate(ours.linears):
        layer = GCNConv(linear.in_features, linear.out_features)
        layer.lin.weight, layer.bias = linear.weight, linear.bias
        h = layer(h, biased.edge_index)
        if number < 2:
            h = torch.relu(h)
    torch.testing.assert_close(ours(biased.x, biased.edge_index), h, rtol=1e-4, atol=1e-5)


def test_appnp_and_sgc_are_pygs(biased):
    from torch_geometric.nn import APPNP as PygAPPNP
    from torch_geometric.nn import SGConv

    ours = APPNP(6, 2).eval()
    start = ours.second(torch.relu(ours.first(biased.x)))
    expected = PygAPPNP(10, 0.1)(start, biased.edge_index)
    torch.testing.assert_close(ours(biased.x, biased.edge_index), expected, rtol=1e-4, atol=1e-5)
    simple, layer = SGC(6, 2), SGConv(6, 2, K=2)
    layer.lin.weight, layer.lin.bias = simple.linear.weight, simple.linear.bias
    expected = layer(biased.x, biased.edge_index)
    torch.testing.assert_close(simple(biased.x, biased.edge_index), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [GCN, SAGE, GAT, APPNP, SGC, MLP])
def test_each_network_gives_logits_and_an_embedding(biased, model):
    made = model(6, 2).eval()
    logits, embedding = made.embed(biased.x, biased.edge_index)
    assert torch.equal(logits, made(biased.x, biased.edge_index))
    assert len(embedding) == 240
    if hasattr(made, "aggregate"):
        h = made.aggregate(biased.x, biased.edge_index)
        assert torch.equal(made.from_aggregated(h, biased.edge_index), logits)


def test_cpf_looks_at_unlabelled_nodes_and_can_round_as_the_files_do(biased):
    view = view_of(biased)
    logits = torch.randn(240, 2)

    class Clamping(torch.nn.Module):
        labelled = view.labelled

    p, t = logits.softmax(1).numpy(), view.teacher.exp().numpy()
    off = ~biased.train_mask.numpy()
    expected = np.linalg.norm((p - t)[off])
    assert float(CPF().loss(logits, None, view, Clamping())) == pytest.approx(expected, rel=1e-5)
    rounded = np.linalg.norm((p - np.round(t, 4))[off])
    found = float(CPF(decimals=4).loss(logits, None, view, Clamping()))
    assert found == pytest.approx(rounded, rel=1e-5)
    # A student without clamped labels learns them too.
    more = float(CPF().loss(logits, None, view, torch.nn.Identity()))
    train = biased.train_mask
    extra = torch.nn.functional.cross_entropy(logits[train], biased.y[train])
    assert more == pytest.approx(expected + float(extra), rel=1e-5)


def test_soft_labels_mix_with_labels(biased):
    view, logits = view_of(biased), torch.randn(240, 2)
    teacher = SoftLabels(2.0).loss(logits, None, view, torch.nn.Identity())
    labels = SoftLabels(2.0, 0.0).loss(logits, None, view, torch.nn.Identity())
    half = SoftLabels(2.0, 0.5).loss(logits, None, view, torch.nn.Identity())
    torch.testing.assert_close(half, (teacher + labels) / 2)
    for options in ({"temperature": 0}, {"weight": 2}):
        with pytest.raises(InputError, match="temperature"):
            SoftLabels(**options)


@pytest.mark.parametrize("chunk", [7, 1 << 16])
@pytest.mark.parametrize("target", [0, 1])
def test_the_edge_loss_is_that_of_all_entries_with_its_gradient(biased, monkeypatch, chunk, target):
    monkeypatch.setattr(frameworks_module, "EDGES_AT_ONCE", chunk)
    torch.manual_seed(0)
    adjacency = Adjacency(biased.edge_index, 240)
    judge = EdgeDiscriminator(5).double()
    with torch.no_grad():
        judge.direction.normal_()
        judge.scale.fill_(0.7)
    h = torch.randn(240, 5, dtype=torch.float64, requires_grad=True)
    u = normalize(h, dim=1)
    row, column = adjacency.row.long(), adjacency.column.long()
    score = judge.scale * (judge.direction * u[row] * u[column]).sum(1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        score, torch.full_like(score, float(target))
    )
    found = judge.loss(h, adjacency, target)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)
    inputs = (h, judge.direction, judge.scale)
    for a, b in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    assert float(found) == pytest.approx(
        log_loss([target] * len(row), score.sigmoid().detach(), labels=[0, 1])
    )


def test_the_logit_discriminator_is_its_formula():
    judge = LogitDiscriminator(2)
    z = torch.randn(9, 2)
    real, classes = judge(z)
    inner = torch.relu(z @ judge.inner.weight.T + judge.inner.bias + z)
    made = inner @ judge.outer.weight.T
    torch.testing.assert_close(torch.cat([classes, real[:, None]], 1), made)


def bce(score, target):
    return torch.nn.functional.binary_cross_entropy_with_logits(
        score, torch.full_like(score, float(target))
    )


@pytest.mark.parametrize("sign", ["fixed", "official"])
def test_graphakd_is_its_formula_in_both_signs(biased, sign):
    """Section 8, 7: as released and corrected."""
    torch.manual_seed(0)
    view, akd = view_of(biased), GraphAKD(2, 8, sign=sign)
    z, h = torch.randn(240, 2), torch.randn(240, 8)
    t, train, y = view.embedding, biased.train_mask, biased.y
    ce = torch.nn.functional.cross_entropy
    real, classes = akd.of_logits(z)
    g_t, g_s = torch.sigmoid(t.mean(0)), torch.sigmoid(h.mean(0))
    adjacency = adjacency_of(biased.edge_index, 240)
    own, other = (1, 0) if sign == "official" else (0, 1)
    expected = (
        ce(z[train], y[train])
        + 0.5 * (ce(classes[train], y[train]) + bce(real, 1))
        + (z - view.teacher).abs().sum() / 240
        + akd.of_edges.loss(h, adjacency, 1)
        + bce(akd.of_summary(h, g_t), 1)
        + bce(akd.of_summary(h, g_s), own)
        + bce(akd.of_summary(t, g_s), other)
    )
    torch.testing.assert_close(akd.loss(z, h, view, torch.nn.Identity()), expected)


def test_the_discriminators_learn_to_tell_and_drop_what_the_student_left(biased):
    torch.manual_seed(0)
    z, h = torch.randn(240, 2) * 3, torch.rand(240, 8)
    torch.manual_seed(0)
    view, akd = view_of(biased), GraphAKD(2, 8, learning_rate=0.01)
    losses = []
    for _ in range(40):
        akd.loss(z.requires_grad_(), h, view, torch.nn.Identity()).backward()  # leaves gradients
        losses.append(float(akd.before(z, h, view)))
    assert losses[-1] < losses[0] - 0.3
    # The same steps without the student's gradients in between end in the same place.
    torch.manual_seed(0)
    view, clean = view_of(biased), GraphAKD(2, 8, learning_rate=0.01)
    for _ in range(40):
        clean.before(z, h, view)
    for a, b in zip(akd.parameters(), clean.parameters(), strict=True):
        assert torch.equal(a, b)


def test_widths_must_agree(biased):
    view = view_of(biased, width=128)  # GraphSAGE's
    with pytest.raises(InputError, match="width 128"):
        GraphAKD(2, 64).loss(torch.zeros(240, 2), torch.zeros(240, 64), view, torch.nn.Identity())
    with pytest.raises(InputError, match="student gives none"):
        GraphAKD(2, 64).before(torch.zeros(240, 2), None, view)
    with pytest.raises(InputError, match="akd_sign='up'"):
        GraphAKD(2, sign="up")
    with pytest.raises(InputError, match="framework='kd'"):
        framework("kd", 2, 64)
