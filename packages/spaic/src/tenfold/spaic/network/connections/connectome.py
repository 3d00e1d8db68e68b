"""Connectomes: who is linked to whom in an animal, from a table of edges (section 23.2)."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections.connection import Connection
from tenfold.spaic.network.groups import NeuronGroup


@dataclass(frozen=True)
class Connectome:
    """Neurons by name, and the edges among them.

    Attributes:
        neurons: The names, in the order of a group's neurons.
        pre_index: int64 [edges], the sources.
        post_index: int64 [edges], the targets.
        weight: float64 [edges], for example the number of contacts.
        kinds: One label an edge, for example `chemical` or `electrical`; empty strings without.
    """

    neurons: tuple[str, ...]
    pre_index: np.ndarray
    post_index: np.ndarray
    weight: np.ndarray
    kinds: tuple[str, ...]

    def of(self, kind: str | None) -> np.ndarray:
        """Finds the edges of a kind: bool [edges].

        Args:
            kind: The label; None for all.

        Raises:
            InputError: If no edge has it.
        """
        found = np.array([kind is None or label == kind for label in self.kinds], dtype=bool)
        if kind is not None and not found.any():
            raise InputError(f"kind={kind!r}: the edges are {', '.join(sorted(set(self.kinds)))}")
        return found

    def matrix(self, kind: str | None = None) -> np.ndarray:
        """Gives the weights as (post, pre); edges between the same two neurons add up.

        Args:
            kind: Which edges; all by default.
        """
        made = np.zeros((len(self.neurons), len(self.neurons)))
        part = self.of(kind)
        np.add.at(made, (self.post_index[part], self.pre_index[part]), self.weight[part])
        return made

    def connect(
        self, group: NeuronGroup, kind: str | None = None, scale: float = 1.0, **options: Any
    ) -> Connection:
        """Links a group to itself by the edges of a kind.

        Args:
            group: A group of as many neurons.
            kind: Which edges; all by default.
            scale: What a weight is multiplied by.
            **options: Further arguments of the connection; with `syn_type="electrical"` the edges
                become gap junctions.

        Raises:
            InputError: For a group of another size, or a kind that no edge has.
        """
        if group.num != len(self.neurons):
            raise InputError(f"{group!r} has {group.num} neurons, not {len(self.neurons)}")
        if options.get("syn_type") == "electrical":
            return Connection(group, group, weight=scale * self.matrix(kind), **options)
        part = self.of(kind)
        options |= {"pre_index": self.pre_index[part], "post_index": self.post_index[part]}
        weight = scale * self.weight[part]
        return Connection(group, group, link_type="index", weight=weight, **options)


def read_connectome(
    path: Path | str,
    columns: Sequence[str] = ("pre", "post", "weight"),
    kind: str | None = None,
    delimiter: str = ",",
) -> Connectome:
    """Reads a table of edges, such as those of C. elegans: one edge a line, the head names columns.

    Args:
        path: A text file in UTF-8.
        columns: The names of the columns that hold source, target and weight.
        kind: The column of the edges' labels, if there is one.
        delimiter: What stands between columns.

    Returns:
        The neurons in alphabetical order, and the edges in the file's.

    Raises:
        InputError: For a file that cannot be read, a column that is missing, a weight that is not a
            finite number, a neuron without a name; it names the line.
    """
    wanted = [*columns, *([kind] if kind is not None else [])]
    edges: list[tuple[str, str, float, str]] = []
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            missing = [name for name in wanted if name not in (rows.fieldnames or [])]
            if missing:
                found = ", ".join(rows.fieldnames or []) or "none"
                raise InputError(f"{path}: no column {', '.join(missing)}; the columns are {found}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                pre, post, text, *label = ((row[name] or "").strip() for name in wanted)
                try:
                    weight = float(text)
                except ValueError:
                    weight = math.nan
                if not math.isfinite(weight):
                    raise InputError(f"{where}: weight {text!r} is not a finite number")
                if not pre or not post:
                    raise InputError(f"{where}: a neuron has no name")
                edges.append((pre, post, weight, label[0] if label else ""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of edges ({error})") from error
    if not edges:
        raise InputError(f"{path}: no edges")
    names = sorted({name for edge in edges for name in edge[:2]})
    place = {name: k for k, name in enumerate(names)}
    return Connectome(
        neurons=tuple(names),
        pre_index=np.array([place[edge[0]] for edge in edges], dtype=np.int64),
        post_index=np.array([place[edge[1]] for edge in edges], dtype=np.int64),
        weight=np.array([edge[2] for edge in edges]),
        kinds=tuple(edge[3] for edge in edges),
    )
