"""Circuits over several processes: each has a share of every group, and spikes are exchanged.

The standard scheme of the field (Morrison et al. 2005): a rank owns a slice of the neurons and all
synapses that end there, computes as many steps as the shortest delay has, then tells the others
which of its neurons spiked. Slices are contiguous and lists are joined in the order of the ranks,
so that sums are made in the same order as in one process: spikes are equal to the last bit. Where
a circuit has no delay at all, the exchange is in the middle of each step.

Each rank builds the whole description of the network and keeps its own synapses for the run.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.engines.compiled import compiled

TIMEOUT = timedelta(seconds=120)
"""How long a rank waits for the others."""


def ranks() -> int:
    """Gives the number of processes; joins those that `torchrun` started.

    Raises:
        InputError: If this process was not started as one of several.
    """
    from torch import distributed

    if not distributed.is_available():
        raise InputError("this torch has no torch.distributed; set_backend without partition")
    if not distributed.is_initialized():
        if "RANK" not in os.environ:
            raise InputError(
                "partition=True: there is one process; start several with torchrun, or with "
                "tenfold.spaic.engines.ranks.launched"
            )
        distributed.init_process_group("gloo", timeout=TIMEOUT)
    return int(distributed.get_world_size())


@contextmanager
def launched(processes: int, function: Callable[..., Any], *arguments: Any) -> Iterator[None]:
    """Makes this process the first of several; the others call a function.

    In the block this process must do what the function does in the others.

    Args:
        processes: How many there are.
        function: What the others call; a function of a module.
        *arguments: Its arguments.
    """
    from torch import distributed, multiprocessing

    if processes < 2:
        raise InputError(f"processes={processes}; expected >= 2")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(
                target=_other, args=(meeting, rank, processes, function, arguments), daemon=True
            )
            for rank in range(1, processes)
        ]
        for other in others:
            other.start()
        try:
            distributed.init_process_group(
                "gloo", init_method=meeting, rank=0, world_size=processes, timeout=TIMEOUT
            )
            yield
            for other in others:
                other.join(TIMEOUT.total_seconds())
        finally:
            for other in others:
                if other.is_alive():
                    other.terminate()
                other.join(10)
            if distributed.is_initialized():
                distributed.destroy_process_group()


def _other(
    meeting: str, rank: int, world: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    from torch import distributed

    os.environ["RANK"] = str(rank)  # says to the rest of Tenfold that this process is silent
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=TIMEOUT
    )
    function(*arguments)
    distributed.destroy_process_group()


class Share:
    """Which neurons of a group are this rank's.

    Args:
        world: The number of ranks.
    """

    def __init__(self, world: int) -> None:
        from torch import distributed

        self.world = world
        self.rank = distributed.get_rank() if world > 1 else 0

    def of(self, size: int, rank: int | None = None) -> tuple[int, int]:
        """Gives the first neuron and the last + 1.

        Args:
            size: The number of neurons.
            rank: Of which rank; by default this one.
        """
        rank = self.rank if rank is None else rank
        return size * rank // self.world, size * (rank + 1) // self.world

    def whole(self, part: np.ndarray, size: int) -> np.ndarray:
        """Joins the parts of all ranks.

        Args:
            part: This rank's.
            size: How many there are in all.
        """
        if self.world == 1:
            return part.copy()
        from torch import distributed

        sizes = [last - first for first, last in (self.of(size, r) for r in range(self.world))]
        longest = max(sizes)
        mine = torch.zeros(longest, dtype=torch.from_numpy(part).dtype)
        mine[: len(part)] = torch.from_numpy(part)
        parts = [torch.empty_like(mine) for _ in sizes]
        distributed.all_gather(parts, mine)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)]).numpy()


# What a rank tells the others about some steps: for each group and step how many neurons spiked,
# then which, group by group, step by step.
_PACK = """
@njit
def loop(flat, counts, base, size, first, begin, steps, out):
    groups, slots = counts.shape
    place = 1 + groups * steps
    for g in range(groups):
        for s in range(steps):
            row = (begin + s) % slots
            n = counts[g, row]
            out[1 + g * steps + s] = n
            at = base[g] + row * size[g]
            for k in range(n):
                if place + k < len(out):
                    out[place + k] = flat[at + k] + first[g]
            place += n
    out[0] = place
    return place
"""
_UNPACK = """
@njit
def loop(told, flat, counts, base, size, begin, steps):
    world = told.shape[0]
    groups, slots = counts.shape
    places = np.zeros(world, np.int64) + 1 + groups * steps
    for g in range(groups):
        for s in range(steps):
            row = (begin + s) % slots
            at = base[g] + row * size[g]
            total = 0
            for r in range(world):
                n = told[r, 1 + g * steps + s]
                for k in range(n):
                    flat[at + total + k] = told[r, places[r] + k]
                places[r] += n
                total += n
            counts[g, row] = total
    return 0
"""


class Exchange:
    """Tells all ranks which neurons spiked.

    Args:
        share: Which neurons are whose.
        sizes: The number of neurons of each group.
        slots: How many steps of spikes are kept.
        window: After how many steps spikes are needed; 0: in the same step.
    """

    def __init__(self, share: Share, sizes: list[int], slots: int, window: int) -> None:
        self.share, self.window = share, window
        own = [share.of(n) for n in sizes]
        self.first = np.array([first for first, _ in own], dtype=np.int32)
        self.mine = _Lists([last - first for first, last in own], slots)
        self.all = _Lists(sizes, slots)
        self.room = 1 + len(sizes) * max(window, 1) + 256
        self.pack, self.unpack = compiled(_PACK, {}), compiled(_UNPACK, {})

    def lists(self, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Gives the spikes of a group and their numbers, of all neurons and of this rank's.

        Args:
            group: Its number.
        """
        return (*self.all.of(group), *self.mine.of(group))

    def advance(
        self,
        loop: Any,
        arguments: dict[str, Any],
        begun: int,
        at: int,
        target: int,
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]],
    ) -> int:
        """Runs to a step, exchanging spikes as often as needed.

        Args:
            loop: The compiled loop.
            arguments: Its arguments.
            begun: The first step of the run.
            at: The step to begin with.
            target: The step to end before.
            found: Group → the spikes (who, when), filled.
        """
        given = tuple(arguments.values())
        while at < target:
            steps = min(max(self.window, 1), target - at)
            if self.window:
                loop(*given, begun, at, at + steps, 0)
                self._tell(at, steps)
            else:
                loop(*given, begun, at, at + 1, 1)
                self._tell(at, 1)
                loop(*given, begun, at, at + 1, 2)
            for group, parts in found.items():
                spikes, counts = self.all.of(group)
                for t in range(at, at + steps):
                    row = t % len(counts)
                    if counts[row]:
                        who = spikes[row, : counts[row]].astype(np.int64)
                        parts.append((who, np.full(len(who), t)))
            at += steps
        return at

    def _tell(self, begin: int, steps: int) -> None:
        from torch import distributed

        mine, world = self.mine, self.share.world
        while True:
            out = torch.zeros(self.room, dtype=torch.int32)
            self.pack(
                mine.flat, mine.counts, mine.base, mine.size, self.first, begin, steps, out.numpy()
            )
            told = torch.empty(world, self.room, dtype=torch.int32)
            distributed.all_gather(list(told.unbind(0)), out)
            needed = int(told[:, 0].max())
            if needed <= self.room:
                break
            self.room = 2 * needed  # all ranks see the same number, and tell again
        every = self.all
        self.unpack(told.numpy(), every.flat, every.counts, every.base, every.size, begin, steps)


class _Lists:
    """The spikes of the last steps of all groups, in one array."""

    def __init__(self, sizes: list[int], slots: int) -> None:
        self.size = np.array(sizes, dtype=np.int64)
        self.base = np.concatenate([[0], np.cumsum(self.size * slots)]).astype(np.int64)
        self.flat = np.zeros(int(self.base[-1]), dtype=np.int32)
        self.counts = np.zeros((len(sizes), slots), dtype=np.int64)

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The lists [slots, neurons] and their lengths [slots] of one group."""
        part = self.flat[self.base[group] : self.base[group + 1]]
        return part.reshape(self.counts.shape[1], self.size[group]), self.counts[group]
