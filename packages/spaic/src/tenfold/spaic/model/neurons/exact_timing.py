"""Neurons that say when within a step they spiked (section 4: `slif`, `selif`).

The official models of these names are not public; these follow the equations of the rule that they
were made for (TRUE, section 10.4). A spike is placed where the straight line from the potential
before the step to that after it crosses the threshold. `T` is the time in ms that is left of the
step after the spike, 0 where there is none, so one variable holds both the spike and its time; its
gradient is that of SpikeProp, dT/du = beta dt/u̇. `S = O e^{−T/tau_s}` is what is left at the end of
the step of a current that the spike has set off: links of exact timing read it
(`pre_var_name="S"`). The learner `true` gives `O` the gradient beta dt clip(1 + (u − v_th)/alpha).
"""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.kernels import KERNEL
from tenfold.spaic.model.neurons.registry import register

_CROSSING = """
speed = maximum(detach(u - V), 0.000001) / dt
g = detach(u) + beta * dt * (u - detach(u))
O = spike(g - v_th)
T = detach(O) * clip((g - v_th) / speed, 0, dt)
S = O * exp(-T / tau_s)
V = where(O > 0, 0.0, u)
"""

_slif = NeuronModel(
    name="slif",
    states={"V": 0.0, "T": 0.0, "S": 0.0},
    parameters={"tau_m": 8.0, "tau_s": 4.0, "v_th": 1.0, "beta": 0.3},
    constants="beta_m = exp(-dt / tau_m)",
    pulses=("T", "S"),
    step="u = beta_m * V + Isyn" + _CROSSING,
)
register(_slif)
register(  # with a current of tau_s: the potential that a spike causes has the peak of its weight
    replace(
        _slif,
        name="selif",
        states={"V": 0.0, "C": 0.0, "T": 0.0, "S": 0.0},
        parameters={
            **_slif.parameters,
            "V0": KERNEL.replace("tau_p", "tau_m").replace("tau_q", "tau_s"),
        },
        constants="""
        beta_m = exp(-dt / tau_m)
        beta_s = exp(-dt / tau_s)
        kick = V0 * where(tau_m == tau_s, dt / tau_m * beta_m, beta_m - beta_s)
        """,  # with equal times the alpha function
        step="u = beta_m * V + kick * C\nC = beta_s * C + Isyn" + _CROSSING,
    )
)
