"""Readers of image files: IDX, CIFAR-10's binary version, MedMNIST (card section 13)."""

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np

from tenfold.shared.errors import InputError


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
        raw = found.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
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
    """Reads a file of CIFAR-10's binary version, which holds no pickles: `data_batch_1.bin`, ...

    A record is a byte of the label and 3,072 of the image, red, green and blue one after another.

    Args:
        path: The file.

    Returns:
        Images uint8 [n, 3, 32, 32] and labels int64 [n].

    Raises:
        InputError: If there is no such file, or it is not one of CIFAR-10.
    """
    try:
        raw = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a file of CIFAR-10 ({error})") from error
    if not len(raw) or len(raw) % 3073:
        raise InputError(
            f"{path}: {len(raw)} bytes; expected records of 3,073 bytes (the binary version)"
        )
    rows = raw.reshape(-1, 3073)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise InputError(f"{path}: record {int(labels.argmax())} has the label {labels.max()} > 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32), labels


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
        with np.load(path, allow_pickle=False) as file:
            images, labels = file[f"{part}_images"], file[f"{part}_labels"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of MedMNIST with {part!r} ({error})") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.size != len(images):
        raise InputError(
            f"{path}: {part}_images is {images.dtype} {images.shape} with {labels.size} labels; "
            "expected uint8 [n, height, width(, 3)] and a label each"
        )
    return images, labels.reshape(-1).astype(np.int64)
