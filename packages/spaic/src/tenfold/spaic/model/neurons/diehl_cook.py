"""Neurons of competitive STDP networks (Diehl & Cook 2015), also in integers (section 4)."""

from dataclasses import replace

import numpy as np

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import RESET, register

_stdp = NeuronModel(
    name="lifstdp_ex",
    states={"V": "v_rest", "theta": 0.0},
    parameters={
        "v_th": -52.0,
        "v_reset": -60.0,
        "v_rest": -65.0,
        "th_inc": 0.05,
        "tau_theta": 1e7,
        "tau_m": 100.0,
    },
    constants="decay_th = exp(-dt / tau_theta)\ndecay_v = exp(-dt / tau_m)",
    stay=("theta",),
    step="""
    u = v_rest + decay_v * (V - v_rest) + Isyn
    theta = decay_th * theta
    O = spike(u - (v_th + theta))
    V = where(O > 0, v_reset, u)
    theta = theta + th_inc * O
    """,
)
register(
    _stdp,
    spaic=replace(
        _stdp,
        states={"V": -65.0, "theta": 0.0, "T": 0.0},
        parameters={
            "v_th": -52.0,
            "v_reset": -60.0,
            "v_rest": -65.0,
            "th_inc": 0.05,
            "decay_th": float(np.exp(-1 / 1e7)),
            "decay_v": float(np.exp(-1 / 100)),
        },
        constants="",
        step="""
        u = v_rest + decay_v * (V - v_rest) + Isyn
        theta = decay_th * theta
        O = spike(u - T)
        T = v_th + theta
        V = where(O > 0, v_reset, u)
        theta = theta + th_inc * O
        """,
    ),
)
register(
    replace(
        _stdp,
        name="alifstdp_ex",
        states={"V": 0.0, "theta": 0.0},
        parameters={
            "v_th": 2.0,
            "v_reset": 2.0,
            "v_rest": 0.0,
            "th_inc": 0.001,
            "tau_theta": 1e5,
            "tau_m": 100.0,
        },
        step="""
        u = v_rest + decay_v * (V - v_rest) + Isyn
        theta = decay_th * theta
        T = v_th + theta
        O = spike(u - T)
        V = u - v_reset * O
        theta = theta + O * th_inc * T
        """,
    ),
    spaic=NeuronModel(
        states={"V": 0.0, "theta": 0.0, "T": 2.0},
        parameters={
            "v_th": 2.0,
            "v_reset": 2.0,
            "v_rest": 0.0,
            "th_inc": 0.001,
            "decay_th": float(np.exp(-1 / 1e5)),
            "decay_v": float(np.exp(-1 / 100)),
        },
        stay=("theta",),
        step="""
        u = v_rest + decay_v * (V - v_rest) + Isyn
        theta = decay_th * theta
        O = spike(u - T)
        V = u - v_reset * O
        theta = theta + O * th_inc * T
        T = v_th + theta - O * th_inc * T
        """,
    ),
)
register(
    NeuronModel(
        name="lifstdp_ih",
        states={"V": "v_rest"},
        parameters={"v_th": -40.0, "v_reset": -45.0, "v_rest": -60.0, "tau_m": 10.0},
        constants="decay_v = exp(-dt / tau_m)",
        step="u = v_rest + decay_v * (V - v_rest) + Isyn\nO = spike(u - v_th)\n" + RESET,
    ),
    spaic=NeuronModel(
        states={"V": -60.0},
        parameters={
            "v_th": -40.0,
            "v_reset": -45.0,
            "v_rest": -60.0,
            "decay_v": float(np.exp(-1 / 10)),
        },
        step="u = v_rest + decay_v * (V - v_rest) + Isyn\nO = spike(u - v_th)\n" + RESET,
    ),
)
register(
    NeuronModel(
        name="diehlandcook",
        states={"V": 0.0, "refrac": 0.0, "th": "thresh"},
        parameters={
            "thresh": 213.0,
            "max_threshold": 4915.0,
            "decay": 1013.0,
            "shift": 10.0,
            "weight_sum_coef": 154.0,
            "v_reset": 0.0,
            "v_rest": 0.0,
        },
        constants="unit = 2 ** shift",
        stay=("th",),
        dtype="float64",  # integers up to 2^25, which float32 does not hold
        step="""
        x = clip(where(Isyn < 0, -floor(-Isyn), floor(Isyn)), -32767, 32767)
        th = where(th > max_threshold, floor(th / 2), th)
        v = floor(decay * (V - v_rest) / unit) + v_rest
        v = where(refrac > 0, v, v + floor(x * weight_sum_coef / unit))
        refrac = refrac - 1
        O = spike(v - th)
        refrac = where(O > 0, 5.0, refrac)
        v = where(O > 0, v_reset, v)
        th = th + 66 * batch_sum(O)
        V = maximum(v, -32767)
        """,
    )
)
register(
    NeuronModel(
        name="lifint",
        states={"V": 0.0, "refrac": 0.0},
        parameters={
            "thresh": 1.0,
            "decay": 1.0,
            "v_reset": 0.0,
            "v_rest": 0.0,
            "reset_refrac": 0.0,
        },
        step="""
        x = where(refrac > 0, 0.0, Isyn)
        refrac = refrac - 1
        v = decay * (V - v_rest) + v_rest + x
        O = spike_at(v - thresh)
        refrac = where(O > 0, reset_refrac, refrac)
        V = where(O > 0, v_reset, v)
        """,
    )
)
