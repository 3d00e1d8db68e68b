"""The frameworks of distillation: CPF, GraphAKD, and plain soft labels.

A framework says what a student has to learn from its teacher. RELIANT adds the bias to whatever it
says (:mod:`tenfold.reliant.wrapper`). A framework sees a :class:`View`: the graph, or one batch of
it, together with what the teacher says about its nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    normalize,
    softmax,
    softplus,
)

from tenfold.reliant.objective import Groups, frobenius, soft_labels, supervised
from tenfold.reliant.propagation import Adjacency, adjacency_of
from tenfold.shared.errors import InputError

EDGES_AT_ONCE = 1 << 16


@dataclass
class View:
    """What a step sees: the whole graph or one batch.

    Attributes:
        x: float [N, d].
        edge_index: int64 [2, E].
        y: int64 [N]; a framework reads it on ``labelled`` nodes only.
        sensitive: int64 [N].
        labelled: bool [N], nodes whose label may be used as such (for PLP: that are clamped).
        unlabelled: bool [N], the others; in a batch only those that the step is about.
        teacher: float [N, C], log-probabilities of the teacher.
        embedding: float [N, h] of the teacher, if there is one.
        ids: int64 [N], numbers of the nodes in the whole graph; None for all.
        aggregated: float [N, .], the aggregated attributes of students that have ``aggregate``.
        groups: those that a bias has been measured on, kept for the next step.
    """

    x: Tensor
    edge_index: Tensor
    y: Tensor
    sensitive: Tensor
    labelled: Tensor
    unlabelled: Tensor
    teacher: Tensor
    embedding: Tensor | None = None
    ids: Tensor | None = None
    aggregated: Tensor | None = None
    groups: dict[str, Groups] = field(default_factory=dict)


class CPF(nn.Module):
    """``|| softmax(z) - T ||_F`` on the nodes that are not labelled (CPF, WWW 2021).

    The loss sits on unlabelled nodes because labelled ones are inputs of the propagation. A student
    that does not clamp labels is given the cross-entropy on labelled nodes too.

    Args:
        decimals: round T to so many decimals, as the official files do (4); None for exact ones.
    """

    needs_embedding = False

    def __init__(self, decimals: int | None = None) -> None:
        super().__init__()
        self.decimals = decimals

    def loss(
        self, logits: Tensor, embedding: Tensor | None, view: View, student: nn.Module
    ) -> Tensor:
        """The loss of one forward pass."""
        target = view.teacher.exp()
        if self.decimals is not None:
            target = target.round(decimals=self.decimals)
        made = frobenius(softmax(logits, 1), target, _numbers(view.unlabelled))
        if not hasattr(student, "labelled"):
            made = made + supervised(logits, view.y, _numbers(view.labelled))
        return made


class SoftLabels(nn.Module):
    """Soft labels of the teacher on all nodes, and labels where there are any (Hinton; GLNN).

    Args:
        temperature: softens both sides.
        weight: of the teacher; the cross-entropy on labelled nodes has ``1 - weight``.
    """

    needs_embedding = False

    def __init__(self, temperature: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < float("inf") or not 0 <= weight <= 1:
            raise InputError(
                f"temperature={temperature}, weight={weight}; expected > 0, and 0 to 1"
            )
        self.temperature, self.weight = temperature, weight

    def loss(
        self, logits: Tensor, embedding: Tensor | None, view: View, student: nn.Module
    ) -> Tensor:
        """The loss of one forward pass."""
        everywhere = _numbers(view.labelled | view.unlabelled)
        made = self.weight * soft_labels(logits, view.teacher, everywhere, self.temperature)
        labelled = _numbers(view.labelled)
        if self.weight < 1 and len(labelled):
            made = made + (1 - self.weight) * supervised(logits, view.y, labelled)
        return made


class GraphAKD(nn.Module):
    """Adversarial distillation: discriminators tell the teacher's answers from the student's.

    Three discriminators (of logits, of neighbouring embeddings, of an embedding and the summary of
    all) are trained to tell them apart, the student to be taken for the teacher (KDD 2022).

    Args:
        classes: C.
        width: of the teacher's and of the student's embedding.
        learning_rate: Adam's, of the discriminators.
        weight_decay: of the discriminators.
        sign: of the term that pairs embeddings with the student's own summary: ``fixed`` opposes
            the discriminator as upstream GraphAKD does since October 2022, ``official`` helps it
            as RELIANT's copy does.
    """

    needs_embedding = True

    def __init__(
        self,
        classes: int,
        width: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 5e-4,
        sign: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        if sign not in ("fixed", "official"):
            raise InputError(f"akd_sign={sign!r}; expected 'fixed' or 'official'")
        self.sign, self.width = sign, width
        self.of_logits = LogitDiscriminator(classes)
        self.of_edges = EdgeDiscriminator(width)
        self.of_summary = SummaryDiscriminator(width)
        self.optimizer = torch.optim.Adam(
            self.parameters(), lr=learning_rate, weight_decay=weight_decay
        )

    def check(self, embedding: Tensor | None, teacher: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both embeddings, if they fit.

        Raises:
            InputError: there is none, or the widths differ.
        """
        for name, made in (("student", embedding), ("teacher", teacher)):
            if made is None:
                raise InputError(f"GraphAKD compares embeddings, and the {name} gives none")
            if made.shape[1] != self.width:
                raise InputError(
                    f"the {name}'s embedding has width {made.shape[1]}; the discriminators have "
                    f"{self.width}: give the student the teacher's width"
                )
        assert embedding is not None
        assert teacher is not None
        return embedding, teacher

    def before(self, logits: Tensor, embedding: Tensor | None, view: View) -> Tensor:
        """One step of the discriminators against a detached forward pass; gives their loss."""
        h_s, h_t = self.check(embedding, view.embedding)
        z_s, h_s, z_t = logits.detach(), h_s.detach(), view.teacher
        adjacency = adjacency_of(view.edge_index, len(z_s))
        train = _numbers(view.labelled)
        real_t, class_t = self.of_logits(z_t)
        real_s, class_s = self.of_logits(z_s)
        g_t, g_s = summary(h_t), summary(h_s)
        made = 0.5 * (
            _judged(real_t, 1)
            + _judged(real_s, 0)
            + cross_entropy(class_t[train], view.y[train])
            + cross_entropy(class_s[train], view.y[train])
        )
        made = made + self.of_edges.loss(h_t, adjacency, 1) + self.of_edges.loss(h_s, adjacency, 0)
        made = made + _judged(self.of_summary(h_t, g_t), 1) + _judged(self.of_summary(h_s, g_t), 0)
        made = made + _judged(self.of_summary(h_s, g_s), 1) + _judged(self.of_summary(h_t, g_s), 0)
        self.optimizer.zero_grad()  # also of what the student's step has left
        made.backward()
        self.optimizer.step()
        return made.detach()

    def loss(
        self, logits: Tensor, embedding: Tensor | None, view: View, student: nn.Module
    ) -> Tensor:
        """The student's loss against the discriminators as they are."""
        h_s, h_t = self.check(embedding, view.embedding)
        adjacency = adjacency_of(view.edge_index, len(logits))
        train = _numbers(view.labelled)
        real, classes = self.of_logits(logits)
        made = supervised(logits, view.y, train)
        made = made + 0.5 * (cross_entropy(classes[train], view.y[train]) + _judged(real, 1))
        made = made + (logits - view.teacher).abs().sum() / len(logits)
        made = made + self.of_edges.loss(h_s, adjacency, 1)
        made = made + _judged(self.of_summary(h_s, summary(h_t)), 1)
        own, other = (1, 0) if self.sign == "official" else (0, 1)
        g_s = summary(h_s)
        return (
            made
            + _judged(self.of_summary(h_s, g_s), own)
            + _judged(self.of_summary(h_t, g_s), other)
        )


Framework = CPF | SoftLabels | GraphAKD


class LogitDiscriminator(nn.Module):
    """``r = V ReLU(W z + b + z)``: the first C entries are class logits, the last is real or fake.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.inner = nn.Linear(classes, classes)
        self.outer = nn.Linear(classes, classes + 1, bias=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The score float [N] and the class logits float [N, C] of logits [N, C]."""
        made = self.outer(torch.relu(self.inner(z) + z))
        return made[:, -1], made[:, :-1]


class _Bilinear(nn.Module):
    """The weights d and c of a score ``c sum_k d_k u_k v_k``.

    Args:
        width: of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(width))
        self.scale = nn.Parameter(torch.tensor(0.5))


class EdgeDiscriminator(_Bilinear):
    """``c sum_k d_k u_k v_k`` for each edge (u, v) of normalised embeddings.

    Args:
        width: of the embeddings.
    """

    def loss(self, h: Tensor, adjacency: Adjacency, target: int) -> Tensor:
        """The mean binary cross-entropy over all entries of A, loops included.

        The score is symmetric, so each edge is scored once; edges are scored in chunks, and the
        gradient is one sparse product, so that no score or product of all edges is held with a
        graph.

        Args:
            h: float [N, width].
            adjacency: the graph.
            target: 1 for real, 0 for fake.
        """
        return _EdgeLoss.apply(
            normalize(h, dim=1), self.direction, self.scale, adjacency, float(target)
        )


class SummaryDiscriminator(_Bilinear):
    """``c sum_k d_k u_k g_k`` for each node's normalised embedding and a summary g.

    Args:
        width: of the embeddings.
    """

    def forward(self, h: Tensor, g: Tensor) -> Tensor:
        """The score float [N] of embeddings [N, width] and a summary [width]."""
        return self.scale * (normalize(h, dim=1) @ (self.direction * g))


def summary(h: Tensor) -> Tensor:
    """``sigmoid(mean_v h_v)``, float [width]."""
    return torch.sigmoid(h.mean(0))


def _judged(score: Tensor, target: int) -> Tensor:
    return binary_cross_entropy_with_logits(score, torch.full_like(score, float(target)))


def _numbers(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]


def upper_entries(adjacency: Adjacency) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of A on and above the diagonal, made once.

    Returns:
        int64 [M] rows and columns, and for each entry of A the number of its pair, int64 [entries].
    """
    found = getattr(adjacency, "_upper", None)
    if found is None:
        row, column = adjacency.row.long(), adjacency.column.long()
        above = row <= column
        pair = above.cumsum(0) - 1
        pair = torch.where(above, pair, pair[adjacency.transposed])
        found = row[above], column[above], pair
        adjacency._upper = found  # type: ignore[attr-defined]
    made: tuple[Tensor, Tensor, Tensor] = found
    return made


class _EdgeLoss(torch.autograd.Function):
    """The loss of :class:`EdgeDiscriminator`, with its gradient in closed form.

    With ``l(s)`` the loss of a score and G the symmetric matrix of its derivatives, the gradient of
    the embeddings is ``2 c d * (G U)``, that of d is ``c sum_u U * (G U)`` and that of c is
    ``sum G * S / c``, each over the number of entries.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, direction: Tensor, scale: Tensor, adjacency: Adjacency, target: float
    ) -> Tensor:
        row, column, pair = upper_entries(adjacency)
        weighted = u * direction
        raw = torch.cat(
            [
                (weighted[a] * u[b]).sum(1)
                for a, b in zip(row.split(EDGES_AT_ONCE), column.split(EDGES_AT_ONCE), strict=True)
            ]
        )
        score = scale * raw
        times = 2.0 - (row == column).to(u.dtype)  # both directions
        loss = (times * (softplus(score) - target * score)).sum() / adjacency.entries
        slope = (torch.sigmoid(score) - target) / adjacency.entries
        ctx.adjacency = adjacency
        ctx.save_for_backward(u, direction, scale, slope, (times * slope * raw).sum(), pair)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        u, direction, scale, slope, by_scale, pair = ctx.saved_tensors
        spread = ctx.adjacency.weighted_product(slope[pair], u)
        g = gradients[0]
        return (
            g * 2 * scale * direction * spread,
            g * scale * (u * spread).sum(0),
            g * by_scale,
            None,
            None,
        )


def framework(name: str, classes: int, width: int, **options: Any) -> Framework:
    """A framework by name: ``cpf``, ``akd`` or ``soft``.

    Args:
        name: which.
        classes: C.
        width: of the embeddings (``akd``).
        **options: of the class.
    """
    makers: dict[str, Callable[..., Framework]] = {"cpf": CPF, "soft": SoftLabels, "akd": GraphAKD}
    if name not in makers:
        raise InputError(f"framework={name!r}; expected 'cpf', 'akd' or 'soft'")
    return GraphAKD(classes, width, **options) if name == "akd" else makers[name](**options)
