"""What a network holds: its parts by kind, its parameters and its states (sections 2.2 and 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.groups import ALPHA, NeuronGroup
from tenfold.spaic.network.objects import Assembly


class Contents(Assembly):
    """An assembly with parameters and states: what `Network` is besides being built and run."""

    compat: str | None
    dtype: torch.dtype
    device: torch.device
    _state: dict[tuple[int, str], Tensor]  # (id of a group or source, variable) → value
    _kept: dict[tuple[int, str], Tensor]  # states that were loaded
    _held: dict[int, Any]  # whose states they are
    _plan: Any

    def prepare(self) -> None:
        """Draws weights and makes trainable parameters; what is there stays."""
        raise NotImplementedError

    def set_backend(
        self, backend: Any = None, device: str | list[str] = "cpu", partition: bool = False
    ) -> None:
        """Chooses where the network runs; see `Network.set_backend`."""
        raise NotImplementedError

    def parts(self, kind: type) -> list[Any]:
        """Lists the visible parts of one kind.

        Args:
            kind: A class.
        """
        return [part for part in self.walk() if isinstance(part, kind)]

    def save_state(
        self,
        filename: str | None = None,
        direct: str = "./",
        save: bool = True,
        hdf5: bool = False,
    ) -> dict[str, Tensor]:
        """Gives all weights and learned values by their names, and writes them.

        Args:
            filename: A folder inside `direct`; the network's name by default.
            direct: A folder.
            save: Whether `<direct>/<filename>/parameters/_parameters_dict.safetensors` is written.
            hdf5: Whether it is `_parameters_dict.h5` instead (extra `hdf5`).

        Returns:
            Name → a copy of the tensor.
        """
        from tenfold.spaic.saving.state import save_state, state_of, state_path

        if save:
            save_state(self, state_path(direct, filename or str(self.name), hdf5))
        return state_of(self)

    def state_from_dict(
        self,
        state: Mapping[str, Tensor] | None = None,
        filename: str | None = None,
        direct: str | None = None,
        device: str | None = None,
    ) -> None:
        """Takes weights and learned values over; the name of the network may differ.

        Args:
            state: Name → tensor; else a file is read.
            filename: As in `save_state`; a file of the official front end (`.pt`) is read too.
            direct: As in `save_state`.
            device: Where the network runs from now on.

        Raises:
            InputError: As `tenfold.spaic.load_state`, and if there is no file.
        """
        from tenfold.spaic.saving.state import find_state, load_state

        if state is None:
            state = find_state(direct or "./", filename or str(self.name))
        if device is not None:
            self.set_backend(device=device)
        load_state(self, state)

    def get_testparams(self) -> list[Tensor]:
        """Lists all parameter tensors, each once, those of torch modules too."""
        self.prepare()
        found = [p for p in self.named_parameters().values() if isinstance(p, torch.nn.Parameter)]
        for part in [*self.walk(), *self.get_connections()]:
            for module in getattr(part, "modules", {}).values():
                found += module.parameters()
        return list({id(tensor): tensor for tensor in found}.values())

    def to_tensor(self, data: Any) -> Tensor:
        """Puts data on the network's device, numbers in its precision.

        Args:
            data: A number, list, array or tensor.
        """
        made = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data))
        return made.to(self.device, self.dtype if made.is_floating_point() else None)

    def to_numpy(self, data: Any) -> np.ndarray:
        """Takes data to NumPy, cut from the graph of gradients.

        Args:
            data: A tensor, or what NumPy can read.
        """
        return np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data)

    def get_elements(self) -> dict[str, Any]:
        """Gives the groups and nodes by their ids."""
        return {group.id: group for group in self.get_groups()}

    def named_parameters(self) -> dict[str, Tensor]:
        """Gives all saved tensors by their full names."""
        made: dict[str, Tensor] = {}
        for con in self.get_connections():
            made |= con.parameters()
        for group in self.parts(NeuronGroup):
            made |= {f"{group.id}:{{{key}}}": value for key, value in group.trainables.items()}
            if group.surrogate_alpha is not None:
                made[f"{group.id}:{{{ALPHA}}}"] = group.surrogate_alpha
            for name in group.definition(self.compat).stay:  # learned thresholds
                key = (id(group), name)
                value = self._state.get(key, self._kept.get(key))
                if value is not None:
                    made[f"{group.id}:{{{name}[stay]}}"] = value
        return made

    def variable(self, part: Any, name: str) -> Tensor:
        """Gives a state after a run.

        Args:
            part: A group or source.
            name: The state.

        Returns:
            [batch, *shape].
        """
        if (id(part), name) not in self._state:
            known = [variable for key, variable in self._state if key == id(part)]
            raise InputError(f"{part!r}: {did_you_mean(name, known, 'variable')}")
        return self._state[id(part), name]
