"""Reads files of strangers in bounded memory: a few bytes may declare gigabytes."""

import gzip
import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

MOST = 1 << 30
"""Bytes of an unpacked file."""
MOST_ARRAYS = 4 << 30
"""Bytes of the arrays of a .npz, or 16 times the file if that is more."""


def unpacked(path: Path | str, most: int = MOST) -> bytes:
    """Reads a file, and unpacks it if it is gzip-compressed.

    Args:
        path: The file.
        most: As many bytes may come.

    Raises:
        ValueError: For more bytes.
        OSError: If it cannot be read or unpacked; EOFError and zlib.error too.
    """
    path = Path(path)
    size = path.stat().st_size
    if size <= most:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(most + 1)
        size = len(raw)
    if size > most:
        raise ValueError(f"more than {most:,} bytes")
    return raw


def read_npz(path: Path | str, names: Iterable[str], most: int | None = None) -> list[np.ndarray]:
    """Reads arrays of a .npz; pickled ones are refused.

    Args:
        path: The file.
        names: Those of the arrays.
        most: As many bytes the arrays may have together; `MOST_ARRAYS` by default.

    Raises:
        KeyError: If one is missing.
        ValueError: For more bytes, an array without its values, or one of objects.
        OSError: If it cannot be read; EOFError and zipfile.BadZipFile too.
    """
    names = list(names)
    if most is None:
        most = max(MOST_ARRAYS, 16 * Path(path).stat().st_size)
    total = 0
    with zipfile.ZipFile(path) as packed:
        for name in names:
            about = packed.getinfo(f"{name}.npy")
            with packed.open(about) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            total += size
            if size > about.file_size or total > most:
                raise ValueError(f"{name} declares {size:,} bytes; {about.file_size:,} are there")
    with np.load(path, allow_pickle=False) as file:
        return [np.asarray(file[name]) for name in names]
