"""Neuron models: each a handful of equations, in two modes.

The default is right: currents are integrated with dt, resets and refractory periods work, a
Hodgkin–Huxley spike is one upward crossing. `compat="spaic"` repeats the official code step by
step (newest public commit, May 2024), where a charge is added whole in each step. Models for
machine learning, whose unit of time is the step, are the same in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic import equations as eq


@dataclass(frozen=True, kw_only=True)
class NeuronModel:
    """What a neuron does in one step, as text (the language of `tenfold.spaic.equations`).

    Either `step` is the whole step and assigns `O`, or `ode` holds differential equations,
    `threshold` the condition of a spike, and `reset` what a neuron that spiked does after the
    spikes of this step have been delivered.

    Attributes:
        name: How a NeuronGroup asks for it.
        states: Variable → value at the start of a run: a number, an expression of the parameters,
            or `("uniform", low, high)`. `O` (spikes) is always there.
        parameters: Parameter → default: a number or an expression of the others; times in ms.
        constants: Lines computed once in float64 from the parameters and `dt`.
        step: Lines of one step.
        ode: Lines `dX/dt = ...`.
        threshold: The spike condition, for example `V > v_th`.
        reset: Lines that only neurons that spiked carry out.
        inputs: Variables that hold the sum of what connections deliver in this step. A connection
            may also target a state: then the sum is added to it at the end of the step.
        trainable: Parameters that a gradient learner trains.
        stay: States that a new run keeps.
        frozen: States that stand still while the neuron is refractory.
        method: How `ode` is integrated.
        dtype: The precision it needs, if not the network's.
    """

    name: str = "custom"
    states: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    constants: str = ""
    step: str = ""
    ode: str = ""
    threshold: str = ""
    reset: str = ""
    inputs: tuple[str, ...] = ("Isyn",)
    trainable: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ("V",)
    method: str = "euler"
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Refuses models that no compiler could take."""
        where = f"model {self.name!r}"
        for name in (*self.states, *self.parameters, *self.inputs):
            eq.variable_name(name, where)
        if self.dtype not in (None, "float32", "float64"):
            raise InputError(f"{where}: dtype={self.dtype!r}; expected None, 'float32', 'float64'")
        assigned = {line.name for line in eq.parse(self.step, where)}
        if self.step and "O" not in assigned:
            raise InputError(f"{where}: no line assigns O, the spikes")
        if bool(self.step) == bool(self.ode):
            raise InputError(f"{where}: give either `step` or `ode`")
        if self.ode and not self.threshold:
            raise InputError(f"{where}: `ode` needs a `threshold`, for example 'V > v_th'")


@dataclass(frozen=True)
class CompiledModel:
    """A neuron model for one group: parameters resolved, equations turned into a step.

    Attributes:
        name: The model.
        states: All state variables, `O` last.
        initial: State → starting value (number, array of one value a neuron, or a uniform range).
        values: Names of parameters and constants that the step reads → number, array or tensor.
        update: The step up to the spikes.
        reset: What neurons that spiked do after the deliveries of this step.
        inputs: The names of the inputs.
        stay: States that a new run keeps.
        dtype: The precision.
    """

    name: str
    states: tuple[str, ...]
    initial: Mapping[str, Any]
    values: Mapping[str, Any]
    update: eq.Program
    reset: eq.Program
    inputs: tuple[str, ...]
    stay: tuple[str, ...]
    dtype: torch.dtype


def resolve(model: NeuronModel, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Gives every parameter of a model its value.

    Args:
        model: The model.
        given: Parameters of the group; each a number, an array of one value a neuron or a tensor.
        where: The group, for messages.

    Raises:
        InputError: For unknown names, values that are not finite, times that are not positive.
    """
    for name in given:
        if name not in model.parameters:
            raise InputError(
                f"{where}: {did_you_mean(name, model.parameters, f'parameter of {model.name}')}"
            )
    made: dict[str, Any] = {}
    for name, default in model.parameters.items():
        value = given.get(name, default)
        if isinstance(value, str):
            try:
                value = eq.evaluate(eq.expression(value, where), made)
            except ZeroDivisionError:
                value = np.inf
        if not isinstance(value, torch.Tensor):
            value = np.asarray(value, dtype=np.float64)
            value = float(value) if value.ndim == 0 else value
        numbers = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if not np.all(np.isfinite(numbers)):
            hint = "; two time constants of a kernel must differ" if name == "V0" else ""
            raise InputError(f"{where}: {name}={value} is not finite{hint}")
        if name.startswith("tau") and np.any(np.asarray(numbers) <= 0):
            raise InputError(f"{where}: {name}={value}; a time constant must be > 0 ms")
        made[name] = value
    return made


def compile_model(
    model: NeuronModel,
    parameters: Mapping[str, Any],
    dt: float,
    dtype: torch.dtype,
    method: str | None = None,
    refractory: Any = 0.0,
    refractory_from: str = "next",
    where: str = "group",
) -> CompiledModel:
    """Turns a model into the step of one group.

    Args:
        model: The model.
        parameters: From `resolve`.
        dt: The step in ms.
        dtype: The network's precision.
        method: How differential equations are integrated; by default the model's own.
        refractory: Refractory period in ms, one number or one a neuron. The states in
            `model.frozen` stand still and no spike is made.
        refractory_from: `next`: the period's steps begin after the spike (NEST); `spike`: the
            step of the spike is one of them (Brian2), so that intervals are one step shorter.
        where: The group, for messages.

    Raises:
        InputError: For a method, a period or a name that does not fit.
    """
    if refractory_from not in ("next", "spike"):
        raise InputError(
            f"{where}: refractory_from={refractory_from!r}; expected 'next' or 'spike'"
        )
    values: dict[str, Any] = dict(parameters) | {"dt": dt}
    values |= eq.evaluate_all(eq.parse(model.constants, where), values)
    program: tuple[eq.Statement, ...]
    if model.ode:
        program, made = eq.integrate(
            eq.parse(model.ode, where), method or model.method, values, dt, where
        )
        values |= made
        if (method or model.method) == "euler":
            for name, value in parameters.items():
                tau = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
                if name.startswith("tau") and float(np.min(tau)) < 2 * dt:
                    message(
                        f"{where}: dt={dt:g} is more than half of {name}={np.min(tau):g} ms; "
                        "forward Euler is not accurate then"
                    )
    else:
        if method is not None:
            raise InputError(f"{where}: model {model.name!r} has no differential equations")
        program = eq.parse(model.step, where)
    lines = list(program)
    if model.ode:
        condition = eq.expression(model.threshold, where)
        lines.append(eq.Statement("O", _spike_of(condition)))
    steps = np.rint(np.asarray(refractory, dtype=np.float64) / dt - (refractory_from == "spike"))
    if np.any(np.asarray(refractory) < 0) or not np.all(np.isfinite(steps)):
        raise InputError(f"{where}: refractory={refractory}; expected >= 0 ms")
    states = dict(model.states)
    if np.any(steps > 0):
        frozen = [name for name in model.frozen if name in states]
        first = [eq.parse(f"{name}__old = {name}")[0] for name in frozen]
        hold = [eq.parse(f"{name} = where(wait > 0, {name}__old, {name})")[0] for name in frozen]
        masked = eq.parse("O = where(wait > 0, 0.0, O)\nwait = where(O > 0, wait_for, wait - 1)")
        if model.ode:  # what is held decides about the spike
            lines = [*first, *lines[:-1], *hold, lines[-1], *masked]
        else:
            lines = [*first, *lines, *hold, *masked]
        values["wait_for"] = float(steps) if steps.ndim == 0 else steps
        states["wait"] = 0.0
    update = tuple(lines)
    reset = eq.parse(model.reset, where)
    initial = {"O": 0.0}
    for name, start in states.items():
        if isinstance(start, str):
            start = eq.evaluate(eq.expression(start, where), values)
        initial[name] = start
    known = set(values) | set(initial) | set(model.inputs)
    for line in (*update, *reset):
        unknown = eq.names([line.value]) - known
        if unknown:
            raise InputError(f"{where}: `{line}` reads {', '.join(sorted(unknown))}, not defined")
        known.add(line.name)
    read = eq.names(line.value for line in (*update, *reset))
    wanted = getattr(torch, model.dtype) if model.dtype else dtype
    return CompiledModel(
        name=model.name,
        states=(*states, "O") if "O" not in states else tuple(states),
        initial=initial,
        values={name: value for name, value in values.items() if name in read},
        update=update,
        reset=reset,
        inputs=model.inputs,
        stay=model.stay,
        dtype=wanted,
    )


def _spike_of(condition: Any) -> Any:
    """Writes `a > b` as spike(a - b), which learners can give a gradient; else a plain mask."""
    import ast

    simple = isinstance(condition, ast.Compare) and isinstance(condition.ops[0], ast.Gt)
    if simple:
        return eq.expression(
            f"spike(({ast.unparse(condition.left)}) - ({ast.unparse(condition.comparators[0])}))"
        )
    return eq.expression(f"where({ast.unparse(condition)}, 1.0, 0.0)")


# ------------------------------------------------------------------------------------ the registry

_DEFAULT: dict[str, NeuronModel] = {}
_SPAIC: dict[str, NeuronModel] = {}


def register(model: NeuronModel, *aliases: str, spaic: NeuronModel | None = None) -> NeuronModel:
    """Makes a model known by its name (without regard to case).

    Args:
        model: The model.
        aliases: Further names.
        spaic: What `compat="spaic"` takes instead.
    """
    for name in (model.name, *aliases):
        _DEFAULT[name.casefold()] = model
        _SPAIC[name.casefold()] = replace(spaic or model, name=model.name)
    return model


def find(name: str, compat: str | None, where: str = "group") -> NeuronModel:
    """Finds a registered model.

    Args:
        name: Its name.
        compat: None or `"spaic"`.
        where: The group, for messages.

    Raises:
        InputError: If there is none of this name.
    """
    known = _SPAIC if compat == "spaic" else _DEFAULT
    if name.casefold() not in known:
        raise InputError(f"{where}: {did_you_mean(name, known, 'neuron model')}")
    return known[name.casefold()]


def model_names() -> list[str]:
    """Lists the registered models."""
    return sorted(_DEFAULT)


_KERNEL = "(tau_p / tau_q) ** (tau_p / (tau_p - tau_q)) / (tau_p / tau_q - 1)"
"""V0: scales e^(−t/tau_p) − e^(−t/tau_q) to the peak 1."""

_RESET = "V = where(O > 0, v_reset, u)\n"  # detached
_SOFT = "V = u - u * O\n"  # the gradient passes through the spike

_lif = NeuronModel(
    name="lif",
    states={"V": 0.0},
    parameters={"tau_m": 8.0, "v_th": 1.0, "v_reset": 0.0},
    constants="beta = exp(-dt / tau_m)",
    step=f"u = beta * V + Isyn\nO = spike(u - v_th)\n{_RESET}",
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
        step="u = V + Isyn - ConstantDecay\nO = spike(u - v_th)\n" + _SOFT,
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
        step="u = V + Isyn + bias\nO = spike(u - v_th)\n" + _SOFT,
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
        step="u = V + sigmoid(w0) * (Isyn - V)\nO = spike(u - v_th)\n" + _SOFT,
    )
)
_clif = NeuronModel(
    name="clif",
    states={"V": 0.0, "M": 0.0, "S": 0.0, "E": 0.0},
    parameters={"tau_p": 12.0, "tau_q": 8.0, "tau_m": 20.0, "v_th": 1.0, "V0": _KERNEL},
    trainable=("V0",),
    constants="beta_p = exp(-dt / tau_p)\nbeta_q = exp(-dt / tau_q)\nbeta_m = exp(-dt / tau_m)",
    frozen=(),
    step="""
    J = V0 * Isyn
    M = beta_p * M + J
    S = beta_q * S + J
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
            "V0": _KERNEL.replace("tau_p", "tau_m").replace("tau_q", "tau_s"),
        },
        constants="beta_p = exp(-dt / tau_m)\nbeta_q = exp(-dt / tau_s)\nbeta_m = beta_p",
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
        M = beta_p * M + J
        S = beta_q * S + J
        V = M - S - (beta_adaptive * A + E)
        O = spike(V - v_th)
        E = beta_m * E + v_th * O
        """,
    )
)
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
_nonspiking = NeuronModel(
    name="nonspikinglif",
    states={"V": 0.0, "M": 0.0, "S": 0.0},
    parameters={"tau_p": 4.0, "tau_q": 1.0, "tau_m": 1.0, "V0": _KERNEL},
    trainable=("V0",),
    constants="beta_p = exp(-dt / tau_p)\nbeta_q = exp(-dt / tau_q)\nk = 1 - exp(-dt / tau_m)",
    step="""
    J = V0 * Isyn
    M = beta_p * M + J
    S = beta_q * S + J
    V = V + k * (M - S - V)
    O = V
    """,
)
register(
    _nonspiking,
    spaic=replace(
        _nonspiking,
        states={"V": 0.0, "M": 0.0, "S": 0.0, "J": 0.0, "before": 0.0},
        constants="beta_p = exp(-dt / tau_p)\nbeta_q = exp(-dt / tau_q)\nk = dt / tau_m",
        step="""
        V = V + k * (M - S - V)
        M = beta_p * M + J
        S = beta_q * S + J
        J = V0 * before
        before = Isyn
        O = V
        """,
    ),
)
register(
    NeuronModel(
        name="lifm",
        states={"V": 0.0, "C": 0.0},
        parameters={"tau_m": 10.0, "tau_p": 1.0, "v_th": 1.0},
        constants="beta_m = exp(-dt / tau_m)\nbeta_p = exp(-dt / tau_p)",
        step="C = beta_p * C + Isyn\nu = beta_m * V + C\nO = spike(u - v_th)\n" + _SOFT,
    )
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
        step="u = v_rest + decay_v * (V - v_rest) + Isyn\nO = spike(u - v_th)\n" + _RESET,
    ),
    spaic=NeuronModel(
        states={"V": -60.0},
        parameters={
            "v_th": -40.0,
            "v_reset": -45.0,
            "v_rest": -60.0,
            "decay_v": float(np.exp(-1 / 10)),
        },
        step="u = v_rest + decay_v * (V - v_rest) + Isyn\nO = spike(u - v_th)\n" + _RESET,
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
        O = where(v >= thresh, 1.0, 0.0)
        refrac = where(O > 0, reset_refrac, refrac)
        V = where(O > 0, v_reset, v)
        """,
    )
)
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

# ------------------------------------------------------- what reference simulators have (not SPAIC)

register(
    NeuronModel(
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
        ode="dV/dt = (EL - V) / tau_m + (I_e + Isyn) / C",
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
