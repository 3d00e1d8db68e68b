"""The learner: which parts are trained, by which rule or surrogate gradient (section 10)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic.network.connections import Connection, Projection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners.online import Forward
from tenfold.spaic.network.learners.optimiser import Optimised
from tenfold.spaic.network.learners.registry import ALGORITHMS, RULES
from tenfold.spaic.network.learners.rule import GroupRule, Rule
from tenfold.spaic.network.learners.surrogates import OWN, SURROGATES, Surrogate
from tenfold.spaic.network.objects import Assembly, OfRun, nothing
from tenfold.spaic.units import measured

if TYPE_CHECKING:
    from tenfold.spaic.plan import Plan


class Learner(Optimised):
    """Trains parts of a network.

    A subclass may override the hooks `custom_rule`, `connection_rule` and `neuron_rule`, which are
    called at each build. What they give stands in for the algorithm where they give something:

        class Decaying(Learner):
            def connection_rule(self, con, backend, obj_type):
                if obj_type == "trainable":
                    return lambda rule, m: rule.weight.mul_(1 - 1e-3 * backend.dt)

    Args:
        trainable: A network, assembly, group, connection, projection, module, or a list of them.
        pathway: Parts that only carry gradients.
        algorithm: stca, stbp, sbp, true (surrogate gradients) or a rule of `RULES`, in any case, or
            a `Rule` class; stca by default, and of a subclass with hooks none.
        name: The name.
        reward: The Reward node of a rewarded rule; by default the network's only one.
        **options: Parameters: of the gradients alpha, surrogate_func and learn_alpha, which makes
            the alpha of each trainable group a parameter (`Surrogate`); those of the rule.

    Raises:
        InputError: For names and values that do not fit.
    """

    label = "learner"
    of_run: ClassVar[OfRun] = {"_rules": list, "plan": nothing}

    def __init__(
        self,
        trainable: Any = None,
        pathway: Any = None,
        algorithm: str | type[Rule] | None = None,
        name: str | None = None,
        reward: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name)
        self.trainable = listed(trainable)
        self.pathway = listed(pathway)
        if algorithm is None and not self._has_hooks():
            algorithm = "stca"
        if not (algorithm is None or isinstance(algorithm, str) or _is_rule(algorithm)):
            raise InputError(
                f"{self!r}: algorithm={algorithm!r}; expected a name or a subclass of Rule"
            )
        made = type(self) if algorithm is None else algorithm
        self.algorithm = made.casefold() if isinstance(made, str) else made.__name__
        self.reward = reward
        options = {key: measured(key, value, f"{self!r}") for key, value in options.items()}
        self.options = options
        self.surrogate: Surrogate | None = None
        self.rule: type[Rule] | None = None
        self._defaults: Mapping[str, Any] = {}
        self.own_rules: list[Rule] = []  # what the hooks gave
        self.own_surrogates: dict[int, Surrogate] = {}
        if algorithm is None:
            pass
        elif isinstance(algorithm, type):
            self.rule = algorithm
        elif self.algorithm in RULES:
            self.rule, self._defaults = RULES[self.algorithm]
        elif self.algorithm in ALGORITHMS:
            self.surrogate = self._surrogate()
        else:
            raise InputError(f"{self!r}: {did_you_mean(self.algorithm, ALGORITHMS, 'algorithm')}")
        if self.rule is not None:
            self._check_options(self.rule)
        self._network: Any = None
        self._rules: list[Rule] = []  # those of the last build
        self._target: Tensor | None = None

    def _check_options(self, rule: type[Rule]) -> None:
        """Refuses options that the rule does not have, and values that it cannot take."""
        for key, value in self.options.items():
            if key not in rule.options:
                hint = did_you_mean(key, rule.options, f"option of {self.algorithm}")
                raise InputError(f"{self!r}: {hint}")
            usual = {**rule.options, **self._defaults}[key]
            if isinstance(value, np.generic | np.ndarray | Tensor) and math.prod(value.shape) == 1:
                value = self.options[key] = value.item()
            number = isinstance(value, Real) and math.isfinite(value)
            if key.startswith("tau"):
                if value is not None and not (number and value > 0):
                    raise InputError(f"{self!r}: {key}={value}; a time constant must be > 0 ms")
            elif key.endswith("_decay"):
                if not (number and 0 <= value <= 1):
                    raise InputError(f"{self!r}: {key}={value}; a decay is from 0 to 1")
            elif value is None and usual is None:
                pass
            elif (usual is None or isinstance(usual, Real)) and not (
                number or isinstance(value, Tensor | np.ndarray)
            ):
                raise InputError(f"{self!r}: {key}={value!r}; expected a finite number")
        bounds = {**rule.options, **self._defaults, **self.options}
        low, high = bounds.get("w_min"), bounds.get("w_max")
        if low is not None and high is not None and low > high:
            raise InputError(f"{self!r}: w_min={low} is above w_max={high}")

    def _surrogate(self) -> Surrogate:
        options = dict(self.options)
        name: Any = self.algorithm
        if name == "sbp":
            name = options.pop("surrogate_func", "AtanGrad")
            if not isinstance(name, Surrogate) and (name not in SURROGATES or name in OWN):
                known = [key for key in SURROGATES if key not in OWN]
                raise InputError(f"{self!r}: {did_you_mean(name, known, 'surrogate_func')}")
        made = name if isinstance(name, Surrogate) else SURROGATES[name]
        alpha = options.pop("alpha", made.alpha)
        learned = options.pop("learn_alpha", made.learned)
        if options:
            known = ["alpha", "learn_alpha", "surrogate_func"]
            raise InputError(f"{self!r}: {did_you_mean(next(iter(options)), known, 'option')}")
        if not (isinstance(alpha, Real) and 0 < float(alpha) < math.inf):
            raise InputError(f"{self!r}: alpha={alpha!r}; expected > 0")
        if learned and not made.by_alpha:
            raise InputError(
                f"{self!r}: learn_alpha=True, but {made.name} does not say how it depends on alpha "
                "(Surrogate.by_alpha)"
            )
        return replace(made, alpha=float(alpha), learned=bool(learned))

    # --------------------------------------------------------------------------------- supervision

    def teach(self, target: Any) -> None:
        """Sets what a supervised rule is taught in the next run.

        Args:
            target: The wanted spikes (force, eprop, ottt: values) [batch, post, steps]; tempotron:
                [batch, post] of 0 and 1; spikeprop: [batch, post] of times in ms. A batch of one is
                for all samples.

        Raises:
            InputError: If it is neither of two axes nor of three, or not of numbers.
        """
        try:
            made = torch.as_tensor(np.asarray(target)).to(torch.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self!r}: the target is not an array of numbers ({error})"
            ) from error
        if made.ndim not in (2, 3):
            raise InputError(
                f"{self!r}: the target has shape {tuple(made.shape)}; expected (batch, neurons) or "
                "(batch, neurons, steps)"
            )
        self._target = made

    # ------------------------------------------------------------------------------------- parts

    def parts(self, which: Sequence[Any]) -> list[Any]:
        """Expands containers and projections to groups, connections and modules.

        Args:
            which: `trainable` or `pathway`.
        """
        found: dict[int, Any] = {}
        for part in which:
            inner = list(part.walk()) if isinstance(part, Assembly) else [part]
            if isinstance(part, Assembly) and not isinstance(part, NeuronGroup):
                inner += part.get_connections()
            elif isinstance(part, Projection):
                inner = [con for con in part.members.values() if isinstance(con, Connection)]
                inner += part.expand()
            found.update({id(item): item for item in inner})
        return list(found.values())

    def _tell_blocked(self) -> None:
        """Says where a trained link ends at spikes that pass no gradient on."""
        if self.surrogate is None:
            return
        parts = self.parts(self.trainable)
        passing = {id(part): part for part in [*parts, *self.parts(self.pathway)]}
        for group in passing.values():
            model = group.definition(None) if isinstance(group, NeuronGroup) else None
            if model is not None and "|" in model.threshold:
                message(
                    f"{self!r}: the threshold {model.threshold!r} of {group!r} passes no gradient; "
                    "one comparison does, alone or with masks joined to it by &"
                )
        for con in parts:
            if isinstance(con, Connection) and id(con.post) not in passing:
                model = con.post.definition(None) if isinstance(con.post, NeuronGroup) else None
                if model is not None and ("spike" in model.step or model.ode):
                    message(
                        f"{self!r}: {con!r} is trained, but {con.post!r} is neither in trainable "
                        "nor in pathway, so that no gradient passes its spikes"
                    )

    def parameters(self) -> list[torch.nn.Parameter]:
        """Lists what the gradient learner trains."""
        if self._network is not None:
            self._network.prepare()
        made: dict[int, Any] = {}
        for part in self.parts(self.trainable):
            if isinstance(part, Connection):
                forward = self.rule is not None and issubclass(self.rule, Forward)
                for tensor in (part.weight, part.bias, part.delay):
                    if tensor is not None and (
                        tensor.requires_grad or (forward and tensor is part.weight)
                    ):
                        made[id(tensor)] = tensor
                for module in part.modules.values():
                    made |= {id(p): p for p in module.parameters()}
            elif isinstance(part, NeuronGroup):
                made |= {id(p): p for p in part.trainables.values()}
                alpha = part.surrogate_alpha
                if alpha is not None and alpha.requires_grad:
                    made[id(alpha)] = alpha
            elif hasattr(part, "torch_module"):
                made |= {id(p): p for p in part.torch_module.parameters()}
        return list(made.values())

    # ------------------------------------------------------------------------------------- hooks

    def custom_rule(self, backend: "Plan") -> Any:
        """A hook for the learner as a whole, called first, once at each build.

        Args:
            backend: The plan that is built: `dt`, `dtype`, `device`, `groups`, `links`, ...

        Returns:
            A `Rule` of a connection or a `GroupRule` of a group, a list of them, or None.
        """
        return None

    def connection_rule(self, con: Connection, backend: "Plan", obj_type: str) -> Any:
        """A hook for each connection, called once at each build.

        Args:
            con: The connection.
            backend: The plan that is built.
            obj_type: `trainable` or `pathway`: which list the connection is in.

        Returns:
            A `Rule` of the connection; a function of a rule and a `Moment`, which changes
            `rule.weight` at each step and keeps its traces in the rule; or None, which leaves the
            connection to the algorithm.
        """
        return None

    def neuron_rule(self, group: NeuronGroup, backend: "Plan", obj_type: str) -> Any:
        """A hook for each group, called once at each build.

        Args:
            group: The group.
            backend: The plan that is built.
            obj_type: `trainable` or `pathway`: which list the group is in.

        Returns:
            A `Surrogate`, which stands in for the derivative of the group's spikes; a `GroupRule`;
            a function of a rule and a `Moment`, which changes `m.state` at each step; or None,
            which leaves the group to the algorithm.
        """
        return None

    def _has_hooks(self) -> bool:
        names = ("custom_rule", "connection_rule", "neuron_rule")
        return any(getattr(type(self), name) is not getattr(Learner, name) for name in names)

    def bind(self, plan: "Plan") -> None:
        """Calls the hooks; the network does so at each build.

        Args:
            plan: The plan.

        Raises:
            InputError: If a hook gives something else, or, without an algorithm, all give nothing.
        """
        self.plan, self.own_rules, self.own_surrogates = plan, [], {}
        self._complete = False  # the network may have changed
        for made in listed(self.custom_rule(plan)):
            if not isinstance(made, Rule):
                raise InputError(
                    f"{self!r}: custom_rule gave {made!r}; expected rules of connections or groups"
                )
            self.own_rules.append(made)
        for obj_type, which in (("trainable", self.trainable), ("pathway", self.pathway)):
            for part in self.parts(which):
                if isinstance(part, Connection):
                    given = self.connection_rule(part, plan, obj_type)
                    self._take(given, part, Rule, "connection_rule")
                elif isinstance(part, NeuronGroup):
                    given = self.neuron_rule(part, plan, obj_type)
                    if isinstance(given, Surrogate):
                        self.own_surrogates[id(part)] = given
                    else:
                        self._take(given, part, GroupRule, "neuron_rule")
        if not (self.rule or self.surrogate or self.own_rules or self.own_surrogates):
            raise InputError(f"{self!r} has no algorithm, and its hooks gave no rule")

    def _take(self, given: Any, part: Any, kind: type[Rule], hook: str) -> None:
        """Keeps the rule that a hook gave of a part."""
        if given is None:
            return
        if isinstance(given, Rule):
            if given.part is not part:
                raise InputError(
                    f"{self!r}: {hook} gave a rule of {given.part!r} when asked for {part!r}"
                )
            self.own_rules.append(given)
        elif callable(given):
            made = kind(part)
            made.function, made.sparse = given, True
            self.own_rules.append(made)
        else:
            raise InputError(
                f"{self!r}: {hook} gave {given!r}; expected a rule, a function of a rule and a "
                "moment, or None"
            )

    def ruled(self) -> list[Connection]:
        """Lists the connections that rules change."""
        made = [rule.part for rule in self.own_rules]
        if self.rule is not None:
            made += [part for part in self.parts(self.trainable) if isinstance(part, Connection)]
        return [part for part in made if isinstance(part, Connection)]

    def make_rules(self, plan: "Plan", random: torch.Generator) -> list[Rule]:
        """Makes the rule of each trainable connection, or of each group.

        Args:
            plan: The plan that they are run in.
            random: For rules that draw.

        Raises:
            InputError: For a connection that the rule does not fit, or if there is none.
        """
        made = list(self.own_rules)
        own = {id(rule.part) for rule in made}
        for part in self.parts(self.trainable) if self.rule is not None else ():
            if id(part) in own:
                continue
            assert self.rule is not None
            if issubclass(self.rule, GroupRule):
                fits = isinstance(part, NeuronGroup)
            else:
                fits = isinstance(part, Connection) and part.weight is not None
            if fits:
                made.append(self.rule(part, **{**self._defaults, **self.options}))
        for rule in made:
            for old in self._rules:
                if old is not rule and old.part is rule.part and type(old) is type(rule):
                    rule.take_over(old, whole=rule not in self.own_rules)
            rule.learner, rule.plan, rule.random = self, plan, random
            rule.check()
        if not made and self.rule is not None:
            raise InputError(f"{self!r}: {self.algorithm} found nothing to train")
        self._rules = made
        return made

    def memory(self) -> dict[str, tuple[Rule, str]]:
        """Lists what rules keep besides weights, for example fixed random feedback.

        Returns:
            Name in saved states → the rule and the name in `Rule.memory`.
        """
        return {
            f"{self.id}:{rule.part.id}:{{{name}}}": (rule, name)
            for rule in self._rules
            for name in rule.memory
        }

    def __getstate__(self) -> dict[str, Any]:
        """A copy is built anew, with what its rules have learned."""
        return {**vars(self), "plan": None, "own_rules": [], "own_surrogates": {}}

    def target_at(self, rule: Rule, k: int, post: int, like: Tensor) -> Tensor | None:
        """Gives what a supervised rule is taught for one step; None for other rules.

        Args:
            rule: The rule; one that a hook wrote may read what there is.
            k: The step of the run.
            post: The number of target neurons.
            like: For device and precision.

        Raises:
            InputError: As `taught`.
        """
        written = rule.function is not None and self._target is not None
        return self.taught(k, post, like, len(like)) if rule.needs_target or written else None

    def taught(self, k: int, post: int, like: Tensor, batch: int) -> Tensor:
        """Gives the target of one step.

        Args:
            k: The step of the run; after the target's end there are zeros.
            post: The number of neurons that are taught.
            like: For device and precision.
            batch: The number of samples.

        Raises:
            InputError: If there is no target, or it has another number of neurons or samples.
        """
        if self._target is None:
            raise InputError(f"{self!r}: {self.algorithm} needs a target; call teach() first")
        made = self._target.to(like)
        if made.ndim == 3:
            made = made[..., k] if k < made.shape[2] else torch.zeros_like(made[..., 0])
        if made.shape[-1] != post:
            raise InputError(f"{self!r}: the target has {made.shape[-1]} neurons; expected {post}")
        if len(made) not in (1, batch):
            raise InputError(f"{self!r}: the target has {len(made)} samples; the batch has {batch}")
        return made


def listed(given: Any) -> list[Any]:
    """Gives one thing, several or none as a list.

    Args:
        given: None, a thing, or a list or tuple of them.
    """
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _is_rule(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Rule)
