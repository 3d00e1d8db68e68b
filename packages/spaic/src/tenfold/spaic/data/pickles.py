"""Reader of published pickles that hold arrays of numbers; nothing of a file is ever run."""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.data.bounded import unpacked


def read_pickle(path: Path | str) -> Any:
    """Reads a pickle of lists, dicts, numbers, text and arrays of numbers, and refuses all else.

    A pickle names functions that are to be called with what stands in it. Here only stand-ins for
    the few that make NumPy's arrays are known, so that no file can run code. Text of Python 2 is
    read as bytes.

    Args:
        path: The file, plain or gzip-compressed.

    Returns:
        What is in it.

    Raises:
        InputError: If it cannot be read, or asks for anything else.
    """
    try:
        raw = unpacked(path)
        _look(raw)
        return _Plain(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # what a broken pickle raises depends on the byte that is broken
        raise InputError(f"{path}: cannot be read as a pickle of plain arrays ({error})") from error


def _look(raw: bytes) -> None:
    """Refuses numbers by which a few bytes would take gigabytes before anything is read."""
    for code, value, _ in pickletools.genops(raw):  # lengths that lead beyond the end it refuses
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(value or 0) > len(raw):
            raise pickle.UnpicklingError(f"place {value} of the memory in {len(raw)} bytes")


def _text(value: Any) -> Any:
    return value.decode("ascii") if isinstance(value, bytes) else value


class _Dtype:
    """Stands for numpy.dtype: numbers only."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        name = _text(name)
        if not isinstance(name, str) or not re.fullmatch("[biuf][1248]", name):
            raise pickle.UnpicklingError(f"an array of {name!r}; expected numbers")
        self.name, self.order = name, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype of parts; expected numbers")

    def filled(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.dtype(self.order + self.name))


class _Array:
    """Stands for numpy.ndarray; `np.asarray` gives the array."""

    made: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, turned, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without its bytes")
        self.made = dtype.filled(data).reshape(shape, order="F" if turned else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.made, dtype=dtype)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: str) -> np.ndarray:
    if not isinstance(data, bytes | bytearray):  # of a number `bytes` makes as many zeros
        raise pickle.UnpicklingError("an array without its bytes")
    made: np.ndarray = dtype.filled(bytes(data)).reshape(shape, order=order)  # type: ignore[call-overload]
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
