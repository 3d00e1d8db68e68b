"""Optimisers and schedules of a learner: torch's, by name (section 10)."""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.objects import BaseModule

OPTIMISERS: dict[str, Any] = {
    name: getattr(torch.optim, name)
    for name in [
        "Adam",
        "AdamW",
        "SparseAdam",
        "Adamax",
        "ASGD",
        "LBFGS",
        "RMSprop",
        "Rprop",
        "SGD",
        "Adadelta",
        "Adagrad",
    ]
}
SCHEDULES: dict[str, Any] = {
    name: getattr(torch.optim.lr_scheduler, name)
    for name in [
        "LambdaLR",
        "StepLR",
        "MultiStepLR",
        "ExponentialLR",
        "CosineAnnealingLR",
        "ReduceLROnPlateau",
        "CyclicLR",
        "CosineAnnealingWarmRestarts",
    ]
}


class Optimised(BaseModule):
    """What has parameters, an optimiser for them, and a schedule of its step size.

    Args:
        name: The name.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.optim_name = self.lr_schedule_name = ""
        self.optim_kwargs: dict[str, Any] = {}
        self.schedule_kwargs: dict[str, Any] = {}
        self._optimiser: torch.optim.Optimizer | None = None
        self._schedule: Any = None
        self._complete = True  # whether the optimiser has seen all parameters

    def parameters(self) -> list[Parameter]:
        """Lists what is trained."""
        raise NotImplementedError

    def _tell_blocked(self) -> None:
        """Says what cannot be trained."""

    def set_optimizer(self, optim_name: str = "Adam", lr: float = 1e-3, **options: Any) -> None:
        """Chooses the optimiser.

        Args:
            optim_name: A name of `OPTIMISERS`.
            lr: The step size.
            **options: Further arguments of the optimiser.

        Raises:
            InputError: For another name, and for arguments that torch refuses.
        """
        if optim_name not in OPTIMISERS:
            raise InputError(f"{self!r}: {did_you_mean(optim_name, OPTIMISERS, 'optimiser')}")
        options["lr"] = lr
        self._try(optim_name, options, self.lr_schedule_name, self.schedule_kwargs)
        self.optim_name, self.optim_kwargs = optim_name, options
        self._optimiser = self._schedule = None

    def set_schedule(self, lr_schedule_name: str, **options: Any) -> None:
        """Chooses how the step size changes.

        Args:
            lr_schedule_name: A name of `SCHEDULES`.
            **options: Its arguments.

        Raises:
            InputError: For another name, and for arguments that torch refuses.
        """
        if lr_schedule_name not in SCHEDULES:
            hint = did_you_mean(lr_schedule_name, SCHEDULES, "schedule")
            raise InputError(f"{self!r}: {hint}")
        if self.optim_name:
            self._try(self.optim_name, self.optim_kwargs, lr_schedule_name, options)
        self.lr_schedule_name, self.schedule_kwargs = lr_schedule_name, options
        self._schedule = None
        if self._optimiser is not None:
            self._schedule = self._made(SCHEDULES, lr_schedule_name, self._optimiser, options)

    def _try(
        self, optim_name: str, optim_kwargs: Mapping[str, Any], schedule: str, kwargs: Any
    ) -> None:
        """Makes both for a number that is thrown away, so that errors come where they are made."""
        lr = optim_kwargs["lr"]
        if not (isinstance(lr, Real | Tensor) and 0 <= float(lr) < math.inf):
            raise InputError(f"{self!r}: lr={lr!r}; expected a finite number >= 0")
        made = self._made(OPTIMISERS, optim_name, [Parameter(torch.zeros(1))], optim_kwargs)
        if schedule:
            self._made(SCHEDULES, schedule, made, kwargs)

    def _made(self, kinds: Mapping[str, Any], name: str, of: Any, options: Any) -> Any:
        try:
            return kinds[name](of, **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self!r}: {name} cannot be made: {error}") from error

    def _join(self, optimiser: torch.optim.Optimizer) -> None:
        """Gives the optimiser the parameters that were made after it.

        They join its first group, so that they take part in the schedule.
        """
        known = {id(p) for group in optimiser.param_groups for p in group["params"]}
        new = [p for p in self.parameters() if id(p) not in known]
        # These two keep numbers of all parameters from their beginning on.
        if new and self.optim_name in ("Adagrad", "LBFGS"):
            raise InputError(
                f"{self!r}: {len(new)} parameters were made after its optimiser, which "
                f"{self.optim_name} cannot take in; call set_optimizer again"
            )
        optimiser.param_groups[0]["params"] += new

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, made when it is first needed; parameters that are made later join it.

        Raises:
            InputError: If none was chosen, or there is nothing to train, or new parameters cannot
                join it.
        """
        if self._optimiser is None:
            if not self.optim_name:
                raise InputError(f"{self!r} has no optimiser; call set_optimizer first")
            parameters = self.parameters()
            if not parameters:
                raise InputError(f"{self!r} has nothing to train")
            self._tell_blocked()
            made = self._made(OPTIMISERS, self.optim_name, parameters, self.optim_kwargs)
            if self.lr_schedule_name:  # at once: it must see every step of the optimiser
                self._schedule = self._made(
                    SCHEDULES, self.lr_schedule_name, made, self.schedule_kwargs
                )
            self._optimiser = made
        elif not self._complete:
            self._join(self._optimiser)
        self._complete = True
        assert self._optimiser is not None
        return self._optimiser

    def optim_zero_grad(self) -> None:
        """Clears the gradients."""
        self.optimizer.zero_grad()

    def optim_step(self, closure: Callable[[], Any] | None = None) -> None:
        """Makes a step.

        Args:
            closure: For LBFGS: clears the gradients, runs the network, goes backward and gives the
                loss; called several times.

        Raises:
            InputError: If LBFGS got none.
        """
        if closure is None and self.optim_name == "LBFGS":
            raise InputError(f"{self!r}: LBFGS needs optim_step(closure), which computes the loss")
        self.optimizer.step() if closure is None else self.optimizer.step(closure)

    def optim_schedule(self, metric: float | None = None) -> None:
        """Moves the step size on, once an epoch.

        Args:
            metric: What ReduceLROnPlateau watches, for example the loss.

        Raises:
            InputError: If there is no schedule, or it needs a metric and got none.
        """
        if not self.lr_schedule_name:
            raise InputError(f"{self!r} has no schedule; call set_schedule first")
        _ = self.optimizer  # they are made together
        if self.lr_schedule_name == "ReduceLROnPlateau":
            if metric is None:
                raise InputError(f"{self!r}: ReduceLROnPlateau needs optim_schedule(metric)")
            self._schedule.step(metric)
        else:
            self._schedule.step()
