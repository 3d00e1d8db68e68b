"""Monitors: what is recorded during a run (section 2.5)."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.objects import BaseModule, untagged
from tenfold.spaic.units import measured


class Monitor(BaseModule):
    """Records a variable of a part at the end of steps.

    Args:
        target: A group, source, connection, reward or learner.
        var_name: The variable: a state or an input (`Isyn`) of a group, `O` of a source, `weight`,
            `bias` or `delay` of a connection, `Output_Reward` of a reward, a trace of a learner's
            rule that trains one connection.
        index: An index into the variable, one entry for each axis, without or with the batch axis
            (a sample's number keeps that axis); `"full"` for all of it.
        dt: The sampling interval in ms; by default every step.
        get_grad: Keep the gradients of what is recorded.
        nbatch: False: each run overwrites; True: all runs are kept; n: the last n.
        name: The name.

    Raises:
        InputError: For an interval that is not positive, or an `nbatch` that is no number of runs.
    """

    label = "mon"
    of_run = dict.fromkeys(("_records", "_times", "_earlier", "_chunks", "_all_times"), list)

    def __init__(
        self,
        target: Any,
        var_name: str = "O",
        index: Any = "full",
        dt: float | None = None,
        get_grad: bool = False,
        nbatch: bool | int = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        dt = measured("dt", dt, f"{self!r}")
        if dt is not None and dt <= 0:
            raise InputError(f"{self!r}: dt={dt}; expected > 0 ms")
        if not isinstance(nbatch, bool) and (not isinstance(nbatch, int) or nbatch < 0):
            raise InputError(f"{self!r}: nbatch={nbatch!r}; expected False, True or a number >= 0")
        self.target, self.var_name, self.index, self.dt = target, untagged(var_name), index, dt
        self.get_grad, self.nbatch = get_grad, nbatch
        self.on = True
        self._records: list[Tensor] = []
        self._times: list[float] = []
        self._earlier: list[Any] = []

    def monitor_on(self) -> None:
        """Records again."""
        self.on = True

    def monitor_off(self) -> None:
        """Stops recording."""
        self.on = False

    def clear(self) -> None:
        """Forgets everything."""
        self._records, self._times, self._earlier = [], [], []

    def start_run(self) -> None:
        """Begins a new record."""
        if self._records and self.nbatch:
            self._keep((self.values, self.times))
        self._records, self._times = [], []

    def _keep(self, run: Any) -> None:
        self._earlier.append(run)
        keep = len(self._earlier) if self.nbatch is True else int(self.nbatch) - 1
        self._earlier = self._earlier[-keep:] if keep else []

    def is_due(self, step: int, dt: float) -> bool:
        """Says whether a sample is taken at the end of a step.

        Args:
            step: The number of steps done, from 1.
            dt: The network's step in ms.
        """
        if not self.on:
            return False
        if self.dt is None:
            return True
        every = self.dt / dt  # the first step at or after each multiple of the interval
        return int(step / every + 1e-6) > int((step - 1) / every + 1e-6)

    def take(self, value: Tensor, time: float) -> None:
        """Adds a sample; it is copied, since learning changes weights in place.

        Args:
            value: [batch, *shape].
            time: The end of the step in ms.

        Raises:
            InputError: If the index does not fit the variable.
        """
        if not self._records:
            self._picked(value)  # a wrong index is told at once
        if self.get_grad and value.requires_grad and not self._of_link:
            value.retain_grad()
            self._records.append(value)  # itself: the gradient arrives there
        else:
            self._records.append(value.clone() if value.requires_grad else value.detach().clone())
        self._times.append(time)

    @property
    def _of_link(self) -> bool:
        return hasattr(self.target, "weight_name")

    def _picked(self, value: Tensor) -> Tensor:
        if isinstance(self.index, str):
            return value
        index = self.index if isinstance(self.index, tuple) else (self.index,)
        try:
            if len(index) < value.ndim:
                return value[(slice(None), *index)]
            first = index[0]
            one = isinstance(first, int | np.integer)
            if one and not -len(value) <= first < len(value):
                raise IndexError(f"there are {len(value)} samples")
            sample = slice(first, first + 1 or None) if one else first
            return value[sample][(slice(None), *index[1:])]
        except (IndexError, TypeError) as error:
            raise InputError(
                f"{self!r}: index={self.index} does not fit {self.var_name} of {self.target!r}, of "
                f"shape {tuple(value.shape)}, the batch first ({error})"
            ) from error

    @property
    def tensor_values(self) -> Tensor:
        """[batch, *shape, steps], the graph kept."""
        if not self._records:
            raise InputError(f"{self!r} has recorded nothing yet")
        return torch.stack([self._picked(item) for item in self._records], dim=-1)

    @property
    def values(self) -> np.ndarray:
        """[batch, *shape, steps]."""
        made: np.ndarray = self.tensor_values.detach().cpu().numpy()
        return made

    @property
    def times(self) -> np.ndarray:
        """[steps], the end of each sampled step in ms."""
        return np.asarray(self._times)

    @property
    def grads(self) -> np.ndarray:
        """Gradients of what was recorded, the step axis last; zeros where none arrived.

        A link has one weight in all steps: the gradient of each sample is that of the weight.
        """
        held = self._records
        if self._of_link:
            held = [getattr(self.target, self.var_name)] * len(held)
        made = [item.grad if item.grad is not None else torch.zeros_like(item) for item in held]
        made = [item[None] for item in made] if self._of_link else made
        found: np.ndarray = torch.stack([self._picked(g) for g in made], dim=-1).cpu().numpy()
        return found

    @property
    def nbatch_runs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(values, times) of each kept run, the newest last; runs may differ in length."""
        return [*self._earlier, (self.values, self.times)]

    @property
    def nbatch_values(self) -> np.ndarray:
        """The values of the kept runs, stacked: [runs, batch, *shape, steps].

        Raises:
            InputError: If their shapes differ.
        """
        return self._stacked([values for values, _ in self.nbatch_runs])

    @property
    def nbatch_times(self) -> np.ndarray:
        """The times of the kept runs, stacked: [runs, steps].

        Raises:
            InputError: If their lengths differ.
        """
        return self._stacked([times for _, times in self.nbatch_runs])

    def _stacked(self, runs: list[np.ndarray]) -> np.ndarray:
        shapes = list(dict.fromkeys(run.shape for run in runs))
        if len(shapes) > 1:
            told = ", ".join(map(str, shapes))
            raise InputError(f"{self!r}: its runs have the shapes {told}; read nbatch_runs")
        return np.stack(runs)


class StateMonitor(Monitor):
    """Records a variable; see `Monitor`."""

    def plot_weight(
        self,
        time_id: int = -1,
        neuron_id: Any = None,
        batch_id: int = 0,
        reshape: bool = True,
        n_sqrt: int | None = None,
        side: int | None = None,
        im: Any = None,
        wmin: float | None = None,
        wmax: float | None = None,
        cmap: str = "hot_r",
    ) -> Any:
        """Shows recorded weights as n_sqrt × n_sqrt images of side × side pixels.

        Args:
            time_id: Which sample.
            neuron_id: Which target neurons; all by default.
            batch_id: Which sample of the batch (weights have one).
            reshape: Whether rows are images.
            n_sqrt: Images in a row.
            side: Pixels in a row of an image.
            im: An earlier image, which is then updated.
            wmin: The lowest weight of the colours.
            wmax: The highest.
            cmap: The colours.

        Returns:
            The matplotlib image.

        Raises:
            InputError: If what was recorded is no matrix, or its rows are shorter than an image.
        """
        from tenfold.spaic.pictures import weight_image

        weight = self.values[..., time_id]
        weight = weight[batch_id] if weight.ndim == 3 else weight
        if neuron_id is not None:
            weight = weight[np.atleast_1d(neuron_id)]
        if weight.ndim != 2 or (reshape and side is not None and side * side > weight.shape[1]):
            raise InputError(
                f"{self!r}: {weight.shape} cannot be shown as images of {side} × {side} pixels"
            )
        return weight_image(weight, reshape, n_sqrt, side, im, wmin, wmax, cmap)


class SpikeMonitor(Monitor):
    """Records spikes; small, since only the spikes themselves are kept. See `Monitor`."""

    def __init__(self, target: Any, var_name: str = "O", *arguments: Any, **options: Any) -> None:
        super().__init__(target, var_name, *arguments, **options)
        self._forget()

    def _forget(self) -> None:
        self._chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # batch, neuron, time
        self._all_times: list[float] = []
        self._size = (1, 0)

    def clear(self) -> None:
        """Forgets everything."""
        super().clear()
        self._forget()

    def start_run(self) -> None:
        """Begins a new record."""
        if self._all_times and self.nbatch:
            run = copy.copy(self)
            run._earlier = []
            self._keep(run)
        self._forget()

    def take(self, value: Tensor, time: float) -> None:
        """Adds the spikes of a step."""
        picked = self._picked(value.detach())
        flat = picked.reshape(len(picked), -1)
        found = flat.nonzero().cpu().numpy()
        self._size = (max(self._size[0], flat.shape[0]), flat.shape[1])
        self._chunks.append((found[:, 0], found[:, 1], np.full(len(found), time)))
        self._all_times.append(time)

    def take_events(
        self, neurons: np.ndarray, times: np.ndarray, size: int, steps: np.ndarray
    ) -> None:
        """Adds the spikes of many steps at once, as the event engine has them.

        Args:
            neurons: int64 [spikes].
            times: [spikes], in ms.
            size: The number of neurons.
            steps: [steps], the ends of all steps in ms.
        """
        self._size = (1, size)
        self._chunks.append((np.zeros(len(neurons), dtype=np.int64), neurons, times))
        self._all_times.extend(steps.tolist())

    def push_spike_train(self, times: Any, index: Any, batch_index: int = 0) -> None:
        """Inserts spikes that were made elsewhere, for example by hardware.

        Args:
            times: In ms.
            index: The neurons.
            batch_index: The sample.
        """
        times, index = np.asarray(times, dtype=np.float64), np.asarray(index, dtype=np.int64)
        if times.shape != index.shape or times.ndim != 1:
            raise InputError(f"{self!r}: {times.shape} times and {index.shape} neurons")
        columns = max(self._size[1], getattr(self.target, "num", 0))
        if len(index) and not 0 <= index.min() <= index.max() < columns:
            raise InputError(
                f"{self!r}: neurons {index.min()}..{index.max()}; expected 0..{columns - 1}"
            )
        self._size = (max(self._size[0], batch_index + 1), columns)
        self._chunks.append((np.full(len(index), batch_index), index, times))

    def _events(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self._chunks:
            none = np.zeros(0, dtype=np.int64)
            return none, none, np.zeros(0)
        batch, neuron, time = (np.concatenate(p) for p in zip(*self._chunks, strict=True))
        order = np.lexsort((time, neuron, batch))
        return batch[order], neuron[order], time[order]

    @property
    def spk_times(self) -> list[np.ndarray]:
        """The times of each sample's spikes in ms, by neuron, then by time."""
        batch, _, time = self._events()
        return [time[batch == sample] for sample in range(self._size[0])]

    @property
    def spk_index(self) -> list[np.ndarray]:
        """The neurons of each sample's spikes, in the order of `spk_times`."""
        batch, neuron, _ = self._events()
        return [neuron[batch == sample] for sample in range(self._size[0])]

    @property
    def spk_count(self) -> np.ndarray:
        """[batch, num], the number of spikes."""
        batch, neuron, _ = self._events()
        rows, columns = self._size
        made = np.bincount(batch * columns + neuron, minlength=rows * columns)
        return made.reshape(rows, columns)

    @property
    def time(self) -> np.ndarray:
        """[steps], the end of each step in ms."""
        return np.asarray(self._all_times)

    @property
    def times(self) -> np.ndarray:
        """The same as `time`."""
        return self.time

    @property
    def nbatch_runs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(raster, times) of each kept run, the newest last; runs may differ in length."""
        return [(run.values, run.time) for run in [*self._earlier, self]]

    def _raster(self) -> np.ndarray:
        """[batch, num, steps]; for small networks. Spikes from outside after the last step, which
        were pushed in, have no place in it."""
        made = np.zeros((*self._size, len(self._all_times)))
        batch, neuron, time = self._events()
        where = np.searchsorted(self.time, time - 1e-9)
        within = where < len(self._all_times)
        np.add.at(made, (batch[within], neuron[within], where[within]), 1.0)
        return made

    @property
    def values(self) -> np.ndarray:
        """[batch, num, steps], the raster."""
        return self._raster()

    @property
    def time_spk_rate(self) -> np.ndarray:
        """[num, steps], the mean of the raster over the batch."""
        made: np.ndarray = self._raster().mean(0)
        return made

    @property
    def time_pop_rate(self) -> np.ndarray:
        """[batch, steps], the mean of the raster over the neurons."""
        batch, _, time = self._events()
        steps = np.searchsorted(self.time, time - 1e-9)
        made = np.zeros((self._size[0], len(self._all_times)))
        within = steps < len(self._all_times)
        np.add.at(made, (batch[within], steps[within]), 1.0)
        return made / max(self._size[1], 1)
