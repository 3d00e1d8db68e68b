"""Integrate-and-fire neurons of machine learning, whose unit of time is the step (section 4)."""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import RESET, SOFT, register

_lif = NeuronModel(
    name="lif",
    states={"V": 0.0},
    parameters={"tau_m": 8.0, "v_th": 1.0, "v_reset": 0.0},
    constants="beta = exp(-dt / tau_m)",
    step=f"u = beta * V + Isyn\nO = spike(u - v_th)\n{RESET}",
)
register(_lif, spaic=replace(_lif, step=_lif.step.replace("v_reset", "0.0")))
register(
    NeuronModel(
        name="if",
        states={"V": 0.0},
        parameters={"v_th": 1.0, "ConstantDecay": 0.0},
        step="u = V + Isyn - ConstantDecay\nO = spike(u - v_th)\nV = where(O > 0, 0.0, u)",
    )
)
register(
    NeuronModel(
        name="ifsoftreset",
        states={"V": 0.0},
        parameters={"v_th": 1.0, "ConstantDecay": 0.0},
        step="u = V + Isyn - ConstantDecay\nO = spike(u - v_th)\n" + SOFT,
    )
)
register(
    NeuronModel(
        name="ifsubtract",
        states={"V": "v_start"},
        parameters={"v_th": 1.0, "v_start": 0.0},
        step="u = V + Isyn\nO = spike(u - v_th)\nV = u - v_th * O",
    )
)
register(
    NeuronModel(
        name="lifsubtract",
        states={"V": 0.0},
        parameters={"tau_m": 8.0, "v_th": 1.0},
        constants="beta = exp(-dt / tau_m)",
        step="u = beta * V + Isyn\nO = spike(u - v_th)\nV = u - v_th * detach(O)",
    )
)
register(
    NeuronModel(
        name="ifb",
        states={"V": 0.0},
        parameters={"v_th": 1.0, "bias": 0.0},
        step="u = V + Isyn + bias\nO = spike(u - v_th)\n" + SOFT,
    )
)
register(
    NeuronModel(
        name="nonspikingifb",
        states={"V": 0.0},
        parameters={"bias": 0.0},
        step="V = V + Isyn + bias\nO = V",
    )
)
register(
    NeuronModel(
        name="li",
        states={"V": 0.0},
        parameters={"tau_m": 8.0},
        constants="beta = exp(-dt / tau_m)",
        step="V = beta * V + (1 - beta) * Isyn\nO = V",
    )
)
register(NeuronModel(name="null", states={}, step="O = Isyn"))
register(
    NeuronModel(
        name="plif",
        states={"V": 0.0},
        parameters={"tau_m": 2.0, "v_th": 1.0, "w0": "-log(tau_m - 1)"},
        trainable=("w0",),
        step="u = V + sigmoid(w0) * (Isyn - V)\nO = spike(u - v_th)\n" + SOFT,
    )
)
register(
    NeuronModel(
        name="lifm",
        states={"V": 0.0, "C": 0.0},
        parameters={"tau_m": 10.0, "tau_p": 1.0, "v_th": 1.0},
        constants="beta_m = exp(-dt / tau_m)\nbeta_p = exp(-dt / tau_p)",
        step="C = beta_p * C + Isyn\nu = beta_m * V + C\nO = spike(u - v_th)\n" + SOFT,
    )
)
