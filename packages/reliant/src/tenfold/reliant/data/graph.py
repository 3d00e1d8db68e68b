"""The one form of a graph: a PyG ``Data`` that has been checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from tenfold.shared.errors import InputError

SPLITS = ("train", "val", "test")


def fair_graph(
    x: Any,
    edge_index: Any,
    y: Any,
    sensitive: Any,
    splits: Sequence[Any],
    attributes: Sequence[str] | None = None,
) -> Data:
    """Makes a checked graph for fair node classification.

    Args:
        x: float [N, d], the attributes; a dense array or tensor.
        edge_index: int [2, E], source and target; directions, repetitions and self-loops are
            brought into one form (both directions once, no self-loop).
        y: int [N], classes counted from 0; -1 where the class is not known (not in a split).
        sensitive: int [N], groups counted from 0.
        splits: the node numbers of the training, validation and test part, int [.] each.
        attributes: names of the columns of ``x``.

    Returns:
        ``x`` float32 [N, d], ``edge_index`` int64 [2, E], ``y`` and ``sensitive`` int64 [N], and
        ``train_mask``, ``val_mask``, ``test_mask`` bool [N].

    Raises:
        InputError: for missing or infinite values, wrong shapes, a constant sensitive attribute,
            groups that a split lacks, overlapping splits, node numbers out of range.
    """
    features = (x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))).float()
    if features.ndim != 2:
        raise InputError(f"x: {features.ndim} dimensions; expected 2, nodes and attributes")
    nodes, width = features.shape
    wrong = ~torch.isfinite(features).all(0)
    if wrong.any():
        column = int(wrong.nonzero()[0, 0])
        name = repr(attributes[column]) if attributes is not None else str(column)
        rows = int((~torch.isfinite(features[:, column])).sum())
        raise InputError(f"x: column {name} has {rows} missing or infinite values")
    labels = _whole_numbers(y, "y", nodes, low=-1)
    groups = _whole_numbers(sensitive, "sensitive", nodes)
    if len(groups.unique()) < 2:
        raise InputError(f"sensitive: all {nodes} nodes have {int(groups[0])}; expected two groups")
    edges = _edges(edge_index, nodes)
    masks = _masks(splits, nodes)
    for name, mask in masks.items():
        part = labels[mask]
        if (part < 0).any():
            raise InputError(f"{name} split: {int((part < 0).sum())} nodes have no label")
        missing = set(groups.unique().tolist()) - set(groups[mask].unique().tolist())
        if missing:
            raise InputError(
                f"{name} split: no node with sensitive={sorted(missing)[0]}; expected each group"
            )
    if len(labels[masks["train"]].unique()) < 2:
        raise InputError("train split: all nodes have one label; expected at least two classes")
    data = Data(x=features, edge_index=edges, y=labels, sensitive=groups)
    for name, mask in masks.items():
        data[f"{name}_mask"] = mask
    data.attributes = list(attributes) if attributes is not None else list(map(str, range(width)))
    return data


def check_graph(data: Data) -> Data:
    """Checks a PyG ``Data`` that a user made; the errors are those of :func:`fair_graph`.

    Args:
        data: with ``x``, ``edge_index``, ``y``, ``sensitive`` and the three masks.
    """
    needed = ("x", "edge_index", "y", "sensitive", *(f"{name}_mask" for name in SPLITS))
    for name in needed:
        if getattr(data, name, None) is None:
            raise InputError(f"data: {name!r} is missing; expected {', '.join(needed)}")
    splits = [data[f"{name}_mask"].nonzero()[:, 0] for name in SPLITS]
    names = getattr(data, "attributes", None)
    return fair_graph(data.x, data.edge_index, data.y, data.sensitive, splits, names)


def row_normalised(x: np.ndarray) -> np.ndarray:
    """Divides each row by its sum; a row that sums to 0 becomes 0, as in the official code.

    Args:
        x: float [N, d].
    """
    total = np.asarray(x, dtype=np.float64).sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        factor = 1.0 / total
    return x * np.where(np.isinf(factor), 0.0, factor)


def statistics(data: Data) -> dict[str, Any]:
    """Counts of a graph.

    Returns:
        ``nodes``, ``attributes``, ``edges`` (undirected, without loops), ``entries`` (of the
        self-looped symmetric adjacency), ``isolated``, ``classes`` and ``groups`` (sizes),
        ``split`` (sizes), ``label homophily`` and ``group homophily`` (share of edges), and
        ``label gap`` (largest difference of a class's rate between two groups).
    """
    source, target = data.edge_index
    known = data.y >= 0
    both = known[source] & known[target]
    rates = [
        torch.bincount(data.y[known & (data.sensitive == g)], minlength=int(data.y.max()) + 1)
        / max(1, int((known & (data.sensitive == g)).sum()))
        for g in data.sensitive.unique()
    ]
    stacked = torch.stack(rates)
    return {
        "nodes": data.num_nodes,
        "attributes": data.x.shape[1],
        "edges": data.edge_index.shape[1] // 2,
        "entries": data.edge_index.shape[1] + data.num_nodes,
        "isolated": int((torch.bincount(source, minlength=data.num_nodes) == 0).sum()),
        "classes": data.y[known].bincount().tolist(),
        "groups": data.sensitive.bincount().tolist(),
        "split": [int(data[f"{name}_mask"].sum()) for name in SPLITS],
        "label homophily": float((data.y[source] == data.y[target])[both].float().mean()),
        "group homophily": float((data.sensitive[source] == data.sensitive[target]).float().mean()),
        "label gap": float((stacked.max(0).values - stacked.min(0).values).max()),
    }


def _whole_numbers(values: Any, name: str, nodes: int, low: int = 0) -> Tensor:
    """A vector of whole numbers; -0.0 and 1.0 count as such, 0.5 and NaN do not."""
    found = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if found.shape != (nodes,):
        raise InputError(f"{name}: shape {list(found.shape)}; expected [{nodes}], one each node")
    if found.is_floating_point():
        bad = ~torch.isfinite(found) | (found != found.round())
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise InputError(f"{name}: node {row} has {float(found[row])}; expected whole numbers")
    found = found.long()
    if found.numel() and int(found.min()) < low:
        row = int(found.argmin())
        raise InputError(f"{name}: node {row} has {int(found[row])}; expected at least {low}")
    return found


def _edges(edge_index: Any, nodes: int) -> Tensor:
    given = edge_index if isinstance(edge_index, Tensor) else torch.from_numpy(np.array(edge_index))
    edges = given.long()
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise InputError(f"edge_index: shape {list(edges.shape)}; expected [2, edges]")
    if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= nodes):
        raise InputError(f"edge_index: node {int(edges.max())}; expected 0 to {nodes - 1}")
    edges, _ = remove_self_loops(edges)
    return to_undirected(coalesce(edges, num_nodes=nodes), num_nodes=nodes)


def _masks(splits: Sequence[Any], nodes: int) -> dict[str, Tensor]:
    if len(splits) != len(SPLITS):
        raise InputError(f"splits: {len(splits)} parts; expected {', '.join(SPLITS)}")
    masks: dict[str, Tensor] = {}
    for name, part in zip(SPLITS, splits, strict=True):
        numbers = np.asarray(part)  # the files of DBLP hold them as floats
        if numbers.ndim != 1 or numbers.size == 0:
            raise InputError(f"{name} split: shape {list(numbers.shape)}; expected node numbers")
        if not np.isfinite(numbers.astype(np.float64)).all() or (numbers % 1 != 0).any():
            raise InputError(f"{name} split: expected whole node numbers")
        whole = torch.from_numpy(numbers.astype(np.int64))
        if int(whole.min()) < 0 or int(whole.max()) >= nodes:
            raise InputError(f"{name} split: node {int(whole.max())}; expected 0 to {nodes - 1}")
        mask = torch.zeros(nodes, dtype=torch.bool)
        mask[whole] = True
        for other, taken in masks.items():
            if (mask & taken).any():
                node = int((mask & taken).nonzero()[0, 0])
                raise InputError(f"splits: node {node} is in {other} and in {name}")
        masks[name] = mask
    return masks
