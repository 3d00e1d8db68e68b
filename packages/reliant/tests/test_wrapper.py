import copy

import pytest
import torch
from torch import nn
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.nn.models import GraphSAGE

from tenfold.reliant import GCN, MLP, PLP, SGC, Deployed, Reliant, neighbour_batches
from tenfold.reliant.frameworks import CPF, GraphAKD, SoftLabels
from tenfold.reliant.objective import Groups, bias
from tenfold.reliant.wrapper import Optimizers
from tenfold.shared.errors import InputError


def teacher(data, seed=0):
    torch.manual_seed(seed)
    return torch.nn.functional.one_hot(data.y, 2) * 2.0 + torch.randn(data.num_nodes, 2) / 2


def made(data, student=None, seed=0, **options):
    torch.manual_seed(seed)
    width = data.x.shape[1] + (0 if options.get("attach") == "overwrite" else 2)
    student = student(width) if student else GCN(width, 2, 8, dropout=0.2)
    return Reliant(student, teacher(data), sensitive=data.sensitive, **options)


def plp(data, **options):
    return lambda width: PLP(data, width, hidden=8, rounds=3, **options)


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_ten_lines_around_any_pyg_student(biased):
    student = GraphSAGE(biased.num_features + 2, 16, 2, 2)
    model = Reliant(student, teacher(biased), sensitive=biased.sensitive, notion="sp")
    model.fit(biased, epochs=30)
    p = model.predict_proba(biased)
    assert p.shape == (biased.num_nodes, 2)
    right = (p.argmax(1) == biased.y)[biased.test_mask].float().mean()
    assert right > 0.8


def test_a_teacher_can_be_a_module(biased):
    network = GCN(6, 2, 8)
    model = Reliant(
        MLP(8, 2), teacher=network, data=biased, sensitive=biased.sensitive, notion="sp"
    )
    expected = network.eval()(biased.x, biased.edge_index).log_softmax(1)
    torch.testing.assert_close(model.teacher, expected)
    assert model.embedding.shape == (biased.num_nodes, 8)


def test_appending_keeps_all_attributes_and_overwriting_loses_two(biased):
    """Section 8, 1: corrected and as released."""
    for attach, kept in (("append", 6), ("overwrite", 4)):
        model = made(biased, attach=attach)
        for x in (model.wiped(biased.x), model.full(biased.x)):
            assert x.shape[1] == kept + 2
            assert torch.equal(x[:, :kept], biased.x[:, :kept])
        assert torch.equal(model.full(biased.x)[:, kept:], model.proxies)
        wiped = model.wiped(biased.x)[:, kept:]
        torch.testing.assert_close(wiped, model.proxies.mean(0).expand_as(wiped))


def test_equal_proxies_make_wiped_and_full_the_same(biased):
    for student in (None, plp(biased)):
        model = made(biased, student)
        with torch.no_grad():
            model.proxies.fill_(0.3)
        model.student.eval()
        wiped = model.student(model.wiped(biased.x), biased.edge_index)
        full = model.student(model.full(biased.x), biased.edge_index)
        torch.testing.assert_close(wiped, full)


@pytest.mark.parametrize("framework", ["cpf", "akd", "soft"])
def test_each_step_moves_its_own_part_only(biased, framework):
    options = {}
    student = plp(biased) if framework == "cpf" else None
    if framework == "akd":
        options = {"teacher_embedding": torch.randn(240, 8), "framework": GraphAKD(2, 8)}
    model = made(biased, student, **options)
    optimizers = Optimizers(model, 0.01, 0.01)
    seen = []
    for name, optimizer in (("student", optimizers.student), ("proxies", optimizers.proxies)):
        step = optimizer.step

        def watched(name=name, step=step):
            before = weights(model.student), model.proxies.detach().clone()
            step()
            after = weights(model.student), model.proxies.detach().clone()
            moved = not same(before[0], after[0]), not torch.equal(before[1], after[1])
            seen.append((name, *moved))

        optimizer.step = watched
    model.step(model.view(biased), optimizers)
    assert seen == [("student", True, False), ("proxies", False, True)]


def test_a_step_of_the_proxies_raises_the_bias_of_the_full_input(biased):
    model = made(biased, fairness_nodes="all")
    model.fit(biased, epochs=3)
    groups = Groups.of(biased.sensitive, torch.ones(240, dtype=torch.bool))

    def full():
        model.student.eval()
        return bias(model.student(model.full(biased.x), biased.edge_index).softmax(1), groups)

    before = full()
    optimizer = torch.optim.Adam([model.proxies], lr=1e-4)
    (-model.alpha * before).backward(inputs=[model.proxies])
    optimizer.step()
    assert float(full()) > float(before)


def test_proxies_take_up_bias_and_the_wiped_answer_loses_it(biased):
    gaps = {}
    for alpha in (0.0, 50.0):
        model = made(biased, alpha=alpha, fairness_nodes="train")
        model.fit(biased, epochs=60, weight_decay=1e-4)
        p = model.predict_proba(biased)
        groups = Groups.of(biased.sensitive, biased.test_mask)
        gaps[alpha] = float(bias(p, groups))
    assert gaps[50.0] < gaps[0.0] / 2


def test_fixed_proxies_are_the_groups_and_stay(biased):
    model = made(biased, proxies="fixed")
    expected = torch.stack([biased.sensitive, 1 - biased.sensitive], 1).float()
    model.fit(biased, epochs=3)
    assert torch.equal(model.proxies, expected)
    none = made(biased, proxies="none").fit(biased, epochs=3)
    assert not none.proxies.any()


@pytest.mark.parametrize("student", [GCN, SGC])
def test_reusing_the_attributes_part_changes_nothing(biased, student):
    options = {} if student is SGC else {"dropout": 0.0, "hidden": 8}
    first = made(biased, lambda width: student(width, 2, **options))
    second = copy.deepcopy(first)
    plain = Optimizers(second, 0.01, 0.01)
    reused = Optimizers(first, 0.01, 0.01)
    views = first.view(biased), second.view(biased)
    views[1].aggregated = None
    assert views[0].aggregated is not None
    for _ in range(5):
        found = first.step(views[0], reused), second.step(views[1], plain)
        for key in found[0]:
            assert found[0][key] == pytest.approx(found[1][key], rel=1e-3, abs=1e-7)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_plp_hides_other_training_nodes_in_each_step_and_shows_all_in_the_end(biased):
    model = made(biased, plp(biased), fairness_nodes="train", hide=0.5)
    seen, loss = [], model.framework.loss

    def watched(logits, embedding, view, student):
        seen.append(student.labelled.clone())
        assert torch.equal(view.labelled, student.labelled)
        assert torch.equal(view.unlabelled, ~student.labelled)
        return loss(logits, embedding, view, student)

    model.framework.loss = watched
    model.fit(biased, epochs=2)
    train = biased.train_mask
    for labelled in seen:
        assert not (labelled & ~train).any()
        assert 0.2 < float(labelled[train].float().mean()) < 0.8
    assert not torch.equal(*seen)
    assert torch.equal(model.student.labelled, train)


def test_saving_and_loading_the_deployed_student(biased, tmp_path):
    model = made(biased).fit(biased, epochs=3)
    model.save(tmp_path / "student.safetensors")
    loaded = Deployed.load(tmp_path / "student.safetensors", GCN(8, 2, 8, dropout=0.2))
    torch.testing.assert_close(
        loaded(biased.x, biased.edge_index).softmax(1), model.predict_proba(biased)
    )
    part = biased.subgraph(torch.arange(50))  # nodes that were never seen are no trouble
    assert loaded(part.x, part.edge_index).shape == (50, 2)
    with pytest.raises(InputError, match="not a student of this architecture"):
        Deployed.load(tmp_path / "student.safetensors", GCN(8, 2, 16))
    (tmp_path / "none.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="none"):
        Deployed.load(tmp_path / "none.safetensors", GCN(8, 2, 8))


def test_batches_of_sampled_neighbours_train_like_full_passes(biased):
    right = {}
    for name in ("batches", "whole"):
        model = made(biased, lambda width: GraphSAGE(width, 16, 2, 2), alpha=0.0)
        if name == "whole":
            model.fit(biased, epochs=60)
        for _ in range(15 if name == "batches" else 0):
            model.fit(biased, epochs=1, loader=neighbour_batches(biased, 64, (5, 5)))
        found = model.predict_proba(biased).argmax(1) == biased.y
        right[name] = float(found[biased.test_mask].float().mean())
    assert right["batches"] > right["whole"] - 0.1
    assert right["batches"] > 0.75


def test_pygs_loaders_are_taken(biased):
    model = made(biased, lambda width: GraphSAGE(width, 16, 2, 2))
    graph = biased.clone()
    del graph.attributes
    graph.n_id = torch.arange(graph.num_nodes)
    before = model.proxies.detach().clone()
    model.fit(biased, epochs=5, loader=RandomNodeLoader(graph, 3, shuffle=True))
    assert not torch.equal(before, model.proxies)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_sampled_edges_are_edges_of_the_graph(biased, count):
    whole = {tuple(e) for e in biased.edge_index.T.tolist()}
    roots = []
    for batch in neighbour_batches(biased, 50, (count, count)):
        ids = batch.n_id
        assert len(ids.unique()) == len(ids)
        roots += ids[: batch.batch_size].tolist()
        edges = ids[batch.edge_index].T.tolist()
        assert all(tuple(e) in whole or e[0] == e[1] for e in edges)
        assert torch.equal(batch.x, biased.x[ids])
        if count == 50:  # all neighbours of a root are there
            degree = torch.bincount(biased.edge_index[0], minlength=240)
            pairs = batch.edge_index.unique(dim=1)
            pairs = pairs[:, pairs[0] != pairs[1]]
            found = torch.bincount(pairs[1], minlength=len(ids))[: batch.batch_size]
            assert torch.equal(found, degree[ids[: batch.batch_size]])
    assert sorted(roots) == list(range(240))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxies": "some"}, "proxies='some'"),
        ({"attach": "some"}, "attach='some'"),
        ({"fairness_nodes": "some"}, "fairness_nodes='some'"),
        ({"alpha": -1}, "alpha=-1"),
        ({"hide": 1.0}, "hide=1.0"),
        ({"teacher_logits": None}, "either teacher_logits or teacher"),
        ({"teacher_logits": torch.zeros(7, 2)}, r"shape \[7, 2\]; expected 240 rows"),
        ({"teacher_logits": torch.full((240, 2), float("nan"))}, "not finite"),
        ({"teacher_logits": None, "teacher": nn.Linear(1, 1)}, "needs data"),
    ],
)
def test_wrong_options_are_refused(biased, options, words):
    given = {"teacher_logits": teacher(biased), "sensitive": biased.sensitive} | options
    with pytest.raises(InputError, match=words):
        Reliant(GCN(8, 2), **given)


def test_what_a_student_or_a_graph_lacks_is_said(biased):
    with pytest.raises(InputError, match="PLP holds the whole graph"):
        made(biased, plp(biased)).fit(biased, loader=[biased])
    with pytest.raises(InputError, match="no n_id"):
        made(biased).fit(biased, loader=[biased])
    with pytest.raises(InputError, match="no batches"):
        made(biased).fit(biased, loader=[])
    with pytest.raises(InputError, match="the teacher gives none"):
        made(biased, framework=GraphAKD(2, 8)).fit(biased, epochs=1)
    sage = lambda width: GraphSAGE(width, 8, 2, 2)  # noqa: E731
    with pytest.raises(InputError, match="method embed"):
        made(biased, sage, framework=GraphAKD(2, 8), teacher_embedding=torch.zeros(240, 8)).fit(
            biased, epochs=1
        )
    groups = biased.clone()
    groups.sensitive = groups.sensitive + (torch.arange(240) % 5 == 0)
    with pytest.raises(InputError, match="training needs 0 and 1"):
        made(groups).fit(groups, epochs=1)
    thin = biased.clone()
    thin.x = thin.x[:, :2]
    with pytest.raises(InputError, match="needs more than 2"):
        made(thin, attach="overwrite").fit(thin, epochs=1)
    with pytest.raises(InputError, match="240"):
        made(biased).view(biased.subgraph(torch.arange(40)))


def test_frameworks_are_chosen_by_the_student(biased):
    assert isinstance(made(biased).framework, SoftLabels)
    model = made(biased, plp(biased))
    assert isinstance(model.framework, CPF)
    assert model.alpha == 1000


def test_a_loader_of_sampled_neighbours_serves_every_epoch(biased):
    model = made(biased, lambda width: GraphSAGE(width, 8, 2, 2))
    epochs = []
    loader = neighbour_batches(biased, 100, (3,))
    model.fit(biased, epochs=3, loader=loader, on_epoch=lambda epoch, found: epochs.append(epoch))
    assert epochs == [0, 1, 2]


def test_another_split_is_measured_on_its_own_groups(biased):
    model = made(biased)
    other = biased.clone()
    other.train_mask, other.test_mask = biased.test_mask, biased.train_mask
    optimizers = Optimizers(model, 0.01, 0.01)
    for data in (biased, other):
        view = model.view(data)
        model.step(view, optimizers)
        assert torch.equal(view.groups["train"].nodes, data.train_mask.nonzero()[:, 0])


def test_unlabelled_nodes_do_not_include_hidden_training_nodes(biased):
    model = made(biased, plp(biased), fairness_nodes="unlabelled", proxy_nodes="train")
    view = model.view(biased)
    model.step(view, Optimizers(model, 0.01, 0.01))
    assert torch.equal(view.groups["unlabelled"].nodes, (~biased.train_mask).nonzero()[:, 0])


@pytest.mark.parametrize("change", [lambda s: s.numpy(), lambda s: s / 2, lambda s: s[:, None]])
def test_a_sensitive_attribute_of_another_form_is_refused(biased, change):
    with pytest.raises(InputError, match=r"sensitive: .*expected an int64"):
        Reliant(GCN(8, 2), teacher(biased), sensitive=change(biased.sensitive))
