"""Simulations of circuits and network files, and what is measured of them (card section 18)."""

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.spaic.configuration import SimulateConfig
from tenfold.spaic.engines.ranks import launched
from tenfold.spaic.library import CIRCUITS, rates
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Encoder
from tenfold.spaic.reports import spiking_groups


@dataclass
class Simulated:
    """What a simulation gives.

    Attributes:
        network: The network; its monitors hold the spikes.
        rates: Population → Hz, after `SimulateConfig.skipped`; `all` for the whole circuit.
        irregularity: Mean CV of the intervals between a neuron's spikes.
        correlation: Mean correlation of two neurons' spike counts in 5 ms.
        build_seconds: Processor time of building and compiling.
        seconds: Processor time of the simulation.
        real_time: Processor time over biological time.
        synapses: How many there are.
        synaptic_events: Spikes that went over the synapses between watched groups, a second of
            processor time.
        engine: Which engine ran, and why.
    """

    network: Network
    rates: dict[str, float]
    irregularity: float
    correlation: float
    build_seconds: float
    seconds: float
    real_time: float
    synapses: int
    synaptic_events: float
    engine: str

    @property
    def neurons(self) -> int:
        """The neurons of the watched groups: those that spike."""
        return sum(monitor.target.num for monitor in self.network.parts(SpikeMonitor))


def simulate(config: SimulateConfig, traced: float = 0.0) -> Simulated:
    """Simulates a circuit of the library or a network of a file.

    Args:
        config: The simulation; with several processes this one is the first of them.
        traced: How much of the end is recorded in detail for pictures, in ms.

    Raises:
        InputError: For a file that cannot be read, a network that waits for data, or one that does
            not fit into memory.
    """
    from torch import distributed

    try:
        if config.processes > 1 and not (distributed.is_initialized() or "RANK" in os.environ):
            with launched(config.processes, simulate, config, traced):
                return _simulated(config, traced)
        return _simulated(config, traced)
    except MemoryError as error:
        told = config.circuit if config.size is None else f"size={config.size}"
        raise InputError(f"{told}: more than this machine's memory holds ({error})") from error


def _simulated(config: SimulateConfig, traced: float) -> Simulated:
    begun = time.process_time()
    if config.file is not None:
        net = _from_file(config.file, config.time, config.drive)
        net.set_random_seed(config.seed)
    else:
        if config.drive is not None:
            raise InputError(f"drive={config.drive}; {config.circuit} has sources of its own")
        circuit = CIRCUITS[config.circuit]
        net = circuit.make(config.size if config.size is not None else circuit.size, config.seed)
    if config.processes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        net.set_backend(partition=True)
    monitors = _tracers(net) if traced else []
    net.build(engine=config.engine)
    net.run(net.dt)  # compiles; the run below begins anew
    built = time.process_time() - begun
    begun = time.process_time()
    # In whole steps, so that the parts make up the whole; long runs go in parts to be seen.
    total = net.steps(config.time)
    tail = min(net.steps(traced), total // 2) if traced else 0
    part = max(total // 10, net.steps(100.0))
    done = 0
    with progress("simulating", total=round(config.time)) as bar:
        while done < total:
            if done == total - tail:
                for monitor in monitors:
                    monitor.monitor_on()
            count = min(part, (total - tail if done < total - tail else total) - done)
            (net.run_continue if done else net.run)(count * net.dt)
            done += count
            bar.update(round(done * net.dt) - bar.done)
    seconds = time.process_time() - begun
    return Simulated(
        network=net,
        rates=rates(net, config.skipped),
        irregularity=irregularity(net),
        correlation=correlation(net),
        build_seconds=built,
        seconds=seconds,
        real_time=1000 * seconds / config.time,
        synapses=sum(map(_synapses, net.get_connections())),
        synaptic_events=synaptic_events(net) / max(seconds, 1e-9),
        engine=net.engine_note,
    )


def _synapses(con: Connection) -> int:
    if con.kind == "all_to_all":  # one weight stands for all
        return con.pre.num * con.post.num
    return int(con.weight.numel()) if con.weight is not None else 0


def synaptic_events(net: Network) -> int:
    """Counts the spikes that went over the synapses between watched groups in the last run.

    Links between images, which share weights, are left out.

    Args:
        net: A network after a run, with spike monitors.
    """
    counts = {id(m.target): m.spk_count.sum(0).reshape(-1) for m in net.parts(SpikeMonitor)}
    total = 0
    for con in net.get_connections():
        spikes = counts.get(id(con.pre))
        if spikes is None or con.weight is None or con.pre_var_name != "O":
            continue
        if con.pre_index is not None:
            targets = np.bincount(con.pre_index.cpu().numpy(), minlength=len(spikes))
            total += int(spikes @ targets)
        elif con.kind == "all_to_all" or tuple(con.weight.shape) == (con.post.num, con.pre.num):
            total += int(spikes.sum()) * con.post.num
    return total


def peak_memory() -> float | None:
    """The most memory that this process had so far, in MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _from_file(path: Path, time: float, drive: float | None) -> Network:
    """Reads a network and watches the spikes of the groups that make some."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a circuit or a network file")
    if path.suffix == ".nir":
        from tenfold.spaic.interchange import from_nir

        net = from_nir(path)
    elif (path / "checkpoint").is_dir():
        from tenfold.shared.runs import Run
        from tenfold.spaic.experiments.classifiers import network_of

        net = network_of(Run.open(path))
    else:
        from tenfold.spaic.saving import network_load

        net = network_load(path)
    waiting = [node for node in net.parts(Encoder) if node.source is None]
    if waiting and drive is None:
        names = ", ".join(str(node.name) for node in waiting)
        raise InputError(f"{path}: {names} waits for data; give each of its channels --drive VALUE")
    for node in waiting:
        timed = [net.steps(time)] if node.coding_method == "null" else []  # data for each step
        node(np.full((1, *timed, *node.shape), drive))
    groups = spiking_groups(net)
    if not groups:
        raise InputError(f"{path} holds no neurons that spike")
    watched = {id(monitor.target) for monitor in net.parts(SpikeMonitor)}
    for group in groups:
        if id(group) not in watched:
            net.add_monitor(f"spikes_{group.name}", SpikeMonitor(group))
    return net


def _tracers(net: Network) -> list[StateMonitor]:
    """Adds monitors, off at first, of the first two states of the watched groups."""
    made = []
    for monitor in net.parts(SpikeMonitor)[:4]:
        group = monitor.target
        for name in list(group.definition(net.compat).states)[:2]:
            tracer = StateMonitor(group, name, dt=0.5 if net.dt <= 0.5 else None)
            tracer.monitor_off()
            net.add_monitor(f"trace_{group.name}_{name}", tracer)
            made.append(tracer)
    return made


def irregularity(net: Network) -> float:
    """Gives the mean CV of interspike intervals over neurons with three spikes or more.

    Args:
        net: A network after a run.
    """
    found: list[float] = []
    for monitor in net.parts(SpikeMonitor):
        index, times = monitor.spk_index[0], monitor.spk_times[0]  # sorted by neuron
        bounds = np.flatnonzero(np.diff(index)) + 1
        for part in np.split(times, bounds):
            if len(part) > 2:
                gaps = np.diff(part)
                found.append(float(gaps.std() / gaps.mean()))
    return fmean(found) if found else float("nan")


def correlation(net: Network, bin_ms: float = 5.0, most: int = 300) -> float:
    """Gives the mean correlation of the spike counts of two neurons (card section 18).

    Args:
        net: A network after a run.
        bin_ms: The width of a bin.
        most: Pairs are made of so many neurons that spiked, evenly chosen.

    Returns:
        From −1 to 1; not a number where fewer than two neurons spiked.
    """
    trains: list[np.ndarray] = []
    for monitor in net.parts(SpikeMonitor):
        index, times = monitor.spk_index[0], monitor.spk_times[0]  # sorted by neuron
        trains += np.split(times, np.flatnonzero(np.diff(index)) + 1) if len(times) else []
    # A spike is stamped with the end of its step, which belongs to the window before it.
    edges = np.arange(0, net.time + bin_ms / 2, bin_ms) + net.dt / 2
    if len(edges) < 3:
        return float("nan")
    chosen = trains[:: max(1, math.ceil(len(trains) / most))]
    counts = [np.histogram(train, edges)[0] for train in chosen]
    varied = [row for row in counts if row.std() > 0]
    if len(varied) < 2:
        return float("nan")
    among = np.corrcoef(np.stack(varied))
    return float((among.sum() - len(among)) / (len(among) * (len(among) - 1)))
