"""What every rule is that changes weights from spikes, and what it sees of a step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup

if TYPE_CHECKING:
    from tenfold.spaic.network.learners.learner import Learner
    from tenfold.spaic.plan import Plan


@dataclass
class Moment:
    """What a rule sees of one connection, or of one group, in one step.

    Attributes:
        x: Spikes of the source in the previous step, [batch, pre].
        y: Spikes of the target in the previous step, [batch, post].
        x_now: Spikes of the source in this step.
        y_now: Spikes of the target in this step.
        target: What the supervised rules are taught for this step, [batch, post], or None.
        reward: The reward of this step: [1] or [post], or None.
        dt: The step in ms.
        last: Whether this is the last step of the run.
        step: The number of the step in the run, from 0.
        state: The target's states after this step, name → [batch, *shape].
    """

    x: Tensor
    y: Tensor
    x_now: Tensor
    y_now: Tensor
    target: Tensor | None
    reward: Tensor | None
    dt: float
    last: bool
    step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)


class Rule:
    """A rule that changes the weights of one connection step by step.

    A rule of your own: subclass, set `options`, and change `self.weight` (post, pre) in `step`.
    `learner` is the learner that made it, `plan` the plan that it is run in, `random` the generator
    of rules that draw.

    A link that is stored sparse holds one weight a synapse, [synapses], instead of a matrix. A rule
    that is written with `outer`, `at_pre`, `at_post`, `by_target` and `sums` serves both, and says
    so by `sparse = True`.

    Options that mean the same in all rules: `lr`, the step size; `A_plus` and `Apost`, the gain at
    a target's spike, `A_minus` and `Apre`, at a source's; `tau_plus` and `tau_pre`, the time
    constant in ms of the source's trace, `tau_minus` and `tau_post`, of the target's; `pre_decay`
    and `post_decay`, the same as factors a step; `w_min` and `w_max`, the bounds of weights.

    Args:
        con: The connection.
        options: Parameter → value.

    Raises:
        InputError: For an option that the rule does not have.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    needs_reward = False
    needs_target = False
    sparse = False
    image = False
    link = "conv"  # of an image rule: the link whose weight it knows
    memory: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Attribute → axes (batch, pre, post, or a name of the rule's own) of what was learned or drawn
    besides weights: None at first; it outlives runs and builds and is saved with the state."""
    function: "Callable[[Rule, Moment], Any] | None" = None  # the step, if a hook wrote the rule

    def __init__(self, con: Connection, **options: Any) -> None:
        self.con = con
        self._set(options)

    def _set(self, options: Mapping[str, Any]) -> None:
        """Takes the options; refuses names that the rule does not have."""
        for key in options:
            if key not in self.options:
                what = f"option of {type(self).__name__}"
                raise InputError(did_you_mean(key, self.options, what))
        self.__dict__.update({**self.options, **options})
        self.__dict__.update(dict.fromkeys(self.memory))
        self.pending: Tensor | None = None
        self.traces: dict[str, Tensor] = {}

    @property
    def part(self) -> Connection | NeuronGroup:
        """What it changes."""
        return self.con

    @property
    def weight(self) -> Tensor:
        """The connection's weight."""
        return self.con.weight  # type: ignore[return-value]

    def check(self) -> None:
        """Refuses a connection whose weight the rule does not know.

        Raises:
            InputError: Naming the connection.
        """
        con, name = self.con, self.learner.algorithm
        if con.weight is None:
            raise InputError(f"{self.learner!r}: {con!r} has no weight")
        if con.stored_sparse and not self.sparse:
            raise InputError(
                f"{self.learner!r}: {name} needs a whole matrix of weights, and {con!r} holds one "
                "a synapse; take a dense link, with a mask (sparse_with_mask=True)"
            )
        pairs = con.stored_sparse or tuple(con.weight.shape) == (con.post.num, con.pre.num)
        if not (con.kind == self.link if self.image else pairs):
            raise InputError(f"{self.learner!r}: {name} does not fit {con!r}")

    learner: "Learner"
    plan: "Plan"
    random: torch.Generator

    def take_over(self, old: "Rule", whole: bool) -> None:
        """Goes on where a rule of the same part ended, before the network was built anew.

        Args:
            old: A rule of the same class.
            whole: Whether everything but the options is the same, or only traces and memory.
        """
        own = (*self.options, "function") if whole else vars(old).keys() - self._lasting
        self.__dict__.update({k: v for k, v in vars(old).items() if k not in own})

    @property
    def _lasting(self) -> set[str]:
        return {"traces", "pending", *self.memory}

    def check_memory(self, name: str, value: Tensor) -> None:
        """Refuses a saved memory that does not fit.

        Args:
            name: A key of `memory`.
            value: The tensor.

        Raises:
            InputError: For another shape, or values that are not finite.
        """
        part, axes = self.part, self.memory[name]
        sizes = {"pre": part.pre.num} if isinstance(part, Connection) else {}
        sizes["post"] = part.post.num if isinstance(part, Connection) else part.num
        fits = [
            sizes.get(axis, size) == size for axis, size in zip(axes, value.shape, strict=False)
        ]
        if value.ndim != len(axes) or not all(fits):
            wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
            raise InputError(
                f"{part!r}: the saved {name} of {type(self).__name__} has shape "
                f"{tuple(value.shape)}; expected ({wanted})"
            )
        if not (value.is_floating_point() and bool(torch.isfinite(value).all())):
            raise InputError(
                f"{part!r}: the saved {name} of {type(self).__name__} holds what is not a finite "
                "number"
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy is bound to a plan and a generator of its own."""
        return {k: v for k, v in vars(self).items() if k not in ("plan", "random")}

    def start(self) -> None:
        """Forgets the traces of the last run."""
        self.pending = None
        self.traces = {}

    def trace(self, name: str, like: Tensor) -> Tensor:
        """Gives a trace, zeros at first.

        Args:
            name: Its name.
            like: A tensor of its shape.
        """
        return self.traces.setdefault(name, torch.zeros_like(like))

    def apply_pending(self, new: Tensor) -> None:
        """Adds the change of the step before, and keeps that of this step for the next.

        Args:
            new: This step's change.
        """
        if self.pending is not None:
            self.weight.add_(self.pending)
        self.pending = new

    # ------------------------------------------------------------ matrices and lists of synapses

    def at_pre(self, x: Tensor) -> Tensor:
        """Gives a value a source to all its synapses.

        Args:
            x: [batch, pre].

        Returns:
            [batch, 1, pre], to be broadcast; of a sparse link [batch, synapses].
        """
        return x[:, self.con.pre_index] if self.con.stored_sparse else x[:, None, :]

    def at_post(self, y: Tensor) -> Tensor:
        """Gives a value a target to all its synapses.

        Args:
            y: [batch, post].

        Returns:
            [batch, post, 1], to be broadcast; of a sparse link [batch, synapses].
        """
        return y[:, self.con.post_index] if self.con.stored_sparse else y[:, :, None]

    def by_target(self, values: Tensor) -> Tensor:
        """Gives one value a target, or one for all, the shape that multiplies weights.

        Args:
            values: [post] or [1].
        """
        return self.at_post(values.expand(self.con.post.num)[None])[0]

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """Σ over the batch of y_i x_j, where there is a synapse.

        Args:
            y: [batch, post].
            x: [batch, pre].

        Returns:
            Of the weight's shape.
        """
        if self.con.stored_sparse:
            return (self.at_post(y) * self.at_pre(x)).sum(0)
        made = y.T @ x
        return made if self.con.mask is None else made * self.con.mask

    def sums(self, weight: Tensor, x: Tensor | None = None) -> Tensor:
        """Σ_j w_ij x_j of each target.

        Args:
            weight: Of the weight's shape.
            x: [batch, pre]; ones by default.

        Returns:
            [batch, post], without x [1, post].
        """
        if not self.con.stored_sparse:
            return weight.sum(1)[None] if x is None else x @ weight.T
        if x is None:
            x = weight.new_ones(1, self.con.pre.num)
        made = x.new_zeros(len(x), self.con.post.num)
        assert self.con.post_index is not None
        return made.index_add(1, self.con.post_index.to(x.device), self.at_pre(x) * weight)

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: What is seen in this step.
        """
        if self.function is None:
            raise InputError(
                f"{self.learner!r}: {type(self).__name__} has no step(self, m), which changes "
                "self.weight"
            )
        self.function(self, m)


class GroupRule(Rule):
    """A rule that changes the states of one group step by step, for example a threshold.

    In `step`, put what is to be changed into `m.state`; x and y of the moment are both the group's
    own spikes. States that a model keeps from run to run (`stay`) keep the change.

    Args:
        group: The group.
        options: Parameter → value.
    """

    def __init__(self, group: NeuronGroup, **options: Any) -> None:
        self.group = group
        self._set(options)

    @property
    def part(self) -> NeuronGroup:
        """What it changes."""
        return self.group

    def check(self) -> None:
        """Every group fits."""


def double_exponential(t: Any, tau: float, tau_s: float) -> Any:
    """ε(t) = (e^{−t/τ} − e^{−t/τs})/(τ − τs); of equal times its limit, (t/τ²) e^{−t/τ}.

    It is computed as t/(τ τs) e^{−t/τs} exprel(t/τs − t/τ), which loses no digits where the times
    are close.

    Args:
        t: The time since the spike in ms, a number or a tensor, at least 0.
        tau: A time constant in ms.
        tau_s: The other one.

    Raises:
        InputError: If a time constant is not positive.
    """
    if min(tau, tau_s) <= 0:
        raise InputError(f"tau={tau}, tau_s={tau_s}; expected times > 0 ms")
    exp, exprel = eq.NAMESPACE["exp"], eq.NAMESPACE["exprel"]
    return t / (tau * tau_s) * exp(-t / tau_s) * exprel(t * (1 / tau_s - 1 / tau))


def peak_time(tau: float, tau_s: float) -> float:
    """When ε is highest: τ τs/(τ − τs) ln(τ/τs); of equal times τ.

    Args:
        tau: A time constant in ms.
        tau_s: The other one.
    """
    share = (tau - tau_s) / tau_s
    return tau * (math.log1p(share) / share if share else 1.0)
