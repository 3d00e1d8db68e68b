import os
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spreads the whole suite over two processes: on a new machine it compiles a hundred loops."""
    whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parents[1]]
    asked = getattr(config.option, "numprocesses", 0) is not None  # or xdist is not there
    if whole and not asked and "PYTEST_XDIST_WORKER" not in os.environ:
        config.option.numprocesses, config.option.dist = 2, "loadfile"


@pytest.fixture
def traced():
    """Runs one neuron on a constant input a step and gives its recorded variables."""
    from tenfold.spaic import Connection, Encoder, Network, NeuronGroup, StateMonitor

    def run(model, drive, steps, names, dt=0.1, strategy=1, compat="spaic", **options):
        pulse = options.pop("once", False)
        with Network(compat=compat) as net:
            source = Encoder(num=1, coding_method="null")
            cell = NeuronGroup(1, model=model, **options)
            Connection(source, cell, weight=[[1.0]])
        monitors = {}
        for name in names:
            monitors[name] = StateMonitor(cell, name)
            net.add_monitor(f"m_{name}", monitors[name])
        data = np.full((1, steps, 1), float(drive))
        if pulse:
            data[:, 1:] = 0
        net.set_backend_dt(dt)
        net.build(strategy=strategy)
        net.source(data)
        net.run(steps * dt)
        return {name: monitor.values[0, 0] for name, monitor in monitors.items()}

    return run
