"""The data sets that go by name: where their files come from, and the counts they must have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from tenfold.reliant.data.generated import biased_graph
from tenfold.reliant.data.readers import (
    Scaling,
    read_credit,
    read_credit_large,
    read_dblp,
    read_german,
    read_recidivism,
)
from tenfold.shared.datasets import Dataset, File, locate
from tenfold.shared.errors import InputError, did_you_mean

NIFTY = "https://github.com/chirag126/nifty"
RAW = "https://raw.githubusercontent.com/chirag126/nifty/main/dataset"
OFFICIAL = "https://github.com/yushundong/RELIANT"
_CREDIT_SHA = "5d7a93f25a09dd1648c78b5e0c6a883ca832ee88259d89dfe1062e8c848bfe5d"


def _nifty(name: str, title: str, folder: str, files: dict[str, str | None]) -> Dataset:
    made = tuple(File(file, f"{RAW}/{folder}/{file}", digest) for file, digest in files.items())
    return Dataset(name, title, folder, made, "MIT (repository)", NIFTY, package="reliant")


def _dblp(name: str, title: str, folder: str) -> Dataset:
    files = tuple(
        File(file, "", None)
        for file in (
            "edgelist.txt",
            "labels.txt",
            "sens.txt",
            "X.npz",
            *(f"split/{part}_split.npy" for part in ("train", "val", "test")),
        )
    )
    note = "put the folder's files there by hand"
    return Dataset(name, title, folder, files, "unknown", OFFICIAL, note=note, package="reliant")


CATALOGUE: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _nifty(
            "recidivism",
            "Recidivism (bail)",
            "bail",
            {"bail.csv": "11a7c62be2b7aed7cb069624789755d5f57acc8b69580564e2401b084e2d5faf"},
        ),
        _nifty("credit", "Credit default, similarity graph", "credit", {"credit.csv": _CREDIT_SHA}),
        _nifty(
            "german",
            "German credit",
            "german",
            {"german.csv": "49cc549b1ca3f1650e3bdcd8cfce62313c763abfbcbf785d32b07fb76ae078ca"},
        ),
        _nifty(
            "credit-large",
            "Credit default, the larger graph",
            "credit",
            {"credit.csv": _CREDIT_SHA, "credit_edges.txt": None},
        ),
        _dblp("dblp", "DBLP co-authors (AMiner-S)", "small"),
        _dblp("dblp-l", "DBLP-L co-authors (AMiner-L)", "medium"),
    )
}
"""The data sets of the paper, and German."""

READERS: dict[str, Callable[..., Data]] = {
    "recidivism": read_recidivism,
    "credit": read_credit,
    "credit-large": read_credit_large,
    "german": read_german,
}

COUNTS: dict[str, dict[str, Any]] = {
    "recidivism": {
        "nodes": 18876,
        "edges": 311870,
        "entries": 642616,
        "isolated": 0,
        "classes": [11772, 7104],
        "groups": [9317, 9559],
        "split": [5662, 3776, 9438],
    },
    "credit": {
        "nodes": 30000,
        "edges": 137377,
        "entries": 304754,
        "classes": [6636, 23364],
        "groups": [27315, 2685],
    },
    "german": {"nodes": 1000, "edges": 21742},
    "dblp": {
        "nodes": 39424,
        "attributes": 5694,
        "edges": 52460,
        "entries": 144344,
        "split": [19712, 9855, 9857],
    },
    "dblp-l": {"nodes": 129726, "attributes": 5694, "edges": 591039, "entries": 1311804},
    "credit-large": {"edges": 1421858},
}
"""What a correct reading has (edges: undirected, without loops; entries: with both directions and
self-loops)."""


def load(name: str, scaling: Scaling | None = None, keep_sensitive: bool = True) -> Data:
    """A graph by name.

    Args:
        name: one of the catalogue (``recidivism``, ``credit``, ``german``, ``credit-large``,
            ``dblp``, ``dblp-l``), looked for under the data folder, or ``generated`` or
            ``generated:N`` (a biased graph with N nodes).
        scaling: of the attributes; by default the reader's. Tables only.
        keep_sensitive: whether the sensitive column stays among the attributes. Tables only.

    Raises:
        InputError: unknown name, or files that are missing (the message says where to get them).
    """
    kind, _, rest = name.partition(":")
    if kind == "generated":
        if rest and not rest.isdecimal():
            raise InputError(f"data set {name!r}; expected generated:N with N nodes")
        return biased_graph(int(rest)) if rest else biased_graph()
    if name not in CATALOGUE:
        raise InputError(did_you_mean(name, [*CATALOGUE, "generated:N"], kind="data set"))
    folder: Path = locate(CATALOGUE[name])
    if name not in READERS:
        return read_dblp(folder)
    options: dict[str, Any] = {} if scaling is None else {"scaling": scaling}
    return READERS[name](folder, keep_sensitive=keep_sensitive, **options)
