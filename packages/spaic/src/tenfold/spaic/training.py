"""Training of spiking classifiers with surrogate gradients: one plain loop."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from tenfold.shared import compute
from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.shared.runs import Run
from tenfold.spaic.configuration import TrainConfig as TrainConfig
from tenfold.spaic.data import Split, load
from tenfold.spaic.library import classifiers as library
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network, NetworkModule
from tenfold.spaic.network.nodes import Decoder, Encoder
from tenfold.spaic.objective import accuracy, rate_cross_entropy, standardised_cross_entropy

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def data_of(config: TrainConfig) -> Split:
    """Loads the data of a run.

    Args:
        config: The run.

    Raises:
        InputError: If files are missing, or data with a time axis have another number of steps.
    """
    split = load(config.dataset, config.steps)
    if split.timed and split.x.shape[1] != config.steps:
        raise InputError(
            f"steps={config.steps}; the samples of {config.dataset} have {split.x.shape[1]} steps"
        )
    return split


def classifier(
    config: TrainConfig, shape: Sequence[int], classes: int, timed: bool = False
) -> Network:
    """Builds the classifier of a configuration.

    Args:
        config: The run.
        shape: The shape of a sample, without time.
        classes: The number of classes.
        timed: Whether the data have a time axis.

    Raises:
        InputError: If the network of the library does not take such data.
    """
    if config.network == "layers":
        return _layers(config, math.prod(shape), classes, timed)
    if timed and config.network != "convolutional":
        raise InputError(f"network={config.network!r} takes no data with a time axis")
    net: Network
    if config.network == "convolutional":
        coding = "null" if timed else config.coding
        net = library.convolutional(shape, classes, coding, config.seed, config.readout)
    elif config.network == "resnet18":
        net = library.resnet18(shape, classes, seed=config.seed)
    elif config.network == "tidigits":
        net = library.tidigits(math.prod(shape), classes, seed=config.seed)
    elif config.network == "audio-mnist":
        net = library.audio_mnist(math.prod(shape), classes, config.seed)
    else:
        if math.prod(shape) != 784 or classes != 10:
            raise InputError("network='stca' is for 784 inputs and 10 classes (MNIST)")
        net = library.stca_mnist(config.hidden, config.model, config.seed)
    net.engine = config.engine
    return net


def _layers(config: TrainConfig, inputs: int, classes: int, timed: bool) -> Network:
    """Input, hidden layers, read-out."""
    net = Network("classifier")
    net.set_random_seed(config.seed)
    net.set_backend_dt(1.0)
    net.input = Encoder(num=inputs, coding_method="null" if timed else config.coding)
    before: Any = net.input
    sizes = [*config.hidden, classes]
    random = torch.Generator().manual_seed(config.seed)
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        name = "output" if last else f"layer{number + 1}"
        kind = "li" if last and config.readout == "li" else config.model
        options: dict[str, Any] = (
            {"tau_m": config.tau_m} if kind in ("lif", "li", "clif", "lifm") else {}
        )
        group = NeuronGroup(size, model=kind, **options)
        net.add_assembly(name, group)
        bound = (6 / (before.num + size)) ** 0.5
        weight = (torch.rand(size, before.num, generator=random) * 2 - 1) * bound
        link = Connection(before, group, weight=weight, bias=torch.zeros(size))
        net.add_connection(f"{before.name}_{name}", link)
        before = group
    coding = "spike_rate" if config.readout == "li" else "spike_counts"
    net.result = Decoder(dec_target=before, num=classes, coding_method=coding)
    chosen: dict[str, Any] = {} if config.alpha is None else {"alpha": config.alpha}
    if config.algorithm.lower() == "sbp":
        chosen["surrogate_func"] = config.surrogate
    net.learner = Learner(trainable=net, algorithm=config.algorithm, **chosen)
    net.build(strategy=config.strategy, engine=config.engine)
    return net


@dataclass
class Trained:
    """What a training gives.

    Attributes:
        network: The network.
        accuracy: On the test samples, from 0 to 1.
        history: The metrics of each epoch.
        outputs: [test samples, classes].
        split: The data.
        throughput: Training samples a second of wall time, checkpoints included; 0 if nothing was
            left to train.
    """

    network: Network
    accuracy: float
    history: list[dict[str, Any]]
    outputs: Tensor
    split: Split
    throughput: float = 0.0


def train(
    config: TrainConfig,
    run: Run | None = None,
    split: Split | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    fabric: "Fabric | None" = None,
) -> Trained:
    """Trains a classifier.

    Args:
        config: The run.
        run: Where metrics and checkpoints go, and where an interrupted training goes on from.
        split: The data; by default those of `config.dataset`.
        on_epoch: Called with the metrics of each epoch.
        fabric: Where to run; with several processes, launched before the run's folder was made.
    """
    fabric = fabric or compute.fabric(config.device, config.devices)
    split = split or data_of(config)
    net = classifier(config, split.sample_shape, split.classes, split.timed)
    if fabric.device.type != "cpu":
        net.set_backend(device=str(fabric.device))
        net.build()
    module = net.as_module(config.steps * net.dt)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    model, optimiser = fabric.setup(module, optimiser)
    x, y = torch.from_numpy(split.x) * config.input_scale, torch.from_numpy(split.y)
    potentials = config.network in ("layers", "convolutional") and config.readout == "li"
    loss_of = rate_cross_entropy if potentials else standardised_cross_entropy
    start = 0
    if run is not None:
        if saved := run.load():
            weights, state, epoch = saved
            module.load_state_dict(weights)
            optimiser.load_state_dict(state["optimiser"])
            net._random.set_state(state["random"])
            start = epoch + 1
        run.rewind(start - 1)
    history = list(run.metrics()) if run is not None else []
    share = fabric.world_size
    steps = -(-len(x) // config.batch_size) * config.epochs
    begun = time.perf_counter()
    with progress("training", total=config.epochs) as bar:
        bar.update(start)
        for epoch in range(start, config.epochs):
            order = torch.randperm(
                len(x), generator=torch.Generator().manual_seed(config.seed * 100_003 + epoch)
            )
            total = seen = 0.0
            net.train()
            for number, batch in enumerate(order.split(config.batch_size)):
                mine = batch[fabric.global_rank :: share]
                if not len(mine):  # every process takes part in every step
                    mine = batch[:1]
                done = epoch * -(-len(x) // config.batch_size) + number
                for part in optimiser.param_groups:
                    part["lr"] = config.learning_rate * _share(config, epoch, done / steps)
                output = model(x[mine].to(fabric.device))
                loss = loss_of(output, y[mine].to(fabric.device))
                optimiser.zero_grad()
                fabric.backward(loss)
                optimiser.step()
                total, seen = total + float(loss.detach()) * len(mine), seen + len(mine)
            whole = fabric.all_reduce(torch.tensor([total, seen]), reduce_op="sum")
            row: dict[str, Any] = {"epoch": epoch, "loss": float(whole[0] / whole[1])}
            history.append(row)
            if run is not None:
                run.log(**row)
                state = {"optimiser": optimiser.state_dict(), "random": net._random.get_state()}
                run.save(module.state_dict(), state, epoch)
            if on_epoch is not None:
                on_epoch(row)
            bar.update(loss=row["loss"])
    speed = (config.epochs - start) * len(x) / (time.perf_counter() - begun)
    outputs = predict(config, cast(NetworkModule, module), split.x_test)
    found = accuracy(outputs, torch.from_numpy(split.y_test))
    return Trained(net, found, history, outputs, split, max(speed, 0.0))


def _share(config: TrainConfig, epoch: int, done: float) -> float:
    """How much of the first step size is left, when a share of the training is done."""
    if config.schedule == "step":
        return 0.1 ** (epoch // 2)
    return 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0


@torch.no_grad()
def predict(config: TrainConfig, module: NetworkModule, x: Any) -> Tensor:
    """Gives a classifier's outputs, in batches.

    Args:
        config: The run.
        module: The network as a module.
        x: [samples, ...].

    Returns:
        [samples, classes], on the CPU.
    """
    net = module.network
    net.eval()
    device = net.device
    data = torch.from_numpy(x) * config.input_scale
    return torch.cat([module(part.to(device)).cpu() for part in data.split(500)])
