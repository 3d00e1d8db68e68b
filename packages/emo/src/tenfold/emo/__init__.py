"""EMO and EMOv2: mobile backbones. Importing this package registers the models in timm."""

import importlib
from typing import TYPE_CHECKING, Any

from tenfold.emo.model.backbone import EMO, MODELS
from tenfold.emo.model.block import i2RMB, iRMB

if TYPE_CHECKING:
    from tenfold.emo.inference import optimize_for_inference
    from tenfold.emo.model.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
    from tenfold.emo.profiling import profile

_HOMES = {
    "load_checkpoint": "model.checkpoints",
    "optimize_for_inference": "inference",
    "profile": "profiling",
    "read_checkpoint": "model.checkpoints",
    "save_checkpoint": "model.checkpoints",
}

__all__ = [
    "EMO",
    "MODELS",
    "i2RMB",
    "iRMB",
    "load_checkpoint",
    "optimize_for_inference",
    "profile",
    "read_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
