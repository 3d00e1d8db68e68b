"""The demo: a small EMO learns scikit-learn's digits; how well, and what it looks at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.emo.data.images import digits
from tenfold.emo.model.backbone import EMO
from tenfold.emo.model.block import iRMB, partition
from tenfold.shared import compute
from tenfold.shared.progress import progress
from tenfold.shared.report import DemoResult, Report

SIZE, WINDOW = 64, 2


def network() -> EMO:
    """Makes the demo's network: 33,218 parameters, maps of 4×4 and 2×2 in stages 3 and 4."""
    return EMO(
        depths=(1, 1, 3, 2),
        dims=(8, 16, 24, 32),
        stem_dim=8,
        expansions=(2, 2, 2, 2),
        head_dims=8,
        window=WINDOW,
        num_classes=10,
        in_chans=1,
    )


def demo(output: Path, epochs: int = 9, seed: int = 0) -> tuple[DemoResult, dict[str, Any]]:
    """Trains on 1,437 digits, tests on 360, and writes a report with pictures.

    Args:
        output: The folder of the report.
        epochs: Passes.
        seed: Of all random numbers.
    """
    started = time.perf_counter()
    compute.seed_everything(seed)
    train, test = digits(SIZE), digits(SIZE, test=True)
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05)
    steps = epochs * (len(train) // 48)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    with progress("training", total=epochs) as bar:
        for _ in range(epochs):
            model.train()
            for part in torch.randperm(len(train)).split(48)[: len(train) // 48]:
                loss = nn.functional.cross_entropy(
                    model(train.images[part]), train.labels[part], label_smoothing=0.1
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            bar.update(loss=round(loss.item(), 3))
    model.eval()
    with torch.inference_mode():
        accuracy = 100 * (model(test.images).argmax(1) == test.labels).float().mean().item()
    output.mkdir(parents=True, exist_ok=True)
    report = Report("EMO on 1,797 digits", "1,437 to train, 360 to test")
    report.table(
        [
            {
                "test accuracy, %": accuracy,
                "parameters": sum(p.numel() for p in model.parameters()),
                "epochs": epochs,
                "seconds": time.perf_counter() - started,
            }
        ]
    )
    report.text(
        "Attention divides a map not into windows but into strided grids: pixels of one colour "
        "below attend to each other. What one pixel (framed) takes from the others is on the right."
    )
    captions = {
        "groups": "Attention groups of a 4×4 map, and what the framed pixel attends to",
        "features": "A digit on its way through the network: the strongest channels of each stage",
    }
    figures = {"groups": _groups(model, test.images[:1]), "features": _features(model, test.images)}
    for name, figure in figures.items():
        report.picture(figure, name, captions[name])
    page = report.write(output / "report.html")
    made = DemoResult(
        paper="EMO (ICCV 2023)",
        task="image classification",
        data="digits, 1,797 images of 8×8 pixels, enlarged",
        metric="top-1 accuracy, %",
        value=accuracy,
        seconds=time.perf_counter() - started,
        note="The paper does not use this data set; a network of the same blocks, much smaller.",
        pictures=[(output / f"{name}.png", captions[name]) for name in figures],
        report=page,
    )
    return made, {"accuracy": accuracy, "report": page}


@torch.no_grad()
def attention_of(block: iRMB, z: Tensor) -> Tensor:
    """Gives the attention weights of a block, float [groups, heads, w², w²].

    Args:
        block: With remote attention.
        z: The normalised map [1, C, H, W]; H and W are multiples of the window.
    """
    q, k = block.qk(z).chunk(2, dim=1)
    q, k = (partition(t, block.window, block.heads, remote=True) for t in (q, k))
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)


@torch.no_grad()
def _groups(model: EMO, image: Tensor) -> Any:
    from matplotlib.figure import Figure

    inputs: list[Tensor] = []
    block: Any = model.stages()[2][1]
    hook = block.norm.register_forward_hook(lambda _m, _i, out: inputs.append(out))
    model(image)
    hook.remove()
    z = inputs[0]
    n = z.shape[-1] // WINDOW
    weights = attention_of(block, z).mean(1)  # [groups, w², w²]
    index = torch.arange(z.shape[-1] ** 2, dtype=torch.float32).reshape(1, 1, *z.shape[-2:])
    cells = partition(index, WINDOW, 1, remote=True).flatten(1).long()  # [groups, w²]
    colours = torch.zeros(index.numel())
    for group, members in enumerate(cells):
        colours[members] = group
    seen = torch.zeros(index.numel())
    seen[cells[0]] = weights[0, 0]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(image[0, 0], cmap="gray")
    left.set_title("input")
    middle.imshow(colours.reshape(z.shape[-2:]), cmap="tab10")
    middle.set_title(f"{n * n} groups of {WINDOW}×{WINDOW}")
    shown = right.imshow(seen.reshape(z.shape[-2:]), cmap="viridis", vmin=0)
    right.add_patch(_frame())
    right.set_title("attention of the first pixel")
    figure.colorbar(shown, ax=right)
    for axis in (left, middle, right):
        axis.set_axis_off()
    return figure


def _frame() -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, -0.5), 1, 1, fill=False, edgecolor="red", linewidth=2)


@torch.no_grad()
def _features(model: EMO, images: Tensor) -> Any:
    from matplotlib.figure import Figure

    image = images[3:4]
    maps = model.forward_intermediates(image, intermediates_only=True)
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(4, 6)
    for row, (stage, x) in enumerate(zip(range(1, 5), maps, strict=True)):
        strongest = x[0].flatten(1).var(1).topk(5).indices
        shown = [image[0, 0], *(x[0, c] for c in strongest)]
        for axis, picture in zip(axes[row], shown, strict=True):
            axis.imshow(picture, cmap="gray" if axis is axes[row, 0] else "viridis")
            axis.set_axis_off()
        axes[row, 0].set_title("input")
        axes[row, 1].set_title(f"stage {stage}, {tuple(x.shape[1:])}")
    return figure
