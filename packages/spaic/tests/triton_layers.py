"""Outputs and gradients of two layers of each model; run by itself, in Triton's interpreter."""

import sys

import numpy as np
import torch

from tenfold.spaic import Connection, Decoder, Encoder, Learner, Network, NeuronGroup, NeuronModel

HOMEMADE = NeuronModel(
    name="homemade",
    states={"V": 0.0, "W": 0.1},
    parameters={"tau": 5.0, "gain": 0.7, "v_th": 0.6},
    trainable=("gain", "tau"),
    constants="beta = exp(-dt / tau)",
    step="""
    drive = gain * tanh(Isyn) + 0.1 * erf(V) + sigmoid(W) * exprel(0.1 * V) - sqrt(W ** 2 + 1) / 9
    W = clip(0.9 * W + maximum(V, 0.1) * minimum(drive, 2.0), -3, 3) + 0.001 * V ** 5
    u = beta * V + drive + 0.05 * exp(-abs(W)) * cos(V) - (1 + relu(V)) ** 1.5 / 50
    O = spike(u - v_th)
    V = where(O > 0, 0.0, u - 0.1 * u * O) + 0.01 * sin(round(3 * u)) * log(1 + W * W)
    """,
)
MODELS = ("lif", "clif", "plif", "glif", "aclif", "lifm", "izh", "ifsubtract", HOMEMADE)


def layers(model, algorithm="sbp", recurrent=False, **options):
    random = np.random.default_rng(0)
    with Network() as net:
        source = Encoder(num=5, coding_method="null")
        given = {"tau_m": np.linspace(4, 9, 6)} if model in ("lif", "lifm") else {}
        hidden = NeuronGroup(6, model=model, **given)
        output = NeuronGroup(4, model=model)
        scale = {"glif": 100.0, "izh": 40.0}.get(model, 1.0) if isinstance(model, str) else 1.0
        Connection(source, hidden, weight=scale * random.normal(0.4, 0.5, (6, 5)))
        Connection(hidden, output, weight=scale * random.normal(0.4, 0.5, (4, 6)), bias=0.05)
        if recurrent:
            Connection(hidden, hidden, weight=random.normal(0.0, 0.3, (6, 6)), bias=0.02)
        record = Decoder(dec_target=output, num=4, coding_method="null")
        learner = Learner(algorithm=algorithm, **options)
    learner.trainable = [net]
    net.set_backend_dt(1.0)
    net.build(strategy=1, engine="scan", break_loops=recurrent)
    net.source((random.random((3, 12, 5)) < 0.5).astype(np.float32))
    net.run(12.0)
    made = record.predict
    (made * torch.arange(1.0, 5.0) ** 2).sum().backward()
    leaves = {name: p for name, p in net.named_parameters().items() if p.is_leaf}
    grads = {name: p.grad for name, p in leaves.items() if p.grad is not None}
    return made.detach(), grads, type(net._engine.kernels[id(hidden)]).__name__


def everything():
    made = {str(getattr(model, "name", model)): layers(model) for model in MODELS}
    surrogates = ("GateGrad", "SigmoidGrad")
    made |= {name: layers("lif", surrogate_func=name) for name in surrogates}
    made |= {"recurrent": layers("clif", recurrent=True)}
    return made | {"learned alpha": layers("lif", "stbp", learn_alpha=True)}


if __name__ == "__main__":
    torch.save(everything(), sys.argv[1])
