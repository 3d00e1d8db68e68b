"""Pictures with labels: folders and zip archives of classes, tar shards, and their transforms."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from tenfold.emo.model.backbone import IMAGENET_MEAN, IMAGENET_STD
from tenfold.shared.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

Transform = Callable[[Image.Image], Tensor]


def open_image(source: Path | str | bytes, name: str = "") -> Image.Image:
    """Reads a picture as RGB; grayscale, palette and CMYK pictures are converted.

    Args:
        source: The file, or its content.
        name: What the error calls it; by default the path.

    Raises:
        InputError: If it is missing, truncated, or no picture; the message names it.
    """
    name = name or str(source)[:200]
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name} is damaged or no picture: {error}") from error


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Lists the pictures among files and folders (searched through), sorted.

    Args:
        paths: Files and folders.

    Raises:
        InputError: If a path does not exist or a folder holds no picture.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
            if not inside:
                raise InputError(f"{path} holds no picture ({', '.join(ENDINGS)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: there is no such file or folder")
    return found


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures in `<split>/<class>/…`, in a folder or a zip archive; classes in sorted order.

    ImageNet has this form (`train/<synset>/*.JPEG`), and so has CIFAR-10 as JPEG (one zip).

    Args:
        root: The folder or the zip archive.
        split: The folder inside, e.g. `train`.
        transform: From picture to tensor.
        seed: If given, the random numbers of `transform` depend on it, on the epoch and on the
            index alone, so any number of workers gives the same tensors.
        classes: The names in order; by default the folders found.

    Raises:
        InputError: If there is no such folder, it is empty, or it has other classes.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        transform: Transform,
        seed: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root, self.transform, self.seed, self.epoch = Path(root), transform, seed, 0
        self._zip: tuple[int, zipfile.ZipFile] | None = None
        if self.root.suffix == ".zip":
            if not self.root.is_file():
                raise InputError(f"{root}: there is no such file")
            try:
                with zipfile.ZipFile(self.root) as archive:
                    names = archive.namelist()
            except zipfile.BadZipFile as error:
                raise InputError(f"{root} is not a zip archive: {error}") from error
        else:
            folder = self.root / split
            if not folder.is_dir():
                raise InputError(f"{folder}: there is no such folder; expected <class>/*.jpg in it")
            names = [p.relative_to(self.root).as_posix() for p in folder.rglob("*") if p.is_file()]
        found, prefix = [], split.strip("/") + "/"
        for name in names:
            label, slash, _ = name.removeprefix(prefix).partition("/")
            if slash and name.startswith(prefix) and name.lower().endswith(ENDINGS):
                found.append((label, name))
        found.sort()
        if not found:
            raise InputError(f"{root} holds no pictures in {split}/<class>/")
        own = sorted({label for label, _ in found})
        self.classes = list(own if classes is None else classes)
        if unknown := sorted(set(own) - set(self.classes)):
            raise InputError(
                f"{root}/{split} has the class {unknown[0]!r} ({len(own)} classes), expected "
                f"some of {len(self.classes)}: {', '.join(self.classes[:5])}…"
            )
        index = {label: i for i, label in enumerate(self.classes)}
        self.items = [(name, index[label]) for label, name in found]

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> Image.Image:
        """Reads one picture, untransformed."""
        name, _ = self.items[index]
        if self.root.suffix != ".zip":
            return open_image(self.root / name)
        # Each worker process opens the archive itself: a shared file position would be a race.
        worker = getattr(get_worker_info(), "id", -1)
        if self._zip is None or self._zip[0] != worker:
            self._zip = worker, zipfile.ZipFile(self.root)
        return open_image(self._zip[1].read(name), f"{self.root}:{name}")

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.read(index)
        if self.seed is None:
            return self.transform(image), self.items[index][1]
        with seeded(self.seed, self.epoch, index):
            return self.transform(image), self.items[index][1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_zip": None}


class TensorImages(Dataset[tuple[Tensor, int]]):
    """Pictures that are tensors already: float [N, C, H, W] and labels [N]."""

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        self.images, self.labels, self.classes = images, labels, list(classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


class Shards(IterableDataset[tuple[Tensor, int]]):
    """Pictures in tar shards as webdataset writes them, read as a stream.

    A sample is a run of members with one stem: `<key>.jpg` (or png, …) and `<key>.cls`, the
    label's number as text. Nothing but pictures and numbers is decoded. Each process and each
    data worker reads its own shards, so the data may be larger than any disk it is read from.

    Args:
        paths: The tar files, in order; at least as many as processes × workers.
        transform: From picture to tensor.
        classes: The names of the labels.
        seed: Seeds the order of the shards, the shuffle buffer and `transform` in each epoch;
            None keeps the order (evaluation).
        buffer: Samples in the shuffle buffer.
        rank: This process.
        world: The number of processes.

    Raises:
        InputError: If there are too few shards, or a shard is damaged or holds something else.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        transform: Transform,
        classes: Sequence[str],
        seed: int | None = None,
        buffer: int = 1000,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        missing = [path for path in paths if not path.is_file()]
        if not paths or missing:
            raise InputError(f"shards: {missing[0] if missing else 'none given'} cannot be found")
        if len(paths) < world:
            raise InputError(
                f"{len(paths)} shards for {world} processes; expected at least one each"
            )
        self.paths, self.transform, self.classes = list(paths), transform, list(classes)
        self.seed, self.buffer, self.rank, self.world, self.epoch = seed, buffer, rank, world, 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        count, this = (worker.num_workers, worker.id) if worker else (1, 0)
        paths = list(self.paths)
        order = random.Random(f"{self.seed} {self.epoch}")
        if self.seed is not None:
            order.shuffle(paths)
        mine = paths[self.rank :: self.world][this::count]
        held: list[tuple[str, bytes, int]] = []
        for sample in (s for path in mine for s in self._samples(path)):
            held.append(sample)
            if self.seed is None or len(held) >= self.buffer:
                at = order.randrange(len(held)) if self.seed is not None else 0
                yield self._decode(*held.pop(at))
        if self.seed is not None:
            order.shuffle(held)
        yield from (self._decode(*sample) for sample in held)

    def _samples(self, path: Path) -> Iterator[tuple[str, bytes, int]]:
        """Streams a shard: key, encoded picture, label."""
        parts: dict[str, bytes] = {}
        key = ""
        try:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    stem, _, ending = member.name.rpartition(".")
                    if not member.isfile():
                        continue
                    if stem != key and parts:
                        yield self._complete(path, key, parts)
                        parts = {}
                    key = stem
                    content = tar.extractfile(member)
                    parts[ending.lower()] = content.read() if content else b""
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise InputError(f"shard {path} is damaged: {error}") from error
        if parts:
            yield self._complete(path, key, parts)

    def _complete(self, path: Path, key: str, parts: dict[str, bytes]) -> tuple[str, bytes, int]:
        name = f"{path}:{key}"
        picture = next((parts[e] for e in parts if f".{e}" in ENDINGS), None)
        label = parts.get("cls", b"").strip()
        if picture is None or not label.isdigit() or int(label) >= len(self.classes):
            raise InputError(
                f"{name} has the parts {', '.join(sorted(parts))}; expected a picture and .cls "
                f"with a number below {len(self.classes)}"
            )
        return name, picture, int(label)

    def _decode(self, name: str, picture: bytes, label: int) -> tuple[Tensor, int]:
        image = open_image(picture, name)
        if self.seed is None:
            return self.transform(image), label
        with seeded(self.seed, self.epoch, zlib.crc32(name.rpartition("/")[2].encode())):
            return self.transform(image), label


def write_shards(
    dataset: ImageFolder, folder: Path, per_shard: int = 1000, quality: int = 95
) -> list[Path]:
    """Writes pictures as tar shards that `Shards` and webdataset read.

    Args:
        dataset: The pictures.
        folder: Where the shards go.
        per_shard: Samples in each.
        quality: Of the JPEGs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(dataset), per_shard):
        path = folder / f"shard-{start // per_shard:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for index in range(start, min(start + per_shard, len(dataset))):
                picture = io.BytesIO()
                dataset.read(index).save(picture, "JPEG", quality=quality)
                label = str(dataset.items[index][1]).encode()
                for ending, content in (("jpg", picture.getvalue()), ("cls", label)):
                    info = tarfile.TarInfo(f"{index:08d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        paths.append(path)
    return paths


class EpochSampler(Sampler[int]):
    """The order of an epoch, from seed and epoch alone, shared among processes.

    Args:
        length: Number of samples.
        seed: None keeps the order.
        rank: This process.
        world: The number of processes.
        drop: Leaves out the rest that does not divide by `world`; otherwise a few are repeated.
    """

    def __init__(
        self, length: int, seed: int | None, rank: int = 0, world: int = 1, drop: bool = True
    ) -> None:
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.drop, self.epoch = drop, 0

    def __len__(self) -> int:
        return self.length // self.world if self.drop else -(-self.length // self.world)

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.length)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
        total = len(self) * self.world
        order = order.repeat(-(-total // max(self.length, 1)))[:total]
        return iter(order[self.rank :: self.world].tolist())


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seeds Python, NumPy and torch from some numbers while the block runs, then restores them."""
    seed = zlib.crc32(repr(numbers).encode())
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - timm's augmentations draw from the global generator
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def train_transform(
    size: int, randaugment: str = "rand-m9-mstd0.5-inc1", scale: float = 0.08
) -> Transform:
    """Makes the training transform of section 3, from timm.

    Args:
        size: Side of the crop.
        randaugment: timm's policy; empty for none.
        scale: The smallest share of the picture that a crop takes.
    """
    from timm.data import create_transform

    return create_transform(
        size,
        is_training=True,
        scale=(scale, 1.0),
        hflip=0.5,
        color_jitter=0.0,
        auto_augment=randaugment or None,
        interpolation="random",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        re_prob=0.0,
    )


def eval_transform(size: int, crop: float = 0.875) -> Transform:
    """Makes the test transform of section 3: shorter side size / crop, bicubic, centre crop.

    Args:
        size: Side of the crop.
        crop: Its share of the shorter side.
    """
    from timm.data import create_transform

    return create_transform(
        size,
        is_training=False,
        crop_pct=crop,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def photometric_distortion() -> Any:
    """Makes the distortion of sections 4.1 and 5, each part with probability 0.5.

    Brightness ±32 of 255 by `ShiftBrightness`; contrast and saturation by 0.5–1.5, hue ±18 of 360
    degrees and a permutation of the channels by torchvision, whose contrast mixes with the mean.
    """
    from torchvision.transforms import v2

    return v2.Compose([ShiftBrightness(32), v2.RandomPhotometricDistort(brightness=(1.0, 1.0))])


class ShiftBrightness(nn.Module):
    """Adds the same whole number to all pixels of a picture, with probability 0.5.

    Args:
        most: The number is between -most and most, of 255.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, image: Image.Image, *others: Any) -> Any:
        """Gives the RGB picture, clipped to 0–255, and whatever else there is, unchanged."""
        if torch.rand(()) < 0.5:
            shift = int(torch.randint(-self.most, self.most + 1, ()))
            image = image.point([min(max(value + shift, 0), 255) for value in range(256)] * 3)
        return (image, *others) if others else image


def digits(size: int = 32, test: bool = False) -> TensorImages:
    """The handwritten digits that come with scikit-learn, enlarged; 1,437 to train, 360 to test.

    Args:
        size: Side in pixels.
        test: Which part.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=360, random_state=0, stratify=y)
    x, y = (parts[1], parts[3]) if test else (parts[0], parts[2])
    images = torch.from_numpy(x).float().reshape(-1, 1, 8, 8) / 8 - 1
    images = torch.nn.functional.interpolate(images, (size, size), mode="bilinear")
    return TensorImages(images, torch.from_numpy(y).long(), [str(k) for k in range(10)])
