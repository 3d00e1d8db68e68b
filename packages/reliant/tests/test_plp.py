import math

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from tenfold.reliant.data import biased_graph
from tenfold.reliant.model import plp as plp_module
from tenfold.reliant.model.plp import PLP
from tenfold.shared.errors import InputError


def silent(student):
    """No attention, an MLP that answers 0, mixing logits 0."""
    for parameter in student.parameters():
        nn.init.zeros_(parameter)
    return student.eval()


def test_the_worked_example_of_a_path(path_graph):
    path_graph.y = torch.tensor([0, 1, 1])
    path_graph.train_mask = torch.tensor([True, True, False])  # two classes are seen
    student = silent(PLP(path_graph, 4, rounds=1))
    student.labelled = torch.tensor([True, False, False])
    expected = {
        1: [[1, 0], [1 / 3, 1 / 6], [1 / 4, 1 / 4]],
        2: [[1, 0], [0.263889, 0.069444], [0.145833, 0.104167]],
    }
    for rounds, rows in expected.items():
        student.rounds = rounds
        found = student(path_graph.x)
        torch.testing.assert_close(found, torch.tensor(rows).float(), atol=1e-6, rtol=0)
    probability = found.softmax(1)
    torch.testing.assert_close(
        probability[1], torch.tensor([0.548458, 0.451542]), atol=1e-6, rtol=0
    )
    # A clamped node is never confident: softmax of its one-hot label.
    torch.testing.assert_close(probability[0], torch.tensor([0.7311, 0.2689]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("limit", [60.0, -1.0])
def test_the_attention_depends_on_the_source_only(path_graph, monkeypatch, limit):
    monkeypatch.setattr(plp_module, "RANGE", limit)  # -1: the way for scores that differ much
    path_graph.train_mask = torch.tensor([True, True, False])
    student = silent(PLP(path_graph, 4))
    path_graph.x[1, 0] = 1
    with torch.no_grad():
        student.attention[0, 0] = math.log(2)
    spread = student._attention(path_graph.x)
    weights = spread(torch.eye(3))
    expected = torch.tensor([[1 / 3, 2 / 3, 0], [1 / 4, 1 / 2, 1 / 4], [0, 2 / 3, 1 / 3]])
    torch.testing.assert_close(weights, expected)


def by_edge(student, data, x):
    """PLP in float64 with a score for each edge, written out; evaluation mode."""
    n = data.num_nodes
    a = np.eye(n)
    a[data.edge_index[1], data.edge_index[0]] = 1
    p = {k: v.detach().double().numpy() for k, v in student.named_parameters()}
    x = x.double().numpy()
    e = p["attention"].ravel() if student.kind == "tra" else x @ p["attention"][0]
    weight = np.zeros((n, n))
    for v in range(n):
        near = np.flatnonzero(a[v])
        power = np.exp(e[near] - e[near].max())
        weight[v, near] = power / power.sum()
    hidden = np.maximum(x @ p["first.weight"].T + p["first.bias"], 0)
    m = hidden @ p["second.weight"].T + p["second.bias"]
    keep = 1 / (1 + np.exp(-p["mixing"]))
    clamp = student.labelled.numpy()
    labels = student.clamped.double().numpy()
    f = np.where(clamp[:, None], labels, 1 / labels.shape[1])
    for _ in range(student.rounds):
        f = np.maximum(keep * (weight @ f) + (1 - keep) * m, 0)
        f[clamp] = labels[clamp]
    return f


@pytest.mark.parametrize("kind", ["ind", "tra"])
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_the_sparse_form_is_the_one_with_a_score_for_each_edge(biased, kind, scale):
    torch.manual_seed(0)
    student = PLP(biased, 6, hidden=8, kind=kind).eval()
    with torch.no_grad():
        student.attention.normal_().mul_(scale)
        student.mixing.normal_()
    found = student(biased.x).detach().numpy()
    np.testing.assert_allclose(found, by_edge(student, biased, biased.x), atol=2e-4)


def test_gradients_are_those_of_finite_differences(path_graph):
    torch.manual_seed(0)
    path_graph.train_mask = torch.tensor([True, True, False])
    student = PLP(path_graph, 4, hidden=3, rounds=3).double().eval()
    student.labelled = torch.tensor([True, False, False])
    student.adjacency.degree = student.adjacency.degree.double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(student, (x,), atol=1e-6)
    names = [name for name, _ in student.named_parameters()]

    def of_parameters(*values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(student, given, (x.detach(),))

    values = tuple(v.detach().clone().requires_grad_() for v in student.parameters())
    assert torch.autograd.gradcheck(of_parameters, values, atol=1e-6)


def test_training_gradients_use_the_masks_of_their_forward_pass(biased):
    student = PLP(biased, 6, hidden=8, rounds=2).double().train()
    student.adjacency.ones = student.adjacency.ones.double()
    x = biased.x.double().requires_grad_()

    def value(given):
        torch.manual_seed(5)  # the same masks
        return (student(given) * torch.arange(2.0)).sum()

    torch.manual_seed(1)
    direction = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(value(x), x)
    step = 1e-6
    slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_dropout_is_unbiased_for_one_round_of_attention(biased):
    torch.manual_seed(0)
    student = PLP(biased, 6, attention_dropout=0.2, feature_dropout=0.0)
    f = torch.rand(biased.num_nodes, 2)
    student.eval()
    exact = student._attention(biased.x)(f)
    student.train()
    mean = sum(student._attention(biased.x)(f) for _ in range(400)) / 400
    torch.testing.assert_close(mean, exact, atol=0.12, rtol=0)
    assert float((mean - exact).mean().abs()) < 0.002


def test_the_parameter_counts_of_recidivism():
    data = Data(
        x=torch.zeros(18876, 18),
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        y=torch.tensor([0, 1]).repeat(9438),
        train_mask=torch.ones(18876, dtype=torch.bool),
        num_nodes=18876,
    )
    for inputs, count in ((18, 20_240), (20, 20_370)):
        student = PLP(data, inputs)
        assert sum(p.numel() for p in student.parameters()) == count
        if inputs == 18:  # the official model registers a second, unused number a node
            shapes = {name: tuple(p.shape) for name, p in student.named_parameters()}
            assert shapes["mixing"] == (18_876, 1)
            assert shapes["attention"] == (1, 18)
            assert count + 18_876 == 39_116 == 18 + 2 * 18_876 + 1_346


def test_all_zero_answers_are_uniform_and_class_0(path_graph):
    path_graph.train_mask = torch.tensor([True, True, False])
    student = silent(PLP(path_graph, 4, rounds=1))
    with torch.no_grad():
        student.mixing.fill_(-100)  # the MLP alone, which answers below 0
        student.second.bias.fill_(-1)
    found = student(path_graph.x).softmax(1)[2]
    assert found.tolist() == [0.5, 0.5]
    assert int(found.argmax()) == 0


def test_an_isolated_node_has_its_own_loop():
    data = biased_graph(120, seed=3)
    lonely = 5
    keep = (data.edge_index != lonely).all(0)
    data.edge_index = data.edge_index[:, keep]
    student = PLP(data, data.x.shape[1]).eval()
    assert torch.isfinite(student(data.x)).all()


def test_bad_options_are_refused(biased):
    for options, word in (({"rounds": 0}, "rounds"), ({"kind": "x"}, "kind")):
        with pytest.raises(InputError, match=word):
            PLP(biased, 6, **options)
