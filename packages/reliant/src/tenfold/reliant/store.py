"""What has been trained is kept in the user's cache folder, under a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor

from tenfold.shared.config import to_json
from tenfold.shared.files import replacing
from tenfold.shared.progress import message

Stored = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and plain values


def digest_of(*parts: Any) -> str:
    """A digest of tensors and plain values, and of the package's version.

    Args:
        *parts: tensors, or what JSON knows.
    """
    made = hashlib.sha256(metadata.version("tenfold-reliant").encode())
    for part in parts:
        if isinstance(part, Tensor):
            array = part.detach().cpu().contiguous().numpy()
            made.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            made.update(to_json(part).encode())
    return made.hexdigest()[:32]


def kept(kind: str, digest: str, make: Callable[[], Stored], fresh: bool = False) -> Stored:
    """Gives what is kept under a digest, or makes it and keeps it.

    Args:
        kind: ``teacher`` or ``student``.
        digest: from :func:`digest_of`.
        make: makes it.
        fresh: make it in any case.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = folder() / f"{kind}-{digest}.safetensors"
    if not fresh and path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                values = json.loads(file.metadata()["values"])
            message(f"{kind}: taken from {path}")
            return tensors, values
        except (SafetensorError, OSError, KeyError, ValueError):
            message(f"{kind}: {path} is damaged, and made again")
    tensors, values = make()
    # Copies, since a model's tensors may be views of one another.
    plain = {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(plain, temporary, {"values": to_json(values)})
    return plain, values


def folder() -> Path:
    """The package's folder in the user's cache."""
    return user_cache_path("tenfold", appauthor=False) / "reliant"
