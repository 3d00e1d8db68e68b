"""Settings as plain values that JSON holds, and back (section 12).

What is not plain stands as a mapping of its own: `{"function": name}` for a function or class of
the user's, which is handed in again at loading and never taken from the file; initialisers and
surrogate gradients by what they are made of.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Initializer
from tenfold.spaic.network.learners import Surrogate

MARKS = ({"function"}, {"initializer", "arguments"}, {"surrogate"})


def to_plain(value: Any, what: str, functions: dict[str, Any]) -> Any:
    """Turns a setting into what JSON holds.

    Args:
        value: A number, text, array, tensor, list, mapping, function, class, `Initializer` or
            `Surrogate`.
        what: The setting and its part, for messages.
        functions: Collects the functions and classes by their names.

    Raises:
        InputError: For anything else, for a function without a name, and for two of one name.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [to_plain(item, what, functions) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, what, functions) for key, item in value.items()}
    if isinstance(value, Initializer):
        return {"initializer": value.name, "arguments": to_plain(value.arguments, what, functions)}
    if isinstance(value, Surrogate):
        return {"surrogate": dataclasses.asdict(value)}
    if callable(value):
        name = getattr(value, "__name__", "")
        if not name.isidentifier():
            raise InputError(
                f"{what}: {value!r} has no name by which it could be handed in at loading; write "
                "it with def"
            )
        if functions.setdefault(name, value) is not value:
            raise InputError(f"{what}: two functions are called {name!r}; rename one")
        return {"function": name}
    if value is not None and not isinstance(value, bool | int | float | str):
        raise InputError(f"{what}: a {type(value).__name__} cannot be written into a network file")
    return value


def from_plain(value: Any, functions: Mapping[str, Any], what: str) -> Any:
    """Turns what a file holds back into a setting.

    Args:
        value: What `to_plain` gave.
        functions: Name → function or class, handed in by who loads the file.
        what: The setting and its part, for messages.

    Raises:
        InputError: For a function that was not handed in; it names it.
    """
    if isinstance(value, list):
        return [from_plain(item, functions, what) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) not in MARKS:
        return {key: from_plain(item, functions, what) for key, item in value.items()}
    if "function" in value:
        return handed_in(value["function"], functions, "function", what)
    if "initializer" in value:
        return Initializer(value["initializer"], **value["arguments"])
    made = Surrogate(**value["surrogate"])
    eq.expression(made.text, what)  # refuses all but arithmetic
    return made


def handed_in(name: Any, given: Mapping[str, Any], kind: str, what: str) -> Any:
    """Finds what the loader of a file was given for a name.

    Args:
        name: The name in the file.
        given: Name → function, class or module.
        kind: function or module.
        what: What needs it, for messages.

    Raises:
        InputError: If it is missing.
    """
    if name not in given:
        close = f"; given: {did_you_mean(str(name), given, kind)}" if given else ""
        raise InputError(
            f"{what} needs the {kind} {name!r}, which a file cannot hold; hand it in: "
            f"network_load(path, {kind}s={{{name!r}: ...}}){close}"
        )
    return given[name]
