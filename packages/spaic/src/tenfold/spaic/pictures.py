"""Pictures: raster, rates, traces, weights, phase plane, animated points (section 15)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor


def _axes(axes: Any, size: tuple[float, float] = (7.0, 3.0)) -> Any:
    if axes is not None:
        return axes
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()


def raster(
    monitors: Sequence[SpikeMonitor],
    axes: Any = None,
    most: int = 400,
    sample: int = 0,
    size: float = 1.0,
) -> Any:
    """Draws a dot for each spike, the groups above each other.

    Args:
        monitors: Of one run.
        axes: Where to draw; a new figure by default.
        most: Neurons shown of each group; evenly chosen.
        sample: Which sample of the batch.
        size: The dots' size in points.

    Returns:
        The figure.
    """
    axes = _axes(axes, (7.0, 3.6))
    base, ticks = 0, []
    for number, monitor in enumerate(monitors):
        neurons = monitor.target.num
        every = max(1, math.ceil(neurons / most))
        index, time = monitor.spk_index[sample], monitor.spk_times[sample]
        shown = index % every == 0
        height = math.ceil(neurons / every)
        axes.plot(
            time[shown],
            base + index[shown] // every,
            ".",
            ms=size,
            color=f"C{number % 10}",
            alpha=0.8,
        )
        ticks.append((base + height / 2, monitor.target.name))
        base += height
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(-1, base)
    axes.set_xlabel("time, ms")
    return axes.figure


def population_rates(
    monitors: Sequence[SpikeMonitor], bin_ms: float = 5.0, axes: Any = None
) -> Any:
    """Draws each group's rate over time.

    Args:
        monitors: Of one run.
        bin_ms: The width of a bin.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes)
    for number, monitor in enumerate(monitors):
        if not len(monitor.time):
            continue
        end = float(monitor.time[-1])
        step = end / len(monitor.time) if len(monitor.time) < 2 else end - float(monitor.time[-2])
        edges = bin_ms * np.arange(np.ceil(end / bin_ms - 1e-9) + 1)
        # A spike is stamped with the end of its step, which belongs to the window before it.
        counts, _ = np.histogram(np.concatenate(monitor.spk_times) - step / 2, edges)
        rate = 1000 * counts / bin_ms / monitor.target.num / len(monitor.spk_times)
        axes.plot(edges[:-1] + bin_ms / 2, rate, color=f"C{number % 10}", label=monitor.target.name)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("rate, Hz")
    axes.legend(fontsize=8)
    return axes.figure


def traces(monitor: StateMonitor, neurons: Sequence[int] = (0,), axes: Any = None) -> Any:
    """Draws a recorded variable of some neurons over time.

    Args:
        monitor: The monitor; its first sample is drawn.
        neurons: Which neurons.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes)
    values = monitor.values[0].reshape(-1, len(monitor.times))
    for neuron in neurons:
        axes.plot(monitor.times, values[neuron], label=f"neuron {neuron}", lw=0.9)
    axes.set_xlabel("time, ms")
    axes.set_ylabel(monitor.var_name)
    axes.legend(fontsize=8, loc="upper right")
    return axes.figure


def phase_plane(x: StateMonitor, y: StateMonitor, neuron: int = 0, axes: Any = None) -> Any:
    """Draws one recorded variable against another; a dot marks the first sample.

    Args:
        x: The horizontal one.
        y: The vertical one.
        neuron: Which neuron.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes, (7.0, 3.6))
    u, v = (m.values[0].reshape(-1, len(m.times))[neuron] for m in (x, y))
    axes.plot(u, v, lw=0.9)
    axes.plot(u[:1], v[:1], "o", ms=4, color="C3")
    axes.set_xlabel(x.var_name)
    axes.set_ylabel(y.var_name)
    return axes.figure


def weight_image(
    weight: np.ndarray,
    reshape: bool = True,
    n_sqrt: int | None = None,
    side: int | None = None,
    im: Any = None,
    wmin: float | None = None,
    wmax: float | None = None,
    cmap: str = "hot_r",
) -> Any:
    """Draws weights as n_sqrt × n_sqrt images of side × side pixels, or as one matrix.

    Args:
        weight: [post, pre].
        reshape: Whether rows are square images.
        n_sqrt: Images in a row.
        side: Pixels in a row of an image.
        im: An earlier image, which is updated.
        wmin: The lowest weight of the colours.
        wmax: The highest.
        cmap: The colours.

    Returns:
        The matplotlib image; its figure is `im.figure`.
    """
    shown = weight
    if reshape:
        side = side or math.isqrt(weight.shape[1])
        n_sqrt = n_sqrt or math.ceil(math.sqrt(len(weight)))
        tiles = np.full((n_sqrt * n_sqrt, side, side), np.nan)  # those without a neuron stay blank
        rows = weight[: n_sqrt * n_sqrt, : side * side]
        tiles[: len(rows)] = rows.reshape(-1, side, side)
        shown = tiles.reshape(n_sqrt, n_sqrt, side, side).swapaxes(1, 2).reshape(n_sqrt * side, -1)
    if im is not None:
        im.set_data(shown)
        return im
    axes = _axes(None, (5.0, 4.2))
    made = axes.imshow(shown, cmap=cmap, vmin=wmin, vmax=wmax, interpolation="nearest")
    if reshape and n_sqrt is not None and side is not None:
        for edge in range(1, n_sqrt):  # images apart from each other
            for line in (axes.axhline, axes.axvline):
                line(edge * side - 0.5, color="0.35", lw=0.6)
    axes.set_axis_off()
    axes.figure.colorbar(made, label="weight")
    return made


def learning_curve(history: Sequence[dict[str, Any]], axes: Any = None) -> Any:
    """Draws the loss over the epochs.

    Args:
        history: Of `Trained`.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes, (5.0, 3.0))
    axes.plot([row["epoch"] + 1 for row in history], [row["loss"] for row in history], ".-", ms=4)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("training loss")
    axes.set_ylim(0)
    return axes.figure


def confusion(truth: np.ndarray, guess: np.ndarray, axes: Any = None) -> Any:
    """Draws how often each class was taken for each.

    Args:
        truth: int64 [samples].
        guess: int64 [samples].
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes, (4.4, 3.8))
    size = int(max(truth.max(), guess.max())) + 1
    made = np.zeros((size, size), dtype=int)
    np.add.at(made, (truth, guess), 1)
    image = axes.imshow(made, cmap="Blues")
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.figure.colorbar(image, label="samples")
    return axes.figure


def activity_image(monitor: StateMonitor, axes: Any = None) -> Any:
    """Draws a recorded variable of all neurons over time, as an image.

    Args:
        monitor: The monitor; its first sample is drawn.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes)
    values = monitor.values[0].reshape(-1, len(monitor.times))
    extent = (float(monitor.times[0]), float(monitor.times[-1]), 0, len(values))
    image = axes.imshow(values, aspect="auto", origin="lower", extent=extent)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("neuron")
    axes.figure.colorbar(image, label=monitor.var_name)
    return axes.figure


def returns_curve(returns: Sequence[float], axes: Any = None) -> Any:
    """Draws the return of each episode, and the mean of the last ten.

    Args:
        returns: One an episode.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes, (6.0, 3.2))
    axes.plot(returns, ".", ms=4, color="0.6", label="episode")
    means = [float(np.mean(returns[max(0, k - 9) : k + 1])) for k in range(len(returns))]
    axes.plot(means, lw=1.2, label="mean of ten")
    axes.set_xlabel("episode")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("return")
    axes.legend(fontsize=8)
    return axes.figure


def assignments_image(assigned: np.ndarray, axes: Any = None) -> Any:
    """Draws which class each neuron of a Diehl & Cook network was given, as a square of neurons.

    Neurons lie as in `weight_image`: row by row. Those that never fired stay white.

    Args:
        assigned: int64 [neurons], −1 for neurons without a class.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    axes = _axes(axes, (4.6, 3.8))
    side = math.ceil(math.sqrt(len(assigned)))
    shown = np.full(side * side, np.nan)
    shown[: len(assigned)] = np.where(assigned >= 0, assigned, np.nan)
    top = max(int(assigned.max()), 0)
    image = axes.imshow(shown.reshape(side, side), cmap="tab10", vmin=-0.5, vmax=max(top, 9) + 0.5)
    axes.set_axis_off()
    axes.figure.colorbar(image, ticks=range(top + 1), label="class")
    return axes.figure


def sheet_frames(monitor: StateMonitor, count: int = 8) -> Any:
    """Draws a recorded variable of a sheet of neurons at some moments, side by side.

    Args:
        monitor: Of a group of shape (1, height, width); its first sample is drawn.
        count: The number of moments, evenly chosen.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    values, times = monitor.values[0, 0], monitor.times
    chosen = np.unique(np.linspace(0, len(times) - 1, count).round().astype(int))
    figure = Figure(figsize=(1.5 * len(chosen) + 0.6, 1.9), layout="constrained")
    row = figure.subplots(1, len(chosen), squeeze=False)[0]
    top = float(values[..., chosen].max())
    for axes, k in zip(row, chosen, strict=True):
        image = axes.imshow(values[..., k], vmin=0, vmax=top)
        axes.set_title(f"{times[k]:.1f} ms", fontsize=8)
        axes.set_axis_off()
    figure.colorbar(image, ax=row, label=monitor.var_name, pad=0.01)
    return figure


def scatter_animation(
    frames: Sequence[np.ndarray],
    path: Path | str,
    times: Sequence[float] | None = None,
    size: float = 4.0,
    per_second: int = 12,
    label: str = "",
) -> Path:
    """Writes an animation of scattered points as a GIF: a picture a frame.

    Args:
        frames: For each frame its points, float [points, 3]: x, y, and what gives the colour.
        path: The file, ending in .gif.
        times: The time of each frame in ms, its title.
        size: The points' size in points.
        per_second: Frames shown in a second.
        label: What the colours are.

    Returns:
        The path.

    Raises:
        InputError: If there are no points, or they have another shape.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    shown = [np.asarray(frame, dtype=np.float64) for frame in frames]
    for k, frame in enumerate(shown):
        if frame.ndim != 2 or frame.shape[1] != 3:
            raise InputError(f"frame {k} has shape {frame.shape}; expected (points, 3)")
    every = np.concatenate(shown) if shown else np.zeros((0, 3))
    if not len(every):
        raise InputError("there are no points to animate")
    if times is not None and len(times) != len(shown):
        raise InputError(f"{len(times)} times for {len(shown)} frames")
    if path.suffix != ".gif":
        raise InputError(f"{path}: an animation is written as .gif")
    figure = Figure(figsize=(4.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    low, high = every.min(0), every.max(0)
    dots = axes.scatter([], [], c=[], s=size**2, vmin=low[2], vmax=high[2], linewidths=0)
    axes.set_xlim(low[0] - 1, high[0] + 1)
    axes.set_ylim(low[1] - 1, high[1] + 1)
    axes.set_aspect("equal")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    figure.colorbar(dots, label=label)

    def draw(k: int) -> tuple[Any]:
        dots.set_offsets(shown[k][:, :2])
        dots.set_array(shown[k][:, 2])
        if times is not None:
            axes.set_title(f"{times[k]:.1f} ms", fontsize=9)
        return (dots,)

    made = FuncAnimation(figure, draw, frames=len(shown))
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path, writer=PillowWriter(fps=per_second), dpi=90)
    return path
