"""TENET: motion forecasting on Argoverse 2 (first place of the 2022 challenge)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.tenet.data.cache import open_cache, preprocess
    from tenfold.tenet.data.maps import LaneMap, read_map, write_map
    from tenfold.tenet.data.scenario import Scenario, read_scenario, write_scenario
    from tenfold.tenet.data.scene import Scene, SceneConfig, SceneStore, make_scene
    from tenfold.tenet.data.sensor import read_sensor_log, windows
    from tenfold.tenet.evaluation import (
        Submission,
        make_submission,
        read_ground_truth,
        read_submission,
        score,
        scores,
        write_submission,
    )
    from tenfold.tenet.export import export_model
    from tenfold.tenet.kmeans_ensemble import EnsembleConfig, ensemble, ensemble_submissions
    from tenfold.tenet.model import ModelConfig, Tenet, model_config
    from tenfold.tenet.prediction import PredictConfig, predict
    from tenfold.tenet.scenes import load_scenes
    from tenfold.tenet.training import TrainConfig, Training

_HOMES = {
    "EnsembleConfig": "kmeans_ensemble",
    "LaneMap": "data.maps",
    "ModelConfig": "model",
    "PredictConfig": "prediction",
    "Scenario": "data.scenario",
    "Scene": "data.scene",
    "SceneConfig": "data.scene",
    "SceneStore": "data.scene",
    "Submission": "evaluation",
    "Tenet": "model",
    "TrainConfig": "training",
    "Training": "training",
    "ensemble": "kmeans_ensemble",
    "ensemble_submissions": "kmeans_ensemble",
    "export_model": "export",
    "load_scenes": "scenes",
    "make_scene": "data.scene",
    "make_submission": "evaluation",
    "model_config": "model",
    "open_cache": "data.cache",
    "predict": "prediction",
    "preprocess": "data.cache",
    "read_ground_truth": "evaluation",
    "read_map": "data.maps",
    "read_scenario": "data.scenario",
    "read_sensor_log": "data.sensor",
    "read_submission": "evaluation",
    "score": "evaluation",
    "scores": "evaluation",
    "windows": "data.sensor",
    "write_map": "data.maps",
    "write_scenario": "data.scenario",
    "write_submission": "evaluation",
}

__all__ = [
    "EnsembleConfig",
    "LaneMap",
    "ModelConfig",
    "PredictConfig",
    "Scenario",
    "Scene",
    "SceneConfig",
    "SceneStore",
    "Submission",
    "Tenet",
    "TrainConfig",
    "Training",
    "ensemble",
    "ensemble_submissions",
    "export_model",
    "load_scenes",
    "make_scene",
    "make_submission",
    "model_config",
    "open_cache",
    "predict",
    "preprocess",
    "read_ground_truth",
    "read_map",
    "read_scenario",
    "read_sensor_log",
    "read_submission",
    "score",
    "scores",
    "windows",
    "write_map",
    "write_scenario",
    "write_submission",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
