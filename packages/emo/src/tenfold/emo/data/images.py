"""Pictures with labels: folders and zip archives of classes, and their transforms."""

from __future__ import annotations

import io
import random
import re
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
from torch.utils.data import Dataset, Sampler, get_worker_info

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
        return open_image(self.content(index), f"{self.root}:{name}")

    def content(self, index: int) -> bytes:
        """Reads the file of one picture, undecoded."""
        name, _ = self.items[index]
        if self.root.suffix != ".zip":
            return (self.root / name).read_bytes()
        # Each worker process opens the archive itself: a shared file position would be a race.
        worker = getattr(get_worker_info(), "id", -1)
        if self._zip is None or self._zip[0] != worker:
            self._zip = worker, zipfile.ZipFile(self.root)
        return self._zip[1].read(name)

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

    Raises:
        InputError: If timm has no such policy.
    """
    from timm.data import create_transform

    wrong = InputError(
        f"randaugment={randaugment!r} is no policy of timm; expected one such as "
        "'rand-m9-mstd0.5-inc1', or '' for none"
    )
    parts = randaugment.split("-")
    # timm leaves out the parts that it does not know, without a word.
    if parts[0] == "rand" and not all(re.fullmatch(r"[a-z]+\d[\d.]*", p) for p in parts[1:]):
        raise wrong
    try:
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
    except (AssertionError, KeyError, ValueError) as error:
        raise wrong from error


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
