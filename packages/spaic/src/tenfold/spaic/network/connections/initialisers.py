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
        InputError: For another name.
    """

    _KNOWN: Mapping[str, Callable[..., Tensor]] = {
        "uniform": torch.nn.init.uniform_,
        "normal": torch.nn.init.normal_,
        "xavier_uniform": torch.nn.init.xavier_uniform_,
        "xavier_normal": torch.nn.init.xavier_normal_,
        "kaiming_uniform": torch.nn.init.kaiming_uniform_,
        "kaiming_normal": torch.nn.init.kaiming_normal_,
        "constant": lambda t, constant_value=0.0, **_: torch.nn.init.constant_(t, constant_value),
        "sparse": lambda t, sparsity=0.1, std=0.01, **k: torch.nn.init.sparse_(
            t, sparsity, std, **k
        ),
    }

    def __init__(self, name: str, **arguments: Any) -> None:
        if name not in self._KNOWN:
            raise InputError(did_you_mean(name, self._KNOWN, "initializer"))
        self.name, self.arguments = name, arguments

    def __call__(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draws a tensor.

        Args:
            shape: Its shape.
            generator: Where the numbers come from.
        """
        made = torch.empty(tuple(shape))
        return self._KNOWN[self.name](made, generator=generator, **self.arguments)
