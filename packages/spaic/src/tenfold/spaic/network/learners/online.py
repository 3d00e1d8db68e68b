"""Gradients forward in time: e-prop, OTTT, rate modulation (sections 10.1, 10.2, 23.2).

Each rule keeps, for every synapse, how the target neuron's state depends on the weight, and needs
no memory of earlier steps. How a state depends on the state before and on the input comes from the
model's own equations, so these rules know every model whose neurons do not see each other.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners.rule import Moment, Rule
from tenfold.spaic.network.learners.surrogates import SURROGATES, Surrogate


class Sensitivity:
    """How the states of a group after a step depend on those before it and on its input.

    Args:
        con: A connection into the group.
        surrogate: What stands in for the derivative of a spike, or its name.
        random: Where numbers would come from; models that draw are refused.

    Raises:
        InputError: For a model whose neurons see each other, or that draws numbers.
    """

    def __init__(
        self, con: Connection, surrogate: str | Surrogate, random: torch.Generator
    ) -> None:
        from tenfold.spaic.engines.step import GroupStep
        from tenfold.spaic.plan import GroupPlan

        group: NeuronGroup = con.post  # type: ignore[assignment]
        weight: Tensor = con.weight  # type: ignore[assignment]
        model = group.compile(con._compat, con._dt, weight.dtype)
        if eq.calls((*model.update, *model.reset)) & (eq.ACROSS | eq.RANDOM):
            raise InputError(f"{con!r}: the neurons of {group!r} see each other or draw numbers")
        self.group, self.states, self.input = group, model.states, con.post_var_name
        if self.input not in model.inputs:
            raise InputError(f"{con!r}: it must target an input of {group!r}, not {self.input}")
        chosen = surrogate if isinstance(surrogate, Surrogate) else SURROGATES[surrogate]
        entry = GroupPlan(group, model, chosen)
        self.advance = GroupStep(entry, random, weight.device)
        self.values = model.values

    def __call__(self) -> tuple[dict[tuple[str, str], Tensor], dict[str, Tensor]]:
        """Differentiates the step that the group has just made.

        Returns:
            (state after, state before) → [batch, n], and state after → [batch, n] for the input;
            what is zero is left out.
        """
        found, inputs = self.group.last_step
        leaves = {name: value.detach().clone().requires_grad_() for name, value in found.items()}
        given = dict(inputs)
        given[self.input] = inputs[self.input].detach().clone().requires_grad_()
        self.advance.batch = len(given[self.input])
        by_state: dict[tuple[str, str], Tensor] = {}
        by_input: dict[str, Tensor] = {}
        with torch.enable_grad():
            made = self.advance.finish(self.advance.advance(leaves, given))
            for after, value in made.items():
                if not value.requires_grad:
                    continue
                roots = [*leaves.values(), given[self.input]]
                slopes = torch.autograd.grad(
                    value.sum(), roots, retain_graph=True, allow_unused=True
                )
                for before, slope in zip(leaves, slopes, strict=False):
                    if slope is not None:
                        by_state[after, before] = slope.flatten(1)
                if slopes[-1] is not None:
                    by_input[after] = slopes[-1].flatten(1)
        return by_state, by_input


class Forward(Rule):
    """What the rules of this page have in common: plain links, and where the gradient goes.

    With an optimiser (`Learner.set_optimizer`) the gradient of a run is added to the weight's
    `.grad`; without, the weight moves by −lr times it, at the end of the run. It is the sum over
    the steps and the mean over the batch.
    """

    lr: float
    surrogate: str | Surrogate

    def start(self) -> None:
        """Forgets what the last run left.

        Raises:
            InputError: For a link with delays, a mask or a synapse model, or an unknown surrogate.
        """
        super().start()
        con = self.con
        if con.syn_type != ["basic"] or con.delay is not None or con.mask is not None:
            raise InputError(
                f"{con!r}: {self.learner.algorithm} takes plain full links without delays"
            )
        if not isinstance(self.surrogate, Surrogate) and self.surrogate not in SURROGATES:
            raise InputError(
                f"{self.learner!r}: surrogate={self.surrogate!r}; one of {', '.join(SURROGATES)}"
            )
        self.sensitivity = Sensitivity(con, self.surrogate, self.random)
        self.steps = 0
        self.total = torch.zeros_like(self.weight)

    @property
    def immediate(self) -> bool:
        """Whether a link passes on the spikes of the same step (strategy 1).

        Raises:
            InputError: If the learner is not a part of a network.
        """
        if self.learner._network is None:
            raise InputError(f"{self.learner!r} is not a part of a network; use add_learner")
        return bool(self.learner._network.strategy == 1)

    def seen(self, m: Moment) -> Tensor:
        """What the link read in this step: [batch, pre].

        Args:
            m: The step.
        """
        return m.x_now if self.immediate else m.x

    def taught(self, post: int) -> Tensor:
        """The target of this step, [batch, post].

        Args:
            post: The number of neurons that are taught.
        """
        batch = len(self.con.post.last_state["O"])
        return self.learner.taught(self.steps, post, self.weight, batch)

    def finish(self, m: Moment) -> None:
        """Counts the step; hands the gradient over in the last one.

        Args:
            m: The step.
        """
        self.steps += 1
        if not m.last:
            return
        mean = self.total / len(m.x)
        if self.learner.optim_name:
            old = self.weight.grad
            self.weight.grad = mean if old is None else old + mean
        else:
            self.weight.sub_(self.lr * mean)
        self.total = torch.zeros_like(self.total)

    def eligibility(self, m: Moment) -> Tensor:
        """Advances ∂(states)/∂(weight) by a step, and gives that of the output.

        ε' = (∂s'/∂s) ε + (∂s'/∂I) x: the exact derivative through the neuron itself; what goes
        through other neurons is left out.

        Args:
            m: The step.

        Returns:
            ∂O/∂w, [batch, post, pre].
        """
        by_state, by_input = self.sensitivity()
        x = self.seen(m)[:, None]
        old: dict[str, Tensor] = self.traces
        made: dict[str, Tensor] = {}
        for after in self.sensitivity.states:
            terms = [
                by_state[after, before][..., None] * old[before]
                for before in self.sensitivity.states
                if (after, before) in by_state and before in old
            ]
            if after in by_input:
                terms.append(by_input[after][..., None] * x)
            if terms:
                made[after] = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
        self.traces = made
        shape = (len(x), *self.weight.shape)
        return made["O"] if "O" in made else torch.zeros(shape).to(self.weight)


class EProp(Forward):
    """e-prop (Bellec et al. 2020): eligibility traces times a learning signal, online.

    The loss is ½ Σ_t (y − target)² of read-out groups (`li`, `null`, `nonspikingifb`), whose links
    are trained too. A hidden synapse learns Σ_t L e̅ with its eligibility e = ∂O/∂w, filtered as the
    read-out filters, and L = Σ_k B_k (y_k − target_k); B is the read-out's weight (`symmetric`) or
    fixed and random. In a network without recurrence and with one hidden layer, symmetric e-prop is
    the exact gradient; recurrent paths through other neurons are left out.

        learner = Learner(trainable=[inward, recurrent, outward], algorithm="eprop", lr=0.01)
        learner.teach(target)  # [batch, read-out neurons, steps]

    `surrogate` is a name of `SURROGATES`, or a `Surrogate` with a width of its own.
    """

    needs_target = False  # found for the read-out, not for the connection's own target
    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.01,
        "surrogate": "Triangle",
        "feedback": "symmetric",
    }
    feedback: str
    memory: ClassVar[Mapping[str, tuple[str, ...]]] = {"drawn": ("read-out", "post")}
    drawn: Tensor | None

    def start(self) -> None:
        """Finds the read-outs of this connection's target.

        Raises:
            InputError: For a feedback that is not known, or a target without one read-out.
        """
        super().start()
        if self.feedback not in ("symmetric", "random"):
            raise InputError(
                f"{self.learner!r}: feedback={self.feedback!r}; expected 'symmetric' or 'random'"
            )
        links = [c for c in self.learner.parts(self.learner.trainable) if isinstance(c, Connection)]
        self.reads_out = _is_readout(self.con)
        self.outward = [c for c in links if c.pre is self.con.post and _is_readout(c)]
        if not self.reads_out and len(self.outward) != 1:
            raise InputError(
                f"{self.con!r}: e-prop needs one trained link from {self.con.post!r} to a read-out "
                f"(li, null, nonspikingifb), and has {len(self.outward)}"
            )
        self.keep, self.gain = _filter(self.con if self.reads_out else self.outward[0], self.random)
        if self.reads_out:
            return
        if self.feedback == "symmetric":  # as it is in this run, which ends with its change
            self.back = self.outward[0].weight.detach().clone()  # type: ignore[union-attr]
            return
        if self.drawn is None:
            shape = (self.outward[0].post.num, self.con.post.num)
            drawn = torch.randn(shape, generator=self.random, device=self.weight.device)
            self.drawn = (drawn / shape[1] ** 0.5).to(self.weight)
        self.back = self.drawn

    def step(self, m: Moment) -> None:
        """Follows the eligibilities; changes the weight in the last step.

        Args:
            m: The step.
        """
        readout = self.con if self.reads_out else self.outward[0]
        y = readout.post.last_state["O"].flatten(1).to(self.weight)
        error = y - self.taught(readout.post.num)
        if self.reads_out:
            x = self.keep * self.trace("filtered", m.x) + self.gain * self.seen(m)
            self.traces["filtered"] = x
            self.total += error.T @ x
        else:
            filtered = self.traces.pop("filtered", None)
            late = self.traces.pop("late", None)
            e = self.eligibility(m)
            arriving = e if self.immediate else late  # at the read-out, in this step
            if filtered is None:
                filtered = torch.zeros_like(e)
            if arriving is not None:
                filtered = self.keep * filtered + self.gain * arriving
            self.traces |= {"filtered": filtered, "late": e}
            self.total += torch.einsum("bo,boi->oi", error @ self.back, filtered)
        self.finish(m)


def _is_readout(con: Connection) -> bool:
    return getattr(con.post, "model_name", "") in ("li", "null", "nonspikingifb")


def _filter(con: Connection, random: torch.Generator) -> tuple[float, float]:
    """κ and g of a read-out y' = κ y + g I."""
    state = Sensitivity(con, "StraightThrough", random)
    zero = torch.zeros((1, *con.post.size)).to(con.weight)
    inputs = dict.fromkeys(state.advance.entry.model.inputs, zero)
    con.post.last_step = (dict.fromkeys(state.states, zero), inputs)
    by_state, by_input = state()
    slopes = [by_state.get(("O", "V"), zero), by_input["O"]]
    if any(float(value.max() - value.min()) > 0 for value in slopes):
        raise InputError(f"{con!r}: the neurons of a read-out must have one time constant")
    return float(slopes[0].flatten()[0]), float(slopes[1].flatten()[0])


class OTTT(Forward):
    """Online training through time (Xiao et al. 2022) of a feed-forward network, strategy 1.

    ∂E/∂W = Σ_t δ_t âᵀ, with the source's trace â_t = λ â_{t−1} + s_t, λ the leak of the target, and
    δ_t passed down through the layers within the step only: δ = g(u) Wᵀδ. The error of the last
    layer at each step is `mse`: O − target, or `cross_entropy`: softmax(O) − target.

        learner = Learner(trainable=[first, second], algorithm="ottt", loss="cross_entropy")
        learner.teach(one_hot)  # [batch, classes] or [batch, classes, steps]
    """

    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "surrogate": "SigmoidGrad", "loss": "mse"}
    loss: str

    def start(self) -> None:
        """Finds the layers above this connection.

        Raises:
            InputError: For strategy 0, another loss, layers that are no chain, more than one leak.
        """
        super().start()
        if self.loss not in ("mse", "cross_entropy"):
            raise InputError(
                f"{self.learner!r}: loss={self.loss!r}; expected 'mse' or 'cross_entropy'"
            )
        if not self.immediate:
            raise InputError(f"{self.learner!r}: OTTT needs build(strategy=1)")
        if "beta" not in self.sensitivity.values:
            raise InputError(
                f"{self.con!r}: OTTT needs targets with one leak (lif, lifsubtract), not "
                f"{self.con.post.model_name}"
            )
        leak = self.sensitivity.values["beta"]
        self.leak = leak if isinstance(leak, float) else torch.as_tensor(leak).to(self.weight)
        if not isinstance(self.leak, float) and self.leak.numel() > 1:
            raise InputError(f"{self.con!r}: OTTT needs one tau_m for all neurons of the target")
        links = [c for c in self.learner.parts(self.learner.trainable) if isinstance(c, Connection)]
        self.above: list[tuple[Tensor, Sensitivity]] = []  # weights as they are in this run
        group, seen = self.con.post, {id(self.con.post)}
        while onward := [c for c in links if c.pre is group]:
            if len(onward) > 1 or id(onward[0].post) in seen:
                raise InputError(f"{self.con!r}: OTTT takes a chain of layers without loops")
            weight: Tensor = onward[0].weight  # type: ignore[assignment]
            slopes = Sensitivity(onward[0], self.surrogate, self.random)
            self.above.append((weight.detach().clone(), slopes))
            group = onward[0].post
            seen.add(id(group))
        self.last_group: Any = group

    def step(self, m: Moment) -> None:
        """Follows the trace and passes the error down; changes the weight in the last step.

        Args:
            m: The step.
        """
        x = self.leak * self.trace("x", m.x_now) + m.x_now
        self.traces["x"] = x
        out = self.last_group.last_state["O"].flatten(1).to(self.weight)
        if self.loss == "cross_entropy":
            out = out.softmax(1)
        error = out - self.taught(self.last_group.num)
        for weight, sensitivity in reversed(self.above):
            error = (error * sensitivity()[1]["O"]) @ weight
        self.total += (error * self.sensitivity()[1]["O"]).T @ x
        self.finish(m)


class RateModulate(Forward):
    """Leads the spike counts of a run to `rate`: the loss alpha ‖Σ_t O − rate‖₂ of each sample.

    Its gradient for the connection's own weight, through the target neurons' states; what other
    connections would have to change is left to them.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.01,
        "alpha": 1.0,
        "rate": 5.0,
        "surrogate": "Triangle",
    }
    alpha: float
    rate: float

    def step(self, m: Moment) -> None:
        """Adds up spikes and eligibilities; changes the weight in the last step.

        Args:
            m: The step.
        """
        counts = self.traces.pop("counts", torch.zeros_like(m.y_now)) + m.y_now
        summed = self.traces.pop("summed", None)
        e = self.eligibility(m)
        summed = e if summed is None else summed + e
        if m.last:
            off = counts - self.rate
            off = self.alpha * off / off.norm(dim=1, keepdim=True).clamp(min=1e-12)
            self.total += torch.einsum("bo,boi->oi", off, summed)
        self.traces |= {"counts": counts, "summed": summed}
        self.finish(m)
