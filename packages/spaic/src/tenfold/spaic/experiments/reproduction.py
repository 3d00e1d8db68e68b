"""Known numbers, measured again over seeds."""

from statistics import fmean, pstdev
from typing import Any

from tenfold.shared.progress import message, progress
from tenfold.shared.published import compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run
from tenfold.spaic.configuration import ReproduceConfig, recipe_config
from tenfold.spaic.experiments.classifiers import prepared
from tenfold.spaic.library import CIRCUITS, rates
from tenfold.spaic.training import train


def prepared_recipes(config: ReproduceConfig) -> None:
    """Finds out whether the recipes of a reproduction can begin.

    Args:
        config: What to run.

    Raises:
        InputError: As `prepared`.
    """
    for name in config.recipes:
        prepared(recipe_config(name))


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
    jobs = [(name, seed) for name in config.measured for seed in range(config.seeds)]
    jobs += [(name, seed) for name in config.recipes for seed in range(config.training_seeds)]
    with progress("measuring", total=len(jobs)) as bar:
        for number, (name, seed) in enumerate(jobs):
            if (name, seed) not in done:
                row: dict[str, Any] = {"what": name, "seed": seed}
                if name in config.measured:
                    row["found"] = _circuit_rates(name, seed, config)
                else:
                    trained = train(recipe_config(name, seed))
                    row["found"] = {"accuracy": 100 * trained.accuracy}
                    row["part"] = trained.split.part
                run.log(epoch=number, **row)
                done[name, seed] = row
            bar.update(what=name)
    rows = []
    for name in config.measured:
        for population in CIRCUITS[name].rates or ("all",):
            values = [done[name, seed]["found"][population] for seed in range(config.seeds)]
            rows.append(_measured(name, "circuit", f"rate of {population}, Hz", values))
    for name in config.recipes:
        values = [done[name, seed]["found"]["accuracy"] for seed in range(config.training_seeds)]
        # What is published of a whole data set does not stand beside a part of it.
        part = done[name, 0].get("part")
        dataset = recipe_config(name).dataset + (f" ({part})" if part else "")
        rows.append(_measured(dataset, f"SPAIC, recipe {name}", "ACC", values))
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
    warm_up = circuit.warm_up if config.warm_up is None else config.warm_up
    net.run(warm_up + duration)
    return rates(net, warm_up)


def _measured(dataset: str, method: str, metric: str, values: list[float]) -> Measurement:
    return Measurement(
        dataset=dataset,
        method=method,
        metric=metric,
        value=fmean(values),
        std=pstdev(values),
        n=len(values),
    )
