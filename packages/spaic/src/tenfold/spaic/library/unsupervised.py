"""Diehl & Cook (2015): digits told apart by STDP, lateral inhibition and adaptive thresholds.

Card sections 16 and 18. The official example has time constants in steps; here they are in ms, and
a step is 1 ms, so that the numbers are the same: 63.75 Hz for a white pixel, 256 ms an image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def diehl_cook(
    inputs: int = 784,
    size: int = 100,
    seed: int = 0,
    *,
    rate: float = 0.06375,
    norm: float | None = None,
    learning: bool = True,
    **options: Any,
) -> Network:
    """The network of Diehl & Cook (Frontiers Comput. Neurosci. 2015) as in the official example.

    Poisson inputs, all-to-all plastic weights to `size` excitatory neurons whose thresholds rise
    with each spike, an inhibitory neuron for each of them that silences all others. Reference
    values of this architecture on all of MNIST (Diehl & Cook 2015): 100 neurons 82.9 %, 400 87.0 %,
    1,600 91.9 %, 6,400 95.0 %.

    Args:
        inputs: The number of input channels, values from 0 to 1.
        size: The number of excitatory neurons.
        seed: Of weights and inputs.
        rate: Input spikes a ms of a channel at 1.
        norm: What the weights of a neuron sum to; 0.1 an input by default (78.4 for MNIST).
        learning: False gives the network for testing: fixed weights, thresholds that stay.
        **options: Further options of `nearest_online_stdp`: Apost, Apre, ...

    Returns:
        A network with the encoder `input`, the groups `excitatory` and `inhibitory`, the link
        `plastic` and the decoder `output` (spike counts).
    """
    net = Network("diehl_cook")
    net.set_random_seed(seed)
    net.set_backend_dt(1.0)
    net.input = Encoder(num=inputs, coding_method="poisson", unit_conversion=rate)
    grows: dict[str, Any] = {} if learning else {"th_inc": 0.0, "tau_theta": 1e30}
    net.excitatory = NeuronGroup(size, model="lifstdp_ex", **grows)
    net.inhibitory = NeuronGroup(size, model="lifstdp_ih")
    random = torch.Generator().manual_seed(seed)
    weight = 0.3 * torch.rand(size, inputs, generator=random)
    net.plastic = Connection(net.input, net.excitatory, weight=weight, is_parameter=False)
    net.excite = Connection(
        net.excitatory, net.inhibitory, weight=22.5 * torch.eye(size), is_parameter=False
    )
    others = -120.0 * (1 - torch.eye(size))
    net.inhibit = Connection(net.inhibitory, net.excitatory, weight=others, is_parameter=False)
    if learning:
        total = 0.1 * inputs if norm is None else norm
        net.stdp = Learner(
            trainable=net.plastic, algorithm="nearest_online_stdp", norm=total, **options
        )
    net.output = Decoder(dec_target=net.excitatory, num=size, coding_method="spike_counts")
    return net


def diehl_cook_integer(inputs: int = 784, size: int = 100, seed: int = 0) -> Network:
    """The same network in 16-bit integers, as for a neuromorphic chip (card section 16).

    Bernoulli inputs with probability 0.128 x, whole weights from 0 to 32 at first, `diehlandcook`
    and `lifint` neurons, the rule `postpreintstdp`; a sample is shown for 250 steps of 1 ms. No
    result is published.

    Args:
        inputs: The number of input channels, values from 0 to 1.
        size: The number of excitatory neurons.
        seed: Of weights, inputs and the rule's stochastic rounding.

    Returns:
        A network with the parts of `diehl_cook`.
    """
    net = Network("diehl_cook_integer", dtype=torch.float64)
    net.set_random_seed(seed)
    net.set_backend_dt(1.0)
    net.input = Encoder(num=inputs, coding_method="bernoulli", max_prob=0.128)
    net.excitatory = NeuronGroup(size, model="diehlandcook")
    net.inhibitory = NeuronGroup(size, model="lifint")
    random = torch.Generator().manual_seed(seed)
    weight = torch.randint(0, 33, (size, inputs), generator=random)
    net.plastic = Connection(net.input, net.excitatory, weight=weight, is_parameter=False)
    excite = 2.0 * torch.eye(size)
    net.excite = Connection(net.excitatory, net.inhibitory, weight=excite, is_parameter=False)
    others = -32767.0 * (1 - torch.eye(size))
    net.inhibit = Connection(net.inhibitory, net.excitatory, weight=others, is_parameter=False)
    net.stdp = Learner(trainable=net.plastic, algorithm="postpreintstdp")
    net.output = Decoder(dec_target=net.excitatory, num=size, coding_method="spike_counts")
    return net


@dataclass
class Clustered:
    """A trained network of Diehl & Cook.

    Attributes:
        weight: [neurons, inputs].
        theta: [neurons], how far the thresholds have risen, in mV.
        assigned: int64 [neurons], the class of each neuron.
        share: [neurons, classes], how its mean counts spread over the classes.
        all_activity: Accuracy on the test samples by the class whose neurons fire most on average.
        proportion: The same by counts weighted with `share`.
    """

    weight: Tensor
    theta: Tensor
    assigned: np.ndarray
    share: np.ndarray
    all_activity: float
    proportion: float


def cluster(
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    size: int = 100,
    seed: int = 0,
    time: float = 256.0,
    epochs: int = 1,
    on_sample: Callable[[int], None] | None = None,
    **options: Any,
) -> Clustered:
    """Trains without labels, one sample after the other, then names the neurons and tests.

    Args:
        x: float [samples, inputs], from 0 to 1.
        y: int64 [samples]; used to name the neurons only.
        x_test: As x.
        y_test: As y.
        size: The number of excitatory neurons.
        seed: Of weights, order and input spikes.
        time: How long a sample is shown, in ms.
        epochs: Passes over the samples.
        on_sample: Called with the number of samples seen.
        **options: Those of `diehl_cook`.
    """
    if len(x) != len(y) or len(x_test) != len(y_test):
        raise InputError(
            f"{len(x)} training samples with {len(y)} labels, {len(x_test)} test samples with "
            f"{len(y_test)}; expected a label for each"
        )
    net = diehl_cook(x.shape[1], size, seed, **options)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).numpy()
    with progress("clustering", total=epochs * len(x)) as bar:
        for done, index in enumerate(np.tile(order, epochs), start=1):
            net.input(x[index : index + 1])
            net.run(time)
            bar.update()
            if on_sample is not None:
                on_sample(done)
    weight = net.plastic.weight.detach().clone()
    theta = net.variable(net.excitatory, "theta")[0].clone()
    fixed = {key: value for key, value in options.items() if key == "rate"}
    tester = diehl_cook(x.shape[1], size, seed, learning=False, **fixed)
    tester.plastic.given_weight = weight
    tester.excitatory.initial["theta"] = theta
    counts, counts_test = (responses(tester, part, time) for part in (x, x_test))
    classes = int(max(y.max(), y_test.max())) + 1
    assigned, share = assign_labels(counts, y, classes)
    guesses = (
        all_activity(counts_test, assigned, classes),
        proportion_weighting(counts_test, share),
    )
    first, second = (float((guess == y_test).mean()) for guess in guesses)
    return Clustered(weight, theta, assigned, share, first, second)


def responses(net: Network, x: np.ndarray, time: float = 256.0, batch: int = 250) -> np.ndarray:
    """Gives the spike counts of a network's decoder for each sample.

    Args:
        net: A network with `input` and `output`.
        x: [samples, inputs].
        time: How long a sample is shown, in ms.
        batch: Samples at once.

    Returns:
        float [samples, neurons].
    """
    found = []
    for start in range(0, len(x), batch):
        net.input(x[start : start + batch])
        net.run(time)
        found.append(net.output.predict.numpy())
        net.reset()
    return np.concatenate(found)


def assign_labels(
    counts: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each neuron the class that it answers to most (card section 18).

    Args:
        counts: [samples, neurons].
        labels: int64 [samples].
        classes: The number of classes.

    Returns:
        int64 [neurons], −1 for neurons that never fired; and [neurons, classes], the share of each
        class in the sum of a neuron's mean counts.
    """
    hot = np.eye(classes)[labels]
    mean = (counts.T @ hot) / np.maximum(hot.sum(0), 1)
    total = mean.sum(1, keepdims=True)
    assigned = np.where(total[:, 0] > 0, mean.argmax(1), -1)
    return assigned, mean / np.maximum(total, 1e-12)


def all_activity(counts: np.ndarray, assigned: np.ndarray, classes: int) -> np.ndarray:
    """Says the class whose neurons have the highest mean count (card section 18).

    Args:
        counts: [samples, neurons].
        assigned: int64 [neurons], from `assign_labels`.
        classes: The number of classes.

    Returns:
        int64 [samples]; ties go to the lowest class.
    """
    hot = (assigned[:, None] == np.arange(classes)).astype(float)
    return np.asarray((counts @ hot / np.maximum(hot.sum(0), 1)).argmax(1))


def proportion_weighting(counts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Says the class with the most counts, each weighted by the neuron's share of it (section 18).

    Args:
        counts: [samples, neurons].
        share: [neurons, classes], from `assign_labels`.

    Returns:
        int64 [samples]; ties go to the lowest class.
    """
    return np.asarray((counts @ share).argmax(1))
