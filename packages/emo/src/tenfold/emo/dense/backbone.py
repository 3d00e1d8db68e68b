"""An EMO network as the backbone of dense tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from tenfold.emo.model.checkpoints import load_checkpoint
from tenfold.shared.errors import InputError


class Pyramid(nn.Module):
    """Gives the raw maps of some stages, with the switches of section 4.

    Args:
        name: A model of this package in timm, e.g. `emo_1m`.
        stages: Which of the stages 1–4; their strides are 4, 8, 16, 32.
        weights: A checkpoint of the classifier; its final norm and head are left out.
        freeze_stem: Whether the stem and stage 1 are not trained.
        norm_eval: Whether BatchNorm keeps its running statistics in training.
        **options: Everything that the model takes, e.g. `window=10`, `drop_path_rate=0.05`.

    Raises:
        InputError: If there is no such model or stage, or the checkpoint does not fit.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[int] = (1, 2, 3, 4),
        weights: Path | str | None = None,
        freeze_stem: bool = False,
        norm_eval: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if sorted(set(stages)) != list(stages) or not set(stages) <= {1, 2, 3, 4}:
            raise InputError(f"stages={tuple(stages)}; expected some of 1, 2, 3, 4 in order")
        if not timm.is_model(name):
            raise InputError(f"model {name!r} is not known to timm; EMO's are emo_1m, emo2_5m, …")
        body: Any = timm.create_model(
            name, features_only=True, out_indices=[s - 1 for s in stages], **options
        )
        self.channels: list[int] = body.feature_info.channels()
        self.body: Any = body
        self.strides: list[int] = body.feature_info.reduction()
        self.freeze_stem, self.norm_eval = freeze_stem, norm_eval
        if weights is not None:
            load_checkpoint(body.model, weights, backbone=True)
        if freeze_stem:
            for stage in (body.model.stage0, body.model.stage1):
                stage.requires_grad_(False)

    def train(self, mode: bool = True) -> Pyramid:
        """Sets the mode; what is frozen stays in eval mode."""
        super().train(mode)
        if mode and self.freeze_stem:
            self.body.model.stage0.eval()
            self.body.model.stage1.eval()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps images [B, 3, H, W] to the chosen stages' maps [B, C_s, H/stride, W/stride]."""
        return self.body(x)
