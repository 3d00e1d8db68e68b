import copy
import pickle

import pytest
import timm
import torch
from emo_fill import fill
from torch import nn

from tenfold.emo import inference
from tenfold.emo.inference import FusedBlock, as_affine, fold_after, optimize_for_inference
from tenfold.emo.kernels import NativeBlock, NativeStart, build, compile_kernels
from tenfold.emo.model import i2RMB, iRMB
from tenfold.shared.errors import InputError

BLOCKS = {
    "plain": lambda: iRMB(8, expansion=3),
    "stride": lambda: iRMB(8, 12, stride=2, kernel_size=5, norm="layer", act="gelu"),
    "stem": lambda: iRMB(8, expand=False, norm=None, skip=False, se=True),
    "remote": lambda: iRMB(8, attention="remote", head_dim=4, window=3, norm="layer", act="gelu"),
    "batch norm before attention": lambda: iRMB(8, attention="remote", head_dim=4, window=3),
    "post": lambda: iRMB(8, attention="close", head_dim=4, window=3, pre_attention=False),
    "spanning": lambda: i2RMB(8, head_dim=4, window=3, norm="layer", act="gelu"),
    "spanning, pre": lambda: i2RMB(8, head_dim=4, window=3, pre_attention=True),
}


@pytest.mark.parametrize("kind", BLOCKS)
@torch.no_grad()
def test_a_fused_block_is_the_block(kind):
    block = fill(BLOCKS[kind]())
    x = torch.rand(3, 8, 7, 10, dtype=torch.float64) - 0.5
    torch.testing.assert_close(FusedBlock(block)(x), block(x), atol=1e-12, rtol=1e-10)
    fast = FusedBlock(block.float())  # oneDNN's primitives
    torch.testing.assert_close(fast(x.float()), block(x.float()), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["emo_1m", "emo_6m", "emo2_2m"])
@pytest.mark.parametrize("size", [(224, 224), (160, 200)])
@torch.inference_mode()
def test_optimised_logits_are_within_1e_4_in_float32(name, size):
    model = fill(timm.create_model(name)).float()
    fast = optimize_for_inference(model)
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    assert (fast(x) - model(x)).abs().max() < 1e-4


@pytest.fixture(scope="module")
def kernels():
    try:
        build()
    except InputError as error:
        pytest.skip(str(error))


NATIVE = BLOCKS | {
    "batch norm, 5, stride": lambda: iRMB(8, 24, stride=2, kernel_size=5, expansion=7),
    "wide": lambda: iRMB(40, expansion=3, kernel_size=5, attention="remote", head_dim=20, window=4,
                         norm="layer", act="gelu"),
    "close": lambda: iRMB(8, attention="close", head_dim=4, window=3, norm="layer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [k for k in NATIVE if k != "stem"])
@torch.no_grad()
def test_a_native_block_is_the_block(kernels, kind):
    block = fill(NATIVE[kind]())
    x = torch.rand(3, block.proj.conv.out_channels if block.skip else 8, 7, 30).double() - 0.5
    expected = block(x)
    native = NativeBlock(FusedBlock(block.float()))
    before = torch.get_num_threads()
    for threads in (1, 5):  # five cut each image into pieces
        torch.set_num_threads(threads)
        found = native(x.float())
        torch.set_num_threads(before)
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_native_activations_hold_far_out(kernels):
    block = fill(iRMB(8, expansion=2, norm=None, act="gelu")).float()
    block.conv_local.norm.weight.fill_(30.0)
    x = torch.linspace(-300, 300, 3 * 8 * 64).view(3, 8, 8, 8)
    found = NativeBlock(FusedBlock(block))(x)
    torch.testing.assert_close(found, block(x), rtol=1e-4, atol=0.05)
    x[0, 0, 0, 0] = float("nan")
    assert NativeBlock(FusedBlock(block))(x)[0, :, 0, 0].isnan().all()


@pytest.mark.parametrize("name", ["emo_1m", "emo_5m", "emo2_1m"])
@torch.inference_mode()
def test_native_logits_are_within_1e_4_in_float32(kernels, name):
    model = fill(timm.create_model(name)).float()
    fast = optimize_for_inference(model, native=True)
    assert sum(isinstance(m, NativeBlock | NativeStart) for m in fast.modules()) >= 15
    for shape in ((2, 3, 224, 224), (1, 3, 161, 200)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        expected = model(x)
        assert (fast(x) - expected).abs().max() < 1e-4
        last = x.contiguous(memory_format=torch.channels_last)
        assert (fast(last) - expected).abs().max() < 1e-4
    assert (fast.double()(x.double()) - expected).abs().max() < 1e-4  # without the kernels


@torch.inference_mode()
def test_native_takes_any_shape_layout_and_number_of_threads(kernels, small):
    model = fill(small(in_chans=2, stem_se=True)).float()
    fast = optimize_for_inference(model, native=True)
    assert isinstance(fast.stage1[0], NativeStart)
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    for shape, threads in (((8, 2, 33, 47), 5), ((3, 2, 65, 34), 2), ((1, 2, 1, 1), 3)):
        x = torch.randn(shape, generator=generator)
        x[0] *= 9  # squeeze-excitation gives each image weights of its own
        torch.set_num_threads(threads)
        found = fast(x)
        torch.set_num_threads(before)
        torch.testing.assert_close(found, model(x), atol=2e-5, rtol=1e-4)
    wide = torch.randn(2, 4, 80, 90, generator=generator)
    for x in (
        wide[:, ::2, 3:67:2, 5:],
        wide.transpose(2, 3)[:, 1:3],
        wide[:1, :2].expand(3, -1, -1, -1),
    ):
        torch.testing.assert_close(fast(x), model(x), atol=2e-5, rtol=1e-4)
    assert fast(torch.zeros(0, 2, 64, 64)).shape == (0, 10)
    torch.testing.assert_close(fast.train()(wide[:, :2]), model(wide[:, :2]), atol=2e-5, rtol=1e-4)
    with pytest.raises(RuntimeError):
        fast(torch.zeros(1, 3, 64, 64))
    with pytest.raises(RuntimeError):
        fast(torch.zeros(1, 2, 0, 64))


def test_native_leaves_what_has_no_kernel_to_torch(kernels, small):
    model = nn.Sequential(iRMB(8, kernel_size=7, norm=None), iRMB(8, se=True, act="gelu"), iRMB(8))
    model.eval()
    fast = optimize_for_inference(model, native=True)
    assert [type(part) for part in fast] == [FusedBlock, FusedBlock, NativeBlock]
    x = torch.rand(2, 8, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), atol=1e-5, rtol=1e-4)
    net = fill(small()).float()
    fast = optimize_for_inference(net, native=True)
    x = torch.rand(1, 3, 64, 64)
    half, expected = copy.deepcopy(fast).bfloat16(), net(x)
    with torch.no_grad():
        torch.testing.assert_close(half(x.bfloat16()).float(), expected, atol=0.3, rtol=0.1)
    y = x.clone().requires_grad_()
    fast(y).sum().backward()  # gradients of the input, by the fused blocks
    assert y.grad.abs().sum() > 0


def test_native_goes_through_torch_compile(kernels, small):
    fast = optimize_for_inference(fill(small()).float(), native=True)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True, dynamic=False)
    x = torch.rand(2, 3, 72, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), fast(x), atol=1e-5, rtol=1e-4)
    again = pickle.loads(pickle.dumps(copy.deepcopy(fast)))  # noqa: S301 - our own
    with torch.inference_mode():
        torch.testing.assert_close(again(x), fast(x))
    torch._dynamo.reset()


def test_native_without_a_working_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("tenfold.emo.kernels.user_cache_path", lambda *_, **__: tmp_path)
    for compiler, words in (("no-such-compiler", "No such file"), ("false", r"\['false', ")):
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(InputError, match=rf"{compiler} failed: .*{words}"):
            compile_kernels()
    assert not list(tmp_path.rglob("kernels*"))  # nothing half-done stays


@torch.inference_mode()
def test_parts_of_a_batch_give_the_same(small, monkeypatch):
    fast = optimize_for_inference(fill(small()).float())
    x = torch.rand(5, 3, 64, 64)
    whole = fast(x)
    monkeypatch.setattr(inference, "CACHE_BYTES", 1)
    torch.testing.assert_close(fast(x), whole, atol=1e-5, rtol=1e-4)


def test_the_original_is_not_changed_and_the_copy_keeps_its_methods(small):
    model = fill(small()).float()
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        maps = fast.forward_intermediates(x, intermediates_only=True)
        assert [m.shape[1] for m in maps] == [8, 16, 24, 32]
        torch.testing.assert_close(fast.forward_features(x), model.forward_features(x))
        again = pickle.loads(pickle.dumps(copy.deepcopy(fast)))  # noqa: S301 - our own
        torch.testing.assert_close(again(x), fast(x))
    assert not any(isinstance(m, iRMB | nn.BatchNorm2d) for m in fast.modules())


@torch.inference_mode()
def test_new_weights_are_packed_anew(small):
    fast = optimize_for_inference(fill(small()).float())
    x = torch.rand(1, 3, 64, 64)
    before = fast(x)
    layer = fast.stage2[0].expand
    layer.weight.mul_(0.5)
    after = fast(x)
    assert not torch.allclose(before, after)
    layer.weight.mul_(2.0)
    torch.testing.assert_close(fast(x), before)


def test_gradients_of_the_input_still_flow(small):
    model = fill(small()).float()
    fast = optimize_for_inference(model)
    grads = []
    for net in (model, fast):
        x = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64).requires_grad_()
        net(x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-3)


def test_detectors_and_strangers():
    from tenfold.emo.dense import SSDLite

    model = SSDLite("emo_1m", 3).eval()
    fast = optimize_for_inference(model)
    x = torch.rand(1, 3, 320, 320)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x)[0], model(x)[0], atol=1e-4, rtol=1e-3)
    with pytest.raises(InputError, match="holds no iRMB"):
        optimize_for_inference(nn.Linear(2, 2))


def test_folding():
    conv, norm = nn.Conv2d(4, 6, 3, bias=True).double(), nn.BatchNorm2d(6).double().eval()
    fill(conv), fill(norm)
    x = torch.rand(2, 4, 8, 8, dtype=torch.float64)
    weight, bias = fold_after(conv, norm)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm(conv(x)))
    scale, shift = as_affine(norm)
    y = torch.rand(2, 6, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(y * scale[:, None, None] + shift[:, None, None], norm(y))


@pytest.mark.parametrize("which", ["plain", "optimised"])
def test_no_graph_break(small, which):
    model = fill(small()).float()
    net = model if which == "plain" else optimize_for_inference(model)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=False)
    x = torch.rand(2, 3, 72, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-3)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["plain", "optimised"])
def test_one_graph_for_any_batch_and_size(small, which):
    model = fill(small()).float()
    net = model if which == "plain" else optimize_for_inference(model)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for shape in ((2, 3, 208, 240), (3, 3, 240, 208), (5, 3, 272, 304)):
            x = torch.rand(*shape)
            torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-3)
    assert len(graphs) == 1
    torch._dynamo.reset()


SPANNING = {
    "attention": "spanning", "pre_attention": False, "kernel_sizes": (5, 5, 5, 5),
    "layer_scale": 1.0, "stem_se": False, "stem_act": True,
}  # fmt: skip
"""What makes the small network one of EMOv2."""


@pytest.mark.slow
def test_one_graph_for_any_batch_and_size_of_emo2(small):
    model = fill(small(**SPANNING)).float()
    torch._dynamo.reset()
    compiled = torch.compile(
        optimize_for_inference(model), backend="eager", fullgraph=True, dynamic=True
    )
    with torch.no_grad():
        for shape in ((2, 3, 208, 240), (3, 3, 240, 208)):
            x = torch.rand(*shape)
            torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-3)
    torch._dynamo.reset()


@pytest.mark.parametrize("native", [False, True])
@torch.inference_mode()
def test_a_block_alone_is_optimised_once(native, request):
    if native:
        request.getfixturevalue("kernels")
    block = fill(iRMB(16, attention="remote", head_dim=8, window=4)).float()
    fast = optimize_for_inference(block, native)
    x = torch.randn(2, 16, 12, 9)
    assert isinstance(fast, NativeBlock if native else FusedBlock)
    torch.testing.assert_close(fast(x), block(x), atol=2e-5, rtol=1e-4)
    for done in (fast, nn.Sequential(fast)):
        with pytest.raises(InputError, match="optimised already"):
            optimize_for_inference(done)


@pytest.mark.slow
def test_inductor_gives_the_same_numbers(small):
    model = fill(small()).float()
    compiled = torch.compile(optimize_for_inference(model))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert (compiled(x) - model(x)).abs().max() < 1e-4
