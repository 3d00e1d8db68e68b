"""What a report shows: tables, and pictures of spikes, rates, states, weights (card section 15)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tenfold.shared.report import Report
from tenfold.spaic import pictures
from tenfold.spaic.library import CIRCUITS
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Encoder

if TYPE_CHECKING:
    from tenfold.spaic.experiments import SimulateConfig, Simulated
    from tenfold.spaic.training import TrainConfig, Trained


def circuit_report(report: Report, config: "SimulateConfig", result: "Simulated") -> None:
    """Adds a simulation to a report: rates, raster, rates over time, states, a phase plane.

    Args:
        report: The report.
        config: The simulation.
        result: What it gave; states are shown if it was traced.
    """
    circuit = CIRCUITS.get(config.circuit)
    name = config.circuit if circuit else "network"
    # Known rates belong to the circuit's own size, and to the time after its warm-up.
    comparable = circuit and config.size in (None, circuit.size)
    known = circuit.rates if circuit and comparable and config.skipped == circuit.warm_up else {}
    rows = [
        {"population": population, "rate here, Hz": value, "known, Hz": known.get(population)}
        for population, value in result.rates.items()
    ]
    if not known:
        for row in rows:
            del row["known, Hz"]
    title = circuit.title if circuit else f"network file {config.circuit}"
    source = f"; known rates: {circuit.note}" if circuit and known else ""
    report.table(rows, caption=f"{title[0].upper()}{title[1:]}{source}")
    report.table(
        [
            {
                "neurons": result.neurons,
                "synapses": result.synapses,
                "biological time, ms": config.time,
                "processor time, s": result.seconds,
                "CV of intervals": result.irregularity,
                "engine": result.engine.split(":")[0].split(" ")[0],
            }
        ],
        caption="The simulation",
    )
    monitors = result.network.parts(SpikeMonitor)
    report.picture(pictures.raster(monitors), f"{name}-raster", "Spikes; at most 400 neurons each")
    rate = pictures.population_rates(monitors)
    report.picture(rate, f"{name}-rates", "Rate of each population in windows of 5 ms")
    tracers = [m for m in result.network.parts(StateMonitor) if len(m.times)]
    if tracers:
        _states(report, name, tracers, "at the end of the run")


def _states(report: Report, name: str, tracers: list[StateMonitor], when: str) -> None:
    """Shows the traces of a group's neurons, and two of its states against each other."""
    first = tracers[0]
    group = first.target
    # Neurons whose potential jumps most are worth looking at: they reset.
    jumps = np.abs(np.diff(first.values[0].reshape(group.num, -1))).mean(1)
    chosen = np.argsort(-jumps, kind="stable")[:3]
    shown = pictures.traces(first, [int(k) for k in chosen])
    caption = f"{first.var_name} of three neurons of {group.name} {when}"
    report.picture(shown, f"{name}-traces", caption)
    second = next((m for m in tracers[1:] if m.target is group), None)
    if second is not None:
        plane = pictures.phase_plane(first, second, int(chosen[0]))
        caption = f"Phase plane of one neuron of {group.name} {when}; the dot is where it begins"
        report.picture(plane, f"{name}-phase", caption)


def spiking_groups(net: Network) -> list[NeuronGroup]:
    """Lists the groups whose output are spikes, as opposed to a potential or a rate.

    Args:
        net: The network.
    """
    found = []
    for group in net.parts(NeuronGroup):
        model = group.definition(net.compat)
        lines = [line.strip() for line in model.step.splitlines()]
        output = "".join(line for line in lines if line.startswith("O ="))
        if model.threshold or "spike(" in output or "where(" in output:
            found.append(group)
    return found


def classifier_report(report: Report, config: "TrainConfig", result: "Trained") -> None:
    """Adds a training to a report: accuracy, learning curve, confusion, and a look inside.

    Args:
        report: The report.
        config: The run.
        result: What it gave.
    """
    report.table(
        [
            {
                "data": config.dataset,
                "training samples": len(result.split.y),
                "test samples": len(result.split.y_test),
                "accuracy, %": 100 * result.accuracy,
                "parameters": sum(p.numel() for p in _trained(result.network)),
                "engine": result.network.engine_note.split(":")[0].split(" ")[0],
            }
        ],
        caption=f"A classifier of {config.dataset}, trained with {config.algorithm}",
    )
    curve = pictures.learning_curve(result.history)
    report.picture(curve, f"{config.dataset}-loss", "Training loss")
    guess = result.outputs.argmax(1).numpy()
    shown = pictures.confusion(result.split.y_test, guess)
    report.picture(shown, f"{config.dataset}-confusion", "Answers on the test samples")
    _inside(report, config, result)


def _trained(net: Network) -> list[torch.nn.Parameter]:
    return [p for learner in net.parts(Learner) for p in learner.parameters()]


@torch.no_grad()
def _inside(report: Report, config: "TrainConfig", result: "Trained") -> None:
    """Runs the first test sample again and shows what the neurons do."""
    net = result.network
    spiking = spiking_groups(net)
    if not spiking:
        return
    states = list(spiking[0].definition(net.compat).states)[:2]
    watch: list[Any] = [SpikeMonitor(group) for group in spiking]
    watch += [StateMonitor(spiking[0], state) for state in states]
    for number, monitor in enumerate(watch):
        net.add_monitor(f"look_{number}", monitor)
    net.eval()
    (encoder,) = (node for node in net.parts(Encoder) if type(node) is Encoder)
    encoder(torch.from_numpy(result.split.x_test[:1]) * config.input_scale)
    net.run(config.steps * net.dt)
    spikes = [monitor for monitor in watch if isinstance(monitor, SpikeMonitor)]
    picture = pictures.raster(spikes, size=6.0)
    report.picture(picture, f"{config.dataset}-raster", "Spikes on the first test sample")
    tracers = [monitor for monitor in watch if isinstance(monitor, StateMonitor)]
    _states(report, config.dataset, tracers, "on the first test sample")
    first = next((con for con in net.get_connections() if con.weight is not None), None)
    if first is not None:
        _weights(report, config, first)
    for number in range(len(watch)):
        delattr(net, f"look_{number}")
    net.build()


def _weights(report: Report, config: "TrainConfig", first: Connection) -> None:
    """Shows the weights of the first link."""
    assert first.weight is not None
    weight = first.weight.detach().cpu().numpy()
    if weight.ndim == 4:
        weight = weight.reshape(-1, weight.shape[2] * weight.shape[3])
    side = int(np.sqrt(weight.shape[1]))
    square = side * side == weight.shape[1]
    limit = float(np.abs(weight).max())
    made = pictures.weight_image(
        weight[:100], reshape=square, wmin=-limit, wmax=limit, cmap="RdBu_r"
    )
    caption = f"Weights of {first.name}: a square for each of {min(100, len(weight))} neurons"
    if not square:
        caption = f"Weights of {first.name}: a row a neuron"
    report.picture(made.figure, f"{config.dataset}-weights", caption)
