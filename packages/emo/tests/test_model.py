import pytest
import timm
import torch
from emo_fill import fill
from torch import nn

from tenfold.emo.model import (
    EMO,
    i2RMB,
    iRMB,
    load_checkpoint,
    merge,
    partition,
    read_checkpoint,
    save_checkpoint,
)
from tenfold.shared.errors import InputError


def test_the_grid_of_the_card():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    groups = partition(x, 2, 1, remote=True).flatten(1).tolist()
    assert groups == [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]
    windows = partition(x, 2, 1, remote=False).flatten(1).tolist()
    assert windows == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("remote", [True, False])
def test_merge_undoes_partition(remote):
    x = torch.rand(2, 12, 6, 9)
    assert torch.equal(merge(partition(x, 3, 4, remote), 3, 6, 9, remote), x)


def _attention_reference(block, z):
    """Grid attention pixel by pixel, in plain loops."""
    b, c, height, width = z.shape
    w, h = block.window, block.heads
    d = c // h
    padded = torch.zeros(b, c, -(-height // w) * w, -(-width // w) * w, dtype=z.dtype)
    padded[..., :height, :width] = z
    qk = nn.functional.conv2d(padded, block.qk.conv.weight, block.qk.conv.bias)
    n1, n2 = padded.shape[2] // w, padded.shape[3] // w
    out = torch.zeros_like(padded)
    for one in range(b):
        for a1 in range(n1):
            for a2 in range(n2):
                cells = [(i * n1 + a1, j * n2 + a2) for i in range(w) for j in range(w)]
                for head in range(h):
                    part = slice(head * d, head * d + d)
                    q = torch.stack([qk[one, :c, y, x][part] for y, x in cells])
                    k = torch.stack([qk[one, c:, y, x][part] for y, x in cells])
                    v = torch.stack([padded[one, :, y, x][part] for y, x in cells])
                    s = (q @ k.T * d**-0.5).softmax(1) @ v
                    for (y, x), row in zip(cells, s, strict=True):
                        out[one, part, y, x] = row
    u = nn.functional.conv2d(out, block.v.conv.weight, block.v.conv.bias)
    return nn.functional.gelu(u)[..., :height, :width]


@torch.no_grad()
def test_attention_equals_plain_loops_with_padding():
    block = fill(iRMB(8, attention="remote", head_dim=4, window=3, norm="layer", act="gelu"))
    z = torch.rand(2, 8, 5, 7, dtype=torch.float64) - 0.5
    torch.testing.assert_close(block.attend(z), _attention_reference(block, z))


@torch.no_grad()
def test_pre_and_post_attention_agree_for_values_grouped_by_heads_without_activation():
    options = {"expansion": 2.0, "attention": "remote", "head_dim": 4, "window": 2}
    pre = fill(iRMB(8, **options))
    post = fill(iRMB(8, pre_attention=False, **options))
    for block in (pre, post):
        block.v.act = nn.Identity()
        mask = torch.block_diag(torch.ones(8, 4), torch.ones(8, 4))
        block.v.conv.weight.mul_(mask[..., None, None])
    z = torch.rand(1, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(pre.attend(z), post.attend(z))
    pre.v.act = post.v.act = nn.SiLU()
    assert not torch.allclose(pre.attend(z), post.attend(z))


@torch.no_grad()
def test_spanning_attention_is_the_sum_of_remote_and_close():
    options = {"expansion": 2.0, "head_dim": 4, "window": 2}
    spanning = fill(i2RMB(8, attention="spanning", **options))
    parts = [fill(i2RMB(8, attention=kind, **options)) for kind in ("remote", "close")]
    z = torch.rand(1, 8, 6, 5, dtype=torch.float64)
    expected = sum(part.attend(z) for part in parts)
    torch.testing.assert_close(spanning.attend(z), expected)


def test_one_window_is_global_attention():
    block = iRMB(8, attention="remote", head_dim=4, window=4, pre_attention=False).eval()
    close = iRMB(8, attention="close", head_dim=4, window=4, pre_attention=False).eval()
    close.load_state_dict(block.state_dict())
    x = torch.rand(1, 8, 4, 4)
    torch.testing.assert_close(block(x), close(x))


@pytest.mark.parametrize("size", [(33, 33), (47, 65), (64, 64), (96, 72)])
@torch.no_grad()
def test_any_size_and_batch_invariance(small, size):
    model = small().eval()
    x = torch.rand(3, 3, *size)
    y = model(x)
    assert y.shape == (3, 10)
    torch.testing.assert_close(model(x[1:2]), y[1:2], atol=1e-5, rtol=1e-4)


def test_post_attention_is_refused_where_the_widths_forbid_it():
    with pytest.raises(InputError, match="588 expanded channels"):
        timm.create_model("emo_1m", pre_attention=False)
    assert timm.create_model("emo_5m", pre_attention=False, num_classes=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: iRMB(16, kernel_size=4), "kernel_size=4"),
        (lambda: iRMB(16, kernel_size=0), "kernel_size=0"),
        (lambda: iRMB(16, stride=0), "stride=0"),
        (lambda: iRMB(16, stride=3), "stride=3"),
        (lambda: iRMB(0), "channels=0"),
        (lambda: iRMB(16, 0), "out=0"),
        (lambda: iRMB(16, expansion=0), "expansion=0"),
        (lambda: iRMB(16, window=2.5), "window=2.5"),
        (lambda: iRMB(16, drop_path=2), "drop_path=2"),
        (lambda: EMO(in_chans=0), "in_chans=0"),
        (lambda: EMO(attention_stages=(5,)), r"attention_stages=\(5,\)"),
        (lambda: EMO(num_classes=-1), "num_classes=-1"),
        (lambda: EMO(window=2.5), "window=2.5"),
        (lambda: EMO(drop_path_rate=2), "drop_path_rate=2"),
        (lambda: EMO(num_classes=0).reset_classifier(-1), "num_classes=-1"),
        (lambda: iRMB(10, attention="remote", head_dim=4), "head_dim=4"),
        (lambda: iRMB(8, attention="grid"), "remote"),
        (lambda: iRMB(8, 16, skip=True), "skip=True"),
        (lambda: iRMB(8, act="relu"), "silu"),
        (lambda: iRMB(8, norm="group"), "layer"),
        (lambda: iRMB(8, attention="remote", head_dim=4, window=0), "window=0"),
        (lambda: EMO(dims=(8, 16, 24)), "dims"),
        (lambda: EMO(depths=(1, 1, 0, 1)), "depths"),
        (lambda: EMO(global_pool="max"), "global_pool"),
    ],
)
def test_wrong_arguments_are_named(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_timm_conventions(create):
    model = create("emo_1m", num_classes=7, in_chans=1)
    x = torch.rand(1, 1, 64, 64)
    features = model.forward_features(x)
    assert features.shape == (1, 168, 2, 2)
    assert model.forward_head(features, pre_logits=True).shape == (1, 168)
    assert model.forward_head(features).shape == (1, 7)
    model.reset_classifier(0)
    assert model(x).shape == (1, 168)
    model.reset_classifier(3, "")
    assert model(x).shape == (1, 3, 2, 2)
    assert model.pretrained_cfg["first_conv"] == "stage0.0.convs.0.0"
    assert model.pretrained_cfg["crop_pct"] == 0.875
    assert {"emo_1m", "emo2_50m"} <= set(timm.list_models("emo*"))


@torch.no_grad()
def test_the_pyramid(create):
    model = create("emo_1m", features_only=True).eval()
    shapes = [tuple(f.shape[1:]) for f in model(torch.rand(1, 3, 224, 224))]
    assert shapes == [(32, 56, 56), (48, 28, 28), (80, 14, 14), (168, 7, 7)]
    assert model.feature_info.channels() == [32, 48, 80, 168]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    part = create("emo_1m", features_only=True, out_indices=(1, 2))
    assert [f.shape[1] for f in part(torch.rand(2, 3, 64, 64))] == [48, 80]
    assert not any("stage4" in name or "head" in name for name in part.state_dict())


def test_every_parameter_has_a_group(create):
    from timm.models import group_parameters

    model = create("emo_1m")
    groups = group_parameters(model, model.group_matcher())
    assert len(groups) == 1 + 15 + 1  # stem, blocks (the norm with the last), head
    assert len(group_parameters(model, model.group_matcher(coarse=True))) == 1 + 4 + 1


def test_gradient_checkpointing_gives_the_same_gradients(small):
    x = torch.rand(2, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model = small().train()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_every_parameter_gets_a_gradient(small):
    model = small(attention="spanning", pre_attention=False, layer_scale=1e-6)
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_stochastic_depth_grows_over_the_blocks(create):
    from timm.layers import DropPath

    model = create("emo_1m", drop_path_rate=0.14)
    rates = [
        m.drop_path.drop_prob if isinstance(m.drop_path, DropPath) else 0
        for s in model.stages()
        for m in s
    ]
    assert rates == pytest.approx([0.14 * i / 14 for i in range(15)])


@pytest.mark.parametrize("kind", ["net", "net_E", "bare", "ddp", "safetensors"])
def test_published_checkpoints_load(small, tmp_path, kind):
    from safetensors.torch import save_file

    saved, other = fill(small()).float(), small()
    state = saved.state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "net_E":
        torch.save({"net": other.state_dict(), "net_E": state}, path)
    elif kind == "ddp":
        torch.save({"net": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        torch.save({"net": state} if kind == "net" else state, path)
    model = small()
    assert load_checkpoint(model, path) == []
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    if kind == "net_E":
        assert torch.equal(
            read_checkpoint(path, "net")["head.weight"], other.state_dict()["head.weight"]
        )


def test_checkpoints_are_written_as_published(small, tmp_path):
    model, ema = small(), fill(small()).float()
    save_checkpoint(model, tmp_path / "a.pth", ema)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert set(content) == {"net", "net_E"}
    again = small()
    load_checkpoint(again, tmp_path / "a.pth")
    assert torch.equal(again.head.weight, ema.head.weight)
    save_checkpoint(model, tmp_path / "a.safetensors")
    load_checkpoint(again, tmp_path / "a.safetensors")
    assert torch.equal(again.head.weight, model.head.weight)


def test_the_published_names(create):
    names = set(create("emo_1m").state_dict())
    assert {
        "stage0.0.convs.0.0.weight", "stage0.0.convs.0.1.running_mean",
        "stage0.1.conv_local.conv.weight", "stage0.1.se.conv_reduce.bias",
        "stage0.1.se.conv_expand.weight", "stage0.1.proj.conv.weight", "stage1.0.norm.weight",
        "stage3.0.norm.norm.bias", "stage3.1.qk.conv.bias", "stage3.1.v.conv.weight",
        "stage4.2.conv_local.norm.running_var", "norm.norm.weight", "head.bias",
    } <= names  # fmt: skip
    assert not any(name.startswith(("stage0.1.norm", "stage0.1.v")) for name in names)


def test_wrong_checkpoints_are_refused(small, create, tmp_path):
    import pickle

    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(small(), tmp_path / "none.pth")
    torch.save(create("emo_2m").state_dict(), tmp_path / "2m.pth")
    with pytest.raises(InputError, match=r"2m\.pth is not a checkpoint of this EMO: .*shape"):
        load_checkpoint(create("emo_1m"), tmp_path / "2m.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="cannot be read safely"):
        load_checkpoint(small(), tmp_path / "evil.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(InputError, match="holds no weights"):
        load_checkpoint(small(), tmp_path / "none.pt")


def test_pretrained_weights_do_not_exist(create):
    with pytest.raises(RuntimeError, match=r"[Pp]retrained"):
        create("emo_1m", pretrained=True)


def test_timm_loads_a_published_file(create, tmp_path):
    torch.manual_seed(3)
    net, average = create("emo_1m"), create("emo_1m")
    torch.save({"net": net.state_dict(), "net_E": average.state_dict()}, tmp_path / "emo_1m.pth")
    path = str(tmp_path / "emo_1m.pth")
    for options in (
        {"checkpoint_path": path},
        {"pretrained": True, "pretrained_cfg_overlay": {"file": path}},
    ):
        model = create("emo_1m", **options)
        for name, value in average.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}
    seven = create("emo_1m", num_classes=7, **overlay)
    assert seven.head.weight.shape == (7, 168)
    assert torch.equal(seven.stage4[2].qk.conv.weight, average.stage4[2].qk.conv.weight)
    maps = create("emo_1m", features_only=True, **overlay)
    assert torch.equal(maps.model.stage4[2].qk.conv.weight, average.stage4[2].qk.conv.weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        create("emo_2m", checkpoint_path=path)


def test_initialisation_and_normalisation_of_the_card(create):
    model = create("emo_5m")
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert model.head.weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert not model.head.bias.any()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-6, 0.1)}
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    conv = model.stage4[0].v.conv.weight  # torch's default: uniform in ±1/√(fan in)
    assert conv.abs().max().item() == pytest.approx(160**-0.5, rel=1e-3)
    assert conv.std().item() == pytest.approx((160 * 3) ** -0.5, rel=0.01)
