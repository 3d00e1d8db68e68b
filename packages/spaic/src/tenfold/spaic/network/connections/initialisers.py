"""Ways to draw the first weights (section 5)."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError, did_you_mean

_KAIMING = {"a": 0.0, "mode": "fan_in", "nonlinearity": "leaky_relu"}


class Initializer:
    """A way to draw the first weights: one of the functions of `torch.nn.init`.

    Args:
        name: uniform (a=0, b=1), normal (mean=0, std=1), xavier_uniform and xavier_normal (gain=1),
            kaiming_uniform and kaiming_normal (a=0, mode="fan_in", nonlinearity="leaky_relu"),
            constant (constant_value=0) or sparse (sparsity=0.1, std=0.01).
        **arguments: Those of the function, for example a=-0.1, b=0.1 of uniform.

    Raises:
        InputError: For another name or argument, or a value of another kind.
    """

    _KNOWN: Mapping[str, tuple[Callable[..., Tensor], Mapping[str, Any]]] = {
        "uniform": (nn.init.uniform_, {"a": 0.0, "b": 1.0}),
        "normal": (nn.init.normal_, {"mean": 0.0, "std": 1.0}),
        "xavier_uniform": (nn.init.xavier_uniform_, {"gain": 1.0}),
        "xavier_normal": (nn.init.xavier_normal_, {"gain": 1.0}),
        "kaiming_uniform": (nn.init.kaiming_uniform_, _KAIMING),
        "kaiming_normal": (nn.init.kaiming_normal_, _KAIMING),
        "constant": (
            lambda t, constant_value, generator: nn.init.constant_(t, constant_value),
            {"constant_value": 0.0},
        ),
        "sparse": (nn.init.sparse_, {"sparsity": 0.1, "std": 0.01}),
    }

    def __init__(self, name: str, **arguments: Any) -> None:
        if name not in self._KNOWN:
            raise InputError(did_you_mean(name, self._KNOWN, "initializer"))
        known = self._KNOWN[name][1]
        for key, value in arguments.items():
            if key not in known:
                raise InputError(did_you_mean(key, known, f"argument of {name}"))
            kind: type = str if isinstance(known[key], str) else Real
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(
                    f"initializer {name}: {key}={value!r}; expected one such as {known[key]!r}"
                )
        self.name, self.arguments = name, arguments

    def __call__(
        self,
        shape: Sequence[int],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws a tensor.

        Args:
            shape: Its shape.
            generator: Where the numbers come from.
            dtype: Its precision.

        Raises:
            InputError: If the function cannot fill a tensor of this shape, or refuses a value.
        """
        made = torch.empty(tuple(shape), dtype=dtype)
        function, known = self._KNOWN[self.name]
        try:
            return function(made, **{**known, **self.arguments}, generator=generator)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"initializer {self.name} of shape {tuple(shape)}: {error}") from error
