"""Batches of sampled neighbourhoods, for graphs that do not fit a full pass.

The batches are those of PyG's ``NeighborLoader`` (``n_id``, ``batch_size``, roots first), which
:class:`~tenfold.reliant.wrapper.Reliant` takes as well; ``NeighborLoader`` needs pyg-lib, which is
on no package index, and this needs torch only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from tenfold.reliant.propagation import adjacency_of
from tenfold.shared.errors import InputError


def neighbour_batches(
    data: Data, batch_size: int, neighbours: Sequence[int], shuffle: bool = True
) -> Iterable[Data]:
    """Batches of root nodes with some of their neighbours, hop by hop; a new draw each pass.

    Each node that is reached gives ``neighbours[hop]`` of its neighbours, drawn with replacement
    (all of them, if it has no more than that).

    Args:
        data: a checked graph.
        batch_size: roots a batch.
        neighbours: how many a node, for each hop.
        shuffle: whether the roots come in a new random order.

    Returns:
        What can be gone over again and again. A batch is a graph with the masks, ``y`` and
        ``sensitive`` of its nodes, ``n_id`` int64 (numbers in ``data``, roots first) and
        ``batch_size``, the number of roots.
    """
    if batch_size < 1 or not neighbours or min(neighbours) < 1:
        raise InputError(
            f"batch_size={batch_size}, neighbours={list(neighbours)}; expected whole numbers >= 1"
        )
    return _Batches(data, batch_size, tuple(neighbours), shuffle)


@dataclass(frozen=True)
class _Batches:
    data: Data
    batch_size: int
    neighbours: tuple[int, ...]
    shuffle: bool

    def __iter__(self) -> Iterator[Data]:
        return _batches(self.data, self.batch_size, self.neighbours, self.shuffle)


def _batches(
    data: Data, batch_size: int, neighbours: Sequence[int], shuffle: bool
) -> Iterator[Data]:
    nodes = int(data.num_nodes or 0)
    device = data.edge_index.device
    order = torch.randperm(nodes) if shuffle else torch.arange(nodes)
    for roots in order.to(device).split(batch_size):
        ids, edges = _neighbourhood(data, roots, neighbours)
        batch = Data(
            x=data.x[ids],
            edge_index=edges,
            y=data.y[ids],
            sensitive=data.sensitive[ids],
            train_mask=data.train_mask[ids],
            val_mask=data.val_mask[ids],
            test_mask=data.test_mask[ids],
        )
        batch.n_id, batch.batch_size = ids, len(roots)
        yield batch


def _neighbourhood(data: Data, roots: Tensor, neighbours: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The nodes (roots first) and the sampled edges in both directions, in local numbers."""
    adjacency = adjacency_of(data.edge_index, int(data.num_nodes or 0))
    start, column = adjacency.crow.long(), adjacency.column.long()
    local = torch.full((adjacency.nodes,), -1, device=roots.device)
    local[roots] = torch.arange(len(roots), device=roots.device)
    ids, frontier, pairs = roots, roots, []
    for count in neighbours:
        degree = start[frontier + 1] - start[frontier]
        few = degree <= count
        own = frontier[few].repeat_interleave(degree[few])
        within = torch.arange(len(own), device=roots.device) - (
            degree[few].cumsum(0) - degree[few]
        ).repeat_interleave(degree[few])
        many = frontier[~few]
        drawn = torch.rand(len(many), count, device=roots.device) * degree[~few][:, None]
        source = torch.cat([own, many.repeat_interleave(count)])
        place = torch.cat([within, drawn.long().reshape(-1)])
        target = column[start[source] + place]
        pairs.append(torch.stack([source, target]))
        new = target[local[target] < 0].unique()
        local[new] = torch.arange(len(ids), len(ids) + len(new), device=roots.device)
        ids, frontier = torch.cat([ids, new]), new
    edges = local[torch.cat(pairs, 1)]
    return ids, torch.cat([edges, edges.flip(0)], 1)
