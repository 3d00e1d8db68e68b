import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from tenfold.emo.data.ade20k import ADE20K, SegmentationMetric, read_labels
from tenfold.emo.data.coco import (
    CocoDetection,
    coco_metric,
    collate_detection,
    retinanet_transform,
    ssd_transform,
)
from tenfold.emo.data.images import (
    EpochSampler,
    ImageFolder,
    ShiftBrightness,
    digits,
    eval_transform,
    find_images,
    open_image,
    train_transform,
)
from tenfold.shared.errors import InputError


def picture(path, mode="RGB", size=(40, 30), seed=0):
    shape = {"RGB": (3,), "CMYK": (4,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *shape), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes, four pictures each, of three colour modes."""
    for k in range(4):
        for label in ("cat", "ant"):
            mode = ("RGB", "L", "CMYK", "RGB")[k]
            picture(tmp_path / "images" / "train" / label / f"{k}.jpg", mode, seed=k)
    return tmp_path / "images"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_colour_mode_is_read_as_rgb(tmp_path, mode):
    path = picture(tmp_path / "a.jpg", mode)
    assert open_image(path).mode == "RGB"
    assert eval_transform(32)(open_image(path)).shape == (3, 32, 32)


def test_palette_and_transparency_are_read_as_rgb(tmp_path):
    Image.new("P", (8, 8)).save(tmp_path / "p.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    assert {open_image(tmp_path / n).mode for n in ("p.png", "a.png")} == {"RGB"}


def test_damaged_files_are_named(tmp_path):
    path = picture(tmp_path / "a.jpg", size=(200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.jpg is damaged"):
        open_image(path)
    with pytest.raises(InputError, match=r"b\.jpg is damaged or no picture"):
        open_image(tmp_path / "b.jpg")
    with pytest.raises(InputError, match="no such file"):
        open_image(tmp_path / "c.jpg")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_reader(content):
    with pytest.raises(InputError, match="noise"):
        open_image(content, "noise")


def test_folders_and_archives_give_the_same(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder).as_posix())
    data = [ImageFolder(root, "train", pil_to_tensor) for root in (folder, tmp_path / "images.zip")]
    assert data[0].classes == data[1].classes == ["ant", "cat"]
    assert [label for _, label in data[0].items] == [0] * 4 + [1] * 4
    for a, b in zip(*data, strict=True):
        assert torch.equal(a[0], b[0])
        assert a[1] == b[1]


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder(folder, "val", pil_to_tensor)
    (folder / "val" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no pictures"):
        ImageFolder(folder, "val", pil_to_tensor)
    with pytest.raises(InputError, match=r"class 'cat' \(2 classes\)"):
        ImageFolder(folder, "train", pil_to_tensor, classes=["ant"])
    (tmp_path / "x.zip").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a zip"):
        ImageFolder(tmp_path / "x.zip", "train", pil_to_tensor)
    with pytest.raises(InputError, match="holds no picture"):
        find_images([folder / "val"])
    with pytest.raises(InputError, match="no such file"):
        find_images([folder / "nowhere"])


def test_augmentation_depends_on_seed_epoch_and_index_alone(folder):
    data = ImageFolder(folder, "train", train_transform(24), seed=7)
    plain = [data[i][0] for i in range(8)]
    torch.manual_seed(5)
    workers = DataLoader(data, batch_size=1, num_workers=2)
    for (x, _), y in zip(workers, plain, strict=True):
        assert torch.equal(x[0], y)
    before = torch.get_rng_state()
    data[0]
    assert torch.equal(torch.get_rng_state(), before)
    data.epoch = 1
    assert not torch.equal(data[0][0], plain[0])


def test_the_test_transform_is_resize_and_centre_crop(tmp_path):
    image = open_image(picture(tmp_path / "a.png", size=(300, 260)))
    x = eval_transform(224)(image)
    scale = 256 / 260
    resized = image.resize((round(300 * scale) - 0, 256), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), (256 - 224) // 2
    crop = pil_to_tensor(resized.crop((left, top, left + 224, top + 224))) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (crop - mean[:, None, None]) / std[:, None, None]
    assert (x - expected).abs().mean() < 0.02


def test_brightness_is_shifted_by_up_to_32_of_255():
    torch.manual_seed(0)
    image = Image.new("RGB", (4, 4), (0, 100, 250))
    seen = set()
    for _ in range(400):
        shifted, label = ShiftBrightness(32)(image, "label")
        red, green, blue = shifted.getpixel((1, 1))
        shift = green - 100
        assert (red, blue) == (max(shift, 0), min(250 + shift, 255))
        assert label == "label"
        seen.add(shift)
    assert (min(seen), max(seen)) == (-32, 32)
    assert len(seen) > 50


@given(
    st.integers(1, 60), st.integers(1, 5), st.booleans(), st.one_of(st.none(), st.integers(0, 9))
)
def test_an_epoch_is_shared_among_processes(length, world, drop, seed):
    parts = [list(EpochSampler(length, seed, rank, world, drop)) for rank in range(world)]
    assert len({len(p) for p in parts}) == 1
    flat = [index for part in parts for index in part]
    if drop:
        assert len(set(flat)) == len(flat) == length // world * world
    else:
        assert set(flat) == set(range(length))


def test_digits():
    train, test = digits(16), digits(16, test=True)
    assert (len(train), len(test)) == (1437, 360)
    assert train[0][0].shape == (1, 16, 16)
    assert set(test.labels.tolist()) == set(range(10))


def coco_file(path, **changes):
    content = {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 6, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 90, "name": "last"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": 5, "category_id": 90, "bbox": [-5, 2, 15, 10], "iscrowd": 0},
            {"image_id": 5, "category_id": 3, "bbox": [1, 1, 5, 0], "iscrowd": 0},
            {"image_id": 5, "category_id": 3, "bbox": [50, 1, 5, 5], "iscrowd": 0},
            {"image_id": 5, "category_id": 3, "bbox": [1, 1, 9, 9], "iscrowd": 1},
        ],
    } | changes
    path.write_text(json.dumps(content))
    return path


def test_coco_boxes_are_cleaned_and_categories_mapped(tmp_path):
    picture(tmp_path / "a.jpg"), picture(tmp_path / "b.jpg")
    file = coco_file(tmp_path / "x.json")
    train = CocoDetection(tmp_path, file, ssd_transform(320, False), training=True)
    assert (len(train), train.names, train.category_ids) == (1, ["car", "last"], [3, 90])
    x, target = train[0]
    assert x.shape == (3, 320, 320)
    assert target["labels"].tolist() == [1]
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.0, 2 * 320 / 30, 80, 128]]))
    val = CocoDetection(tmp_path, file, ssd_transform(320, False), training=False)
    assert val[1][1]["boxes"].shape == (0, 4)


def test_coco_files_that_do_not_fit_are_refused(tmp_path):
    def read(file):
        return CocoDetection(tmp_path, file, ssd_transform(320, False), training=True)

    with pytest.raises(InputError, match=r"none\.json is missing"):
        read(tmp_path / "none.json")
    for bad, words in (
        ({"images": []}, "image_id 5, which is not listed"),
        ({"images": [{"id": 5, "width": 4, "height": 3}]}, "file_name"),
        ({"categories": [{"name": "x"}]}, "id"),
        ({"annotations": []}, "no image with a box"),
        (
            {"annotations": [{"image_id": 5, "category_id": 4, "bbox": [1, 1, 5, 5]}]},
            "category_id 4, which is not listed",
        ),
        ({"annotations": [{"image_id": 5, "category_id": 3, "bbox": [1, 1]}]}, "ValueError"),
        ({"annotations": 3}, "TypeError"),
    ):
        with pytest.raises(InputError, match=rf"x\.json.*{words}"):
            read(coco_file(tmp_path / "x.json", **bad))
    picture(tmp_path / "a.jpg", size=(41, 30))
    with pytest.raises(InputError, match=r"41×30 pixels, but x\.json says 40×30"):
        read(coco_file(tmp_path / "x.json"))[0]


@pytest.mark.data
def test_the_coco_slice(real):
    root = real("coco-tiny")
    file = root / "annotations" / "instances_train2017.json"
    data = CocoDetection(root / "train2017", file, ssd_transform(320), True, seed=3)
    assert len(data.names) == 80
    assert (data.names[0], data.names[79]) == ("person", "toothbrush")
    assert (data.category_ids[0], data.category_ids[79]) == (1, 90)
    for index in range(6):
        x, target = data[index]
        boxes = target["boxes"]
        assert x.shape == (3, 320, 320)
        assert (boxes >= 0).all()
        assert (boxes <= 320).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert torch.equal(data[index][0], x)
    keep = CocoDetection(root / "train2017", file, retinanet_transform(200, 333), True, seed=3)
    images, targets = collate_detection([keep[0], keep[1]])
    assert images.shape[2] % 32 == images.shape[3] % 32 == 0
    assert all(t["size"].min() <= 200 for t in targets)
    assert all(t["size"].max() <= 333 for t in targets)


@pytest.mark.data
def test_the_truth_as_prediction_has_ap_100(real):
    root = real("coco-tiny")
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    rows = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for a in content["annotations"]
        if not a["iscrowd"]
    ]
    ids = [i["id"] for i in content["images"]]
    metric = coco_metric(file, rows, ids)
    assert metric["AP"] == pytest.approx(100)
    assert metric["AP50"] == pytest.approx(100)
    assert coco_metric(file, [], ids)["AP"] == 0
    moved = [r | {"bbox": [r["bbox"][0] + 1000, *r["bbox"][1:]]} for r in rows]
    assert coco_metric(file, moved, ids)["AP"] == 0


def test_ade_labels_are_shifted_once(tmp_path):
    array = np.array([[0, 1], [150, 2]], np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png").tolist() == [[255, 0], [149, 1]]
    palette = Image.fromarray(array).convert("P")
    palette.putdata(array.flatten().tolist())
    palette.save(tmp_path / "p.png")
    assert read_labels(tmp_path / "p.png").tolist() == [[255, 0], [149, 1]]


def test_ade_labels_of_another_form_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 151, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(tmp_path / "b.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(b"")
    for name, words in {
        "a.png": "label 151",
        "b.png": "I;16",
        "c.png": "mode RGB",
        "d.png": "damaged",
        "e.png": "missing",
    }.items():
        with pytest.raises(InputError, match=words):
            read_labels(tmp_path / name)
    picture(tmp_path / "images" / "x.jpg", size=(40, 30))
    (tmp_path / "annotations").mkdir()
    Image.new("L", (40, 31)).save(tmp_path / "annotations" / "x.png")
    with pytest.raises(InputError, match="40×30 pixels"):
        ADE20K(tmp_path, "training", training=False)[0]
    with pytest.raises(InputError, match=r"holds no \.jpg"):
        ADE20K(tmp_path / "annotations", "training", training=False)


@pytest.mark.data
def test_the_ade_sample(real):
    root = real("ade20k-sample")
    data = ADE20K(root, "validation", training=False)
    metric, other = SegmentationMetric(), SegmentationMetric()
    for index, (_, where) in enumerate(data.items):
        image, labels = data[index]
        assert min(image.shape[1:]) == 512
        raw = np.asarray(Image.open(where))
        assert torch.equal(labels == 255, torch.from_numpy(raw == 0))
        metric.update(labels.clamp(max=149), labels)
        other.update(labels.roll(60, 1).clamp(max=149), labels)
    assert metric.compute() == {"mIoU": 100, "mAcc": 100, "aAcc": 100}
    assert 1 < other.compute()["mIoU"] < other.compute()["aAcc"] < 100
    train = ADE20K(root, "validation", training=True, size=128, seed=1)
    image, labels = train[0]
    assert (image.shape, labels.shape) == ((3, 128, 128), (128, 128))
    assert torch.equal(train[0][1], labels)
    train.epoch = 1
    assert not torch.equal(train[0][1], labels)


def test_miou_by_hand():
    metric = SegmentationMetric(3)
    metric.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 255]))
    found = metric.compute()
    assert found["mIoU"] == pytest.approx(50)  # 1/2 and 1/2; class 2 occurs nowhere
    assert found["mAcc"] == pytest.approx(75)
    assert found["aAcc"] == pytest.approx(200 / 3)


@pytest.mark.data
def test_cifar_is_read_from_its_archive(real):
    root = real("cifar10-jpeg") / "cifar10-jpeg.zip"
    data = ImageFolder(root, "test", eval_transform(64, 1.0))
    assert (len(data), len(data.classes)) == (10_000, 10)
    assert (data.classes[0], data.classes[9]) == ("airplane", "truck")
    assert data[9_999][0].shape == (3, 64, 64)
