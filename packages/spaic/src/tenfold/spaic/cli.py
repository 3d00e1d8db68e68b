"""The command line: `tenfold spaic VERB`. Each verb parses, calls, and returns what was found."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.datasets import Dataset
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message, progress
from tenfold.shared.runs import Run
from tenfold.spaic.configuration import ReproduceConfig, SimulateConfig, TrainConfig

app = package_app("spaic", help="SPAIC: spiking networks, simulated and trained.")
data_app = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data_app)


@app.command
def demo(*, output: Path = Path("runs/spaic/demo")) -> Outcome:
    """Simulates a circuit of 4,000 neurons and trains a spiking classifier, in under a minute.

    The circuit is CUBA, whose mean rate reference simulators agree on; the classifier learns the
    handwritten digits of scikit-learn with surrogate gradients. Nothing is downloaded.

    Args:
        output: The folder for the report and its pictures.
    """
    from tenfold.shared.report import DemoResult, Report
    from tenfold.spaic.experiments import simulate as simulate_circuit
    from tenfold.spaic.reports import circuit_report, classifier_report
    from tenfold.spaic.training import train as train_classifier

    _check_folder(output)
    started = time.perf_counter()
    circuit = SimulateConfig()
    simulated = simulate_circuit(circuit, traced=100.0)
    config = TrainConfig(device="cpu")
    trained = train_classifier(config)
    report = Report("SPAIC: a circuit and a classifier", "CUBA, 1 s; digits, surrogate gradients")
    circuit_report(report, circuit, simulated)
    classifier_report(report, config, trained)
    page = report.write(output / "report.html")
    shown = [("cuba-raster", "Spikes of CUBA"), ("digits-confusion", "Answers on the digits")]
    made = DemoResult(
        paper="SPAIC (CIM 2024)",
        task="spiking networks",
        data="digits, 360 test images; CUBA, 4,000 neurons, 1 s",
        metric="ACC, %",
        value=100 * trained.accuracy,
        seconds=time.perf_counter() - started,
        note=f"CUBA fires at {simulated.rates['all']:.2f} Hz (Brian2: 5.6 Hz). "
        "The paper does not use these data.",
        pictures=[(output / f"{name}.png", text) for name, text in shown],
        report=page,
    )
    message(f"report: {page}")
    rows = [
        {"what": "CUBA, mean rate, Hz", "here": simulated.rates["all"], "known": 5.6},
        {"what": "digits, accuracy, %", "here": 100 * trained.accuracy, "known": None},
    ]
    return Outcome(
        {"demo": made, "rates": simulated.rates, "accuracy": trained.accuracy}, table(rows)
    )


def _check_folder(output: Path) -> None:
    """Refuses a folder that cannot be made, before anything is computed."""
    for path in (output, *output.parents):
        if path.exists():
            if not path.is_dir():
                raise InputError(f"{output}: {path} is a file; expected a folder")
            return


@app.command
def simulate(
    network: str | None = None,
    *,
    config: Annotated[SimulateConfig, FLAT] = SimulateConfig(),
    output: Path | None = None,
) -> Outcome:
    """Simulates a circuit of the literature or a network file: rates, irregularity, speed.

    Examples: `tenfold spaic simulate cobahh --time 500ms --output runs/cobahh`;
    `tenfold spaic simulate net.json --time 1s --engine auto` for what `network_save` or `convert`
    wrote. All random numbers come from the seed; a circuit gives the same rates again. Rates are
    counted after the warm-up of the circuit's reference (microcircuit: 0.5 s) in longer runs.

    Args:
        network: A circuit, a file, or the folder of a network or of a training run; the same as
            --circuit.
        config: The simulation.
        output: A folder for a report with pictures (raster, rates, traces, phase plane); none is
            written by default.
    """
    from tenfold.shared.report import Report
    from tenfold.spaic.experiments import peak_memory
    from tenfold.spaic.experiments import simulate as simulate_circuit
    from tenfold.spaic.reports import circuit_report

    if output is not None:
        _check_folder(output)
    if network is not None:
        config = replace(config, circuit=network)
    result = simulate_circuit(config, traced=100.0 if output is not None else 0.0)
    data: dict[str, Any] = {
        "circuit": config.circuit,
        "neurons": result.neurons,
        "synapses": result.synapses,
        "time_ms": config.time,
        "rates_after_ms": config.skipped,
        "rates": result.rates,
        "cv": result.irregularity,
        "correlation": result.correlation,
        "engine": result.engine,
        "build_seconds": result.build_seconds,
        "seconds": result.seconds,
        "real_time_factor": result.real_time,
        "synaptic_events_per_second": result.synaptic_events,
        "peak_memory_mib": peak_memory(),
    }
    if output is not None:
        report = Report(
            f"Simulation of {config.circuit}", f"{result.neurons:,} neurons, {config.time:g} ms"
        )
        circuit_report(report, config, result)
        report.config(config)
        data["report"] = report.write(output / "report.html")
        message(f"report: {data['report']}")
    return Outcome(data)


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains a spiking classifier with surrogate gradients; writes a run folder with a report.

    Recipes: digits, mnist, nmnist-small; the official networks mnist-stca, mnist-convolutional,
    nmnist-convolutional, cifar10-resnet18, tidigits. The README says what they reach. An option on
    the command line wins over the recipe. A run that was killed goes on with --resume and reaches
    the same numbers.

    Args:
        config: The run.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
    """
    from tenfold.shared.compute import fabric
    from tenfold.spaic.experiments import peak_memory, prepared, train_run

    if resume is not None:
        run, config = Run.resume(resume, config)
        split = prepared(config)
        launched = fabric(config.device, config.devices)
    else:
        split = prepared(config)  # what does not fit leaves no folder behind
        launched = fabric(config.device, config.devices)  # several processes share one folder
        run = Run.create("spaic", recipe or config.dataset, config, output)
    started = time.perf_counter()
    result = train_run(config, run, launched, split)
    data = {
        "run": run.folder,
        "dataset": config.dataset,
        "accuracy": result.accuracy,
        "loss": result.history[-1]["loss"],
        "engine": result.network.engine_note,
        "samples_per_second": result.throughput,
        "peak_memory_mib": peak_memory(),
        "seconds": round(time.perf_counter() - started, 2),
    }
    message(f"report: {run.folder / 'report.html'}")
    return Outcome(data)


@app.command
def evaluate(run: Path | None = None) -> Outcome:
    """Tests the network of a run again, from its checkpoint and its own configuration.

    Says the accuracy on the test samples; ties go to the lowest class (card section 18).

    Args:
        run: The run's folder; by default the newest under `runs/`.
    """
    from tenfold.spaic.experiments import evaluate_run

    folder = Run.open(run) if run is not None else Run.latest("spaic")
    config, value, outputs = evaluate_run(folder)
    return Outcome(
        {
            "run": folder.folder,
            "dataset": config.dataset,
            "samples": len(outputs),
            "accuracy": value,
        }
    )


@app.command
def reproduce(
    *,
    config: Annotated[ReproduceConfig, FLAT] = ReproduceConfig(),
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Measures known numbers again over seeds: rates of circuits, accuracies of recipes.

    The paper prints no table of numbers. The references are Brian2's and NEST's rates of the
    circuits, each after its reference's warm-up, and the official script's accuracy on TIDIGITS
    and the tutorial's on MNIST (--recipes; with --recipes alone no circuit is run). The table says
    mean and deviation here, the reference, and the difference; a part of a data set is not compared
    with all of it.

    Args:
        config: What to run.
        resume: The folder of an interrupted reproduction; what it has is not run again.
        output: The folder of all runs.
    """
    from tenfold.spaic.experiments import prepared_recipes
    from tenfold.spaic.experiments import reproduce as reproduce_table

    if resume is not None:
        run, config = Run.resume(resume, config)
    else:
        prepared_recipes(config)
        run = Run.create("spaic", "reproduce", config, output)
    rows, comparison = reproduce_table(config, run)
    data = {"run": run.folder, "results": [asdict(row) for row in rows], "comparison": comparison}
    return Outcome(data, view=table(comparison))


@app.command
def bench(*, sizes: tuple[int, ...] = (32, 512), steps: int = 500, batch: int = 16) -> Outcome:
    """Times the engines on this machine: Linear + LIF forward and backward, and CUBA.

    Processor seconds, the best of three after a first run that compiles. The comparison with other
    simulators is `benchmarks/speed.py` of the repository, since it installs them.

    Args:
        sizes: Neurons of the layer.
        steps: Time steps.
        batch: Samples.
    """
    from tenfold.spaic.experiments import layer_seconds
    from tenfold.spaic.experiments import simulate as simulate_circuit

    rows: list[dict[str, Any]] = []
    with progress("timing", total=2 * len(sizes) + 1) as bar:
        for n in sizes:
            for engine in ("scan", "step"):
                found = layer_seconds(n, steps, batch, engine, repeats=3)
                rows.append({"task": f"Linear({n})+LIF", "engine": engine, **found})
                bar.update(task=f"Linear({n}), {engine}")
        result = simulate_circuit(SimulateConfig())
        bar.update(task="CUBA")
    rows.append({"task": "CUBA, 4,000 neurons, 1 s", "engine": "event", "total": result.seconds})
    return Outcome({"results": rows}, view=table(rows))


@data_app.command(name="list")
def list_data() -> Outcome:
    """Lists the data sets: where each is looked for and whether it is there.

    Spoken words (tidigits, rwcp10, mnist-voices) are not listed: they are folders of your own,
    `<name>/train/<class>/*.wav` and `<name>/test/<class>/*.wav`, under the same root.
    """
    from tenfold.shared.datasets import data_root, status
    from tenfold.spaic.data import CATALOGUE

    rows = [
        {"name": "digits", "title": "scikit-learn", "state": "there", "folder": "", "licence": ""}
    ]
    for name, dataset in CATALOGUE.items():
        states = {file.state for file in status(dataset)}
        rows.append(
            {
                "name": name,
                "title": dataset.title,
                "state": "missing" if "missing" in states else "there",
                "folder": str(data_root() / dataset.folder),
                "licence": dataset.licence,
            }
        )
    return Outcome({"datasets": rows}, view=table(rows))


@data_app.command
def fetch(*names: str) -> Outcome:
    """Downloads data sets from their official addresses and checks them.

    A download that was cut off is resumed. What cannot be downloaded is told with its address and
    the place that it belongs to.

    Args:
        names: The data sets, as `data list` names them.
    """
    from tenfold.shared.datasets import fetch as fetch_files
    from tenfold.spaic.data import CATALOGUE

    if not names:  # all of them would be gigabytes
        raise InputError(f"name the data sets to fetch: {', '.join(CATALOGUE)}")
    return Outcome({"folders": {item.name: fetch_files(item) for item in _datasets(names)}})


@data_app.command
def verify(*names: str) -> Outcome:
    """Checks the checksums of data sets; the exit code is 1 if one is wrong.

    `ok`: the checksum is right; `present`: the file is there, and its checksum is not known here;
    `missing`: it is not there.

    Args:
        names: The data sets; by default all.
    """
    from tenfold.shared.datasets import verify as verify_files

    found = [(item.name, file) for item in _datasets(names) for file in verify_files(item)]
    rows = [{"name": name, "file": file.file, "state": file.state} for name, file in found]
    wrong = any(file.state == "wrong hash" for _, file in found)
    return Outcome({"files": rows}, view=table(rows), exit_code=int(wrong))


def _datasets(names: tuple[str, ...]) -> list[Dataset]:
    from tenfold.spaic.data import CATALOGUE

    for name in names:
        if name == "digits":
            raise InputError("digits comes with scikit-learn; there is nothing to fetch or verify")
        if name not in CATALOGUE:
            raise InputError(did_you_mean(name, CATALOGUE, "data set"))
    return [CATALOGUE[name] for name in names or CATALOGUE]


@app.command
def convert(source: Path, target: Path) -> Outcome:
    """Converts a network between a folder of `network_save`, a training run, and a NIR file.

    For example `tenfold spaic convert runs/spaic/mnist-<time> mnist.nir`, which other libraries
    read. A NIR file needs the extra `nir`.

    Args:
        source: A folder of a network or of a run, or a network file (.nir, .json, .yaml).
        target: A NIR file (.nir); a .json or .yaml file, whose weights go into a .safetensors file
            beside it; or a folder that is made.
    """
    from tenfold.spaic.interchange import from_nir, to_nir
    from tenfold.spaic.saving import network_load, network_save

    is_file = target.suffix in (".nir", ".json", ".yaml", ".yml") and not target.is_dir()
    _check_folder(target.parent if is_file else target)
    if target.suffix == ".nir" and target.is_dir():
        raise InputError(f"{target} is a folder; expected a NIR file")
    if source.suffix == ".nir":
        net = from_nir(source)
    elif (source / "checkpoint").is_dir():
        from tenfold.spaic.experiments import network_of

        net = network_of(Run.open(source))
    else:
        net = network_load(source)
    if target.suffix == ".nir":
        target.parent.mkdir(parents=True, exist_ok=True)
        to_nir(net, target)
    else:
        network_save(net, target)
    kinds = [type(part).__name__ for part in net.walk()]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return Outcome({"source": source, "target": target, "parts": counts})
