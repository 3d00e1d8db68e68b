"""Reinforcement learning: environments, the pipeline of the nodes, spiking agents (section 14)."""

import importlib
from typing import Any

_HOMES = {
    "GymEnvironment": "environment",
    "RLPipeline": "pipeline",
    "ReplayMemory": "pipeline",
    "Transition": "pipeline",
    "SpikingActor": "ddpg",
    "DDPGConfig": "ddpg",
    "train_ddpg": "ddpg",
    "DQNConfig": "dqn",
    "train_dqn": "dqn",
    "PlaceCells": "rstdp",
    "RSTDPConfig": "rstdp",
    "rstdp_actor": "rstdp",
    "train_rstdp": "rstdp",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a part when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
