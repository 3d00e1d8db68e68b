"""What the verbs do: simulate circuits, train and test classifiers, measure again."""

from tenfold.spaic.experiments.classifiers import evaluate_run, network_of, prepared, train_run
from tenfold.spaic.experiments.reproduction import ReproduceConfig, prepared_recipes, reproduce
from tenfold.spaic.experiments.simulation import (
    SimulateConfig,
    Simulated,
    correlation,
    irregularity,
    peak_memory,
    simulate,
    synaptic_events,
)
from tenfold.spaic.experiments.timing import layer_seconds

__all__ = [
    "ReproduceConfig",
    "SimulateConfig",
    "Simulated",
    "correlation",
    "evaluate_run",
    "irregularity",
    "layer_seconds",
    "network_of",
    "peak_memory",
    "prepared",
    "prepared_recipes",
    "reproduce",
    "simulate",
    "synaptic_events",
    "train_run",
]
