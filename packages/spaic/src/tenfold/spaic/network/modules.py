"""Modules: a torch module inside a network (section 2.4)."""

from collections.abc import Sequence
from typing import Any

import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.learners import listed
from tenfold.spaic.network.objects import BaseModule, untagged


class Module(BaseModule):
    """A `torch.nn.Module` that is called once a step.

    Args:
        module: The module; called with the variables of the input targets, in order.
        input_targets: Groups or nodes.
        output_targets: The group that receives the result.
        input_var_names: One variable an input target, or one for all; `O` by default.
        output_var_names: The variable of the group; `Isyn` by default.
        name: The name.
    """

    label = "mod"

    def __init__(
        self,
        module: torch.nn.Module,
        input_targets: Any,
        output_targets: Any,
        input_var_names: Sequence[str] = ("O",),
        output_var_names: Sequence[str] = ("Isyn",),
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.torch_module = module
        self.input_targets, self.output_targets = listed(input_targets), listed(output_targets)
        self.input_var_names = [untagged(v) for v in listed(input_var_names)]
        if len(self.input_var_names) == 1:
            self.input_var_names *= len(self.input_targets)
        self.output_var_names = [untagged(v) for v in listed(output_var_names)]
        self.modules = {"module": module}
        if len(self.input_var_names) != len(self.input_targets):
            raise InputError(
                f"{self!r}: {len(self.input_var_names)} input_var_names for "
                f"{len(self.input_targets)} input_targets; expected as many"
            )
        if len(self.output_targets) != 1 or len(self.output_var_names) != 1:
            raise InputError(f"{self!r}: give one output target and one of output_var_names")

    @property
    def parameters(self) -> Any:
        """The module's parameters."""
        return self.torch_module.parameters()

    @property
    def state_dict(self) -> Any:
        """The module's state."""
        return self.torch_module.state_dict()
