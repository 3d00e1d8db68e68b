"""Links and synapse models against solvers, closed forms and loops written out here."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Network,
    NeuronGroup,
    StateMonitor,
)

DT = 0.1


def watched(net, **what):
    """Records variables: name=(group, variable)."""
    found = {}
    for name, (group, variable) in what.items():
        found[name] = StateMonitor(group, variable)
        net.add_monitor(f"m_{name}", found[name])
    return found


def gates(spikes, tau_rise=2.0, tau=100.0, alpha=0.5):
    """The gate after each step, by a solver; a spike arrives at the end of its step."""
    x = s = 0.0
    made = []
    for spike in spikes:
        solved = solve_ivp(
            lambda t, y: [-y[0] / tau_rise, -y[1] / tau + alpha * y[0] * (1 - y[1])],
            (0, DT),
            [x, s],
            rtol=1e-10,
            atol=1e-12,
        )
        x, s = solved.y[:, -1]
        x += spike
        made.append(s)
    return np.array(made)


def test_the_nmda_synapse_opens_gates_as_its_equations_say_and_saturates():
    spikes = np.zeros(600)
    spikes[5:400:12] = 1
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(1, model="null")
        Connection(source, cell, weight=[[1.0, 3.0]], syn_type=["nmda", "basic"])
    seen = watched(net, out=(cell, "O"))
    net.build(strategy=1)
    net.source(np.stack([spikes, np.roll(spikes, 100)], 1)[None])
    net.run(60.0)
    expected = gates(spikes) + 3 * gates(np.roll(spikes, 100))
    np.testing.assert_allclose(seen["out"].values[0, 0], expected, rtol=2e-4, atol=1e-6)
    assert 0.9 < gates(spikes).max() < 1


def test_wangs_neuron_follows_a_solver_through_spikes_and_the_block_by_magnesium():
    steps, weight = 1500, 60.0
    with Network(dtype=torch.float64) as net:
        first = NeuronGroup(1, model="iaf_wang_2002", I_e=700.0, refractory=2.0)
        second = NeuronGroup(1, model="iaf_wang_2002", gL=20.0, C=200.0, v_th=0.0)
        link = {"link_type": "all_to_all", "weight": weight, "pre_var_name": "s"}
        Connection(first, second, post_var_name="nmda", **link)
    seen = watched(net, O=(first, "O"), s=(first, "s"), V=(second, "V"))
    net.run(steps * DT)
    spikes = seen["O"].values[0, 0]
    assert 5 < spikes.sum() < 50
    s = gates(spikes)
    np.testing.assert_allclose(seen["s"].values[0, 0], s, rtol=1e-3, atol=1e-4)
    v, expected = -70.0, []
    for g in weight * np.concatenate([[0.0], s[:-1]]):  # a link costs one step
        solved = solve_ivp(
            lambda t, y, g=g: (
                (20.0 * (-70 - y) + g / (1 + np.exp(-0.062 * y) / 3.57) * (0 - y)) / 200.0
            ),
            (0, DT),
            [v],
            rtol=1e-9,
        )
        v = solved.y[0, -1]
        expected.append(v)
    np.testing.assert_allclose(seen["V"].values[0, 0], expected, rtol=1e-4)
    assert max(expected) > -55


@pytest.mark.parametrize("delay", [None, 0.3])
@pytest.mark.parametrize("no_self", [False, True])
def test_one_weight_for_all_pairs_equals_the_full_matrix(delay, no_self):
    random = np.random.default_rng(0)
    data = (random.random((2, 12, 5)) < 0.4).astype(float)
    made = []
    for kind in ("all_to_all", "full"):
        matrix = np.full((5, 5), 0.4) * (1 - np.eye(5) if no_self else 1)
        options = {"weight": 0.4} if kind == "all_to_all" else {"weight": matrix}
        if kind == "all_to_all" and no_self:
            options["no_self"] = True
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=5, coding_method="null")
            cell = NeuronGroup(5, model="lif", v_th=1.5)
            Connection(source, cell, link_type="one_to_one", weight=np.eye(5))
            loop = Connection(cell, cell, link_type=kind, delay=delay, bias=0.1, **options)
            out = Decoder(dec_target=cell, num=5, coding_method="null", coding_var_name="V")
        net.enable_full_grad(True)
        net.source(data)
        net.run(1.2)
        out.predict.sum().backward()
        grad = loop.weight.grad
        total = grad if kind == "all_to_all" else (grad * torch.as_tensor(matrix > 0)).sum()
        made.append((out.predict.detach(), total.sum()))
    torch.testing.assert_close(made[0], made[1])


def test_a_group_is_linked_to_itself_only_by_itself():
    with Network() as net:
        one, two = NeuronGroup(2), NeuronGroup(2)
        link = Connection(one, two, link_type="all_to_all", no_self=True)
    assert link.name == "link"
    with pytest.raises(InputError, match=r"Connection link: no_self=True.*two ends differ"):
        net.build()


@pytest.mark.parametrize(
    ("syn_type", "kwargs", "said"),
    [
        ("alpha_synapse", {"tau": 0.0}, r"tau=0\.0; a synapse's time constant must be > 0 ms"),
        ("1_order_synapse", {"tau": -1.0}, r"tau=-1\.0"),
        (["stp", "basic"], {"tau_f": float("nan")}, "tau_f=nan"),
        (["nmda", "basic"], {"tau_rise": 0.0}, r"tau_rise=0\.0"),
        ("2_order_synapse", {"tau_raise": 1.0}, "unknown syn_kwargs.*did you mean 'tau_r'"),
        ("basic", {"tau": 1.0}, "unknown syn_kwargs of basic 'tau'"),
    ],
)
def test_parameters_of_synapses_are_checked_where_they_are_given(syn_type, kwargs, said):
    with pytest.raises(InputError, match=said):
        Connection(NeuronGroup(2), NeuronGroup(2), syn_type=syn_type, syn_kwargs=kwargs)


def test_the_time_constant_of_a_rate_link_is_checked():
    with pytest.raises(InputError, match=r"tau=0"):
        Connection(NeuronGroup(2), NeuronGroup(2), link_type="spike2mass", syn_kwargs={"tau": 0})
