"""EMO and EMOv2: mobile backbones. The models are in timm as soon as both are imported.

Importing timm and torch takes seconds, so nothing here imports them before they are needed: a
public name is imported when it is first used, and the models are registered right after timm has
been imported, by whomever.
"""

import importlib
import importlib.abc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.emo.inference import optimize_for_inference
    from tenfold.emo.model.backbone import EMO, MODELS
    from tenfold.emo.model.block import i2RMB, iRMB
    from tenfold.emo.model.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
    from tenfold.emo.profiling import profile

_HOMES = {
    "EMO": "model.backbone",
    "MODELS": "model.backbone",
    "i2RMB": "model.block",
    "iRMB": "model.block",
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
    """Imports a public name when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register() -> None:
    """Registers the models in timm."""
    importlib.import_module(f"{__name__}.model.backbone")


class _AfterTimm(importlib.abc.MetaPathFinder):
    """Finds timm as it would be found anyway, and has the models registered after its import.

    Looking for timm is not importing it, so this finder stays until timm has been loaded.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Gives the usual spec of timm, whose loader then registers; None for everything else."""
        if name != "timm" or self not in sys.meta_path:
            return None
        # Only the finders after this one are asked: those before it have been, and asking all
        # would ask this one again.
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: Any) -> None:
                load(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if "timm" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterTimm())
