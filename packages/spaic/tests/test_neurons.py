"""The official traces of every neuron model (section 21), one neuron, dt 0.1, strategy 1."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Encoder,
    Generator,
    Network,
    NeuronGroup,
    NeuronModel,
    SpikeMonitor,
    StateMonitor,
    custom_model,
)
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


def test_the_integer_neuron_of_diehl_and_cook_equals_integer_arithmetic(traced):
    v, refrac, thresh, expected = 0, 0, 213, []
    for _ in range(120):
        if thresh > 4915:
            thresh >>= 1
        v = (1013 * v) >> 10
        if refrac <= 0:
            v += (77 * 154) >> 10
        refrac -= 1
        spike = v > thresh
        if spike:
            refrac, v = 5, 0
        thresh += 66 * spike
        v = max(v, -32767)
        expected.append((v, thresh, int(spike)))
    found = traced("diehlandcook", 77.9, 120, ["V", "th", "O"])
    v, th, o = zip(*expected, strict=True)
    assert sum(o) >= 3
    np.testing.assert_array_equal(found["V"], v)
    np.testing.assert_array_equal(found["th"], th)
    np.testing.assert_array_equal(found["O"], o)


def test_the_integer_neuron_halves_a_threshold_that_is_too_high(traced):
    found = traced("diehlandcook", 0.0, 3, ["th"], thresh=6001.0)["th"]
    assert found.tolist() == [3000, 3000, 3000]


def test_lifint_is_at_rest_while_refractory(traced):
    options = {"thresh": 3.0, "decay": 0.5, "v_rest": 1.0, "v_reset": 0.5, "reset_refrac": 2.0}
    found = traced("lifint", 1.5, 12, ["V", "O"], **options)
    v, refrac, expected = 0.0, 0.0, []
    for _ in range(12):
        x = 0.0 if refrac > 0 else 1.5
        refrac -= 1
        v = 0.5 * (v - 1.0) + 1.0 + x
        spike = v >= 3.0
        if spike:
            refrac, v = 2.0, 0.5
        expected.append((v, spike))
    np.testing.assert_allclose(found["V"], [v for v, _ in expected], rtol=1e-6)
    assert found["O"].tolist() == [float(s) for _, s in expected]
    assert traced("lifint", 1.0, 2, ["O"])["O"].tolist() == [1, 1]  # at the threshold, not above


def test_plif_learns_the_logit_of_its_time_constant(traced):
    found = traced("plif", 0.8, 8, ["V", "O"], tau_m=4.0, v_th=0.6)
    v = 0.0
    for k in range(8):
        u = v + 0.25 * (0.8 - v)
        o = float(u > 0.6)
        v = u - u * o
        assert (found["V"][k], found["O"][k]) == (pytest.approx(v, abs=1e-6), o)
    assert found["O"].sum() > 0
    group = NeuronGroup(2, model="plif")
    group.prepare(None, torch.float64, torch.device("cpu"))
    assert group.trainables["w0"].item() == 0  # −ln(2 − 1)


@pytest.mark.parametrize("compat", [None, "spaic"])
@pytest.mark.parametrize("model", ["meanfield", "cann_field", "ratemodel"])
def test_rates_follow_their_equations_in_both_modes(model, compat):
    drive = np.array([1.0, 2.0, -0.5])
    with Network(compat=compat, dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="float")
        field = NeuronGroup(3, model=model, tau=2.0)
        Connection(source, field, link_type="one_to_one", weight=np.eye(3))
    seen = {name: StateMonitor(field, name) for name in "UO"}
    for name, monitor in seen.items():
        net.add_monitor(name, monitor)
    net.build(strategy=1)
    net.source(drive[None])
    net.run(2.0)
    rho = {"meanfield": 0.1, "cann_field": 0.02}.get(model, 0.0)
    u, before = np.zeros(3), np.zeros(3)
    for k in range(20):
        given = before if compat == "spaic" and model != "ratemodel" else drive
        before = drive
        target = 1 / (1 + np.exp(-given)) if model == "ratemodel" else rho * given
        u = u + 0.1 / 2.0 * (target - u)
        out = u
        if model == "meanfield":
            out = np.maximum(u, 0)
        if model == "cann_field":
            r = np.maximum(u, 0) ** 2
            out = r / (1 + 0.01 * 0.02 * r.sum())
        np.testing.assert_allclose(seen["U"].values[0, :, k], u, rtol=1e-9)
        np.testing.assert_allclose(seen["O"].values[0, :, k], out, rtol=1e-9)


def quantised(x):
    return np.round(np.clip(x + 2**15, 0, 2**16)) - 2**15


def test_neurons_of_the_chip_equal_rounded_arithmetic():
    p0, p4 = (round(256 * np.exp(-0.1 / tau)) / 256 for tau in (12.0, 8.0))
    for model in ("darwin_clif", "darwin_alif"):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=40, coding_method="float")
            cell = NeuronGroup(40, model=model)
            Connection(source, cell, link_type="one_to_one", weight=np.eye(40))
        seen = {name: StateMonitor(cell, name) for name in "VCO"}
        for name, monitor in seen.items():
            net.add_monitor(name, monitor)
        net.build(strategy=1)
        net.source(np.linspace(50, 900, 40)[None])
        net.run(3.0)
        v, c, o = (seen[name].values[0] for name in "VCO")
        drive, th = np.linspace(50, 900, 40), np.full(40, 16384.0)
        fired = 0
        for k in range(1, 30):  # from the drawn first values on
            if model == "darwin_alif":
                th = 0.999 * th + round(16.384) + o[:, k - 1] * round(0.2 * 16384)
            current = quantised(c[:, k - 1] * p4 + drive)
            u = quantised(v[:, k - 1] * p0 + current)
            spike = u > th
            np.testing.assert_array_equal(c[:, k], current)
            np.testing.assert_array_equal(o[:, k], spike)
            np.testing.assert_array_equal(v[:, k], np.where(spike, 0, u))
            fired += spike.sum()
        assert fired > 10


def test_a_random_neuron_of_the_chip_is_driven_by_noise_alone():
    with Network() as net:
        cell = NeuronGroup(2000, model="darwin_random", std=400.0, bias=30.0)
    watch = StateMonitor(cell, "V")
    net.add_monitor("watch", watch)
    net.run(0.1)
    v = watch.values[0, :, 0]
    assert np.array_equal(v, np.round(v))
    assert -170 <= v.min() < -160
    assert 220 < v.max() <= 230
    assert v.mean() == pytest.approx(30, abs=10)


def test_defaults_are_right_where_the_official_models_are_not(traced):
    """Reset to v_reset; one spike a crossing; after-spike currents once; the input of this step."""
    found = traced("lif", 0.6, 4, ["V"], compat=None, v_reset=-0.2)["V"]
    beta = np.exp(-0.1 / 8)
    third = 0.6 - 0.2 * beta
    np.testing.assert_allclose(found, [0.6, -0.2, third, third * beta + 0.6], rtol=1e-5)
    found = traced("constantcurrentlif", 2.0, 300, ["O"], compat=None)["O"]
    first = int(np.ceil(20 * np.log(2) / 0.1)) - 1
    assert np.flatnonzero(found).tolist() == [first, 2 * first + 1]
    crossings = traced("hh", 10.0, 1000, ["V", "O"], compat=None)
    up = np.flatnonzero((crossings["V"][1:] > 20) & (crossings["V"][:-1] <= 20)) + 1
    assert len(up) > 3
    assert np.flatnonzero(crossings["O"]).tolist() == up.tolist()
    glif = {mode: traced("glif", 30, 40, ["O", "I1"], compat=mode) for mode in (None, "spaic")}
    for mode, found in glif.items():
        k = int(np.flatnonzero(found["O"])[0])
        decayed = found["I1"][k - 1] * (1 - 0.1 * 0.8)
        twice = 1 if mode is None else 2
        assert found["I1"][k] == pytest.approx(twice * decayed + 0.1, rel=1e-5)


def test_soft_resets_subtract_the_threshold_or_reset_to_zero_with_a_gradient(traced):
    found = traced("ifsubtract", 0.7, 5, ["V", "O"], compat=None, v_start=0.2)
    np.testing.assert_allclose(found["V"], [0.9, 0.6, 0.3, 1.0, 0.7], rtol=1e-5)
    found = traced("lifsubtract", 0.7, 3, ["V"], compat=None)["V"]
    beta = np.exp(-0.1 / 8)
    second = 0.7 * beta - 0.3  # the threshold is subtracted, twice
    np.testing.assert_allclose(found, [0.7, second, second * beta - 0.3], rtol=1e-5)
    found = traced("ifsoftreset", 0.6, 4, ["V"])["V"]
    np.testing.assert_allclose(found, [0.6, 0, 0.6, 0], rtol=1e-6)
    found = traced("nonspikingifb", 0.6, 3, ["V"], bias=-0.1)["V"]
    np.testing.assert_allclose(found, [0.5, 1.0, 1.5], rtol=1e-6)


def test_a_conductance_neuron_follows_a_solver():
    """`lif_cond_exp` between spikes."""
    from scipy.integrate import solve_ivp

    with Network(dtype=torch.float64) as net:
        cell = NeuronGroup(1, model="lif_cond_exp", initial={"ge": 8.0, "gi": 20.0}, method="rk4")
    watch = StateMonitor(cell, "V")
    net.add_monitor("watch", watch)
    net.set_backend_dt(0.01)
    net.run(5.0)

    def slope(t, v):
        ge, gi = 8 * np.exp(-t / 0.2), 20 * np.exp(-t / 2.0)
        return (16.7 * (-70 - v) + ge * (0 - v) + gi * (-85 - v)) / 250.0

    times = np.arange(1, 501) * 0.01
    solved = solve_ivp(slope, (0, 5), [-70.0], t_eval=times, rtol=1e-10, atol=1e-10).y[0]
    np.testing.assert_allclose(watch.values[0, 0], solved, atol=1e-6)


@pytest.mark.parametrize("model", ["iaf_psc_alpha", "iaf_cond_alpha"])
def test_neurons_with_alpha_functions_follow_a_solver(model):
    from scipy.integrate import solve_ivp

    with Network(dtype=torch.float64) as net:
        start = {"ge": 30.0, "gi": -20.0 if model == "iaf_psc_alpha" else 10.0}
        cell = NeuronGroup(1, model=model, initial=start, tau_e=1.5, tau_i=2.5, v_th=0.0)
    seen = {name: StateMonitor(cell, name) for name in "Ve"}
    for name, monitor in seen.items():
        net.add_monitor(name, monitor)
    net.run(8.0)
    times = np.arange(1, 81) * 0.1

    def given(t, weight, tau):
        return weight * t / tau * np.exp(1 - t / tau)

    def slope(t, v):
        e, i = given(t, 30.0, 1.5), given(t, start["gi"], 2.5)
        if model == "iaf_psc_alpha":
            return (-70 - v) / 10.0 + (e + i) / 250.0
        return (16.6667 * (-70 - v) + e * (0 - v) + i * (-85 - v)) / 250.0

    solved = solve_ivp(slope, (0, 8), [-70.0], t_eval=times, rtol=1e-11, atol=1e-11).y[0]
    exact = model == "iaf_psc_alpha"
    np.testing.assert_allclose(seen["V"].values[0, 0], solved, atol=1e-9 if exact else 1e-4)
    np.testing.assert_allclose(seen["e"].values[0, 0], given(times, 30.0, 1.5), rtol=1e-4)
    assert abs(solved + 70).max() > 0.05


DRIVEN = {  # model: constant drive, weight of a spike, where it arrives
    "qlif": (20.0, 3.0, "Isyn"),
    "selif": (0.05, 0.1, "Isyn"),
    "iaf_psc_alpha": (700.0, 4.0, "ge"),
}


@pytest.mark.parametrize("model", sorted(DRIVEN))
def test_the_event_engine_equals_the_step_engine_for_newer_models(model):
    drive, weight, into = DRIVEN[model]
    made = []
    for engine in ("step", "event"):
        random = np.random.default_rng(0)
        with Network(dtype=torch.float64) as net:
            source = Generator(num=20, coding_method="constant_current", rate=drive)
            cell = NeuronGroup(20, model=model, tau_m=random.uniform(8, 12, 20))
            Connection(source, cell, link_type="one_to_one_sparse", weight=random.random(20) + 1)
            link = {"link_type": "bernoulli", "p": 0.3, "weight": weight, "delay": 0.7}
            Connection(cell, cell, post_var_name=into, **link)
        spikes, trace = SpikeMonitor(cell), StateMonitor(cell, "V", dt=1.0)
        net.add_monitor("spikes", spikes)
        net.add_monitor("trace", trace)
        net.set_random_seed(1)
        net.build(engine=engine)
        net.run(60.0)
        made.append((spikes.spk_times[0], spikes.spk_index[0], trace.values))
    assert len(made[0][0]) > 20
    np.testing.assert_allclose(made[0][0], made[1][0], atol=1e-9)
    np.testing.assert_array_equal(made[0][1], made[1][1])
    np.testing.assert_allclose(made[0][2], made[1][2], rtol=1e-8)


@pytest.mark.parametrize("compat", [None, "spaic"])
@pytest.mark.parametrize(
    ("model", "times"),
    [
        ("clif", ("tau_p", "tau_q")),
        ("clif2k", ("tau_m", "tau_s")),
        ("aclif", ("tau_p", "tau_q")),
        ("nonspikinglif", ("tau_p", "tau_q")),
    ],
)
def test_kernels_of_equal_time_constants_are_the_alpha_function(traced, model, times, compat):
    tau, steps = 9.0, 400

    def kernel(second):
        options = dict(zip(times, (tau, second), strict=True)) | {"compat": compat, "once": True}
        found = traced(model, 0.9, steps, ["M", "S"], **options)
        return found["M"].astype(float) - found["S"]

    equal = kernel(tau)
    first = int(np.flatnonzero(equal)[0]) - 1  # where the impulse arrives
    t = 0.1 * (np.arange(steps) - first).clip(0)
    np.testing.assert_allclose(equal, 0.9 * t / tau * np.exp(1 - t / tau), atol=1e-5)
    assert np.abs(equal - kernel(tau * 1.01)).max() < 0.01  # where the kernels tend to
    assert equal.max() == pytest.approx(0.9, abs=1e-4)


def test_neurons_of_one_group_may_have_equal_and_different_times():
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=1, coding_method="null")
        cells = NeuronGroup(
            2, model="clif", tau_p=np.array([12.0, 9.0]), tau_q=np.array([8.0, 9.0])
        )
        Connection(source, cells, weight=[[0.9], [0.9]])
        seen = StateMonitor(cells, "V")
    net.build(strategy=1)
    data = np.zeros((1, 300, 1))
    data[:, 0] = 1
    net.source(data)
    net.run(30.0)
    t = 0.1 * np.arange(300)
    expected = [6.75 * (np.exp(-t / 12) - np.exp(-t / 8)), t / 9 * np.exp(1 - t / 9)]
    np.testing.assert_allclose(seen.values[0], 0.9 * np.stack(expected), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "factor", "tau"),
    [
        ("lifstdp_ex", "decay_v", "tau_m"),
        ("lifstdp_ex", "decay_th", "tau_theta"),
        ("alifstdp_ex", "decay_v", "tau_m"),
        ("alifstdp_ex", "decay_th", "tau_theta"),
        ("lifstdp_ih", "decay_v", "tau_m"),
    ],
)
def test_official_factors_a_step_are_refused_with_the_time_constant_instead(model, factor, tau):
    net = Network()
    net.cell = NeuronGroup(1, model=model, **{factor: 0.99})
    with pytest.raises(InputError, match=rf"{factor}=0\.99 .*compat='spaic'.*{tau} = -dt / log"):
        net.run(0.1)
    net = Network(compat="spaic")
    net.cell = NeuronGroup(1, model=model, **{factor: 0.99})
    net.run(0.1)


LEAK = {"states": {"V": 0.0}, "parameters": {"tau_m": 10.0}}
DECAYS = {**LEAK, "ode": "dV/dt = (Isyn - V) / tau_m", "threshold": "V > 1"}
WRONG_LINES = {
    "ode": (
        {**DECAYS, "ode": "dV/dt = (Isyn - V) / taum"},
        r"`dV/dt = \(Isyn - V\) / taum` reads an unknown name 'taum'; did you mean 'tau_m'",
    ),
    "slope": ({**DECAYS, "ode": "dv/dt = -V"}, "changes an unknown state 'v'; did you mean 'V'"),
    "step": (
        {**LEAK, "step": "O = spike(u)\nu = V"},
        r"`O = spike\(u\)` reads an unknown name 'u'",
    ),
    "constants": (
        {**DECAYS, "constants": "b = exp(-dt / tau_n)"},
        r"`b = exp\(-dt / tau_n\)` reads an unknown name 'tau_n'; did you mean 'tau_m'",
    ),
    "threshold": ({**DECAYS, "threshold": "V > vth"}, "`V > vth` reads an unknown name 'vth'"),
    "reset": ({**DECAYS, "reset": "V = v_reset"}, "`V = v_reset` reads an unknown name"),
    "in place": ({**DECAYS, "reset": "V -= 1"}, r"'V -= 1' is not .*; write V = V - \(1\)"),
    "unit": (
        {**DECAYS, "ode": "dV/dt = -V / tau_m : volt"},
        "is not an expression; units are not written, leave out ': volt'",
    ),
    "words": ({**DECAYS, "threshold": "V > 1 and V < 3"}, r"write \(a > b\) & \(c > d\)"),
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_a_wrong_line_of_a_model_is_quoted_where_the_model_is_made(name):
    options, message = WRONG_LINES[name]
    with pytest.raises(InputError, match=f"model 'custom': .*{message}"):
        NeuronModel(**options)


def test_a_wrong_name_in_a_function_is_quoted_as_it_stands_there():
    def leaks(v, current, beta):
        return beta * v + curent  # noqa: F821

    made = custom_model(
        ["V", "Isyn[updated]", "tau"], ["V"], {"V": 0.0, "tau": 8.0}, "exp_euler_iterative"
    )
    with pytest.raises(
        InputError, match=r"`beta \* v \+ curent` reads an .*'curent'; did you mean 'current'"
    ):
        made(leaks)
