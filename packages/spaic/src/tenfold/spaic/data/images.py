"""Readers of image files: IDX, CIFAR-10, MedMNIST, ImageNet (section 13)."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.data.bounded import read_npz, unpacked
from tenfold.spaic.data.loading import Dataset
from tenfold.spaic.data.pickles import read_pickle


def read_idx(path: Path | str) -> np.ndarray:
    """Reads an IDX file of bytes, plain or gzip-compressed.

    Args:
        path: The file; its name may lack or have the ending `.gz`.

    Returns:
        uint8, of the shape in the file's header (images [n, rows, columns], labels [n]).

    Raises:
        InputError: If there is no such file, or it is not an IDX file of bytes.
    """
    path = Path(path)
    other = path.with_name(path.name + ".gz") if path.suffix != ".gz" else path.with_suffix("")
    found = path if path.is_file() else other
    try:
        content = unpacked(found)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as an IDX file ({error})") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] not in (1, 2, 3, 4):
        raise InputError(f"{found}: not an IDX file of bytes (it begins with {content[:4].hex()})")
    ndim = content[3]
    shape = struct.unpack(f">{ndim}I", content[4 : 4 + 4 * ndim])
    body = content[4 + 4 * ndim :]
    if len(body) != int(np.prod(shape)):
        raise InputError(f"{found}: the header says {shape}, but {len(body)} bytes follow")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


def read_cifar10(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of CIFAR-10: of the binary version, or of the Python version without running it.

    A record of `data_batch_1.bin` is a byte of the label and 3,072 of the image, red, green and
    blue one after another; `data_batch_1` is a pickle of a dict with `data` [n, 3072] and `labels`.

    Args:
        path: The file; one that ends in .bin is of the binary version.

    Returns:
        Images uint8 [n, 3, 32, 32] and labels int64 [n].

    Raises:
        InputError: If there is no such file, or it is not one of CIFAR-10.
    """
    path = Path(path)
    if path.suffix == ".bin":
        try:
            raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a file of CIFAR-10 ({error})") from error
        if not len(raw) or len(raw) % 3073:
            raise InputError(
                f"{path}: {len(raw)} bytes; expected records of 3,073 bytes (the binary version)"
            )
        rows = raw.reshape(-1, 3073)
        labels, images = rows[:, 0].astype(np.int64), rows[:, 1:]
    else:
        labels, images = _cifar10_python(path)
    if labels.min() < 0 or labels.max() > 9:
        wrong = int(np.flatnonzero((labels < 0) | (labels > 9))[0])
        raise InputError(f"{path}: record {wrong} has the label {labels[wrong]}; expected 0..9")
    return images.reshape(-1, 3, 32, 32), labels


def _cifar10_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [n] and images uint8 [n, 3072] of the Python version."""
    found = read_pickle(path)
    keys = {}
    if isinstance(found, dict):
        keys = {key.decode() if isinstance(key, bytes) else key: key for key in found}
    if not {"data", "labels"} <= keys.keys():
        raise InputError(f"{path}: expected a dict with `data` and `labels`")
    images, labels = np.asarray(found[keys["data"]]), np.asarray(found[keys["labels"]])
    fits = images.dtype == np.uint8 and images.ndim == 2 and images.shape[1] == 3072
    if not fits or labels.dtype.kind != "i" or labels.shape != (len(images),) or not len(images):
        raise InputError(
            f"{path}: data is {images.dtype} {images.shape} with labels {labels.shape}; expected "
            "uint8 [n, 3072] and a label each"
        )
    return labels.astype(np.int64), images


def normalised(images: np.ndarray) -> np.ndarray:
    """Normalises CIFAR-10's channels as the official loader does.

    Args:
        images: uint8 [n, 3, 32, 32].

    Returns:
        float32 of the same shape: (image/255 − mean)/deviation.
    """
    mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (CIFAR_MEAN, CIFAR_STD))
    return np.asarray((images.astype(np.float32) / 255 - mean) / std)


def read_medmnist(path: Path | str, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Reads a part of a MedMNIST file, for example `pathmnist.npz`; nothing in it can run code.

    Args:
        path: The file.
        part: train, val or test.

    Returns:
        Images uint8 [n, height, width(, 3)] and labels int64 [n].

    Raises:
        InputError: If the file or the part is missing, or its arrays do not fit together.
    """
    try:
        images, labels = read_npz(path, (f"{part}_images", f"{part}_labels"))
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of MedMNIST with {part!r} ({error})") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.size != len(images):
        raise InputError(
            f"{path}: {part}_images is {images.dtype} {images.shape} with {labels.size} labels; "
            "expected uint8 [n, height, width(, 3)] and a label each"
        )
    return images, labels.reshape(-1).astype(np.int64)


class ImageNet(Dataset):
    """ILSVRC2012 in folders, read image by image: `train/<wnid>/*.JPEG`, `val/*.JPEG`.

    A class is the place of its wnid (`n01440764`) among the sorted folders of `train`. The images
    of `val` lie in folders of their own, as those of `train`, or all in one, and then a text file
    says the wnid of each: a line `ILSVRC2012_val_00000001.JPEG n01751748`. (The official loader is
    unfinished; the tars are to be unpacked by hand.)

    Args:
        folder: The folder with `train` and `val`.
        part: train or val.
        size: The images' height and width: the shorter side is scaled to it, and the middle cut
            out. None leaves images as they are.
        mapping: The text file; by default `val.txt` in the folder.

    Raises:
        InputError: If folders or images are missing, or a line of the mapping does not fit.
    """

    def __init__(
        self,
        folder: Path | str,
        part: str = "train",
        size: int | None = 224,
        mapping: Path | str | None = None,
    ) -> None:
        folder = Path(folder)
        if part not in ("train", "val"):
            raise InputError(f"part={part!r}; expected 'train' or 'val'")
        if size is not None and size < 1:
            raise InputError(f"size={size}; expected None or >= 1 pixel")
        self.size = size
        self.wnids = sorted(p.name for p in (folder / "train").glob("*") if p.is_dir())
        if not self.wnids:
            raise InputError(f"{folder / 'train'} holds no folders of classes")
        labels = {wnid: k for k, wnid in enumerate(self.wnids)}
        root = folder / part
        inside = [(p, p.parent.name) for p in sorted(root.glob("*/*.JPEG"))]
        rows = inside or _mapped(root, Path(mapping or folder / "val.txt"))
        for path, wnid in rows:
            if wnid not in labels:
                raise InputError(f"{path}: class {wnid!r} is none of the folders of train")
        self.images = [path for path, _ in rows]
        self.labels = [labels[wnid] for _, wnid in rows]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Gives an image as uint8 [height, width, 3] (red, green, blue) and its class."""
        from PIL import Image, ImageOps

        path = self.images[index]
        try:
            with Image.open(path) as image:
                made = image.convert("RGB")  # some are grey, some have four channels
                if self.size is not None:
                    made = ImageOps.fit(made, (self.size, self.size), Image.Resampling.BILINEAR)
                return np.asarray(made), self.labels[index]
        except OSError as error:
            raise InputError(f"{path}: cannot be read as an image ({error})") from error

    def __len__(self) -> int:
        """Gives the number of images."""
        return len(self.images)


def _mapped(root: Path, mapping: Path) -> list[tuple[Path, str]]:
    """Pairs the images of one folder with the classes that a text file says."""
    try:
        lines = mapping.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{root} holds no <class>/*.JPEG, and {mapping} cannot be read ({error})"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = line.split()
        path = root / name
        if len(rest) != 1 or Path(name).name != name or not path.is_file():
            raise InputError(
                f"{mapping}, line {number}: {line!r}; expected an image of {root} and its wnid"
            )
        rows.append((path, rest[0]))
    if not rows:
        raise InputError(f"{mapping} names no image")
    return rows
