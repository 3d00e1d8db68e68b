import json
import os
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data

from tenfold.ccgc.data import (
    CATALOGUE,
    as_data,
    attributed_graph,
    digits_graph,
    edges_of,
    load,
    read_airports,
    read_gnn_benchmark,
    read_npy_folder,
    read_planetoid,
    read_tables,
    statistics,
)
from tenfold.ccgc.data.catalogue import COUNTS
from tenfold.ccgc.data.generated import to_scipy
from tenfold.ccgc.data.graph import from_adjacency
from tenfold.shared.datasets import locate
from tenfold.shared.errors import InputError

# name: nodes, features, stored entries, self-loops, undirected edges, components, class sizes
CARD = {
    "cora": (2708, 1433, 10_556, 0, 5278, 78, [351, 217, 418, 818, 426, 298, 180]),
    "citeseer": (3327, 3703, 9228, 124, 4552, None, [264, 590, 668, 701, 596, 508]),
    "bat": (131, 81, 2077, 71, 1003, 1, [32, 32, 32, 35]),
    "eat": (399, 203, 11_988, 2, 5993, 1, [99, 99, 99, 102]),
    "uat": (1190, 239, 27_198, 0, 13_599, 3, [297, 297, 297, 299]),
    "amap": (7650, 745, 238_163, 1, 119_081, 136, [369, 1686, 703, 915, 882, 823, 1941, 331]),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CARD)
def test_the_readers_give_the_counts_of_the_reference(real, name):
    nodes, width, entries, loops, edges, components, classes = CARD[name]
    data = real(name)
    assert data.x.shape == (nodes, width)
    assert data.edge_index.shape == (2, entries)
    assert data.edge_index.dtype == torch.int64
    assert int((data.edge_index[0] == data.edge_index[1]).sum()) == loops
    assert edges_of(data) == edges
    assert data.y.dtype == torch.int64
    assert data.y.bincount().tolist() == classes
    assert getattr(data, "edge_weight", None) is None
    assert data.is_undirected()
    assert len(data.edge_index.unique(dim=1).T) == entries
    if components is not None:
        assert connected_components(to_scipy(data))[0] == components
    assert statistics(data) == COUNTS[name]


@pytest.mark.data
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_planetoid_features_are_zeros_and_ones_in_float32(real, name):
    x = real(name).x
    assert x.dtype == torch.float32
    assert x.unique().tolist() == [0, 1]


def isolated(data):
    return int((to_scipy(data).sum(1) == 0).sum())


@pytest.mark.data
def test_citeseers_missing_test_nodes_are_zero_rows_of_class_0(real):
    data = real("citeseer")
    empty = data.x.sum(1) == 0
    assert int(empty.sum()) == 15
    assert data.y[empty].unique().tolist() == [0]
    assert isolated(data) == 48


@pytest.mark.data
def test_amap_has_115_isolated_nodes(real):
    assert isolated(real("amap")) == 115


@pytest.mark.data
@pytest.mark.parametrize(("name", "width"), [("bat", 81), ("eat", 203), ("uat", 239)])
def test_airport_features_are_the_one_hot_row_sum_bit_exactly(real, name, width):
    data = real(name)
    degree = torch.bincount(data.edge_index[0], minlength=data.num_nodes)  # a self-loop once
    assert data.x.dtype == torch.float64
    assert data.x.shape[1] == width == int(degree.max()) + 1
    assert torch.equal(data.x, torch.eye(width, dtype=torch.float64)[degree])


@pytest.mark.data
def test_the_airports_node_order_is_that_of_the_label_file(real):
    data = real("bat")
    folder = locate(CATALOGUE["bat"])
    lines = (folder / "labels-brazil-airports.txt").read_text().split("\n")[1:]
    rows = [tuple(map(int, line.split())) for line in lines if line]
    assert data.y.tolist() == [label for _, label in rows]
    position = {node: i for i, (node, _) in enumerate(rows)}
    edges = (folder / "brazil-airports.edgelist").read_text().split("\n")
    stored = {tuple(pair) for pair in data.edge_index.T.tolist()}
    pairs = [tuple(position[int(n)] for n in line.split()) for line in edges if line]
    assert len(pairs) == 1074
    assert stored == set(pairs) | {(v, u) for u, v in pairs}


def test_every_file_of_the_catalogue_has_a_checksum_and_a_url():
    assert set(CATALOGUE) == set(CARD) == set(COUNTS)
    for dataset in CATALOGUE.values():
        for file in dataset.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.url.startswith("https://")


# Planetoid -------------------------------------------------------------------------------------


def write_planetoid(folder, test_nodes=(5, 3, 7), known=3):
    """A toy in the official form, with one missing test node (4 or 6), as old NumPy pickled it."""
    random = np.random.default_rng(0)
    width, classes, nodes = 4, 3, known + max(test_nodes) - min(test_nodes) + 1
    x = (random.random((nodes, width)) < 0.5).astype(np.float32)
    y = np.eye(classes, dtype=np.int32)[random.integers(0, classes, nodes)]
    graph = {i: [(i + 1) % nodes, i] if i == 2 else [(i + 1) % nodes] for i in range(nodes)}
    rows = list(test_nodes)
    parts = {
        "allx": sp.csr_matrix(x[:known]),
        "ally": y[:known],
        "tx": sp.csr_matrix(x[rows]),
        "ty": y[rows],
        "graph": graph,
    }
    for part, value in parts.items():
        stored = pickle.dumps(value, protocol=3).replace(b"numpy._core", b"numpy.core")
        (folder / f"ind.toy.{part}").write_bytes(stored)
    (folder / "ind.toy.test.index").write_text("\n".join(map(str, rows)) + "\n")
    missing = sorted(set(range(known, nodes)) - set(rows))
    x[missing], y[missing] = 0, np.eye(classes)[0]
    return x, y.argmax(1), graph


def test_planetoid_test_rows_are_put_in_order_and_missing_ones_filled(tmp_path):
    x, y, graph = write_planetoid(tmp_path)
    data = read_planetoid(tmp_path, "toy")
    np.testing.assert_array_equal(data.x, x)
    assert data.y.tolist() == y.tolist()
    expected = {(u, v) for u, group in graph.items() for v in group}
    expected |= {(v, u) for u, v in expected}
    assert {tuple(pair) for pair in data.edge_index.T.tolist()} == expected


def test_planetoid_files_of_todays_numpy_are_read(tmp_path):
    x, *_ = write_planetoid(tmp_path)
    for part in ("allx", "ally", "tx", "ty"):
        path = tmp_path / f"ind.toy.{part}"
        stored = path.read_bytes()
        assert b"numpy.core" in stored
        path.write_bytes(stored.replace(b"numpy.core", b"numpy._core"))
    np.testing.assert_array_equal(read_planetoid(tmp_path, "toy").x, x)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("part", ["allx", "ally", "tx", "ty", "graph"])
@pytest.mark.parametrize("kind", ["mkdir", "eval"])
def test_a_malicious_pickle_is_refused_and_its_code_does_not_run(tmp_path, part, kind):
    write_planetoid(tmp_path)
    proof = tmp_path / "executed"
    evil = {
        "mkdir": Evil(os.mkdir, str(proof)),
        "eval": Evil(eval, f"__import__('os').mkdir({str(proof)!r})"),
    }[kind]
    payload = pickle.dumps([evil], protocol=2)
    pickle.loads(payload)  # noqa: S301 - the attack works on an ordinary unpickler
    assert proof.is_dir()
    proof.rmdir()
    (tmp_path / f"ind.toy.{part}").write_bytes(payload)
    with pytest.raises(InputError, match=rf"ind\.toy\.{part}: not a Planetoid file: it asks for"):
        read_planetoid(tmp_path, "toy")
    assert not proof.exists()


def test_a_torn_pickle_is_refused_by_name(tmp_path):
    write_planetoid(tmp_path)
    path = tmp_path / "ind.toy.tx"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"ind\.toy\.tx: not a Planetoid file"):
        read_planetoid(tmp_path, "toy")


def test_a_missing_planetoid_file_is_named(tmp_path):
    write_planetoid(tmp_path)
    (tmp_path / "ind.toy.graph").unlink()
    with pytest.raises(InputError, match=r"ind\.toy\.graph: No such file"):
        read_planetoid(tmp_path, "toy")


def test_test_nodes_that_do_not_fit_the_rows_are_refused(tmp_path):
    write_planetoid(tmp_path)
    (tmp_path / "ind.toy.test.index").write_text("5\n3\n")
    with pytest.raises(InputError, match=r"test nodes 3\.\. \(2\) do not follow"):
        read_planetoid(tmp_path, "toy")


# npy folders -----------------------------------------------------------------------------------


def test_an_npy_folder_is_read_back(tmp_path, random_adjacency):
    folder = tmp_path / "toy"
    folder.mkdir()
    adjacency = random_adjacency(12).toarray().astype(np.int32)
    adjacency[3, 3] = 1
    features = np.random.default_rng(0).standard_normal((12, 5))
    labels = np.arange(12) % 3 + 1
    np.save(folder / "toy_adj.npy", adjacency)
    np.save(folder / "toy_feat.npy", features)
    np.save(folder / "toy_label.npy", labels)
    for data in (read_npy_folder(folder), load(str(folder))):
        np.testing.assert_array_equal(data.x, features)
        assert data.x.dtype == torch.float64
        assert data.y.tolist() == (labels - 1).tolist()
        rebuilt = np.zeros((12, 12), np.int32)
        rebuilt[tuple(data.edge_index.numpy())] = 1
        np.testing.assert_array_equal(rebuilt, adjacency)


@pytest.mark.data
def test_the_airports_as_an_npy_folder_are_the_same(real, tmp_path):
    data = real("bat")
    folder = tmp_path / "bat"
    folder.mkdir()
    dense = np.zeros((131, 131), np.int32)
    dense[tuple(data.edge_index.numpy())] = 1
    np.save(folder / "bat_adj.npy", dense)
    np.save(folder / "bat_feat.npy", data.x.numpy())
    np.save(folder / "bat_label.npy", data.y.numpy().astype(np.int32))
    again = read_npy_folder(folder)
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.edge_index, data.edge_index)
    assert torch.equal(again.y, data.y)


def test_arrays_of_objects_are_refused_and_their_code_does_not_run(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    proof = tmp_path / "executed"
    evil = np.array([Evil(os.mkdir, str(proof))], dtype=object)
    for part in ("adj", "feat", "label"):
        np.save(folder / f"toy_{part}.npy", evil, allow_pickle=True)
    with pytest.raises(InputError, match=r"toy_adj\.npy: not a plain numpy file"):
        read_npy_folder(folder)
    np.savez(tmp_path / "toy.npz", labels=evil, adj_data=evil, allow_pickle=True)
    with pytest.raises(InputError, match=r"toy\.npz"):
        read_gnn_benchmark(tmp_path / "toy.npz")
    np.savez(tmp_path / "edges.npz", source=evil, target=evil, allow_pickle=True)
    with pytest.raises(InputError, match=r"edges\.npz"):
        read_tables(tmp_path / "edges.npz")
    assert not proof.exists()


# gnn-benchmark ---------------------------------------------------------------------------------


def write_gnn_benchmark(path, directed, features, classes, **changes):
    attributes = sp.csr_matrix(features)
    arrays = {
        "adj_data": directed.data.astype(np.float32),
        "adj_indices": directed.indices,
        "adj_indptr": directed.indptr,
        "adj_shape": np.array(directed.shape),
        "attr_data": attributes.data,
        "attr_indices": attributes.indices,
        "attr_indptr": attributes.indptr,
        "attr_shape": np.array(attributes.shape),
        "labels": classes,
        "class_names": np.array(["a", "b", "c"]),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_a_gnn_benchmark_file_is_read_undirected_and_unweighted(tmp_path, random_adjacency):
    symmetric = random_adjacency(15)
    directed = sp.csr_array(sp.triu(symmetric) * 3.0)
    features = np.random.default_rng(0).random((15, 4)).astype(np.float32) * np.eye(15, 4)
    path = tmp_path / "toy.npz"
    write_gnn_benchmark(path, directed, features, np.arange(15) % 3)
    for data in (read_gnn_benchmark(path), load(str(path))):
        np.testing.assert_array_equal(data.x, features)
        assert (to_scipy(data) != symmetric).nnz == 0
        assert getattr(data, "edge_weight", None) is None
        assert data.y.tolist() == (np.arange(15) % 3).tolist()


def test_a_gnn_benchmark_file_with_dense_features_is_read(tmp_path, random_adjacency):
    features = np.ones((15, 2), np.float32)
    nothing = dict.fromkeys(["attr_data", "attr_indices", "attr_indptr", "attr_shape"])
    write_gnn_benchmark(
        tmp_path / "toy.npz",
        random_adjacency(15),
        features,
        np.zeros(15, int),
        attr_matrix=features,
        **nothing,
    )
    np.testing.assert_array_equal(read_gnn_benchmark(tmp_path / "toy.npz").x, features)


@pytest.mark.parametrize("missing", ["labels", "adj_indptr"])
def test_a_gnn_benchmark_file_that_lacks_an_array_is_refused(tmp_path, random_adjacency, missing):
    path = tmp_path / "toy.npz"
    write_gnn_benchmark(path, random_adjacency(15), np.eye(15), np.arange(15), **{missing: None})
    with pytest.raises(InputError, match=rf"toy\.npz: no array '{missing}'; found: "):
        read_gnn_benchmark(path)


# airports --------------------------------------------------------------------------------------


def write_airports(folder, edges, labels):
    (folder / "brazil-airports.edgelist").write_text(edges)
    (folder / "labels-brazil-airports.txt").write_text(labels)


def test_a_small_airport_graph_by_hand(tmp_path):
    write_airports(tmp_path, "30 10\n10 20\n20 20\n", "node label\n30 1\n10 0\n20 1\n")
    data = read_airports(tmp_path, "bat")
    assert data.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert data.x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert data.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("edges", "labels", "message"),
    [
        ("1 2\n2 9\n", "node label\n1 0\n2 1\n", "node 9 is not in the label file"),
        ("1 2\n", "node label\n1 0 4\n2 1 4\n", "3 columns; expected 2"),
        ("1 x\n", "node label\n1 0\n2 1\n", "expected 2 whole numbers a line"),
    ],
)
def test_wrong_airport_files_are_refused(tmp_path, edges, labels, message):
    write_airports(tmp_path, edges, labels)
    with pytest.raises(InputError, match=message):
        read_airports(tmp_path, "bat")


# tables ----------------------------------------------------------------------------------------

EDGES = {"source": ["ann", "bob", "cy"], "target": ["bob", "cy", "cy"]}
WEIGHTED = EDGES | {"weight": [2.0, 0.5, 1.0]}
FEATURES = {"node": ["cy", "ann", "bob", "dan"], "age": [1.0, 2.0, 3.0, 4.0], "size": [5, 6, 7, 8]}
LABELS = {"node": ["ann", "bob", "cy", "dan"], "label": ["x", "y", "x", "y"]}


def write_table(folder, name, columns, kind):
    path = folder / f"{name}.{kind}"
    if kind == "npz":
        np.savez(path, **{key: np.array(values) for key, values in columns.items()})
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.table(columns), path)
    else:
        separator = "\t" if kind == "tsv" else ","
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        path.write_text("\n".join(separator.join(map(str, row)) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "npz"])
def test_tables_with_text_names_weights_and_labels(tmp_path, kind):
    data, names = read_tables(
        write_table(tmp_path, "edges", WEIGHTED, kind),
        write_table(tmp_path, "features", FEATURES, kind),
        write_table(tmp_path, "labels", LABELS, kind),
    )
    assert names.tolist() == ["cy", "ann", "bob", "dan"]
    assert data.x.tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert data.y.tolist() == [0, 0, 1, 1]
    triples = zip(*data.edge_index.tolist(), data.edge_weight.tolist(), strict=True)
    assert sorted(triples) == [
        (0, 0, 1.0),
        (0, 2, 0.5),
        (1, 2, 2.0),
        (2, 0, 0.5),
        (2, 1, 2.0),
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_tables_without_weights_give_an_unweighted_graph(tmp_path, kind):
    data, _ = read_tables(
        write_table(tmp_path, "edges", EDGES, kind), write_table(tmp_path, "f", FEATURES, kind)
    )
    assert getattr(data, "edge_weight", None) is None
    assert edges_of(data) == 2
    assert getattr(data, "y", None) is None


def test_columns_go_by_position_when_they_have_other_names(tmp_path):
    edges = write_table(tmp_path, "e", {"from": [7, 9], "to": [9, 8]}, "csv")
    features = write_table(tmp_path, "f", {"id": [7, 8, 9], "value": [0.1, 0.2, 0.3]}, "csv")
    data, names = read_tables(edges, features)
    assert names.tolist() == [7, 8, 9]
    assert data.edge_index.tolist() == [[0, 1, 2, 2], [2, 2, 0, 1]]


def test_a_matrix_in_an_npz_table_is_so_many_columns(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, node=np.array(["ann", "bob", "cy"]), x=np.arange(6.0).reshape(3, 2))
    data, _ = read_tables(write_table(tmp_path, "e", EDGES, "csv"), path)
    assert data.x.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_without_features_the_degree_is_one_hot(tmp_path):
    data, names = read_tables(write_table(tmp_path, "e", EDGES, "csv"))
    assert names.tolist() == ["ann", "bob", "cy"]
    assert data.x.argmax(1).tolist() == [1, 2, 2]
    assert data.x.sum(1).tolist() == [1, 1, 1]


def test_both_directions_of_an_edge_in_a_table_are_one_edge(tmp_path):
    both = {
        "source": ["ann", "bob", "ann"],
        "target": ["bob", "ann", "bob"],
        "weight": [1.0, 3.0, 2.5],
    }
    data, _ = read_tables(
        write_table(tmp_path, "e", both, "csv"), write_table(tmp_path, "f", FEATURES, "csv")
    )
    assert data.edge_weight.tolist() == [3.0, 3.0]


def changed(columns, **changes):
    return {key: changes.get(key, values) for key, values in columns.items()}


@pytest.mark.parametrize(
    ("edges", "features", "labels", "message"),
    [
        (changed(EDGES, target=["bob", "eve", "cy"]), FEATURES, None, "edges.csv: node 'eve' has"),
        (
            EDGES,
            changed(FEATURES, node=["cy", "ann", "bob", "ann"]),
            None,
            "features.csv: node 'ann' stands more than once",
        ),
        (
            EDGES,
            changed(FEATURES, size=["5", "6", "big", "8"]),
            None,
            "features.csv: column 'size' is not numeric",
        ),
        (EDGES, {"node": ["ann", "bob", "cy"]}, None, "features.csv: no feature column beside"),
        ({"source": ["ann"]}, FEATURES, None, "edges.csv: no column 'target'; found: source"),
        (
            EDGES,
            FEATURES,
            changed(LABELS, node=["ann", "bob", "cy", "eve"]),
            "labels.csv: node 'eve' has no row",
        ),
        (
            EDGES,
            FEATURES,
            {"node": ["ann", "bob"], "label": [0, 1]},
            "labels.csv: 2 labels for 4 nodes",
        ),
        (
            EDGES,
            FEATURES,
            {"node": [*LABELS["node"], "ann"], "label": [*LABELS["label"], "y"]},
            "labels.csv: node ann stands more than once",
        ),
        (
            EDGES | {"weight": ["1", "much", "2"]},
            FEATURES,
            None,
            "edges.csv: column 'weight' is not numeric",
        ),
        (
            EDGES | {"weight": [1, -2, 1]},
            FEATURES,
            None,
            "edges.csv: row 1 has weight -2.0; expected finite >= 0",
        ),
        (
            EDGES,
            changed(FEATURES, age=[1.0, 2.0, "", 4.0]),
            None,
            "features: node 2, column 0 is nan",
        ),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, edges, features, labels, message):
    paths = [write_table(tmp_path, "edges", edges, "csv")]
    paths.append(write_table(tmp_path, "features", features, "csv"))
    if labels is not None:
        paths.append(write_table(tmp_path, "labels", labels, "csv"))
    with pytest.raises(InputError, match=message):
        read_tables(*paths)


@pytest.mark.parametrize("name", ["edges.csv", "edges.parquet", "edges.npz"])
def test_a_missing_table_is_named(tmp_path, name):
    with pytest.raises(InputError, match=re.escape(name)):
        read_tables(tmp_path / name)


def test_an_unknown_kind_of_table_is_refused(tmp_path):
    (tmp_path / "edges.xlsx").touch()
    with pytest.raises(InputError, match=r"expected \.csv, \.tsv, \.parquet or \.npz"):
        read_tables(tmp_path / "edges.xlsx")


@pytest.mark.parametrize("name", ["edges.csv", "edges.parquet", "edges.npz"])
def test_a_damaged_table_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(name)):
        read_tables(tmp_path / name)


# any graph -------------------------------------------------------------------------------------


def test_matrices_and_data_of_one_graph_are_the_same(planted):
    adjacency = to_scipy(planted)
    for features in (planted.x.numpy(), sp.csr_array(planted.x.numpy())):
        for matrix in (adjacency, adjacency.toarray(), sp.coo_matrix(adjacency)):
            made = as_data((matrix, features))
            assert torch.equal(made.edge_index, as_data(planted).edge_index)
            assert torch.equal(made.x, planted.x)


def test_the_input_is_left_as_it_was(planted):
    before = planted.clone()
    made = as_data(planted)
    made.x = made.x + 1
    assert torch.equal(planted.x, before.x)
    assert torch.equal(planted.edge_index, before.edge_index)
    matrix = sp.coo_array(([0.0, 1.0, 1.0], ([0, 1, 2], [0, 2, 1])), shape=(3, 3))
    from_adjacency(matrix, np.eye(3))
    assert matrix.nnz == 3


def test_an_asymmetric_graph_warns_and_counts_with_the_larger_weight():
    matrix = np.array([[0, 2.0, 0], [5.0, 0, 1.0], [0, 0, 0]])
    with pytest.warns(UserWarning, match="not symmetric: each edge now counts in both directions"):
        data = from_adjacency(matrix, np.eye(3))
    weights = dict(zip(zip(*data.edge_index.tolist(), strict=True), data.edge_weight, strict=True))
    assert weights == {(0, 1): 5, (1, 0): 5, (1, 2): 1, (2, 1): 1}


def test_a_directed_data_warns_and_becomes_undirected():
    directed = Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1], [1, 2]]))
    with pytest.warns(UserWarning, match="not symmetric"):
        assert as_data(directed).is_undirected()


@pytest.mark.filterwarnings("error")
def test_a_symmetric_graph_does_not_warn(planted):
    as_data(planted)


def test_repeated_edges_of_a_data_become_one():
    index = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])
    assert as_data(Data(x=torch.eye(2), edge_index=index)).edge_index.shape == (2, 2)
    weight = torch.tensor([1.0, 1.0, 4.0, 4.0])
    data = as_data(Data(x=torch.eye(2), edge_index=index, edge_weight=weight))
    assert data.edge_weight.tolist() == [4, 4]


def test_float64_features_stay_float64_and_whole_numbers_become_float32():
    empty = sp.csr_array((3, 3))
    assert from_adjacency(empty, np.eye(3)).x.dtype == torch.float64
    assert from_adjacency(empty, np.eye(3, dtype=np.int64)).x.dtype == torch.float32


def test_sparse_features_of_a_data_become_dense(planted):
    sparse = planted.clone()
    sparse.x = planted.x.to_sparse()
    assert torch.equal(as_data(sparse).x, planted.x)


@pytest.mark.parametrize("labels", [[1, 2, 3, 1], [10, 20, 30, 10], ["a", "b", "c", "a"]])
def test_labels_are_counted_from_zero(labels):
    data = from_adjacency(sp.csr_array((4, 4)), np.eye(4), labels)
    assert data.y.tolist() == [0, 1, 2, 0]


def test_labels_of_a_data_that_start_at_one_are_counted_from_zero(planted):
    planted.y = planted.y + 1
    assert as_data(planted).y.min() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_by_node_and_column(planted, value):
    planted.x[17, 3] = value
    planted.x[20, 1] = value
    message = rf"node 17, column 3 is {value} \(2 such values\); expected finite numbers"
    for graph in (planted, (to_scipy(planted), planted.x.numpy())):
        with pytest.raises(InputError, match=message):
            as_data(graph)


EYE = torch.eye(3)
RING = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (Data(edge_index=RING), "no x; expected a PyG Data with x and edge_index"),
        (Data(x=EYE), "no edge_index"),
        (Data(x=torch.ones(3), edge_index=RING), r"x has shape \(3,\)"),
        (Data(x=EYE, edge_index=RING.T), r"edge_index has shape \(4, 2\); expected \[2, edges\]"),
        (Data(x=EYE[:2], edge_index=RING), r"node numbers 0\.\.2, but x has 2 rows"),
        (
            Data(x=EYE, edge_index=RING, edge_weight=torch.ones(3)),
            r"edge_weight has shape \(3,\); expected \[4\]",
        ),
        (Data(x=EYE, edge_index=RING, edge_weight=-torch.ones(4)), "expected finite >= 0"),
        (Data(x=EYE, edge_index=RING, y=torch.zeros(2)), "2 labels for 3 nodes"),
        ((np.ones((2, 3)), np.eye(2)), r"adjacency has shape \(2, 3\); expected a square matrix"),
        ((np.eye(3), np.eye(2)), r"features have shape \(2, 2\); expected \[3, features\]"),
        ((np.eye(3), np.ones(3)), r"features have shape \(3,\)"),
        ((np.eye(3),), r"a tuple of 1 given; expected \(adjacency, features\)"),
        ((np.full((2, 2), np.nan), np.eye(2)), "expected finite >= 0"),
    ],
)
def test_malformed_graphs_are_refused(graph, message):
    with pytest.raises(InputError, match=message):
        as_data(graph)


# generated graphs and names --------------------------------------------------------------------


def test_digits_are_1797_images_of_ten_classes_and_their_neighbours():
    data = digits_graph()
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == torch.float32
    assert (float(data.x.min()), float(data.x.max())) == (0, 1)
    assert data.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.is_undirected()
    assert not data.has_self_loops()
    degree = torch.bincount(data.edge_index[0])
    assert int(degree.min()) == 10  # one's own ten, and those that take one as theirs
    assert data.edge_index.shape[1] <= 2 * 17_970
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    assert float(same.float().mean()) > 0.95


def test_a_generated_graph_has_the_size_degree_and_homophily_asked_for():
    data = attributed_graph(20_000, features=8, clusters=10, mean_degree=12, homophily=0.7)
    assert data.x.shape == (20_000, 8)
    assert data.y.unique().tolist() == list(range(10))
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert len(data.edge_index.unique(dim=1).T) == data.edge_index.shape[1]
    assert data.edge_index.shape[1] / 20_000 == pytest.approx(12, rel=0.03)
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    share = data.y.bincount() / 20_000
    expected = 0.7 + 0.3 * float(share.square().sum())  # an outer edge may fall inside by chance
    assert float(same.float().mean()) == pytest.approx(expected, abs=0.02)


def test_a_generated_graph_is_decided_by_its_seed():
    first, again, other = (attributed_graph(500, clusters=5, seed=s) for s in (3, 3, 4))
    for key in ("x", "edge_index", "y"):
        assert torch.equal(first[key], again[key])
    assert not torch.equal(first.x, other.x)
    assert first.edge_index.shape != other.edge_index.shape


def test_the_planted_order_of_the_nodes_says_nothing_about_their_cluster():
    y = attributed_graph(5000, features=2, clusters=5).y
    assert float((y[1:] == y[:-1]).float().mean()) < 0.4


def test_generated_and_digits_load_by_name():
    assert load("generated:500").num_nodes == 500
    assert load("digits").num_nodes == 1797


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corra", "unknown data set 'corra'; did you mean 'cora'?"),
        ("generated:ten", "expected generated:N with N >= 100 nodes"),
        ("generated:99", "expected generated:N with N >= 100 nodes"),
        ("pyg:Planetoit/Cora", "unknown PyG data set 'Planetoit'; did you mean 'Planetoid'?"),
        ("absent.npz", "absent.npz: No such file"),
    ],
)
def test_a_wrong_name_is_refused(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load(name)


def test_missing_official_files_are_named_with_their_url_and_place(monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load("bat")
    message = str(caught.value)
    assert str(tmp_path / "airports" / "brazil-airports.edgelist") in message
    assert "https://raw.githubusercontent.com/leoribeiro/struc2vec" in message
    assert "tenfold ccgc data fetch bat" in message


def test_a_pyg_data_set_loads_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    data = load("pyg:KarateClub")
    assert statistics(data) == {
        "nodes": 34,
        "features": 34,
        "edges": 78,
        "classes": data.y.bincount().tolist(),
    }
    json.dumps(statistics(data))


@pytest.mark.parametrize("array", ["adj_indices", "adj_indptr", "attr_indices", "attr_indptr"])
def test_an_npz_whose_indices_point_outside_is_refused(tmp_path, array):
    arrays = {}
    for prefix in ("adj", "attr"):
        matrix = sp.csr_array(np.eye(4, dtype=np.float32))
        arrays |= {f"{prefix}_{n}": getattr(matrix, n) for n in ("data", "indices", "indptr")}
        arrays[f"{prefix}_shape"] = np.array(matrix.shape)
    arrays[array] = arrays[array].copy()
    arrays[array][2] = 20_000_000
    np.savez(tmp_path / "bad.npz", **arrays, labels=np.arange(4))
    with pytest.raises(InputError, match="are no CSR matrix"):
        read_gnn_benchmark(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,weight\n1,2\n2,3\n", "no column 'target'; found: source, weight"),
        ("id,source,destination\n1,2,3\n", "no column 'target'"),
        ("source,target\na,b\nb,\n,c\n", "row 2 has no source"),
        ("source,target\n1,2\n3,\n", "row 1 has no target"),
        ("source,target\n", "no edges"),
        ("source,target\na,1\nb,2\n", "one is text and one is numbers"),
    ],
)
def test_an_edge_list_that_means_nothing_is_refused(tmp_path, text, message):
    path = tmp_path / "edges.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_tables(path)


def test_a_table_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_bytes("source,target\nä,b\nb,c\n".encode("latin-1"))
    with pytest.raises(InputError, match="'source' is not text in UTF-8"):
        read_tables(path)


def test_one_array_under_the_name_of_an_archive_is_refused(tmp_path):
    with (tmp_path / "edges.npz").open("wb") as file:
        np.save(file, np.eye(3))
    with pytest.raises(InputError, match="no archive of named ones"):
        read_tables(tmp_path / "edges.npz")
