"""Neuron groups: a number of neurons of one model."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import (
    CompiledModel,
    NeuronModel,
    compile_model,
    find,
    resolve,
)
from tenfold.spaic.network.objects import Assembly


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
        num: The number of neurons.
        model: A registered name (`tenfold.spaic.model.neurons`) or a `NeuronModel`.
        shape: The arrangement, for example (channels, height, width).
        neuron_type: Labels that connection policies look at.
        neuron_position: [num, d], for connections that depend on distance.
        name: The name.
        parameter_variables: Parameters that a gradient learner trains.
        varible_ranges: Parameter → (lowest, highest), applied at the start of each run.
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
        if num is None and shape is None:
            raise InputError(f"NeuronGroup {name or ''}: give num or shape")
        super().__init__(num, shape, name, neuron_type)
        from tenfold.spaic.units import measured

        self.model = model
        own = isinstance(model, NeuronModel)
        self.model_parameters = {
            key: measured(key, value, f"{self!r}", own) for key, value in parameters.items()
        }
        self.refractory = measured("refractory", refractory, f"{self!r}")
        self.refractory_from = refractory_from
        self.method = method
        self.initial = {
            key: measured(key, value, f"{self!r}", own) for key, value in (initial or {}).items()
        }
        self.parameter_variables = list(parameter_variables)
        self.varible_ranges = dict(varible_ranges or {})
        self.prefer_device = prefer_device
        self.trainables: dict[str, torch.nn.Parameter] = {}
        if neuron_position is not None:
            neuron_position = np.asarray(neuron_position, dtype=np.float64)
            if len(neuron_position) != self.num:
                raise InputError(
                    f"{self!r}: neuron_position has {len(neuron_position)} rows, not {self.num}"
                )
        self.neuron_position = neuron_position
        self._check_model()

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return self.model if isinstance(self.model, str) else self.model.name

    def _check_model(self) -> None:
        if isinstance(self.model, str):
            find(self.model, None, f"{self!r}")
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

    def compile(self, compat: str | None, dt: float, dtype: torch.dtype) -> CompiledModel:
        """Turns the model into the step of this group.

        Args:
            compat: The network's mode.
            dt: The step in ms.
            dtype: The network's precision.

        Raises:
            InputError: For a value, method or starting state that does not fit; it names the group.
        """
        for name, (low, high) in self.varible_ranges.items():
            if name in self.trainables:
                with torch.no_grad():
                    self.trainables[name].clamp_(low, high)
        model = self.definition(compat)
        where = f"{self!r}"
        values = resolve(model, self.model_parameters | self.trainables, where)
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
        return made
