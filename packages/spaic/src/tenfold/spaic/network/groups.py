"""Neuron groups: a number of neurons of one model."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.model.neurons import (
    CompiledModel,
    NeuronModel,
    compile_model,
    find,
    resolve,
)
from tenfold.spaic.network.objects import Assembly, nothing

ALPHA = "surrogate_alpha"
"""The name of the learned width or slope of a group's surrogate among its values."""
LEAST_ALPHA = 1e-3


class Layer(Assembly):
    """Something that has neurons or channels and can be connected: a group or a node.

    Args:
        num: How many.
        shape: Their arrangement; the product is `num`.
        name: The name.
        type: Labels for connection policies.

    Raises:
        InputError: For sizes below one, or that disagree.
    """

    def __init__(
        self,
        num: int | None,
        shape: Sequence[int] | int | None,
        name: str | None = None,
        type: str | Sequence[str] = (),
    ) -> None:
        super().__init__(name, type)
        if isinstance(shape, int):
            shape = (shape,)
        for size in (*(shape or ()), num if num is not None else 1):
            if not isinstance(size, numbers.Integral) or isinstance(size, bool):
                raise InputError(f"{self!r}: size {size!r}; expected a whole number >= 1")
        if shape is not None and any(int(size) < 1 for size in shape):
            raise InputError(f"{self!r}: shape={tuple(shape)}; every size must be >= 1")
        if num is not None and num < 1:
            raise InputError(f"{self!r}: num={num}; expected >= 1")
        if num is not None and shape is not None and math.prod(shape) != num:
            raise InputError(f"{self!r}: num={num} but shape={tuple(shape)} has {math.prod(shape)}")
        self.shaped = shape is not None  # else links between images may arrange the neurons
        self.shape: tuple[int, ...] | None = (
            tuple(int(size) for size in shape) if shape is not None else num and (int(num),)
        ) or None

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # what a layer refers to is not a part of it

    @property
    def size(self) -> tuple[int, ...]:
        """The shape, which must be known by now.

        Raises:
            InputError: If it is not known.
        """
        if self.shape is None:
            raise InputError(f"{self!r} has no size yet; give num or shape")
        return self.shape

    @property
    def num(self) -> int:
        """The number of neurons or channels."""
        return math.prod(self.size)


class NeuronGroup(Layer):
    """A group of neurons.

    Args:
        num: The number of neurons. Without num and shape, a link between images or sequences that
            ends here gives the shape.
        model: A registered name (`tenfold.spaic.model.neurons`) or a `NeuronModel`.
        shape: The arrangement, for example (channels, height, width).
        neuron_type: Labels that connection policies look at.
        neuron_position: [num, d], for connections that depend on distance. Names of axes (a text
            such as "x, y, z") stand for none.
        name: The name.
        parameter_variables: Parameters that a gradient learner trains.
        varible_ranges: Parameter → (lowest, highest), to which its values are clamped at the start
            of each run (the name is the official one).
        prefer_device: Kept for the network's file; all groups run on the network's device.
        refractory: Refractory period in ms.
        refractory_from: `next` (NEST) or `spike` (Brian2), see `compile_model`.
        method: How the model's differential equations are integrated: exact, exp_euler, euler,
            rk2 or rk4; by default the model's own choice.
        initial: State → starting value: a number, an array of one value a neuron, or
            `("uniform", low, high)`.
        **parameters: Parameters of the model: numbers, arrays of one value a neuron, or `Quantity`.

    Raises:
        InputError: For a name, shape or value that does not fit; it names the group.
    """

    label = "neg"
    of_run = dict.fromkeys(("last_state", "last_step"), nothing)

    def __init__(
        self,
        num: int | None = None,
        model: str | NeuronModel = "lif",
        shape: Sequence[int] | int | None = None,
        neuron_type: str | Sequence[str] = (),
        neuron_position: Any = None,
        name: str | None = None,
        parameter_variables: Sequence[str] = (),
        varible_ranges: Mapping[str, tuple[float, float]] | None = None,
        prefer_device: str | None = None,
        refractory: Any = 0.0,
        refractory_from: str = "next",
        method: str | None = None,
        initial: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(num, shape, name, neuron_type)
        from tenfold.spaic.units import measured, milliseconds

        self.model = model
        own = isinstance(model, NeuronModel)
        self.model_parameters = {
            key: measured(key, value, f"{self!r}", own) for key, value in parameters.items()
        }
        self.refractory = measured("refractory", refractory, f"{self!r}")
        if isinstance(self.refractory, str):
            milliseconds("refractory", refractory, f"{self!r}")  # says what is right
        self.refractory_from = refractory_from
        self.method = method
        self.initial = {
            key: measured(key, value, f"{self!r}", own) for key, value in (initial or {}).items()
        }
        self.parameter_variables = list(parameter_variables)
        self.varible_ranges = dict(varible_ranges or {})
        self.prefer_device = prefer_device
        self.trainables: dict[str, torch.nn.Parameter] = {}
        self.surrogate_alpha: torch.nn.Parameter | None = None
        if isinstance(neuron_position, str):
            neuron_position = None
        if neuron_position is not None:
            neuron_position = np.asarray(neuron_position, dtype=np.float64)
            if neuron_position.ndim != 2 or len(neuron_position) != self.num:
                raise InputError(
                    f"{self!r}: neuron_position has shape {neuron_position.shape}; expected "
                    f"({self.num}, d)"
                )
            if not np.isfinite(neuron_position).all():
                raise InputError(f"{self!r}: neuron_position holds values that are not finite")
        self.neuron_position = neuron_position
        self._check_model()

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return self.model if isinstance(self.model, str) else self.model.name

    def _check_model(self) -> None:
        if not isinstance(self.model, str | NeuronModel):
            raise InputError(f"{self!r}: model={self.model!r}; expected a name or a NeuronModel")
        if isinstance(self.model, str):
            find(self.model, None, f"{self!r}")
        if self.shape is None:
            return  # looked at again when it is known
        for key, value in self.model_parameters.items():
            size = np.size(value.detach() if isinstance(value, torch.Tensor) else value)
            if size not in (1, self.num):
                raise InputError(f"{self!r}: {key} has {size} values; expected 1 or {self.num}")

    def definition(self, compat: str | None) -> NeuronModel:
        """Gives the model, as the network's mode has it.

        Args:
            compat: None or `"spaic"`.
        """
        if isinstance(self.model, NeuronModel):
            return self.model
        return find(self.model, compat, f"{self!r}")

    def prepare(self, compat: str | None, dtype: torch.dtype, device: torch.device) -> None:
        """Makes the trainable parameters, once.

        Args:
            compat: The network's mode.
            dtype: The network's precision.
            device: The network's device.

        Raises:
            InputError: For a parameter that the model does not have, or a value that does not fit.
        """
        self._check_model()
        model = self.definition(compat)
        values = resolve(model, self.model_parameters, f"{self!r}")
        for name in dict.fromkeys([*model.trainable, *self.parameter_variables]):
            if name not in values:
                raise InputError(
                    f"{self!r}: parameter_variables names {name!r}; {model.name} has "
                    f"{', '.join(values)}"
                )
            if name not in self.trainables:
                start = torch.as_tensor(values[name], dtype=dtype, device=device).clone()
                self.trainables[name] = torch.nn.Parameter(start)

    def learn_alpha(self, alpha: float, dtype: torch.dtype, device: torch.device) -> None:
        """Makes the width or slope of the surrogate a parameter, once.

        Args:
            alpha: Its first value.
            dtype: The network's precision.
            device: The network's device.
        """
        if self.surrogate_alpha is None:
            self.surrogate_alpha = torch.nn.Parameter(
                torch.tensor(alpha, dtype=dtype, device=device)
            )

    @property
    def changing(self) -> bool:
        """Whether its values may change between runs."""
        return bool(self.trainables or self.varible_ranges or self.surrogate_alpha is not None)

    def compile(self, compat: str | None, dt: float, dtype: torch.dtype) -> CompiledModel:
        """Turns the model into the step of this group.

        Args:
            compat: The network's mode.
            dt: The step in ms.
            dtype: The network's precision.

        Raises:
            InputError: For a value, method or starting state that does not fit; it names the group.
        """
        model = self.definition(compat)
        where = f"{self!r}"
        for name, (low, high) in self.varible_ranges.items():
            if name not in model.parameters:
                raise InputError(
                    f"{where}: varible_ranges: "
                    f"{did_you_mean(name, model.parameters, f'parameter of {model.name}')}"
                )
            if not low <= high:
                raise InputError(f"{where}: varible_ranges[{name!r}]={(low, high)}; low > high")
            if name in self.trainables:
                _clamp(self.trainables[name], low, high)
        values = resolve(model, self.model_parameters | self.trainables, where)
        for name in self.varible_ranges.keys() - self.trainables.keys():
            values[name] = np.clip(values[name], *self.varible_ranges[name])
        made = compile_model(
            model, values, dt, dtype, self.method, self.refractory, self.refractory_from, where
        )
        unknown = self.initial.keys() - set(made.states)
        if unknown:
            raise InputError(
                f"{where}: initial names {', '.join(sorted(unknown))}; the states are "
                f"{', '.join(made.states)}"
            )
        made.initial.update(self.initial)  # type: ignore[attr-defined]
        if self.surrogate_alpha is not None:
            _clamp(self.surrogate_alpha, LEAST_ALPHA, math.inf)
            made = replace(made, values={**made.values, ALPHA: self.surrogate_alpha})
        return made


@torch.no_grad()
def _clamp(value: torch.Tensor, low: float, high: float) -> None:
    """Clamps in place, and leaves alone what lies within: a graph of gradients may hold it."""
    if bool(((value < low) | (value > high)).any()):
        value.clamp_(low, high)
