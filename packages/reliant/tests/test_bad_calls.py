"""Calls that cannot be: each error names the argument, its value, and what would be right."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from tenfold.reliant import (
    GCN,
    MLP,
    PLP,
    SGC,
    Reliant,
    TrainConfig,
    biased_graph,
    bootstrap,
    by_group,
    calibration,
    neighbour_batches,
    scores,
    similarity_edges,
    train_teacher,
)
from tenfold.reliant.propagation import Adjacency
from tenfold.reliant.teachers import Teacher
from tenfold.reliant.training import Distillation, TradeOffConfig, settled
from tenfold.shared.errors import InputError

Y, GUESS, S = [0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1]


def reliant(data, student=None, **options):
    given = {"teacher_logits": torch.zeros(240, 2), "sensitive": data.sensitive} | options
    return Reliant(student or GCN(8, 2), **given)


def without(data, *names):
    for name in names:
        del data[name]
    return data


def one_way(data):
    data.edge_index = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    return data


CALLS = {
    # metrics
    "text as classes": (lambda d: scores(["a", "b"], ["a", "a"], [0, 1]), "y: <U1, such as"),
    "text as groups": (lambda d: scores([0, 1], [0, 1], ["f", "m"]), "sensitive: <U1"),
    "a number alone": (lambda d: scores(1, 1, 1), r"y: shape \[\]"),
    "far too many classes": (lambda d: scores([0, 10**9], [0, 1], [0, 1]), "numbers below 1000"),
    "few probabilities": (
        lambda d: scores(Y, GUESS, S, [0.1, 0.9]),
        r"probability: shape \[2\]; expected \[4\]",
    ),
    "few columns": (
        lambda d: scores([0, 1, 2, 1], GUESS, S, np.full((4, 2), 0.5)),
        r"expected \[4, 3\]",
    ),
    "a column for three classes": (lambda d: scores([0, 1, 2, 1], GUESS, S, [0.1] * 4), "a column"),
    "rows of another sum": (lambda d: scores(Y, GUESS, S, np.ones((4, 2))), "rows that sum to 1"),
    "text as probabilities": (lambda d: scores(Y, GUESS, S, ["a"] * 4), "numbers from 0 to 1"),
    "percent": (lambda d: scores(Y, GUESS, S, [10, 90, 20, 80]), "node 0 has 10"),
    "few group names": (lambda d: by_group(Y, GUESS, S, ["f"]), "group_names: 1 names"),
    "few label names": (lambda d: by_group(Y, GUESS, S, None, ["a"]), "label_names: 1 names"),
    "no draws": (lambda d: bootstrap(Y, GUESS, S, 0), "draws=0"),
    "calibration of NaN": (lambda d: calibration(Y, [0.1, np.nan, 0, 1], S), "node 1 has nan"),
    "no bins": (lambda d: calibration(Y, [0.5] * 4, S, 0), "bins=0"),
    "calibration of columns": (lambda d: calibration(Y, np.full((4, 2), 0.5), S), "of class 1"),
    "calibration of classes": (lambda d: calibration([0, 1, 2, 1], [0.5] * 4, S), "up to 2"),
    # graphs
    "similarity of a vector": (lambda d: similarity_edges(np.ones(5), 0.6), r"x: shape \[5\]"),
    "similarity of text": (lambda d: similarity_edges([["a"], ["b"]], 0.6), "expected numbers"),
    "similarity of one node": (lambda d: similarity_edges(np.ones((1, 3)), 0.6), "two nodes"),
    "an edge without its return": (
        lambda d: Adjacency(torch.tensor([[0], [1]]), 2),
        "0 -> 1 has no edge back",
    ),
    "batches of a one-way graph": (
        lambda d: next(iter(neighbour_batches(one_way(d), 10, (2,)))),
        "no edge back",
    ),
    # teachers
    "a teacher without masks": (
        lambda d: train_teacher(without(d, "train_mask")),
        "'train_mask' is missing",
    ),
    "a teacher's file that is not there": (
        lambda d: train_teacher(d, "nowhere.npy"),
        "teacher nowhere.npy: no such file",
    ),
    "a teacher of no mode": (lambda d: train_teacher(d, "gcn", "fair"), "mode='fair'"),
    "a teacher of no epoch": (lambda d: train_teacher(d, "gcn", epochs=0), "teacher_epochs=0"),
    # the wrapper
    "an array as logits": (
        lambda d: reliant(d, teacher_logits=np.zeros((240, 2))),
        "teacher_logits: ndarray float64 .*expected a float tensor",
    ),
    "classes as logits": (lambda d: reliant(d, teacher_logits=d.y), "teacher_logits: Tensor"),
    "a short embedding": (
        lambda d: reliant(d, teacher_embedding=torch.zeros(3, 8)),
        r"teacher_embedding: shape \[3, 8\]; expected 240 rows",
    ),
    "an infinite weight": (lambda d: reliant(d, alpha=float("inf")), "alpha=inf; .*finite"),
    "a student of another width": (
        lambda d: reliant(d, GCN(6, 2)).fit(d, epochs=1),
        r"student: GCN cannot be asked about x \[240, 8\]",
    ),
    "PLP of another width": (
        lambda d: reliant(d, PLP(d, 6)).fit(d, epochs=1),
        "student: PLP cannot be asked",
    ),
    "SGC of another width": (lambda d: reliant(d, SGC(5, 2)).fit(d, epochs=1), "student: SGC"),
    "a student that takes no edges": (
        lambda d: reliant(d, nn.Linear(8, 2)).fit(d, epochs=1),
        "student: Linear cannot be asked",
    ),
    "a student of another number of classes": (
        lambda d: reliant(d, MLP(8, 3)).fit(d, epochs=1),
        r"its answers are \[240, 3\]; the teacher's are \[240, 2\]",
    ),
    "a prediction of another width": (
        lambda d: reliant(d).predict_proba(Data(x=torch.zeros(240, 2), edge_index=d.edge_index)),
        r"x \[240, 4\]",
    ),
    "a prediction for less nodes": (
        lambda d: reliant(d).predict_proba(Data(x=torch.zeros(9, 6), edge_index=d.edge_index)),
        "edge_index: nodes 0 to 239; expected 0 to 8",
    ),
    "PLP without masks": (lambda d: PLP(without(d, "train_mask"), 8), "'train_mask' is missing"),
    # configurations
    "an infinite alpha": (lambda d: TrainConfig(alpha=float("inf")), "alpha=inf; .*finite"),
    "no number as alpha": (lambda d: TrainConfig(alpha=float("nan")), "alpha=nan; .*finite"),
    "GraphAKD with answers alone": (
        lambda d: Distillation(
            d,
            Teacher("t.npy", torch.zeros(240, 2), None, 0, []),
            settled(TrainConfig(framework="akd")),
        ),
        "gives no embedding",
    ),
    "an infinite weight in a curve": (
        lambda d: TradeOffConfig(alphas=(0.0, float("inf"))),
        r"alphas=\[0.0, inf\]; expected finite",
    ),
    "a curve without weights": (lambda d: TradeOffConfig(alphas=()), r"alphas=\[\]"),
    "a graph of no node": (lambda d: biased_graph(0), "nodes"),
}


@pytest.mark.filterwarnings("ignore:.*is not defined")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_is_refused_in_words(biased, name):
    call, words = CALLS[name]
    with pytest.raises(InputError, match=words):
        call(biased)


def test_what_a_user_can_do_by_hand_is_checked_before_the_first_step(biased):
    """A graph that lacks a group for the bias is refused before anything is trained."""
    lone = biased.clone()
    lone.y[lone.train_mask & (lone.sensitive == 1)] = 0
    model = reliant(lone, notion="eo")
    with pytest.raises(InputError, match="no node of group 1"):
        model.view(lone)


def test_one_probability_column_for_class_1_and_two_columns_agree():
    p = np.array([0.2, 0.9, 0.4, 0.3])
    both = np.stack([1 - p, p], 1)
    assert scores(Y, GUESS, S, p)["AUC"] == scores(Y, GUESS, S, both)["AUC"] == 0.75
    assert np.isnan(scores(Y, GUESS, S, np.full((4, 3), 1 / 3))["AUC"])  # nobody is in class 2
