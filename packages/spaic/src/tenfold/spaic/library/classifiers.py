"""Classifiers trained with surrogate gradients: the official examples (card section 16).

Each function gives a built network with the encoder `input`, the decoder `output` and the learner
`learner`; `tenfold.spaic.training.train` trains it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection, Initializer
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def _started(
    name: str, shape: Sequence[int], seed: int, dt: float, **coding: Any
) -> tuple[Network, Any]:
    net = Network(name)
    net.set_random_seed(seed)
    net.set_backend_dt(dt)
    net.input = Encoder(shape=tuple(shape), **coding)
    return net, net.input


def _finished(net: Network, last: NeuronGroup, strategy: int, **learner: Any) -> Network:
    coding = "spike_rate" if last.model_name == "li" else "spike_counts"  # mean of V, or spikes
    net.output = Decoder(dec_target=last, num=last.num, coding_method=coding)
    net.learner = Learner(trainable=net, **learner)
    net.learner.set_optimizer("Adam", lr=1e-3)
    net.build(strategy=strategy)
    return net


def stca_mnist(hidden: Sequence[int] = (), model: str = "clif", seed: int = 0) -> Network:
    """The tutorial's MNIST network: Poisson 784 → (hidden) → 10, STCA, dt 0.1 ms, 50 ms.

    One layer has 7,840 weights, with a hidden layer of 400 there are 317,602 parameters. Official
    curve of one layer: test 89.7 % after epoch 1, 92.3 to 92.8 % after epochs 60 to 100 (all of
    MNIST, batch 100, Adam 1e-3). With hidden layers the input is to be halved and the weights begin
    at mean 0.01.

    Args:
        hidden: Neurons of each hidden layer; the official two-layer example has (400,).
        model: clif or lif.
        seed: Of weights and spikes.
    """
    net, before = _started("stca_mnist", (784,), seed, 0.1, coding_method="poisson")
    drawn: dict[str, Any] = {"w_mean": 0.01, "w_std": 0.05} if hidden else {}
    for number, size in enumerate((*hidden, 10), start=1):
        group = NeuronGroup(size, model=model)
        net.add_assembly(f"layer{number}", group)
        net.add_connection(f"link{number}", Connection(before, group, **drawn))
        before = group
    return _finished(net, before, 0, algorithm="stca")


def convolutional(
    shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    coding: str = "poisson",
    seed: int = 0,
    readout: str = "spikes",
) -> Network:
    """The official convolutional MNIST network: sbp, arctangent surrogate, 13 steps of 2 ms.

    Input → 4 maps 3 × 3, maximum of 2 × 2 → `lif` (threshold 0.5) → 8 maps 3 × 3 → `lif` → full →
    `lif`. For MNIST 10,018 parameters. No result is published. The official text gives the bias of
    the first maps; those of the last layer begin at zero here. With these biases most of the first
    maps fire by themselves, which few and sparse events do not bear: for data with a time axis they
    begin at zero too.

    Args:
        shape: (channels, height, width) of the input.
        classes: The number of classes.
        coding: `poisson`, `float`, or `null` for data with a time axis.
        seed: Of weights and spikes.
        readout: `spikes`: counts of `lif` neurons, as in the official example; `li`: the mean
            potential of leaky integrators, which learns few and sparse events much better.

    Raises:
        InputError: For images smaller than 10 × 10.
    """
    if len(shape) != 3 or min(shape[1:]) < 10:
        raise InputError(f"shape={tuple(shape)}; expected (channels, height, width) from 10 x 10")
    net, source = _started("convolutional", shape, seed, 2.0, coding_method=coding)
    channels, high, wide = shape
    pooled = ((high - 2) // 2, (wide - 2) // 2)
    net.layer1 = NeuronGroup(shape=(4, *pooled), model="lif", v_th=0.5)
    net.layer2 = NeuronGroup(shape=(8, pooled[0] - 2, pooled[1] - 2), model="lif")
    net.layer3 = NeuronGroup(classes, model="li" if readout == "li" else "lif")
    bounds = [1 / math.sqrt(9 * channels), 1 / math.sqrt(72)]
    drawn = [Initializer("uniform", a=-bound, b=bound) for bound in bounds]
    net.link1 = Connection(
        source,
        net.layer1,
        link_type="conv",
        syn_type=["conv", "maxpool"],
        weight=drawn[0],
        bias=[0.0] * 4 if coding == "null" else [0.1, 0.2, 0.3, 0.4],
    )
    net.link2 = Connection(net.layer1, net.layer2, link_type="conv", weight=drawn[1])
    net.link3 = Connection(
        net.layer2,
        net.layer3,
        syn_type=["flatten", "basic"],
        weight=Initializer("kaiming_uniform", a=math.sqrt(5)),
        bias=torch.zeros(classes),
    )
    return _finished(net, net.layer3, 1, algorithm="sbp", alpha=2.0)


def tidigits(
    inputs: int = 1287,
    classes: int = 11,
    hidden: Sequence[int] = (500, 500),
    seed: int = 0,
    rate: float = 0.05,
    algorithm: str = "stca",
) -> Network:
    """The spoken-digit network: MFCC → Poisson → `lif` 500 → `lif` 500 → `lif` 11, STCA, 50 ms.

    99 frames of 13 coefficients (`tenfold.spaic.data.mfcc`), 899,000 weights, time constant 25 ms,
    dt 0.1 ms. The official script says 98.94 % on TIDIGITS (batch 20, Adam 1e-3, a tenth of it
    every second epoch, 30 epochs); TIDIGITS is sold by the LDC, so this is not measured here.

    Args:
        inputs: The number of features.
        classes: zero ... nine and oh.
        hidden: Neurons of the hidden layers.
        seed: Of weights and spikes.
        rate: Input spikes a ms of a feature at 1.
        algorithm: stca, stbp or sbp.
    """
    net, before = _started(
        "tidigits", (inputs,), seed, 0.1, coding_method="poisson", unit_conversion=rate
    )
    for number, size in enumerate((*hidden, classes), start=1):
        group = NeuronGroup(size, model="lif", tau_m=25.0)
        net.add_assembly(f"layer{number}", group)
        net.add_connection(f"link{number}", Connection(before, group))
        before = group
    _finished(net, before, 0, algorithm=algorithm)
    net.learner.set_schedule("StepLR", step_size=2, gamma=0.1)
    return net


def audio_mnist(inputs: int = 1287, classes: int = 10, seed: int = 0) -> Network:
    """The Audio-MNIST network: that of `tidigits` with 10 classes, 0.01 spikes a ms, and sbp.

    No result is published, and how long it is trained is not known here.

    Args:
        inputs: The number of features.
        classes: zero ... nine.
        seed: Of weights and spikes.
    """
    return tidigits(inputs, classes, seed=seed, rate=0.01, algorithm="sbp")


def resnet18(
    shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    width: int = 64,
    blocks: Sequence[int] = (2, 2, 2, 2),
    seed: int = 0,
) -> Network:
    """The ResNet-18 of the CIFAR-10 example: convolutions with batch norm as modules, IF neurons.

    Direct coding (the image at each step), `ifsoftreset` neurons with threshold 1, widths 64, 128,
    256, 512, a `null` output layer; 15 steps, strategy 1, batch 32, Adam 2.5e-3 on a cosine, 300
    epochs. No result is published, and none is measured here: one epoch takes hours on a CPU.

    Args:
        shape: (channels, height, width) of the image.
        classes: The number of classes.
        width: Channels of the first stage.
        blocks: Blocks of each stage; a stage has twice the channels of the one before.
        seed: Of weights.
    """
    net, source = _started("resnet18", shape, seed, 1.0, coding_method="float")
    random = torch.random.get_rng_state()
    torch.manual_seed(seed)  # torch draws the weights of its own modules

    def spiking(name: str, channels: int, size: tuple[int, int]) -> NeuronGroup:
        group = NeuronGroup(shape=(channels, *size), model="ifsoftreset", v_th=1.0)
        net.add_assembly(name, group)
        return group

    def mapped(name: str, source: Any, target: NeuronGroup, kernel: int, stride: int) -> None:
        layers = torch.nn.Sequential(
            torch.nn.Conv2d(
                source.size[0], target.size[0], kernel, stride, kernel // 2, bias=False
            ),
            torch.nn.BatchNorm2d(target.size[0]),
        )
        net.add(name, Module(layers, source, target))

    size = (shape[1], shape[2])
    before = spiking("stem", width, size)
    mapped("stem_map", source, before, 3, 1)
    for stage, count in enumerate(blocks):
        channels = width * 2**stage
        for block in range(count):
            stride = 2 if stage and block == 0 else 1
            size = tuple(-(-n // stride) for n in size)  # type: ignore[assignment]
            name = f"stage{stage + 1}_{block + 1}"
            inner, after = spiking(f"{name}a", channels, size), spiking(f"{name}b", channels, size)
            mapped(f"{name}a_map", before, inner, 3, stride)
            mapped(f"{name}b_map", inner, after, 3, 1)
            if stride == 1 and before.shape == after.shape:
                skip = Connection(before, after, link_type="null")
                net.add_connection(f"{name}_skip", skip)
            else:
                mapped(f"{name}_skip", before, after, 1, stride)
            before = after
    net.last = NeuronGroup(classes, model="null")
    head = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(before.size[0], classes)
    )
    net.head = Module(head, before, net.last)
    torch.random.set_rng_state(random)
    made = _finished(net, net.last, 1, algorithm="sbp")
    made.learner.set_optimizer("Adam", lr=2.5e-3)
    made.learner.set_schedule("CosineAnnealingLR", T_max=300)
    return made
