"""RELIANT itself: learnable proxies of bias around any student and any framework.

Each node has a proxy, a row of B [N, 2]; ``b`` is the mean row. Each step:

1. the student sees every node with ``b`` (wiped) and is trained to learn from the teacher and to be
   unbiased: ``L_KD + alpha J``;
2. the student sees every node with its own proxy (full), and only the proxies are trained, to make
   the answer as biased as they can: ``- alpha J``.

What is left of the bias in the student's weights is thereby moved into the proxies, and the answer
that is used in the end is the wiped one, which needs nobody's sensitive attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax
from torch_geometric.data import Data

from tenfold.reliant.data.graph import check_graph
from tenfold.reliant.frameworks import CPF, Framework, GraphAKD, SoftLabels, View
from tenfold.reliant.objective import Groups, Notion, Surrogate, bias
from tenfold.shared.errors import InputError

Proxies = Literal["learned", "fixed", "none"]
Attach = Literal["append", "overwrite"]
Nodes = Literal["train", "unlabelled", "all"]

WIDTH = 2  # of a proxy


class Reliant(nn.Module):
    """A student that is distilled from a teacher and made fair.

    Args:
        student: any ``nn.Module`` called as ``student(x, edge_index)`` that gives logits [N, C].
            Its input is two columns wider than ``data.x`` if proxies are appended.
        teacher_logits: float [N, C], logits (or log-probabilities) of the teacher.
        sensitive: int64 [N], 0 or 1. Nothing of it is read outside of ``fairness_nodes``.
        teacher: instead of ``teacher_logits``, a module that gives them; needs ``data``.
        data: the graph of ``teacher``.
        teacher_embedding: float [N, h], for GraphAKD.
        notion: ``sp`` (statistical parity), ``eo`` (equal opportunity), ``eodds``.
        framework: by default :class:`~tenfold.reliant.frameworks.CPF` for PLP, else
            :class:`~tenfold.reliant.frameworks.SoftLabels`.
        alpha: weight of J; by default 1000 for PLP and 10 else.
        proxies: ``learned``; ``fixed``, the columns s and 1 - s; ``none``, plain distillation with
            the same bias term (``alpha=0`` is distillation alone).
        attach: ``append`` keeps all attributes; ``overwrite`` puts the proxies into the place of
            the last two, as the official code does with CPF.
        fairness_nodes: the nodes whose sensitive attribute (and, for ``eo``, label) the student's
            step may read: ``train``; ``unlabelled``, those that are not for training; ``all``.
        proxy_nodes: the same for the proxies' step; by default ``fairness_nodes``.
        surrogate: of the step in J.
        hide: with PLP and ``fairness_nodes="train"``, the share of the training nodes that is not
            clamped in a step, a new one each step: a clamped node's answer is its label, and
            nothing about bias could be learned from it.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher_logits: Tensor | None = None,
        *,
        sensitive: Tensor,
        teacher: nn.Module | None = None,
        data: Data | None = None,
        teacher_embedding: Tensor | None = None,
        notion: Notion = "sp",
        framework: Framework | None = None,
        alpha: float | None = None,
        proxies: Proxies = "learned",
        attach: Attach = "append",
        fairness_nodes: Nodes = "train",
        proxy_nodes: Nodes | None = None,
        surrogate: Surrogate = "official",
        hide: float = 0.8,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("proxies", proxies, ("learned", "fixed", "none")),
            ("attach", attach, ("append", "overwrite")),
            ("fairness_nodes", fairness_nodes, ("train", "unlabelled", "all")),
            ("proxy_nodes", proxy_nodes, ("train", "unlabelled", "all", None)),
        ):
            if value not in known:
                raise InputError(f"{name}={value!r}; expected one of {known}")
        if not 0 < hide < 1:
            raise InputError(f"hide={hide}; expected a share between 0 and 1")
        if (teacher_logits is None) == (teacher is None):
            raise InputError("give either teacher_logits or teacher")
        if teacher is not None:
            if data is None:
                raise InputError("teacher needs data, the graph to ask it about")
            teacher_logits, teacher_embedding = ask(teacher, data)
        _float_rows("teacher_logits", teacher_logits)
        if teacher_embedding is not None:
            _float_rows("teacher_embedding", teacher_embedding)
        assert teacher_logits is not None
        if (
            not isinstance(sensitive, Tensor)
            or sensitive.ndim != 1
            or sensitive.is_floating_point()
        ):
            kind = getattr(sensitive, "dtype", type(sensitive).__name__)
            raise InputError(
                f"sensitive: {kind} {list(getattr(sensitive, 'shape', ()))}; expected an int64 "
                "tensor [N] of 0 and 1"
            )
        nodes = len(sensitive)
        for name, values in (
            ("teacher_logits", teacher_logits),
            ("teacher_embedding", teacher_embedding),
        ):
            if values is not None and len(values) != nodes:
                raise InputError(
                    f"{name}: shape {list(values.shape)}; expected {nodes} rows, one for each "
                    "entry of sensitive"
                )
        self.student = student
        clamps = hasattr(student, "labelled")
        self.framework: Framework = framework or (CPF() if clamps else SoftLabels())
        self.alpha = alpha if alpha is not None else (1000.0 if clamps else 10.0)
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"alpha={alpha}; expected a finite number of at least 0")
        self.notion: Notion = notion
        self.kind, self.attach, self.surrogate = proxies, attach, surrogate
        self.fairness_nodes: Nodes = fairness_nodes
        self.proxy_nodes: Nodes = proxy_nodes or fairness_nodes
        self.hide = hide
        start = torch.rand(nodes, WIDTH, device=sensitive.device)
        if proxies == "fixed":
            start = torch.stack([sensitive, 1 - sensitive], 1).to(start)
        if proxies == "none":
            start = torch.zeros_like(start)
        self.proxies = nn.Parameter(start, requires_grad=proxies == "learned")
        self.sensitive: Tensor
        self.teacher: Tensor
        self.register_buffer("sensitive", sensitive, persistent=False)
        self.register_buffer("teacher", log_softmax(teacher_logits, 1).detach(), persistent=False)
        self.register_buffer("embedding", teacher_embedding, persistent=False)

    # The two inputs ------------------------------------------------------------------------------

    def mean_proxy(self) -> Tensor:
        """b, the mean of all proxies, float [2]; it is all that is deployed."""
        return self.proxies.detach().mean(0)

    def wiped(self, x: Tensor) -> Tensor:
        """``[X, 1 b]``, float [N, d + 2] (``overwrite``: [N, d]).

        Args:
            x: float [N, d].
        """
        return attached(x, self.mean_proxy().expand(len(x), WIDTH), self.attach)

    def full(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """``[X, B]``, float [N, d + 2] (``overwrite``: [N, d]).

        Args:
            x: float [N, d].
            ids: int64 [N], which nodes these are; by default all.
        """
        own = self.proxies if ids is None else self.proxies[ids]
        return attached(x, own, self.attach)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits [N, C] of the wiped input, as they are deployed."""
        logits: Tensor = _asked(self.student, self.wiped(x), edge_index)
        return logits

    @torch.no_grad()
    def predict_proba(self, data: Data) -> Tensor:
        """Class probabilities of all nodes, float [N, C], without any sensitive attribute.

        Args:
            data: the graph.
        """
        self.student.eval()
        return softmax(self(data.x, data.edge_index), 1)

    # Training ------------------------------------------------------------------------------------

    def view(self, data: Data) -> View:
        """Prepares a graph for steps; what does not change is computed here once.

        Args:
            data: a checked graph.

        Raises:
            InputError: if the graph has another number of nodes than the teacher's answers, or
                lacks one of the two groups among the nodes that the bias is measured on.
        """
        if data.num_nodes != len(self.sensitive):
            raise InputError(
                f"data has {data.num_nodes} nodes; teacher and sensitive have {len(self.sensitive)}"
            )
        made = View(
            data.x,
            data.edge_index,
            data.y,
            self.sensitive,
            data.train_mask,
            ~data.train_mask,
            self.teacher,
            self.embedding,  # type: ignore[arg-type]
        )
        for where in (self.fairness_nodes, self.proxy_nodes):  # no groups: refused before a step
            self._groups(made, where, made.labelled)
        student: Any = self.student
        if hasattr(student, "from_aggregated") and self.attach == "append":
            made.aggregated = student.aggregate(data.x, data.edge_index)
        return made

    def batch_view(self, batch: Data) -> View:
        """Prepares one batch of a PyG loader.

        Args:
            batch: with ``n_id`` (numbers of its nodes) and, as from ``NeighborLoader``,
                ``batch_size``, the number of leading nodes that the step is about.
        """
        if hasattr(self.student, "labelled"):
            raise InputError("PLP holds the whole graph; take another student for batches")
        ids = getattr(batch, "n_id", None)
        if ids is None:
            raise InputError("the batch has no n_id; expected numbers of its nodes")
        roots = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        roots[: int(getattr(batch, "batch_size", None) or len(ids))] = True
        embedding = None if self.embedding is None else self.embedding[ids]  # type: ignore[index]
        return View(
            batch.x,
            batch.edge_index,
            batch.y,
            self.sensitive[ids],
            batch.train_mask & roots,
            ~batch.train_mask & roots,
            self.teacher[ids],
            embedding,
            ids,
        )

    def step(self, view: View, optimizers: Optimizers) -> dict[str, float]:
        """One step of the student, then one of the proxies.

        Args:
            view: from :meth:`view` or :meth:`batch_view`.
            optimizers: from :class:`Optimizers`.

        Returns:
            ``loss`` (of distillation), ``bias`` (J of the wiped input), ``proxy_bias`` (J of the
            full input), ``discriminators`` (GraphAKD).
        """
        self.student.train()
        found: dict[str, float] = {}
        whole = view
        view, readable = self._hidden(view)
        mean = self.mean_proxy().expand(len(view.x), WIDTH)
        logits, embedding = self._run(view, mean)
        if logits.shape != view.teacher.shape:
            raise InputError(
                f"student: its answers are {list(logits.shape)}; the teacher's are "
                f"{list(view.teacher.shape)}: expected a logit for each node and class"
            )
        if isinstance(self.framework, GraphAKD):
            found["discriminators"] = float(self.framework.before(logits, embedding, view))
        loss = self.framework.loss(logits, embedding, view, self.student)
        found["loss"] = float(loss.detach())
        unfair = self._bias(logits, whole, self.fairness_nodes, readable)
        if unfair is not None:
            found["bias"] = float(unfair.detach())
            if self.alpha > 0:
                loss = loss + self.alpha * unfair
        optimizers.student.zero_grad()
        loss.backward()
        optimizers.student.step()
        if self.kind == "learned" and self.alpha > 0:
            own = self.proxies if view.ids is None else self.proxies[view.ids]
            logits, _ = self._run(view, own)
            biased = self._bias(logits, whole, self.proxy_nodes, readable)
            if biased is not None:
                found["proxy_bias"] = float(biased.detach())
                optimizers.proxies.zero_grad()
                # Only the proxies: the student's weights get no gradient of this step.
                (-self.alpha * biased).backward(inputs=[self.proxies])
                optimizers.proxies.step()
        self._shown()
        return found

    def fit(
        self,
        data: Data,
        epochs: int = 250,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        loader: Iterable[Data] | None = None,
        on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    ) -> Reliant:
        """Trains for a number of epochs and keeps the last one.

        No label outside of the training nodes is read, and no sensitive attribute outside of
        ``fairness_nodes``. :class:`~tenfold.reliant.training.Distillation` is the same with
        checkpoints and with a choice of the epoch.

        Args:
            data: a graph with ``x``, ``edge_index``, ``y``, ``sensitive`` and the three masks.
            epochs: passes.
            lr: Adam's, of student and proxies.
            weight_decay: of both.
            loader: batches with ``n_id`` (PyG's loaders, or
                :func:`tenfold.reliant.sampling.neighbour_batches`); by default full passes.
            on_epoch: called after each epoch with its number and the means of :meth:`step`.
        """
        if epochs < 1:
            raise InputError(f"epochs={epochs}; expected at least 1")
        data = check_graph(data)
        optimizers = Optimizers(self, lr, weight_decay)
        whole = self.view(data) if loader is None else None
        for epoch in range(epochs):
            found = (
                self.step(whole, optimizers)
                if whole is not None
                else self.pass_over(loader or (), optimizers)
            )
            if on_epoch is not None:
                on_epoch(epoch, found)
        return self

    def pass_over(self, loader: Iterable[Data], optimizers: Optimizers) -> dict[str, float]:
        """One pass over batches; gives the means of :meth:`step`."""
        rows = [self.step(self.batch_view(batch), optimizers) for batch in loader]
        if not rows:
            raise InputError("the loader has no batches")
        keys = {key for row in rows for key in row}
        means = {}
        for key in sorted(keys):
            values = [row[key] for row in rows if key in row]
            means[key] = sum(values) / len(values)
        return means

    # Deployment ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes the student and its frozen mean proxy as safetensors.

        Args:
            path: the file.
        """
        from safetensors.torch import save_file

        from tenfold.shared.files import replacing

        plain = {
            f"student.{k}": v.clone(memory_format=torch.contiguous_format)
            for k, v in self.student.state_dict().items()
        }
        with replacing(Path(path)) as temporary:
            save_file(plain | {"mean_proxy": self.mean_proxy()}, temporary, {"attach": self.attach})

    def _run(self, view: View, proxies: Tensor) -> tuple[Tensor, Tensor | None]:
        """One forward pass; the part of the attributes is reused where the student allows it."""
        student: Any = self.student
        if view.aggregated is not None:
            h = torch.cat([view.aggregated, student.aggregate(proxies, view.edge_index)], 1)
            if self.framework.needs_embedding and hasattr(student, "embed_aggregated"):
                return _asked(student, h, view.edge_index, "embed_aggregated")
            if not self.framework.needs_embedding:
                return _asked(student, h, view.edge_index, "from_aggregated"), None
        x = attached(view.x, proxies, self.attach)
        if self.framework.needs_embedding:
            if not hasattr(student, "embed"):
                raise InputError(
                    "GraphAKD compares embeddings: the student needs a method embed(x, edge_index) "
                    "that gives logits and embedding"
                )
            return _asked(student, x, view.edge_index, "embed")
        return _asked(student, x, view.edge_index), None

    def _hidden(self, view: View) -> tuple[View, Tensor]:
        """For PLP: hides some training nodes and gives those; the others answer their label."""
        student: Any = self.student
        if not hasattr(student, "labelled"):
            return view, view.labelled
        if "train" not in (self.fairness_nodes, self.proxy_nodes):
            return view, view.labelled
        draw = torch.rand(len(view.x), device=view.x.device) < self.hide
        hidden = view.labelled & draw
        student.labelled = view.labelled & ~hidden
        shown = View(**vars(view))
        shown.labelled, shown.unlabelled = student.labelled, view.unlabelled | hidden
        return shown, hidden

    def _shown(self) -> None:
        """Clamps all training nodes again."""
        student: Any = self.student
        if hasattr(student, "labelled"):
            student.labelled = student.train_labels

    def _bias(self, logits: Tensor, view: View, where: Nodes, readable: Tensor) -> Tensor | None:
        """J of one forward pass; None in a batch that lacks a group."""
        groups = self._groups(view, where, readable)
        return None if groups is None else bias(softmax(logits, 1), groups, self.surrogate)

    def _groups(self, view: View, where: Nodes, readable: Tensor) -> Groups | None:
        """The groups that a bias is measured on, kept with the view if they stay the same."""
        clamps = hasattr(self.student, "labelled")
        if where == "train":
            nodes = readable
        elif where == "unlabelled":
            nodes = view.unlabelled
        else:
            nodes = view.labelled | view.unlabelled
        fixed = view.ids is None and not (clamps and where == "train")
        if fixed and where in view.groups:
            return view.groups[where]
        try:
            groups = Groups.of(view.sensitive, nodes, self.notion, view.y)
        except InputError:
            if view.ids is None:
                raise
            return None
        if fixed:
            view.groups[where] = groups
        return groups


class Optimizers:
    """Adam of the student and Adam of the proxies.

    Args:
        model: whose.
        lr: of the student.
        weight_decay: of both.
        proxy_lr: of the proxies; by default that of the student.
    """

    def __init__(
        self, model: Reliant, lr: float, weight_decay: float, proxy_lr: float | None = None
    ) -> None:
        if not 0 < lr < float("inf") or not 0 <= weight_decay < float("inf"):
            raise InputError(f"lr={lr}, weight_decay={weight_decay}; expected > 0 and >= 0")
        adam, decay = torch.optim.Adam, weight_decay
        self.student = adam(model.student.parameters(), lr=lr, weight_decay=decay)
        self.proxies = adam([model.proxies], lr=proxy_lr or lr, weight_decay=decay)


class Deployed(nn.Module):
    """A student with its frozen mean proxy: what runs where nobody's group is known.

    Args:
        student: a module of the architecture that was trained.
        mean_proxy: float [2].
        attach: as in :class:`Reliant`.
    """

    def __init__(self, student: nn.Module, mean_proxy: Tensor, attach: Attach = "append") -> None:
        super().__init__()
        self.student, self.attach = student, attach
        self.mean_proxy: Tensor
        self.register_buffer("mean_proxy", mean_proxy)

    @classmethod
    def load(cls, path: Path, student: nn.Module) -> Deployed:
        """Reads what :meth:`Reliant.save` wrote.

        Args:
            path: the file.
            student: a module of the same architecture; its weights are replaced.

        Raises:
            InputError: if the file is not one of these, or does not fit the student.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                attach = (file.metadata() or {}).get("attach", "append")
            mean = tensors.pop("mean_proxy")
            student.load_state_dict({k.removeprefix("student."): v for k, v in tensors.items()})
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(f"{path}: not a student of this architecture: {error}") from error
        return cls(student, mean, attach).eval()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits [N, C] of attributes [N, d]; the nodes need not be those of the training."""
        proxies = self.mean_proxy.expand(len(x), WIDTH)
        logits: Tensor = _asked(self.student, attached(x, proxies, self.attach), edge_index)
        return logits


def attached(x: Tensor, proxies: Tensor, attach: Attach) -> Tensor:
    """Attributes and proxies side by side.

    Args:
        x: float [N, d].
        proxies: float [N, 2].
        attach: ``append``, or ``overwrite`` the last two attributes.
    """
    if attach == "overwrite":
        if x.shape[1] <= WIDTH:
            raise InputError(f"x has {x.shape[1]} columns; attach='overwrite' needs more than 2")
        x = x[:, :-WIDTH]
    return torch.cat([x, proxies], 1)


@torch.no_grad()
def ask(teacher: nn.Module, data: Data) -> tuple[Tensor, Tensor | None]:
    """A teacher's log-probabilities [N, C] and, if it has ``embed``, its embedding [N, h].

    Args:
        teacher: called as ``teacher(x, edge_index)``.
        data: the graph.
    """
    teacher.eval()
    if hasattr(teacher, "embed"):
        logits, embedding = teacher.embed(data.x, data.edge_index)  # type: ignore[operator]
        return log_softmax(logits, 1), embedding
    return log_softmax(teacher(data.x, data.edge_index), 1), None


def _asked(student: nn.Module, x: Tensor, edge_index: Tensor, method: str = "__call__") -> Any:
    """A student's answer; an input that it cannot take is the caller's mistake."""
    try:
        return getattr(student, method)(x, edge_index)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"student: {type(student).__name__} cannot be asked about x {list(x.shape)} and "
            f"edge_index {list(edge_index.shape)}: {str(error).splitlines()[0]}; expected a module "
            "that takes both, with the attributes' columns, and two more if proxies are appended"
        ) from error


def _float_rows(name: str, values: Any) -> None:
    """Refuses what is no float tensor of rows, or has values that are not finite."""
    if not isinstance(values, Tensor) or values.ndim != 2 or not values.is_floating_point():
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputError(
            f"{name}: {type(values).__name__} {kind} {list(getattr(values, 'shape', ()))}; "
            "expected a float tensor of two dimensions, a row each node"
        )
    if not torch.isfinite(values).all():
        raise InputError(f"{name}: values that are not finite; expected numbers")
