"""Ways to draw the first weights (section 5)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean


class Initializer:
    """A way to draw the first weights: one of the functions of `torch.nn.init`.

    Args:
        name: uniform, normal, xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal,
            constant or sparse.
        **arguments: Those of the function, for example a=-0.1, b=0.1 of uniform.

    Raises:
        InputError: For another name, or an argument that the function does not have.
    """

    _KNOWN: Mapping[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
        "uniform": (torch.nn.init.uniform_, ("a", "b")),
        "normal": (torch.nn.init.normal_, ("mean", "std")),
        "xavier_uniform": (torch.nn.init.xavier_uniform_, ("gain",)),
        "xavier_normal": (torch.nn.init.xavier_normal_, ("gain",)),
        "kaiming_uniform": (torch.nn.init.kaiming_uniform_, ("a", "mode", "nonlinearity")),
        "kaiming_normal": (torch.nn.init.kaiming_normal_, ("a", "mode", "nonlinearity")),
        "constant": (
            lambda t, constant_value=0.0, generator=None: t.fill_(constant_value),
            ("constant_value",),
        ),
        "sparse": (
            lambda t, sparsity=0.1, std=0.01, generator=None: torch.nn.init.sparse_(
                t, sparsity, std, generator=generator
            ),
            ("sparsity", "std"),
        ),
    }

    def __init__(self, name: str, **arguments: Any) -> None:
        if name not in self._KNOWN:
            raise InputError(did_you_mean(name, self._KNOWN, "initializer"))
        for key in arguments:
            if key not in self._KNOWN[name][1]:
                raise InputError(did_you_mean(key, self._KNOWN[name][1], f"argument of {name}"))
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
            InputError: For a shape or values that the function does not take.
        """
        made = torch.empty(tuple(shape), dtype=dtype)
        try:
            return self._KNOWN[self.name][0](made, generator=generator, **self.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            told = str(error).splitlines()[0]
            raise InputError(
                f"initializer {self.name} of shape {tuple(shape)} with {self.arguments}: {told}"
            ) from error
