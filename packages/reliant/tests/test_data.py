import json
import re
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold.reliant.data import (
    COUNTS,
    biased_graph,
    check_graph,
    class_wise_split,
    fair_graph,
    load,
    read_tables,
    similarity_edges,
    statistics,
)
from tenfold.reliant.data import similarity as similarity_module
from tenfold.reliant.data.graph import row_normalised
from tenfold.reliant.data.readers import read_credit_large, read_dblp, read_predictions
from tenfold.shared.datasets import data_root
from tenfold.shared.errors import InputError


def similar(x, threshold):
    """The rule, with the whole matrix."""
    n = len(x)
    matrix = 1 / (1 + np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)))
    edges = []
    for i in range(n):
        limit = threshold * np.sort(matrix[i])[-2]
        edges += [(i, j) for j in range(n) if j != i and matrix[i, j] > limit]
    return np.array(edges).T


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 999), st.integers(1, 17))
def test_chunks_of_any_size_give_the_graph_of_the_whole_matrix(n, d, seed, rows):
    x = np.random.default_rng(seed).integers(0, 4, (n, d)).astype(float)
    before, similarity_module.ROWS_AT_ONCE = similarity_module.ROWS_AT_ONCE, rows
    try:
        found = similarity_edges(x, 0.6, cache=False)
    finally:
        similarity_module.ROWS_AT_ONCE = before
    np.testing.assert_array_equal(found, similar(x, 0.6))


def test_the_matrix_is_never_whole():
    x = np.random.default_rng(0).random((6000, 3))
    tracemalloc.start()
    similarity_edges(x, 0.97, cache=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 * 8 / 2


def test_a_kept_graph_is_taken_and_a_damaged_one_made_again():
    x = np.random.default_rng(5).random((50, 2))
    first = similarity_edges(x, 0.6)
    folder = similarity_module.user_cache_path("tenfold") / "reliant"
    newest = max(folder.glob("edges-*"), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(b"no archive")
    np.testing.assert_array_equal(similarity_edges(x, 0.6), first)
    assert newest.read_bytes()[:2] == b"PK"


@pytest.mark.data
def test_recidivism_is_rebuilt_from_its_table(real):
    data = real("recidivism")
    found = statistics(data)
    for key, value in COUNTS["recidivism"].items():
        assert found[key] == value, key
    assert found["label homophily"] == pytest.approx(0.7752, abs=5e-5)
    assert found["group homophily"] == pytest.approx(0.5221, abs=5e-5)
    assert found["label gap"] == pytest.approx(0.0749, abs=5e-5)
    degree = torch.bincount(data.edge_index[0])
    assert (int(degree.min()), int(degree.max())) == (1, 5391)
    assert float(degree.float().mean()) == pytest.approx(33.04, abs=0.005)
    test = data.test_mask
    y, s = data.y[test].float(), data.sensitive[test]
    assert float((y[s == 0].mean() - y[s == 1].mean()).abs()) == pytest.approx(0.0619, abs=5e-5)
    assert float(1 - y.mean()) == pytest.approx(0.6236, abs=5e-5)
    assert data.attributes[0] == "WHITE"
    assert data.attributes[-2:] == ["TIME", "FILE"]
    torch.testing.assert_close(data.x.sum(1), torch.ones(18876))


@pytest.mark.data
def test_the_directed_rows_are_as_many_as_published(real):
    real("recidivism")
    from tenfold.reliant.data.readers import _credit_table, _matrix, _read_table

    table = _read_table(data_root() / "bail" / "bail.csv")
    table.pop("RECID")
    raw, _ = _matrix(table, data_root())
    assert similarity_edges(raw, 0.6).shape[1] == 403_977
    real("credit")
    assert similarity_edges(_credit_table(data_root() / "credit")[2], 0.7).shape[1] == 200_526


@pytest.mark.data
def test_the_split_of_recidivism_is_the_official_one(real):
    y = real("recidivism").y.numpy()
    folder = data_root() / "bail" / "split"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    parts = class_wise_split(y, 0.3, 0.5, seed=20)
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        np.testing.assert_array_equal(part, np.load(folder / f"{name}_split.npy"))
    assert parts[0][:5].tolist() == [17486, 531, 14714, 2340, 3259]


@pytest.mark.data
def test_german_is_the_published_edge_file(real):
    data = real("german")
    path = data_root() / "german" / "german_edges.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    published = np.loadtxt(path).astype(int)
    assert len(published) == 24_970
    from tenfold.reliant.data.readers import _matrix, _read_table, _to_unit_range

    table = _read_table(data_root() / "german" / "german.csv")
    for name in ("GoodCustomer", "OtherLoansAtStore", "PurposeOfLoan"):
        table.pop(name)
    table["Gender"] = (table["Gender"] == "Female").astype(int)
    for name in ("LoanAmount", "Age", "LoanDuration"):
        table[name] = _to_unit_range(table[name].astype(float)[:, None])[:, 0]
    found = similarity_edges(_matrix(table, path)[0], 0.8)
    assert {*map(tuple, found.T.tolist())} == {*map(tuple, published.tolist())}
    assert statistics(data)["edges"] == 21_742


@pytest.mark.data
def test_credit_is_rebuilt_from_its_table(real):
    data = real("credit")
    found = statistics(data)
    for key, value in COUNTS["credit"].items():
        assert found[key] == value, key
    assert found["attributes"] == 13
    assert int(data.train_mask.sum()) == 1000


def test_a_split_is_class_wise_and_leaves_out_unknown_labels():
    y = np.array([0] * 10 + [1] * 20 + [-1] * 5)
    parts = class_wise_split(y, 0.5, 0.75, train_per_class=6)
    assert [len(p) for p in parts] == [5 + 6, 2 + 5, 3 + 5]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    assert max(p.max() for p in parts) < 30
    with pytest.raises(InputError, match=r"train=0\.5, val=0\.4"):
        class_wise_split(y, 0.5, 0.4)


def test_rows_of_sum_zero_become_zero():
    x = row_normalised(np.array([[1.0, 3.0], [0.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_allclose(x, [[0.25, 0.75], [0, 0], [0, 0]])


@given(st.floats(0, 0.8), st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.integers(0, 99))
def test_generated_graphs_have_the_bias_that_was_asked_for(gap, label, group, seed):
    data = biased_graph(
        3000, label_gap=gap, label_homophily=label, group_homophily=group, seed=seed
    )
    found = statistics(data)
    assert found["label gap"] == pytest.approx(gap, abs=0.08)
    assert found["label homophily"] == pytest.approx(label, abs=0.04)
    assert found["group homophily"] == pytest.approx(group, abs=0.04)
    assert 2 * found["edges"] / 3000 == pytest.approx(6, abs=0.3)


def test_generated_graphs_are_the_same_for_the_same_seed():
    assert torch.equal(biased_graph(200, seed=4).x, biased_graph(200, seed=4).x)
    assert not torch.equal(biased_graph(200, seed=4).y, biased_graph(200, seed=5).y)
    for options in ({"nodes": 5}, {"label_gap": 1}, {"group_homophily": 1.5}):
        with pytest.raises(InputError, match=next(iter(options))):
            biased_graph(**options)


def parts(**changes):
    rng = np.random.default_rng(0)
    made = {
        "x": rng.random((12, 2)),
        "edge_index": [[0, 1], [1, 2]],
        "y": np.arange(12) // 2 % 2,
        "sensitive": np.arange(12) % 2,
        "splits": [range(4), range(4, 8), range(8, 12)],
    }
    return made | changes


def holed():
    x = np.ones((12, 2))
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": holed(), "attributes": ["AGE", "PAY"]}, "column 'PAY' has 1 missing"),
        ({"sensitive": np.zeros(12)}, "all 12 nodes have 0"),
        ({"sensitive": np.arange(12) * 0.5}, "node 1 has 0.5"),
        ({"sensitive": np.r_[np.nan, np.arange(11) % 2]}, "node 0 has nan"),
        ({"sensitive": np.arange(12) // 8}, "train split: no node with sensitive=1"),
        ({"y": np.r_[np.arange(11) // 2 % 2, -1]}, "test split: 1 nodes have no label"),
        ({"y": np.r_[[0] * 4, [0, 1] * 4]}, "train split: all nodes have one label"),
        ({"y": np.arange(11) % 2}, r"y: shape \[11\]"),
        ({"splits": [range(5), range(4, 8), range(8, 12)]}, "node 4 is in train and in val"),
        ({"splits": [range(4), range(4, 8), [12]]}, "node 12"),
        ({"splits": [range(4), [], range(8, 12)]}, "val split"),
        ({"splits": [[0.5], range(4, 8), range(8, 12)]}, "whole node numbers"),
        ({"splits": [range(4), range(4, 8)]}, "2 parts"),
        ({"edge_index": [[0], [12]]}, "node 12; expected 0 to 11"),
        ({"edge_index": [0, 1]}, "expected \\[2, edges\\]"),
        ({"x": np.ones(12)}, "1 dimensions"),
    ],
)
def test_wrong_graphs_are_refused_with_what_would_be_right(changes, words):
    with pytest.raises(InputError, match=words):
        fair_graph(**parts(**changes))


def test_odd_but_right_values_are_taken():
    sensitive = np.where(np.arange(12) % 2, 1.0, -0.0)
    data = fair_graph(**parts(sensitive=sensitive, splits=[np.arange(4.0), range(4, 8), [8, 9]]))
    assert data.sensitive.dtype == torch.int64
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert statistics(data)["isolated"] == 9  # nodes without edges are no error
    assert torch.equal(check_graph(data).x, data.x)
    del data.sensitive
    with pytest.raises(InputError, match="'sensitive' is missing"):
        check_graph(data)


def write_dblp(folder, split=True):
    rng = np.random.default_rng(0)
    n = 60
    folder.mkdir(exist_ok=True)
    order = rng.permutation(n)
    fields, places = rng.integers(2, 5, n), rng.integers(1, 4, n)
    for name, values in (("labels", fields), ("sens", places)):
        rows = "\n".join(f"{i} {values[i]}" for i in order)
        folder.joinpath(f"{name}.txt").write_text(rows)
    folder.joinpath("edgelist.txt").write_text("\n".join(f"{i} {(i + 1) % n}" for i in range(n)))
    np.savez(folder / "X.npz", data=np.ones(n), row=np.arange(n), col=np.arange(n) % 7,
             shape=np.array([n, 7]))  # fmt: skip
    if split:
        (folder / "split").mkdir(exist_ok=True)
        for name, part in zip(("train", "val", "test"), np.split(rng.permutation(n), 3),
                              strict=True):  # fmt: skip
            np.save(folder / "split" / f"{name}_split.npy", part.astype(float))
    return fields, places


@pytest.mark.parametrize("split", [True, False])
def test_the_files_of_dblp_are_read(tmp_path, split):
    fields, places = write_dblp(tmp_path / "small", split)
    data = read_dblp(tmp_path / "small")
    assert data.y.tolist() == (fields == 3).astype(int).tolist()
    assert data.sensitive.tolist() == (places == 2).astype(int).tolist()
    assert statistics(data)["edges"] == 60
    assert data.x.sum(1).tolist() == [1] * 60
    halves = (fields == 3).sum() // 2 + (fields != 3).sum() // 2
    assert int(data.train_mask.sum()) == (20 if split else halves)


def test_damaged_files_of_dblp_are_refused(tmp_path):
    write_dblp(tmp_path)
    (tmp_path / "sens.txt").write_text("0 1\n0 2\n")
    with pytest.raises(InputError, match="each once"):
        read_dblp(tmp_path)
    write_dblp(tmp_path)
    np.savez(tmp_path / "X.npz", data=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"X\.npz"):
        read_dblp(tmp_path)


def test_the_larger_graph_of_credit_is_its_largest_component_made_binary(tmp_path):
    names = ["NoDefaultNextMonth", "Married", "Single", "Age", "Pay"]
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 2, (40, 5))
    rows[:, 4] *= 70
    table = [",".join(names), *(",".join(map(str, r)) for r in rows)]
    (tmp_path / "credit.csv").write_text("\n".join(table))
    edges = [f"{i}.0 {i + 1}.0" for i in range(34)] + ["36 37", "38 39"]
    (tmp_path / "credit_edges.txt").write_text("\n".join(edges))
    data = read_credit_large(tmp_path)
    assert data.num_nodes == 35
    assert data.attributes == ["Married", "Age", "Pay"]
    assert data.x.unique().tolist() == [0, 1]
    assert data.sensitive.tolist() == rows[:35, 3].tolist()


def write_table(folder, **changes):
    rng = np.random.default_rng(0)
    n = 60
    columns = {
        "node": [f"n{i}" for i in range(n)],
        "sex": ["f" if i % 2 else "m" for i in range(n)],
        "good": ["yes" if i // 2 % 2 else "no" for i in range(n)],
        "age": rng.integers(18, 80, n).tolist(),
        "pay": rng.random(n).tolist(),
    } | changes
    lines = [",".join(columns)]
    lines += [",".join(str(columns[k][i]) for k in columns) for i in range(n)]
    (folder / "nodes.csv").write_text("\n".join(lines))
    edges = "\n".join(f"n{i},n{(i + 1) % n}" for i in range(n))
    (folder / "edges.csv").write_text("source,target\n" + edges)
    return folder / "nodes.csv", folder / "edges.csv"


def test_a_users_tables_are_read(tmp_path):
    nodes, edges = write_table(tmp_path)
    data = read_tables(nodes, edges, "good", "sex")
    assert data.attributes == ["age", "pay"]
    assert data.group_names == ["f", "m"]
    assert data.label_names == ["no", "yes"]
    assert data.sensitive[:3].tolist() == [1, 0, 1]
    assert statistics(data)["edges"] == 60
    assert (float(data.x.min()), float(data.x.max())) == (-1, 1)
    kept = read_tables(nodes, edges, "good", "sex", keep_sensitive=True)
    assert kept.attributes == ["sex", "age", "pay"]
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.csv.read_csv(nodes), tmp_path / "nodes.parquet")
    again = read_tables(tmp_path / "nodes.parquet", None, "good", "sex")
    assert torch.equal(again.x, data.x)
    assert statistics(again)["isolated"] == 0  # similar rows are joined


def test_a_users_split_and_unknown_labels(tmp_path):
    split = ["train"] * 20 + ["val"] * 16 + ["test"] * 20 + [""] * 4
    good = ["yes" if i // 2 % 2 else "no" for i in range(56)] + [""] * 4
    nodes, edges = write_table(tmp_path, split=split, good=good)
    data = read_tables(nodes, edges, "good", "sex")
    assert [int(data[f"{k}_mask"].sum()) for k in ("train", "val", "test")] == [20, 16, 20]
    assert data.y[56:].tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pay": ["", *[0.5] * 59]}, "'pay' has 1 missing values (row 0)"),
        ({"pay": ["low"] * 60}, "'pay' holds text"),
        ({"sex": ["", *["f", "m"] * 29, "f"]}, "'sex' has 1 empty cells"),
        ({"sex": ["f"] * 60}, "expected two groups"),
        ({"sex": [i / 7 for i in range(60)]}, "has fractions"),
        ({"node": ["n0"] * 60}, "'n0' stands more than once"),
        ({"node": [f"m{i}" for i in range(60)]}, "has no row in the node table"),
        ({"split": ["trian"] * 60}, "split 'trian'"),
        ({"bad": [1] * 60, "good": [0] * 60}, "one label"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, changes, words):
    nodes, edges = write_table(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(words)):
        read_tables(nodes, edges, "good", "sex")


def test_missing_columns_and_files_are_named(tmp_path):
    nodes, edges = write_table(tmp_path)
    for call, words in (
        (lambda: read_tables(nodes, edges, "goood", "sex"), "no column 'goood'"),
        (lambda: read_tables(nodes, edges, "good", "race"), "no column 'race'"),
        (lambda: read_tables(tmp_path / "none.csv", None, "good", "sex"), "none.csv"),
        (lambda: read_tables(tmp_path / "none.txt", None, "good", "sex"), "expected .csv"),
        (lambda: read_predictions(nodes, "good", "guess", "sex"), "no column 'guess'"),
        (lambda: read_predictions(nodes, "good", "good", "sex", "age"), "probabilities"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            call()


def test_names_of_data_sets(tmp_path, monkeypatch):
    assert load("generated:150").num_nodes == 150
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    for name, words in (
        ("bail", "unknown data set"),
        ("generated:x", "generated:N"),
        ("recidivism", "tenfold reliant data fetch recidivism"),
        ("dblp", "edgelist.txt"),
    ):
        with pytest.raises(InputError, match=words):
            load(name)


def test_the_catalogue_has_a_count_for_each_set():
    from tenfold.reliant.data import CATALOGUE

    assert set(COUNTS) == set(CATALOGUE)
    json.dumps(COUNTS)
