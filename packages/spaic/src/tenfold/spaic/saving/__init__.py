"""Saving and loading: the weights as safetensors, the structure as JSON or YAML (section 12)."""

from tenfold.spaic.saving.building import network_from_dict
from tenfold.spaic.saving.description import network_to_dict
from tenfold.spaic.saving.files import network_load, network_save
from tenfold.spaic.saving.state import load_state, save_state

__all__ = [
    "load_state",
    "network_from_dict",
    "network_load",
    "network_save",
    "network_to_dict",
    "save_state",
]
