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
    Initializer,
    Learner,
    Network,
    NeuronGroup,
    Reward,
    StateMonitor,
    finite_differences,
    network_load,
    network_save,
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
    steps, weight = 700, 60.0
    with Network(dtype=torch.float64) as net:
        first = NeuronGroup(1, model="iaf_wang_2002", I_e=700.0, refractory=2.0)
        second = NeuronGroup(1, model="iaf_wang_2002", gL=20.0, C=200.0, v_th=0.0)
        link = {"link_type": "all_to_all", "weight": weight, "pre_var_name": "s"}
        Connection(first, second, post_var_name="nmda", **link)
    seen = watched(net, O=(first, "O"), s=(first, "s"), V=(second, "V"))
    net.run(steps * DT)
    spikes = seen["O"].values[0, 0]
    assert 3 < spikes.sum() < 50
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
    assert max(expected) > -60


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


def test_a_field_of_its_own_for_each_place_equals_a_loop_and_learns_by_its_rule():
    random = np.random.default_rng(0)
    x = (random.random((2, 9, 1, 6, 5)) < 0.4).astype(float)
    reward = [0.5]
    for rewarded in (False, True):
        with Network(dtype=torch.float64) as net:
            source = Encoder(shape=(1, 6, 5), coding_method="null")
            sheet = NeuronGroup(shape=(1, 3, 3), model="lif", v_th=0.2)
            w = random.random((9, 1, 3, 3)) * 0.1
            options = {"weight": w, "kernel_size": 3, "stride": 2, "padding": 1}
            link = Connection(source, sheet, link_type="continuous_local", **options)
            name = "local_rstdp" if rewarded else "local_stdp"
            Learner(trainable=[link], algorithm=name, A_plus=0.02, A_minus=0.01)
            if rewarded:
                signal = Reward(dec_target=sheet, coding_method="environment_reward")
        seen = watched(net, O=(sheet, "O"))
        if rewarded:
            signal(np.array(reward))
        net.build(strategy=1)
        net.source(x)
        net.run(0.9)
        y = seen["O"].values  # [2, 1, 3, 3, steps]
        assert 0 < y.sum() < y.size
        padded = np.pad(x[:, :, 0], ((0, 0), (0, 0), (1, 1), (1, 1)))
        w, v = w.copy(), np.zeros((2, 3, 3))
        tx, ty = np.zeros((2, 8, 7)), np.zeros((2, 3, 3))
        for k in range(9):
            spikes = np.zeros((2, 3, 3))
            for b in range(2):
                for r in range(3):
                    for c in range(3):
                        patch = padded[b, k, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
                        v[b, r, c] = v[b, r, c] * np.exp(-0.1 / 8) + patch.ravel() @ w[:, 0, r, c]
            spikes = (v > 0.2).astype(float)
            v = v * (1 - spikes)
            np.testing.assert_array_equal(y[:, 0, :, :, k], spikes)
            tx, ty = tx * np.exp(-0.1 / 10), ty * np.exp(-0.1 / 100)
            for r in range(3):
                for c in range(3):
                    at = (slice(None), slice(2 * r, 2 * r + 3), slice(2 * c, 2 * c + 3))
                    now, past = padded[:, k][at].reshape(2, 9), tx[at].reshape(2, 9)
                    rise = 0.02 * spikes[:, r, c] @ past - 0.01 * ty[:, r, c] @ now
                    w[:, 0, r, c] = np.clip(w[:, 0, r, c] + (0.5 if rewarded else 1) * rise, 0, 0.1)
            tx, ty = tx + padded[:, k], ty + spikes
        np.testing.assert_allclose(link.weight.detach().numpy(), w, rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match=r"sheets of one channel, got 2, 1"):
        Connection(NeuronGroup(shape=(2, 6, 6)), NeuronGroup(shape=(1, 4, 4)), **local())


def test_a_field_of_its_own_for_each_place_is_trained_on_the_scan_engine():
    random = np.random.default_rng(0)
    x, w = random.random((2, 30, 1, 6, 5)), random.random((9, 1, 4, 3)) * 0.1
    found = {}
    for engine in ("auto", "step"):
        with Network(dtype=torch.float64) as net:
            source = Encoder(shape=(1, 6, 5), coding_method="null")
            sheet = NeuronGroup(shape=(1, 4, 3), model="lif", v_th=0.2)
            link = Connection(source, sheet, weight=w, **local())
            Learner(trainable=[link, sheet], algorithm="sbp")
            counts = Decoder(dec_target=sheet, num=12, coding_method="spike_counts")
        net.build(strategy=1, engine=engine)
        net.source(x)
        net.run(3.0)
        (counts.predict**2).sum().backward()
        found[engine] = net.engine_note, counts.predict.detach(), link.weight.grad
    assert found["auto"][0].startswith("scan")
    assert 0 < found["step"][1].sum() < 2 * 30 * 12
    torch.testing.assert_close(found["auto"][1:], found["step"][1:], rtol=1e-9, atol=1e-12)


def local():
    return {"link_type": "continuous_local", "kernel_size": 3}


def test_complex_attention_equals_a_loop_over_groups_targets_and_sources():
    random = np.random.default_rng(0)
    x = random.random((2, 6, 5))
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=5, coding_method="null")
        cell = NeuronGroup(4, model="null")
        link = Connection(source, cell, link_type="complex_attention", groups=2, d_k=3)
        out = Decoder(dec_target=cell, coding_method="null")
        learner = Learner(trainable=[link], algorithm="stbp")
    net.build(strategy=1)
    net.source(x)
    net.run(0.6)
    held = link.modules["attention"]
    wk, wq = held.w_k.detach().numpy(), held.w_q.detach().numpy()
    assert wk.shape == (2, 5, 3)
    assert wq.shape == (2, 5, 6)
    wv = link.weight.detach().numpy()
    assert wv.shape == (5, 4)
    beta = np.exp(-0.1 / 10 - 2j * np.pi * 0.1 / 10)
    keys, queries = np.zeros((2, 2, 5, 3), complex), np.zeros((2, 2, 2, 3), complex)
    for k in range(6):
        expected = np.zeros((2, 4))
        for b in range(2):
            for g in range(2):
                keys[b, g] = beta * keys[b, g] + x[b, k][:, None] * wk[g]
                queries[b, g] = beta * queries[b, g] + (x[b, k] @ wq[g]).reshape(2, 3)
                for o in range(2):
                    score = (keys[b, g].conj() @ queries[b, g, o]).real / np.sqrt(3)
                    share = np.exp(score) / np.exp(score).sum()
                    expected[b, 2 * g + o] = (share * x[b, k]) @ wv[:, 2 * g + o]
        np.testing.assert_allclose(out.predict[k].detach().numpy(), expected, rtol=1e-9)
    out.predict.pow(2).sum().backward()
    found = learner.parameters()
    assert len(found) == 3
    assert all(p.grad.abs().max() > 0 for p in found)


def test_running_normalisation_leads_a_potential_to_its_aim_and_stops_in_evaluation():
    random = np.random.default_rng(0)
    aims = {"beta_bn": 0.02, "beta_ave": 0.9, "beta_std": 0.9}
    with Network() as net:
        source = Encoder(num=20, coding_method="null")
        leak = NeuronGroup(6, model="li", tau_m=0.01)
        first = Connection(
            source, leak, weight=random.normal(0, 1, (6, 20)), Isyn_bn=True, syn_kwargs=aims
        )
    seen = watched(net, V=(leak, "V"))
    net.source(random.normal(0, 0.1, (64, 400, 20)))
    net.run(40.0)
    assert first.syn_type == ["basic", "isyn_bn"]
    late = seen["V"].values[..., -50:]
    assert abs(seen["V"].values[..., :20].mean()) < 0.5
    np.testing.assert_allclose(late.mean((0, 2)), 1.5, atol=0.15)
    np.testing.assert_allclose(late.std((0, 2)), 2.0, rtol=0.1)
    net.eval()
    gain = first.modules["isyn_bn"].gain.clone()
    net.run(1.0)
    assert torch.equal(gain, first.modules["isyn_bn"].gain)
    assert not torch.equal(gain, torch.ones(6))


@pytest.mark.parametrize("tau", [25.0, 2.0])
def test_the_mixed_synapse_is_a_fast_and_a_slow_current_of_peak_one(tau):
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="null")
        times = {"tau_r": 2.0, "tau_s": tau}
        Connection(source, cell, weight=[[1.0]], syn_type="mix_order_synapse", syn_kwargs=times)
    seen = watched(net, out=(cell, "O"))
    net.build(strategy=1)
    net.source(np.eye(1, 1000)[:, :, None])
    net.run(100.0)
    t = np.arange(1000) * 0.1
    slow = np.exp(-t / 25) - np.exp(-t / 2)
    fine = np.arange(0, 30, 1e-3)
    slow = slow / (np.exp(-fine / 25) - np.exp(-fine / 2)).max()
    if tau == 2.0:  # what it tends to
        slow = t / 2 * np.exp(1 - t / 2)
    np.testing.assert_allclose(seen["out"].values[0, 0], np.exp(-t / 2) + slow, rtol=1e-6)


def test_links_that_hold_more_than_a_weight_are_saved_and_read(tmp_path):
    x = np.random.default_rng(0).random((1, 20, 4)).astype(np.float32)
    with Network("one") as net:
        source = Encoder(num=4, coding_method="null")
        hidden = NeuronGroup(4, model="li")
        last = NeuronGroup(2, model="li")
        Connection(source, hidden, link_type="complex_attention", groups=2, d_k=2)
        Connection(hidden, last, Isyn_bn=True, syn_kwargs={"beta_bn": 0.1}, name="second")
        out = Decoder(dec_target=last, coding_method="null", name="out")
    net.source(x)
    net.run(2.0)
    net.eval()
    net.run(2.0)
    again = network_load(network_save(net, tmp_path / "net").parent)
    assert again.second.syn_type == ["basic", "isyn_bn"]
    again.eval()
    again.source(x)
    again.run(2.0)
    assert out.predict.abs().sum() > 0
    torch.testing.assert_close(again.out.predict, out.predict)


def test_the_rotating_synapse_draws_its_own_delays():
    with Network() as net:
        one, two = NeuronGroup(30), NeuronGroup(40)
        link = Connection(one, two, syn_type="delay_complex_synapse")
        other = Connection(
            one, two, syn_type="delay_complex_synapse", syn_kwargs={"min_delay": 1, "max_delay": 2}
        )
    net.build()
    assert link.delay.shape == (40, 30)
    assert 0 <= link.delay.min() < 0.1
    assert 4.9 < link.delay.max() <= 5
    assert 1 <= other.delay.min() < other.delay.max() <= 2


@pytest.mark.parametrize(("compat", "shown"), [(None, 0.5), ("spaic", 0.1)])
def test_a_rate_link_decays_by_its_step_or_as_the_official_one_by_a_tenth(compat, shown):
    with Network(compat=compat, dtype=torch.float64) as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(2, model="null")
        options = {"weight": [[1.0], [2.0]], "syn_kwargs": {"tau": 3.0}}
        Connection(source, cell, link_type="spike2mass", **options)
    seen = watched(net, out=(cell, "O"))
    net.set_backend_dt(0.5)
    net.build(strategy=1)
    data = np.zeros((1, 5, 4))
    data[0, 0] = [1, 1, 0, 1]
    net.source(data)
    net.run(2.5)
    expected = 0.75 * np.exp(-shown / 3) ** np.arange(5)
    np.testing.assert_allclose(seen["out"].values[0], [expected, 2 * expected], rtol=1e-9)


def test_learned_delays_with_a_gaussian_kernel_are_that_of_dcls():
    random = np.random.default_rng(0)
    delay, weight = random.uniform(0, 1.2, (3, 4)), random.normal(size=(3, 4))
    x = random.random((2, 20, 4))
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(3, model="null")
        link = Connection(
            source,
            cell,
            weight=weight,
            delay=delay,
            train_delay=True,
            max_delay=1.2,
            syn_kwargs={"delay_kernel": "gauss", "delay_sigma": 1.7},
        )
        out = Decoder(dec_target=cell, coding_method="null")
    net.enable_full_grad(True)
    net.build(strategy=1)
    net.source(x)
    net.run(2.0)
    lags = 14  # 1.2 ms in steps of 0.1, the lag 0, and one to spare
    expected = np.zeros((20, 2, 3))
    for i in range(3):
        for j in range(4):
            share = np.exp(-0.5 * ((np.arange(lags) - delay[i, j] / 0.1) / 1.7) ** 2)
            train = np.stack([np.convolve(row, share / share.sum())[:20] for row in x[:, :, j]])
            expected[:, :, i] += weight[i, j] * train.T
    np.testing.assert_allclose(out.predict.detach(), expected, rtol=1e-9, atol=1e-12)

    def loss():
        net.run(2.0)
        return (out.predict**2).sum()

    loss().backward()
    found = finite_differences(loss, link.delay, entries=[0, 7])
    for entry in (0, 7):
        one, two = found.view(-1)[entry], link.delay.grad.view(-1)[entry]
        assert one.item() == pytest.approx(two.item(), rel=1e-5)
    net.eval()  # rounded
    net.run(2.0)
    steps = np.rint(delay / 0.1).astype(int)
    expected = np.zeros((20, 3))
    for i in range(3):
        for j in range(4):
            late = np.concatenate([np.zeros(steps[i, j]), x[0, :, j]])[:20]
            expected[:, i] += weight[i, j] * late
    np.testing.assert_allclose(out.predict[:, 0].detach(), expected, atol=1e-12)


def test_weights_behind_delays_learn_in_every_window_of_truncated_backpropagation():
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(2, model="li")
        link = Connection(source, cell, delay=np.full((2, 3), 0.3))
        out = Decoder(dec_target=cell, coding_method="null")
    net.enable_full_grad(True)
    net.build(strategy=1)
    for window in range(2):
        net.source(np.ones((1, 6, 3)))
        (net.run if window == 0 else net.run_continue)(0.6)
        link.weight.grad = None
        out.predict.sum().backward()
        assert link.weight.grad.abs().min() > 0
        net.detach()


def test_a_sparse_link_takes_the_sparse_initialiser():
    start = Initializer("sparse", sparsity=0.75, std=0.5)
    with Network() as net:
        one, two = NeuronGroup(50), NeuronGroup(40)
        link = Connection(one, two, link_type="sparse_sparse", weight=start)
    net.build()
    assert len(link.weight) == 50 * 10  # of each source's 40 targets a quarter
    assert torch.bincount(link.pre_index).tolist() == [10] * 50
    assert float(link.weight.detach().std()) == pytest.approx(0.5, rel=0.1)
