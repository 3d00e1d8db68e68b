"""COCO: reading, training transforms, and the official metric."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tenfold.emo.data.images import open_image, photometric_distortion, seeded
from tenfold.emo.model.backbone import IMAGENET_MEAN, IMAGENET_STD
from tenfold.shared.errors import InputError


class CocoDetection(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images with boxes from a COCO annotation file.

    Category ids are mapped to 0, 1, … in rising order. Crowd boxes are left out; boxes are
    clipped to the image, and those without area are left out.

    Args:
        images: The folder of the pictures.
        annotations: `instances_*.json`.
        transform: From picture, boxes and labels (torchvision v2) to the same; its last step gives
            a normalised tensor.
        training: Whether images without a box are left out.
        seed: As in `ImageFolder`.
        limit: Only this many images.
        repeat: How often the images count in an epoch.

    Raises:
        InputError: If the file is missing or has another form; the message says where.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        transform: Any,
        training: bool,
        seed: int | None = None,
        limit: int | None = None,
        repeat: int = 1,
    ) -> None:
        if not annotations.is_file():
            raise InputError(f"annotation file {annotations} is missing; expected instances_*.json")
        try:
            content = json.loads(annotations.read_text(encoding="utf-8"))
            categories = sorted(content["categories"], key=lambda c: c["id"])
            self.names = [c["name"] for c in categories]
            self.category_ids = [int(c["id"]) for c in categories]
            label = {c: i for i, c in enumerate(self.category_ids)}
            boxes: dict[int, list[list[float]]] = {}
            known = {i["id"]: (i["file_name"], i["width"], i["height"]) for i in content["images"]}
            for item in content["annotations"]:
                if item.get("iscrowd"):
                    continue
                for name, listed in (("image_id", known), ("category_id", label)):
                    if item[name] not in listed:
                        raise ValueError(
                            f"an object has the {name} {item[name]}, which is not listed"
                        )
                x, y, w, h = map(float, item["bbox"])
                _, width, height = known[item["image_id"]]
                x1, y1 = max(x, 0.0), max(y, 0.0)
                x2, y2 = min(x + w, width), min(y + h, height)
                if x2 > x1 and y2 > y1 and all(map(math.isfinite, (x, y, w, h))):
                    kept = boxes.setdefault(item["image_id"], [])
                    kept.append([x1, y1, x2, y2, label[item["category_id"]]])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{annotations} is not a COCO file of objects: {type(error).__name__}: {error}"
            ) from error
        self.folder, self.annotations, self.transform = images, annotations, transform
        self.seed, self.epoch, self.repeat = seed, 0, repeat
        self.items = [i for i in content["images"] if not training or i["id"] in boxes][:limit]
        if not self.items:
            raise InputError(f"{annotations} has no image with a box")
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.items) * self.repeat

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        item = self.items[index % len(self.items)]
        image = open_image(self.folder / item["file_name"])
        if image.size != (item["width"], item["height"]):
            raise InputError(
                f"{self.folder / item['file_name']} has {image.size[0]}×{image.size[1]} pixels, "
                f"but {self.annotations.name} says {item['width']}×{item['height']}"
            )
        rows = torch.tensor(self.boxes.get(item["id"], []), dtype=torch.float32).reshape(-1, 5)
        size = (item["height"], item["width"])
        boxes = tv_tensors.BoundingBoxes(rows[:, :4], format="XYXY", canvas_size=size)
        sample = {"boxes": boxes, "labels": rows[:, 4].long()}
        if self.seed is None:
            tensor, found = self.transform(image, sample)
        else:
            with seeded(self.seed, self.epoch, index):
                tensor, found = self.transform(image, sample)
        return tensor.as_subclass(Tensor), {
            "boxes": found["boxes"].as_subclass(Tensor),
            "labels": found["labels"],
            "image_id": torch.tensor(item["id"]),
            "original": torch.tensor(size),
            "size": torch.tensor(tensor.shape[-2:]),
        }


def _finish() -> list[Any]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD)),
    ]


def _keep_ratio(shorter: int, longer: int) -> Any:
    """Resizes such that the shorter side is `shorter`, unless the longer exceeds `longer`."""
    return v2.Resize(shorter, max_size=longer, antialias=True)


def ssd_transform(size: int = 320, training: bool = True) -> Any:
    """Makes the transform of SSDLite (section 4.1).

    Expansion ×1–4 with the mean colour, IoU crop, resize without keeping the ratio, flip,
    photometric distortion, normalisation, in this order.

    Args:
        size: Side of the image.
        training: Without it, only resize and normalisation.
    """
    resize = v2.Resize((size, size), antialias=True)
    if not training:
        return v2.Compose([resize, *_finish()])
    fill = tuple(round(255 * c) for c in IMAGENET_MEAN)
    options = [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    return v2.Compose(
        [
            v2.RandomZoomOut(fill=fill, side_range=(1.0, 4.0)),
            v2.RandomIoUCrop(min_scale=0.3, sampler_options=options),
            v2.SanitizeBoundingBoxes(min_size=1),
            resize,
            v2.RandomHorizontalFlip(),
            photometric_distortion(),
            *_finish(),
        ]
    )


def retinanet_transform(shorter: int = 800, longer: int = 1333, training: bool = True) -> Any:
    """Makes the transform of RetinaNet (section 4.2): resize keeping the ratio, flip, normalise.

    Args:
        shorter: The shorter side.
        longer: The most for the longer side.
        training: Whether to flip.
    """
    flip = [v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes(min_size=1)] if training else []
    return v2.Compose([_keep_ratio(shorter, longer), *flip, *_finish()])


def collate_detection(
    batch: Sequence[tuple[Tensor, dict[str, Tensor]]], divisor: int = 32
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Stacks images, padded with 0 at the right and the bottom to a multiple of `divisor`.

    Args:
        batch: Images [3, H, W] and their objects.
        divisor: Of height and width.

    Returns:
        float [B, 3, H', W'] and the objects.
    """
    height, width = (
        -(-max(int(image.shape[d]) for image, _ in batch) // divisor) * divisor for d in (1, 2)
    )
    padded = [F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i, _ in batch]
    return torch.stack(padded), [target for _, target in batch]


METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The numbers of the official metric, in percent."""


def coco_metric(
    annotations: Path, detections: Sequence[Mapping[str, Any]], images: Sequence[int]
) -> dict[str, float]:
    """Computes the official box metric with pycocotools.

    Args:
        annotations: The annotation file.
        detections: `image_id`, `category_id` (official), `bbox` [x, y, w, h], `score`.
        images: The ids of the images that count.

    Returns:
        `METRICS` in percent; NaN where there is no object of that size.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        if not detections:
            return dict.fromkeys(METRICS, 0.0)
        evaluation = COCOeval(truth, truth.loadRes(list(map(dict, detections))), "bbox")
        evaluation.params.imgIds = sorted(images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(v) * 100 if v >= 0 else math.nan for v in evaluation.stats[:6]]
    return dict(zip(METRICS, values, strict=True))
