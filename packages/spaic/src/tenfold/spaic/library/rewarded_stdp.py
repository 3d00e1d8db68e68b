"""Classification by reward-modulated STDP (Florian 2007): no gradient, one reward a neuron."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.spaic.library.unsupervised import responses
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder, Reward


def rewarded(
    inputs: int = 64,
    classes: int = 10,
    seed: int = 0,
    *,
    rate: float = 0.2,
    lr: float = 5e-4,
    learning: bool = True,
) -> Network:
    """Poisson inputs, one LIF neuron a class, `rstdp` with the reward of `classify_reward`.

    The reward of a neuron is (its class is right) − (share of its spikes so far, as a softmax): a
    neuron that fires too much for a wrong class loses the weights that made it fire.

    Args:
        inputs: The number of input channels, values from 0 to 1.
        classes: The number of classes.
        seed: Of weights and inputs.
        rate: Input spikes a ms of a channel at 1.
        lr: The rate of learning.
        learning: False gives the network for testing.

    Returns:
        A network with `input`, `neurons`, `plastic`, `output` and, while learning, `reward`.
    """
    net = Network("rewarded")
    net.set_random_seed(seed)
    net.set_backend_dt(1.0)
    net.input = Encoder(num=inputs, coding_method="poisson", unit_conversion=rate)
    net.neurons = NeuronGroup(classes, model="lif", tau_m=20.0)
    drawn = torch.rand(classes, inputs, generator=torch.Generator().manual_seed(seed))
    net.plastic = Connection(
        net.input, net.neurons, weight=0.2 * drawn, is_parameter=False, w_min=-0.5, w_max=0.5
    )
    net.output = Decoder(dec_target=net.neurons, num=classes, coding_method="spike_counts")
    if learning:
        net.reward = Reward(dec_target=net.neurons, num=classes, coding_method="classify_reward")
        net.rstdp = Learner(trainable=net.plastic, algorithm="rstdp", lr=lr, A_minus=0.0)
    return net


@dataclass
class Reinforced:
    """What training by reward gave.

    Attributes:
        weight: [classes, inputs].
        accuracy: On the test samples.
        before: The same before any training.
    """

    weight: torch.Tensor
    accuracy: float
    before: float


def reinforce(
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    samples: int = 3000,
    time: float = 50.0,
    seed: int = 0,
    **options: Any,
) -> Reinforced:
    """Shows samples drawn at random, one after the other, and rewards the neurons.

    Args:
        x: float [samples, inputs], from 0 to 1.
        y: int64 [samples].
        x_test: As x.
        y_test: As y.
        samples: How many are shown.
        time: How long each, in ms.
        seed: Of weights, order and spikes.
        **options: rate and lr of `rewarded`.

    Raises:
        InputError: For samples without a label each.
    """
    if len(x) != len(y) or len(x_test) != len(y_test):
        raise InputError(
            f"{len(x)} training samples with {len(y)} labels, {len(x_test)} test samples with "
            f"{len(y_test)}; expected a label for each"
        )
    classes = int(max(y.max(), y_test.max())) + 1
    net = rewarded(x.shape[1], classes, seed, **options)

    def tested() -> float:
        net.prepare()
        fixed = {key: value for key, value in options.items() if key == "rate"}
        tester = rewarded(x.shape[1], classes, seed, learning=False, **fixed)
        tester.plastic.given_weight = net.plastic.weight
        guess = responses(tester, x_test, time).argmax(1)
        return float((guess == y_test).mean())

    before = tested()
    order = np.random.default_rng(seed).integers(len(x), size=samples)
    with progress("rewarding", total=samples) as bar:
        for index in order:
            net.input(x[index : index + 1])
            net.reward(y[index : index + 1])
            net.run(time)
            bar.update()
    return Reinforced(net.plastic.weight.detach().clone(), tested(), before)
