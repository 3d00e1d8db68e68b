"""Readers of the official files and of a user's own tables. No file is ever executed."""

from __future__ import annotations

import collections
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from torch_geometric.data import Data

from tenfold.reliant.data.graph import fair_graph, row_normalised
from tenfold.reliant.data.similarity import similarity_edges
from tenfold.reliant.data.splits import class_wise_split
from tenfold.shared.errors import InputError

Scaling = Literal["rows", "columns", "raw"]


def read_recidivism(folder: Path, scaling: Scaling = "rows", keep_sensitive: bool = True) -> Data:
    """Recidivism from ``bail.csv`` alone: the graph and the split are rebuilt, exactly.

    Label RECID, sensitive attribute WHITE. The graph joins similar rows of the 18 raw attributes
    (threshold 0.6); the split is class-wise 30/20/50 with seed 20, as in the official files.

    Args:
        folder: where ``bail.csv`` lies.
        scaling: of the attributes: ``rows`` divides each row by its sum (official), ``columns``
            brings each column to [-1, 1], ``raw`` leaves them.
        keep_sensitive: whether WHITE stays among the attributes of the model. The graph is always
            that of all 18.
    """
    table = _read_table(folder / "bail.csv")
    y = _pop(table, "RECID", folder / "bail.csv")
    raw, names = _matrix(table, folder / "bail.csv")
    sensitive = _column(table, "WHITE", folder / "bail.csv")
    edges = similarity_edges(raw, 0.6)
    x, names = _prepared(raw, names, scaling, None if keep_sensitive else "WHITE")
    return fair_graph(x, edges, y, sensitive, class_wise_split(y, 0.3, 0.5), names)


def read_credit(folder: Path, scaling: Scaling = "columns", keep_sensitive: bool = True) -> Data:
    """Credit from ``credit.csv`` alone, with the smaller of the two graphs that circulate.

    Label NoDefaultNextMonth, sensitive attribute Age; Single is left out. The graph joins similar
    rows of the 13 raw attributes (threshold 0.7: 137,377 edges). The split is the official one of
    Credit: seed 20, at most 500 training nodes a class, then 25/25 %.

    Args:
        folder: where ``credit.csv`` lies.
        scaling: as in :func:`read_recidivism`.
        keep_sensitive: whether Age stays among the attributes of the model.
    """
    y, sensitive, raw, names = _credit_table(folder)
    edges = similarity_edges(raw, 0.7)
    x, names = _prepared(raw, names, scaling, None if keep_sensitive else "Age")
    splits = class_wise_split(y, 0.5, 0.75, train_per_class=500)
    return fair_graph(x, edges, y, sensitive, splits, names)


def read_credit_large(folder: Path, scaling: Scaling = "raw", keep_sensitive: bool = True) -> Data:
    """Credit with the larger graph: ``credit.csv`` and the edge file ``credit_edges.txt``.

    As the official code treats its (unpublished) file: the largest connected component, attributes
    that are not 0 become 1.

    Args:
        folder: where the two files lie.
        scaling: of the binary attributes.
        keep_sensitive: whether Age stays among the attributes of the model.
    """
    y, sensitive, raw, names = _credit_table(folder)
    edges = _numbers(folder / "credit_edges.txt", 2).T.astype(np.int64)
    adjacency = sp.coo_array((np.ones(edges.shape[1]), (edges[0], edges[1])), (len(y), len(y)))
    _, component = sp.csgraph.connected_components(adjacency, directed=False)
    kept = np.flatnonzero(component == np.bincount(component).argmax())
    place = np.full(len(y), -1)
    place[kept] = np.arange(len(kept))
    inside = (place[edges] >= 0).all(0)
    binary = (raw != 0).astype(np.float64)
    x, names = _prepared(binary, names, scaling, None if keep_sensitive else "Age")
    splits = class_wise_split(y[kept], 0.5, 0.75, train_per_class=500)
    return fair_graph(x[kept], place[edges[:, inside]], y[kept], sensitive[kept], splits, names)


def read_german(folder: Path, scaling: Scaling = "columns", keep_sensitive: bool = True) -> Data:
    """German credit from ``german.csv`` alone; the graph equals the published edge file.

    Label GoodCustomer (-1 becomes 0), sensitive attribute Gender (Female is 1);
    OtherLoansAtStore and PurposeOfLoan are left out; LoanAmount, Age and LoanDuration are brought
    to [-1, 1] before the similarity rule (threshold 0.8). The split: seed 0, half of each class
    (at most 500) for training, then 25/25 %.

    Args:
        folder: where ``german.csv`` lies.
        scaling: as in :func:`read_recidivism`.
        keep_sensitive: whether Gender stays among the attributes of the model.
    """
    path = folder / "german.csv"
    table = _read_table(path)
    y = (_pop(table, "GoodCustomer", path) > 0).astype(np.int64)
    for name in ("OtherLoansAtStore", "PurposeOfLoan"):
        _pop(table, name, path)
    table["Gender"] = (_column(table, "Gender", path) == "Female").astype(np.int64)
    for name in ("LoanAmount", "Age", "LoanDuration"):
        table[name] = _to_unit_range(_column(table, name, path).astype(np.float64)[:, None])[:, 0]
    raw, names = _matrix(table, path)
    edges = similarity_edges(raw, 0.8)
    x, names = _prepared(raw, names, scaling, None if keep_sensitive else "Gender")
    splits = class_wise_split(y, 0.5, 0.75, seed=0, train_per_class=500)
    return fair_graph(x, edges, y, table["Gender"], splits, names)


def read_dblp(folder: Path, field: int = 3, continent: int = 2) -> Data:
    """The co-author graphs DBLP (AMiner-S) and DBLP-L (AMiner-L) from their official files.

    ``edgelist.txt``, ``labels.txt`` and ``sens.txt`` (two columns: node, value), ``X.npz`` (COO
    arrays data, row, col, shape; used unscaled), and ``split/{train,val,test}_split.npy`` where
    they are there (float64 is cast), else the split is drawn anew: class-wise 50/25/25, seed 20.

    Args:
        folder: where the files lie.
        field: the research field that is class 1; all others are class 0.
        continent: the continent that is group 1; all others are group 0.
    """
    y = (_by_node(folder / "labels.txt") == field).astype(np.int64)
    sensitive = (_by_node(folder / "sens.txt") == continent).astype(np.int64)
    if len(y) != len(sensitive):
        raise InputError(f"{folder}: {len(y)} labels for {len(sensitive)} sensitive values")
    edges = _numbers(folder / "edgelist.txt", 2).T.astype(np.int64)
    stored = _load_npz(folder / "X.npz", ("data", "row", "col", "shape"))
    try:
        x = sp.coo_array((stored["data"], (stored["row"], stored["col"])), tuple(stored["shape"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder / 'X.npz'}: no COO matrix: {error}") from error
    if x.shape[0] != len(y):
        raise InputError(f"{folder / 'X.npz'}: {x.shape[0]} rows for {len(y)} labels")
    files = [folder / "split" / f"{part}_split.npy" for part in ("train", "val", "test")]
    if all(file.is_file() for file in files):
        splits: Sequence[np.ndarray] = [_load_array(file) for file in files]
    else:
        splits = class_wise_split(y, 0.5, 0.75)
    return fair_graph(x.toarray().astype(np.float32), edges, y, sensitive, splits)


def read_tables(
    nodes: Path,
    edges: Path | None,
    label: str,
    sensitive: str,
    keep_sensitive: bool = False,
    threshold: float = 0.6,
    seed: int = 20,
) -> Data:
    """A user's own graph: a node table and an edge list, each CSV, TSV or parquet.

    Args:
        nodes: one row a node: the label and the sensitive column, numeric attributes, perhaps a
            column ``node`` with names and a column ``split`` with train, val, test. Two values of
            the sensitive column (numbers or text) become the groups 0 and 1 in sorted order, more
            values as many groups. An empty label means that it is not known.
        edges: columns ``source`` and ``target``, which hold names of nodes (row numbers, counted
            from 0, if there is no column ``node``). Without it, similar rows are joined
            (:func:`~tenfold.reliant.data.similarity.similarity_edges`).
        label: name of the label column.
        sensitive: name of the sensitive column.
        keep_sensitive: whether it stays among the attributes.
        threshold: of the similarity, where there is no edge list.
        seed: of the class-wise 50/25/25 split, where there is no column ``split``.

    Returns:
        The graph; attributes are brought to [-1, 1]. ``label_names`` and ``group_names`` hold the
        original values, ``node_names`` the names.

    Raises:
        InputError: for a missing column, text where numbers belong, missing values, an edge to an
            unknown node, and whatever :func:`~tenfold.reliant.data.graph.fair_graph` refuses.
    """
    table = _read_table(nodes)
    size = len(next(iter(table.values())))
    names = table.pop("node", np.arange(size))
    if len(set(names.tolist())) != size:
        twice = next(n for n, c in collections.Counter(names.tolist()).items() if c > 1)
        raise InputError(f"{nodes}: node {twice!r} stands more than once")
    part = table.pop("split", None)
    labels, label_names = _coded(_pop(table, label, nodes), label, nodes, may_miss=True)
    groups, group_names = _coded(_column(table, sensitive, nodes), sensitive, nodes)
    if not keep_sensitive:
        table.pop(sensitive)
    else:
        table[sensitive] = groups
    if not table:
        raise InputError(f"{nodes}: no attribute beside {label!r} and {sensitive!r}")
    raw, attributes = _matrix(table, nodes)
    if edges is None:
        ends = similarity_edges(raw, threshold)
    else:
        listed = _read_table(edges)
        index = {name: number for number, name in enumerate(names.tolist())}
        ends = np.stack([_numbered(_column(listed, c, edges), index, edges) for c in _ENDS])
    if part is None:
        splits: Sequence[np.ndarray] = class_wise_split(labels, 0.5, 0.75, seed=seed)
    else:
        unknown = set(part.tolist()) - {"train", "val", "test", "", None}
        if unknown:
            raise InputError(
                f"{nodes}: split {sorted(map(str, unknown))[0]!r}; expected train, val or test"
            )
        splits = [np.flatnonzero(part == name) for name in ("train", "val", "test")]
    data = fair_graph(_to_unit_range(raw), ends, labels, groups, splits, attributes)
    data.label_names, data.group_names = label_names, group_names
    data.node_names = names.tolist()
    return data


_ENDS = ("source", "target")


def read_predictions(
    path: Path, label: str, prediction: str, sensitive: str, score: str | None = None
) -> dict[str, Any]:
    """A user's predictions for an audit: a table with the true class, the predicted one, the group.

    Args:
        path: CSV, TSV or parquet.
        label: column of the true class.
        prediction: column of the predicted class.
        sensitive: column of the group.
        score: column of the probability of the second class (binary only).

    Returns:
        ``y``, ``prediction`` and ``sensitive`` int64 [N], ``score`` float64 [N] or None, and the
        original values ``label_names`` and ``group_names``.
    """
    table = _read_table(path)
    truth, guess = _column(table, label, path), _column(table, prediction, path)
    both, names = _coded(np.concatenate([truth, guess]), f"{label}, {prediction}", path)
    groups, group_names = _coded(_column(table, sensitive, path), sensitive, path)
    for name, found in ((sensitive, group_names), (f"{label}, {prediction}", names)):
        if len(found) < 2:
            raise InputError(f"{path}: column {name!r} has {found[0]!r} only; expected two values")
    scores = None
    if score is not None:
        scores = _matrix({score: _column(table, score, path)}, path)[0][:, 0]
        if len(names) != 2 or ((scores < 0) | (scores > 1)).any():
            raise InputError(f"{path}: {score!r}: expected probabilities of one of two classes")
    return {
        "y": both[: len(truth)],
        "prediction": both[len(truth) :],
        "sensitive": groups,
        "score": scores,
        "label_names": names,
        "group_names": group_names,
    }


# Parts -------------------------------------------------------------------------------------------


def _credit_table(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    path = folder / "credit.csv"
    table = _read_table(path)
    y = _pop(table, "NoDefaultNextMonth", path)
    _pop(table, "Single", path)
    raw, names = _matrix(table, path)
    return y, _column(table, "Age", path), raw, names


def _prepared(
    raw: np.ndarray, names: list[str], scaling: Scaling, without: str | None
) -> tuple[np.ndarray, list[str]]:
    """The attributes that the model sees."""
    if scaling not in ("rows", "columns", "raw"):
        raise InputError(f"scaling={scaling!r}; expected 'rows', 'columns' or 'raw'")
    kept = [i for i, name in enumerate(names) if name != without]
    x = raw[:, kept]
    if scaling == "rows":
        x = row_normalised(x)
    elif scaling == "columns":
        x = _to_unit_range(x)
    return x, [names[i] for i in kept]


def _to_unit_range(x: np.ndarray) -> np.ndarray:
    """Each column to [-1, 1]; a constant column becomes -1."""
    low, high = x.min(0), x.max(0)
    return 2 * (x - low) / np.where(high > low, high - low, 1.0) - 1


def _coded(
    values: np.ndarray, name: str, path: Path, may_miss: bool = False
) -> tuple[np.ndarray, list[Any]]:
    """Numbers of the sorted distinct values; -1 where there is none, if that may be."""
    listed = values.tolist()
    empty = np.array([v is None or v == "" or v != v for v in listed])
    if empty.any() and not may_miss:
        row = int(empty.argmax())
        raise InputError(f"{path}: column {name!r} has {int(empty.sum())} empty cells (row {row})")
    known = [v for v, hole in zip(listed, empty, strict=True) if not hole]
    if len({isinstance(v, str) for v in known}) > 1:
        raise InputError(f"{path}: column {name!r} holds text and numbers")
    if known and isinstance(known[0], float) and any(v % 1 for v in known):
        raise InputError(f"{path}: column {name!r} has fractions; expected a few distinct values")
    distinct = sorted(set(known))
    if len(distinct) > 100:
        raise InputError(f"{path}: column {name!r} has {len(distinct)} values; expected a few")
    number = {value: index for index, value in enumerate(distinct)}
    codes = np.array([-1 if hole else number[v] for v, hole in zip(listed, empty, strict=True)])
    return codes.astype(np.int64), distinct


def _matrix(table: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, list[str]]:
    for name, values in table.items():
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
            raise InputError(f"{path}: column {name!r} holds text; expected numbers")
        missing = int(np.isnan(values.astype(np.float64)).sum())
        if missing:
            row = int(np.isnan(values.astype(np.float64)).argmax())
            raise InputError(f"{path}: column {name!r} has {missing} missing values (row {row})")
    return np.stack([v.astype(np.float64) for v in table.values()], 1), list(table)


def _pop(table: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    _column(table, name, path)
    return table.pop(name)


def _column(table: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in table:
        raise InputError(f"{path}: no column {name!r}; found: {', '.join(table) or 'nothing'}")
    return table[name]


def _read_table(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            read = pyarrow.parquet.read_table(path)
        elif path.suffix in (".csv", ".tsv"):
            options = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            read = pyarrow.csv.read_csv(path, parse_options=options)
        else:
            raise InputError(f"{path}: unknown kind of table; expected .csv, .tsv or .parquet")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    if not read.column_names or read.num_rows == 0:
        raise InputError(f"{path}: no rows; expected a header and at least one row")
    if len(set(read.column_names)) != len(read.column_names):
        twice = next(n for n, c in collections.Counter(read.column_names).items() if c > 1)
        raise InputError(f"{path}: column {twice!r} stands more than once")
    return {n: read[n].to_numpy(zero_copy_only=False) for n in read.column_names}


def _numbered(names: np.ndarray, index: dict[Any, int], path: Path) -> np.ndarray:
    try:
        return np.array([index[name] for name in names.tolist()], dtype=np.int64)
    except KeyError as error:
        raise InputError(f"{path}: node {error} has no row in the node table") from error


def _numbers(path: Path, columns: int) -> np.ndarray:
    try:
        table = np.loadtxt(path, ndmin=2)
    except OSError as error:
        raise InputError(f"{path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected {columns} numbers a line") from error
    if table.size == 0 or table.shape[1] != columns or not (table % 1 == 0).all():
        raise InputError(f"{path}: expected {columns} whole numbers a line")
    return table


def _by_node(path: Path) -> np.ndarray:
    """The second column, ordered by the first, which must be 0 to N - 1."""
    nodes, values = _numbers(path, 2).astype(np.int64).T
    order = np.argsort(nodes)
    if not np.array_equal(nodes[order], np.arange(len(nodes))):
        raise InputError(f"{path}: the nodes are not 0 to {len(nodes) - 1}, each once")
    return values[order]


def _load_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (KeyError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {error}; expected the arrays {', '.join(names)}") from error


def _load_array(path: Path) -> np.ndarray:
    try:
        read: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a plain numpy file: {error}") from error
    return read
