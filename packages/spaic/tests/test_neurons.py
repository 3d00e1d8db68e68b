"""The official traces of every neuron model (section 21), one neuron, dt 0.1, strategy 1."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Encoder, Network, NeuronGroup, StateMonitor, custom_model
from tenfold.spaic.model.neurons import model_names

# model, drive, once, variable, what was recorded
TRACES = [
    ("lif", 0.3, False, "V", [0.3, 0.5962734, 0.8888664, 0, 0.3, 0.5962734, 0.8888664, 0, 0.3]),
    ("lif", 1.0, True, "V", [1.0, 0.9875778, 0.9753099, 0.96319443]),
    ("lif", 1.0, True, "O", [0, 0, 0, 0]),
    (
        "clif",
        1.0,
        True,
        "V",
        [0, 0.0278339, 0.0550909, 0.08178, 0.1079106, 0.1334915, 0.1585312, 0.1830382],
    ),
    ("clif", 1.0, True, "M", [6.75, 6.693984]),
    ("clif", 1.0, True, "S", [6.75, 6.66615]),
    (
        "clif",
        1.0,
        False,
        "V",
        [
            0,
            0.0278339,
            0.0829239,
            0.1647034,
            0.2726135,
            0.406105,
            0.5646362,
            0.747673,
            0.95469666,
            1.1851883,
            0.43863678,
        ],
    ),
    ("clif", 1.0, False, "E", [0] * 9 + [1, 0.99501246]),
    ("clif2k", 1.0, True, "V", [0, 0.0178113, 0.0353861, 0.0527263]),
    ("clif2k", 1.0, True, "M", [5.3791437]),
    ("pclif", 1.0, True, "V", [0.3, 0.4499999, 0.5129999, 0.5264999]),
    ("if", 0.6, False, "V", [0.6, 0, 0.6, 0, 0.6, 0]),
    (
        "constantcurrentlif",
        2.0,
        False,
        "V",
        [0, 0.01, 0.01995, 0.0298503, 0.039701, 0.0495025, 0.059255, 0.0689587],
    ),
    ("nonspikinglif", 1.0, False, "V", [0, 0, 0, 0, 0.0149158, 0.0563837]),
    ("nonspikinglif", 1.0, False, "M", [0, 0, 2.1165347, 4.180812, 6.194122, 8.157722]),
    ("lifm", 0.3, False, "V", [0.3, 0.8684662, 0, 0, 0, 0, 0, 0]),
    ("lifm", 0.3, False, "O", [0, 0, 1, 1, 1, 1, 1, 1]),
    ("izh", 10, False, "V", [-65.7, -66.35604, -66.96584, -67.52792]),
    ("izh", 10, False, "U", [0.72, 0.4428, 0.1685199, -0.1027139]),
    ("aeif", 1000, False, "V", [-70.244125, -69.89205, -69.54374]),
    ("adex", 1000, False, "U", [0, 0.0009885, 0.0029544]),
    ("glif", 1.0, False, "V", [0.0018833, 0.0037496, 0.0056001]),
    ("glif", 1.0, False, "Theta_s", [0.0998, 0.0996004]),
    ("glif", 1.0, False, "Theta_v", [0.194, 0.1882026]),
    ("glif", 1.0, False, "I1", [0.0736, 0.067712]),
    ("glif", 1.0, False, "Vth", [1.2938, 1.2878029]),
    ("hh", 1.0, False, "V", [1.5659876, 0.9393677, -0.0859932, -1.0308387]),
    ("hh", 1.0, False, "m", [0.3111782, 0.21422]),
    ("hh", 1.0, False, "n", [0.4966599, 0.4937777]),
    ("hh", 1.0, False, "h", [0.0662954, 0.0719744]),
    ("lifstdp_ex", 5, False, "V", [-60, -55.04975, -60, -55.04975, -60, -55.04975]),
    ("lifstdp_ex", 5, False, "theta", [0, 0, 0.05, 0.05, 0.1, 0.1]),
    (
        "alifstdp_ex",
        1.5,
        False,
        "V",
        [1.5, 0.9850748, 0.4752731, 1.9705441, 1.4509368, 0.9364996],
    ),
    ("alifstdp_ex", 1.5, False, "theta", [0, 0.002, 0.004, 0.0039999, 0.0060039, 0.0080078]),
    ("lifstdp_ih", 12, False, "V", [-48, -45, -45, -45, -45, -45]),
    ("meanfield", 1.0, False, "U", [0, 0.01, 0.019, 0.0271, 0.03439, 0.040951]),
]


@pytest.mark.parametrize(("model", "drive", "once", "name", "recorded"), TRACES)
def test_a_model_repeats_the_official_trace(traced, model, drive, once, name, recorded):
    options = {"rho": 1.0} if model == "meanfield" and name == "" else {}
    found = traced(model, drive, len(recorded), [name], once=once, **options)[name]
    scale = np.maximum(np.abs(recorded), 1e-2)
    assert np.max(np.abs(found - recorded) / scale) < 1e-5


SPIKES = [
    ("lif", 0.3, 40, [3, 7, 11, 15, 19, 23, 27, 31, 35, 39]),
    ("clif", 1.0, 40, [9, 12, 15, 18, 20, 22, 24, 26, 27, 29, 30, 32, 33, 35, 36, 37, 39]),
    ("constantcurrentlif", 2.0, 300, [139, 140, 280, 281]),
    ("izh", 10, 400, [102, 198, 294, 390]),
    ("aeif", 1000, 750, [120, 242, 365, 489, 613, 738]),
    ("glif", 30, 300, [27, 58, 94, 134, 178, 225, 275]),
    ("lifstdp_ex", 5, 6, [2, 4]),
    ("alifstdp_ex", 1.5, 6, [1, 2, 4, 5]),
    ("lifstdp_ih", 12, 6, [1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("model", "drive", "steps", "expected"), SPIKES)
def test_a_model_spikes_at_the_official_steps(traced, model, drive, steps, expected):
    found = traced(model, drive, steps, ["O"])["O"]
    assert np.flatnonzero(found).tolist() == expected


def test_the_biased_integrator_and_the_crossings_of_hodgkin_huxley(traced):
    found = traced("ifb", 0.6, 6, ["V"], bias=0.1)["V"]
    np.testing.assert_allclose(found, [0.7, 0, 0.7, 0, 0.7, 0], rtol=1e-6)
    above = traced("hh", 1.0, 300, ["O"])["O"]
    assert (np.flatnonzero(np.diff(above) > 0) + 1).tolist()[-2:] == [37, 225]


def test_strategy_0_shifts_a_trace_by_one_step(traced):
    late = traced("lif", 0.3, 10, ["V"], strategy=0)["V"]
    early = traced("lif", 0.3, 10, ["V"], strategy=1)["V"]
    assert late[0] == 0
    np.testing.assert_array_equal(late[1:], early[:-1])


@pytest.mark.parametrize("compat", [None, "spaic"])
@pytest.mark.parametrize("model", model_names())
def test_every_model_runs_in_both_modes_and_stays_finite(traced, model, compat):
    found = traced(model, 0.5, 50, ["O"], compat=compat)["O"]
    assert np.all(np.isfinite(found))


def test_kernels_reach_the_peak_one(traced):
    for model in ("clif", "clif2k"):
        found = traced(model, 1.0, 1000, ["V"], once=True, v_th=9.0)["V"]
        assert found.max() == pytest.approx(1.0, abs=1e-4)


def test_the_quadratic_neuron_fires_with_the_period_of_its_closed_form(traced):
    drive, a, middle = 20.0, 0.1, -57.5
    spikes = traced("qlif", drive, 4000, ["O"], dt=0.02, compat=None)["O"]
    left = drive - a * 15**2 / 4  # above the current that it just answers
    root = np.sqrt(a / left)
    ends = np.arctan((30 - middle) * root) - np.arctan((-68 - middle) * root)
    period = 10 / np.sqrt(a * left) * ends
    found = np.diff(np.flatnonzero(spikes)) * 0.02
    assert len(found) > 2
    np.testing.assert_allclose(found, period, atol=0.04)


@custom_model(
    ["V", "Isyn[updated]", "O", "tau_m"],
    ["V"],
    {"V": 0.0, "tau_m": 8.0, "Vth[constant]": 1.0},
    "exp_euler_iterative",
)
def leaky(v, current, spiked, beta):
    """Like lif, with the reset in the step after the spike."""
    kept = v * (1 - spiked)
    return beta * kept + current


@custom_model(["V", "A", "Isyn[updated]", "tau_a"], ["V", "A"], {"V": 0.0, "A": 1.0, "tau_a": 5.0})
def swapping(v, a, current, tau):
    """Both change at once; plain variables."""
    return a + current, torch.exp(-v) / tau


@custom_model(["V", "Isyn", "tau"], ["V"], {"V": 0.0, "tau": 20.0, "Vth[constant]": 0.5}, "ode")
def relaxing(v, current, tau):
    return (current - v) / tau


def test_a_function_becomes_a_model_of_its_equations(traced):
    found = traced(leaky, 0.3, 12, ["V", "O"], compat=None, tau_m=4.0)
    v = spiked = 0.0
    for k in range(12):
        v = np.exp(-0.1 / 4.0) * v * (1 - spiked) + 0.3
        spiked = float(v > 1)
        assert found["V"][k] == pytest.approx(v, rel=1e-5)
        assert found["O"][k] == spiked
    assert found["O"].sum() == 3
    found = traced(swapping, 0.1, 4, ["V", "A"], compat=None)
    v, a = 0.0, 1.0
    for k in range(4):
        v, a = a + 0.1, np.exp(-v) / 5.0
        assert (found["V"][k], found["A"][k]) == (pytest.approx(v), pytest.approx(a))
    found = traced(relaxing, 1.0, 200, ["V", "O"], compat=None, method="exact")
    np.testing.assert_allclose(
        found["V"][:100], 1 - np.exp(-np.arange(1, 101) * 0.1 / 20), rtol=1e-4
    )
    first = int(np.ceil(20 * np.log(2) / 0.1)) - 1
    assert np.flatnonzero(found["O"])[0] == first


def test_a_model_from_a_function_runs_on_the_scan_engine_too():
    made = []
    for engine in ("step", "scan"):
        with Network() as net:
            source = Encoder(num=3, coding_method="null")
            cell = NeuronGroup(4, model=leaky)
            Connection(source, cell, weight=np.full((4, 3), 0.4))
        watch = StateMonitor(cell, "V")
        net.add_monitor("watch", watch)
        net.build(strategy=1, engine=engine)
        net.source((np.random.default_rng(0).random((2, 40, 3)) < 0.3).astype(float))
        net.run(4.0)
        made.append(watch.values)
    np.testing.assert_allclose(*made, rtol=1e-5)


def test_functions_that_are_not_equations_are_refused():
    def loops(v, current):
        for _ in range(3):
            v = v + current
        return v

    def calls(v, current):
        return v + current.mean()

    def fine(v, current):
        return v + current

    new = {"V": 0.0}
    for function, names, outputs, said in (
        (loops, ["V", "Isyn"], ["V"], "only `name = expression` and `return` are read"),
        (calls, ["V", "Isyn"], ["V"], "unknown function 'mean'"),
        (fine, ["V"], ["V"], "2 arguments, but 1 names"),
        (fine, ["V", "Isyn"], ["V", "U"], "1 returned values, but 2 names"),
        (fine, ["V", "Isyn"], ["U"], "output U is not a state"),
    ):
        with pytest.raises(InputError, match=said):
            custom_model(names, outputs, new)(function)
    with pytest.raises(InputError, match="unknown equation_type 'euler'"):
        custom_model(["V"], ["V"], new, "euler")
