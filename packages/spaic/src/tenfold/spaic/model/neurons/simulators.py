"""What reference simulators have and the official code has not (sections 19, 20, 23.2).

Spikes reach `iaf_psc_exp` and its like through their synapses: `post_var_name="ge"` (excitatory) or
`"gi"`. `Isyn`, the default of a connection, is a current in pA (a generator's, say): a spike there
lasts for one step and is nearly mute, of which the network tells when it is built.

`iaf_wang_2002` is the neuron of Wang's decision network: AMPA and GABA conductances without rise
(states `ge`, `gi`, in nS), and NMDA with a saturating gate and the voltage-dependent block by
magnesium. The gate `s` belongs to the neuron that spikes; a target adds up the gates of its sources
in its input `nmda` (nS) and applies the block at its own potential:

    pool = NeuronGroup(240, model="iaf_wang_2002", refractory=2.0)
    Connection(pool, pool, weight=0.05, post_var_name="ge", delay=0.5)  # AMPA
    Connection(  # NMDA; one weight for all pairs costs no more than the neurons
        pool, pool, link_type="all_to_all", weight=0.165, delay=0.5,
        pre_var_name="s", post_var_name="nmda",
    )

For sources of another model the synapse `syn_type=["nmda", "basic"]` holds the gates instead.
"""

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import register

register(
    NeuronModel(  # its synapses are ge and gi; what enters Isyn is a current in pA for one step
        name="iaf_psc_exp",
        states={"V": "EL", "ge": 0.0, "gi": 0.0},
        parameters={
            "C": 250.0,
            "tau_m": 10.0,
            "tau_e": 0.5,
            "tau_i": 0.5,
            "EL": -65.0,
            "v_th": -50.0,
            "v_reset": -65.0,
            "I_e": 0.0,
        },
        ode="""
        dV/dt = (EL - V) / tau_m + (ge + gi + I_e + Isyn) / C
        dge/dt = -ge / tau_e
        dgi/dt = -gi / tau_i
        """,
        threshold="V >= v_th",
        reset="V = v_reset",
        method="exact",
    )
)
register(
    NeuronModel(
        # As NEST: spikes arrive before the threshold of the step, and not while refractory.
        name="iaf_psc_delta",
        states={"V": "EL"},
        parameters={
            "C": 250.0,
            "tau_m": 10.0,
            "EL": -65.0,
            "v_th": -50.0,
            "v_reset": -65.0,
            "I_e": 0.0,
        },
        inputs=("Isyn", "jumps"),
        arrivals={"V": "jumps"},
        ode="dV/dt = (EL - V) / tau_m + (I_e + Isyn) / C",
        jump="V = V + jumps",
        threshold="V >= v_th",
        reset="V = v_reset",
        method="exact",
    )
)
register(
    NeuronModel(
        name="cuba",
        states={"V": "EL", "ge": 0.0, "gi": 0.0},
        parameters={
            "tau_m": 20.0,
            "tau_e": 5.0,
            "tau_i": 10.0,
            "EL": -49.0,
            "v_th": -50.0,
            "v_reset": -60.0,
        },
        ode="""
        dV/dt = (ge + gi - (V - EL)) / tau_m
        dge/dt = -ge / tau_e
        dgi/dt = -gi / tau_i
        """,
        threshold="V > v_th",
        reset="V = v_reset",
        method="exact",
    )
)
# Alpha functions: a unit weight into `ge` or `gi` gives (t/τ) e^{1 − t/τ}, with the peak 1 at τ.
_alpha = {
    "ge": "dge/dt = -ge / tau_e",
    "e": "de/dt = 2.718281828459045 / tau_e * ge - e / tau_e",
    "gi": "dgi/dt = -gi / tau_i",
    "i": "di/dt = 2.718281828459045 / tau_i * gi - i / tau_i",
}
register(
    NeuronModel(
        name="iaf_psc_alpha",
        states={"V": "EL", "ge": 0.0, "e": 0.0, "gi": 0.0, "i": 0.0},
        parameters={
            "C": 250.0,
            "tau_m": 10.0,
            "tau_e": 2.0,
            "tau_i": 2.0,
            "EL": -70.0,
            "v_th": -55.0,
            "v_reset": -70.0,
            "I_e": 0.0,
        },
        ode="\n".join(["dV/dt = (EL - V) / tau_m + (e + i + I_e + Isyn) / C", *_alpha.values()]),
        threshold="V >= v_th",
        reset="V = v_reset",
        method="exact",
    )
)
register(
    NeuronModel(
        name="iaf_cond_alpha",
        states={"V": "EL", "ge": 0.0, "e": 0.0, "gi": 0.0, "i": 0.0},
        parameters={
            "C": 250.0,
            "gL": 16.6667,
            "EL": -70.0,
            "Ee": 0.0,
            "Ei": -85.0,
            "tau_e": 0.2,
            "tau_i": 2.0,
            "v_th": -55.0,
            "v_reset": -60.0,
            "I_e": 0.0,
        },
        ode="\n".join(
            [
                "dV/dt = (gL * (EL - V) + e * (Ee - V) + i * (Ei - V) + I_e + Isyn) / C",
                *_alpha.values(),
            ]
        ),
        threshold="V > v_th",
        reset="V = v_reset",
        method="rk4",
    )
)
register(
    NeuronModel(
        name="lif_cond_exp",
        states={"V": "EL", "ge": 0.0, "gi": 0.0},
        parameters={
            "C": 250.0,
            "gL": 16.7,
            "EL": -70.0,
            "Ee": 0.0,
            "Ei": -85.0,
            "tau_e": 0.2,
            "tau_i": 2.0,
            "v_th": -55.0,
            "v_reset": -60.0,
            "I_e": 0.0,
        },
        ode="""
        dV/dt = (gL * (EL - V) + ge * (Ee - V) + gi * (Ei - V) + I_e + Isyn) / C
        dge/dt = -ge / tau_e
        dgi/dt = -gi / tau_i
        """,
        threshold="V > v_th",
        reset="V = v_reset",
        method="exp_euler",
    )
)
register(
    NeuronModel(
        name="cobahh",  # units: mV, ms, uF/cm2 -> pF, nS, pA over 20,000 um2
        states={"V": "EL", "m": 0.0, "n": 0.0, "h": 0.0, "ge": 0.0, "gi": 0.0},
        parameters={
            "C": 200.0,
            "gL": 10.0,
            "EL": -60.0,
            "EK": -90.0,
            "ENa": 50.0,
            "gNa": 20000.0,
            "gK": 6000.0,
            "VT": -63.0,
            "tau_e": 5.0,
            "tau_i": 10.0,
            "Ee": 0.0,
            "Ei": -80.0,
            "v_th": -20.0,
        },
        ode="""
        am = 1.28 / exprel((13 - V + VT) / 4)
        bm = 1.4 / exprel((V - VT - 40) / 5)
        ah = 0.128 * exp((17 - V + VT) / 18)
        bh = 4 / (1 + exp((40 - V + VT) / 5))
        an = 0.16 / exprel((15 - V + VT) / 5)
        bn = 0.5 * exp((10 - V + VT) / 40)
        na = gNa * m * m * m * h
        k = gK * n * n * n * n
        dV/dt = (gL * (EL - V) + ge * (Ee - V) + gi * (Ei - V) + na * (ENa - V) + k * (EK - V)) / C
        dm/dt = am * (1 - m) - bm * m
        dn/dt = an * (1 - n) - bn * n
        dh/dt = ah * (1 - h) - bh * h
        dge/dt = -ge / tau_e
        dgi/dt = -gi / tau_i
        """,
        threshold="V > v_th",
        method="exp_euler",
        frozen=(),
    )
)
# Wang (2002); NEST calls it by the same name.
register(
    NeuronModel(
        name="iaf_wang_2002",
        states={"V": "EL", "ge": 0.0, "gi": 0.0, "x": 0.0, "s": 0.0},
        parameters={
            "C": 500.0,
            "gL": 25.0,
            "EL": -70.0,
            "Ee": 0.0,
            "Ei": -70.0,
            "Mg": 1.0,
            "tau_e": 2.0,
            "tau_i": 5.0,
            "tau_rise": 2.0,
            "tau_nmda": 100.0,
            "alpha": 0.5,
            "v_th": -50.0,
            "v_reset": -55.0,
            "I_e": 0.0,
        },
        inputs=("Isyn", "nmda"),
        ode="""
        block = 1 / (1 + Mg * exp(-0.062 * V) / 3.57)
        excited = (ge + nmda * block) * (Ee - V)
        dV/dt = (gL * (EL - V) + excited + gi * (Ei - V) + I_e + Isyn) / C
        dge/dt = -ge / tau_e
        dgi/dt = -gi / tau_i
        dx/dt = -x / tau_rise
        ds/dt = -s / tau_nmda + alpha * x * (1 - s)
        """,
        threshold="V > v_th",
        reset="V = v_reset\nx = x + 1",
        method="rk2",
    )
)
