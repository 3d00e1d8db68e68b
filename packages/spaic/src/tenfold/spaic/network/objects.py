"""Names, membership and containers: what all parts of a network have in common (section 2)."""

import copy
import itertools
import sys
from collections.abc import Iterable, Iterator
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


class BaseModule:
    """A named part of a network. Names are given by the attribute or variable that holds it.

    Args:
        name: The name; otherwise that of the attribute or variable.
    """

    label: ClassVar[str] = "mod"

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.owner: Assembly | None = None
        if _OPEN.get():
            _OPEN.get()[-1]._pending.append(self)

    @property
    def id(self) -> str:
        """The identifier `<owner's id>_<name><label>`; saved weights are keyed by it."""
        own = f"{self.name}<{self.label}>"
        return f"{self.owner.id}_{own}" if self.owner is not None else own

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name or '(unnamed)'!s}"

    def __str__(self) -> str:
        return self.name or f"unnamed {type(self).__name__}"


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
        inside = set(map(id, part.walk()))
        self._remove(part)
        top = self.top
        for con in top.get_connections():
            if id(con.pre) in inside or id(con.post) in inside:
                (con.owner or top)._remove(con)

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
    def top(self) -> "Assembly":
        """The outermost assembly that owns this one."""
        found = self
        while found.owner is not None:
            found = found.owner
        return found

    # -------------------------------------------------------------------------------- traversal

    def walk(self) -> Iterator[BaseModule]:
        """Goes through this assembly and all its visible parts, once each, in order."""
        seen: set[int] = set()
        stack: list[BaseModule] = [self]
        while stack:
            part = stack.pop()
            if id(part) in seen or getattr(part, "_hidden", False):
                continue
            seen.add(id(part))
            yield part
            if isinstance(part, Assembly):
                stack.extend(reversed(list(part.members.values())))

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

    def assembly_show(self) -> None:
        """Puts a hidden assembly back."""
        self._hidden = False

    def structure_copy(self, name: str | None = None) -> "Assembly":
        """Copies the structure: the parts, and the connections among them.

        Args:
            name: The copy's name.
        """
        inside = set(map(id, self.walk()))
        memo: dict[int, Any] = {id(self.owner): None} if self.owner is not None else {}
        memo |= {id(up): up for up in self._supers}
        outside = [
            con
            for con in self.get_connections()
            if id(con.pre) not in inside or id(con.post) not in inside
        ]
        memo |= {id(con): None for con in outside}
        made = copy.deepcopy(self, memo)
        for part in list(made.walk()):
            if isinstance(part, Assembly):
                part.__dict__["members"] = {k: v for k, v in part.members.items() if v is not None}
        made.owner, made._supers, made.name = None, [], name
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
        """Puts another assembly in the place of one; its connections are rewired.

        Args:
            old: A member.
            new: What takes its place.

        Raises:
            InputError: If the old one is not a member.
        """
        names = [name for name, part in self.members.items() if part is old]
        if not names:
            raise InputError(f"{self} has no part {old}; parts: {', '.join(self.members)}")
        for con in self.top.get_connections():
            if con.pre is old:
                con.pre = new
            if con.post is old:
                con.post = new
        self._remove(old)
        new.name = new.name or names[0]
        self.add(names[0], new)

    def merge_assembly(self, asb: "Assembly") -> None:
        """Takes over the members of another assembly that are not here yet.

        Args:
            asb: The other assembly.
        """
        for name, part in asb.members.items():
            if not any(part is mine for mine in self.members.values()):
                self.add(name if name not in self.members else self._free(name), part)

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
            made.members[part.name] = part
        inside = {id(found) for part in members for found in part.walk()}
        for con in self.get_connections() if with_connection else []:
            if id(con.pre) in inside and id(con.post) in inside:
                made.members[con.name] = con
        return made

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
