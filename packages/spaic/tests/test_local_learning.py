"""What the places of a `continuous_local` sheet share in learning, and homeostasis (section 5)."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Encoder, Learner, Network, NeuronGroup, NeuronModel, Reward
from tenfold.spaic.network.connections.images import neighbourhood

HEARS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")


def sheet(**options):
    source, target = NeuronGroup(shape=(1, 6, 6)), NeuronGroup(shape=(1, 6, 6))
    return Connection(source, target, link_type="continuous_local", padding=1, **options)


def test_the_kernel_is_a_difference_of_two_bells():
    kernel = neighbourhood(sheet(sigma_c=1.0, clust_size=41))
    assert kernel[20, 20] == 1
    assert kernel.sum().item() == pytest.approx(0, abs=1e-12)
    for turned in (kernel.flip(0), kernel.flip(1), kernel.T):
        assert torch.equal(kernel, turned)
    # On a wide grid the sums of the bells are 2πσ² and 8πσ², to 1e-8 where σ is 1.
    for r in (1, 2, 5):
        closed = (math.exp(-(r**2) / 2) - math.exp(-(r**2) / 8) / 4) / (3 / 4)
        assert kernel[20, 20 + r].item() == pytest.approx(closed, abs=1e-7)
    turn = math.sqrt(8 / 3 * math.log(4))  # where the bells cross: 1.92 σ
    along = torch.arange(41) - 20
    apart = (along[:, None] ** 2 + along[None] ** 2).sqrt()
    assert bool((kernel[apart < turn] > 0).all())
    assert bool((kernel[apart > turn] < 0).all())


def test_places_beyond_the_cut_or_the_cluster_do_not_count():
    kernel = neighbourhood(sheet(sigma_c=0.8, clust_size=7, cutting=2.0))
    along = torch.arange(7) - 3
    apart = (along[:, None] ** 2 + along[None] ** 2).sqrt()
    assert torch.equal(kernel != 0, apart <= 2.0)
    assert kernel.sum().item() == pytest.approx(0, abs=1e-12)
    assert torch.equal(neighbourhood(sheet(sigma_c=0.8, clust_size=1)), torch.ones(1, 1).double())
    assert neighbourhood(sheet()) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigma_c": 0.0}, r"sigma_c=0\.0, cutting=inf; expected > 0 places"),
        ({"sigma_c": 1.0, "cutting": -1}, "cutting=-1; expected > 0 places"),
        ({"sigma_c": 1.0, "clust_size": 4}, "clust_size=4; expected an odd number of places"),
        ({"clust_size": 3}, "clust_size without sigma_c"),
        ({"sigma": 3}, "unknown option of continuous_local 'sigma'"),
    ],
)
def test_neighbourhoods_that_do_not_fit_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        sheet(**options)


def spikes(shape, seed):
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(float)


def learned(x, y, start, link=(), reward=None, **options):
    """Trains a link of fields of 3 × 3 on given spikes of both sheets."""
    size = x.shape[2:]
    with Network(dtype=torch.float64) as net:
        left = Encoder(shape=size, coding_method="null")
        right = Encoder(shape=size, coding_method="null")
        post = NeuronGroup(shape=size, model=HEARS)
        Connection(right, post, link_type="one_to_one", weight=np.eye(math.prod(size)))
        con = Connection(
            left,
            post,
            link_type="continuous_local",
            padding=1,
            weight=start,
            post_var_name="unheard",
            **dict(link),
        )
        name = "local_stdp" if reward is None else "local_rstdp"
        Learner(con, algorithm=name, **options)
        if reward is not None:
            Reward(dec_target=post, coding_method="environment_reward", name="signal")
    if reward is not None:
        net.signal(reward)
    net.build(strategy=1)
    net.left(x)
    net.right(y)
    net.run(x.shape[1] * 0.1)
    return con.weight.detach().numpy()


@pytest.mark.parametrize("reward", [None, -0.5])
def test_neighbours_learn_together_and_silent_fields_grow(reward):
    x, y = spikes((2, 12, 1, 5, 4), 0), spikes((2, 12, 1, 5, 4), 1)
    start = np.random.default_rng(2).uniform(0.03, 0.07, (9, 1, 5, 4))
    link = {"sigma_c": 0.9, "clust_size": 3}
    options = {"homeostasis": True, "homeo_add": 2e-4, "homeo_mult": 5e-3}
    found = learned(x, y, start, link, reward, **options)
    kernel = neighbourhood(sheet(**link)).numpy()
    w = start.copy()
    pre, post = math.exp(-0.1 / 10), math.exp(-0.1 / 100)
    tx, ty = np.zeros((2, 9, 5, 4)), np.zeros((2, 5, 4))
    for k in range(12):
        tx, ty, change = tx * pre, ty * post, np.zeros((9, 5, 4))
        wide = np.pad(x[:, k, 0], ((0, 0), (1, 1), (1, 1)))
        patch = np.stack([wide[:, r : r + 5, c : c + 4] for r in range(3) for c in range(3)], 1)
        shared = np.zeros((2, 5, 4))
        for r in range(5):
            for c in range(4):
                for dr in (-1, 0, 1):
                    for dc in (-1, 0, 1):
                        if 0 <= r + dr < 5 and 0 <= c + dc < 4:
                            shared[:, r, c] += kernel[1 + dr, 1 + dc] * y[:, k, 0, r + dr, c + dc]
        for b in range(2):
            change += 1e-3 * shared[b] * tx[b] - 1e-4 * ty[b] * patch[b]
        fired = y[:, k, 0].mean(0)
        calm = 2e-4 * (1 - fired) - 5e-3 * fired * w[:, 0]
        w[:, 0] = np.clip(w[:, 0] + (reward or 1.0) * change + calm, 0, 0.1)
        tx, ty = tx + patch, ty + shared
    assert np.abs(w - start).max() > 2e-3
    np.testing.assert_allclose(found, w, rtol=1e-9)
    plain = learned(x, y, start, (), reward)
    assert np.abs(plain - found).max() > 1e-3
    # With no neighbours to share with, and no homeostasis, it is the plain rule.
    same = learned(x, y, start, {"sigma_c": 0.9, "clust_size": 1}, reward, homeo_add=1.0)
    np.testing.assert_array_equal(same, plain)


def test_homeostasis_adds_to_silent_fields_and_has_a_fixed_point():
    still = np.zeros((1, 50, 1, 3, 3))
    start = np.full((9, 1, 3, 3), 0.02)
    found = learned(still, still, start, homeostasis=True)
    np.testing.assert_allclose(found, 0.02 + 50 * 1e-4, rtol=1e-12)
    # One step in four has a spike: 1e-4 · 3 = homeo_mult · w at rest.
    beat = np.zeros((1, 400, 1, 3, 3))
    beat[:, 3::4] = 1
    np.testing.assert_array_equal(learned(still, still, start), start)
    for first in (0.01, 0.09):
        x = np.zeros_like(beat)
        end = learned(x, beat, np.full_like(start, first), homeostasis=True, homeo_mult=6e-3)
        # A cycle: w → (w + 3a)(1 − m).
        rest = 3e-4 * (1 - 6e-3) / 6e-3
        cycle = rest + (first - rest) * (1 - 6e-3) ** 100
        np.testing.assert_allclose(end, cycle, rtol=1e-9)
    assert abs(rest - 1e-4 * 0.75 / (6e-3 * 0.25)) < 4e-4
