"""Known numbers, measured again over seeds."""

import math
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

from tenfold.shared.config import find_recipe, from_mapping, read_mapping
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message, progress
from tenfold.shared.published import compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run
from tenfold.spaic.experiments.classifiers import prepared
from tenfold.spaic.library import CIRCUITS, rates
from tenfold.spaic.training import TrainConfig, train


@dataclass(frozen=True)
class ReproduceConfig:
    """Which known numbers are measured again."""

    circuits: tuple[str, ...] | None = None
    """Circuits whose rates are compared with those of reference simulators; by default cuba, cobahh
    and microcircuit, or none if recipes are named."""
    seeds: int = 3
    """Runs of each circuit."""
    time: float = 1000.0
    """Biological time of each run in ms; twice as long for the microcircuit."""
    warm_up: float | None = None
    """Time before each run that is not counted, in ms; by default that of the circuit's reference:
    500 for the microcircuit, 0 for cuba and cobahh."""
    recipes: tuple[str, ...] = ()
    """Recipes of `train` whose accuracy is measured too, for example digits mnist. Published are
    tidigits (98.94 %) and mnist-stca (92.5 %); both want data that you bring."""
    training_seeds: int = 5
    """Trainings of each recipe."""

    def __post_init__(self) -> None:
        """Refuses unknown circuits."""
        for name in self.measured:
            if name not in CIRCUITS:
                raise InputError(did_you_mean(name, CIRCUITS, "circuit"))
        if not 0 < self.time < math.inf:
            raise InputError(f"time={self.time}; expected > 0 ms")
        if self.warm_up is not None and not 0 <= self.warm_up < math.inf:
            raise InputError(f"warm_up={self.warm_up}; expected >= 0 ms")
        for name in ("seeds", "training_seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        for recipe in self.recipes:
            _recipe(recipe)

    @property
    def measured(self) -> tuple[str, ...]:
        """The circuits that are run."""
        if self.circuits is None:
            return () if self.recipes else ("cuba", "cobahh", "microcircuit")
        return self.circuits


def _recipe(name: str, seed: int = 0) -> TrainConfig:
    path = find_recipe("spaic", name)
    return replace(from_mapping(TrainConfig, read_mapping(path), str(path)), seed=seed)


def prepared_recipes(config: ReproduceConfig) -> None:
    """Finds out whether the recipes of a reproduction can begin.

    Args:
        config: What to run.

    Raises:
        InputError: As `prepared`.
    """
    for name in config.recipes:
        prepared(_recipe(name))


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
                    trained = train(_recipe(name, seed))
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
        dataset = _recipe(name).dataset + (f" ({part})" if part else "")
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
