"""A liquid-state machine: a fixed recurrent circuit whose echo of the input a read-out learns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tenfold.spaic.library.circuits import _split
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def reservoir(
    inputs: int,
    size: int = 500,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    drive: float = 0.6,
    coupling: float = 0.15,
) -> Network:
    """A liquid-state machine: spikes in, a sparse recurrent circuit of LIF neurons, rates out.

    Args:
        inputs: The number of input channels.
        size: The number of neurons, 80 % of them excitatory.
        seed: Of connections.
        dtype: The precision.
        drive: The mean weight of an input, in units of the threshold; a third of it is its
            deviation, 30 % of all pairs are linked.
        coupling: The same of an excitatory synapse in the circuit, of which a neuron has 20;
            inhibition is twice as strong.
    """
    n_e, _ = _split(size, 0.8)
    net = Network("reservoir", dtype=dtype)
    net.set_random_seed(seed)
    net.input = Encoder(num=inputs, coding_method="null")
    net.liquid = NeuronGroup(size, model="lif", tau_m=20.0)
    net.into = Connection(
        net.input, net.liquid, link_type="bernoulli", p=0.3, w_mean=drive, w_std=drive / 3
    )
    random = np.random.default_rng(seed)
    pre, post = np.nonzero(random.random((size, size)) < 20 / size)
    weight = np.abs(random.normal(coupling, coupling / 3, len(pre))) * np.where(
        pre < n_e, 1.0, -2.0
    )
    net.recurrent = Connection(
        net.liquid, net.liquid, link_type="index", pre_index=pre, post_index=post, weight=weight
    )
    net.output = Decoder(dec_target=net.liquid, num=size, coding_method="spike_counts")
    return net


@dataclass
class Echo:
    """What a read-out of a liquid reached.

    Attributes:
        accuracy: Of a linear read-out of the liquid, on the test samples.
        without: Of the same read-out of the input itself, filtered in the same way.
        states: [test samples, neurons], the filtered spikes that were read.
    """

    accuracy: float
    without: float
    states: np.ndarray


def recall(
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    size: int = 500,
    seed: int = 0,
    hold: int = 5,
    tau: float = 20.0,
    **options: Any,
) -> Echo:
    """Feeds sequences into a liquid and trains a linear read-out of its state at the end.

    The state is the liquid's spikes filtered by an exponential, as in Maass, Natschläger & Markram
    (Neural Computation 14, 2002); the read-out is a logistic regression. What the same read-out
    makes of the input itself, filtered in the same way, stands beside it: the liquid's part is the
    difference.

    Args:
        x: float [samples, parts, channels], from 0 to 1; a part is held for `hold` ms.
        y: int64 [samples].
        x_test: As x.
        y_test: As y.
        size: The number of neurons.
        seed: Of the circuit.
        hold: Time of a part in ms.
        tau: Time constant of the filter in ms.
        **options: drive and coupling of `reservoir`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    net = reservoir(x.shape[2], size, seed, **options)
    net.set_backend_dt(1.0)
    net.output = Decoder(dec_target=net.liquid, num=size, coding_method="v_t")

    count = hold * x.shape[1]
    kept = torch.exp(-torch.arange(count - 1, -1, -1) / tau)

    def fed(data: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.repeat(data, hold, axis=1).astype(np.float32))

    def heard(data: np.ndarray) -> np.ndarray:
        net.input(fed(data))
        net.run(float(count))
        return torch.einsum("t,tbn->bn", kept, net.output.predict).numpy()

    def filtered(data: np.ndarray) -> np.ndarray:
        return torch.einsum("t,btn->bn", kept, fed(data)).numpy()

    def score(train: np.ndarray, test: np.ndarray) -> float:
        scaler = StandardScaler().fit(train)
        model = LogisticRegression(max_iter=1000, C=0.1).fit(scaler.transform(train), y)
        return float(model.score(scaler.transform(test), y_test))

    states = heard(x_test)
    return Echo(score(heard(x), states), score(filtered(x), filtered(x_test)), states)
