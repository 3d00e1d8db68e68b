"""One run: its configuration, its modes, and the distillation with checkpoints.

``honest`` (default) reads labels and sensitive attributes of training nodes only, keeps all
attributes, and keeps the last epoch, whose step size has fallen to 0. ``official`` repeats the
released code: proxies overwrite two attributes (CPF), bias is measured with labels and sensitive
attributes of validation and test nodes, and the validation labels choose the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from tenfold.reliant.data import load, read_tables
from tenfold.reliant.data.readers import Scaling
from tenfold.reliant.evaluation import scores
from tenfold.reliant.frameworks import GraphAKD, framework
from tenfold.reliant.model.graphs import GCN, MODELS
from tenfold.reliant.model.plp import PLP
from tenfold.reliant.objective import Notion, Surrogate
from tenfold.reliant.sampling import neighbour_batches
from tenfold.reliant.teachers import Mode, Teacher
from tenfold.reliant.wrapper import WIDTH, Attach, Nodes, Optimizers, Proxies, Reliant
from tenfold.shared import compute
from tenfold.shared.errors import InputError, did_you_mean

Choice = Literal["last", "val-accuracy", "val-loss"]
STUDENTS = ("plp", "gcn", "sage", "gat", "appnp", "sgc", "mlp")


@dataclass(frozen=True)
class TrainConfig:
    """One run. What is not given is set by the mode and the framework."""

    dataset: str = "generated"
    """The graph: a data set by name, or generated:N. For a graph of your own see --nodes."""
    nodes: Path | None = None
    """Your node table (CSV, TSV, parquet): label, sensitive column, attributes."""
    edges: Path | None = None
    """Your edge list with the columns source and target; without it, similar rows are joined."""
    label: str = "label"
    """The label column of --nodes."""
    sensitive: str = "sensitive"
    """The sensitive column of --nodes."""
    keep_sensitive: bool | None = None
    """Whether the sensitive column stays among the attributes; by default as published for named
    data sets, and not for --nodes."""
    scaling: Scaling | None = None
    """Of the attributes of a named table: rows (sum 1), columns (-1 to 1), raw."""
    mode: Mode = "honest"
    """honest reads training labels and groups only; official repeats the released code."""
    teacher: str = "gcn"
    """gcn, sage, gat, appnp, sgc, mlp, or an .npy file of probabilities or logits [N, C]."""
    teacher_epochs: int | None = None
    """Epochs of the teacher; by default 400 (honest), 1000 (official)."""
    teacher_seed: int = 42
    """Seed of the teacher."""
    framework: Literal["cpf", "akd", "soft"] = "cpf"
    """CPF, GraphAKD (akd) or plain soft labels (soft)."""
    student: Literal["plp", "gcn", "sage", "gat", "appnp", "sgc", "mlp"] | None = None
    """The student; by default plp (cpf), gcn (akd), mlp (soft)."""
    hidden: int = 64
    """Width of the student; GraphAKD takes that of the teacher's embedding."""
    rounds: int = 9
    """Propagation rounds of PLP (num_layers of the official code, less one)."""
    feature_dropout: float = 0.8
    """Dropout of attributes and hidden units of PLP."""
    kind: Literal["ind", "tra"] = "ind"
    """Attention of PLP: ind from attributes, tra a free score for each node."""
    temperature: float = 1.0
    """Of the soft labels."""
    notion: Notion = "sp"
    """What is made fair: sp (statistical parity), eo (equal opportunity), eodds."""
    alpha: float | None = None
    """Weight of the bias; 0 is plain distillation. By default 8000 (plp), 1000 (plp, official), 10
    (other students)."""
    proxies: Proxies = "learned"
    """learned, fixed (the columns s and 1 - s), none."""
    attach: Attach | None = None
    """append keeps all attributes; overwrite replaces the last two, as released (cpf)."""
    fairness_nodes: Nodes | None = None
    """Nodes whose sensitive attribute the student's step reads: train, unlabelled, all."""
    proxy_nodes: Nodes | None = None
    """The same for the proxies' step."""
    surrogate: Surrogate = "official"
    """The smooth step in J: official, legendre, identity, sigmoid."""
    hide: float = 0.8
    """PLP, honest: share of the training nodes that is not clamped in a step."""
    akd_sign: Literal["fixed", "official"] | None = None
    """Sign of GraphAKD's term of the student's own summary."""
    choose: Choice | None = None
    """Which epoch is kept: last, val-accuracy, val-loss (both read validation labels)."""
    epochs: int | None = None
    """Passes; by default 400 (cpf, soft), 600 (akd), official cpf 1000."""
    patience: int = 500
    """Ends a run whose validation choice has not improved for so long."""
    learning_rate: float | None = None
    """Adam's step size of the student; falls to 0 along a cosine in honest mode."""
    proxy_learning_rate: float | None = None
    """Adam's step size of the proxies."""
    weight_decay: float | None = None
    """Of student and proxies."""
    batch_size: int | None = None
    """Nodes a step with sampled neighbours; by default the whole graph (not plp)."""
    neighbours: tuple[int, ...] = (10, 10, 10)
    """Neighbours that are sampled a node and hop."""
    seed: int = 0
    """Seed of the student."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        """Refuses values that no run can have."""
        limits: dict[str, tuple[float, float]] = {
            "teacher_epochs": (1, math.inf),
            "hidden": (1, math.inf),
            "rounds": (1, math.inf),
            "alpha": (0, math.inf),
            "epochs": (1, math.inf),
            "patience": (1, math.inf),
            "weight_decay": (0, math.inf),
            "batch_size": (1, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value < high:
                raise InputError(f"{name}={value}; expected a finite number of at least {low:g}")
        for name in ("learning_rate", "proxy_learning_rate", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}={value}; expected a finite number > 0")
        if self.edges is not None and self.nodes is None:
            raise InputError(f"edges={self.edges} without nodes; expected --nodes with your table")
        if not 0 <= self.feature_dropout < 1:
            raise InputError(f"feature_dropout={self.feature_dropout}; expected 0 up to below 1")
        if not 0 < self.hide < 1:
            raise InputError(f"hide={self.hide}; expected a share between 0 and 1")


@dataclass(frozen=True)
class TradeOffConfig(TrainConfig):
    """A run for each weight of the bias; ``alpha`` itself is not used."""

    alphas: tuple[float, ...] = (0.0, 100.0, 1000.0, 10000.0)
    """The weights."""

    def __post_init__(self) -> None:
        """Refuses weights that no run can have."""
        super().__post_init__()
        if not self.alphas or not all(0 <= alpha < math.inf for alpha in self.alphas):
            raise InputError(f"alphas={list(self.alphas)}; expected finite weights of at least 0")

    def run_of(self, alpha: float) -> TrainConfig:
        """The run of one weight."""
        given = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        return TrainConfig(**given | {"alpha": alpha})


def settled(config: TrainConfig) -> TrainConfig:
    """Fills in what the mode and the framework decide; all of it is then given.

    Args:
        config: with open fields.

    Raises:
        InputError: for a combination that cannot be.
    """
    official, akd = config.mode == "official", config.framework == "akd"
    student = config.student or {"cpf": "plp", "akd": "gcn", "soft": "mlp"}[config.framework]
    plp = student == "plp"
    values: dict[str, Any] = {
        "keep_sensitive": config.nodes is None,
        "student": student,
        "alpha": 10.0 if akd or not plp else 1000.0 if official else ALPHA,
        "attach": "overwrite" if official and not akd else "append",
        "fairness_nodes": "unlabelled" if official and not akd else "train",
        "proxy_nodes": ("all" if akd else "unlabelled") if official else "train",
        "akd_sign": "official" if official else "fixed",
        "choose": ("val-loss" if akd else "val-accuracy") if official else "last",
        "epochs": 600 if akd else 1000 if official else 400,
        "learning_rate": 1e-4 if akd and official else 1e-3 if akd else 0.01,
        "proxy_learning_rate": 1e-3 if akd else 0.01,
        "weight_decay": 5e-4 if akd or not plp else 0.01,
    }
    made = replace(config, **{k: v for k, v in values.items() if getattr(config, k) is None})
    if akd and plp:
        raise InputError("framework='akd' compares embeddings, and student 'plp' has none")
    if made.batch_size is not None and (plp or akd):
        raise InputError(
            "batch_size: PLP and GraphAKD take the whole graph; expected another "
            "student and framework, or no batch_size"
        )
    if made.batch_size is not None and not made.neighbours:
        raise InputError("neighbours is empty; expected a number for each hop, such as 10 10")
    return made


ALPHA = 8000.0  # honest PLP: weight of J over the training nodes that are hidden in a step


def name_of(config: TrainConfig) -> str:
    """What a run calls its graph: the data set, or the name of the user's table.

    Args:
        config: the run.
    """
    return config.dataset if config.nodes is None else config.nodes.stem


def dataset_of(config: TrainConfig) -> Data:
    """Reads the graph of a run.

    Args:
        config: from :func:`settled`.
    """
    if config.nodes is not None:
        return read_tables(
            config.nodes,
            config.edges,
            config.label,
            config.sensitive,
            keep_sensitive=bool(config.keep_sensitive),
        )
    return load(config.dataset, config.scaling, bool(config.keep_sensitive))


def student_of(config: TrainConfig, data: Data, width: int | None = None) -> nn.Module:
    """Makes the student of a run, with new weights.

    Args:
        config: from :func:`settled`.
        data: the graph.
        width: of the teacher's embedding, for GraphAKD.
    """
    inputs = data.x.shape[1] + (WIDTH if config.attach == "append" else 0)
    classes = int(data.y[data.train_mask].max()) + 1
    if config.student == "plp":
        return PLP(
            data, inputs, config.hidden, config.rounds, config.feature_dropout, kind=config.kind
        )
    if config.student not in MODELS:
        raise InputError(did_you_mean(str(config.student), STUDENTS, kind="student"))
    hidden = config.hidden
    if config.framework == "akd":
        hidden = width or hidden
    if config.student == "gcn":
        return GCN(inputs, classes, hidden, dropout=0.5)
    if config.student == "sgc":
        return MODELS["sgc"](inputs, classes)
    return MODELS[str(config.student)](inputs, classes, hidden)


class Distillation:
    """The training of one student: make it, then :meth:`run` it; in between it can be saved.

    Args:
        data: a checked graph.
        teacher: from :func:`~tenfold.reliant.teachers.train_teacher`.
        config: from :func:`settled`.
    """

    def __init__(self, data: Data, teacher: Teacher, config: TrainConfig) -> None:
        self.data, self.config = data, config
        if config.framework == "akd" and teacher.embedding is None:
            raise InputError(f"teacher {teacher.name} gives no embedding; GraphAKD needs one")
        official = config.mode == "official"
        compute.seed_everything(config.seed)
        width = config.hidden if teacher.embedding is None else teacher.embedding.shape[1]
        student = student_of(config, data, width)
        options: dict[str, Any] = {"temperature": config.temperature}
        if config.framework == "cpf":
            options = {"decimals": 4 if official else None}
        if config.framework == "akd":
            options = {"sign": config.akd_sign}
        assert config.attach is not None
        assert config.fairness_nodes is not None
        assert config.learning_rate is not None
        assert config.weight_decay is not None
        self.model = Reliant(
            student.to(data.x.device),
            teacher.logits,
            sensitive=data.sensitive,
            teacher_embedding=teacher.embedding,
            notion=config.notion,
            framework=framework(config.framework, teacher.logits.shape[1], width, **options),
            alpha=config.alpha,
            proxies=config.proxies,
            attach=config.attach,
            fairness_nodes=config.fairness_nodes,
            proxy_nodes=config.proxy_nodes,
            surrogate=config.surrogate,
            hide=config.hide,
        ).to(data.x.device)
        self.optimizers = Optimizers(
            self.model, config.learning_rate, config.weight_decay, config.proxy_learning_rate
        )
        self.rates = [group["lr"] for o in self._all_optimizers()[:2] for group in o.param_groups]
        self.view = self.model.view(data) if config.batch_size is None else None
        self.epoch = -1
        self.best: tuple[float, int, dict[str, Tensor]] | None = None

    @property
    def finished(self) -> bool:
        """All epochs are done, or the choice has not improved for ``patience`` epochs."""
        assert self.config.epochs is not None
        stale = self.best is not None and self.epoch - self.best[1] >= self.config.patience
        return self.epoch >= self.config.epochs - 1 or (self.config.choose != "last" and stale)

    def run(self, on_epoch: Callable[[Distillation, dict[str, float]], None] | None = None) -> None:
        """Trains to the end, then takes the epoch that was chosen.

        Args:
            on_epoch: called after each epoch with this object and its metrics; the state is then
                whole and may be saved.
        """
        while not self.finished:
            self.epoch += 1
            self._set_rates()
            if self.view is not None:
                found = self.model.step(self.view, self.optimizers)
            else:
                found = self.model.pass_over(self._batches(), self.optimizers)
            found |= self._judge()
            if on_epoch is not None:
                on_epoch(self, {"epoch": self.epoch, **found})
        if self.best is not None:
            self.model.load_state_dict(self.best[2], strict=False)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """Class probabilities of the wiped input, float [N, C]."""
        return self.model.predict_proba(self.data)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and state of a checkpoint."""
        state = {
            "optimizers": [o.state_dict() for o in self._all_optimizers()],
            "best": self.best,
            "random": compute.random_state(),
        }
        return dict(self.model.state_dict()), state

    def load_state_dict(
        self, weights: dict[str, Tensor], state: dict[str, Any], epoch: int
    ) -> None:
        """Goes on from a checkpoint."""
        self.model.load_state_dict(weights)
        for optimizer, saved in zip(self._all_optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.best = state["best"]
        compute.set_random_state(state["random"])
        self.epoch = epoch

    def _all_optimizers(self) -> list[torch.optim.Optimizer]:
        made: list[torch.optim.Optimizer] = [self.optimizers.student, self.optimizers.proxies]
        if isinstance(self.model.framework, GraphAKD):
            made.append(self.model.framework.optimizer)
        return made

    def _set_rates(self) -> None:
        """honest: the step sizes fall to 0 along a cosine, so that the last epoch is a calm one."""
        if self.config.mode == "official":
            return
        assert self.config.epochs is not None
        factor = (1 + math.cos(math.pi * self.epoch / self.config.epochs)) / 2
        groups = [g for o in self._all_optimizers()[:2] for g in o.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _batches(self) -> Any:
        assert self.config.batch_size is not None
        return neighbour_batches(
            self.data, self.config.batch_size, self.config.neighbours, shuffle=True
        )

    @torch.no_grad()
    def _judge(self) -> dict[str, float]:
        """Evaluates an epoch where validation labels choose, and keeps the best one."""
        if self.config.choose == "last":
            return {}
        model = self.model
        # The official loop of GraphAKD evaluates with dropout.
        as_released = self.config.mode == "official" and self.config.framework == "akd"
        model.student.train(as_released)
        data, val = self.data, self.data.val_mask
        logits = model(data.x, data.edge_index)[val]
        accuracy = float((logits.argmax(1) == data.y[val]).float().mean())
        loss = float(cross_entropy(logits, data.y[val]))
        value = accuracy if self.config.choose == "val-accuracy" else -loss
        if self.best is None or value >= self.best[0]:
            kept = {k: v.clone() for k, v in model.state_dict().items()}
            if self.config.mode == "official":  # restores the student, but not its proxies
                del kept["proxies"]
            self.best = value, self.epoch, kept
        return {"val accuracy": accuracy, "val loss": loss}


def score(data: Data, probabilities: Tensor, part: str = "test") -> dict[str, float]:
    """Scores class probabilities on one part of the nodes.

    Args:
        data: the graph.
        probabilities: float [N, C].
        part: ``train``, ``val`` or ``test``.
    """
    mask = data[f"{part}_mask"]
    p = probabilities[mask].double().cpu()
    p = p / p.sum(1, keepdim=True)
    return scores(
        data.y[mask].cpu().numpy(), p.argmax(1).numpy(), data.sensitive[mask].cpu().numpy(), p
    )


def what_was_used(config: TrainConfig) -> list[dict[str, str]]:
    """Says in words what a run read of which nodes, for the report.

    Args:
        config: from :func:`settled`.
    """
    official = config.mode == "official"
    places = {"train": "training", "unlabelled": "validation and test", "all": "all"}
    fair = places[str(config.fairness_nodes)]
    proxy = places[str(config.proxy_nodes)]
    plain = config.alpha == 0
    with_labels = config.notion != "sp"
    fairness = "none" if plain else f"{fair} nodes"
    if not plain and config.proxies == "learned" and proxy != fair:
        fairness += f" (student), {proxy} nodes (proxies)"
    labels = "training nodes"
    if config.choose != "last" or official:
        labels += "; validation nodes choose the epoch"
    if with_labels and not plain and {fair, proxy} != {"training"}:
        labels += f"; for the bias: {fairness}: **leaks the answers**"
    kept = "kept" if config.keep_sensitive else "left out"
    if config.dataset.startswith(("generated", "dblp")) and config.nodes is None:
        kept = "not among them"
    if config.proxies == "fixed":
        fairness += "; all nodes (fixed proxies)"
    return [
        {"what": "attributes and edges", "of": "all nodes (transductive)"},
        {"what": "sensitive column among the attributes", "of": kept},
        {"what": "labels", "of": labels},
        {"what": "sensitive attribute, for the bias", "of": fairness},
        {
            "what": "at prediction",
            "of": "attributes, edges, training labels (PLP only), mean proxy",
        },
    ]
