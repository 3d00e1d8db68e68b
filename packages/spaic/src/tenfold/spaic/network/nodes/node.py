"""What encoders, generators, decoders, actions and rewards have in common (section 9)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.groups import Layer
from tenfold.spaic.network.objects import nothing, untagged
from tenfold.spaic.units import measured, milliseconds, plain


class Node(Layer):
    """What encoders, generators, decoders, actions and rewards have in common.

    Args:
        shape: The shape of one sample.
        num: The number of channels.
        dec_target: What a decoder, action or reward reads (or a generator writes into).
        dt: Kept for the network's file; nodes run with the network's step.
        coding_method: How values become spikes or spikes become values.
        coding_var_name: The variable that is written or read.
        node_type: Labels for connection policies.
        time: Over how long values are coded, in ms (latencies, periods, lists of spikes); by
            default the run.
        name: The name.
        **coding: The parameters of the coding method.

    Raises:
        InputError: For a coding or an option that is not known.
    """

    label = "nod"
    of_run = dict.fromkeys(("record", "value", "_decision", "_decided", "_begun"), nothing)
    codings: dict[str, Any]

    def __init__(
        self,
        shape: Sequence[int] | int | None = None,
        num: int | None = None,
        dec_target: Layer | None = None,
        dt: float | None = None,
        coding_method: str = "null",
        coding_var_name: str = "O",
        node_type: str | Sequence[str] = (),
        time: float | None = None,
        name: str | None = None,
        **coding: Any,
    ) -> None:
        super().__init__(num, shape, name, node_type)
        kind = type(self).__name__
        if not isinstance(coding_method, str):
            raise InputError(f"{self!r}: coding_method={coding_method!r}; expected a name")
        if coding_method not in self.codings:
            hint = did_you_mean(coding_method, self.codings, f"coding of {kind}")
            raise InputError(f"{self!r}: {hint}")
        options = self.codings[coding_method].options
        for key in coding:
            if key not in options:
                hint = did_you_mean(key, options, f"option of {coding_method}")
                raise InputError(f"{self!r}: {hint}")
        self.coding_method, self.coding_var_name = coding_method, untagged(coding_var_name)
        self.dec_target, self.dt = dec_target, plain(dt, "time")
        self.time = None if time is None else milliseconds("time", time, f"{self!r}")
        self.coding = {key: measured(key, value, f"{self!r}") for key, value in coding.items()}
        self.source: Any = None
        self._device, self._dtype = torch.device("cpu"), torch.float32

    def option(self, name: str) -> Any:
        """Gives a parameter of the coding, or its default.

        Args:
            name: The parameter.
        """
        return self.coding.get(name, self.codings[self.coding_method].options[name])

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Tells the node where the network runs.

        Args:
            device: The device.
            dtype: The precision.
        """
        self._device, self._dtype = device, dtype


class Coding:
    """A coding: a function and the defaults of its parameters.

    Args:
        function: What is done.
        **options: Parameter → default.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function, self.options = function, options
