"""The command line: `tenfold ccgc VERB`. Each verb parses, calls, and returns what was found."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from tenfold.ccgc.data import load
from tenfold.ccgc.experiments import (
    CHOSEN,
    ReproduceConfig,
    chosen,
    measurements,
    opened,
    write_report,
)
from tenfold.ccgc.experiments import (
    evaluate as evaluate_run,
)
from tenfold.ccgc.experiments import (
    reproduce as reproduce_table,
)
from tenfold.ccgc.experiments import (
    train as train_model,
)
from tenfold.ccgc.training import Space, TrainConfig
from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.compute import is_main_process
from tenfold.shared.datasets import Dataset
from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing
from tenfold.shared.progress import message
from tenfold.shared.runs import Run

app = package_app("ccgc", help="CCGC: cluster-guided contrastive graph clustering (AAAI 2023).")
data_app = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data_app)


@app.command
def demo(*, output: Path = Path("runs/ccgc/demo")) -> Outcome:
    """Clusters 1,797 handwritten digits without labels, in well under a minute.

    The images that come with scikit-learn, joined to their nearest neighbours, are clustered by
    CCGC and by two baselines that share its parts. Nothing is downloaded.

    Args:
        output: The folder for the report and its pictures.
    """
    from tenfold.ccgc.estimators import SSGC, KMeansBaseline
    from tenfold.ccgc.evaluation import METRICS, label_scores
    from tenfold.shared.report import DemoResult

    _writable(output)
    started = time.perf_counter()
    config = TrainConfig(dataset="digits", hops=4, learning_rate=1e-3, epochs=120, clusters=10)
    experiment = chosen(opened(config))
    result, y = train_model(experiment), experiment.y
    on_cpu = experiment.data.clone().cpu()  # where the baselines run
    rows: list[dict[str, Any]] = []
    for name, baseline in (
        ("k-means on X", KMeansBaseline(10)),
        ("k-means on smoothed X (SSGC)", SSGC(10, hops=4)),
    ):
        scores = label_scores(y, baseline.fit_predict(on_cpu))
        rows.append({"method": name, **{m: scores[m] for m in METRICS}})
    rows.append({"method": "CCGC, final", **{m: result.scores[m] for m in METRICS}})
    page, shown = write_report(output, experiment, result, rows, "CCGC on 1,797 digits")
    made = DemoResult(
        paper="CCGC (AAAI 2023)",
        task="graph clustering without labels",
        data="digits, 1,797 images as a 10-nearest-neighbour graph",
        metric="ACC, %",
        value=result.scores["ACC"],
        seconds=time.perf_counter() - started,
        note="The paper does not use this data set; protocol final, no label was seen. k-means on "
        f"the same smoothed features, without training: {rows[1]['ACC']:.2f}.",
        pictures=shown,
        report=page,
    )
    message(f"report: {page}")
    return Outcome({"demo": made, "methods": rows}, view=table(rows))


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains on one graph and writes clusters, embedding and a report.

    Args:
        config: The run.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
    """
    started = time.perf_counter()
    if resume is not None:
        run, config = Run.resume(resume, config)
        experiment = opened(config)
    else:
        experiment = opened(config)  # what is wrong with the graph leaves no folder behind
        label = recipe or Path(config.dataset).stem
        run = Run.create("ccgc", label, experiment.config, output)
    experiment = chosen(experiment, run)
    config = experiment.config
    result = train_model(experiment, run)
    if is_main_process():
        write_report(run.folder, experiment, result)
        _write_clusters(run.folder / "clusters.csv", None, result.labels, result.confidence)
        with replacing(run.folder / "embedding.npy") as path, path.open("wb") as file:
            np.save(file, result.embedding, allow_pickle=False)
    found = {
        "protocol": config.protocol,
        "epoch": result.epoch,
        **{name: getattr(config, name) for name in CHOSEN},
        "scores": result.scores,
        "graph": result.graph,
    }
    run.finish({"results": measurements(config, result.scores), **found})
    seconds = round(time.perf_counter() - started, 2)
    message(f"run: {run.folder}\nreport: {run.folder / 'report.html'}")
    named = {k: v for k, v in found.items() if k not in ("scores", "graph")}
    shown = [{"dataset": config.dataset, **named, **result.scores, **result.graph}]
    return Outcome({"run": run.folder, **found, "seconds": seconds}, view=table(shown))


@app.command
def evaluate(run: Path | None = None) -> Outcome:
    """Scores the clusters that a run's checkpoint holds.

    The scores are against the classes, if the data set has any, and against the graph. The clusters
    are those of the chosen epoch; the read-out of the narrow space is fitted again.

    Args:
        run: The run's folder; by default the newest.
    """
    folder = Run.open(run) if run is not None else Run.latest("ccgc")
    config, result = evaluate_run(folder)
    found = {
        "run": folder.folder,
        "dataset": config.dataset,
        "protocol": config.protocol,
        "epoch": result.epoch,
        **result.scores,
        **result.graph,
    }
    return Outcome(found)


@app.command
def reproduce(
    *,
    config: Annotated[ReproduceConfig, FLAT] = ReproduceConfig(),
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Runs the protocol of the paper's main table, and puts paper and here side by side.

    Args:
        config: What to run.
        resume: The folder of an interrupted reproduction; what it has is not run again.
        output: The folder of all runs.
    """
    if resume is not None:
        run, config = Run.resume(resume, config)
    else:
        for name in config.datasets:  # what is missing is told before anything is trained
            load(name)
        run = Run.create("ccgc", "reproduce", config, output)
    rows, comparison = reproduce_table(config, run)
    message(f"report: {run.folder / 'report.html'}")
    data = {"run": run.folder, "results": [asdict(r) for r in rows], "comparison": comparison}
    return Outcome(data, view=table(comparison))


@app.command
def cluster(
    edges: Path,
    *,
    clusters: Annotated[str, Parameter(help="K, or auto to estimate it.")],
    features: Path | None = None,
    labels: Path | None = None,
    output: Path = Path("clusters.csv"),
    epochs: int = 400,
    hops: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    space: Space | None = None,
    tau: float = TrainConfig.tau,
    embedding_dim: int = TrainConfig.embedding_dim,
    seed: int = 0,
    device: str = "auto",
    precision: str = TrainConfig.precision,
) -> Outcome:
    """Clusters your own graph: a table node, cluster, confidence comes out, and a report.

    Args:
        edges: The edge list, CSV, parquet or npz: columns source and target, optionally weight.
        clusters: K, or auto.
        features: The feature table: a column node and numeric columns; by default a node's degree.
        labels: A table of node and label, used for scores only.
        output: The table to write, .csv or .parquet; the report goes into a folder beside it.
        epochs: Number of passes.
        hops: Smoothing steps; by default chosen without labels.
        learning_rate: Step size; by default chosen without labels.
        batch_size: Nodes a step; by default all of them.
        space: narrow or wide, as in train; by default chosen without labels.
        tau: Share of the nodes that is confident.
        embedding_dim: Width of each view.
        seed: Seed of all random numbers.
        device: auto, cpu, cuda or mps.
        precision: Precision of Lightning Fabric, e.g. 32-true or bf16-mixed.
    """
    from tenfold.ccgc.clusters import estimate_clusters
    from tenfold.ccgc.data import read_tables

    if output.suffix not in (".csv", ".parquet"):
        raise InputError(f"--output {output}: unknown kind of table; expected .csv or .parquet")
    if clusters != "auto" and not (clusters.isdecimal() and int(clusters) > 0):
        raise InputError(f"--clusters {clusters}: expected a whole number >= 1, or auto")
    _writable(output.parent)
    data, names = read_tables(edges, features, labels)
    tried: dict[int, float] = {}
    if clusters == "auto":
        number, tried = estimate_clusters(data, seed=seed)
        message(f"{number} clusters have the best silhouette")
    else:
        number = int(clusters)
    config = TrainConfig(
        dataset=str(edges),
        clusters=number,
        epochs=epochs,
        warm_up=min(TrainConfig.warm_up, epochs // 8 + 1),
        hops=hops,
        learning_rate=learning_rate,
        batch_size=batch_size,
        space=space,
        tau=tau,
        embedding_dim=embedding_dim,
        seed=seed,
        device=device,
        precision=precision,
    )
    experiment = chosen(opened(config, data))
    config = experiment.config
    result = train_model(experiment)
    _write_clusters(output, names, result.labels, result.confidence)
    page, _ = write_report(output.with_name(f"{output.stem}-report"), experiment, result)
    sizes = [int((result.labels == k).sum()) for k in range(number)]
    rows = [
        {
            "cluster": k,
            "nodes": sizes[k],
            "mean confidence": float(result.confidence[result.labels == k].mean())
            if sizes[k]
            else None,
        }
        for k in range(number)
    ]
    found = {
        "output": output,
        "report": page,
        "clusters": number,
        "silhouettes": tried,
        **{name: getattr(config, name) for name in CHOSEN},
        "sizes": sizes,
        "graph": result.graph,
        "scores": result.scores,
    }
    if 0 in sizes:
        message(f"only {number - sizes.count(0)} of {number} clusters have nodes")
    message(f"wrote {output}\nreport: {page}")
    return Outcome(found, view=table(rows))


def _writable(folder: Path) -> None:
    """Makes the folder of `--output`, and refuses one that nothing can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"--output: {folder} cannot be written: {error.strerror}") from error


@data_app.command(name="list")
def list_data() -> Outcome:
    """Lists the data sets: where each is looked for and whether it is there."""
    from tenfold.ccgc.data.catalogue import CATALOGUE, COUNTS
    from tenfold.shared.datasets import data_root, status

    rows = []
    for name, dataset in CATALOGUE.items():
        states = {file.state for file in status(dataset)}
        counts = COUNTS[name]
        rows.append(
            {
                "name": name,
                "title": dataset.title,
                "nodes": counts["nodes"],
                "features": counts["features"],
                "edges": counts["edges"],
                "classes": len(counts["classes"]),
                "state": "there" if "missing" not in states else "missing",
                "folder": data_root() / dataset.folder,
                "licence": dataset.licence,
            }
        )
    hidden = ("title", "licence")
    shown = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
    return Outcome({"datasets": rows}, view=table(shown))


@data_app.command
def fetch(*names: str) -> Outcome:
    """Downloads data sets from their official addresses and checks them.

    Args:
        names: The data sets; by default all of them.
    """
    from tenfold.shared.datasets import fetch as fetch_files

    return Outcome({"folders": {d.name: fetch_files(d) for d in _datasets(names)}})


@data_app.command
def verify(*names: str) -> Outcome:
    """Checks files (sha256) and contents (nodes, features, edges, class sizes).

    Args:
        names: The data sets; by default all that are there.
    """
    from tenfold.ccgc.data import load, statistics
    from tenfold.ccgc.data.catalogue import COUNTS
    from tenfold.shared.datasets import verify as verify_files

    rows = []
    for dataset in _datasets(names):
        wrong = [f for f in verify_files(dataset) if f.state != "ok"]
        if wrong and not names and all(f.state == "missing" for f in wrong):
            rows.append({"name": dataset.name, "state": "missing", "problem": ""})
            continue
        problem = "; ".join(f"{f.file}: {f.state}" for f in wrong)
        if not wrong:
            found = statistics(load(dataset.name))
            expected = COUNTS[dataset.name]
            off = [k for k in expected if found[k] != expected[k]]
            problem = "; ".join(f"{k}: {found[k]}, expected {expected[k]}" for k in off)
        rows.append(
            {"name": dataset.name, "state": "wrong" if problem else "ok", "problem": problem}
        )
    failed = any(row["state"] == "wrong" for row in rows)
    return Outcome({"datasets": rows}, view=table(rows), exit_code=int(failed))


def _datasets(names: tuple[str, ...]) -> list[Dataset]:
    from tenfold.ccgc.data.catalogue import CATALOGUE
    from tenfold.shared.errors import did_you_mean

    for name in names:
        if name not in CATALOGUE:
            raise InputError(did_you_mean(name, CATALOGUE, kind="data set"))
    return [CATALOGUE[name] for name in names or CATALOGUE]


def _write_clusters(
    path: Path, names: np.ndarray | None, labels: np.ndarray, confidence: np.ndarray
) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    nodes = np.arange(len(labels)) if names is None else names
    made = pyarrow.table({"node": nodes, "cluster": labels, "confidence": confidence})
    write = pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv
    with replacing(path) as temporary:
        write(made, temporary)
