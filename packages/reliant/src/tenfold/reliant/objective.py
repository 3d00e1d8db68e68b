"""The differentiable bias J and the losses of distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from tenfold.shared.errors import InputError

Notion = Literal["sp", "eo", "eodds"]
Surrogate = Literal["official", "legendre", "identity", "sigmoid"]

SLOPE = 10.0  # of the surrogate `sigmoid` at 1/2, over 4

# Coefficients of the odd Legendre polynomials P1, P3, P5, P7, P9 in x = 2p - 1. The official ones
# lack the factor (2n + 1) / 2 of the series of the unit step.
_LEGENDRE = {
    "official": (1 / 2, -1 / 8, 1 / 16, -5 / 128, 7 / 256),
    "legendre": (3 / 4, -7 / 16, 11 / 32, -75 / 256, 133 / 512),
}
# P1, P3, P5, P7, P9 as powers x, x^3, x^5, x^7, x^9.
_POWERS = (
    (1.0,),
    (-3 / 2, 5 / 2),
    (15 / 8, -70 / 8, 63 / 8),
    (-35 / 16, 315 / 16, -693 / 16, 429 / 16),
    (315 / 128, -4620 / 128, 18018 / 128, -25740 / 128, 12155 / 128),
)


def _odd_powers(kind: str) -> tuple[float, ...]:
    total = [0.0] * 5
    for weight, powers in zip(_LEGENDRE[kind], _POWERS, strict=True):
        for place, power in enumerate(powers):
            total[place] += weight * power
    return tuple(total)


_COEFFICIENTS = {kind: _odd_powers(kind) for kind in _LEGENDRE}


def soft_step(p: Tensor, surrogate: Surrogate = "official") -> Tensor:
    """phi(p), a smooth step at 1/2 with ``phi(1 - p) = 1 - phi(p)``.

    Args:
        p: probabilities, any shape.
        surrogate: ``official``, the released polynomial of degree 9 (monotone, from 0.0742 to
            0.9258); ``legendre``, the true series of the unit step of that degree (not monotone);
            ``identity``, p itself; ``sigmoid``, ``1 / (1 + exp(-10 (2p - 1)))``.
    """
    if surrogate == "identity":
        return p
    x = 2 * p - 1
    if surrogate == "sigmoid":
        return torch.sigmoid(SLOPE * x)
    if surrogate not in _COEFFICIENTS:
        raise InputError(
            f"surrogate={surrogate!r}; expected official, legendre, identity or sigmoid"
        )
    square, value = x * x, torch.zeros_like(x)
    for coefficient in reversed(_COEFFICIENTS[surrogate]):
        value = value * square + coefficient
    return 0.5 + x * value


@dataclass(frozen=True)
class Groups:
    """The nodes and groups that a bias is measured on, made once.

    Attributes:
        nodes: int64 [M].
        weights: float [K, M]; row k holds ``1 / n_0`` for group 0 and ``-1 / n_1`` for group 1,
            over the nodes that condition k admits.
    """

    nodes: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls, sensitive: Tensor, nodes: Tensor, notion: Notion = "sp", y: Tensor | None = None
    ) -> Groups:
        """Splits nodes into groups.

        Args:
            sensitive: int64 [N], 0 or 1.
            nodes: bool [N], those that count. Nothing is read of the others.
            notion: ``sp``, statistical parity; ``eo``, equal opportunity (nodes of class 1);
                ``eodds``, equalised odds (each class on its own).
            y: int64 [N], needed for ``eo`` and ``eodds``.

        Raises:
            InputError: if a group is empty, or the sensitive attribute is not 0 or 1.
        """
        if notion not in ("sp", "eo", "eodds"):
            raise InputError(f"notion={notion!r}; expected 'sp', 'eo' or 'eodds'")
        chosen = nodes.nonzero()[:, 0]
        group = sensitive[chosen]
        if len(group) and (int(group.min()) < 0 or int(group.max()) > 1):
            found = group.unique().tolist()
            raise InputError(
                f"sensitive has the values {found[:9]}; training needs 0 and 1: make one of two "
                "groups of it"
            )
        admitted = [torch.ones_like(group, dtype=torch.bool)]
        if notion != "sp":
            if y is None:
                raise InputError(f"notion={notion!r} needs the classes y; expected int64 [N]")
            classes = [1] if notion == "eo" else y[chosen].unique().tolist()
            admitted = [y[chosen] == c for c in classes]
        rows = []
        for condition in admitted:
            row = torch.zeros(len(chosen), device=chosen.device)
            for value, sign in ((0, 1.0), (1, -1.0)):
                members = condition & (group == value)
                if not members.any():
                    raise InputError(
                        f"notion={notion!r}: no node of group {value} among the {len(chosen)} "
                        "nodes that the bias is measured on (of class 1 for 'eo')"
                    )
                row[members] = sign / float(members.sum())
            rows.append(row)
        return cls(chosen, torch.stack(rows))


def bias(probabilities: Tensor, groups: Groups, surrogate: Surrogate = "official") -> Tensor:
    """J: the squared difference of the groups' mean ``phi(P_ic)``, summed over classes.

    For two classes both terms are equal. With several conditions (``eodds``) J is their sum.

    Args:
        probabilities: float [N, C].
        groups: from :meth:`Groups.of`.
        surrogate: as in :func:`soft_step`.

    Returns:
        A scalar, 0 for no bias.
    """
    stepped = soft_step(probabilities.index_select(0, groups.nodes), surrogate)
    return (groups.weights.to(stepped.dtype) @ stepped).square().sum()


def frobenius(probabilities: Tensor, teacher: Tensor, nodes: Tensor) -> Tensor:
    """``|| P - T ||_F`` over some nodes: CPF's loss, a root of a sum and not a mean.

    The root is taken of at least 1e-12, so that equal inputs have the gradient 0.

    Args:
        probabilities: float [N, C].
        teacher: float [N, C], probabilities.
        nodes: int64 [M].
    """
    difference = probabilities.index_select(0, nodes) - teacher.index_select(0, nodes)
    return difference.square().sum().clamp(min=1e-12).sqrt()


def soft_labels(logits: Tensor, teacher: Tensor, nodes: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(teacher || student)`` at temperature T, the mean over nodes (Hinton; GLNN).

    Args:
        logits: float [N, C], of the student.
        teacher: float [N, C], logits or log-probabilities of the teacher.
        nodes: int64 [M].
        temperature: T > 0.
    """
    student = log_softmax(logits.index_select(0, nodes) / temperature, 1)
    target = log_softmax(teacher.index_select(0, nodes) / temperature, 1)
    return temperature**2 * kl_div(student, target, reduction="batchmean", log_target=True)


def supervised(logits: Tensor, y: Tensor, nodes: Tensor) -> Tensor:
    """Cross-entropy on labelled nodes.

    Args:
        logits: float [N, C].
        y: int64 [N].
        nodes: int64 [M].
    """
    return cross_entropy(logits.index_select(0, nodes), y.index_select(0, nodes))
