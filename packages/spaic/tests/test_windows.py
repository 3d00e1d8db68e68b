"""Windows of links between images and sequences: random ones against torch."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Decoder, Encoder, Network, NeuronGroup

CONV = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d)}
POOL = {1: (F.avg_pool1d, F.max_pool1d), 2: (F.avg_pool2d, F.max_pool2d)}


@st.composite
def windows(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    return {
        "size": each(3, 9),
        "kernel": each(1, 4),
        "stride": each(1, 3),
        "padding": each(0, 2),
        "dilation": each(1, 2),
        "groups": draw(st.sampled_from([1, 2, 4])),
        "out": draw(st.sampled_from([4, 8])),
    }


def given_by(x, **options):
    with Network(dtype=torch.float64) as net:
        source, cell = Encoder(shape=x.shape[1:], coding_method="float"), NeuronGroup(model="null")
        link = Connection(source, cell, **options)
        out = Decoder(dec_target=cell, coding_method="final_step_voltage")
    net.build(strategy=1)
    net.source(x)
    net.run(0.1)
    assert cell.shape == out.predict.shape[1:]
    return out.predict.detach(), link.weight


@settings(deadline=None, max_examples=25)
@given(windows(), st.booleans())
def test_any_window_is_that_of_torch(w, transposed):
    axes = len(w["size"])
    x = torch.rand((2, 4, *w["size"]), dtype=torch.float64)
    names = ("kernel", "stride", "padding", "dilation")
    options = dict(zip(("kernel_size", *names[1:]), (w[key] for key in names), strict=True))
    options |= {"groups": w["groups"], "out_channels": w["out"]}
    kind = "conv_transpose" if transposed else "conv"
    refused = "kernel is larger"
    try:
        found, weight = given_by(x, link_type=kind, **options)
    except InputError as error:
        refused, found = str(error), None
        shape = (4, w["out"] // w["groups"]) if transposed else (w["out"], 4 // w["groups"])
        weight = torch.zeros((*shape, *w["kernel"]), dtype=torch.float64)
    rest = (0, w["groups"], w["dilation"]) if transposed else (w["dilation"], w["groups"])
    try:
        expected = CONV[axes][transposed](x, weight, None, w["stride"], w["padding"], *rest)
        expected = expected.detach() if min(expected.shape) > 0 else None
    except RuntimeError:
        expected = None
    assert (found is None) == (expected is None)
    assert "kernel is larger" in refused
    if found is not None:
        torch.testing.assert_close(found, expected)


@settings(deadline=None, max_examples=30)
@given(windows(), st.booleans())
def test_any_pool_is_that_of_torch(w, highest):
    axes = len(w["size"])
    assume(all(2 * p <= k for p, k in zip(w["padding"], w["kernel"], strict=True)))
    sizes = zip(w["size"], w["padding"], w["kernel"], strict=True)
    assume(all(n + 2 * p >= k for n, p, k in sizes))
    x = torch.rand((2, 4, *w["size"]), dtype=torch.float64)
    with Network(dtype=torch.float64) as net:
        source, cell = Encoder(shape=x.shape[1:], coding_method="float"), NeuronGroup(model="null")
        options = {f"pool_{key}": w[key] for key in ("stride", "padding")}
        stage = "maxpool" if highest else "avgpool"
        link = {"link_type": "pool", "syn_type": stage, "pool_kernel_size": w["kernel"]}
        Connection(source, cell, **link, **options)
        out = Decoder(dec_target=cell, coding_method="final_step_voltage")
    net.build(strategy=1)
    net.source(x)
    net.run(0.1)
    expected = POOL[axes][highest](x, w["kernel"], w["stride"], w["padding"])
    torch.testing.assert_close(out.predict, expected)
