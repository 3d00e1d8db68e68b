"""ADE20K (SceneParsing): reading, transforms, and the metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tenfold.emo.data.images import open_image, photometric_distortion, seeded
from tenfold.emo.dense.segmentation import IGNORE
from tenfold.emo.model.backbone import IMAGENET_MEAN, IMAGENET_STD
from tenfold.shared.errors import InputError

CLASSES = 150


def read_labels(path: Path, classes: int = CLASSES) -> Tensor:
    """Reads a label image: 0 becomes 255 (ignored), the others count down by one.

    Args:
        path: A PNG of one 8-bit channel with the values 0 (other) to `classes`; a palette's
            indices are taken as they are.
        classes: The number of classes.

    Returns:
        int64 [H, W] with 0 … classes − 1 and 255.

    Raises:
        InputError: If the file is missing, has another form (16 bit, colour), or other values.
    """
    try:
        with Image.open(path) as image:
            mode, array = image.mode, np.asarray(image)
    except FileNotFoundError as error:
        raise InputError(f"label image {path} is missing") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"label image {path} is damaged: {error}") from error
    if mode not in ("L", "P") or array.ndim != 2:
        raise InputError(f"label image {path} has the mode {mode}; expected one 8-bit channel")
    if array.max(initial=0) > classes:
        raise InputError(f"label image {path} has the label {array.max()}; expected 0 to {classes}")
    # The shift happens here and nowhere else.
    labels = array.astype(np.int64) - 1
    labels[labels < 0] = IGNORE
    return torch.from_numpy(labels)


class ADE20K(Dataset[tuple[Tensor, Tensor]]):
    """Pictures `images/<split>/*.jpg` with label images `annotations/<split>/*.png`.

    Args:
        root: The folder `ADEChallengeData2016`; without split folders the files lie directly in
            `images` and `annotations`.
        split: `training` or `validation`.
        training: Whether the training transform is applied.
        size: Side of the crop in training; the shorter side in validation.
        seed: As in `ImageFolder`.
        classes: The number of classes.

    Raises:
        InputError: If folders or label images are missing, or sizes differ.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        training: bool,
        size: int = 512,
        seed: int | None = None,
        classes: int = CLASSES,
    ) -> None:
        images, labels = root / "images" / split, root / "annotations" / split
        if not images.is_dir():
            images, labels = root / "images", root / "annotations"
        self.items = [(path, labels / f"{path.stem}.png") for path in sorted(images.glob("*.jpg"))]
        if not self.items:
            raise InputError(f"{images} holds no .jpg; expected those of ADEChallengeData2016")
        self.training, self.size, self.seed, self.epoch = training, size, seed, 0
        self.classes = classes
        self.finish = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD)),
            ]
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, where = self.items[index]
        image, labels = open_image(path), read_labels(where, self.classes)
        if image.size != (labels.shape[1], labels.shape[0]):
            raise InputError(
                f"{path} has {image.size[0]}×{image.size[1]} pixels, but {where} has "
                f"{labels.shape[1]}×{labels.shape[0]}"
            )
        if not self.training:
            # The labels keep their size: the metric compares with resized logits.
            tensor = self.finish(v2.Resize(self.size, max_size=4 * self.size)(image))
            return tensor.as_subclass(Tensor), labels
        if self.seed is None:
            return self._augment(image, labels)
        with seeded(self.seed, self.epoch, index):
            return self._augment(image, labels)

    def _augment(self, image: Image.Image, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Section 5: resize by 0.5–2.0 of (2048, 512), crop, flip, distortion, padding."""
        size = self.size
        ratio = 0.5 + 1.5 * torch.rand(()).item()
        scale = min(4 * size * ratio / max(image.size), size * ratio / min(image.size))
        shape = [max(1, round(image.size[1] * scale)), max(1, round(image.size[0] * scale))]
        pair: Any = (image, tv_tensors.Mask(labels))
        pair = v2.Resize(shape)(*pair)
        for _ in range(10):  # no class above 75 % of the labelled crop, if ten tries find one
            top, left, height, width = _random_crop(shape, size)
            part = pair[1][top : top + height, left : left + width]
            counts = torch.bincount(part[part != IGNORE].flatten())
            if (counts > 0).sum() > 1 and counts.max() / counts.sum() < 0.75:
                break
        crop = [v2.functional.crop(t, top, left, height, width) for t in pair]
        image, labels = v2.Compose([v2.RandomHorizontalFlip(), photometric_distortion()])(*crop)
        tensor = self.finish(image).as_subclass(Tensor)
        right, down = size - tensor.shape[2], size - tensor.shape[1]
        return F.pad(tensor, (0, right, 0, down)), F.pad(
            labels.as_subclass(Tensor), (0, right, 0, down), value=IGNORE
        )


def _random_crop(shape: list[int], size: int) -> tuple[int, int, int, int]:
    """Draws top, left, height and width of a crop of at most `size`."""
    height, width = min(size, shape[0]), min(size, shape[1])
    top = int(torch.randint(0, shape[0] - height + 1, ()))
    left = int(torch.randint(0, shape[1] - width + 1, ()))
    return top, left, height, width


class SegmentationMetric:
    """mIoU, mean accuracy and pixel accuracy over a whole data set, in percent.

    The confusion matrix is torchmetrics'; classes that occur neither in labels nor in predictions
    count nowhere.

    Args:
        classes: The number of classes.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.matrix = MulticlassConfusionMatrix(classes, ignore_index=IGNORE)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts one image or batch: int64 [..., H, W] both."""
        self.matrix.update(predicted.flatten().cpu(), labels.flatten().cpu())

    def compute(self) -> dict[str, float]:
        """Gives `mIoU`, `mAcc` and `aAcc`."""
        counts = self.matrix.compute().double()
        hit, truth, found = counts.diag(), counts.sum(1), counts.sum(0)
        union = truth + found - hit
        iou, accuracy = (hit / union)[union > 0], (hit / truth)[truth > 0]
        total = hit.sum() / counts.sum()
        return {
            "mIoU": 100 * iou.mean().item(),
            "mAcc": 100 * accuracy.mean().item(),
            "aAcc": 100 * total.item(),
        }
