"""The data sets that go by name: where their files come from, and the counts they must have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from tenfold.ccgc.data.generated import attributed_graph, digits_graph
from tenfold.ccgc.data.graph import as_data, edges_of
from tenfold.ccgc.data.readers import (
    AIRPORTS,
    read_airports,
    read_gnn_benchmark,
    read_npy_folder,
    read_planetoid,
)
from tenfold.shared.datasets import Dataset, File, data_root, locate
from tenfold.shared.errors import InputError, UnavailableError, did_you_mean

RAW = "https://raw.githubusercontent.com"


def _planetoid(name: str, title: str, hashes: dict[str, str]) -> Dataset:
    files = tuple(
        File(
            f"ind.{name}.{part}", f"{RAW}/kimiyoung/planetoid/master/data/ind.{name}.{part}", digest
        )
        for part, digest in hashes.items()
    )
    home = "https://github.com/kimiyoung/planetoid"
    return Dataset(name, title, "planetoid", files, "research use", home, package="ccgc")


def _airports(name: str, title: str, edges: str, labels: str) -> Dataset:
    country = AIRPORTS[name]
    names = {f"{country}-airports.edgelist": edges, f"labels-{country}-airports.txt": labels}
    files = tuple(
        File(file, f"{RAW}/leoribeiro/struc2vec/master/graph/{file}", digest)
        for file, digest in names.items()
    )
    home = "https://github.com/leoribeiro/struc2vec"
    return Dataset(name, title, "airports", files, "MIT (repository)", home, package="ccgc")


CATALOGUE: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _planetoid(
            "cora",
            "Cora citation graph",
            {
                "x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
                "y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
                "tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
                "ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
                "allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
                "ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
                "graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
                "test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
            },
        ),
        _planetoid(
            "citeseer",
            "CiteSeer citation graph",
            {
                "x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
                "y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
                "tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
                "ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
                "allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
                "ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
                "graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
                "test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
            },
        ),
        Dataset(
            "amap",
            "Amazon Photo co-purchase graph",
            "amazon",
            (
                File(
                    "amazon_electronics_photo.npz",
                    f"{RAW}/shchur/gnn-benchmark/master/data/npz/amazon_electronics_photo.npz",
                    "bdb1feb8e6ff42ee44024b04479145029c563fd42fc31bff80af20887ba0439a",
                ),
            ),
            "MIT (repository)",
            "https://github.com/shchur/gnn-benchmark",
            package="ccgc",
        ),
        _airports(
            "bat",
            "Brazilian air traffic",
            "896b7bd460ad2da9160888d99bc9099ffe8ed7de3e410833889ea393831bcaa7",
            "8f9d19f10192fbaeb91dfb46dd7eae0fef28bfe1272d41ab96a4494a0d06785f",
        ),
        _airports(
            "eat",
            "European air traffic",
            "bd202178d0d1253c15bd3c9a22cc2a25f630244bbef9060bc30adbf0a5e130f6",
            "92bace031cc02937ac9629d6c69387458e5d5016a7dab98490fbf33e392cec4e",
        ),
        _airports(
            "uat",
            "US air traffic",
            "c73fec3eef27ed6d6ef4d8dfa7fd1604b959601a38d399eeaa1f87e8d8d58fc0",
            "d4062ff3b3a67c3ae72b581bb68228433223e35d6f0b2d41844d197ad3772195",
        ),
    )
}
"""The six data sets of the paper's main table."""

COUNTS: dict[str, dict[str, Any]] = {
    "cora": {
        "nodes": 2708,
        "features": 1433,
        "edges": 5278,
        "classes": [351, 217, 418, 818, 426, 298, 180],
    },
    "citeseer": {
        "nodes": 3327,
        "features": 3703,
        "edges": 4552,
        "classes": [264, 590, 668, 701, 596, 508],
    },
    "amap": {
        "nodes": 7650,
        "features": 745,
        "edges": 119081,
        "classes": [369, 1686, 703, 915, 882, 823, 1941, 331],
    },
    "bat": {"nodes": 131, "features": 81, "edges": 1003, "classes": [32, 32, 32, 35]},
    "eat": {"nodes": 399, "features": 203, "edges": 5993, "classes": [99, 99, 99, 102]},
    "uat": {"nodes": 1190, "features": 239, "edges": 13599, "classes": [297, 297, 297, 299]},
}
"""What a correct reading has (edges: undirected, without self-loops)."""


def load(name: str) -> Data:
    """A graph by name or path.

    Args:
        name: one of the catalogue (``cora``, ``citeseer``, ``amap``, ``bat``, ``eat``, ``uat``),
            looked for under the data folder; ``digits`` (from scikit-learn); ``generated:N`` (a
            planted graph with N nodes); ``pyg:Class`` or ``pyg:Class/Name`` (any data set of
            torch_geometric.datasets, which downloads it); or the path of an npy folder or of a
            gnn-benchmark ``.npz``.

    Raises:
        InputError: unknown name, or files that are missing (the message says where to get them).
    """
    kind, _, rest = name.partition(":")
    if name in CATALOGUE:
        folder = locate(CATALOGUE[name])
        if name in AIRPORTS:
            data = read_airports(folder, name)
        elif name == "amap":
            data = read_gnn_benchmark(folder / CATALOGUE[name].files[0].name)
        else:
            data = read_planetoid(folder, name)
    elif name == "digits":
        data = digits_graph()
    elif kind == "generated":
        if not rest.isdecimal() or int(rest) < 100:
            raise InputError(f"data set {name!r}; expected generated:N with N >= 100 nodes")
        data = attributed_graph(int(rest))
    elif kind == "pyg":
        data = _from_pyg(rest)
    elif Path(name).is_dir():
        data = read_npy_folder(Path(name))
    elif Path(name).suffix == ".npz":
        data = read_gnn_benchmark(Path(name))
    else:
        known = [*CATALOGUE, "digits", "generated:N", "pyg:Class/Name", "FOLDER", "FILE.npz"]
        raise InputError(did_you_mean(name, known, kind="data set"))
    return data


def statistics(data: Data) -> dict[str, object]:
    """Counts of a graph: nodes, features, undirected edges, class sizes."""
    y = getattr(data, "y", None)
    return {
        "nodes": data.num_nodes,
        "features": data.x.shape[1],
        "edges": edges_of(data),
        "classes": None if y is None else y.bincount().tolist(),
    }


def _from_pyg(spec: str) -> Data:
    from torch_geometric import datasets

    kind, _, name = spec.partition("/")
    maker = getattr(datasets, kind, None)
    if maker is None:
        raise InputError(did_you_mean(kind, datasets.__all__, kind="PyG data set"))
    root = str(data_root() / "pyg" / kind)
    try:
        dataset = maker(root, name) if name else maker() if kind == "KarateClub" else maker(root)
        data = dataset[0]
    except OSError as error:
        raise UnavailableError(f"pyg:{spec} could not be fetched: {error}") from error
    except TypeError as error:
        raise InputError(f"pyg:{spec}: {error}; expected pyg:Class or pyg:Class/Name") from error
    return as_data(data)
