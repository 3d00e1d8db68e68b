"""What the verbs do: simulate circuits, train and test classifiers, measure again."""

import importlib
from typing import Any

_HOMES = {
    "ReproduceConfig": "configuration",
    "SimulateConfig": "configuration",
    "Simulated": "experiments.simulation",
    "correlation": "experiments.simulation",
    "irregularity": "experiments.simulation",
    "peak_memory": "experiments.simulation",
    "simulate": "experiments.simulation",
    "synaptic_events": "experiments.simulation",
    "evaluate_run": "experiments.classifiers",
    "network_of": "experiments.classifiers",
    "prepared": "experiments.classifiers",
    "train_run": "experiments.classifiers",
    "prepared_recipes": "experiments.reproduction",
    "reproduce": "experiments.reproduction",
    "layer_seconds": "experiments.timing",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports what is named when it is first used: the simulator takes seconds."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"tenfold.spaic.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
