"""Reader of tactile recordings: Braille letters under a robot's finger (card section 13)."""

import gzip
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError

LETTERS = ("Space", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""The 27 classes, in the order of the published list."""

TAXELS = 12
_MOST = 1 << 30  # bytes of an unpacked file; the published one has some 10 MB


def read_braille(path: Path | str) -> tuple[list[np.ndarray], np.ndarray]:
    """Reads the Braille recordings of Müller-Cleve et al. (2022): 12 taxels, 27 letters, 50 times.

    The published file is a Python pickle of a list of dicts with `letter`, `repetition` and
    `taxel_data`. It is read by an unpickler that knows lists, dicts, numbers, text and arrays of
    numbers and refuses all else, so that no file can run code. The same list is also read as JSON,
    or as .npz with `letter` [n] and `taxel_data` [n, time, 12].

    Args:
        path: A .json, a .npz, or else the pickle, plain or gzip-compressed.

    Returns:
        For each recording float64 [time, 12], turned so that pressure is high: 1 − value/255; and
        the letters, int64 [n], by their places in `LETTERS`.

    Raises:
        InputError: If the file cannot be read, holds something else, or asks for code.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                columns = file["letter"].tolist(), file["taxel_data"]
            rows: Any = [
                {"letter": letter, "taxel_data": data}
                for letter, data in zip(*columns, strict=True)
            ]
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            rows = _Plain(io.BytesIO(_content(path))).load()
    except Exception as error:  # what a broken pickle raises depends on the byte that is broken
        raise InputError(f"{path}: cannot be read as Braille recordings ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of recordings, got {type(rows).__name__}")
    pairs = [_recording(row, f"{path}, recording {k}") for k, row in enumerate(rows)]
    return [data for data, _ in pairs], np.array([letter for _, letter in pairs])


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
            raw = packed.read(_MOST + 1)
    if len(raw) > _MOST:
        raise ValueError(f"more than {_MOST:,} bytes")
    return raw


def _recording(row: Any, where: str) -> tuple[np.ndarray, int]:
    if not isinstance(row, dict) or not {"letter", "taxel_data"} <= row.keys():
        told = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(f"{where}: {told}; expected `letter`, `repetition` and `taxel_data`")
    name = str(row["letter"]).strip() or "Space"
    name = name.capitalize() if len(name) > 1 else name.upper()
    if name not in LETTERS:
        raise InputError(f"{where}: letter {row['letter']!r}; expected Space or A to Z")
    try:
        data = np.asarray(row["taxel_data"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: taxel_data is not an array of numbers ({error})") from error
    if data.ndim != 2 or data.shape[1] != TAXELS or not len(data):
        raise InputError(f"{where}: taxel_data is {data.shape}; expected (time, {TAXELS})")
    if not (np.isfinite(data).all() and data.min() >= 0 and data.max() <= 255):
        raise InputError(f"{where}: taxel_data holds values outside 0..255")
    return 1 - data / 255, LETTERS.index(name)


class _Dtype:
    """Stands for numpy.dtype while a pickle is read: numbers only."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch("[biuf][1248]", name):
            raise pickle.UnpicklingError(f"an array of {name!r}; expected numbers")
        self.name, self.order = name, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype of parts; expected numbers")

    def filled(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.dtype(self.order + self.name))


class _Array(list[Any]):
    """Stands for numpy.ndarray while a pickle is read; becomes nested lists of numbers."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, turned, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without its bytes")
        made = dtype.filled(data).reshape(shape, order="F" if turned else "C")
        self[:] = made.tolist()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: str) -> list[Any]:
    made: list[Any] = dtype.filled(bytes(data)).reshape(shape, order=order).tolist()  # type: ignore[call-overload]
    return made


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.filled(data)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,  # how protocols 0 to 2 write bytes
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _Plain(pickle.Unpickler):
    """An unpickler to which only arrays of numbers are known; it calls nothing of the file."""

    def find_class(self, module: str, name: str) -> Any:
        """Gives the stand-in for a part of an array.

        Args:
            module: Where the file says that it is.
            name: What it is called there.

        Raises:
            UnpicklingError: For everything else.
        """
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]
