"""Neurons of biophysics: constant current, Izhikevich, AdEx, GLIF, Hodgkin–Huxley (section 4)."""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import register

register(
    NeuronModel(
        name="constantcurrentlif",
        states={"V": 0.0},
        parameters={"tau_m": 20.0, "v_th": 1.0, "v_reset": 0.0},
        ode="dV/dt = (Isyn - V) / tau_m",
        threshold="V > v_th",
        reset="V = v_reset",
        method="exact",
    ),
    spaic=NeuronModel(
        states={"V": 0.0, "before": 0.0},
        parameters={"tau_m": 20.0, "v_th": 1.0},
        step="""
        u = V + dt / tau_m * (before - V)
        V = u - u * O
        O = spike(u - v_th)
        before = Isyn
        """,
    ),
)
_izh = NeuronModel(
    name="izh",
    states={"V": -65.0, "U": 1.0},
    parameters={"a": 0.02, "b": 0.2, "v_th": 30.0, "Vreset": -65.0, "d": 8.0},
    ode="dV/dt = 0.04 * V * V + 5 * V + 140 - U + Isyn\ndU/dt = a * (b * V - U)",
    threshold="V > v_th",
    reset="V = Vreset\nU = U + d",
    frozen=("V", "U"),
)
register(
    _izh,
    spaic=replace(
        _izh,
        ode="",
        threshold="",
        reset="",
        step="""
        u = V + dt * (0.04 * V * V + 5 * V + 140 - U + Isyn)
        w = U + a * (b * V - U)
        O = spike(u - v_th)
        V = where(O > 0, Vreset, u)
        U = w + d * O
        """,
    ),
)
register(  # Latham et al. 2000; Gerstner et al., Neuronal Dynamics (2014), equation 5.16
    NeuronModel(
        name="qlif",
        states={"V": "v_rest"},
        parameters={
            "tau_m": 10.0,
            "a": 0.1,
            "v_rest": -65.0,
            "v_crit": -50.0,
            "v_peak": 30.0,
            "v_reset": -68.0,
            "R": 1.0,
        },
        ode="dV/dt = (a * (V - v_rest) * (V - v_crit) + R * Isyn) / tau_m",
        threshold="V > v_peak",
        reset="V = v_reset",
        method="rk4",
    )
)
_aeif = NeuronModel(
    name="aeif",
    states={"V": "EL", "U": 0.0},
    parameters={
        "EL": -70.6,
        "a": 4.0,
        "b": 0.0805,
        "v_th": -50.4,
        "Vspk": 20.0,
        "delta_t": 2.0,
        "C": 281.0,
        "tau_w": 144.0,
        "gL": 30.0,
    },
    ode="""
    X = delta_t * exp(minimum((V - v_th) / delta_t, 40.0))
    dV/dt = (gL * (X - (V - EL)) - U + Isyn) / C
    dU/dt = (a * (V - EL) - U) / tau_w
    """,
    threshold="V > Vspk",
    reset="V = EL\nU = U + b",
    frozen=("V",),
)
register(
    _aeif,
    "adex",
    spaic=replace(
        _aeif,
        ode="",
        threshold="",
        reset="",
        states={"V": -70.6, "U": 0.0},
        step="""
        X = delta_t * exp(minimum((V - v_th) / delta_t, 40.0))
        u = V + dt / C * (gL * (X - (V - EL)) - U + Isyn)
        w = U + dt / tau_w * (a * (V - EL) - U)
        O = spike(u - Vspk)
        V = where(O > 0, EL, u)
        U = w + b * O
        """,
    ),
)
_glif = NeuronModel(
    name="glif",
    states={"V": 0.0, "Theta_s": 0.1, "Theta_v": 0.2, "I1": 0.08, "I2": 0.06, "Vth": 0.0},
    parameters={
        "C": 60.0,
        "bs": 0.02,
        "k1": 0.8,
        "k2": 0.6,
        "av": 0.12,
        "bv": 0.3,
        "R": 2.0,
        "EL": 0.0,
        "Theta_inf": 1.0,
        "f_v": 0.1,
        "delta_v": 0.05,
        "delta_Theta_s": 0.2,
        "f1": 1.0,
        "f2": 1.0,
        "delta_I1": 0.1,
        "delta_I2": 0.1,
    },
    frozen=("V",),
    step="""
    dv = V - EL
    I1 = I1 - I1 * dt * k1
    I2 = I2 - I2 * dt * k2
    u = V + dt / C * (Isyn + I1 + I2 - dv / R)
    Theta_s = Theta_s - Theta_s * dt * bs
    Theta_v = Theta_v + dt * av * dv - dt * bv * Theta_v
    Vth = Theta_v + Theta_s + Theta_inf
    O = spike(u - Vth)
    V = where(O > 0, EL + f_v * (u - EL) - delta_v, u)
    Theta_s = Theta_s + delta_Theta_s * O
    I1 = where(O > 0, f1 * I1 + delta_I1, I1)
    I2 = where(O > 0, f2 * I2 + delta_I2, I2)
    """,
)
register(
    _glif,
    spaic=replace(
        _glif,
        step=_glif.step.replace(
            "where(O > 0, f1 * I1 + delta_I1, I1)", "I1 + O * (f1 * I1 + delta_I1)"
        ).replace("where(O > 0, f2 * I2 + delta_I2, I2)", "I2 + O * (f2 * I2 + delta_I2)"),
    ),
)

_HH_RATES = {  # a·x with x = (b − V)/c, as a/exprel for alpha_m, alpha_n
    "alpha_m": (0.1, 25.0, 10.0),
    "beta_m": (4.0, 0.0, 18.0),
    "alpha_n": (0.01, 10.0, 10.0),
    "beta_n": (0.125, 0.0, 80.0),
    "alpha_h": (0.07, 0.0, 20.0),
    "beta_h": (1.0, 30.0, 10.0),
}
_HH_LINES = """
W = V + Vreset
am = a_alpha_m * c_alpha_m / exprel((b_alpha_m - W) / c_alpha_m)
bm = a_beta_m * exp((b_beta_m - W) / c_beta_m)
an = a_alpha_n * c_alpha_n / exprel((b_alpha_n - W) / c_alpha_n)
bn = a_beta_n * exp((b_beta_n - W) / c_beta_n)
ah = a_alpha_h * exp((b_alpha_h - W) / c_alpha_h)
bh = a_beta_h / (exp((b_beta_h - W) / c_beta_h) + 1)
"""
_hh = NeuronModel(
    name="hh",
    states={"V": 0.0, "m": 0.5, "n": 0.5, "h": 0.06, "above": 0.0},
    parameters={
        "C": 1.0,
        "gNa": 120.0,
        "gK": 36.0,
        "gL": 0.3,
        "ENa": 120.0,
        "EK": -12.0,
        "EL": 10.6,
        "v_th": 20.0,
        "Vreset": 0.0,
        **{
            f"{letter}_{rate}": value
            for rate, values in _HH_RATES.items()
            for letter, value in zip("abc", values, strict=True)
        },
    },
    ode=_HH_LINES
    + """
    above = where(V > v_th, 1.0, 0.0)
    dm/dt = am * (1 - m) - bm * m
    dn/dt = an * (1 - n) - bn * n
    dh/dt = ah * (1 - h) - bh * h
    dV/dt = (Isyn - gNa * m ** 3 * h * (V - ENa) - gK * n ** 4 * (V - EK) - gL * (V - EL)) / C
    """,
    threshold="(V > v_th) & (above < 0.5)",
    method="exp_euler",
    frozen=(),
)
register(
    _hh,
    spaic=replace(
        _hh,
        ode="",
        threshold="",
        states={"V": 0.0, "m": 0.5, "n": 0.5, "h": 0.06},
        parameters={k: v for k, v in _hh.parameters.items() if k != "C"} | {"v_th": 1.0},
        step=_HH_LINES
        + """
        m = m + dt * (am * (1 - m) - bm * m)
        n = n + dt * (an * (1 - n) - bn * n)
        h = h + dt * (ah * (1 - h) - bh * h)
        leak = gNa * m ** 3 * h * (V - ENa) + gK * n ** 4 * (V - EK) + gL * (V - EL)
        V = V + Isyn - dt * leak
        O = spike(V - v_th)
        """,
    ),
)
