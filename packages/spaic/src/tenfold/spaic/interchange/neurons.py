"""The neurons of NIR as models of this package, and back."""

from typing import Any

import numpy as np

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic.model.neurons import NeuronModel, resolve
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network

RESETS = ("value", "subtract", "subtract-next")
"""What a spike does: v becomes v_reset; v_threshold is subtracted; it is subtracted one step later
(snnTorch's default). The model's `soft` is the position."""

_FIRE = """
    late = where(soft > 1.5, v_th * O, 0.0)
    u = {} - late
    O = spike(u - v_th)
    V = where(soft > 1.5, u, where(soft > 0.5, u - v_th * O, where(O > 0, v_reset, u)))
"""
_COMMON = {"beta": 0.9, "gain": 1.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0, "soft": 1.0}
NIR_LIF = NeuronModel(
    name="nir_lif",
    states={"V": 0.0},
    parameters=_COMMON,
    step=_FIRE.format("v_leak + beta * (V - v_leak) + gain * Isyn"),
)
NIR_CUBA = NeuronModel(
    name="nir_cuba",
    states={"V": 0.0, "I": 0.0},
    parameters={"alpha": 0.8, "gain_in": 1.0, **_COMMON},
    step="    I = alpha * I + gain_in * Isyn"
    + _FIRE.format("v_leak + beta * (V - v_leak) + gain * I"),
)
NIR_LI = NeuronModel(
    name="nir_li",
    states={"V": 0.0},
    parameters={"beta": 0.9, "gain": 1.0, "v_leak": 0.0},
    step="V = v_leak + beta * (V - v_leak) + gain * Isyn\nO = V",
)
NIR_CUBA_LI = NeuronModel(
    name="nir_cuba_li",
    states={"V": 0.0, "I": 0.0},
    parameters={"alpha": 0.8, "gain_in": 1.0, **NIR_LI.parameters},
    step="I = alpha * I + gain_in * Isyn\n" + NIR_LI.step.replace("Isyn", "I"),
)
NIR_THRESHOLD = NeuronModel(
    name="nir_threshold", parameters={"v_th": 1.0}, step="O = spike(Isyn - v_th)"
)

NEURONS = ("LIF", "IF", "LI", "I", "CubaLIF", "CubaLI", "Threshold")
"""The nodes of NIR that become groups."""


def read_neuron(node: Any, seconds: float, how: str, reset: str | None) -> NeuronGroup:
    """Makes the group of a node.

    Args:
        node: A node of `NEURONS`.
        seconds: The step in s.
        how: exponential or euler.
        reset: One of `RESETS`; by default what the node's metadata say, else subtract.
    """
    kind = type(node).__name__
    said = reset or text((node.metadata or {}).get("reset", "subtract"))
    if said not in RESETS:
        raise InputError(did_you_mean(said, RESETS, "reset"))

    def flat(value: Any) -> np.ndarray:
        return np.asarray(value, dtype=np.float64).reshape(-1)

    def decay(tau: Any) -> tuple[np.ndarray, np.ndarray]:
        """β and the gain of a unit input, before r."""
        if not (flat(tau) > 0).all():
            raise InputError(f"a node {kind} has the time constant {tau} s; expected > 0")
        beta = np.exp(-seconds / flat(tau)) if how == "exponential" else 1 - seconds / flat(tau)
        return beta, 1 - beta

    if kind == "Threshold":
        shape = np.shape(node.threshold)
        return NeuronGroup(shape=shape or (1,), model=NIR_THRESHOLD, v_th=flat(node.threshold))
    options: dict[str, Any]
    if kind in ("IF", "I"):
        shape = np.shape(node.r) or (1,)
        options = {"beta": 1.0, "gain": flat(node.r) * seconds}
    else:
        tau = node.tau_mem if kind in ("CubaLIF", "CubaLI") else node.tau
        shape = np.shape(tau) or (1,)
        beta, share = decay(tau)
        options = {"beta": beta, "gain": share * flat(node.r), "v_leak": flat(node.v_leak)}
    if kind in ("CubaLIF", "CubaLI"):
        alpha, share = decay(node.tau_syn)
        options |= {"alpha": alpha, "gain_in": share * flat(node.w_in)}
    if kind in ("LI", "I", "CubaLI"):
        model = NIR_CUBA_LI if kind == "CubaLI" else NIR_LI
        return NeuronGroup(shape=shape, model=model, **options)
    options["v_th"] = flat(node.v_threshold)
    v_reset = getattr(node, "v_reset", None)
    options["soft"] = float(RESETS.index(said))
    options["v_reset"] = 0.0 if v_reset is None else flat(v_reset)
    model = NIR_CUBA if kind == "CubaLIF" else NIR_LIF
    return NeuronGroup(shape=shape, model=model, **options)


def write_neuron(nir: Any, net: Network, group: NeuronGroup, shape: tuple[int, ...]) -> Any:
    """Makes the node of a group.

    Args:
        nir: The package.
        net: The network.
        group: A group of `if`, `ifsubtract`, `lif`, `lifsubtract`, `li` or of a node of NIR.
        shape: The node's shape.

    Raises:
        InputError: For another model, a refractory period, a constant decay, and where a time
            constant is not longer than a step of Euler's method.
    """
    model = group.definition(net.compat)
    values = resolve(model, group.model_parameters | group.trainables, f"{group!r}")
    if np.any(np.asarray(group.refractory) > 0):
        raise InputError(f"{group!r}: NIR has no refractory periods, but refractory is set")
    if np.any(np.asarray(values.get("v_start", 0.0)) != 0) or group.initial:
        message(f"{group!r}: NIR has no starting values; in the graph all states begin at zero")
    if np.any(np.asarray(values.get("ConstantDecay", 0.0)) != 0):
        raise InputError(f"{group!r}: NIR has no ConstantDecay={values['ConstantDecay']}")
    seconds, name = net.dt * 1e-3, model.name

    def full(value: Any) -> np.ndarray:
        value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        value = np.asarray(value, dtype=np.float64)
        return np.broadcast_to(value.reshape(shape) if value.size > 1 else value, shape).copy()

    if name == "nir_threshold":
        return nir.Threshold(threshold=full(values["v_th"]))
    if name in ("if", "ifsubtract"):
        values = {"beta": 1.0, "gain": 1.0, "v_th": values["v_th"], "soft": name == "ifsubtract"}
        name = "nir_lif"
    elif name in ("lif", "lifsubtract", "li"):
        beta = np.exp(-net.dt / full(values["tau_m"]))
        gain = 1 - beta if name == "li" else 1.0
        values |= {"beta": beta, "gain": gain, "soft": name == "lifsubtract"}
        name = "nir_li" if name == "li" else "nir_lif"
    if name not in ("nir_lif", "nir_li", "nir_cuba", "nir_cuba_li"):
        raise InputError(f"{group!r}: NIR has no model {model.name!r}")
    beta, gain = full(values["beta"]), full(values["gain"])
    for what, decays in (("beta", beta), ("alpha", full(values.get("alpha", 1.0)))):
        wrong = decays[~((decays > 0) & (decays <= 1))]
        if wrong.size:
            raise InputError(
                f"{group!r}: {what}={wrong[0]:g} a step; NIR has the time constant "
                f"-dt/log({what}), so it must be > 0 and at most 1 (of Euler's method: a tau "
                "longer than dt)"
            )
    leaky = bool((beta != 1).all())
    if not leaky and (beta != 1).any():
        raise InputError(f"{group!r}: in NIR either all neurons of a node leak or none")
    current_based = name.startswith("nir_cuba")
    if not leaky and current_based:
        raise InputError(f"{group!r}: NIR has no current-based neuron that does not leak")
    if not leaky and name == "nir_li":
        return nir.I(r=gain / seconds)
    if leaky:
        settings = {"tau": -seconds / np.log(beta), "r": gain / (1 - beta)}
        settings["v_leak"] = full(values.get("v_leak", 0.0))
        if current_based:
            alpha = full(values["alpha"])
            settings["tau_mem"] = settings.pop("tau")
            settings["tau_syn"] = -seconds / np.log(alpha)
            settings["w_in"] = full(values["gain_in"]) / (1 - alpha)
        if name in ("nir_li", "nir_cuba_li"):
            return (nir.CubaLI if current_based else nir.LI)(**settings)
    else:
        settings = {"r": gain / seconds}
    # Without v_reset NIR's writers and readers disagree between zero and subtraction; the
    # graph's metadata says which is meant.
    settings["v_threshold"] = full(values["v_th"])
    settings["v_reset"] = full(values.get("v_reset", 0.0))
    if current_based:
        made = nir.CubaLIF(**settings)
    else:
        made = nir.LIF(**settings) if leaky else nir.IF(**settings)
    made.metadata = {"reset": RESETS[round(float(values["soft"]))]}
    return made


def package() -> Any:
    """Gives the package nir.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise InputError("NIR needs the package nir: install tenfold-spaic[nir]") from error
    return nir


def text(value: Any) -> str:
    """Reads a text of the metadata, which files hold as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
