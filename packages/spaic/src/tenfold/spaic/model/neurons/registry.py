"""The models by their names, one table a mode."""

from dataclasses import replace

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.model.neurons.definition import NeuronModel

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


RESET = "V = where(O > 0, v_reset, u)\n"
"""To v_reset; a comparison has no gradient, so this reset is detached."""

SOFT = "V = u - u * O\n"
"""To zero; the gradient passes through the spike."""
