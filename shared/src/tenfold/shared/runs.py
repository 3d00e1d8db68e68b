"""The folder of a run: configuration, environment, metrics, checkpoint, result.

```
runs/<package>/<recipe>-<time>/
├── config.toml        the resolved configuration; alone suffices to repeat the run
├── environment.json   versions, device, commit, seed, command
├── metrics.jsonl      one line an epoch, appended and flushed
├── checkpoint/        weights.safetensors, and the state.….pt that it names
├── result.json        the measurements, when the run is finished
└── report.html        by `tenfold.shared.report`
```

Killed at any moment, the folder holds a whole checkpoint, the older or the newer. With several
processes each may call every method: only the main one writes.

`result.json` has the keys `package`, `version`, `command`, `date` (ISO 8601), `seconds`,
`results` (a list of `Measurement`), and any others that the package adds.
"""

import dataclasses
import datetime
import json
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenfold.shared.compute import environment, is_main_process
from tenfold.shared.config import read_toml, to_json, write_toml
from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing, write_atomic
from tenfold.shared.progress import message

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number that was measured, as it stands in `result.json`."""

    dataset: str
    """The data set, e.g. `cora`."""
    method: str
    """The method, as the package's `published.toml` names it."""
    metric: str
    """The metric, as the package's `published.toml` names it, e.g. `ACC`."""
    value: float
    """The mean over `n` repetitions, in the paper's unit."""
    protocol: str = ""
    """How it was measured, where a package knows several ways."""
    std: float | None = None
    """The standard deviation over the repetitions."""
    n: int = 1
    """The number of repetitions."""


class Run:
    """One run and its folder; make it with `Run.create`, `Run.open` or `Run.latest`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder.absolute().parent.name
        self._started = time.monotonic()

    @classmethod
    def create(
        cls,
        package: str,
        recipe: str | None,
        config: Any,
        root: Path | str = "runs",
    ) -> "Run":
        """Makes a new folder and writes the configuration and the environment.

        Args:
            package: The name in the command line, e.g. `ccgc`.
            recipe: The recipe's name or path; `None` gives `custom`.
            config: The dataclass that describes the run; its `seed` is noted if it has one.
            root: The folder of all runs.

        Raises:
            InputError: If the folder cannot be made.
        """
        now = datetime.datetime.now()  # two runs of one second have their own folders
        label = f"{_stem(recipe) if recipe else 'custom'}-{now:%Y%m%d-%H%M%S-%f}"
        run = cls(Path(_from_main_process(str(Path(root, package, label)))))
        about = {
            "command": sys.argv,
            "seed": getattr(config, "seed", None),
            "started": _now(),
        }
        if is_main_process():
            try:
                run.folder.mkdir(parents=True)
            except OSError as error:
                raise InputError(f"{run.folder} cannot be made: {error.strerror}") from error
            run.configure(config)
            write_atomic(run.folder / "environment.json", to_json(about | environment(), indent=2))
            message(f"run: {run.folder}")
        return run

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Opens the folder of an earlier run.

        Args:
            folder: The folder.

        Raises:
            InputError: If it is not the folder of a run.
        """
        if not Path(folder, "config.toml").is_file():
            raise InputError(f"{folder} is not the folder of a run: it has no config.toml")
        return cls(Path(folder))

    @classmethod
    def resume(cls, folder: Path | str, given: T) -> "tuple[Run, T]":
        """Opens an interrupted run, which goes on with its own configuration.

        Args:
            folder: The folder.
            given: The configuration of the command line, which must be the default one.

        Returns:
            The run, and its configuration as a dataclass of the same type.

        Raises:
            InputError: If it is not the folder of a run, the run is finished, or options were
                given that would be ignored.
        """
        run = cls.open(folder)
        if run.finished:
            raise InputError(f"{folder} is finished; see {Path(folder) / 'report.html'}")
        default = type(given)()
        changed = [key for key, value in vars(given).items() if value != getattr(default, key)]
        if changed:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise InputError(f"a resumed run keeps its own configuration; leave out {options}")
        return run, run.config(type(given))

    @classmethod
    def latest(cls, package: str, recipe: str | None = None, root: Path | str = "runs") -> "Run":
        """Opens the newest run of a package, or of one of its recipes.

        Args:
            package: The name in the command line.
            recipe: The recipe's name or path; `None` for the newest of all.
            root: The folder of all runs.

        Raises:
            InputError: If there is none.
        """
        names = f"{_stem(recipe)}-{'[0-9]' * 8}-*" if recipe else "*"
        found = list(Path(root, package).glob(f"{names}/config.toml"))
        if not found:
            what = f"of recipe {recipe!r} " if recipe else ""
            raise InputError(f"no run {what}in {Path(root, package)}; start one with `train`")
        return cls(max(found, key=lambda path: path.stat().st_mtime_ns).parent)

    def configure(self, config: Any) -> None:
        """Writes the configuration; call it again when what was open in it has been chosen.

        Args:
            config: The dataclass that describes the run.
        """
        if is_main_process():
            write_toml(config, self.folder / "config.toml")

    def config(self, cls: type[T]) -> T:
        """Reads the run's configuration.

        Args:
            cls: The dataclass that describes a run of this package.

        Raises:
            InputError: If the file does not fit the dataclass.
        """
        return read_toml(cls, self.folder / "config.toml")

    def log(self, *, epoch: int, **metrics: Any) -> None:
        """Appends one line to `metrics.jsonl` and flushes it.

        Args:
            epoch: The epoch (or step) that the metrics belong to.
            **metrics: Numbers and plain values; NaN becomes null.
        """
        if is_main_process():
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(to_json({"epoch": epoch, **metrics}) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Reads the logged lines; a torn last line, as a crash leaves it, is left out."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def rewind(self, epoch: int) -> None:
        """Drops the lines of `metrics.jsonl` after an epoch and a torn one; call it when resuming.

        Args:
            epoch: The epoch of the checkpoint; its own line stays.
        """
        if is_main_process():
            kept = [to_json(line) + "\n" for line in self.metrics() if line["epoch"] <= epoch]
            write_atomic(self.folder / "metrics.jsonl", "".join(kept))

    def save(self, weights: "Mapping[str, Tensor]", state: dict[str, Any], epoch: int) -> None:
        """Replaces the checkpoint; a crash at any moment leaves the old one or the new one, whole.

        Args:
            weights: The model's `state_dict()`.
            state: What else is needed to go on: optimiser, scheduler, random generators. It may
                hold tensors, numbers, strings, lists, tuples and dicts; `load` refuses the rest.
            epoch: The last epoch that is part of the checkpoint.
        """
        if not is_main_process():
            return
        import torch
        from safetensors.torch import save_file

        layout = torch.contiguous_format  # copies, since tied weights may not share memory
        plain = {k: v.detach().cpu().clone(memory_format=layout) for k, v in weights.items()}
        folder = self.folder / "checkpoint"
        # The weights name the state that belongs to them, so that replacing them replaces both.
        state_file = folder / f"state.{secrets.token_hex(4)}.pt"
        with replacing(state_file) as temporary:
            torch.save({"epoch": epoch, "state": state}, temporary)
        with replacing(folder / "weights.safetensors") as temporary:
            save_file(plain, temporary, metadata={"state": state_file.name})
        for path in folder.iterdir():  # the old state, and what a crash has left
            if path.name not in ("weights.safetensors", state_file.name):
                path.unlink()

    def load(self) -> "tuple[dict[str, Tensor], dict[str, Any], int] | None":
        """Reads the checkpoint: weights (on the CPU), state, epoch; None if there is none yet.

        Raises:
            InputError: If the checkpoint's files are damaged.
        """
        import torch
        from safetensors import safe_open

        path = self.folder / "checkpoint" / "weights.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                state_file = path.with_name(file.metadata()["state"])
            saved = torch.load(state_file, map_location="cpu", weights_only=True)
            return weights, saved["state"], saved["epoch"]
        except Exception as error:
            raise InputError(f"{path.parent} is damaged: {error}") from error

    def finish(self, result: dict[str, Any]) -> None:
        """Writes `result.json`, which also marks the run as finished.

        Args:
            result: `results` (a list of `Measurement`) and any further keys; `package`,
                `version`, `command`, `date` and `seconds` (since this object was made) are
                filled in unless given.

        Raises:
            TypeError: If `results` is missing or holds something other than measurements.
        """
        if not all(isinstance(row, Measurement) for row in result.get("results", [None])):
            raise TypeError("finish() needs the key 'results': a list of Measurement")
        noted = json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))
        filled = {
            "package": self.package,
            "version": noted["packages"].get(f"tenfold-{self.package}"),
            "command": noted["command"],
            "date": _now(),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        if is_main_process():
            write_atomic(self.folder / "result.json", to_json(filled | result, indent=2) + "\n")

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / "result.json").is_file()


def _stem(recipe: str) -> str:
    """Gives the part of a recipe's name or path that every system takes as a folder's name."""
    return re.sub(r"[^\w.-]+", "-", Path(recipe).stem)


def _now() -> str:
    """Gives the time with its zone, in seconds."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _from_main_process(value: str) -> str:
    """Gives every process the value of the main one; outside of a launch, the value itself."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
