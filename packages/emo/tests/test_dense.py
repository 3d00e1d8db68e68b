import math

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from tenfold.emo.dense import HEADS, Pyramid, RetinaNet, Segmentor, SSDLite
from tenfold.emo.dense.detection import assign
from tenfold.emo.tasks import as_coco
from tenfold.shared.errors import InputError


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "ssd", "retina", "deeplab", "deeplab_alone", "psp", "psp_alone"),
    [
        ("emo_1m", 2_311_980, 10_479_244, 5_653_188, 5_429_806, 4_374_724, 4_151_342),
        ("emo_2m", 3_342_716, 11_555_644, 6_967_156, 6_651_614, 5_557_620, 5_242_078),
        ("emo_5m", 6_076_540, 14_440_508, 10_355_828, 9_948_126, 8_585_844, 8_178_142),
    ],
)
def test_parameters_as_published(name, ssd, retina, deeplab, deeplab_alone, psp, psp_alone):
    assert count(SSDLite(name)) == ssd
    assert count(RetinaNet(name)) == retina
    assert count(Segmentor(name, "deeplabv3")) == deeplab
    assert count(Segmentor(name, "deeplabv3", auxiliary=False)) == deeplab_alone
    assert count(Segmentor(name, "pspnet")) == psp
    assert count(Segmentor(name, "pspnet", auxiliary=False)) == psp_alone


@pytest.mark.parametrize(("name", "millions"), [("emo_1m", 5.2), ("emo_2m", 6.2), ("emo_5m", 8.9)])
def test_parameters_of_semantic_fpn_truncated_as_published(name, millions):
    assert math.floor(count(Segmentor(name, "semantic-fpn")) / 1e5) / 10 == millions


@torch.no_grad()
def test_ssd_has_the_published_levels_and_anchors():
    model = SSDLite(num_classes=80).eval()
    maps = model.levels(torch.rand(1, 3, 320, 320))
    assert [m.shape[-1] for m in maps] == [20, 10, 5, 3, 2, 1]
    assert sum(m.shape[-1] ** 2 for m in maps) == 539
    anchors = model.anchors(maps)
    assert sum(map(len, anchors)) == 3_234
    first = anchors[0][:6]
    mean = math.sqrt(48 * 100)
    widths = [48, mean] + [48 / math.sqrt(r) for r in (1 / 2, 2, 1 / 3, 3)]
    heights = [48, mean] + [48 * math.sqrt(r) for r in (1 / 2, 2, 1 / 3, 3)]
    torch.testing.assert_close(first[:, 2] - first[:, 0], torch.tensor(widths))
    torch.testing.assert_close(first[:, 3] - first[:, 1], torch.tensor(heights))
    torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, torch.full((6, 2), 8.0))
    second = anchors[0][6:12]  # the next cell in the row
    torch.testing.assert_close(second - first, torch.tensor([16.0, 0, 16, 0]).expand(6, 4))
    last = anchors[5]
    torch.testing.assert_close((last[:, :2] + last[:, 2:]) / 2, torch.full((6, 2), 160.0))
    torch.testing.assert_close(last[0, 2] - last[0, 0], torch.tensor(304.0))
    torch.testing.assert_close(last[1, 2] - last[1, 0], torch.tensor(math.sqrt(304 * 320)))


@torch.no_grad()
def test_retinanet_levels_and_anchors():
    model = RetinaNet(num_classes=3).eval()
    logits, deltas, anchors = model(torch.rand(1, 3, 128, 160))
    cells = [(16 * 20), (8 * 10), (4 * 5), (2 * 3), (1 * 2)]
    assert [len(a) for a in anchors] == [9 * n for n in cells]
    assert [tuple(x.shape) for x in logits] == [(1, 9 * n, 3) for n in cells]
    assert [tuple(x.shape) for x in deltas] == [(1, 9 * n, 4) for n in cells]
    size = anchors[0][:9, 2:] - anchors[0][:9, :2]
    torch.testing.assert_close(size.prod(1).sqrt(), 32 * 2 ** (torch.arange(3) / 3).repeat(3))
    torch.testing.assert_close(
        size[:, 1] / size[:, 0], torch.tensor([0.5, 1, 2]).repeat_interleave(3)
    )
    assert torch.allclose(logits[0].sigmoid().mean(), torch.tensor(0.01), atol=2e-3)


def test_assignment_by_hand():
    iou = torch.tensor([[0.60, 0.45, 0.10, 0.30, 0.00], [0.55, 0.20, 0.35, 0.30, 0.00]])
    # Anchor 0 overlaps most with object 0 but is the best of both: the later object wins.
    assert assign(iou, 0.5, 0.5, all_best=False).tolist() == [1, -1, -1, -1, -1]
    assert assign(iou, 0.5, 0.4, all_best=True).tolist() == [1, -2, -1, -1, -1]
    tied = torch.tensor([[0.3, 0.1, 0.3]])
    assert assign(tied, 0.5, 0.4, all_best=True).tolist() == [0, -1, 0]
    assert assign(tied, 0.5, 0.5, all_best=False).tolist() == [0, -1, -1]
    assert assign(torch.zeros(1, 3), 0.5, 0.5, all_best=False).tolist() == [0, -1, -1]
    assert assign(torch.zeros(0, 3), 0.5, 0.5, all_best=False).tolist() == [-1, -1, -1]


def test_assignment_agrees_with_torchvision_where_no_anchor_is_contested():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 80
    anchors = torch.cat([corner, corner + 5 + torch.rand(300, 2, generator=generator) * 40], 1)
    boxes = torch.tensor([[5.0, 5, 30, 30], [60, 60, 100, 90], [50, 5, 80, 40]])
    iou = box_iou(boxes, anchors)
    found = assign(iou, 0.5, 0.4, all_best=True)
    assert torch.equal(found, Matcher(0.5, 0.4, allow_low_quality_matches=True)(iou))
    assert {-2, -1, 0, 1, 2} <= set(found.tolist())


TARGETS = [
    {
        "boxes": torch.tensor([[10.0, 20, 120, 200], [200, 150, 300, 310]]),
        "labels": torch.tensor([1, 2]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]


def test_ssd_loss_equals_plain_loops():
    torch.manual_seed(0)
    model = SSDLite(num_classes=3).eval()
    for layer in (*model.classify, *model.regress):
        torch.nn.init.normal_(layer[-1].weight, std=0.3)
    images = torch.rand(2, 3, 320, 320)
    losses = model.loss(images, TARGETS)
    logits, deltas, anchors = model(images)
    logits, deltas, anchors = torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors)
    classes = boxes = positives = 0
    for b, target in enumerate(TARGETS):
        at = assign(box_iou(target["boxes"], anchors), 0.5, 0.5, False).tolist()
        negative = []
        for i, hit in enumerate(at):
            label = 3 if hit < 0 else int(target["labels"][hit])
            nll = -logits[b, i].detach().log_softmax(0)[label]
            if hit < 0:
                negative.append(float(nll))
                continue
            positives += 1
            classes += float(nll)
            box, anchor = target["boxes"][hit], anchors[i]
            (w, h), (aw, ah) = box[2:] - box[:2], anchor[2:] - anchor[:2]
            (cx, cy), (ax, ay) = (box[:2] + box[2:]) / 2, (anchor[:2] + anchor[2:]) / 2
            goal = [
                (cx - ax) / aw / 0.1,
                (cy - ay) / ah / 0.1,
                (w / aw).log() / 0.2,
                (h / ah).log() / 0.2,
            ]
            for d, g in zip(deltas[b, i].tolist(), goal, strict=True):
                e = abs(d - float(g))
                boxes += e - 0.5 if e > 1 else 0.5 * e * e
        classes += sum(sorted(negative)[::-1][: 3 * sum(h >= 0 for h in at)])
    assert losses["class"].item() == pytest.approx(classes / positives, rel=1e-4)
    assert losses["box"].item() == pytest.approx(boxes / positives, rel=1e-4)


def test_retinanet_loss_equals_its_formula():
    torch.manual_seed(0)
    model = RetinaNet(num_classes=3).eval()
    images = torch.rand(2, 3, 320, 320)
    losses = model.loss(images, TARGETS)
    logits, deltas, anchors = model(images)
    logits, deltas, anchors = torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors)
    total = boxes = positives = 0
    for b, target in enumerate(TARGETS):
        at = assign(box_iou(target["boxes"], anchors), 0.5, 0.4, True)
        wanted = torch.zeros(len(at), 3)
        hit = at >= 0
        wanted[hit, target["labels"][at[hit]]] = 1
        positives += int(hit.sum())
        p = logits[b].sigmoid().double()
        focal = torch.where(
            wanted == 1, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
        )
        total += focal[at > -2].sum().item()
        if hit.any():
            (x1, y1, x2, y2), (a1, b1, a2, b2) = target["boxes"][at[hit]].T, anchors[hit].T
            aw, ah = a2 - a1, b2 - b1
            shift = [((x1 + x2) - (a1 + a2)) / 2 / aw, ((y1 + y2) - (b1 + b2)) / 2 / ah]
            goal = torch.stack([*shift, ((x2 - x1) / aw).log(), ((y2 - y1) / ah).log()], 1)
            boxes += (deltas[b][hit] - goal).abs().sum().item()
    assert losses["class"].item() == pytest.approx(total / positives, rel=1e-4)
    assert losses["box"].item() == pytest.approx(boxes / positives, rel=1e-4)


@pytest.mark.parametrize("make", [SSDLite, RetinaNet])
def test_a_batch_without_objects_has_a_finite_loss(make):
    losses = make(num_classes=3).loss(torch.rand(2, 3, 96, 96), [TARGETS[1]] * 2)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()


@torch.no_grad()
def test_detections_decode_what_was_encoded():
    model = SSDLite(num_classes=3).eval()
    images = torch.rand(1, 3, 320, 320)
    _logits, _deltas, anchors = model(images)
    target = TARGETS[0]
    flat = torch.cat(anchors)
    at, goal = model.matched(flat, [target], 0.5, 0.5, False)
    scores = torch.full((1, len(flat), 4), -9.0)
    scores[..., 3] = 9
    for i in torch.where(at[0] >= 0)[0]:
        scores[0, i] = -9
        scores[0, i, target["labels"][at[0, i]]] = 9
    sizes = [len(a) for a in anchors]
    model.head = lambda maps: (list(scores.split(sizes, 1)), list(goal.split(sizes, 1)))
    (found,) = model.detect(images, [(320, 320)])
    assert sorted(found["labels"].tolist()) == [1, 2]
    order = found["labels"].argsort()
    torch.testing.assert_close(found["boxes"][order], target["boxes"], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_segmentors_learn_to_overfit_one_image(head):
    torch.manual_seed(0)
    model = Segmentor("emo_1m", head, num_classes=3)
    images, labels = torch.randn(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, 32:], labels[:, :8] = 1, 255
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    values = []
    for _ in range(8):
        loss = sum(model.loss(images, labels).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]
    with torch.no_grad():
        assert model.eval()(images).shape == (2, 3, 64, 64)


def test_ignored_pixels_do_not_count():
    model = Segmentor("emo_1m", "segformer", num_classes=3).eval()
    images, labels = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    whole = model.loss(images, labels)["class"]
    labels[:] = 255
    assert model.loss(images, labels)["class"] == 0
    assert whole > 0


def test_the_pyramid_freezes_and_loads(create, tmp_path):
    classifier = create("emo_1m", num_classes=5)
    torch.save({"net": classifier.state_dict()}, tmp_path / "w.pth")
    pyramid = Pyramid("emo_1m", (2, 4), tmp_path / "w.pth", freeze_stem=True, norm_eval=True)
    body = pyramid.body.model
    assert torch.equal(body.stage4[1].qk.conv.weight, classifier.stage4[1].qk.conv.weight)
    assert not any(p.requires_grad for p in body.stage0.parameters())
    assert not any(p.requires_grad for p in body.stage1.parameters())
    assert all(p.requires_grad for p in body.stage2.parameters())
    pyramid.train()
    assert not any(m.training for m in pyramid.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert pyramid.body.model.stage4.training
    assert (pyramid.channels, pyramid.strides) == ([48, 168], [8, 32])


def test_changing_the_window_changes_no_parameter(create):
    states = [create("emo_1m", window=w).state_dict() for w in (7, 10, 16)]
    assert all(
        {k: v.shape for k, v in s.items()} == {k: v.shape for k, v in states[0].items()}
        for s in states
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pyramid("emo_3m"), "emo_3m"),
        (lambda: Pyramid("emo_1m", (4, 3)), "stages"),
        (lambda: Segmentor("emo_1m", "fcn"), "fcn"),
    ],
)
def test_wrong_arguments(make, words):
    with pytest.raises(InputError, match=words):
        make()


@torch.no_grad()
def test_ssd_strides_and_sizes_of_every_level():
    model = SSDLite(num_classes=3).eval()
    sides = [20, 10, 5, 3, 2, 1]
    anchors = model.anchors([torch.zeros(1, 1, n, n) for n in sides])
    least, most = (48, 100, 150, 202, 253, 304), (100, 150, 202, 253, 304, 320)
    for level, stride in enumerate((16, 32, 64, 107, 160, 320)):
        boxes = anchors[level].reshape(sides[level], sides[level], 6, 4)
        size = boxes[..., 2:] - boxes[..., :2]
        square = math.sqrt(least[level] * most[level])
        torch.testing.assert_close(size[0, 0, 0], torch.full((2,), float(least[level])))
        torch.testing.assert_close(size[0, 0, 1], torch.full((2,), square))
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        grid = torch.arange(sides[level]) * stride + stride / 2
        torch.testing.assert_close(centres[:, 0, 0, 1], grid, atol=1e-3, rtol=0)
        torch.testing.assert_close(centres[0, :, 5, 0], grid, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "size", "score", "iou", "keep", "candidates"),
    [  # cells · anchors · classes of each level, at most 1000
        (SSDLite, 320, 0.02, 0.45, 200, [1000, 1000, 450, 162, 72, 18]),
        (RetinaNet, 128, 0.05, 0.5, 100, [1000, 1000, 432, 108, 27]),
    ],
)
@torch.no_grad()
def test_post_processing_of_the_card(make, size, score, iou, keep, candidates, monkeypatch):
    model = make(num_classes=3).eval()
    assert (model.score, model.nms, model.keep) == (score, iou, keep)
    seen = []

    def nms(boxes, scores, labels, threshold):
        seen.append((len(boxes), threshold))
        return torch.arange(len(boxes))

    monkeypatch.setattr("tenfold.emo.dense.detection.batched_nms", nms)
    images = torch.rand(1, 3, size, size)
    model.scores = lambda logits: torch.full((*logits.shape[:-1], 3), score + 1e-3)
    (found,) = model.detect(images, [(size, size)])
    assert seen == [(sum(candidates), iou)]
    assert len(found["scores"]) == keep
    model.scores = lambda logits: torch.full((*logits.shape[:-1], 3), score - 1e-3)
    (found,) = model.detect(images, [(size, size)])
    assert len(found["scores"]) == 0


@torch.no_grad()
def test_aspp_rates_pyramid_bins_and_the_auxiliary_weight():
    deeplab, psp = (Segmentor("emo_1m", h, num_classes=3).eval() for h in ("deeplabv3", "pspnet"))
    convs = [branch[0] for branch in deeplab.head.branches]
    assert [(c.kernel_size[0], c.dilation[0]) for c in convs] == [(1, 1), (3, 12), (3, 24), (3, 36)]
    bins = []
    for branch in psp.head.branches:
        branch.register_forward_pre_hook(lambda module, given: bins.append(given[0].shape[-2:]))
    images, labels = torch.randn(2, 3, 256, 256), torch.randint(0, 3, (2, 256, 256))
    psp(images)
    assert [tuple(b) for b in bins] == [(1, 1), (2, 2), (3, 3), (6, 6)]
    for model in (deeplab, psp):
        third = model.backbone(images)[0]  # the stages 3 and 4
        logits = torch.nn.functional.interpolate(
            model.auxiliary(third), (256, 256), mode="bilinear"
        )
        plain = torch.nn.functional.cross_entropy(logits, labels)
        assert model.loss(images, labels)["auxiliary"].item() == pytest.approx(
            0.4 * plain.item(), rel=1e-5
        )


def test_boxes_in_pixels_of_an_image_that_is_not_square():
    found = {
        "boxes": torch.tensor([[10.0, 20, 30, 45]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.5]),
    }
    # An image of 200×100 pixels (height 100) that became 50×50: x four times, y twice.
    target = {
        "image_id": torch.tensor(9),
        "original": torch.tensor([100, 200]),
        "size": torch.tensor([50, 50]),
    }
    (row,) = as_coco(found, target, [18, 44])
    assert row == {"image_id": 9, "category_id": 44, "bbox": [40, 40, 80, 50], "score": 0.5}
