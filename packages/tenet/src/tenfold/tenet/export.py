"""Export to other runtimes: one file that takes any number of scenes, agents and polylines."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing
from tenfold.tenet.data.generated import generate
from tenfold.tenet.data.scene import Batch, SceneConfig, SceneStore, make_scene
from tenfold.tenet.model import Tenet

INPUTS = {
    "state": "agents",
    "valid": "agents",
    "object_type": "agents",
    "is_av": "agents",
    "lines": "lines",
    "line_kind": "lines",
    "in_intersection": "lines",
    "half_width": "lines",
    "line_valid": "lines",
}
"""The inputs of an exported file in their order, and what their second axis counts. Shapes, types
and units are those of `Batch`; the first axis counts scenes."""

TOLERANCE = 1e-3
"""Metres that an exported file may differ from eager."""

_SIZES = ((1, 1, 1), (2, 5, 40), (3, 40, 7))  # scenes, agents, polylines that are compared


class _Plain(nn.Module):
    """The network with tensors as inputs and outputs, for the focal agents."""

    def __init__(self, model: Tenet) -> None:
        super().__init__()
        config = replace(model.config, flow=False, dense=False)
        self.network = Tenet(config, packed=False)
        kept = self.network.state_dict()
        self.network.load_state_dict({k: v for k, v in model.state_dict().items() if k in kept})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Gives trajectories [B, K, 60, 2] in the scene frame, metres, and probabilities [B, K]."""
        given = dict(zip(INPUTS, inputs, strict=True))
        state, valid = given["state"], given["valid"]
        unused = {  # a forecast of the focal agent reads neither the futures nor the categories
            "category": torch.zeros_like(given["object_type"]),
            "future": state.new_zeros(*state.shape[:2], 60, 2),
            "future_valid": valid.new_zeros(*state.shape[:2], 60),
        }
        forecast = self.network(Batch(**given, **unused))
        return forecast.trajectories, forecast.probabilities


def export_model(model: Tenet, path: Path | str, points: int = SceneConfig().points) -> float:
    """Writes a network for torch alone (`.pt2`) or for onnxruntime (`.onnx`), and compares it.

    The file has no Temporal Flow Header, takes `INPUTS`, and gives `trajectories` float32
    [B, K, 60, 2], metres in the scene frame, and `probabilities` [B, K], unsorted. `Scene.origin`
    and `Scene.heading` bring them into the city's frame (`data.scene.from_frame`).

    Args:
        model: The network; it stays as it is.
        path: The file; its ending says the format.
        points: Points of a polyline, P.

    Returns:
        The largest difference of a position from eager's, in metres, over several sizes.

    Raises:
        InputError: If the ending is unknown or onnxscript or onnxruntime is missing.
        RuntimeError: If the file differs from eager by more than `TOLERANCE`.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx"):
        raise InputError(f"{path}: expected a name that ends in .pt2 or .onnx")
    if path.suffix == ".onnx":
        _need("onnxscript")
        _need("onnxruntime")
    plain = _Plain(model).cpu().float().eval()
    config = SceneConfig(points=points)
    store = SceneStore.of([make_scene(*pair, config) for pair in generate(4, 0)])
    sizes = {name: torch.export.Dim(name, min=1, max=2**20) for name in ("agents", "lines")}
    scenes = torch.export.Dim("scenes", min=1, max=2**20)
    program = torch.export.export(
        plain,
        _inputs(store.batch(range(2), 6, 9)),
        dynamic_shapes=(tuple({0: scenes, 1: sizes[kind]} for kind in INPUTS.values()),),
    )
    with replacing(path) as temporary:
        if path.suffix == ".pt2":
            with temporary.open("wb") as file:
                torch.export.save(program, file)
        else:
            made = torch.onnx.export(
                program,
                input_names=list(INPUTS),
                output_names=["trajectories", "probabilities"],
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.save(temporary)
    worst = 0.0
    for count, agents, lines in _SIZES:
        inputs = _inputs(store.batch(range(count), agents, lines))
        with torch.inference_mode():
            expected = plain(*inputs)
        found = run_exported(path, dict(zip(INPUTS, inputs, strict=True)))
        for a, b in zip(found, expected, strict=True):
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{path} differs from eager by {worst:.2e} m")
    return worst


def _inputs(batch: Batch) -> tuple[Tensor, ...]:
    """Gives the inputs of an exported file."""
    return tuple(getattr(batch, name) for name in INPUTS)


def run_exported(path: Path | str, inputs: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Runs an exported file on a CPU.

    Args:
        path: The file.
        inputs: By their names in `INPUTS`.

    Returns:
        Trajectories float32 [B, K, 60, 2] and probabilities [B, K].

    Raises:
        InputError: If onnxruntime is needed and missing.
    """
    if Path(path).suffix == ".onnx":
        session = _need("onnxruntime").InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        wanted = {item.name for item in session.get_inputs()}
        given = {name: inputs[name].numpy() for name in INPUTS if name in wanted}
        trajectories, probabilities = session.run(None, given)
        return trajectories, probabilities
    with torch.inference_mode():
        run = torch.export.load(str(path)).module()
        trajectories, probabilities = run(*(inputs[name] for name in INPUTS))
        return trajectories.numpy(), probabilities.numpy()


def _need(module: str) -> Any:
    """Imports what the extra brings, or says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed; install tenfold-tenet[onnx]") from error
