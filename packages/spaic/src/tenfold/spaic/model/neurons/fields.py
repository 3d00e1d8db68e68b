"""Rates instead of spikes: mean fields and continuous attractors (section 4)."""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import register

_field = NeuronModel(
    name="meanfield",
    states={"U": 0.0},
    parameters={"rho": 0.1, "tau": 1.0},
    inputs=("Isyn", "Iext"),
    step="U = U + dt / tau * (rho * Isyn + Iext - U)\nO = relu(U)",
)
_before = {"U": 0.0, "before": 0.0, "before_ext": 0.0}
_lagged = "U = U + dt / tau * (rho * before + before_ext - U)\nbefore = Isyn\nbefore_ext = Iext\n"
register(_field, spaic=replace(_field, states=_before, step=_lagged + "O = relu(U)"))
_cann = "r = relu(U) ** 2\nO = r / (1 + k * rho * sum(r))"
_cann_field = replace(
    _field,
    name="cann_field",
    parameters={"rho": 0.02, "k": 0.01, "tau": 1.0},
    step="U = U + dt / tau * (rho * Isyn + Iext - U)\n" + _cann,
)
register(_cann_field, spaic=replace(_cann_field, states=_before, step=_lagged + _cann))
register(
    replace(
        _field,
        name="ratemodel",
        parameters={"tau": 1.0},
        step="U = U + dt / tau * (sigmoid(Iext + Isyn) - U)\nO = U",
    )
)
