"""Every link and stage of section 5 and 6: weights, patterns, options and what arrives."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Initializer,
    Learner,
    Network,
    NeuronGroup,
)
from tenfold.spaic.network.connections.images import unfolding


def built(*args, **options):
    with Network(dtype=torch.float64) as net:
        link = Connection(*args, **options)
        net.add("one", args[0])
        net.add("two", args[1])
    net.set_random_seed(7)
    net.build()
    return link


def groups(n=60, m=50):
    return NeuronGroup(m), NeuronGroup(n)


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("full", 0.005, 0.05), ("full_connection", 0.005, 0.05), ("mass2spike", 0.005, 0.05)],
)
def test_dense_weights_have_the_mean_and_deviation_of_the_card(kind, mean, std):
    weight = built(*groups(100, 200), link_type=kind).weight.detach()
    assert weight.shape == (100, 200)
    assert weight.requires_grad is False
    assert float(weight.mean()) == pytest.approx(mean, abs=1.5e-3)
    assert float(weight.std()) == pytest.approx(std, rel=0.03)
    other = built(*groups(100, 200), link_type=kind, w_mean=1.0, w_std=0.2).weight.detach()
    assert float(other.mean()) == pytest.approx(1.0, abs=6e-3)
    assert float(other.std()) == pytest.approx(0.2, rel=0.03)


def test_sparse_and_random_links_have_their_density():
    sparse = built(*groups(), link_type="sparse", density=0.3, w_mean=5.0).weight.detach()
    assert float((sparse != 0).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(sparse[sparse != 0].mean()) == pytest.approx(5.0, abs=0.02)
    whole = built(*groups(), link_type="sparse", is_int=True, w_mean=0.0, w_std=3.0).weight
    assert torch.equal(whole, whole.round())
    assert whole.abs().max() > 3
    draw = built(*groups(50, 50), link_type="random", probability=0.4).weight.detach()
    assert float(draw.max()) < 0.4  # the number that was drawn is the weight
    assert float((draw != 0).double().mean()) == pytest.approx(0.4 * 49 / 50, abs=0.03)
    assert draw.diagonal().abs().max() == 0
    assert float(draw[draw > 0].mean()) == pytest.approx(0.2, abs=0.01)


def test_the_zeros_of_a_sparse_link_stay_only_with_a_mask():
    for masked in (False, True):
        one, two = groups(6, 5)
        link = built(one, two, link_type="sparse", density=0.4, sparse_with_mask=masked)
        zeros = link.weight == 0
        with torch.no_grad():
            link.weight.add_(1.0)
        link.start_run(0.1, None)
        assert bool((link.weight[zeros] == 0).all()) == masked


STORED = [
    ("sparse_sparse", {"density": 0.3}, 900, 0.05),
    ("random_connection_sparse", {"probability": 0.3}, 885, 0.08),
    ("bernoulli", {"p": 0.3}, 900, 0.05),
    ("fixed_in_degree", {"degree": 7}, 7 * 60, 0),
    ("fixed_out_degree", {"degree": 7}, 7 * 50, 0),
    ("fixed_total", {"number": 123}, 123, 0),
]


@pytest.mark.parametrize(("kind", "options", "count", "width"), STORED)
def test_stored_links_have_their_numbers_of_synapses(kind, options, count, width):
    link = built(*groups(), link_type=kind, **options)
    assert len(link.pre_index) == len(link.post_index) == len(link.weight)
    assert len(link.weight) == pytest.approx(count, rel=width or 1e-12)
    assert int(link.pre_index.max()) < 50
    assert int(link.post_index.max()) < 60
    assert link.is_parameter is False
    if kind == "fixed_in_degree":
        assert torch.bincount(link.post_index).tolist() == [7] * 60
    if kind == "fixed_out_degree":
        assert torch.bincount(link.pre_index).tolist() == [7] * 50
    if kind == "sparse_sparse":
        assert 0 <= link.weight.min() <= link.weight.max() < 0.05
    if kind == "random_connection_sparse":
        assert 0 <= link.weight.min() <= link.weight.max() < 0.3


def test_a_group_need_not_be_linked_to_itself():
    one = NeuronGroup(80)
    with Network() as net:
        net.add("one", one)
        link = Connection(one, one, link_type="bernoulli", p=0.5, no_self=True)
        link2 = Connection(one, one, link_type="bernoulli", p=0.5)
    net.build()
    assert not bool((link.pre_index == link.post_index).any())
    assert bool((link2.pre_index == link2.post_index).any())


@pytest.mark.parametrize("how", ["euclidean", "circular"])
def test_weights_by_distance_follow_the_difference_of_two_exponentials(how):
    random = np.random.default_rng(0)
    pre, post = (NeuronGroup(n, neuron_position=random.random((n, 2))) for n in (5, 4))
    options = {"w_amp": -0.3, "dist_a": 0.25, "dist_b": 0.5, "dist_function": how}
    found = built(pre, post, link_type="dist_depd", **options).weight.detach().numpy()
    for i in range(4):
        for j in range(5):
            apart = np.abs(post.neuron_position[i] - pre.neuron_position[j])
            if how == "circular":
                apart = np.minimum(apart, 1 - apart)
            r = math.hypot(*apart)
            value = -0.3 * (math.exp(-r / 0.25) / 0.25 - 0.5 * math.exp(-r / 0.5) / 0.5)
            assert found[i, j] == pytest.approx(value, rel=1e-9)


def test_a_function_of_distance_a_share_and_no_self_links():
    group = NeuronGroup(40, neuron_position=np.random.default_rng(0).random((40, 3)))
    link = built(
        group,
        group,
        link_type="dist_depd",
        distance_weight_function=lambda r: 1 + r,
        p=0.5,
        zero_self=True,
    )
    weight = link.weight.detach()
    assert weight.diagonal().abs().max() == 0
    assert float((weight > 0).double().mean()) == pytest.approx(0.5, abs=0.04)
    assert weight[weight > 0].min() > 1
    with pytest.raises(InputError, match="needs neuron_position of both groups"):
        built(NeuronGroup(3), NeuronGroup(3), link_type="dist_depd")


def test_one_to_one_links_hold_a_diagonal():
    link = built(*groups(5, 5), link_type="one_to_one", w_mean=0.7)
    assert torch.equal(link.weight, 0.7 * torch.eye(5, dtype=torch.float64))
    with torch.no_grad():
        link.weight.add_(1.0)
    link.start_run(0.1, None)
    assert torch.equal(link.weight, 1.7 * torch.eye(5, dtype=torch.float64))
    stored = built(*groups(5, 5), link_type="one_to_one_sparse")
    assert stored.weight.tolist() == [pytest.approx(0.05)] * 5
    with pytest.raises(InputError, match="one_to_one needs equal sizes, got 4 and 5"):
        built(*groups(5, 4), link_type="one_to_one")


def test_weights_are_clamped_and_quantised_at_the_start_of_a_run():
    link = built(*groups(4, 3), weight=np.linspace(-3, 3, 12).reshape(4, 3), w_min=-1, w_max=2)
    link.start_run(0.1, None)
    expected = np.clip(np.linspace(-3, 3, 12), -1, 2)
    np.testing.assert_allclose(link.weight.detach().numpy().ravel(), expected)
    link = built(*groups(1, 4), weight=[[-300.0, -1.4, 1.6, 200.0]], weight_quantization=True)
    link.start_run(0.1, None)
    assert link.weight.tolist() == [[-128, -1, 2, 128]]  # section 5: to 128


KINDS = {
    "uniform": ({"a": -0.5, "b": 0.5}, lambda w: w.abs().max() <= 0.5),
    "normal": ({"mean": 2.0, "std": 0.1}, lambda w: abs(w.mean() - 2) < 0.01),
    "xavier_uniform": ({}, lambda w: w.abs().max() <= math.sqrt(6 / 110)),
    "xavier_normal": ({}, lambda w: abs(w.std() - math.sqrt(2 / 110)) < 0.01),
    "kaiming_uniform": ({"a": math.sqrt(5)}, lambda w: w.abs().max() <= math.sqrt(1 / 50)),
    "kaiming_normal": ({}, lambda w: abs(w.std() - math.sqrt(2 / 50)) < 0.01),
    "constant": ({"constant_value": 3.0}, lambda w: bool((w == 3).all())),
    "sparse": ({"sparsity": 0.5}, lambda w: bool(((w != 0).sum(0) == 30).all())),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_initialisers_are_those_of_torch(name):
    options, holds = KINDS[name]
    weight = built(*groups(), weight=Initializer(name, **options)).weight.detach()
    assert weight.shape == (60, 50)
    assert holds(weight)


def test_wrong_initialisers_are_told():
    for name, options, told in (
        ("unifrom", {}, "unknown initializer 'unifrom'; did you mean 'uniform'"),
        ("uniform", {"low": 0}, "unknown argument of uniform 'low'"),
        ("normal", {"std": "wide"}, r"initializer normal: std='wide'; expected one such as 1\.0"),
        ("kaiming_normal", {"mode": 3}, "mode=3; expected one such as 'fan_in'"),
    ):
        with pytest.raises(InputError, match=told):
            Initializer(name, **options)
    with pytest.raises(InputError, match=r"initializer uniform of shape \(60, 50\)"):
        built(*groups(), weight=Initializer("uniform", a=1.0, b=0.0))


def test_a_rate_becomes_weighted_spikes_of_its_mean():
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        cell = NeuronGroup(2, model="null")
        weight = np.array([[1.0, 2, 0], [0, 0, -1.0]])
        link = {"link_type": "mass2spike", "weight": weight, "unit_conversion": 0.5}
        Connection(source, cell, **link)
        out = Decoder(dec_target=cell, coding_method="null")
    net.set_backend_dt(0.5)
    net.build(strategy=1)
    net.source(np.tile([1.0, 2.0, 3.0], (200, 1)))
    net.run(100.0)
    found = out.predict.mean((0, 1)).numpy()
    p = np.array([1.0, 2, 3]) * 0.5 * 0.5
    np.testing.assert_allclose(found, weight @ p, rtol=0.03)
    assert set(out.predict[..., 1].unique().tolist()) == {0.0, -1.0}


def passed(shape, post_shape, kind, data, train=True, **options):
    with Network(dtype=torch.float64) as net:
        source = Encoder(shape=shape, coding_method="float")
        cell = NeuronGroup(shape=post_shape, model="null")
        link = Connection(source, cell, link_type=kind, **options)
        out = Decoder(dec_target=cell, coding_method="final_step_voltage", coding_var_name="O")
    net.build(strategy=1)
    net.train(train)
    net.source(data)
    net.run(0.1)
    return out.predict.detach(), link


def test_images_are_convolved_pooled_and_enlarged_in_the_order_of_syn_type():
    x = torch.as_tensor(np.random.default_rng(0).random((2, 3, 9, 9)))
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "bias": [0.1, 0.2, 0.3, 0.4]}
    found, link = passed((3, 9, 9), (4, 5, 5), "conv", x, **options)
    expected = F.conv2d(x, link.weight, link.bias, 2, 1).detach()
    torch.testing.assert_close(found, expected)
    assert link.weight.shape == (4, 3, 3, 3)
    found, link = passed((3, 9, 9), (4, 3, 3), "conv", x, syn_type=["maxpool", "conv"], padding=1,
                         pool_kernel_size=3, pool_stride=3)  # fmt: skip
    expected = F.conv2d(F.max_pool2d(x, 3, 3), link.weight, None, 1, 1).detach()
    torch.testing.assert_close(found, expected)
    found, link = passed((3, 9, 9), (4, 3, 3), "conv", x, syn_type=["conv", "avgpool"])
    expected = F.avg_pool2d(F.conv2d(x, link.weight), 2, 2).detach()
    torch.testing.assert_close(found, expected)
    found, link = passed((3, 9, 9), (4, 16, 16), "conv", x, syn_type=["upsample", "conv"])
    expected = F.conv2d(F.interpolate(x, scale_factor=2), link.weight).detach()
    torch.testing.assert_close(found, expected)
    found, link = passed((3, 9, 9), (6, 7, 7), "conv", x, groups=3)
    torch.testing.assert_close(found, F.conv2d(x, link.weight, groups=3).detach())
    found, link = passed((3, 9, 9), (4, 5, 5), "conv", x, dilation=2)
    torch.testing.assert_close(found, F.conv2d(x, link.weight, dilation=2).detach())


def test_windows_may_differ_by_axis_and_sequences_have_one():
    x = torch.as_tensor(np.random.default_rng(0).random((2, 4, 9, 7)))
    given = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    found, link = passed((4, 9, 7), (6, 5, 5), "conv", x, groups=2, bias=0.5, **given)
    assert link.weight.shape == (6, 2, 3, 2)
    expected = F.conv2d(x, link.weight, link.bias, (2, 1), (1, 0), (1, 2), 2).detach()
    torch.testing.assert_close(found, expected)
    given = {"kernel_size": [5, 3], "padding": "same", "dilation": [1, 2]}
    found, link = passed((4, 9, 7), (3, 9, 7), "conv", x, **given)
    torch.testing.assert_close(found, F.conv2d(x, link.weight, None, 1, "same", (1, 2)).detach())
    given = {"pool_kernel_size": (3, 2), "pool_stride": (3, 1), "pool_padding": (0, 1)}
    found, _ = passed((4, 9, 7), (4, 3, 8), "pool", x, **given)
    torch.testing.assert_close(found, F.avg_pool2d(x, (3, 2), (3, 1), (0, 1)))
    given = {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 1), "groups": 2}
    found, link = passed((4, 9, 7), (6, 10, 13), "conv_transpose", x, **given)
    expected = F.conv_transpose2d(x, link.weight, None, (1, 2), (0, 1), 0, 2).detach()
    torch.testing.assert_close(found, expected)

    line = x[:, :, 0]
    given = {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    found, link = passed((4, 7), (6, 4), "conv", line, bias=np.arange(6.0), **given)
    assert link.weight.shape == (6, 2, 3)
    expected = F.conv1d(line, link.weight, link.bias, 2, 2, 2, 2).detach()
    torch.testing.assert_close(found, expected)
    stages = ["upsample", "conv", "maxpool", "batchnorm2d"]
    options = {"syn_type": stages, "upscale": 3, "syn_kwargs": {"num_features": 5}}
    found, link = passed((4, 7), (5, 9), "conv", line, train=False, **options)
    expected = F.max_pool1d(F.conv1d(F.interpolate(line, scale_factor=3), link.weight), 2)
    torch.testing.assert_close(found, (expected / math.sqrt(1 + 1e-5)).detach())
    found, link = passed((4, 7), (2, 15), "conv_transpose", line, stride=2)
    torch.testing.assert_close(found, F.conv_transpose1d(line, link.weight, stride=2).detach())


def test_links_between_sequences_are_trained_by_both_engines():
    x = np.random.default_rng(1).random((2, 3, 10))
    grads = []
    for engine in ("step", "scan"):
        with Network(dtype=torch.float64) as net:
            source = Encoder(shape=(3, 10), coding_method="float")
            cells, last = NeuronGroup(model="lif"), NeuronGroup(4, model="lif")
            options = {"syn_type": ["conv", "avgpool"], "kernel_size": 3, "padding": "same"}
            link = Connection(source, cells, link_type="conv", out_channels=6, w_std=0.4, **options)
            Connection(cells, last, syn_type=["flatten", "basic"], w_std=0.3)
            out = Decoder(dec_target=last, coding_method="spike_counts")
            learner = Learner(algorithm="sbp")
        learner.trainable = [net]
        net.set_backend_dt(1.0)
        net.build(strategy=1, engine=engine)
        net.source(x)
        net.run(8.0)
        assert net.engine_note.startswith(engine)
        assert cells.shape == (6, 5)
        (out.predict * torch.arange(1.0, 5.0)).sum().backward()
        grads.append(link.weight.grad)
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


def test_pool_links_take_the_mean_or_the_highest():
    x = torch.as_tensor(np.random.default_rng(0).random((2, 3, 8, 8)))
    found, _ = passed((3, 8, 8), (3, 4, 4), "pool", x)
    torch.testing.assert_close(found, F.avg_pool2d(x, 2))
    found, link = passed((3, 8, 8), (3, 3, 3), "pool", x, syn_type="maxpool", pool_kernel_size=3,
                         pool_stride=3, pool_padding=1)  # fmt: skip
    torch.testing.assert_close(found, F.max_pool2d(x, 3, 3, 1))
    assert link.weight is None


def test_an_image_of_the_wrong_shape_is_told():
    one, two = NeuronGroup(shape=(3, 8, 8)), NeuronGroup(shape=(4, 5, 5))
    with pytest.raises(InputError, match=r"the conv link gives shape \(4, 6, 6\)"):
        Connection(one, two, link_type="conv")
    with pytest.raises(InputError, match=r"source of a conv link has shape \(10,\)"):
        Connection(NeuronGroup(10), two, link_type="conv")
    with pytest.raises(InputError, match="in_channels=2, but the source has 3"):
        Connection(one, two, link_type="conv", in_channels=2)
    with pytest.raises(InputError, match="the kernel is larger than the image"):
        Connection(one, two, link_type="conv", kernel_size=9)
    for options, told in (
        ({"kernel_size": (3, 3, 3)}, r"kernel_size=\(3, 3, 3\); expected a whole number >= 1, or"),
        ({"stride": 0}, "stride=0; expected a whole number >= 1"),
        ({"stride": 1.5}, r"stride=1\.5; expected a whole"),
        ({"padding": -1}, "padding=-1; expected a whole number >= 0"),
        ({"padding": "full"}, "padding='full' of a conv link .*; expected numbers, or"),
        (
            {"padding": "same", "stride": (1, 2)},
            r"padding='same' of a conv link with stride \(1, 2",
        ),
        ({"groups": 2}, "groups=2 does not divide 3 channels into 4"),
        ({"syn_type": ["conv", "maxpool"], "pool_padding": 2}, "at most half of pool_kernel_size"),
    ):
        with pytest.raises(InputError, match=told):
            Connection(one, two, link_type="conv", **options)
    line = NeuronGroup(shape=(1, 8))
    with pytest.raises(
        InputError, match=r"has shape \(1, 8\); expected \(channels, height, width\)$"
    ):
        Connection(line, NeuronGroup(6), link_type="continuous_local")
    link = Connection(line, NeuronGroup(shape=(1, 6)), link_type="conv", name="line")
    with pytest.raises(InputError, match="Connection line: only links between images"):
        unfolding(link)  # rules of convolutions look at patches of images
    with pytest.raises(InputError, match="unknown option of conv 'kernel'"):
        Connection(one, two, link_type="conv", kernel=3)


def test_dropout_follows_training_and_evaluation():
    x = np.ones((50, 40))
    given = {"syn_type": ["dropout", "directpass"], "syn_kwargs": {"p": 0.25}}
    found, _ = passed((40,), (40,), "null", x, **given)
    assert set(found.unique().tolist()) == {0.0, 1 / 0.75}
    assert float((found == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    found, _ = passed((40,), (40,), "null", x, train=False, **given)
    assert torch.equal(found, torch.ones(50, 40, dtype=torch.float64))


def test_batch_normalisation_keeps_running_means_and_is_trained():
    x = np.random.default_rng(0).normal(2.0, 3.0, (16, 2, 6, 6))
    given = {"syn_type": ["conv", "batchnorm2d"], "syn_kwargs": {"num_features": 3}}
    found, link = passed((2, 6, 6), (3, 4, 4), "conv", x, **given)
    np.testing.assert_allclose(found.mean((0, 2, 3)), 0, atol=1e-9)
    np.testing.assert_allclose(found.std((0, 2, 3), unbiased=False), 1, rtol=1e-3)
    module = link.modules["batchnorm2d"]
    assert module.running_mean.abs().max() > 0
    assert len(list(module.parameters())) == 2
    with pytest.raises(InputError, match="batchnorm2d needs syn_kwargs"):
        passed((2, 6, 6), (3, 4, 4), "conv", x, syn_type=["conv", "batchnorm2d"])


def test_a_direct_link_and_a_bias_of_each_neuron():
    x = np.arange(6.0).reshape(2, 3)
    found, _ = passed((3,), (3,), "null", x)
    np.testing.assert_array_equal(found, x)
    weight, bias = np.ones((2, 3)), [0.5, -1.0]
    found, _ = passed((3,), (2,), "full", x, weight=weight, bias=bias)
    np.testing.assert_allclose(found, x @ weight.T + bias)
    index = {"pre_index": [0, 2, 2], "post_index": [1, 0, 0], "weight": [1.0, 2.0, 3.0]}
    found, _ = passed((3,), (2,), "index", x, bias=bias, **index)
    np.testing.assert_allclose(found, np.stack([5 * x[:, 2], x[:, 0]], 1) + bias)


def test_a_dense_pattern_can_be_stored_sparse():
    for kind, count in (("one_to_one", 6), ("sparse_connection", 12), ("random", 12)):
        options = {"density": 0.33} if "sparse" in kind else {}
        options |= {"probability": 0.33} if kind == "random" else {}
        link = built(*groups(6, 6), link_type=kind, is_sparse=True, **options)
        assert link.stored_sparse
        assert len(link.weight) == pytest.approx(count, abs=8 if kind != "one_to_one" else 0)
    with pytest.raises(InputError, match="is_sparse=True with link_type 'full'"):
        built(*groups(2, 2), is_sparse=True)


def test_initialisers_have_the_precision_of_the_network():
    weight = built(*groups(), weight=Initializer("constant", constant_value=0.1)).weight
    assert bool((weight == 0.1).all())
    drawn = built(*groups(), weight=Initializer("uniform")).weight.detach()
    assert bool((drawn != drawn.float().double()).any())


def test_initialisers_tell_what_they_do_not_take():
    with pytest.raises(InputError, match=r"argument of uniform 'low'.*'a', 'b'|'low'"):
        Initializer("uniform", low=1.0)
    with pytest.raises(InputError, match=r"Connection .*bias: initializer xavier_uniform of shape"):
        built(*groups(), bias=Initializer("xavier_uniform"))
    image, maps = NeuronGroup(shape=(1, 6, 6)), NeuronGroup(shape=(2, 4, 4))
    with pytest.raises(InputError, match=r"weight: initializer sparse of shape \(2, 1, 3, 3\)"):
        built(image, maps, link_type="conv", weight=Initializer("sparse"))
    with pytest.raises(InputError, match="bias holds values that are not finite"):
        built(*groups(), bias=np.full(60, np.nan))


@pytest.mark.parametrize(
    ("stages", "features", "seen"),
    [(["conv", "batchnorm2d"], 1, 2), (["batchnorm2d", "conv"], 2, 1)],
)
def test_a_batch_normalisation_of_other_channels_is_told(stages, features, seen):
    image, maps = NeuronGroup(shape=(1, 6, 6)), NeuronGroup(shape=(2, 4, 4))
    options = {"link_type": "conv", "syn_type": stages}
    assert built(image, maps, syn_kwargs={"num_features": seen}, **options).modules
    with pytest.raises(InputError, match=f"={features}, and what it sees has {seen} channels"):
        built(image, maps, syn_kwargs={"num_features": features}, **options)


def test_a_convolution_arranges_neurons_whose_number_alone_was_given():
    with Network() as net:
        image = Encoder(shape=(1, 6, 6), coding_method="float")
        first = NeuronGroup(2 * 4 * 4)
        flat = NeuronGroup(shape=(3 * 2 * 2,))
        one = Connection(image, first, link_type="conv", out_channels=2)
        two = Connection(first, flat, link_type="conv", out_channels=3)
    assert first.shape == (2, 4, 4)
    assert two.out_size == [2, 2]
    assert flat.shape == (12,), "a shape that was given stays"
    image(np.ones((1, 1, 6, 6)))
    net.run(0.3)
    assert one.weight.shape == (2, 1, 3, 3)


def test_a_flattened_convolution_leaves_a_row():
    image = Encoder(shape=(1, 6, 6), coding_method="float")
    row = NeuronGroup(16)
    Connection(image, row, link_type="conv", out_channels=1, syn_type=["conv", "flatten"])
    assert row.shape == (16,)
