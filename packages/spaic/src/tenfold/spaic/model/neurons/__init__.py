"""Neuron models: each a handful of equations, in two modes.

The default is right: currents are integrated with dt, resets and refractory periods work, a
Hodgkin–Huxley spike is one upward crossing. `compat="spaic"` repeats the official code step by
step (newest public commit, May 2024), where a charge is added whole in each step. Models for
machine learning, whose unit of time is the step, are the same in both.
"""

from tenfold.spaic.model.neurons import (  # each registers its models
    biophysics,
    chip,
    diehl_cook,
    exact_timing,
    fields,
    integrators,
    kernels,
    simulators,
)
from tenfold.spaic.model.neurons.custom import custom_model
from tenfold.spaic.model.neurons.definition import (
    CompiledModel,
    NeuronModel,
    compile_model,
    resolve,
)
from tenfold.spaic.model.neurons.operations import operations_model
from tenfold.spaic.model.neurons.registry import find, model_names, register

__all__ = [
    "CompiledModel",
    "NeuronModel",
    "biophysics",
    "chip",
    "compile_model",
    "custom_model",
    "diehl_cook",
    "exact_timing",
    "fields",
    "find",
    "integrators",
    "kernels",
    "model_names",
    "operations_model",
    "register",
    "resolve",
    "simulators",
]
