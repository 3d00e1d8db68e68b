"""How long an engine takes for a layer."""

import time

import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def layer_seconds(
    n: int,
    steps: int = 500,
    batch: int = 16,
    engine: str = "scan",
    repeats: int = 5,
    recurrent: bool = False,
) -> dict[str, float]:
    """Times Linear(n, n) + LIF, forward and backward, on one thread.

    Args:
        n: Neurons and inputs.
        steps: Time steps.
        batch: Samples.
        engine: scan or step.
        repeats: How often; the best counts.
        recurrent: Whether the layer is linked to itself, too.

    Returns:
        Processor seconds: `forward`, `backward`, `total`.

    Raises:
        InputError: For a number below 1.
    """
    for name, value in (("n", n), ("steps", steps), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise InputError(f"{name}={value}; expected >= 1")
    with Network() as net:
        source = Encoder(num=n, coding_method="null")
        layer = NeuronGroup(n, model="lif", tau_m=20.0)
        Connection(source, layer, w_std=n**-0.5)
        if recurrent:
            Connection(layer, layer, w_std=0.1 * n**-0.5)
        output = Decoder(dec_target=layer, num=n, coding_method="spike_counts")
        learner = Learner(algorithm="sbp")
    learner.trainable = [layer, *net.get_connections()]
    net.set_backend_dt(1.0)
    net.build(strategy=1, engine=engine, break_loops=recurrent)
    data = torch.rand(batch, steps, n, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        net.source(data)
        net.run(float(steps))
        middle = time.process_time()
        output.predict.sum().backward()
        times.append((middle - begun, time.process_time() - middle))
    best = min(times[1:], key=sum)
    return {"forward": best[0], "backward": best[1], "total": sum(best)}
