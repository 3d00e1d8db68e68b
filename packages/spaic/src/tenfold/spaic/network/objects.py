"""Names, membership and containers: what all parts of a network have in common (section 2)."""

import copy
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

from tenfold.shared.errors import InputError

_OPEN: ContextVar[tuple["Assembly", ...]] = ContextVar("open", default=())


def untagged(variable: str) -> str:
    """Gives the name of a variable without the tag that scripts of the official front end write.

    Args:
        variable: The name, perhaps with `[updated]`; what is read is always that of this step.
    """
    return variable.replace("[updated]", "")


OfRun = dict[str, Callable[[], Any]]
"""Attribute → what makes its value before a run."""


def nothing() -> None:
    """What an attribute is before a run that fills it."""


class BaseModule:
    """A named part of a network. Names are given by the attribute or variable that holds it.

    Args:
        name: The name; otherwise that of the attribute or variable.
    """

    label: ClassVar[str] = "mod"
    of_run: ClassVar[OfRun] = {}
    """What a run leaves in an attribute → how that is before one: copies begin there."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.owner: Any = None  # the assembly or projection it belongs to
        if _OPEN.get():
            _OPEN.get()[-1]._pending.append(self)

    @property
    def id(self) -> str:
        """The identifier `<owner's id>_<name><label>`; saved weights are keyed by it."""
        own = f"{self.name}<{self.label}>"
        return f"{self.owner.id}_{own}" if self.owner is not None else own

    def __deepcopy__(self, memo: dict[int, Any]) -> "BaseModule":
        made = memo[id(self)] = type(self).__new__(type(self))
        fresh = {key: make() for key, make in self.of_run.items() if key in self.__dict__}
        made.__dict__.update(copy.deepcopy(self.__dict__ | fresh, memo))
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name or '(unnamed)'!s}"

    def __str__(self) -> str:
        return self.name or f"unnamed {type(self).__name__}"


_REFERENCES = (
    "pre",
    "post",
    "dec_target",
    "target",
    "reward",
    "input_targets",
    "output_targets",
    "trainable",
    "pathway",
)
"""The attributes by which a part refers to others."""


class Assembly(BaseModule):
    """A container of groups, nodes, connections, projections and other assemblies.

    Assigning an attribute registers a part under that name; so does creating it in a
    `with assembly:` block, under the name of the variable that holds it.

    Args:
        name: The name; otherwise that of the attribute or variable.
        type: Labels that connection policies look at.
    """

    label = "asb"

    def __init__(self, name: str | None = None, type: str | Iterable[str] = ()) -> None:
        object.__setattr__(self, "members", {})
        self._pending: list[BaseModule] = []
        self.type = [type] if isinstance(type, str) else list(type)
        self._hidden = False
        self._supers: list[Assembly] = []
        super().__init__(name)

    # ------------------------------------------------------------------------------- membership

    members: dict[str, BaseModule]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, BaseModule) and not name.startswith("_") and name != "owner":
            self.add(name, value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("members", {})
        if name in members:
            return members[name]
        if name.startswith("_") or "name" not in self.__dict__:  # a copy that is being made
            raise AttributeError(name)
        raise AttributeError(f"{self} has no part {name!r}; parts: {', '.join(members) or 'none'}")

    def __delattr__(self, name: str) -> None:
        if name in self.members:
            self._remove(self.members[name])
        else:
            object.__delattr__(self, name)

    def add(self, name: str, part: BaseModule) -> None:
        """Registers a part; one that has the name is replaced.

        Args:
            name: The name.
            part: The part.

        Raises:
            InputError: If the name is that of an attribute or method, which would hide the part.
        """
        if name in self.__dict__ or hasattr(type(self), name):
            kind = type(self).__name__
            raise InputError(
                f"{self}: {part!r} cannot be called {name!r}, an attribute of each {kind}; "
                "give it another name"
            )
        self.members[name] = part
        if isinstance(part, Assembly) and self not in part._supers:
            part._supers.append(self)
        if part.owner is None:
            part.owner = self
            part.name = part.name or name
        self._edited()

    def _edited(self) -> None:
        """Tells the networks that this belongs to that they have to be built anew."""
        for above in {id(a): a for a in (self.owner, *self._supers) if a is not None}.values():
            above._edited()

    def __enter__(self) -> "Assembly":
        _OPEN.set((*_OPEN.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        _OPEN.set(_OPEN.get()[:-1])
        frame = sys._getframe(1)  # the caller's variables name the parts
        found = {id(value): name for name, value in frame.f_locals.items()}
        for part in self._pending:
            if part.owner is None and part is not self:
                self.add(part.name or found.get(id(part)) or self._free("autoname"), part)
        self._pending.clear()

    def _free(self, stem: str) -> str:
        """The first name `<stem><k>` that no member has: the same whenever the network is made."""
        return next(f"{stem}{k}" for k in itertools.count(1) if f"{stem}{k}" not in self.members)

    def add_assembly(self, name: str, asb: "Assembly") -> None:
        """Registers an assembly or a group.

        Args:
            name: The name.
            asb: The assembly.
        """
        self.add(name, asb)

    def add_connection(self, name: str, con: BaseModule) -> None:
        """Registers a connection.

        Args:
            name: The name.
            con: The connection.
        """
        self.add(name, con)

    def add_projection(self, name: str, prj: BaseModule) -> None:
        """Registers a projection.

        Args:
            name: The name.
            prj: The projection.
        """
        self.add(name, prj)

    def _remove(self, part: BaseModule) -> None:
        for name, member in list(self.members.items()):
            if member is part:
                del self.members[name]
        if part.owner is self:
            part.owner = None
        if isinstance(part, Assembly) and self in part._supers:
            part._supers.remove(self)
        self._edited()

    def del_assembly(self, asb: "Assembly | None" = None, name: str | None = None) -> None:
        """Takes a member out, together with the connections that touch it.

        Args:
            asb: The member.
            name: Its name, instead.

        Raises:
            InputError: If it is not a member.
        """
        part = asb if asb is not None else self.members.get(name or "")
        if not isinstance(part, Assembly):
            raise InputError(
                f"{self} has no assembly {name or asb}; parts: {', '.join(self.members)}"
            )
        inside = set(map(id, part.walk(hidden=True)))
        self._remove(part)
        top = self.top
        for link in [*top.walk(hidden=True)]:  # connections and projections
            ends = getattr(link, "pre", None), getattr(link, "post", None)
            if id(link) not in inside and any(id(end) in inside for end in ends):
                (link.owner or top)._remove(link)

    def del_connection(self, con: BaseModule | None = None, name: str | None = None) -> None:
        """Takes a connection out.

        Args:
            con: The connection.
            name: Its name, instead.

        Raises:
            InputError: If there is none.
        """
        part = con if con is not None else self.members.get(name or "")
        if part is None:
            raise InputError(f"{self} has no connection {name}; parts: {', '.join(self.members)}")
        self._remove(part)

    @property
    def num(self) -> int:
        """How many neurons and channels the groups and nodes inside have together."""
        return sum(group.num for group in self.get_groups())

    @property
    def top(self) -> "Assembly":
        """The outermost assembly that owns this one."""
        found = self
        while found.owner is not None:
            found = found.owner
        return found

    # -------------------------------------------------------------------------------- traversal

    def walk(self, hidden: bool = False) -> Iterator[BaseModule]:
        """Goes through this assembly and all its parts, once each, in order.

        Args:
            hidden: Whether hidden assemblies are visited too.
        """
        seen: set[int] = set()
        stack: list[BaseModule] = [self]
        while stack:
            part = stack.pop()
            if id(part) in seen or (getattr(part, "_hidden", False) and not hidden):
                continue
            seen.add(id(part))
            yield part
            stack.extend(reversed(list(getattr(part, "members", {}).values())))

    def __contains__(self, part: object) -> bool:
        return any(part is found for found in self.walk())

    def get_groups(self, recursive: bool = True) -> list[Any]:
        """Lists the neuron groups and nodes.

        Args:
            recursive: Whether to look into assemblies.
        """
        from tenfold.spaic.network.groups import Layer

        parts = self.walk() if recursive else self.members.values()
        return [part for part in parts if isinstance(part, Layer)]

    def get_leveled_groups(self) -> list[list[Any]]:
        """Lists the groups and nodes by their depth in the tree of assemblies."""
        levels: list[list[Any]] = []
        at: list[BaseModule] = [self]
        while at:
            below = [m for part in at if isinstance(part, Assembly) for m in part.members.values()]
            found = [part for part in below if part in self.get_groups()]
            levels.append(found)
            at = below
        return [level for level in levels if level]

    def get_assemblies(self) -> list["Assembly"]:
        """Lists the assemblies inside, groups and nodes left out."""
        groups = set(map(id, self.get_groups()))
        found = (part for part in self.walk() if isinstance(part, Assembly) and part is not self)
        return [part for part in found if id(part) not in groups]

    def get_connections(self, recursive: bool = True) -> list[Any]:
        """Lists the connections.

        Args:
            recursive: Whether to look into assemblies and projections.
        """
        from tenfold.spaic.network.connections import Connection, Projection

        parts = list(self.walk()) if recursive else list(self.members.values())
        made = [con for part in parts if isinstance(part, Projection) for con in part.expand()]
        return [part for part in parts if isinstance(part, Connection)] + made

    # ---------------------------------------------------------------------------------- editing

    def assembly_hide(self) -> None:
        """Takes the assembly out of the simulation, with the connections that touch it."""
        self._hidden = True
        self._edited()

    def assembly_show(self) -> None:
        """Puts a hidden assembly back; in a run that continues it begins with its first values."""
        self._hidden = False
        self._edited()

    def structure_copy(self, name: str | None = None) -> "Assembly":
        """Copies the structure: the parts, and the connections among them.

        Args:
            name: The copy's name.
        """
        parts = list(self.walk(hidden=True))
        inside = set(map(id, parts))
        above = [up for part in parts for up in (part.owner, *getattr(part, "_supers", ()))]
        outside = [
            con
            for con in self.get_connections()
            if id(con.pre) not in inside or id(con.post) not in inside
        ]
        # What lies outside is not copied: in the copy there is nothing in its place.
        left_out = [part for part in (*above, *outside) if part is not None]
        memo = {id(part): None for part in left_out if id(part) not in inside or part in outside}
        made = copy.deepcopy(self, memo)
        made.__dict__["_supers"] = []
        for part in list(made.walk(hidden=True)):
            if isinstance(part, Assembly):
                part.__dict__["members"] = {k: v for k, v in part.members.items() if v is not None}
                part.__dict__["_supers"] = [up for up in part._supers if up is not None]
        made.owner, made.name = None, name
        return made

    def copy_assembly(self, name: str, asb: "Assembly") -> "Assembly":
        """Adds a structural copy of an assembly.

        Args:
            name: The copy's name.
            asb: What is copied.
        """
        made = asb.structure_copy()
        self.add(name, made)
        return made

    def replace_assembly(self, old: "Assembly", new: "Assembly") -> None:
        """Puts another assembly in the place of one.

        Connections, projections, nodes, modules, monitors and learners that refer to the old one,
        or to a part of it, refer to the new one, or to its part of the same name, from then on.
        Weights are drawn anew where the number of neurons differs.

        Args:
            old: A member.
            new: What takes its place.

        Raises:
            InputError: If the old one is not a member, or the new one lacks a part that is
                referred to.
        """
        names = [name for name, part in self.members.items() if part is old]
        if not names:
            raise InputError(f"{self} has no part {old}; parts: {', '.join(self.members)}")
        inside = {id(part): part for part in old.walk(hidden=True)}
        places = {id(old): new} | {
            id(part): _same_place(part, old, new) for part in inside.values() if part is not old
        }
        outer = [part for part in self.top.walk(hidden=True) if id(part) not in inside]

        def moved(part: Any, user: Any) -> Any:
            if id(part) not in places:
                return part
            if places[id(part)] is None:
                raise InputError(f"{user!r} refers to {part!r}, which {new!r} does not have")
            return places[id(part)]

        changes: list[tuple[BaseModule, str, Any]] = []
        for part in outer:  # all are looked at before one is changed
            for key in _REFERENCES:
                found = part.__dict__.get(key)
                if isinstance(found, list):
                    changes.append((part, key, [moved(item, part) for item in found]))
                elif id(found) in places:
                    changes.append((part, key, moved(found, part)))
        for part, key, value in changes:
            before = part.__dict__[key]
            object.__setattr__(part, key, value)
            if hasattr(part, "forget") and value.shape != before.shape:
                part.forget()
        self._remove(old)
        new.name = new.name or names[0]
        self.add(names[0], new)

    def merge_assembly(self, asb: "Assembly") -> None:
        """Takes over the members of another assembly that are not here yet.

        A member whose name is taken gets a free one.

        Args:
            asb: The other assembly.
        """
        for name, part in asb.members.items():
            if not any(part is mine for mine in self.members.values()):
                part.owner, part.name = self, name if name not in self.members else self._free(name)
                self.add(part.name, part)

    def select_assembly(
        self, members: list[Any], name: str | None = None, with_connection: bool = True
    ) -> "Assembly":
        """Makes an assembly of some members; this one stays as it is.

        Args:
            members: Groups, nodes or assemblies of this one.
            name: The new assembly's name.
            with_connection: Whether connections among the members come along.

        Raises:
            InputError: If a member is not a part of this assembly.
        """
        made = Assembly(name)
        for part in members:
            if part not in self:
                raise InputError(f"{part} is not a part of {self}")
            made._take(part)
        inside = {id(found) for part in members for found in part.walk()}
        for con in self.get_connections() if with_connection else []:
            if id(con.pre) in inside and id(con.post) in inside:
                made._take(con)
        return made

    def _take(self, part: Any) -> None:
        """Adds a part under its name, or a free one."""
        self.add(part.name if part.name not in self.members else self._free(part.name), part)

    # ------------------------------------------------------------------------------------- modes

    training = True

    def train(self, mode: bool = True) -> "Assembly":
        """Sets the training mode of all parts (dropout, batch normalisation, modules).

        Args:
            mode: True for training, False for evaluation.
        """
        for part in self.walk():
            object.__setattr__(part, "training", mode)
            for module in getattr(part, "modules", {}).values():
                module.train(mode)
        for con in self.get_connections():
            con.training = mode
            for module in con.modules.values():
                module.train(mode)
        return self

    def eval(self) -> "Assembly":
        """Sets the evaluation mode."""
        return self.train(False)


def rests(part: Any) -> bool:
    """Whether a part, or an assembly that holds it, is hidden.

    Args:
        part: The part.
    """
    above = [*getattr(part, "_supers", ()), getattr(part, "owner", None)]
    return getattr(part, "_hidden", False) or any(rests(a) for a in above if a is not None)


def _same_place(part: BaseModule, old: Assembly, new: Assembly) -> BaseModule | None:
    """The part of an assembly that has the place (the names on the way) that one has in another."""
    way: list[str] = []
    at: BaseModule | None = part
    while at is not None and at is not old:
        way, at = [str(at.name), *way], at.owner
    found: Any = new
    for name in way if at is old else [""]:
        found = found.members.get(name) if isinstance(found, Assembly) else None
    made: BaseModule | None = found
    return made
