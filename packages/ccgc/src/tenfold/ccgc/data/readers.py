"""Readers of the field's file formats. No file is ever executed."""

from __future__ import annotations

import collections
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from torch_geometric.data import Data

from tenfold.ccgc.data.graph import from_adjacency, merge_maximum
from tenfold.shared.errors import InputError

AIRPORTS = {"bat": "brazil", "eat": "europe", "uat": "usa"}


def read_planetoid(folder: Path, name: str) -> Data:
    """The raw Planetoid files ``ind.<name>.{x,y,tx,ty,allx,ally,graph,test.index}``.

    The pickles are read by an unpickler that knows nothing but arrays, sparse matrices and lists.
    Test rows are put in the order of ``test.index``; CiteSeer's 15 missing test nodes get zero
    features and class 0.

    Args:
        folder: where the eight files lie.
        name: ``cora``, ``citeseer`` or ``pubmed``.
    """
    parts = {
        part: _read_pickle(folder / f"ind.{name}.{part}")
        for part in ("allx", "ally", "tx", "ty", "graph")
    }
    test_nodes = _read_numbers(folder / f"ind.{name}.test.index")[:, 0]
    ordered = np.sort(test_nodes)
    first, count = int(ordered[0]), int(ordered[-1] - ordered[0]) + 1
    known, width = parts["allx"].shape
    if first != known or len(test_nodes) != parts["tx"].shape[0]:
        raise InputError(
            f"{folder}: test nodes {first}.. ({len(test_nodes)}) do not follow the {known} rows of "
            f"ind.{name}.allx with {parts['tx'].shape[0]} rows of ind.{name}.tx"
        )
    features = sp.lil_array((known + count, width), dtype=np.float32)
    features[:known] = parts["allx"]
    features[test_nodes] = parts["tx"]
    labels = np.zeros((known + count, parts["ally"].shape[1]))
    labels[:known] = parts["ally"]
    labels[test_nodes] = parts["ty"]
    neighbours = parts["graph"]
    source = np.repeat(list(neighbours), [len(group) for group in neighbours.values()])
    target = np.concatenate([np.asarray(group, dtype=np.int64) for group in neighbours.values()])
    return from_adjacency(
        _unweighted(source, target, known + count), features.tocsr(), labels.argmax(1)
    )


def read_npy_folder(folder: Path, name: str | None = None) -> Data:
    """A deep-graph-clustering folder with ``<name>_adj.npy``, ``_feat.npy`` and ``_label.npy``.

    Args:
        folder: the folder with the three files.
        name: prefix of the files; default: the folder's own name.
    """
    name = name or folder.name
    files = [folder / f"{name}_{part}.npy" for part in ("adj", "feat", "label")]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        wanted = ", ".join(path.name for path in files)
        raise InputError(f"{folder} lacks {', '.join(missing)}; expected {wanted}")
    return from_adjacency(*map(_load_array, files))


def read_gnn_benchmark(path: Path) -> Data:
    """A gnn-benchmark ``.npz`` (CSR arrays ``adj_*`` and ``attr_*``, ``labels``).

    The stored graph is directed; every edge is taken in both directions with weight 1.
    """
    archive = _load_array(path)
    adjacency = _csr(archive, "adj", path)
    sparse = "attr_data" in archive
    features = _csr(archive, "attr", path) if sparse else _member(archive, "attr_matrix", path)
    labels = _member(archive, "labels", path)
    row, column = adjacency.tocoo().coords
    return from_adjacency(_unweighted(row, column, adjacency.shape[0]), features, labels)


def read_airports(folder: Path, name: str) -> Data:
    """struc2vec's air-traffic files: ``<country>-airports.edgelist`` and ``labels-...txt``.

    Node order is that of the label file. The feature of a node is the one-hot code of its adjacency
    row sum, a self-loop counted once: this rebuilds the BAT, EAT and UAT arrays of the literature.

    Args:
        folder: where the files lie.
        name: ``bat`` (Brazil), ``eat`` (Europe) or ``uat`` (USA).
    """
    country = AIRPORTS[name]
    table = _read_numbers(folder / f"labels-{country}-airports.txt", skip=1, columns=2)
    edges = _read_numbers(folder / f"{country}-airports.edgelist", columns=2)
    names, labels = table.T
    order = np.argsort(names)
    position = np.searchsorted(names, edges, sorter=order).clip(max=len(names) - 1)
    numbered = order[position]
    if not (names[numbered] == edges).all():
        unknown = int(edges[names[numbered] != edges][0])
        raise InputError(f"{country}-airports.edgelist: node {unknown} is not in the label file")
    adjacency = _unweighted(numbered[:, 0], numbered[:, 1], len(names))
    degree = adjacency.sum(1).astype(np.int64)
    features = np.eye(int(degree.max()) + 1)[degree]
    return from_adjacency(adjacency, features, labels)


def read_tables(
    edges: Path, features: Path | None = None, labels: Path | None = None
) -> tuple[Data, np.ndarray]:
    """A user's own graph: an edge list and a feature table, each CSV, parquet or npz.

    Args:
        edges: the columns ``source`` and ``target`` (or the first two), optionally ``weight``. An
            edge that stands there again, in either direction, counts once, with its largest weight.
        features: a column ``node`` (or the first one) and numeric columns; the nodes are those of
            this table, in its order. Without it, a node's features are the one-hot code of its
            degree (capped at 256), as for the airports.
        labels: optional table of ``node`` and ``label``; used for scores only.

    Returns:
        The graph, and the node names [N] in row order.

    Raises:
        InputError: an edge or label names a node that the feature table lacks, a column is not
            numeric, a node stands twice.
    """
    edge_table = _read_table(edges)
    ends = _columns(edge_table, ("source", "target"), edges)
    _refuse_holes(ends, edges)
    if features is None:
        names = np.unique(np.concatenate(ends))
        matrix = None
    else:
        table = _read_table(features)
        key = "node" if "node" in table else next(iter(table))
        names = table.pop(key)
        if not table:
            raise InputError(f"{features}: no feature column beside {key!r}")
        for column, values in table.items():
            if not np.issubdtype(values.dtype, np.number):
                raise InputError(f"{features}: column {column!r} is not numeric")
        matrix = np.stack([values.astype(np.float32) for values in table.values()], 1)
    index = {name: number for number, name in enumerate(names.tolist())}
    if len(index) != len(names):
        twice = next(n for n, c in collections.Counter(names.tolist()).items() if c > 1)
        raise InputError(f"{features}: node {twice!r} stands more than once")
    source, target = (_numbered(end, index, edges) for end in ends)
    weight = edge_table.get("weight", np.ones(len(source)))
    if len(weight) and not np.issubdtype(weight.dtype, np.number):
        raise InputError(f"{edges}: column 'weight' is not numeric")
    weight = weight.astype(np.float64)
    if not (np.isfinite(weight) & (weight >= 0)).all():
        row = int((~(np.isfinite(weight) & (weight >= 0))).argmax())
        raise InputError(f"{edges}: row {row} has weight {weight[row]}; expected finite >= 0")
    both = np.concatenate([source, target]), np.concatenate([target, source])
    symmetric = merge_maximum(*both, np.concatenate([weight, weight]), len(names))
    symmetric.eliminate_zeros()
    if matrix is None:
        degree = np.minimum(np.diff(symmetric.indptr), 256)
        matrix = np.eye(int(degree.max()) + 1, dtype=np.float32)[degree]
    y = None
    if labels is not None:
        label_table = _read_table(labels)
        nodes, values = _columns(label_table, ("node", "label"), labels)
        rows = _numbered(nodes, index, labels)
        counts = np.bincount(rows, minlength=len(names))
        if counts.max() > 1:
            raise InputError(f"{labels}: node {names[counts.argmax()]!s} stands more than once")
        if counts.min() < 1:
            raise InputError(f"{labels}: {len(rows)} labels for {len(names)} nodes")
        y = np.empty(len(names), dtype=values.dtype)
        y[rows] = values
    return from_adjacency(symmetric, matrix, y), names


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays, CSR matrices and lists, and refuses every other name: no code runs."""

    _ALLOWED: ClassVar = {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # NumPy 2
        ("scipy.sparse.csr", "csr_matrix"): sp.csr_matrix,
        ("scipy.sparse._csr", "csr_matrix"): sp.csr_matrix,
        ("collections", "defaultdict"): collections.defaultdict,
        ("__builtin__", "list"): list,
        ("builtins", "list"): list,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The one place where a pickle could reach code."""
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; expected only arrays, sparse matrices and lists"
            ) from None


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            read = _ArrayUnpickler(file, encoding="latin1").load()
        if sp.issparse(read):
            read.check_format(full_check=True)
        return read
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except Exception as error:
        raise InputError(f"{path}: not a Planetoid file: {error}") from error


def _load_array(path: Path) -> Any:
    try:
        read = np.load(path, allow_pickle=False)
        if path.suffix == ".npz" and isinstance(read, np.ndarray):
            raise ValueError("it holds one array and is no archive of named ones")
        return read
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a plain numpy file: {error}") from error


def _read_numbers(path: Path, skip: int = 0, columns: int = 1) -> np.ndarray:
    try:
        table = np.loadtxt(path, dtype=np.int64, skiprows=skip, ndmin=2)
    except OSError as error:
        raise InputError(f"{path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected {columns} whole numbers a line") from error
    if table.shape[1] != columns:
        raise InputError(f"{path}: {table.shape[1]} columns; expected {columns}")
    return table


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    """One array of an ``.npz``, which numpy reads only now."""
    if name not in archive:
        raise InputError(f"{path}: no array {name!r}; found: {', '.join(archive) or 'nothing'}")
    try:
        return archive[name]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: array {name!r} is not a plain one: {error}") from error


def _csr(archive: Any, prefix: str, path: Path) -> sp.csr_array:
    names = ("data", "indices", "indptr", "shape")
    data, indices, pointer, shape = (_member(archive, f"{prefix}_{n}", path) for n in names)
    try:
        matrix = sp.csr_array((data, indices, pointer), shape=tuple(shape))
        matrix.check_format(full_check=True)  # scipy would read and write wherever they point
        return matrix
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {prefix}_* are no CSR matrix: {error}") from error


def _unweighted(source: np.ndarray, target: np.ndarray, nodes: int) -> sp.csr_array:
    """Symmetric 0/1 adjacency of an edge list; self-loops stand once on the diagonal."""
    both = np.concatenate([source, target]), np.concatenate([target, source])
    matrix = sp.csr_array((np.ones(len(both[0])), both), shape=(nodes, nodes))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _read_table(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".npz":
            archive = _load_array(path)
            table: dict[str, np.ndarray] = {}
            for key in archive.files:
                values = _member(archive, key, path)
                if values.ndim == 2:
                    table.update({f"{key}{i}": column for i, column in enumerate(values.T)})
                else:
                    table[key] = values
            return table
        if path.suffix == ".parquet":
            read = pyarrow.parquet.read_table(path)
        elif path.suffix in (".csv", ".tsv"):
            options = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            read = pyarrow.csv.read_csv(path, parse_options=options)
        else:
            raise InputError(
                f"{path}: unknown kind of table; expected .csv, .tsv, .parquet or .npz"
            )
        for name in read.column_names:
            if pyarrow.types.is_binary(read[name].type):
                raise InputError(f"{path}: column {name!r} is not text in UTF-8")
        return {n: read[n].to_numpy(zero_copy_only=False) for n in read.column_names}
    except OSError as error:
        raise InputError(f"{path}: {error}") from error
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error


def _columns(table: dict[str, np.ndarray], keys: tuple[str, str], path: Path) -> list[np.ndarray]:
    """Two columns by their names or, where neither name is there, the first two."""
    found = list(keys)
    if not any(key in table for key in keys):
        found = [key for key in table if key != "weight"][:2]
    for key in found if len(found) == 2 else keys:
        if key not in table:
            raise InputError(f"{path}: no column {key!r}; found: {', '.join(table) or 'nothing'}")
    return [table[key] for key in found]


def _refuse_holes(ends: list[np.ndarray], path: Path) -> None:
    """Refuses an edge list without edges, with empty cells, or of numbers and text."""
    for kind, end in zip(("source", "target"), ends, strict=True):
        empty = [i for i, name in enumerate(end.tolist()) if name in (None, "") or name != name]
        if empty:
            raise InputError(f"{path}: row {empty[0]} has no {kind} ({len(empty)} such rows)")
    if len(ends[0]) == 0:
        raise InputError(f"{path}: no edges; expected at least one row")
    kinds = [end.dtype.kind in "OUS" for end in ends]
    if kinds[0] != kinds[1]:
        raise InputError(f"{path}: of source and target one is text and one is numbers")


def _numbered(names: np.ndarray, index: dict[Any, int], path: Path) -> np.ndarray:
    try:
        return np.array([index[name] for name in names.tolist()], dtype=np.int64)
    except KeyError as error:
        raise InputError(f"{path}: node {error} has no row in the feature table") from error
