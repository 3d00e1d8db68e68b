"""A small circuit with every kind of link, source and noise; several processes run this file."""

import numpy as np
import torch

from tenfold.spaic import (
    Connection,
    Encoder,
    Generator,
    Network,
    NeuronGroup,
    NeuronModel,
    SpikeMonitor,
    StateMonitor,
)

NOISY = NeuronModel(
    name="noisy",
    states={"V": 0.0},
    parameters={"tau_m": 10.0, "v_th": 1.0},
    ode="dV/dt = (0.6 + Isyn - V) / tau_m",
    threshold="V > v_th + 0.05 * normal()",
    reset="V = 0.1 * uniform()",
    method="exact",
)


def run(partition=False):
    random = np.random.default_rng(0)
    net = Network("spread", dtype=torch.float64)
    net.set_random_seed(7)
    net.image = Encoder(num=31, coding_method="poisson")
    net.noise = Generator(num=50, coding_method="poisson", rate=0.8)
    net.left = NeuronGroup(50, model=NOISY, tau_m=random.uniform(5, 15, 50))
    net.right = NeuronGroup(31, model="iaf_psc_exp", I_e=300.0, refractory=1.0)
    options = {"link_type": "bernoulli", "p": 0.3}
    mixed = {"max_delay": 2.0, "min_delay": 0.5}
    net.noise_in = Connection(net.noise, net.left, link_type="one_to_one_sparse", weight=3.0)
    net.image_in = Connection(net.image, net.right, w_mean=30.0, delay=0.7, post_var_name="ge")
    net.image_on = Connection(net.image, net.left, w_mean=1.0, **options, **mixed)
    net.forth = Connection(net.left, net.right, weight=90.0, post_var_name="ge", **options, **mixed)
    net.back = Connection(net.right, net.left, weight=-1.0, delay=0.4, **options)
    net.among = Connection(net.left, net.left, w_mean=0.5, w_std=0.3, delay=1.2, **options)
    net.spikes_left, net.spikes_right = SpikeMonitor(net.left), SpikeMonitor(net.right)
    net.trace = StateMonitor(net.right, "V", dt=0.7)
    net.set_backend(partition=partition)
    net.build(engine="event")
    for _ in range(2):  # a second run draws other noise, and reuses what was compiled
        net.image(np.full((1, 31), 0.3))
        net.run(20.0)
        net.run_continue(13.1)
    return net


if __name__ == "__main__":
    run(partition=True)
