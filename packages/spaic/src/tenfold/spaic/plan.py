"""The plan of a network: what is computed in a step, in which order. Every engine runs a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tenfold.shared.errors import InputError
from tenfold.shared.progress import message
from tenfold.spaic import equations as eq
from tenfold.spaic.model.neurons import CompiledModel
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import Layer, NeuronGroup
from tenfold.spaic.network.learners import Learner, Surrogate
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor
from tenfold.spaic.network.nodes import POTENTIALS, SPIKING, Decoder, Encoder, Reward
from tenfold.spaic.network.objects import rests


@dataclass
class GroupPlan:
    """A neuron group and its compiled model.

    Attributes:
        group: The group.
        model: Its equations and values.
        surrogate: What stands in for the derivative of its spikes, or None.
    """

    group: NeuronGroup
    model: CompiledModel
    surrogate: Surrogate | None = None


@dataclass
class Plan:
    """What is computed in a step, in which order.

    A step is: sources emit; `order` is carried out (a link gives its sum to its target, a group
    makes its spikes); `late` links add to states; groups reset; learners, decoders and monitors
    read the result.

    Attributes:
        dt: The step in ms.
        strategy: 0: a link reads what its source was before the step, so it costs one step;
            1: what its source is in this step.
        compat: None or `"spaic"`.
        dtype: The precision.
        device: The device.
        sources: Encoders and generators.
        groups: The groups by id.
        links: All connections.
        order: Links, modules and groups in order.
        late: Links that target a state instead of an input.
        decoders: Decoders and actions.
        rewards: Rewards.
        monitors: Monitors.
        learners: Learners.
        gradients: Whether any part is trained through the run.
        ranks: Over how many processes the neurons are spread.
        lagged: Links that read the step before, whatever the strategy: they close a loop, or arrive
            before the threshold (`NeuronModel.arrivals`).
        run_steps: The steps of the run that it was built for; 10 if it was built before the first.
        silent: The ids of trained groups that have made no spike yet, where that is looked at.
        inputs_seen: (id of a group, input) of the inputs that nodes and monitors read.
    """

    dt: float
    strategy: int
    compat: str | None
    dtype: torch.dtype
    device: torch.device
    sources: list[Encoder] = field(default_factory=list)
    groups: dict[int, GroupPlan] = field(default_factory=dict)
    links: list[Connection] = field(default_factory=list)
    order: list[Any] = field(default_factory=list)
    late: list[Connection] = field(default_factory=list)
    decoders: list[Decoder] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)
    monitors: list[Monitor] = field(default_factory=list)
    learners: list[Learner] = field(default_factory=list)
    gradients: bool = False
    ranks: int = 1
    lagged: list[Connection] = field(default_factory=list)
    run_steps: int = 10
    silent: set[int] = field(default_factory=set)
    inputs_seen: set[tuple[int, str]] = field(default_factory=set)


def make_plan(
    parts: Sequence[Any],
    links: Sequence[Connection],
    monitors: Sequence[Monitor],
    learners: Sequence[Learner],
    *,
    dt: float,
    strategy: int,
    compat: str | None,
    dtype: torch.dtype,
    device: torch.device,
    full_grad: bool = False,
    ranks: int = 1,
    break_loops: bool = False,
    run_steps: int = 10,
) -> Plan:
    """Compiles the parts of a network.

    Args:
        parts: Groups, nodes and modules.
        links: The connections.
        monitors: The monitors.
        learners: The learners.
        dt: The step in ms.
        strategy: 0 or 1.
        compat: None or `"spaic"`.
        dtype: The precision.
        device: The device.
        full_grad: Whether gradients flow through every part.
        ranks: Over how many processes the neurons are spread.
        break_loops: Whether, with strategy 1, links that close a loop read the step before.
        run_steps: The steps of the run that it is built for.

    Raises:
        InputError: For a loop with strategy 1, a part that refers to one outside of the network or
            to a variable that does not exist, a learner pair that fights for one weight.
    """
    plan = Plan(dt, strategy, compat, dtype, device, ranks=ranks)
    plan.learners, plan.run_steps = list(learners), run_steps
    present = {id(part) for part in parts}
    modules = [
        part
        for part in parts
        if isinstance(part, Module)
        and _all_there(part, [*part.input_targets, *part.output_targets], present)
    ]
    for part in parts:
        if isinstance(part, NeuronGroup):
            plan.groups[id(part)] = GroupPlan(part, part.compile(compat, dt, dtype))
        elif isinstance(part, Encoder):
            plan.sources.append(part)
        elif isinstance(part, Decoder) and _all_there(part, [part.dec_target], present):
            plan.decoders.append(part)
        elif isinstance(part, Reward) and _all_there(part, [part.dec_target], present):
            plan.rewards.append(part)
    # What refers to a hidden group rests with it.
    plan.links = [c for c in links if _all_there(c, [c.pre, c.post], present)]
    for source in plan.sources:  # a generator may write straight into a group
        target = source.dec_target
        if target is not None and _all_there(source, [target], present):
            _check_target(plan, source, target, source.coding_var_name)
            if source.num != target.num:
                raise InputError(
                    f"{source!r} has {source.num} channels; its target {target!r} has {target.num}"
                )
    for con in plan.links:
        _check_link(plan, con)
        arrivals = plan.groups[id(con.post)].model.arrivals
        con.into = arrivals.get(con.post_var_name, con.post_var_name)
        con.ahead = int(con.into != con.post_var_name)
    plan.lagged = [con for con in plan.links if con.ahead]
    for module in modules:
        _check_module(plan, module)
    for node in (*plan.decoders, *plan.rewards):
        _check_seen(plan, node, node.dec_target, node.coding_var_name)
    plan.monitors = _watching(plan, monitors, links, present)
    plan.late = [con for con in plan.links if _is_late(plan, con)]
    early = [con for con in plan.links if con not in plan.late]
    groups = [entry.group for entry in plan.groups.values()]
    if strategy == 0:
        plan.order = [*early, *modules, *groups]
    else:
        plan.order = _forward(early, modules, groups, plan.sources, plan.lagged, break_loops)
    _learn(plan, full_grad)
    return plan


def forward_order(plan: Plan) -> list[Any]:
    """Puts the links and groups of a plan into an order without loops.

    Args:
        plan: The plan; its links from a group to itself are left out.

    Raises:
        InputError: If there is a loop through several groups.
    """
    groups = [entry.group for entry in plan.groups.values()]
    early = [con for con in plan.links if con not in plan.late and con.pre is not con.post]
    modules = [part for part in plan.order if isinstance(part, Module)]
    return _forward(early, modules, groups, plan.sources, [])


def _all_there(what: Any, targets: Sequence[Any], present: set[int]) -> bool:
    """Whether all that a part refers to takes part; False if some of it is hidden."""
    absent = [target for target in targets if id(target) not in present]
    for target in absent:
        if not rests(target):
            raise InputError(
                f"{what!r} refers to {target!r}, which is not in the network; hold it in an "
                "attribute of the network or of an assembly (a list holds no parts)"
            )
    return not absent


def _check_seen(
    plan: Plan, what: Any, target: Any, variable: str, states_only: bool = False
) -> None:
    """Refuses variables that there are not; notes inputs, which engines do not keep by themselves.

    Args:
        plan: The plan.
        what: The part that reads.
        target: A group or a source.
        variable: The variable.
        states_only: Whether inputs cannot be read.
    """
    entry = plan.groups.get(id(target))
    known: tuple[str, ...] = entry.model.states if entry else ()
    if any(target is source for source in plan.sources):
        known = ("O",)
    if entry and not states_only and variable in entry.model.inputs:
        plan.inputs_seen.add((id(target), variable))
    elif variable not in known:
        inputs = entry.model.inputs if entry and not states_only else ()
        raise InputError(
            f"{what!r}: {target!r} has no variable {variable!r}; it has "
            f"{', '.join([*known, *inputs]) or 'none'}"
        )
    spikes = entry and variable == "O" and eq.calls(entry.model.update) & {"spike", "spike_at"}
    if spikes and isinstance(what, Decoder) and what.coding_method in POTENTIALS:
        message(
            f"{what!r}: {what.coding_method} reads a potential, and O of {target!r} is spikes; "
            "coding_var_name='V' reads the potential"
        )


def _watching(
    plan: Plan, monitors: Sequence[Monitor], links: Sequence[Connection], present: set[int]
) -> list[Monitor]:
    """The monitors whose targets take part; what cannot be watched is refused."""
    made = []
    for monitor in monitors:
        target, name = monitor.target, monitor.var_name
        if isinstance(target, Reward):
            if name != "Output_Reward":
                raise InputError(
                    f"{monitor!r}: {target!r} has no variable {name!r}; it has 'Output_Reward'"
                )
        elif not isinstance(target, Layer | Connection | Learner):
            raise InputError(
                f"{monitor!r}: {target!r} holds nothing to watch; expected a group, a source, a "
                "connection ('weight', 'bias', 'delay'), a reward ('Output_Reward') or a learner"
            )
        known = {*present, *map(id, links), *map(id, plan.learners)}
        if _all_there(monitor, [target], known):
            if not isinstance(target, Reward | Connection | Learner):
                _check_seen(plan, monitor, target, name)
            made.append(monitor)
    return made


def _check_target(plan: Plan, what: Any, target: Any, variable: str) -> None:
    entry = plan.groups.get(id(target))
    if entry is None:
        raise InputError(f"{what!r}: its target {target!r} is not a neuron group")
    name = "Isyn" if variable == "O" else variable
    if name not in (*entry.model.inputs, *entry.model.states):
        raise InputError(
            f"{what!r}: {target!r} (model {entry.model.name}) has no variable {name!r}; inputs: "
            f"{', '.join(entry.model.inputs)}; states: {', '.join(entry.model.states)}"
        )
    read = eq.names(line.value for line in (*entry.model.update, *entry.model.reset))
    if name in entry.model.inputs and name not in read:
        message(
            f"{what!r}: {target!r} (model {entry.model.name}) does not read {name!r}, so that "
            f"nothing arrives; its states: {', '.join(entry.model.states)}"
        )


def _check_link(plan: Plan, con: Connection) -> None:
    _check_target(plan, con, con.post, con.post_var_name)
    _tell_mute(plan, con)
    for group in (con.pre, con.post) if "electrical" in con.syn_type else ():
        model = plan.groups[id(group)].model
        if "V" not in model.states or con.post_var_name not in model.inputs:
            raise InputError(
                f"{con!r}: an electrical synapse reads V and writes an input of both sides; the "
                f"model {model.name} of {group!r} has the states {', '.join(model.states)} and the "
                f"inputs {', '.join(model.inputs)}"
            )
    entry = plan.groups.get(id(con.pre))
    if entry is not None and con.pre_var_name not in entry.model.states:
        raise InputError(
            f"{con!r}: {con.pre!r} has no variable {con.pre_var_name!r}; states: "
            f"{', '.join(entry.model.states)}"
        )


def _tell_mute(plan: Plan, con: Connection) -> None:
    """Says where spikes come in as a current of one step, though the model has synapses."""
    model = plan.groups[id(con.post)].model
    synapses = [name for name in ("ge", "gi") if name in model.states]
    spikes = id(con.pre) in plan.groups or getattr(con.pre, "coding_method", "") in SPIKING
    plain = con.pre_var_name == "O" and con.syn_type == ["basic"]
    if con.post_var_name == "Isyn" and synapses and spikes and plain:
        message(
            f"{con!r}: each spike is a current for one step of {plan.dt:g} ms in Isyn of "
            f"{con.post!r} (model {model.name}), and hardly moves it; "
            f"post_var_name={synapses[0]!r} enters its synapse"
        )


def _check_module(plan: Plan, module: Module) -> None:
    """Refuses variables that the groups at a module's ends do not have."""
    for target, name in zip(module.input_targets, module.input_var_names, strict=True):
        _check_seen(plan, module, target, name, states_only=True)
    (target,), (name,) = module.output_targets, module.output_var_names
    entry = plan.groups.get(id(target))
    if entry is None or name not in entry.model.inputs:
        known = entry.model.inputs if entry is not None else ()
        raise InputError(
            f"{module!r}: {target!r} has no input {name!r}; inputs: {', '.join(known) or 'none'}"
        )


def _is_late(plan: Plan, con: Connection) -> bool:
    return con.into not in plan.groups[id(con.post)].model.inputs


def _forward(
    links: list[Connection],
    modules: list[Module],
    groups: list[NeuronGroup],
    sources: list[Encoder],
    lagged: list[Connection],
    break_loops: bool = False,
) -> list[Any]:
    """Puts each part after all that it reads; links that close a loop may go into `lagged`."""
    done: set[int] = {id(source) for source in sources}
    waiting: list[Any] = [*links, *modules, *groups]
    order: list[Any] = []
    while waiting:
        ready = []
        for part in waiting:
            if isinstance(part, Connection):
                needs = {id(part.pre)}
                # Electrical ones read the potentials before the step.
                if "electrical" in part.syn_type or part in lagged:
                    needs = set()
            elif isinstance(part, Module):
                needs = {id(target) for target in part.input_targets}
            else:
                feeding = [c for c in links if c.post is part or _both_ways(c, part)]
                needs = {id(c) for c in feeding}
                needs |= {id(m) for m in modules if part in m.output_targets}
            if needs <= done:
                ready.append(part)
        if not ready and break_loops:
            closing = _closing([c for c in links if c not in lagged], groups, done)
            if closing:
                lagged += closing
                continue
        if not ready:
            stuck = ", ".join(map(repr, _loop([c for c in links if c not in lagged], modules)))
            raise InputError(
                f"strategy 1 cannot order the loop through {stuck}: without a step of delay each "
                "waits for the other; take strategy=0, where every link costs a step, or "
                "build(strategy=1, break_loops=True), where only those that close a loop do"
            )
        order += ready
        done |= {id(part) for part in ready}
        waiting = [part for part in waiting if id(part) not in done]
    return order


def _loop(links: list[Connection], modules: list[Module]) -> list[Any]:
    """The groups of the first loop: the largest set in which each leads to each."""
    steps = [(c.pre, c.post) for c in links if "electrical" not in c.syn_type]
    steps += [(a, b) for m in modules for a in m.input_targets for b in m.output_targets]
    layers = {id(layer): layer for step in steps for layer in step}
    at = {key: k for k, key in enumerate(layers)}
    ends = np.array([(at[id(a)], at[id(b)]) for a, b in steps], dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(at), len(at)))
    label = connected_components(graph, connection="strong")[1]
    inner = ends[label[ends[:, 0]] == label[ends[:, 1]]]  # a link back to its own group too
    first = label[inner[:1, 0]]
    return [layer for key, layer in layers.items() if label[at[key]] in first]


def _closing(
    links: list[Connection], groups: list[NeuronGroup], done: set[int]
) -> list[Connection]:
    """The links into the first group that waits only for what itself leads to."""
    for group in groups:
        reached: set[int] = set()
        found: list[Any] = [group]
        while found:
            part = found.pop()
            after = [c.post for c in links if c.pre is part and id(c.post) not in reached]
            reached |= {id(layer) for layer in after}
            found += after
        late = [c for c in links if c.post is group and id(c) not in done]
        if id(group) not in done and late and all(id(c.pre) in reached for c in late):
            return late
    return []


def _both_ways(con: Connection, group: NeuronGroup) -> bool:
    return "electrical" in con.syn_type and con.pre is group


def _learn(plan: Plan, full_grad: bool) -> None:
    """Gives groups their surrogates, and says which tensors need gradients."""
    trained: dict[int, Learner] = {}
    ruled: dict[int, Learner] = {}
    for learner in plan.learners:
        learner.bind(plan)
        own = {id(con): learner for con in learner.ruled()}
        ruled |= own
        if learner.surrogate is None and not learner.own_surrogates:
            continue
        parts = learner.parts(learner.trainable)
        trained |= {id(part): learner for part in parts if id(part) not in own}
        for part in [*parts, *learner.parts(learner.pathway)]:
            found = learner.own_surrogates.get(id(part), learner.surrogate)
            if id(part) in plan.groups and found is not None:
                entry = plan.groups[id(part)]
                before = entry.surrogate or found
                if replace(before, learned=False) != replace(found, learned=False):
                    raise InputError(
                        f"{learner!r}: {part!r} has the surrogate {before.name} with alpha "
                        f"{before.alpha} from another learner, and would get {found.name} with "
                        f"alpha {found.alpha}; give both learners the same"
                    )
                _take_surrogate(plan, entry, found, id(part) in trained)
    for con in plan.links:
        if id(con) in trained and id(con) in ruled:
            raise InputError(
                f"{con!r} is trained by {trained[id(con)]!r} and by {ruled[id(con)]!r}; a rule "
                "changes the weight in place, which breaks the gradient: choose one"
            )
        wanted = (id(con) in trained or full_grad) and id(con) not in ruled
        if con.weight is not None:
            con.weight.requires_grad_(wanted and con.is_parameter)
        if con.bias is not None:
            con.bias.requires_grad_(wanted and con.is_parameter)
        if con.delay is not None:
            con.delay.requires_grad_(wanted and con.train_delay)
    for entry in plan.groups.values():
        for tensor in entry.group.trainables.values():
            tensor.requires_grad_(id(entry.group) in trained or full_grad)
        if entry.group.surrogate_alpha is not None:
            learned = entry.surrogate is not None and entry.surrogate.learned
            entry.group.surrogate_alpha.requires_grad_(learned)
    plan.gradients = bool(trained) or full_grad


def _take_surrogate(plan: Plan, entry: GroupPlan, surrogate: Surrogate, trained: bool) -> None:
    """Gives a group its surrogate; only that of a trained group learns its alpha."""
    entry.surrogate = surrogate if trained else replace(surrogate, learned=False)
    if entry.surrogate.learned:
        entry.group.learn_alpha(surrogate.alpha, plan.dtype, plan.device)
        entry.model = entry.group.compile(plan.compat, plan.dt, plan.dtype)
