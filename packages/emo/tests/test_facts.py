"""The facts of the card's section 11, and the counts of sections 2.4 and 8."""

import pytest
import timm
import torch
from emo_fill import fill, image, u

from tenfold.emo.model import MODELS, iRMB
from tenfold.emo.profiling import profile
from tenfold.shared.published import published

LOGITS = [
    ("emo_1m", 224, [0.87453624, 0.80454217, -0.95789498, 2.71691307, -1.37160809],
     -23.02464315, 41.48535560, 194),
    ("emo_1m", 288, [2.02902982, -0.47198606, -1.19061128, 0.52304805, -1.45045415],
     -43.97439933, 38.75262315, 178),
    ("emo_2m", 224, [-0.60512894, -1.24709737, -1.43126916, -2.34032004, -0.18795150],
     -43.22975904, 41.60344274, 783),
    ("emo_5m", 224, [0.86008403, 0.96208465, 0.86565186, 0.67403524, 1.52534645],
     24.96597215, 41.96895498, 454),
    ("emo_6m", 224, [1.99785638, -0.21108362, -0.47710951, -1.15415982, 1.24671022],
     40.39944546, 42.84424199, 931),
]  # fmt: skip

PARAMETERS = {
    "emo_1m": 1_361_168, "emo_2m": 2_377_472, "emo_5m": 5_108_848, "emo_6m": 6_168_496,
    "emo2_1m": 1_460_844, "emo2_2m": 2_384_312, "emo2_5m": 5_126_440, "emo2_20m": 20_195_208,
    "emo2_50m": 49_815_560,
}  # fmt: skip
PARTS = {
    "emo_1m": [2_760, 11_504, 27_840, 452_704, 697_024, 336, 169_000],
    "emo_2m": [2_760, 16_432, 40_896, 1_062_624, 1_053_360, 400, 201_000],
    "emo_5m": [2_760, 29_040, 105_792, 2_346_384, 2_335_296, 576, 289_000],
    "emo_6m": [2_760, 29_040, 105_792, 2_346_384, 3_362_880, 640, 321_000],
    "emo2_1m": [912, 10_912, 32_416, 453_344, 781_900],
    "emo2_2m": [912, 16_896, 47_440, 1_063_704, 1_053_960],
    "emo2_5m": [1_560, 33_792, 117_528, 2_347_824, 2_336_160],
}
TENSORS = {
    "emo_1m": 217, "emo_2m": 258, "emo_5m": 258, "emo_6m": 258,
    "emo2_1m": 228, "emo2_2m": 272, "emo2_5m": 272,
}  # fmt: skip
FLOPS = [
    ("emo_1m", 224, 255_237_672, 260_843_664),
    ("emo_2m", 224, 431_917_024, 439_363_064),
    ("emo_5m", 224, 892_224_000, 902_583_776),
    ("emo_6m", 224, 950_250_048, 960_752_512),
    ("emo_1m", 256, None, 437_562_528),
    ("emo_2m", 256, None, 761_019_584),
    ("emo_5m", 256, None, 1_568_165_248),
    ("emo_6m", 256, None, 1_702_810_752),
    ("emo_1m", 512, None, 1_481_642_880),
    ("emo_2m", 512, None, 2_517_936_160),
    ("emo_5m", 512, None, 5_181_099_008),
    ("emo_6m", 512, None, 5_567_106_432),
    ("emo2_1m", 224, None, 284_756_712),
    ("emo2_2m", 224, None, 487_454_824),
    ("emo2_5m", 224, None, 1_035_473_760),
    ("emo2_20m", 224, None, 4_017_165_376),
    ("emo2_50m", 224, None, 8_804_167_168),
]


def test_the_fill_is_that_of_the_card():
    assert u("input", 5) == pytest.approx(
        [-0.6155172028, 0.4095035680, 0.1345711164, 0.9417599677, 0.2560538254], abs=1e-10
    )
    assert u("head.bias", 3) == pytest.approx(
        [-0.5202450603, 0.8267332325, -0.5740622380], abs=1e-10
    )


@pytest.mark.parametrize(("name", "size", "first", "total", "norm", "best"), LOGITS)
@torch.no_grad()
def test_logits_of_filled_networks_in_float64(name, size, first, total, norm, best):
    logits = fill(timm.create_model(name))(image(size))[0]
    assert logits[:5].tolist() == pytest.approx(first, abs=1e-8)
    assert logits.sum().item() == pytest.approx(total, abs=1e-7)
    assert logits.norm().item() == pytest.approx(norm, abs=1e-8)
    assert logits.argmax().item() == best


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("emo_1m", 0.1097493108, 2.8963626125), ("emo_5m", -0.2661956775, 2.8438305104)],
)
@torch.no_grad()
def test_the_map_before_the_last_norm(name, mean, std):
    (last,) = fill(timm.create_model(name)).forward_intermediates(
        image(224), indices=1, intermediates_only=True
    )
    assert last.mean().item() == pytest.approx(mean, abs=1e-9)
    assert last.std().item() == pytest.approx(std, abs=1e-9)


@pytest.mark.parametrize(
    ("size", "logits"),
    [
        (64, [-1.79694263, -2.87699137, 0.23388018, 0.63951790, 3.40041152,
              -0.80580090, 0.05804292, -0.03078614, 1.32953074, -0.12640322]),
        (72, [-2.16218328, -2.39623279, 0.51452858, 0.40219685, 3.33184148,
              -1.09454021, -0.45715914, 0.84875494, 1.28718443, -0.53275785]),
    ],
)  # fmt: skip
@torch.no_grad()
def test_the_small_network(small, size, logits):
    model = fill(small())
    assert sum(p.numel() for p in model.parameters()) == 40_882
    assert len(model.state_dict()) == 112
    assert model(image(size))[0].tolist() == pytest.approx(logits, abs=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_tensors(name):
    model = timm.create_model(name)
    costs = [sum(p.numel() for p in child.parameters()) for child in model.children()]
    assert sum(costs) == PARAMETERS[name]
    if name in PARTS:
        assert costs[: len(PARTS[name])] == PARTS[name]
        assert len(model.state_dict()) == TENSORS[name]


@pytest.mark.parametrize(("name", "size", "macs", "flops"), FLOPS)
def test_operations_in_both_conventions(name, size, macs, flops):
    whole, *parts = profile(timm.create_model(name), size)
    assert whole.flops == flops
    assert macs is None or whole.macs == macs
    assert sum(part.flops for part in parts) == flops
    assert sum(part.parameters for part in parts) == whole.parameters == PARAMETERS[name]


def test_emo2_5m_at_512_with_window_8():
    model = timm.create_model("emo2_5m", window=8)
    assert profile(model, 512)[0].flops == 5_627_331_840


def test_decayed_and_undecayed_elements_of_emo_1m():
    parameters = list(timm.create_model("emo_1m").parameters())
    assert sum(p.numel() for p in parameters if p.ndim == 1) == 18_048
    assert sum(p.numel() for p in parameters if p.ndim > 1) == 1_343_120


@torch.no_grad()
def test_how_much_the_grid_and_the_eps_matter():
    model = fill(timm.create_model("emo_1m"))
    logits = model(image(224))
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    assert (model(image(224)) - logits).abs().max().item() == pytest.approx(4e-5, rel=0.15)
    windows = fill(timm.create_model("emo_1m", attention="close"))
    assert (windows(image(224)) - logits).abs().max().item() == pytest.approx(1.34, abs=0.005)


def test_cost_of_one_attention_block():
    # 2C²HW + 2CHWw² + CMHW + k²MHW + MCHW with C = 80, M = 240, H = W = 14, w = 7, k = 5.
    block = iRMB(
        80, expansion=3, kernel_size=5, attention="remote", head_dim=20, window=7, norm="layer"
    )
    whole = profile(block, 14, in_chans=80)[0]
    positions, c, m = 14 * 14, 80, 240
    parts = 2 * c * c + 2 * c * 49 + c * m + 25 * m + m * c
    assert whole.macs == parts * positions == 12_747_840


def test_every_published_number_is_found_alone():
    paper = published("emo")
    assert len(paper.results) == len({(r.dataset, r.metric, r.method) for r in paper.results})
    for dataset, metric, method, value in (
        ("coco", "AP", "MobileViTv2-0.75 ssdlite", 24.6),
        ("coco", "AP", "EdgeViT-XXS retinanet", 38.7),
        ("coco", "mask AP", "EMOv2-5M mask-rcnn", 39.0),
        ("coco", "AP", "EMOv2-5M ssdlite", 29.6),
        ("ade20k", "mIoU", "EMOv2-5M segformer", 43.0),
        ("ade20k", "mIoU", "MobileNetV2 pspnet", 29.7),
        ("imagenet", "top-1", "EMOv2-5M, distilled", 80.9),
        ("imagenet", "top-1", "EMO-5M, recipe of Vim", 77.9),
        ("imagenet", "top-1", "EMO-5M, parallel", 78.1),
        ("imagenet", "ms, iPhone 15", "EdgeNeXt-S", 22.5),
    ):
        assert paper.lookup(dataset, metric, method).value == value
