"""Projections: connections between assemblies, made by policies (section 8)."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections.connection import Connection
from tenfold.spaic.network.groups import Layer
from tenfold.spaic.network.objects import BaseModule


class ConnectionPolicy:
    """Chooses which pairs of terminal groups of a projection are connected; combine with `&`."""

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs.

        Args:
            pre: The source assembly.
            post: The target assembly.
        """
        raise NotImplementedError

    def __and__(self, other: "ConnectionPolicy") -> "ConnectionPolicy":
        return _Both(self, other)


class _Both(ConnectionPolicy):
    def __init__(self, one: ConnectionPolicy, other: ConnectionPolicy) -> None:
        self.one, self.other = one, other

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        kept = {(id(a), id(b)) for a, b in self.other.pairs(pre, post)}
        return [(a, b) for a, b in self.one.pairs(pre, post) if (id(a), id(b)) in kept]


class IncludedTypePolicy(ConnectionPolicy):
    """Keeps pairs whose labels meet the given ones.

    Args:
        pre_types: Labels of sources; None for all.
        post_types: Labels of targets; None for all.
        level: Which level of the tree is looked at, counted from 1, the assembly itself; -1 for the
            terminal groups.
    """

    keep = True

    def __init__(
        self,
        pre_types: Sequence[str] | None = None,
        post_types: Sequence[str] | None = None,
        level: int = -1,
    ) -> None:
        self.pre_types, self.post_types, self.level = pre_types, post_types, level

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs.

        Args:
            pre: The source assembly.
            post: The target assembly.
        """
        found = []
        for a in _level(pre, self.level):
            for b in _level(post, self.level):
                inside = all(
                    types is None or bool(set(types) & set(part.type))
                    for types, part in ((self.pre_types, a), (self.post_types, b))
                )
                if inside == self.keep:
                    found += [(x, y) for x in a.get_groups() for y in b.get_groups()]
        return found


class ExcludedTypePolicy(IncludedTypePolicy):
    """Drops pairs whose labels meet the given ones."""

    keep = False


class IndexConnectPolicy(ConnectionPolicy):
    """Takes pairs by position.

    Args:
        pre_indexs: Positions of sources: an index among the members of the assembly, which are its
            level 2, or (level, index).
        post_indexs: Positions of targets.
    """

    def __init__(self, pre_indexs: Sequence[Any], post_indexs: Sequence[Any]) -> None:
        self.pre_indexs, self.post_indexs = pre_indexs, post_indexs

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs.

        Args:
            pre: The source assembly.
            post: The target assembly.

        Raises:
            InputError: For a position that does not exist.
        """

        def at(root: Any, position: Any) -> Any:
            level, index = position if isinstance(position, tuple) else (2, position)
            found = _level(root, level)
            if not -len(found) <= index < len(found):
                raise InputError(f"{root!r} has {len(found)} groups at level {level}, not {index}")
            return found[index]

        return [
            (x, y)
            for i in self.pre_indexs
            for j in self.post_indexs
            for x in at(pre, i).get_groups()
            for y in at(post, j).get_groups()
        ]


def _level(root: Any, level: int) -> list[Any]:
    """The parts of an assembly at one level, its own is 1; -1 for its terminal groups."""
    if level == -1:
        return list(root.get_groups())
    if level < 1:
        raise InputError(f"level={level} of {root!r}; expected >= 1, or -1 for the terminal groups")
    from tenfold.spaic.network.objects import Assembly

    at = [root]
    for _ in range(level - 1):
        at = [m for part in at for m in part.members.values() if isinstance(m, Assembly)]
    return at


class Projection(BaseModule):
    """Connections between two assemblies, made by policies when the network is built.

    Connections may also be made by hand and assigned as attributes: `projection.link = ...`.

    Args:
        pre: The source assembly.
        post: The target assembly.
        policies: A list of policies, which must all choose a pair. Without one nothing is made.
        link_type: That of the connections; full by default.
        ConnectionParameters: Further arguments of the connections.
        name: The name.
    """

    label = "prj"

    def __init__(
        self,
        pre: Any,
        post: Any,
        policies: Sequence[ConnectionPolicy] | ConnectionPolicy = (),
        link_type: str | None = None,
        ConnectionParameters: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        object.__setattr__(self, "members", {})
        super().__init__(name)
        self.pre, self.post = pre, post
        self.policies = [policies] if isinstance(policies, ConnectionPolicy) else list(policies)
        self.link_type = link_type or "full"
        self.ConnectionParameters = dict(ConnectionParameters or {})
        self._made: dict[tuple[int, int], Connection] = {}

    members: dict[str, BaseModule]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Connection):
            self.add(name, value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("members", {})
        if name in members:
            return members[name]
        raise AttributeError(name)

    def add(self, name: str, con: BaseModule) -> None:
        """Registers a connection that was made by hand.

        Args:
            name: Its name.
            con: The connection.
        """
        self.members[name] = con
        if con.owner is None:
            con.owner, con.name = self, con.name or name
        self._edited()

    def _edited(self) -> None:
        if self.owner is not None:
            self.owner._edited()

    def _remove(self, con: BaseModule) -> None:
        self.members = {key: item for key, item in self.members.items() if item is not con}
        con.owner = None
        self._edited()

    def expand(self) -> list[Connection]:
        """Makes the connections that the policies choose, named `auto_con<k>`; once each."""
        chosen: list[tuple[Layer, Layer]] = []
        for number, policy in enumerate(self.policies):
            found = policy.pairs(self.pre, self.post)
            kept = {(id(a), id(b)) for a, b in found}
            chosen = found if number == 0 else [p for p in chosen if (id(p[0]), id(p[1])) in kept]
        made = []
        for a, b in chosen:
            key = (id(a), id(b))
            if key not in self._made:
                con = Connection(a, b, link_type=self.link_type, **self.ConnectionParameters)
                con.owner, con.name = self.owner, f"{self.name}_auto_con{len(self._made)}"
                self._made[key] = con
            made.append(self._made[key])
        return made
