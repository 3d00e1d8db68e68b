"""Compiling generated loops with numba, kept on disk between processes where that is possible."""

import hashlib
import os
import sys
import types
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.files import write_atomic

_IMPORTS = """from numba import njit as _njit
import numpy as np
{imports}
njit = _njit(nogil=True, error_model="numpy", cache={cache})
"""
_CALLED = ("scalars", "draws", "delivery")
"""The modules of compiled functions that a loop may call."""
_MADE: dict[str, Any] = {}


@lru_cache
def _folder() -> Path | None:
    """Where compiled loops are kept; None if nothing can be written there."""
    from platformdirs import user_cache_path

    folder = user_cache_path("tenfold", appauthor=False) / "spaic"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:
        return None
    return folder


def compiled(body: str, constants: dict[str, np.generic]) -> Any:
    """Compiles a text that defines `loop`; the same text is compiled once.

    Args:
        body: Functions marked `@njit`; the text was written by an engine from checked expressions.
        constants: Name → number of the working precision.

    Returns:
        The function `loop`.
    """
    numbers = "".join(f"{k} = np.{v.dtype.name}({float(v)!r})\n" for k, v in constants.items())
    text = numbers + body
    if text in _MADE:
        return _MADE[text]
    folder = _folder()
    imports = "\n".join(f"from tenfold.spaic.engines.{name} import *" for name in _CALLED)
    text_all = _IMPORTS.format(cache=folder is not None, imports=imports) + text
    filename, name = "<tenfold.spaic>", f"tenfold_spaic_loop_{len(_MADE)}"
    if folder is not None:
        sources = [Path(__file__).with_name(f"{name}.py") for name in _CALLED]
        seen = hashlib.sha256(text_all.encode())
        for source in sources:  # what the loop calls is part of what was compiled
            seen.update(source.read_bytes())
        path = folder / f"loop_{seen.hexdigest()[:24]}.py"
        filename, name = str(path), f"tenfold_spaic_{path.stem}"
        try:
            if not path.is_file():
                write_atomic(path, text_all)
        except OSError:
            folder, filename = None, "<tenfold.spaic>"
            text_all = _IMPORTS.format(cache=False, imports=imports) + text
    # numba finds a kept function's globals through a module of this name.
    module = sys.modules.setdefault(name, types.ModuleType(name))
    exec(compile(text_all, filename, "exec"), module.__dict__)  # the text above, not the file
    _MADE[text] = module.__dict__["loop"]
    return _MADE[text]
