"""The network and the baselines."""

from tenfold.tenet.model.network import (
    SIZES,
    Forecast,
    ModelConfig,
    Tenet,
    model_config,
    world_logits,
)

__all__ = ["SIZES", "Forecast", "ModelConfig", "Tenet", "model_config", "world_logits"]
