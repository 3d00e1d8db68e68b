"""SSDLite and RetinaNet on EMO (section 4): networks, anchors, targets, losses, post-processing.

Both share `Detector`: maps of several levels go through a head that gives for each anchor class
scores and box deltas. Anchors, assigner, deltas and post-processing are functions that both use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import (
    Conv2dNormActivation,
    FeaturePyramidNetwork,
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    sigmoid_focal_loss,
)
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from tenfold.emo.dense.backbone import Pyramid

Target = dict[str, Tensor]
"""The objects of an image: `boxes` float [n, 4] (x1, y1, x2, y2 in pixels), `labels` int64 [n]."""

_SSD_STRIDES = (16, 32, 64, 107, 160, 320)
_SSD_SIZES = (48, 100, 150, 202, 253, 304, 320)


def assign(iou: Tensor, positive: float, negative: float, all_best: bool) -> Tensor:
    """Assigns each anchor an object, background (-1) or nothing (-2).

    An anchor takes the object with which it overlaps most if IoU >= `positive`, is background if
    every IoU < `negative`, and is ignored in between. Then each object takes its best anchor,
    whatever the IoU; objects later in the list win.

    Args:
        iou: float [objects, anchors].
        positive: From this IoU.
        negative: Below this IoU.
        all_best: Whether an object takes every anchor with its best IoU, or the first one.

    Returns:
        int64 [anchors].
    """
    objects, anchors = iou.shape
    if objects == 0:
        return torch.full((anchors,), -1, device=iou.device)
    best, found = iou.max(dim=0)
    found = torch.where(best >= positive, found, torch.where(best < negative, -1, -2))
    highest, first = iou.max(dim=1)
    if all_best:
        ties = iou == highest[:, None]
        order = torch.arange(1, objects + 1, device=iou.device)[:, None] * ties
        last = order.amax(dim=0)
        return torch.where(last > 0, last - 1, found)
    for i in range(objects):
        found[first[i]] = i
    return found


class Detector(nn.Module):
    """What SSDLite and RetinaNet have in common.

    Args:
        backbone: The pyramid.
        num_classes: Number of kinds of objects.
        stds: Of the box deltas (dx, dy, dw, dh).
        score: Detections below this score are dropped.
        nms: The IoU of non-maximum suppression, class by class.
        keep: The most detections of an image.
    """

    def __init__(
        self,
        backbone: Pyramid,
        num_classes: int,
        stds: tuple[float, float, float, float],
        score: float,
        nms: float,
        keep: int,
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.coder = BoxCoder(tuple(1 / s for s in stds))
        self.score, self.nms, self.keep = score, nms, keep

    def levels(self, images: Tensor) -> list[Tensor]:
        """Gives the maps that the head sees."""
        raise NotImplementedError

    def level_anchors(self, level: int) -> Tensor:
        """Gives the anchors of a level around the origin of its first cell, float [A, 4]."""
        raise NotImplementedError

    def stride(self, level: int) -> float:
        """Gives the distance of a level's cells in pixels."""
        raise NotImplementedError

    def head(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Gives for each level the logits [B, HWA, K] and the deltas [B, HWA, 4]."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Turns logits into the scores of the classes, [..., num_classes]."""
        raise NotImplementedError

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Computes the losses of a batch, `class` and `box`."""
        raise NotImplementedError

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Gives the anchors of every level, float [H·W·A, 4], row by row, cell by cell."""
        made = []
        for level, x in enumerate(maps):
            height, width = x.shape[-2:]
            stride = self.stride(level)
            ys, xs = (torch.arange(n, device=x.device) * stride for n in (height, width))
            grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 1, 2)
            base = self.level_anchors(level).to(x.device)
            made.append((grid.repeat(1, 1, 2) + base).reshape(-1, 4))
        return made

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Gives logits, deltas and anchors of every level.

        Args:
            images: float [B, 3, H, W], normalised.
        """
        maps = self.levels(images)
        logits, deltas = self.head(maps)
        return logits, deltas, self.anchors(maps)

    @torch.no_grad()
    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Target]:
        """Finds objects.

        Args:
            images: float [B, 3, H, W], normalised; padding is at the right and the bottom.
            sizes: (height, width) of each image without padding.

        Returns:
            For each image `boxes` [n, 4], `scores` [n] in falling order, `labels` [n].
        """
        logits, deltas, anchors = self(images)
        found = []
        for b, size in enumerate(sizes):
            boxes, scores, labels = [], [], []
            for level, base in enumerate(anchors):
                flat = self.scores(logits[level][b].float()).flatten()
                at = torch.where(flat > self.score)[0]
                top, order = flat[at].topk(min(1000, len(at)))
                cell, label = at[order] // self.num_classes, at[order] % self.num_classes
                decoded = self.coder.decode_single(deltas[level][b][cell].float(), base[cell])
                boxes.append(clip_boxes_to_image(decoded, size))
                scores.append(top)
                labels.append(label)
            box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
            kept = batched_nms(box, score, label, self.nms)[: self.keep]
            found.append({"boxes": box[kept], "scores": score[kept], "labels": label[kept]})
        return found

    def matched(
        self,
        anchors: Tensor,
        targets: Sequence[Target],
        positive: float,
        negative: float,
        ties: bool,
    ) -> tuple[Tensor, Tensor]:
        """Gives each anchor's assignment [B, N] and the deltas to learn [B, N, 4]."""
        found, deltas = [], []
        for target in targets:
            boxes = target["boxes"]
            at = assign(box_iou(boxes, anchors), positive, negative, ties)
            goal = torch.zeros_like(anchors)
            hit = at >= 0
            if hit.any():
                goal[hit] = self.coder.encode_single(boxes[at[hit]], anchors[hit])
            found.append(at)
            deltas.append(goal)
        return torch.stack(found), torch.stack(deltas)


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _classes(at: Tensor, targets: Sequence[Target], background: int) -> Tensor:
    """Gives the class of each anchor [B, N]: the object's, or background."""
    made = torch.full_like(at, background)
    for b, target in enumerate(targets):
        hit = at[b] >= 0
        made[b, hit] = target["labels"][at[b][hit]]
    return made


def _flat(maps: list[Tensor], width: int) -> list[Tensor]:
    """[B, A·width, H, W] → [B, H·W·A, width]."""
    return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for x in maps]


class SSDLite(Detector):
    """SSDLite at 320×320: 3 234 anchors, softmax with background, hard negatives 3:1.

    Args:
        backbone: The model's name in timm.
        num_classes: Number of kinds of objects.
        size: Side of the image; the anchors' sizes and the strides that the card gives for 320
            grow with it (for other sizes our extension).
        **options: For `Pyramid`: `weights`, `window` (EMO-5M: 10), `drop_path_rate`, ….

    Source: section 4.1.
    """

    def __init__(
        self, backbone: str = "emo_1m", num_classes: int = 80, size: int = 320, **options: Any
    ) -> None:
        pyramid = Pyramid(backbone, (3, 4), norm_eval=True, **options)
        super().__init__(pyramid, num_classes, (0.1, 0.1, 0.2, 0.2), 0.02, 0.45, 200)
        self.size = size
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)
        block = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.ReLU6)
        channels = list(pyramid.channels)
        self.neck = nn.ModuleList()
        for out in (512, 256, 256, 128):
            middle = out // 2
            self.neck.append(
                nn.Sequential(
                    block(channels[-1], middle, 1),
                    block(middle, middle, 3, 2, padding=1, groups=middle),
                    block(middle, out, 1),
                )
            )
            channels.append(out)

        def branch(width: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(block(c, c, 3, groups=c), nn.Conv2d(c, 6 * width, 1))
                for c in channels
            )

        self.classify, self.regress = branch(num_classes + 1), branch(4)
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03)
        for part in (self.classify, self.regress):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.001)
                    _zero_bias(module)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Gives the maps of stages 3 and 4 and four smaller ones."""
        maps = self.backbone(images)
        for layer in self.neck:
            maps.append(layer(maps[-1]))
        return maps

    def stride(self, level: int) -> float:
        """Gives 16, 32, 64, 107, 160, 320 for 320 pixels."""
        return _SSD_STRIDES[level] * (1 if level < 3 else self.size / 320)

    def level_anchors(self, level: int) -> Tensor:
        """Gives two squares and the ratios h/w 1/2, 2, 1/3, 3, around the cell's centre."""
        low, high = (_SSD_SIZES[i] * self.size / 320 for i in (level, level + 1))
        mean = math.sqrt(low * high)
        shapes = [(low, low), (mean, mean)]
        shapes += [(low / math.sqrt(r), low * math.sqrt(r)) for r in (1 / 2, 2, 1 / 3, 3)]
        half, centre = torch.tensor(shapes) / 2, self.stride(level) / 2
        return torch.cat([centre - half, centre + half], dim=1)

    def head(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Gives logits (the last is background) and deltas."""
        logits = [layer(x) for layer, x in zip(self.classify, maps, strict=True)]
        deltas = [layer(x) for layer, x in zip(self.regress, maps, strict=True)]
        return _flat(logits, self.num_classes + 1), _flat(deltas, 4)

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax without the background."""
        return logits.softmax(-1)[..., :-1]

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Cross-entropy of positives and the 3:1 hardest negatives, and smooth L1 (β = 1).

        Args:
            images: float [B, 3, H, W].
            targets: The objects of each image.

        Returns:
            `class` and `box`, both divided by the number of positives in the batch.
        """
        levels, level_deltas, level_anchors = self(images)
        logits, deltas = torch.cat(levels, 1).float(), torch.cat(level_deltas, 1).float()
        at, goal = self.matched(torch.cat(level_anchors), targets, 0.5, 0.5, ties=False)
        hit = at >= 0
        classes = _classes(at, targets, self.num_classes)
        each = F.cross_entropy(logits.transpose(1, 2), classes, reduction="none")
        positives = hit.sum(1, keepdim=True)
        negative = each.detach().masked_fill(hit, -torch.inf)
        rank = negative.argsort(dim=1, descending=True).argsort(dim=1)
        chosen = hit | ((rank < 3 * positives) & ~hit)
        total = positives.sum().clamp(min=1)
        box = F.smooth_l1_loss(deltas[hit], goal[hit], beta=1.0, reduction="sum")
        return {"class": each[chosen].sum() / total, "box": box / total}


class _ConvsOnInput(ExtraFPNBlock):
    """P6 from the input C5, P7 from P6; no activation between (section 4.2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, out, 3, 2, 1)
        self.p7 = nn.Conv2d(out, out, 3, 2, 1)

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(x[-1])
        return [*results, p6, self.p7(p6)], [*names, "p6", "p7"]


class RetinaNet(Detector):
    """RetinaNet: FPN with five levels, nine anchors a cell, focal loss.

    Args:
        backbone: The model's name in timm.
        num_classes: Number of kinds of objects.
        freeze_stem: Whether the stem and stage 1 are frozen, as published.
        **options: For `Pyramid`: `weights`, `window` (EMO-5M: 10), ….

    Source: section 4.2.
    """

    def __init__(
        self,
        backbone: str = "emo_1m",
        num_classes: int = 80,
        freeze_stem: bool = True,
        **options: Any,
    ) -> None:
        pyramid = Pyramid(backbone, (2, 3, 4), norm_eval=True, freeze_stem=freeze_stem, **options)
        super().__init__(pyramid, num_classes, (1.0, 1.0, 1.0, 1.0), 0.05, 0.5, 100)
        self.fpn = FeaturePyramidNetwork(
            pyramid.channels, 256, _ConvsOnInput(pyramid.channels[-1], 256)
        )
        towers = []
        for _ in range(2):
            convs = [(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)) for _ in range(4)]
            towers.append(nn.Sequential(*(part for pair in convs for part in pair)))
        self.class_tower, self.box_tower = towers
        self.classify = nn.Conv2d(256, 9 * num_classes, 3, padding=1)
        self.regress = nn.Conv2d(256, 9 * 4, 3, padding=1)
        for part in (*towers, self.classify, self.regress):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.01)
                    _zero_bias(module)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -math.log((1 - 0.01) / 0.01))

    def levels(self, images: Tensor) -> list[Tensor]:
        """Gives P3 to P7."""
        return list(self.fpn({str(i): x for i, x in enumerate(self.backbone(images))}).values())

    def stride(self, level: int) -> float:
        """Gives 8, 16, 32, 64, 128."""
        return 8 << level

    def level_anchors(self, level: int) -> Tensor:
        """Gives three ratios h/w (0.5, 1, 2) of three scales (4·2^(0, 1/3, 2/3)·stride) each."""
        scales = 4 * self.stride(level) * 2 ** (torch.arange(3) / 3)
        root = torch.tensor([0.5, 1.0, 2.0]).sqrt()[:, None]
        width, height = (scales / root).flatten(), (scales * root).flatten()
        return torch.stack([-width, -height, width, height], dim=1) / 2

    def head(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Gives logits and deltas; all levels share the weights."""
        logits = [self.classify(self.class_tower(x)) for x in maps]
        deltas = [self.regress(self.box_tower(x)) for x in maps]
        return _flat(logits, self.num_classes), _flat(deltas, 4)

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss (γ = 2, α = 0.25) and L1, both divided by the number of positives.

        Args:
            images: float [B, 3, H, W].
            targets: The objects of each image.

        Returns:
            `class` and `box`.
        """
        levels, level_deltas, level_anchors = self(images)
        logits, deltas = torch.cat(levels, 1).float(), torch.cat(level_deltas, 1).float()
        at, goal = self.matched(torch.cat(level_anchors), targets, 0.5, 0.4, ties=True)
        hit, counted = at >= 0, at > -2
        classes = _classes(at, targets, self.num_classes)
        wanted = F.one_hot(classes, self.num_classes + 1)[..., :-1].to(logits)
        total = hit.sum().clamp(min=1)
        focal = sigmoid_focal_loss(logits[counted], wanted[counted], 0.25, 2.0, reduction="sum")
        box = F.l1_loss(deltas[hit], goal[hit], reduction="sum")
        return {"class": focal / total, "box": box / total}


DETECTORS = {"ssdlite": SSDLite, "retinanet": RetinaNet}
"""The detectors by name."""
