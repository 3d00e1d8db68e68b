"""What the verbs do: simulate circuits, train classifiers, measure again."""

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any, Literal

import numpy as np
import torch
from cyclopts import Parameter

from tenfold.shared.compute import is_main_process
from tenfold.shared.config import find_recipe, from_mapping, read_mapping
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message, progress
from tenfold.shared.published import compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run
from tenfold.spaic.data import Split
from tenfold.spaic.engines.ranks import launched
from tenfold.spaic.library import CIRCUITS, rates
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network, NetworkModule
from tenfold.spaic.network.nodes import Encoder
from tenfold.spaic.objective import accuracy
from tenfold.spaic.reports import classifier_report
from tenfold.spaic.training import TrainConfig, Trained, classifier, data_of, predict, train


def _milliseconds(_: Any, tokens: Sequence[Any]) -> float:
    """Reads a time: a number of ms, or with its unit."""
    text = str(tokens[0].value).strip()
    found = re.fullmatch(r"([0-9.eE+-]+?) *(us|ms|s)?", text)
    try:
        value = float(found[1]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or math.isnan(value):
        raise InputError(f"time={text!r}; expected a number of ms, or for example 1s or 250ms")
    return value * {"us": 1e-3, "ms": 1.0, "s": 1e3, None: 1.0}[found[2]]


@dataclass(frozen=True)
class SimulateConfig:
    """One simulation of a circuit."""

    circuit: str = "cuba"
    """cuba, cobahh, brunel, microcircuit or decision; or a network file: .json or .yaml with its
    .safetensors beside it, .nir, or a folder of network_save."""
    size: int | None = None
    """Neurons; by default the circuit's own number. A file has its own."""
    time: Annotated[float, Parameter(converter=_milliseconds)] = 1000.0
    """Biological time in ms, or with a unit: 1s, 250ms."""
    engine: Literal["auto", "step", "event"] = "auto"
    """Which engine; auto takes the fastest that is exact."""
    seed: int = 0
    """Seed of connections, starting values and noise."""
    processes: int = 1
    """Over how many processes the neurons are spread; under torchrun its processes are taken."""
    drive: float | None = None
    """What each channel of a file's sources that wait for data gets, as with every .nir file."""

    def __post_init__(self) -> None:
        """Refuses what cannot be simulated."""
        if self.processes < 1:
            raise InputError(f"processes={self.processes}; expected >= 1")
        if self.file is None and self.circuit not in CIRCUITS:
            raise InputError(did_you_mean(self.circuit, CIRCUITS, "circuit"))
        if self.file is not None and self.size is not None:
            raise InputError(f"size={self.size}; {self.circuit} has its own number of neurons")
        if self.size is not None and self.size < 1:
            raise InputError(f"size={self.size}; expected >= 1 neuron")
        if not 0 < self.time < float("inf"):
            raise InputError(f"time={self.time}; expected > 0 ms")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed={self.seed}; expected >= 0 and below 2**63")
        if self.drive is not None and not math.isfinite(self.drive):
            raise InputError(f"drive={self.drive}; expected a finite number")

    @property
    def file(self) -> Path | None:
        """The network file or folder that `circuit` names; None if it names a circuit."""
        if self.circuit in CIRCUITS:
            return None
        path = Path(self.circuit)
        named = path.suffix in (".json", ".yaml", ".yml", ".nir") or len(path.parts) > 1
        return path if named or path.is_dir() else None


@dataclass
class Simulated:
    """What a simulation gives.

    Attributes:
        network: The network; its monitors hold the spikes.
        rates: Population → Hz; `all` for the whole circuit.
        irregularity: Mean CV of the intervals between a neuron's spikes.
        correlation: Mean correlation of two neurons' spike counts in 5 ms.
        build_seconds: Processor time of building and compiling.
        seconds: Processor time of the simulation.
        real_time: Processor time over biological time.
        synapses: How many there are.
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
        rates=rates(net),
        irregularity=irregularity(net),
        correlation=correlation(net),
        build_seconds=built,
        seconds=seconds,
        real_time=1000 * seconds / config.time,
        synapses=sum(map(_synapses, net.get_connections())),
        engine=net.engine_note,
    )


def _synapses(con: Connection) -> int:
    if con.kind == "all_to_all":  # one weight stands for all
        return con.pre.num * con.post.num
    return int(con.weight.numel()) if con.weight is not None else 0


def _from_file(path: Path, time: float, drive: float | None) -> Network:
    """Reads a network and watches the spikes of its groups."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a circuit or a network file")
    if path.suffix == ".nir":
        from tenfold.spaic.interchange import from_nir

        net = from_nir(path)
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
    groups = net.parts(NeuronGroup)
    if not groups:
        raise InputError(f"{path} holds no neurons")
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
    edges = np.arange(0, net.time + bin_ms / 2, bin_ms)
    if len(edges) < 3:
        return float("nan")
    chosen = trains[:: max(1, math.ceil(len(trains) / most))]
    counts = [np.histogram(train, edges)[0] for train in chosen]
    varied = [row for row in counts if row.std() > 0]
    if len(varied) < 2:
        return float("nan")
    among = np.corrcoef(np.stack(varied))
    return float((among.sum() - len(among)) / (len(among) * (len(among) - 1)))


@dataclass(frozen=True)
class ReproduceConfig:
    """Which known numbers are measured again."""

    circuits: tuple[str, ...] = ("cuba", "cobahh", "microcircuit")
    """Circuits whose rates are compared with those of reference simulators."""
    seeds: int = 3
    """Runs of each circuit."""
    time: float = 1000.0
    """Biological time of each run in ms; twice as long for the microcircuit."""
    warm_up: float = 0.0
    """Time before the rates are counted, in ms."""
    recipes: tuple[str, ...] = ()
    """Recipes of `train` whose accuracy is measured too, for example digits mnist."""
    training_seeds: int = 5
    """Trainings of each recipe."""

    def __post_init__(self) -> None:
        """Refuses unknown circuits."""
        for name in self.circuits:
            if name not in CIRCUITS:
                raise InputError(did_you_mean(name, CIRCUITS, "circuit"))
        if not 0 < self.time < math.inf:
            raise InputError(f"time={self.time}; expected > 0 ms")
        if not 0 <= self.warm_up < self.time:
            raise InputError(f"warm_up={self.warm_up}; expected from 0 to time={self.time}")
        for name in ("seeds", "training_seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        for recipe in self.recipes:
            _recipe(recipe)


def _recipe(name: str, seed: int = 0) -> TrainConfig:
    path = find_recipe("spaic", name)
    return replace(from_mapping(TrainConfig, read_mapping(path), str(path)), seed=seed)


def reproduce(config: ReproduceConfig, run: Run) -> tuple[list[Measurement], list[Any]]:
    """Measures rates of circuits, and accuracies of recipes, over seeds, beside known numbers.

    What a run has already is not done again.

    Args:
        config: What to run.
        run: The run's folder.

    Returns:
        The measurements, and the table reference / here / difference.
    """
    done = {(row["what"], row["seed"]): row for row in run.metrics()}
    jobs = [(name, seed) for name in config.circuits for seed in range(config.seeds)]
    jobs += [(name, seed) for name in config.recipes for seed in range(config.training_seeds)]
    with progress("measuring", total=len(jobs)) as bar:
        for number, (name, seed) in enumerate(jobs):
            if (name, seed) not in done:
                found = (
                    _circuit_rates(name, seed, config)
                    if name in config.circuits
                    else {"accuracy": 100 * train(_recipe(name, seed)).accuracy}
                )
                row = {"what": name, "seed": seed, "found": found}
                run.log(epoch=number, **row)
                done[name, seed] = row
            bar.update(what=name)
    rows = []
    for name in config.circuits:
        for population in CIRCUITS[name].rates or ("all",):
            values = [done[name, seed]["found"][population] for seed in range(config.seeds)]
            rows.append(_measured(name, "circuit", f"rate of {population}, Hz", values))
    for name in config.recipes:
        values = [done[name, seed]["found"]["accuracy"] for seed in range(config.training_seeds)]
        rows.append(_measured(_recipe(name).dataset, f"SPAIC, recipe {name}", "ACC", values))
    comparison = compare(published("spaic"), rows)
    report = Report("Circuits and classifiers over seeds", f"{config.seeds} seeds a circuit")
    report.table(comparison)
    report.config(config)
    report.write(run.folder / "report.html")
    run.finish({"results": rows})
    message(f"report: {run.folder / 'report.html'}")
    return rows, comparison


def _circuit_rates(name: str, seed: int, config: ReproduceConfig) -> dict[str, float]:
    duration = config.time * (2 if name == "microcircuit" else 1)
    circuit = CIRCUITS[name]
    net = circuit.make(circuit.size, seed)
    if config.warm_up:
        net.run(config.warm_up)
        net.run_continue(duration)
    else:
        net.run(duration)
    return rates(net, config.warm_up)


def _measured(dataset: str, method: str, metric: str, values: list[float]) -> Measurement:
    return Measurement(
        dataset=dataset,
        method=method,
        metric=metric,
        value=fmean(values),
        std=pstdev(values),
        n=len(values),
    )


def prepared(config: TrainConfig) -> Split:
    """Finds out whether a run can begin, before it has a folder.

    Args:
        config: The run.

    Returns:
        Its data.

    Raises:
        InputError: If data are missing, or the network does not take them.
    """
    split = data_of(config)
    classifier(config, split.sample_shape, split.classes, split.timed)
    return split


def prepared_recipes(config: ReproduceConfig) -> None:
    """Finds out whether the recipes of a reproduction can begin.

    Args:
        config: What to run.

    Raises:
        InputError: As `prepared`.
    """
    for name in config.recipes:
        prepared(_recipe(name))


def train_run(
    config: TrainConfig, run: Run, fabric: Any = None, split: Split | None = None
) -> Trained:
    """Trains, and writes the result and the report of a run.

    Args:
        config: The run.
        run: Its folder.
        fabric: Where to run.
        split: Its data, if they are loaded.
    """
    result = train(config, run, split, fabric=fabric)
    if not is_main_process():
        return result
    report = Report(f"A spiking classifier of {config.dataset}", config.model)
    classifier_report(report, config, result)
    report.config(config)
    report.write(run.folder / "report.html")
    value = Measurement(
        dataset=config.dataset, method="SPAIC", metric="ACC", value=100 * result.accuracy
    )
    run.finish({"results": [value]})
    return result


def _module_of(run: Run) -> tuple[TrainConfig, NetworkModule, Split]:
    """Builds the network of a run with its trained weights."""
    config = run.config(TrainConfig)
    saved = run.load()
    if saved is None:
        raise InputError(f"{run.folder} has no checkpoint yet")
    split = data_of(config)
    net = classifier(config, split.sample_shape, split.classes, split.timed)
    module = NetworkModule(net, config.steps * net.dt)
    module.load_state_dict(saved[0])
    net._random.set_state(saved[1]["random"])
    return config, module, split


def network_of(run: Run) -> Network:
    """Gives the trained network of a run.

    Args:
        run: The run's folder.
    """
    return _module_of(run)[1].network


def evaluate_run(run: Run) -> tuple[TrainConfig, float, torch.Tensor]:
    """Tests the network of a run again.

    Args:
        run: The run's folder.

    Returns:
        Its configuration, the accuracy, and the outputs [samples, classes].
    """
    config, module, split = _module_of(run)
    outputs = predict(config, module, split.x_test)
    return config, accuracy(outputs, torch.from_numpy(split.y_test)), outputs


def layer_seconds(
    n: int, steps: int = 500, batch: int = 16, engine: str = "scan", repeats: int = 5
) -> dict[str, float]:
    """Times Linear(n, n) + LIF, forward and backward, on one thread.

    Args:
        n: Neurons and inputs.
        steps: Time steps.
        batch: Samples.
        engine: scan or step.
        repeats: How often; the best counts.

    Returns:
        Processor seconds: `forward`, `backward`, `total`.

    Raises:
        InputError: For a number below 1.
    """
    from tenfold.spaic.network.learners import Learner
    from tenfold.spaic.network.nodes import Decoder

    for name, value in (("n", n), ("steps", steps), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise InputError(f"{name}={value}; expected >= 1")
    with Network() as net:
        source = Encoder(num=n, coding_method="null")
        layer = NeuronGroup(n, model="lif", tau_m=20.0)
        Connection(source, layer, w_std=n**-0.5)
        output = Decoder(dec_target=layer, num=n, coding_method="spike_counts")
        learner = Learner(algorithm="sbp")
    learner.trainable = [layer, *net.get_connections()]
    net.set_backend_dt(1.0)
    net.build(strategy=1, engine=engine)
    data = torch.rand(batch, steps, n, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        net.source(data)
        net.run(float(steps))
        middle = time.process_time()
        output.predict.sum().backward()
        times.append((middle - begun, time.process_time() - middle))
    best = min(times[1:], key=sum)
    return {"forward": best[0], "backward": best[1], "total": sum(best)}
