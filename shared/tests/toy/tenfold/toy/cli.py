"""The toy package's verbs."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app
from tenfold.shared.errors import InputError, UnavailableError
from tenfold.shared.progress import message, progress

app = package_app("toy", help="Plays.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a run is."""

    dataset: str = "bat"
    """The data set."""
    learning_rate: float = 1e-3
    """The step size."""
    epochs: int = 4
    """The number of epochs."""
    sizes: tuple[int, ...] = (3, 4)
    """The widths of the layers."""
    protocol: Literal["final", "best"] = "final"
    """How it is measured."""
    hops: int | None = None
    """The number of hops."""
    amp: bool = False
    """Whether to use half precision."""
    seed: int = 0
    """The seed."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}")


@app.command
def train(
    *, config: Annotated[TrainConfig, FLAT] = TrainConfig(), recipe: Recipe = None
) -> Outcome:
    """Trains.

    Args:
        config: The run.
        recipe: The recipe.
    """
    message("starting")
    with progress("training", total=config.epochs) as bar:
        for _ in range(config.epochs):
            bar.update(loss=0.5)
    return Outcome({"config": config, "recipe": recipe, "score": float("nan")}, view="trained")


@app.command
def reproduce(*, datasets: tuple[str, ...] = ("bat",)) -> Outcome:
    """Repeats a table."""
    rows = [{"dataset": d, "ACC": 0.5} for d in datasets]
    return Outcome({"datasets": list(datasets), "rows": rows})


@app.command
def fail(kind: str, *, folder: Path = Path("runs")) -> Outcome:
    """Fails in the wanted way."""
    if kind == "interrupt":
        from tenfold.shared.runs import Run

        Run.create("toy", "good", TrainConfig(), root=folder)
        raise KeyboardInterrupt
    kinds = {"input": InputError, "outside": UnavailableError, "pipe": BrokenPipeError}
    raise kinds.get(kind, KeyError)("this\nwent wrong")


@app.command
def demo(*, output: Path | None = None) -> Outcome:
    """Shows the toy."""
    import base64

    from tenfold.shared.report import DemoResult

    picture = (output or Path("runs")) / "dot.gif"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="))
    started = time.perf_counter()
    with progress("inner", total=1) as bar:
        bar.update()
    result = DemoResult(
        paper="Toy <2020>",
        task="playing",
        data="none",
        metric="ACC",
        value=0.5,
        seconds=time.perf_counter() - started,
        paper_value=0.75,
        pictures=[(picture, "a dot")],
    )
    return Outcome({"demo": result})
