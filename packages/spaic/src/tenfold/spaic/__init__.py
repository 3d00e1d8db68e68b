"""SPAIC: spiking networks, one front end for simulation and training (CIM 2024)."""

import importlib
from typing import Any

_HOMES = {
    "Network": "network.network",
    "NetworkModule": "network.torch_module",
    "Assembly": "network.objects",
    "BaseModule": "network.objects",
    "Backend": "network.backend",
    "Torch_Backend": "network.backend",
    "NeuronGroup": "network.groups",
    "NeuronModel": "model.neurons",
    "custom_model": "model.neurons",
    "model_names": "model.neurons",
    "operations_model": "model.neurons",
    "Connection": "network.connections",
    "Connectome": "network.connections",
    "read_connectome": "network.connections",
    "Initializer": "network.connections",
    "Projection": "network.connections",
    "IncludedTypePolicy": "network.connections",
    "ExcludedTypePolicy": "network.connections",
    "IndexConnectPolicy": "network.connections",
    "Module": "network.modules",
    "Encoder": "network.nodes",
    "Generator": "network.nodes",
    "Decoder": "network.nodes",
    "Action": "network.nodes",
    "Reward": "network.nodes",
    "Learner": "network.learners",
    "Rule": "network.learners",
    "GroupRule": "network.learners",
    "TraceRule": "network.learners",
    "Term": "network.learners",
    "finite_differences": "network.learners",
    "Surrogate": "network.learners",
    "network_save": "saving",
    "network_load": "saving",
    "save_state": "saving",
    "load_state": "saving",
    "from_relu": "conversion",
    "to_nir": "interchange",
    "from_nir": "interchange",
    "Dataset": "data",
    "Dataloader": "data",
    "GymEnvironment": "reinforcement",
    "RLPipeline": "reinforcement",
    "ReplayMemory": "reinforcement",
    "StateMonitor": "network.monitors",
    "SpikeMonitor": "network.monitors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
