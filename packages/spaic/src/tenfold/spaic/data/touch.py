"""Reader of tactile recordings: Braille letters under a robot's finger (card section 13)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.data.bounded import read_npz
from tenfold.spaic.data.pickles import read_pickle

LETTERS = ("Space", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""The 27 classes, in the order of the published list."""

TAXELS = 12


def read_braille(path: Path | str) -> tuple[list[np.ndarray], np.ndarray]:
    """Reads the Braille recordings of Müller-Cleve et al. (2022): 12 taxels, 27 letters, 50 times.

    The published file is a Python pickle of a list of dicts with `letter`, `repetition` and
    `taxel_data`; it is read without running anything (`read_pickle`). The same list is also read as
    JSON, or as .npz with `letter` [n] and `taxel_data` [n, time, 12].

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
            letters, taxels = read_npz(path, ("letter", "taxel_data"))
            columns = letters.tolist(), taxels
            rows: Any = [
                {"letter": letter, "taxel_data": data}
                for letter, data in zip(*columns, strict=True)
            ]
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            rows = read_pickle(path)
    except InputError:
        raise
    except Exception as error:  # of JSON, of zip archives, of NumPy
        raise InputError(f"{path}: cannot be read as Braille recordings ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of recordings, got {type(rows).__name__}")
    pairs = [_recording(row, f"{path}, recording {k}") for k, row in enumerate(rows)]
    return [data for data, _ in pairs], np.array([letter for _, letter in pairs])


def _recording(row: Any, where: str) -> tuple[np.ndarray, int]:
    if not isinstance(row, dict) or not {"letter", "taxel_data"} <= row.keys():
        told = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(f"{where}: {told}; expected `letter`, `repetition` and `taxel_data`")
    name = str(row["letter"]).strip() or "Space"
    name = name.capitalize() if len(name) > 1 else name.upper()
    if name not in LETTERS:
        raise InputError(f"{where}: letter {row['letter']!r}; expected Space or A to Z")
    try:
        data = np.array(row["taxel_data"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: taxel_data is not an array of numbers ({error})") from error
    if data.ndim != 2 or data.shape[1] != TAXELS or not len(data):
        raise InputError(f"{where}: taxel_data is {data.shape}; expected (time, {TAXELS})")
    if not (np.isfinite(data).all() and data.min() >= 0 and data.max() <= 255):
        raise InputError(f"{where}: taxel_data holds values outside 0..255")
    return 1 - data / 255, LETTERS.index(name)
