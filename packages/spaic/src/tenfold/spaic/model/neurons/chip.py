"""Integer models of the Darwin chip (section 4)."""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import register

_Q16 = "round(clip({} + 32768, 0, 65536)) - 32768"
_darwin = NeuronModel(
    name="darwin_clif",
    states={"V": ("uniform", 10000.0, 15000.0), "C": 0.0},
    parameters={"tau_m": 12.0, "tau_s": 8.0, "bias": 0.0, "v_th": 16384.0},
    constants="P0 = round(256 * exp(-dt / tau_m)) / 256\nP4 = round(256 * exp(-dt / tau_s)) / 256",
    step=f"""
    C = {_Q16.format("C * P4 + Isyn")}
    u = {_Q16.format("V * P0 + C + bias")}
    O = spike(u - v_th)
    V = u - u * O
    """,
)
register(_darwin)
register(
    replace(
        _darwin,
        name="darwin_alif",
        states={"V": ("uniform", -30000.0, 15000.0), "C": 0.0, "Vth": "v_th"},
        step=_darwin.step.replace("u - v_th", "u - Vth")
        + "    Vth = 0.999 * Vth + round(0.001 * v_th) + O * round(0.2 * v_th)\n",
    )
)
register(
    NeuronModel(
        name="darwin_random",
        states={"V": 0.0},
        parameters={"tau_m": 10.0, "std": 0.0, "bias": 0.0, "v_th": 15000.0},
        constants="P0 = round(256 * exp(-dt / tau_m)) / 256",
        step="""
        u = P0 * V + round(std * uniform() - std / 2) + bias
        O = spike(u - v_th)
        V = where(O > 0, 0.0, u)
        """,
    )
)
