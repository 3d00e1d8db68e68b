"""Current-based neurons with exponential kernels: the clif family (section 4)."""

from dataclasses import replace

from tenfold.spaic.model.neurons.definition import NeuronModel
from tenfold.spaic.model.neurons.registry import register

KERNEL = """where(tau_p == tau_q, exp(1.0),
    (tau_p / tau_q) ** (tau_p / (tau_p - tau_q + (tau_p == tau_q)))
    / (tau_p / tau_q - 1 + (tau_p == tau_q)))"""
"""V0: scales e^(−t/tau_p) − e^(−t/tau_q) to the peak 1; of equal times, (t/tau) e^(−t/tau)."""

BETAS = """
beta_p = exp(-dt / tau_p)
beta_q = exp(-dt / tau_q)
kappa = (tau_p == tau_q) * dt / tau_p * beta_p
"""
"""With equal times M − S would be zero; `S = ... - kappa * M` makes it the alpha function then."""

_clif = NeuronModel(
    name="clif",
    states={"V": 0.0, "M": 0.0, "S": 0.0, "E": 0.0},
    parameters={"tau_p": 12.0, "tau_q": 8.0, "tau_m": 20.0, "v_th": 1.0, "V0": KERNEL},
    trainable=("V0",),
    constants=BETAS + "beta_m = exp(-dt / tau_m)",
    frozen=(),
    step="""
    J = V0 * Isyn
    S = beta_q * S + J - kappa * M
    M = beta_p * M + J
    V = M - S - E
    O = spike(V - v_th)
    E = beta_m * E + v_th * O
    """,
)
register(_clif)
register(
    replace(
        _clif,
        name="clif2k",
        parameters={
            "tau_m": 20.0,
            "tau_s": 12.0,
            "v_th": 1.0,
            "V0": KERNEL.replace("tau_p", "tau_m").replace("tau_q", "tau_s"),
        },
        constants=BETAS.replace("tau_p", "tau_m").replace("tau_q", "tau_s") + "beta_m = beta_p",
    )
)
register(
    NeuronModel(
        name="pclif",
        states={"V": 0.0, "M": 0.0, "S": 0.0, "E": 0.0},
        parameters={"tau_m": 0.9, "tau_s": 0.6, "v_th": 1.0},
        trainable=("tau_m", "tau_s"),
        frozen=(),
        step="""
        M = tau_m * (M + Isyn)
        S = tau_s * (S + Isyn)
        E = tau_m * E + v_th * O
        V = M - S - E
        O = spike(V - v_th)
        """,
    )
)
register(
    replace(
        _clif,
        name="aclif",
        states={**_clif.states, "A": 0.0},
        parameters={**_clif.parameters, "tau_a": 2000.0, "beta_adaptive": 0.1},
        constants=_clif.constants + "\nbeta_a = exp(-dt / tau_a)",
        stay=("A",),
        step="""
        A = beta_a * A + O
        J = V0 * Isyn
        S = beta_q * S + J - kappa * M
        M = beta_p * M + J
        V = M - S - (beta_adaptive * A + E)
        O = spike(V - v_th)
        E = beta_m * E + v_th * O
        """,
    )
)
_nonspiking = NeuronModel(
    name="nonspikinglif",
    states={"V": 0.0, "M": 0.0, "S": 0.0},
    parameters={"tau_p": 4.0, "tau_q": 1.0, "tau_m": 1.0, "V0": KERNEL},
    trainable=("V0",),
    constants=BETAS + "k = 1 - exp(-dt / tau_m)",
    step="""
    J = V0 * Isyn
    S = beta_q * S + J - kappa * M
    M = beta_p * M + J
    V = V + k * (M - S - V)
    O = V
    """,
)
register(
    _nonspiking,
    spaic=replace(
        _nonspiking,
        states={"V": 0.0, "M": 0.0, "S": 0.0, "J": 0.0, "before": 0.0},
        constants=BETAS + "k = dt / tau_m",
        step="""
        V = V + k * (M - S - V)
        S = beta_q * S + J - kappa * M
        M = beta_p * M + J
        J = V0 * before
        before = Isyn
        O = V
        """,
    ),
)
