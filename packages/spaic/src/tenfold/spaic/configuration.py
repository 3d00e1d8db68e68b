"""What the verbs take, checked before anything heavy is imported: options, recipes, help."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tenfold.shared.config import find_recipe, from_mapping, read_mapping
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.library.catalogue import CIRCUITS

ALGORITHMS = ("stca", "stbp", "sbp")
"""The learners that train a classifier here."""


def known_names(option: str) -> list[str]:
    """Lists what an option of `TrainConfig` may name.

    Args:
        option: dataset, model, algorithm or surrogate.
    """
    if option == "dataset":
        from tenfold.spaic.data import SETS

        return list(SETS)
    if option == "model":
        from tenfold.spaic.model.neurons import model_names

        return list(model_names())
    if option == "algorithm":
        return list(ALGORITHMS)
    from tenfold.spaic.network.learners import SURROGATES
    from tenfold.spaic.network.learners.surrogates import OWN

    return [key for key in SURROGATES if key not in OWN]


@dataclass(frozen=True)
class TrainConfig:
    """One training of a spiking classifier."""

    dataset: str = "digits"
    """A data set of `tenfold spaic data list`."""
    network: Literal["layers", "stca", "convolutional", "tidigits", "audio-mnist", "resnet18"] = (
        "layers"
    )
    """layers: fully connected, as the next six options say; else an example of the library."""
    hidden: tuple[int, ...] = (100,)
    """Neurons of each hidden layer (layers, stca)."""
    model: str = "lif"
    """The neuron model of the hidden layers."""
    tau_m: float = 8.0
    """Its membrane time constant in ms."""
    readout: Literal["li", "spikes"] = "li"
    """li: mean potential of leaky integrators; spikes: counts of spiking output neurons (layers,
    convolutional; the other networks of the library have their own)."""
    coding: Literal["float", "poisson"] = "float"
    """How images go in: as a constant current, or as Poisson spikes. Event data go in as counts."""
    input_scale: float = 1.0
    """What pixels or counts are multiplied by."""
    steps: int = 10
    """Time steps: 1 ms each (layers, resnet18), 2 ms (convolutional), 0.1 ms (the others)."""
    strategy: int = 1
    """1: a signal passes all layers within a step; 0: each connection costs one."""
    algorithm: str = "sbp"
    """stca, stbp or sbp."""
    surrogate: str = "AtanGrad"
    """The surrogate gradient of sbp: AtanGrad, SigmoidGrad, RectangleGrad, GateGrad, ..."""
    alpha: float | None = None
    """Its width or slope; by default that of the surrogate."""
    epochs: int = 12
    """Passes over the training set."""
    batch_size: int = 100
    """Samples a step."""
    learning_rate: float = 5e-3
    """Step size of Adam at the beginning."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How it falls: to zero along a cosine; to a tenth every second epoch; not at all."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    engine: Literal["auto", "step", "scan"] = "auto"
    """Which engine runs the network."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Devices or, on a CPU, processes; each takes a share of every batch."""

    def __post_init__(self) -> None:
        """Refuses values that no run can have."""
        for name in ("steps", "epochs", "batch_size", "devices"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed={self.seed}; expected >= 0 and below 2**63")
        if self.strategy not in (0, 1):
            raise InputError(f"strategy={self.strategy}; expected 0 or 1")
        for name in ("learning_rate", "alpha", "tau_m"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}={value}; expected a finite number > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay={self.weight_decay}; expected a finite number >= 0")
        if not math.isfinite(self.input_scale):
            raise InputError(f"input_scale={self.input_scale}; expected a finite number")
        for name, given in (
            ("dataset", self.dataset),
            ("model", self.model.lower()),
            ("algorithm", self.algorithm.lower()),
            ("surrogate", self.surrogate),
        ):
            # Defaults are known names; to look others up imports torch, which `--help` need not.
            if given != type(self).__dataclass_fields__[name].default and given not in (
                known := known_names(name)
            ):
                raise InputError(did_you_mean(getattr(self, name), known, name))
        if any(size < 1 for size in self.hidden):
            raise InputError(f"hidden={self.hidden}; every layer needs >= 1 neurons")


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
    """One simulation of a circuit or a network file."""

    circuit: str = "cuba"
    """cuba, cobahh, brunel, microcircuit or decision; or a network file: .json or .yaml with its
    .safetensors beside it, .nir, a folder of network_save, or the folder of a training run."""
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
    def skipped(self) -> float:
        """The beginning that rates do not count, in ms: a circuit's warm-up, in longer runs."""
        known = CIRCUITS.get(self.circuit)
        return known.warm_up if known is not None and known.warm_up < self.time else 0.0

    @property
    def file(self) -> Path | None:
        """The network file or folder that `circuit` names; None if it names a circuit."""
        if self.circuit in CIRCUITS:
            return None
        path = Path(self.circuit)
        named = path.suffix in (".json", ".yaml", ".yml", ".nir") or len(path.parts) > 1
        return path if named or path.is_dir() else None


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
            recipe_config(recipe)

    @property
    def measured(self) -> tuple[str, ...]:
        """The circuits that are run."""
        if self.circuits is None:
            return () if self.recipes else ("cuba", "cobahh", "microcircuit")
        return self.circuits


def recipe_config(name: str, seed: int = 0) -> TrainConfig:
    """Gives the training that a recipe describes.

    Args:
        name: The recipe's name, or a TOML file.
        seed: Its seed.

    Raises:
        InputError: For an unknown recipe.
    """
    path = find_recipe("spaic", name)
    return replace(from_mapping(TrainConfig, read_mapping(path), str(path)), seed=seed)
