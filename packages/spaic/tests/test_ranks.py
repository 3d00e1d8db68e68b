"""A circuit over two processes gives the spikes of one."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Network, NeuronGroup, SpikeMonitor
from tenfold.spaic.engines.ranks import launched
from tenfold.spaic.experiments import SimulateConfig, simulate

SCRIPT = str(Path(__file__).with_name("spread_circuit.py"))


def assert_equal(one, two, least):
    assert two.engine_note == "event: over 2 processes"
    pairs = zip(one.parts(SpikeMonitor), two.parts(SpikeMonitor), strict=True)
    for a, b in pairs:
        assert len(a.spk_times[0]) > least
        np.testing.assert_array_equal(a.spk_times[0], b.spk_times[0])
        np.testing.assert_array_equal(a.spk_index[0], b.spk_index[0])
    for a, b in zip(one.parts(NeuronGroup), two.parts(NeuronGroup), strict=True):
        for name in ("V", "O"):  # the states too, to the last bit
            found = two.variable(b, name).numpy()
            np.testing.assert_array_equal(one.variable(a, name).numpy(), found)


def test_two_processes_give_the_spikes_of_one():
    run = runpy.run_path(SCRIPT)["run"]
    one = run()
    with launched(2, runpy.run_path, SCRIPT, None, "__main__"):
        two = run(partition=True)
    assert two._engine.exchange.window == 5  # the shortest delay, of 0.4 ms, and an early link
    assert_equal(one, two, 50)
    np.testing.assert_array_equal(one.trace.values, two.trace.values)
    assert one.trace.values.std() > 1


def circuits_agree(circuit, size, time, window):
    one = simulate(SimulateConfig(circuit=circuit, size=size, time=time))
    two = simulate(SimulateConfig(circuit=circuit, size=size, time=time, processes=2))
    assert two.network._engine.exchange.window == window
    assert_equal(one.network, two.network, 10)


def test_without_delays_spikes_are_exchanged_within_the_step():
    circuits_agree("cuba", 1001, 60.0, 0)


@pytest.mark.slow
def test_two_processes_give_the_spikes_of_the_microcircuit():
    circuits_agree("microcircuit", 1500, 100.0, 1)


def test_a_partition_of_one_process_and_what_cannot_be_spread_are_refused():
    with pytest.raises(InputError, match="start several with torchrun"):
        Network().set_backend(partition=True)
    with pytest.raises(InputError, match="processes=1; expected >= 2"), launched(1, print):
        pass
    with pytest.raises(InputError, match="processes=0"):
        SimulateConfig(processes=0)
    with Network() as net:
        cell = NeuronGroup(3)
        Connection(cell, cell, bias=0.1, name="link")
    net.ranks = 2
    with pytest.raises(InputError, match=r"True cannot run this network: Connection link is not"):
        net.run(1.0)
