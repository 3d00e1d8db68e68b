"""Training a teacher, and what a student may know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from torch_geometric.data import Data

from tenfold.reliant.data.graph import check_graph
from tenfold.reliant.model.graphs import MODELS
from tenfold.reliant.store import Stored, digest_of, kept
from tenfold.reliant.wrapper import ask
from tenfold.shared import compute
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import progress

Mode = Literal["honest", "official"]

RATES = {  # learning rate, weight decay
    "gcn": (0.01, 1e-3),
    "sage": (0.01, 5e-4),
    "gat": (0.01, 0.01),
    "appnp": (0.01, 0.01),
    "sgc": (0.1, 1e-3),
    "mlp": (0.01, 1e-3),
}
HELD_OUT = 0.2  # honest: share of the training nodes that chooses the epoch
EPOCHS = {"honest": 400, "official": 1000}
PATIENCE = 500


@dataclass(frozen=True)
class Teacher:
    """What a student may know of its teacher.

    Attributes:
        name: ``gcn``, ``sage``, ..., or the file of its answers.
        logits: float [N, C], log-probabilities.
        embedding: float [N, h], or None.
        epoch: that was kept.
        history: loss and the accuracy that chose, each epoch.
    """

    name: str
    logits: Tensor
    embedding: Tensor | None
    epoch: int
    history: list[dict[str, Any]]


def train_teacher(
    data: Data,
    name: str = "gcn",
    mode: Mode = "honest",
    epochs: int | None = None,
    seed: int = 42,
    fresh: bool = False,
    cache: bool = True,
) -> Teacher:
    """Trains a teacher, or takes it from the cache.

    ``official`` trains on all training nodes and keeps the epoch that is best on the validation
    labels (ties go to the later one; patience 500). ``honest`` reads training labels only: a fifth
    of the training nodes is held out and chooses the epoch in the same way.

    Args:
        data: a graph with ``x``, ``edge_index``, ``y``, ``sensitive`` and the three masks.
        name: ``gcn``, ``sage``, ``gat``, ``appnp``, ``sgc``, ``mlp``, or an ``.npy`` file of
            probabilities or logits float [N, C].
        mode: see above.
        epochs: at most; by default 400 (honest) and 1000 (official).
        seed: of the initial weights, dropout and the held-out nodes.
        fresh: train it even if it is in the cache.
        cache: whether to use the cache at all.

    Raises:
        InputError: a graph that is not whole, an unknown name or mode, less than one epoch, or a
            file that is missing or of another number of nodes or classes.
    """
    data = check_graph(data)
    if mode not in EPOCHS:
        raise InputError(f"mode={mode!r}; expected 'honest' or 'official'")
    if name.endswith(".npy"):
        return _from_file(Path(name), data)
    if name not in MODELS:
        raise InputError(did_you_mean(name, [*MODELS, "FILE.npy"], kind="teacher"))
    limit = EPOCHS[mode] if epochs is None else epochs
    if limit < 1:
        raise InputError(f"teacher_epochs={limit}; expected at least 1")

    def make() -> Stored:
        return _train(data, name, mode, limit, seed)

    if not cache:
        tensors, values = make()
    else:
        read = data.train_mask if mode == "honest" else data.train_mask | data.val_mask
        labels = torch.where(read, data.y, -1)  # nothing else may matter
        key = digest_of(data.x, data.edge_index, labels, data.train_mask, name, mode, limit, seed)
        tensors, values = kept("teacher", key, make, fresh)
    tensors = {key: value.to(data.x.device) for key, value in tensors.items()}
    return Teacher(name, tensors["logits"], tensors["embedding"], **values)


def _train(data: Data, name: str, mode: Mode, epochs: int, seed: int) -> Stored:
    compute.seed_everything(seed)
    train = data.train_mask.nonzero()[:, 0]
    classes = int(data.y[train].max()) + 1
    model: Any = MODELS[name](data.x.shape[1], classes)
    if name == "gcn":
        model.embedding = 1  # the first layer's, in a teacher
    model.to(data.x.device)
    lr, decay = RATES[name]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=decay)
    judge = data.val_mask.nonzero()[:, 0]
    if mode == "honest":
        order = train[torch.randperm(len(train), device=train.device)]
        held = max(1, round(HELD_OUT * len(train)))
        judge, train = order[:held], order[held:]
    reused = hasattr(model, "aggregate")
    h = model.aggregate(data.x, data.edge_index) if reused else data.x
    run = model.from_aggregated if reused else model
    best: tuple[float, int, dict[str, Tensor]] = (-1.0, -1, {})
    history = []
    with progress(f"teacher {name}", total=epochs) as bar:
        for epoch in range(epochs):
            model.train()
            optimizer.zero_grad()
            loss = cross_entropy(run(h, data.edge_index)[train], data.y[train])
            loss.backward()
            optimizer.step()
            model.eval()
            with torch.no_grad():
                found = run(h, data.edge_index)[judge].argmax(1)
            accuracy = float((found == data.y[judge]).float().mean())
            history.append({"epoch": epoch, "loss": float(loss.detach()), "accuracy": accuracy})
            bar.update(loss=history[-1]["loss"], accuracy=accuracy)
            if accuracy >= best[0]:
                best = accuracy, epoch, {k: v.clone() for k, v in model.state_dict().items()}
            elif mode == "official" and epoch - best[1] >= PATIENCE:
                break
    model.load_state_dict(best[2])
    logits, embedding = ask(model, data)
    assert embedding is not None
    return {"logits": logits, "embedding": embedding}, {"epoch": best[1], "history": history}


def _from_file(path: Path, data: Data) -> Teacher:
    try:
        answers = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(
            f"teacher {path}: no such file; expected an .npy file of probabilities or logits"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"teacher {path}: not a plain numpy file: {error}") from error
    classes = int(data.y[data.train_mask].max()) + 1
    if answers.shape != (data.num_nodes, classes) or answers.dtype.kind not in "fiu":
        raise InputError(
            f"teacher {path}: {answers.dtype} {list(answers.shape)}; expected probabilities or "
            f"logits [{data.num_nodes}, {classes}]"
        )
    values = torch.from_numpy(answers.astype(np.float32)).to(data.x.device)
    if not torch.isfinite(values).all():
        raise InputError(f"teacher {path}: values that are not finite")
    sums = values.sum(1)
    if bool((values >= 0).all()) and bool((sums - 1).abs().max() < 1e-2):
        logits = (values / sums[:, None]).clamp(min=1e-12).log()
    else:
        logits = log_softmax(values, 1)
    return Teacher(str(path), logits, None, 0, [])
