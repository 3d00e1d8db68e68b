"""Pictures of scenarios: map, history, modes with probabilities, truth; still and moving."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.files import write_atomic
from tenfold.tenet.data.scenario import FUTURE, HISTORY, NOW, OBJECT_TYPES
from tenfold.tenet.data.scene import CROSSING, Scene
from tenfold.tenet.objective import PARTS

_MODES = ("#d1495b", "#edae49", "#00798c", "#8d5a97", "#4f772d", "#6c757d")
_SIZES = {0: (4.6, 1.9), 1: (0.8, 0.8), 2: (2.2, 0.8), 3: (2.0, 0.7), 4: (12.0, 2.8)}


def scene_figure(
    scene: Scene,
    trajectories: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    radius: float | None = None,
) -> Any:
    """Draws a scene in the focal agent's frame.

    Args:
        scene: The scene.
        trajectories: float [K, 60, 2] of the focal agent, in the scene frame.
        probabilities: float [K].
        radius: Metres around what is drawn; by default what holds past, modes and truth.

    Returns:
        A matplotlib figure.
    """
    figure, axes = _canvas(scene, trajectories, radius)
    _draw_agents(axes, scene, NOW)
    _draw_modes(axes, scene, trajectories, probabilities, FUTURE)
    axes.legend(loc="upper right", fontsize=7, framealpha=0.9)
    return figure


def scene_animation(
    scene: Scene,
    path: Path,
    trajectories: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    every: int = 4,
) -> None:
    """Writes a moving picture (GIF) of the whole eleven seconds, atomically.

    Args:
        scene: The scene.
        path: The file, ``.gif``.
        trajectories: float [K, 60, 2], in the scene frame.
        probabilities: float [K].
        every: Steps between two pictures.
    """
    from PIL import Image

    frames = []
    for step in range(0, HISTORY + FUTURE, every):
        figure, axes = _canvas(scene, trajectories, None, inches=4.5)
        _draw_agents(axes, scene, step)
        if step >= NOW:
            _draw_modes(axes, scene, trajectories, probabilities, step - NOW)
        axes.set_title(f"{(step - NOW) / 10:+.1f} s", fontsize=8)
        figure.canvas.draw()
        image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
        frames.append(image.quantize(64))
    content = io.BytesIO()
    frames[0].save(
        content, "GIF", save_all=True, append_images=frames[1:], duration=100 * every, loop=0
    )
    write_atomic(path, content.getvalue())


def training_curves(history: list[dict[str, Any]]) -> Any:
    """Draws the loss and the validation scores over the epochs."""
    figure, axes = _figure(1, 2, (9.0, 3.2))
    epochs = [row["epoch"] + 1 for row in history]
    for name in PARTS:
        values = [row.get(name) for row in history]
        if any(value is not None for value in values):
            axes[0].plot(epochs, [np.nan if v is None else v for v in values], label=name)
    for name in ("minFDE1", "minFDE6", "brier-minFDE6"):
        found = [(e, row[name]) for e, row in zip(epochs, history, strict=True) if name in row]
        if found:
            axes[1].plot(*zip(*found, strict=True), marker=".", label=name)
    for axis, title in zip(axes, ("training loss", "validation, metres"), strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch")
        if axis.lines:
            axis.legend(fontsize=8)
    return figure


def _figure(rows: int, columns: int, inches: tuple[float, float]) -> tuple[Any, Any]:
    """Makes a figure without touching matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _canvas(
    scene: Scene, trajectories: np.ndarray | None, radius: float | None, inches: float = 6.0
) -> tuple[Any, Any]:
    """Makes a picture with the map in it."""
    figure, axes = _figure(1, 1, (inches, inches))
    shown = [scene.state[0, scene.valid[0], :2], scene.future[0, scene.future_valid[0]]]
    if trajectories is not None:
        shown.append(trajectories.reshape(-1, 2))
    points = np.concatenate(shown)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = radius or max(20.0, float((points.max(axis=0) - points.min(axis=0)).max()) / 2 + 10)
    for line, kind, width in zip(scene.lines, scene.line_kind, scene.half_width, strict=True):
        if kind == CROSSING:
            axes.plot(*line.T, color="#b8c4d6", linewidth=5, alpha=0.6, zorder=1)
            continue
        direction = np.gradient(line, axis=0)
        size = np.linalg.norm(direction, axis=1, keepdims=True)
        normal = np.stack([-direction[:, 1], direction[:, 0]], axis=-1) / np.maximum(size, 1e-6)
        outline = np.concatenate([line + width * normal, (line - width * normal)[::-1]])
        color = "#f3e9dc" if kind == 1 else "#e9ecef"
        axes.fill(*outline.T, facecolor=color, edgecolor="#ced4da", linewidth=0.5, zorder=0)
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("metres, focal agent's frame", fontsize=7)
    axes.set_title(f"{scene.scenario_id[:8]} ({scene.city})", fontsize=8)
    return figure, axes


def _draw_agents(axes: Any, scene: Scene, step: int) -> None:
    """Draws every agent's box and its past up to a step."""
    from matplotlib.patches import Polygon

    places = np.concatenate([scene.state[..., :2], scene.future], axis=1)
    there = np.concatenate([scene.valid, scene.future_valid], axis=1)
    for row in reversed(range(len(places))):
        color = "#d1495b" if row == 0 else "#2a9d8f" if scene.is_av[row] else "#577590"
        past = np.where(there[row, : step + 1, None], places[row, : step + 1], np.nan)
        axes.plot(*past.T, color=color, linewidth=1.6 if row == 0 else 0.8, zorder=3)
        if not there[row, step]:
            continue
        if step < HISTORY:
            angle = float(scene.state[row, step, 2])
        else:
            known = np.flatnonzero(there[row, : step + 1])
            gap = places[row, known[-1]] - places[row, known[-min(4, len(known))]]
            still = np.linalg.norm(gap) < 0.5
            angle = float(scene.state[row, NOW, 2] if still else np.arctan2(gap[1], gap[0]))
        length, width = _SIZES.get(int(scene.object_type[row]), (1.0, 1.0))
        corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (length / 2, width / 2)
        cos, sin = np.cos(angle), np.sin(angle)
        box = corners @ np.array([[cos, sin], [-sin, cos]]) + places[row, step]
        label = f"focal ({OBJECT_TYPES[scene.object_type[0]]})" if row == 0 else None
        axes.add_patch(
            Polygon(box, facecolor=color, edgecolor="white", lw=0.4, zorder=4, label=label)
        )


def _draw_modes(
    axes: Any,
    scene: Scene,
    trajectories: np.ndarray | None,
    probabilities: np.ndarray | None,
    steps: int,
) -> None:
    """Draws the first steps of the modes and of the truth."""
    known = scene.future_valid[0, :steps]
    if known.any():
        truth = scene.future[0, :steps][known]
        axes.plot(*truth.T, color="black", linewidth=2.2, linestyle=":", zorder=6, label="truth")
        axes.plot(*truth[-1], "k*", markersize=8, zorder=7)
    if trajectories is None:
        return
    p = np.full(len(trajectories), np.nan) if probabilities is None else probabilities
    for row, path in enumerate(trajectories):
        color = _MODES[row % len(_MODES)]
        line = np.concatenate([scene.state[0, NOW : NOW + 1, :2], path[:steps]])
        strength = 0.9 if np.isnan(p[row]) else 0.35 + 0.6 * float(p[row]) / float(np.nanmax(p))
        label = None if np.isnan(p[row]) else f"p = {p[row]:.2f}"
        axes.plot(*line.T, color=color, linewidth=2.0, alpha=strength, zorder=5, label=label)
        if steps == FUTURE:
            axes.plot(*line[-1], "o", color=color, markersize=4, alpha=strength, zorder=5)
