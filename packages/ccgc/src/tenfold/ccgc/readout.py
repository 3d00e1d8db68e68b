"""The read-out of the narrow space: what the clusters look like in the features themselves.

This module is this package's own contribution, not the paper's. The K directions of the narrow
space hold what separates the clusters at large, and lose what tells a single node on the border
from its neighbours. The smoothed features still have it: a linear classifier learns the clusters
from their confident nodes, the same that train the encoders, and then decides about all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

ROUNDS = 2


@dataclass(frozen=True)
class ReadOut:
    """A multinomial logistic regression of clusters on smoothed features with unit rows.

    Attributes:
        weight: float [D, K'], for the K' clusters that have confident nodes.
        bias: float [K'].
        clusters: int64 [K'], their numbers.
    """

    weight: Tensor
    bias: Tensor
    clusters: Tensor

    @staticmethod
    def fit(x: Tensor, labels: Tensor, confident: Tensor) -> ReadOut | None:
        """Learns from the confident nodes, and then once more from more of its own answers.

        With H holding the share tau of the nodes, the second round takes the share (1 + tau) / 2
        whose two best classes are farthest apart. The classifier is scikit-learn's with its own
        default penalty (C = 1); nothing in it is set for a data set.

        Args:
            x: smoothed features float [N, D].
            labels: int64 [N], the clustering.
            confident: bool [N], its confident nodes H.

        Returns:
            The classifier; None if fewer than two clusters have a confident node.
        """
        from sklearn.linear_model import LogisticRegression

        rows = normalize(x).cpu().numpy()
        answer, taught = labels.cpu().numpy(), confident.cpu().numpy()
        made = None
        for _ in range(ROUNDS):
            if len(np.unique(answer[taught])) < 2:
                break
            made = LogisticRegression(max_iter=1000).fit(rows[taught], answer[taught])
            score = made.decision_function(rows)
            if score.ndim == 1:  # two clusters: scikit-learn gives the difference alone
                score = np.stack([-score, score], 1)
            answer = made.classes_[score.argmax(1)]
            ordered = np.partition(score, -2, axis=1)
            margin = ordered[:, -1] - ordered[:, -2]
            taught = margin >= np.quantile(margin, (1 - taught.mean()) / 2)
        if made is None:
            return None
        weight, bias = made.coef_.T, made.intercept_
        if len(bias) == 1:
            weight, bias = np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
        return ReadOut(*(torch.as_tensor(a).to(x.device) for a in (weight, bias, made.classes_)))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Decides about nodes.

        Args:
            x: smoothed features float [M, D].

        Returns:
            The clusters int64 [M], and how sure of them, float [M] in [0, 1]: one minus the
            probability of the second cluster over that of the first.
        """
        score = normalize(x) @ self.weight.to(x.dtype) + self.bias.to(x.dtype)
        top, position = score.topk(2, dim=1)
        return self.clusters[position[:, 0]], -torch.expm1(top[:, 1] - top[:, 0])
