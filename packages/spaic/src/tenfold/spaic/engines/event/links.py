"""Links in the event engine's loop: who reads whose spikes of which step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.engines.event.code import Code
from tenfold.spaic.engines.event.plasticity import learning_arguments, learning_function
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.learners import TraceRule
from tenfold.spaic.plan import Plan

FEW_LINKS = 16
"""Up to this many links are written out one by one; more share one ring, to compile quickly."""


@dataclass
class Synapses:
    """The synapses of a link that end in this process's neurons.

    They are sorted by source, then by target; of plastic links by source, delay and target.

    Attributes:
        con: The link.
        pre: int64 [synapses], the sources.
        post: int64 [synapses], the targets among those of this process.
        weight: [synapses].
        steps: int64 [synapses] or [1], the delays.
        age: How old the spikes are that it reads with no delay: 0 in this step, 1 before.
        shortest: The shortest delay of the whole link, in steps.
        mixed: Whether the delays of the whole link differ.
        rule: Its learning rule, or None.
        place: int64 [synapses], where each stands in the link's own weight.
    """

    con: Connection
    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    steps: np.ndarray
    age: int
    shortest: int
    mixed: bool
    rule: TraceRule | None
    place: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each source's synapses begin."""
        return starts(self.pre, self.con.pre.num)


def starts(pre: np.ndarray, size: int) -> np.ndarray:
    """Where each source's synapses begin, once they are sorted by source.

    Args:
        pre: The sources.
        size: How many sources there are.
    """
    start = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(pre, minlength=size), out=start[1:])
    return start


def delay_steps(plan: Plan, con: Connection) -> np.ndarray:
    """The delays of a link in steps, an array of one number if one is held for all.

    Args:
        plan: The plan.
        con: The link.
    """
    return np.atleast_1d(con.delay_steps(plan.dt, plan.compat))


def is_late(plan: Plan, con: Connection) -> bool:
    """Whether a link is delivered at the end of a step, and so sees the spikes of this step.

    Args:
        plan: The plan.
        con: The link.
    """
    return any(con is item for item in plan.late)


def synapses_of(code: Code, con: Connection, rule: TraceRule | None) -> Synapses:
    """Lists the synapses of a link that end in this process's neurons.

    Args:
        code: For the plan and the neurons of this process.
        con: The link.
        rule: Its learning rule: then also synapses of weight zero count.
    """
    steps = delay_steps(code.plan, con)
    shortest, mixed = (int(steps.min()), int(np.ptp(steps)) > 0) if steps.size else (0, False)
    weight = con.weight.detach().numpy()  # type: ignore[union-attr]
    first, last = code.own[id(con.post)]
    age = 0 if is_late(code.plan, con) else 1
    if con.kind == "all_to_all":  # one weight stands for all its synapses
        none, held = np.zeros(0, dtype=np.int64), weight.reshape(-1).astype(code.dtype)
        return Synapses(con, none, none, held, steps, age, shortest, mixed, rule, none)
    if con.stored_sparse:
        pre, post = con.pre_index.numpy(), con.post_index.numpy()  # type: ignore[union-attr]
        _within(con, "pre_index", pre, weight)
        _within(con, "post_index", post, weight)
        place = np.flatnonzero((post >= first) & (post < last))
        place = place[np.lexsort((post[place], pre[place]))]
        pre, post = pre[place], post[place]
    else:
        if con.mask is not None:
            weight = weight * con.mask.numpy()
        part = weight[first:last].T
        pre, post = np.nonzero(part) if rule is None else np.nonzero(np.ones_like(part))
        post = post + first
        place = post * con.pre.num + pre
    steps = steps.reshape(-1)[place] if steps.size > 1 else steps
    if rule is not None and mixed:
        order = np.lexsort((post, steps, pre))
        pre, post, place, steps = pre[order], post[order], place[order], steps[order]
    found = weight.reshape(-1)[place].astype(code.dtype)
    return Synapses(con, pre, post - first, found, steps, age, shortest, mixed, rule, place)


def _within(con: Connection, what: str, index: np.ndarray, weight: np.ndarray) -> None:
    """Refuses indices, perhaps set by hand, that lead outside: the compiled loop trusts them."""
    size = (con.pre if what == "pre_index" else con.post).num
    if index.shape != weight.shape:
        raise InputError(f"{con!r}: {what} has {index.shape} entries for {weight.shape} weights")
    if len(index) and not 0 <= index.min() <= index.max() < size:
        raise InputError(
            f"{con!r}: {what} holds {index.min()}..{index.max()}; expected 0..{size - 1}"
        )


def put_back(code: Code, synapses: Synapses, number: int) -> None:
    """Writes plastic weights back into their link.

    Args:
        code: Holds the weights that changed.
        synapses: The plastic synapses.
        number: The link's number.
    """
    weight = synapses.con.weight
    assert weight is not None
    with torch.no_grad():
        found = torch.from_numpy(code.arguments[f"weight_{number}"])
        weight.view(-1)[torch.from_numpy(synapses.place)] = found.to(weight.dtype)


class LinkWriter:
    """Writes links into the loop.

    Args:
        code: The text.
        sources: For each source, how many steps of what it emits are kept.
    """

    def __init__(self, code: Code, sources: list[int]) -> None:
        self.code, self.sources = code, sources

    def _source(self, con: Connection) -> int | None:
        return next((k for k, s in enumerate(self.code.plan.sources) if s is con.pre), None)

    def _seen(self, con: Connection, age: int) -> tuple[str, str, str]:
        """The spikes of so many steps ago: their list, their number, their values."""
        source = self._source(con)
        if source is None:
            number, at = self.code.number(con.pre), f"(t - {age}) % {self.code.slots}"
            return f"spikes_{number}[{at}]", f"counts_{number}[{at}]", ""
        at = f"(t - {age}) % {self.sources[source]}"
        return f"hits_{source}[{at}]", f"hit_{source}[{at}]", f"out_{source}[{at}]"

    def write(self, links: list[Synapses]) -> None:
        """Links of one delay read the spikes of so many steps ago; all others share one ring.

        Args:
            links: All that are delivered at the same place of a step.
        """
        many = sum(self._source(item.con) is None for item in links) > FEW_LINKS
        later: list[Synapses] = []
        self._write_totals([item for item in links if item.con.kind == "all_to_all"])
        for item in links:
            if not len(item.pre):
                continue
            if item.con.pre_var_name != "O":
                self._write_graded(item)
                continue
            plain = self._source(item.con) is None and item.rule is None
            if plain and (many or item.mixed):
                later.append(item)
            elif item.mixed and item.rule is not None:
                self._write_lagged(item)
            elif item.mixed:
                self._write_ring([item], f"ring_{self.code.plan.links.index(item.con)}")
            elif self.is_identity(item):
                self._write_identity(item)
            else:
                self._write_direct(item)
        if later:
            self._write_ring(later, f"ring_{'early' if later[0].age else 'late'}")

    def _write_direct(self, item: Synapses) -> None:
        code, number = self.code, self.code.plan.links.index(item.con)
        same = bool((item.weight == item.weight[0]).all()) and item.rule is None
        age = item.shortest + item.age
        spikes, count, value = self._seen(item.con, age)
        code.argument(f"start_{number}", item.starts)
        code.argument(f"post_{number}", item.post.astype(np.int32))
        same = same and not value
        held = item.weight[0] if same else np.ascontiguousarray(item.weight)
        code.argument(f"weight_{number}", held)
        into = code.into(item.con.post, item.con.into)
        synapses = f"start_{number}, post_{number}, weight_{number}, {into}"
        if value:
            call = f"deliver_value({spikes}, {count}, {value}, {synapses})"
        else:
            call = f"{'deliver_same' if same else 'deliver'}({spikes}, {count}, {synapses})"
        code.add(3, f"if t >= {age}:", f"    {call}")

    def _write_graded(self, item: Synapses) -> None:
        """From a state of a group at the end of the step before: all of it, at each step.

        For links of few synapses, such as those that gather a group into one value.
        """
        code, con, number = self.code, item.con, self.code.plan.links.index(item.con)
        for name, held in (("pre", item.pre), ("post", item.post)):
            code.argument(f"{name}_{number}", held.astype(np.int32))
        code.argument(f"weight_{number}", np.ascontiguousarray(item.weight))
        state, into = code.into(con.pre, con.pre_var_name), code.into(con.post, con.into)
        code.add(3, f"for j in range(len(pre_{number})):")
        given = f"weight_{number}[j] * {state}[pre_{number}[j]]"
        code.add(4, f"{into}[post_{number}[j]] += {given}")

    def _write_totals(self, links: list[Synapses]) -> None:
        """Links of one weight for all pairs: a sum over the source, then one number for all.

        The sums of a state are kept for as many steps as the longest delay; spikes are counted
        already.
        """
        code = self.code
        depths: dict[tuple[Any, str], int] = {}
        for item in links:
            key = item.con.pre, item.con.pre_var_name
            depths[key] = max(depths.get(key, 0), item.shortest + 1)
        for (pre, name), depth in depths.items():
            if name != "O":
                ring = self._total(pre, name, links[0].age)
                code.argument(ring, np.zeros(depth, code.dtype))
                code.add(3, f"{ring}[t % {depth}] = {code.into(pre, name)}.sum()")
        for item in links:
            con, number = item.con, code.plan.links.index(item.con)
            if con.pre_var_name == "O":
                age = item.shortest + item.age
                total = self._seen(con, age)[1]
            else:
                depth, age = depths[con.pre, con.pre_var_name], item.shortest
                ring = self._total(con.pre, con.pre_var_name, item.age)
                total = f"{ring}[(t - {age}) % {depth}]"
            code.argument(f"weight_{number}", item.weight)
            code.add(3, f"if t >= {age} and {total} != 0:")
            into = code.into(con.post, con.into)
            code.add(4, f"add_same({total} * weight_{number}[0], {into})")

    def _total(self, pre: Any, name: str, age: int) -> str:
        return f"total_{self.code.number(pre)}_{name}_{age}"

    def is_identity(self, item: Synapses) -> bool:
        """One synapse from each channel of a source to the neuron of the same number.

        Args:
            item: The synapses.
        """
        first, last = self.code.own[id(item.con.post)]
        order = np.arange(last - first)
        return (
            self._source(item.con) is not None
            and not item.mixed
            and item.rule is None
            and len(item.pre) == last - first
            and bool((item.pre == order + first).all() and (item.post == order).all())
        )

    def _write_identity(self, item: Synapses) -> None:
        code, number = self.code, self.code.plan.links.index(item.con)
        group = code.number(item.con.post)
        age = item.shortest + item.age
        value = self._seen(item.con, age)[2]
        code.argument(f"weight_{number}", np.ascontiguousarray(item.weight))
        into = code.into(item.con.post, item.con.into)
        code.add(3, f"if t >= {age}:", f"    given = {value}")
        code.add(4, f"for i in range(size_{group}):")
        code.add(5, f"{into}[i] += weight_{number}[i] * given[i + first_{group}]")

    def _write_ring(self, rows: list[Synapses], ring: str) -> None:
        """One out-adjacency for links with mixed delays, into one ring of future sums."""
        code = self.code
        begins: dict[int, int] = {}  # source → where its neurons begin
        targets: dict[tuple[int, str], int] = {}
        neurons = places = 0
        parts = []
        for item in rows:
            con = item.con
            if id(con.pre) not in begins:
                begins[id(con.pre)], neurons = neurons, neurons + con.pre.num
            key = (id(con.post), con.into)
            if key not in targets:
                first, last = code.own[id(con.post)]
                targets[key], places = places, places + last - first
            steps = np.broadcast_to(item.steps, item.pre.shape)
            pre, post = item.pre + begins[id(con.pre)], item.post + targets[key]
            parts.append((pre, post, item.weight, steps))
        pre, post, weight, steps = (np.concatenate(part) for part in zip(*parts, strict=True))
        # The spikes are read when the first of them arrive: until then nobody needs them here.
        shortest = min(item.shortest for item in rows)
        age, lag = rows[0].age + shortest, steps - shortest
        order = np.lexsort((post, pre))
        pre, post, weight, lag = pre[order], post[order], weight[order], lag[order]
        start = starts(pre, neurons)
        code.argument(f"{ring}_post", post.astype(np.int32))
        code.argument(f"{ring}_weight", np.ascontiguousarray(weight))
        code.argument(f"{ring}_lag", lag.astype(np.int32))
        sums = np.zeros((int(lag.max()) + 1, places), dtype=code.dtype)
        code.argument(f"{ring}_sums", sums)
        none = code.argument("nothing", np.zeros(0, dtype=code.dtype))
        code.add(3, f"if t >= {age}:")
        for item in {id(item.con.pre): item for item in rows}.values():
            spikes, count, value = self._seen(item.con, age)
            offset, size = begins[id(item.con.pre)], item.con.pre.num
            begin = f"{ring}_start_{offset}"
            code.argument(begin, start[offset : offset + size + 1].copy())
            rest = f"{begin}, {ring}_post, {ring}_weight, {ring}_lag, {ring}_sums"
            code.add(4, f"deliver_later({spikes}, {count}, {value or none}, {rest}, t)")
        code.add(3, f"row = t % {len(sums)}")
        for (post_id, name), offset in targets.items():
            group = code.plan.groups[post_id].group
            code.add(3, f"collect({ring}_sums[row], {offset}, {code.into(group, name)})")

    def _write_lagged(self, item: Synapses) -> None:
        """A plastic link of mixed delays: a ring of sums would hold the weights of before."""
        code, number = self.code, self.code.plan.links.index(item.con)
        lags = int(item.steps.max()) - item.shortest + 1
        age = item.shortest + item.age
        begins = starts(item.pre * lags + item.steps - item.shortest, item.con.pre.num * lags)
        code.argument(f"begins_{number}", begins)
        code.argument(f"start_{number}", item.starts)
        code.argument(f"post_{number}", item.post.astype(np.int32))
        code.argument(f"weight_{number}", np.ascontiguousarray(item.weight))
        seen = [part.partition("[")[0] for part in self._seen(item.con, age)]
        none = code.argument("no_values", np.zeros((0, 0), dtype=code.dtype))
        into = code.into(item.con.post, item.con.into)
        synapses = f"begins_{number}, post_{number}, weight_{number}, {into}"
        spikes = f"{seen[0]}, {seen[1]}, {seen[2] or none}"
        code.add(3, f"deliver_lagged({spikes}, {synapses}, t, {age}, {lags})")

    def write_learning(self, item: Synapses) -> None:
        """The change of a plastic link at the end of a step.

        Args:
            item: Its synapses.
        """
        code, number, rule = self.code, self.code.plan.links.index(item.con), item.rule
        assert rule is not None
        spikes, count, value = self._seen(item.con, 0)
        targets = f"spikes_{code.number(item.con.post)}[now]"
        found = f"counts_{code.number(item.con.post)}[now]"
        held = learning_arguments(rule, item.pre, item.post, code.dtype)
        for name, array in held.items():
            code.argument(f"{name}_{number}", array)
        none = code.argument("nothing", np.zeros(0, dtype=code.dtype))
        given = ["xs", "ys", "marks", "start", "post", "weight", "in_start", "in_pre", "in_synapse"]
        names = ", ".join(f"{name}_{number}" for name in given)
        pairs = f"{spikes}, {count}, {value or none}, {targets}, {found}"
        code.add(3, f"{learning_function(code, rule)}({pairs}, {names}, t == 0)")
