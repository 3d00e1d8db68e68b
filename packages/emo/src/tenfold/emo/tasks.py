"""The three tasks: what each trains on, its loss, its metric. The training loop knows no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from tenfold.emo.data.ade20k import ADE20K, SegmentationMetric
from tenfold.emo.data.coco import (
    CocoDetection,
    coco_metric,
    collate_detection,
    retinanet_transform,
    ssd_transform,
)
from tenfold.emo.data.images import (
    EpochSampler,
    ImageFolder,
    digits,
    eval_transform,
    train_transform,
)
from tenfold.emo.data.shards import Shards, expand_braces, is_address, open_stream
from tenfold.emo.dense.detection import DETECTORS
from tenfold.emo.dense.segmentation import Segmentor
from tenfold.emo.model.backbone import MODELS
from tenfold.emo.model.checkpoints import load_checkpoint
from tenfold.emo.settings import TrainConfig
from tenfold.shared.datasets import data_root
from tenfold.shared.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Task(Protocol):
    """What the training loop asks of a task."""

    config: TrainConfig
    names: list[str]
    """The names of the classes."""
    metric: str
    """The metric that chooses the best epoch; larger is better."""

    def model(self) -> nn.Module:
        """Makes the network."""

    def train_data(self, rank: int, world: int) -> Any:
        """Gives the training data of a process."""

    def loss(self, model: Any, batch: Any) -> dict[str, Tensor]:
        """Computes the losses of a batch; their sum is minimised."""

    def evaluate(self, model: Any, fabric: Fabric) -> dict[str, float]:
        """Measures on the whole validation data."""

    def collate(self, batch: list[Any]) -> Any:
        """Makes a batch of samples."""


def task(config: TrainConfig) -> Task:
    """Makes the task of a run; files are looked for at once, so that what is missing is told early.

    Args:
        config: The run.

    Raises:
        InputError: If the model is unknown or the data is missing or of another form.
    """
    if config.model not in MODELS:
        raise InputError(did_you_mean(config.model, MODELS, kind="model"))
    if config.weights is not None and not config.weights.is_file():
        raise InputError(f"weights {config.weights}: there is no such file")
    kinds: dict[str, Any] = {
        "classification": Classification,
        "detection": Detection,
        "segmentation": Segmentation,
    }
    return kinds[config.task](config)


def model_options(config: TrainConfig) -> dict[str, Any]:
    """Gives what a run says about the backbone, as arguments of `EMO`."""
    window = config.window[0] if len(config.window) == 1 else list(config.window)
    rate = MODELS[config.model]["drop_path_rate"] if config.drop_path is None else config.drop_path
    return {"window": window, "drop_path_rate": rate}


def train_loader(task: Task, rank: int, world: int) -> DataLoader[Any]:
    """Makes the loader of an epoch's batches for one process."""
    config, data = task.config, task.train_data(rank, world)
    options: dict[str, Any] = {
        "batch_size": config.batch_size,
        "num_workers": config.workers,
        "collate_fn": task.collate,
        "drop_last": True,
    }
    if isinstance(data, IterableDataset):
        return DataLoader(data, **options)
    length = len(data) * (config.repeat if not isinstance(data, CocoDetection) else 1)
    if length // world < config.batch_size:
        raise InputError(
            f"{config.data}: {length} training images make no batch of {config.batch_size} on "
            f"{world} processes; take a smaller batch_size"
        )
    return DataLoader(data, sampler=EpochSampler(length, config.seed, rank, world), **options)


def steps_per_epoch(task: Task, loader: DataLoader[Any], world: int) -> int:
    """Counts the steps of an epoch."""
    config = task.config
    if not isinstance(loader.dataset, IterableDataset):
        return len(loader)
    if config.shard_samples is None:
        raise InputError("shard_samples is not given; shards need the number of training samples")
    steps = config.shard_samples * config.repeat // (config.batch_size * world)
    if steps < 1:
        raise InputError(f"shard_samples={config.shard_samples} make no batch; expected more")
    return steps


def batches_of(loader: Iterable[Any]) -> Iterator[Any]:
    """Gives a loader's batches; what a data worker refuses is told in its own words alone.

    Args:
        loader: A `DataLoader`, whose workers put their traceback into the text of an error.
    """
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


def _mine(data: Sized, fabric: Fabric) -> range:
    """Gives the indices that this process evaluates; each is evaluated once."""
    return range(fabric.global_rank, len(data), fabric.world_size)


def _gather(mine: Any, fabric: Fabric) -> list[Any]:
    """Collects an object of every process."""
    if fabric.world_size == 1:
        return [mine]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, mine)
    return found


def find_data(path: str) -> Path:
    """Finds the data as given, else under the folder of all data sets (`TENFOLD_DATA`)."""
    if is_address(path):
        return Path(path)
    at_home = data_root() / path
    return at_home if not Path(path).exists() and at_home.exists() else Path(path)


class Classification:
    """Label-smoothed cross-entropy; top-1 and top-5 accuracy in percent (section 3)."""

    metric = "top1"

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.root = find_data(config.data)
        self.shards = is_address(config.data) or (self.root / "classes.txt").is_file()
        self.transform = train_transform(config.image_size, config.randaugment, config.crop_scale)
        if config.data == "digits":
            self.val: Any = digits(config.image_size, test=True)
            self.names = self.val.classes
            return
        if config.in_chans != 3:
            raise InputError(f"in_chans={config.in_chans}; pictures are read as RGB, expected 3")
        transform = eval_transform(config.image_size, config.crop)
        if self.shards:
            self.names = self._classes()
            self.val = Shards(self._paths(config.val_split), transform, self.names)
            return
        if not self.root.exists():
            raise InputError(
                f"data {config.data!r} does not exist; expected digits, a folder or zip with "
                "<split>/<class>/ pictures, or a folder of tar shards with classes.txt"
            )
        self.names = ImageFolder(self.root, config.train_split, transform).classes
        self.val = ImageFolder(self.root, config.val_split, transform, classes=self.names)

    def _classes(self) -> list[str]:
        """Reads the names of the classes that lie beside the shards."""
        at = f"{self.config.data.rstrip('/')}/classes.txt"
        try:
            with open_stream(at if is_address(at) else self.root / "classes.txt") as file:
                text = file.read().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{at} cannot be read: {error}") from error
        return [name for name in text.splitlines() if name]

    def _paths(self, split: str) -> Sequence[Path | str]:
        """Gives the shards of a split."""
        if not is_address(self.config.data):
            return sorted(self.root.glob(f"{split}-*.tar"))
        if not split.endswith(".tar"):
            raise InputError(
                f"shards {split!r} at {self.config.data}; an address cannot be listed, expected "
                "their names, as in train_split='train-{000000..000146}.tar'"
            )
        return expand_braces(f"{self.config.data.rstrip('/')}/{split}")

    def model(self) -> nn.Module:
        """Makes the classifier."""
        made: Any = timm.create_model(
            self.config.model,
            num_classes=len(self.names),
            in_chans=self.config.in_chans,
            **model_options(self.config),
        )
        made.set_grad_checkpointing(self.config.checkpointing)
        if self.config.weights is not None:
            load_checkpoint(made, self.config.weights, fresh_head=True)
        return made

    def train_data(self, rank: int, world: int) -> Any:
        """Gives the training pictures."""
        config = self.config
        if config.data == "digits":
            return _Repeated(digits(config.image_size), config)
        if self.shards:
            return Shards(
                self._paths(config.train_split), self.transform, self.names, config.seed,
                rank=rank, world=world, batch=config.batch_size,
            )  # fmt: skip
        made = ImageFolder(self.root, config.train_split, self.transform, config.seed)
        return _Repeated(made, config)

    def collate(self, batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Stacks pictures and labels."""
        return torch.stack([x for x, _ in batch]), torch.tensor([y for _, y in batch])

    def loss(self, model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """0.9·NLL + 0.1·mean over the classes of −log p."""
        images, labels = batch
        logits = model(images)
        smoothing = self.config.smoothing
        return {"class": F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)}

    @torch.no_grad()
    def evaluate(self, model: Any, fabric: Fabric) -> dict[str, float]:
        """Gives `top1` and `top5` in percent."""
        counts = torch.zeros(3, dtype=torch.int64)
        if isinstance(self.val, Shards):
            data: Any = self.val if fabric.global_rank == 0 else []
            loader: Iterable[Any] = DataLoader(
                data, self.config.batch_size, collate_fn=self.collate
            )
        else:
            loader = DataLoader(
                self.val,
                self.config.batch_size,
                sampler=list(_mine(self.val, fabric)),
                num_workers=self.config.workers,
                collate_fn=self.collate,
            )
        for images, labels in batches_of(loader):
            logits = model(images.to(fabric.device)).float().cpu()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            counts += torch.stack([best[:, 0].sum(), best.any(1).sum(), torch.tensor(len(labels))])
        total = torch.stack(_gather(counts, fabric)).sum(0).tolist()
        return {"top1": 100 * total[0] / total[2], "top5": 100 * total[1] / total[2]}


class _Repeated(torch.utils.data.Dataset[Any]):
    """A data set that counts several times in an epoch; each time with other random numbers."""

    def __init__(self, data: Any, config: TrainConfig) -> None:
        self.data, self.repeat, self.epoch = data, config.repeat, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        lap, at = divmod(index, len(self.data))
        self.data.epoch = self.epoch * self.repeat + lap  # from which it draws its numbers
        return self.data[at]


class Detection:
    """SSDLite or RetinaNet on COCO; the official metric in percent (section 4)."""

    metric = "AP"

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.root = find_data(config.data)
        self.train = self._read(config.train_split, training=True)
        self.val = self._read(config.val_split, training=False)
        self.names = self.val.names
        if self.train.category_ids != self.val.category_ids:
            raise InputError(f"{config.data}: the splits have different categories")

    def _read(self, split: str, training: bool) -> CocoDetection:
        config = self.config
        if config.head == "ssdlite":
            transform = ssd_transform(config.image_size, training)
        else:
            longer = round(config.image_size * 1333 / 800)
            transform = retinanet_transform(config.image_size, longer, training)
        return CocoDetection(
            self.root / split,
            self.root / "annotations" / f"instances_{split}.json",
            transform,
            training,
            config.seed if training else None,
            config.limit,
            config.repeat if training else 1,
        )

    def model(self) -> nn.Module:
        """Makes the detector."""
        config = self.config
        options = model_options(config) | {"weights": config.weights}
        if config.head == "ssdlite":
            options["size"] = config.image_size
        made: Any = DETECTORS[config.head](config.model, len(self.names), **options)
        made.backbone.body.model.set_grad_checkpointing(config.checkpointing)
        return made

    def train_data(self, rank: int, world: int) -> Any:
        """Gives the training images."""
        return self.train

    def collate(self, batch: list[Any]) -> Any:
        """Stacks padded images."""
        return collate_detection(batch, 1 if self.config.head == "ssdlite" else 32)

    def loss(self, model: Any, batch: Any) -> dict[str, Tensor]:
        """The detector's own."""
        return cast("dict[str, Tensor]", model.loss(*batch))

    @torch.no_grad()
    def evaluate(self, model: Any, fabric: Fabric) -> dict[str, float]:
        """Gives the six numbers of the official metric."""
        rows: list[dict[str, Any]] = []
        loader = DataLoader(
            self.val,
            self.config.batch_size,
            sampler=list(_mine(self.val, fabric)),
            collate_fn=self.collate,
            num_workers=self.config.workers,
        )
        for images, targets in batches_of(loader):
            sizes = [tuple(t["size"].tolist()) for t in targets]
            for found, target in zip(
                model.detect(images.to(fabric.device), sizes), targets, strict=True
            ):
                rows += as_coco(found, target, self.val.category_ids)
        rows = [row for part in _gather(rows, fabric) for row in part]
        ids = [item["id"] for item in self.val.items]
        return coco_metric(self.val.annotations, rows, ids)


def as_coco(
    found: dict[str, Tensor], target: dict[str, Tensor], category_ids: list[int]
) -> list[dict[str, Any]]:
    """Turns detections into rows of a COCO result file, in pixels of the original image.

    Args:
        found: From `Detector.detect`.
        target: `image_id`, `original` and `size` (height, width before and after the resize).
        category_ids: The official ids of the labels.
    """
    scale = (target["original"] / target["size"]).flip(0).repeat(2)
    boxes = found["boxes"].cpu() * scale
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {
            "image_id": int(target["image_id"]),
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
        }
        for box, label, score in zip(
            boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
        )
    ]


class Segmentation:
    """A segmentor on ADE20K; mIoU, mAcc and aAcc in percent (section 5)."""

    metric = "mIoU"

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        read = partial(ADE20K, find_data(config.data), size=config.image_size)
        self.train = read(config.train_split, training=True, seed=config.seed)
        self.val = read(config.val_split, training=False)
        self.names = [str(k) for k in range(1, self.val.classes + 1)]

    def model(self) -> nn.Module:
        """Makes the segmentor; with several processes its BatchNorm is synchronised."""
        config = self.config
        options = model_options(config) | {"weights": config.weights}
        made: Any = Segmentor(config.model, config.head, len(self.names), **options)
        made.backbone.body.model.set_grad_checkpointing(config.checkpointing)
        if config.devices * config.num_nodes > 1:
            made = nn.SyncBatchNorm.convert_sync_batchnorm(made)
        return made

    def train_data(self, rank: int, world: int) -> Any:
        """Gives the training images."""
        return _Repeated(self.train, self.config)

    def collate(self, batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Stacks images and labels."""
        return torch.stack([x for x, _ in batch]), torch.stack([y for _, y in batch])

    def loss(self, model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The segmentor's own."""
        return cast("dict[str, Tensor]", model.loss(*batch))

    @torch.no_grad()
    def evaluate(self, model: Any, fabric: Fabric) -> dict[str, float]:
        """Gives `mIoU`, `mAcc`, `aAcc`; each image whole, logits resized to its labels."""
        metric = SegmentationMetric(len(self.names))
        for index in _mine(self.val, fabric):
            image, labels = self.val[index]
            logits = model(image[None].to(fabric.device)).float().cpu()
            logits = F.interpolate(
                logits, tuple(labels.shape), mode="bilinear", align_corners=False
            )
            metric.update(logits.argmax(1)[0], labels)
        counts = _gather(metric.matrix.confmat, fabric)
        metric.matrix.confmat = torch.stack([c.cpu() for c in counts]).sum(0)
        return metric.compute()
