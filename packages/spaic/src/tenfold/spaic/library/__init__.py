"""Networks of the literature with their full parameters, each a function that gives a network.

`CIRCUITS` lists those that the verb `simulate` runs by name. Potentials are in mV, times in ms,
currents in pA, conductances in nS, capacitances in pF, rates in kHz.
"""

import importlib
from typing import Any

_HOMES = {
    "CIRCUITS": "catalogue",
    "Circuit": "catalogue",
    "rates": "catalogue",
    "cuba": "circuits",
    "cobahh": "circuits",
    "brunel": "circuits",
    "POPULATIONS": "cortex",
    "REFERENCE_RATES": "cortex",
    "mean_field_rates": "cortex",
    "microcircuit": "cortex",
    "psc_of_psp": "cortex",
    "decision": "choice",
    "decide": "choice",
    "Decision": "choice",
    "diehl_cook": "unsupervised",
    "diehl_cook_integer": "unsupervised",
    "cluster": "unsupervised",
    "Clustered": "unsupervised",
    "assign_labels": "unsupervised",
    "all_activity": "unsupervised",
    "proportion_weighting": "unsupervised",
    "responses": "unsupervised",
    "rewarded": "rewarded_stdp",
    "reinforce": "rewarded_stdp",
    "reservoir": "liquid",
    "recall": "liquid",
    "ring_attractor": "fields",
    "bump_height": "fields",
    "wave_front": "fields",
    "front_motion": "fields",
    "stca_mnist": "classifiers",
    "convolutional": "classifiers",
    "tidigits": "classifiers",
    "audio_mnist": "classifiers",
    "resnet18": "classifiers",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a model when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
