"""Semantic segmentation on EMO (section 5): DeepLabv3, PSPNet, Semantic FPN, SegFormer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from tenfold.emo.dense.backbone import Pyramid
from tenfold.shared.errors import InputError, did_you_mean

IGNORE = 255
"""The label of pixels that count nowhere."""


def _block(channels: int, out: int, kernel: int, dilation: int = 1) -> nn.Module:
    """Convolution without bias, BatchNorm, ReLU."""
    return Conv2dNormActivation(channels, out, kernel, dilation=dilation)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class DeepLabV3Head(nn.Module):
    """ASPP with rates 1, 12, 24, 36 and image pooling on stage 4, 256 channels."""

    stages = (4,)

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        c, width = channels[-1], 256
        self.pool = _block(c, width, 1)
        rates = (1, 12, 24, 36)
        self.branches = nn.ModuleList(_block(c, width, 1 if r == 1 else 3, r) for r in rates)
        self.bottleneck = _block(5 * width, width, 3)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps the backbone's maps to logits [B, K, H/32, W/32]."""
        x = maps[-1]
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        parts = [pooled, *(branch(x) for branch in self.branches)]
        return self.classify(self.bottleneck(torch.cat(parts, 1)))


class PSPHead(nn.Module):
    """Pyramid pooling 1, 2, 3, 6 on stage 4, 256 channels each."""

    stages = (4,)

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        c, width = channels[-1], 256
        self.bins = (1, 2, 3, 6)
        self.branches = nn.ModuleList(_block(c, width, 1) for _ in self.bins)
        self.bottleneck = _block(c + len(self.bins) * width, width, 3)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps the backbone's maps to logits [B, K, H/32, W/32]."""
        x = maps[-1]
        parts = [x]
        for bins, branch in zip(self.bins, self.branches, strict=True):
            parts.append(_resize(branch(F.adaptive_avg_pool2d(x, bins)), x.shape[-2:]))
        return self.classify(self.bottleneck(torch.cat(parts, 1)))


class SemanticFPNHead(nn.Module):
    """FPN with 256 channels; each level goes up to stride 4 with 128 channels; their sum."""

    stages = (1, 2, 3, 4)

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(channels), 256)
        self.towers: Any = nn.ModuleList(
            nn.ModuleList(_block(256 if i == 0 else 128, 128, 3) for i in range(max(1, level)))
            for level in range(len(channels))
        )
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(128, num_classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps the backbone's maps to logits [B, K, H/4, W/4]."""
        levels = list(self.fpn({str(i): x for i, x in enumerate(maps)}).values())
        size = levels[0].shape[-2:]
        total = self.towers[0][0](levels[0])
        for x, tower in zip(levels[1:], self.towers[1:], strict=True):
            for layer in tower:
                y = layer(x)
                x = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            total = total + _resize(x, size)
        return self.classify(total)


class SegFormerHead(nn.Module):
    """Each level by a 1×1 convolution to C_4 channels at stride 4, concatenated and fused."""

    stages = (1, 2, 3, 4)

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = channels[-1]
        self.project = nn.ModuleList(_block(c, width, 1) for c in channels)
        self.fuse = _block(len(channels) * width, width, 1)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps the backbone's maps to logits [B, K, H/4, W/4]."""
        size = maps[0].shape[-2:]
        parts = [_resize(layer(x), size) for layer, x in zip(self.project, maps, strict=True)]
        return self.classify(self.fuse(torch.cat(parts, 1)))


HEADS: dict[str, type[nn.Module]] = {
    "deeplabv3": DeepLabV3Head,
    "pspnet": PSPHead,
    "semantic-fpn": SemanticFPNHead,
    "segformer": SegFormerHead,
}
"""The heads by name."""


class Segmentor(nn.Module):
    """A backbone with a head, and in training an auxiliary head on stage 3.

    DeepLabv3 and PSPNet are as published with EMO. For Semantic FPN and SegFormer no EMO
    configuration was released; these follow EMOv2's.

    Args:
        backbone: The model's name in timm.
        head: One of `HEADS`.
        num_classes: Number of classes (ADE20K: 150).
        auxiliary: Whether there is an auxiliary FCN head (256 channels, loss weight 0.4); by
            default for DeepLabv3 and PSPNet.
        **options: For `Pyramid`: `weights`, `window` (EMO-5M: 16), ….

    Raises:
        InputError: If there is no such head.

    Source: section 5.
    """

    def __init__(
        self,
        backbone: str = "emo_1m",
        head: str = "deeplabv3",
        num_classes: int = 150,
        auxiliary: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise InputError(did_you_mean(head, HEADS, kind="head"))
        if auxiliary is None:
            auxiliary = head in ("deeplabv3", "pspnet")
        made: Any = HEADS[head]
        stages = made.stages if not auxiliary else tuple(sorted({3, *made.stages}))
        self.num_classes = num_classes
        self.backbone = Pyramid(backbone, stages, **options)
        chosen = self.backbone.channels[-len(made.stages) :]
        self.head = made(chosen, num_classes)
        self._own = len(made.stages)
        self.auxiliary: nn.Module | None = None
        if auxiliary:
            width = self.backbone.channels[stages.index(3)]
            self.auxiliary = nn.Sequential(
                _block(width, 256, 3), nn.Dropout2d(0.1), nn.Conv2d(256, num_classes, 1)
            )
            self._third = stages.index(3)
        for module in (self.head, self.auxiliary):
            for part in module.modules() if module else ():
                if isinstance(part, nn.Conv2d) and part.out_channels == num_classes:
                    nn.init.normal_(part.weight, std=0.01)
                    part.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images [B, 3, H, W] to logits [B, num_classes, H, W]."""
        logits = self.head(self.backbone(images)[-self._own :])
        return _resize(logits, images.shape[-2:])

    def loss(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over the labelled pixels, and 0.4 times that of the auxiliary head.

        Args:
            images: float [B, 3, H, W].
            labels: int64 [B, H, W]; 255 counts nowhere.

        Returns:
            `class` and, with an auxiliary head, `auxiliary` (already weighted). Both are means
            over all pixels, those without a label included, as the published trainer takes them.
        """
        maps = self.backbone(images)
        made = {"class": self._cross_entropy(self.head(maps[-self._own :]), labels)}
        if self.auxiliary is not None:
            made["auxiliary"] = 0.4 * self._cross_entropy(self.auxiliary(maps[self._third]), labels)
        return made

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = _resize(logits.float(), labels.shape[-2:])
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / max(
            1, math.prod(labels.shape)
        )
