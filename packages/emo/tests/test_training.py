import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from timm.scheduler import CosineLRScheduler
from torch import nn

from tenfold.emo.data.coco import CocoDetection
from tenfold.emo.data.images import digits
from tenfold.emo.settings import TrainConfig, learning_rate
from tenfold.emo.tasks import model_options, steps_per_epoch, task, train_loader
from tenfold.emo.training import parameter_groups, repair_statistics, train
from tenfold.shared import compute
from tenfold.shared.config import load_recipe, recipes
from tenfold.shared.errors import InputError
from tenfold.shared.runs import Run

TINY = {
    "image_size": 32, "in_chans": 1, "epochs": 2, "batch_size": 64, "window": (4, 4, 2, 1),
    "learning_rate": 2e-3, "warmup_epochs": 1, "ema": 0.9, "device": "cpu", "max_steps": 3,
}  # fmt: skip


def tiny(**options):
    """A short training on the digits, evaluated on 36 of them."""
    job = task(TrainConfig(**TINY | options))
    job.val = torch.utils.data.Subset(job.val, range(0, 360, 10))
    return job


def imagenet(name="emo-1m-imagenet"):
    return load_recipe(TrainConfig, "emo", name)


def steps(config, samples):
    """Counts an epoch's steps of the first of a recipe's processes, by the package's sampler."""

    class Data(CocoDetection):  # whose length has the repetitions in it, as ImageNet's has not
        def __init__(self):
            self.items, self.repeat = range(samples), 1

    data, small = Data(), replace(config, workers=0)
    job = SimpleNamespace(config=small, train_data=lambda rank, world: data, collate=None)
    return steps_per_epoch(job, train_loader(job, 0, config.devices), config.devices)


@pytest.mark.parametrize("name", sorted(recipes("emo")))
def test_recipes_are_configurations(name):
    config = load_recipe(TrainConfig, "emo", name)
    assert config.task == "classification" or config.ema == 0


def test_the_published_schedule():
    config, total = imagenet("emo-5m-imagenet"), 187_500
    assert config.batch_size * config.devices == 2048
    assert steps(config, 1_281_167) == 625
    assert steps(config, 1_281_167) * config.epochs == total
    rate = lambda t: learning_rate(config, t, 625, total)  # noqa: E731
    assert rate(0) == 1e-6
    assert rate(6_250) == pytest.approx(1e-6 + (6e-3 - 1e-6) / 2)
    # The cosine counts from the first step: at the end of the warm-up it has begun already.
    expected = 1e-6 + 0.5 * (6e-3 - 1e-6) * (1 + math.cos(math.pi * 12_500 / total))
    assert rate(12_500) == pytest.approx(expected)
    assert rate(12_500) < 6e-3 * 0.99
    assert rate(93_750) == pytest.approx((6e-3 + 1e-6) / 2)
    assert rate(total) == pytest.approx(1e-6)


@pytest.mark.parametrize("name", ["emo-1m-imagenet", "emo-5m-imagenet"])
def test_the_schedule_is_timms_noise_included(name):
    config, total = imagenet(name), 3000
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 6e-3)
    noise = [n * total for n in config.rate_noise] or None
    scheduler = CosineLRScheduler(
        optimiser, total, lr_min=1e-6, warmup_t=200, warmup_lr_init=1e-6, t_in_epochs=False,
        noise_range_t=noise, noise_pct=0.67, noise_std=1.0, noise_seed=42,
    )  # fmt: skip
    for step in range(0, total, 7):
        scheduler.step_update(step)
        assert learning_rate(config, step, 10, total) == pytest.approx(
            optimiser.param_groups[0]["lr"]
        )


def test_the_schedules_of_dense_tasks():
    ssd = imagenet("emo-1m-ssdlite")
    per_epoch = steps(ssd, 117_266 * 5)
    # The card counts 3 055 and 366 600: more than 5 · 117 266 images are whole batches of 192.
    assert (per_epoch, 120 * per_epoch) == (3_053, 366_360)
    rate = lambda t: learning_rate(ssd, t, per_epoch, 120 * per_epoch)  # noqa: E731
    assert rate(0) == pytest.approx(1.2e-6)
    assert rate(500) == pytest.approx(1.2e-3)
    assert rate(per_epoch * 60) == rate(per_epoch * 61 - 1) == pytest.approx(0.6e-3)
    deeplab = imagenet("emo-1m-deeplabv3")
    assert learning_rate(deeplab, 0, 631, 80_000) == 1.2e-4
    half = learning_rate(deeplab, 40_000, 631, 80_000)
    assert half == pytest.approx(1.2e-4 * 0.5**0.9)
    fpn = imagenet("emo-1m-semantic-fpn")
    constant = {learning_rate(fpn, t, 631, 160_000) for t in (1_500, 40_000, 80_000)}
    assert constant == {1.2e-4}
    assert learning_rate(fpn, 120_000, 631, 160_000) == pytest.approx(0.6e-4)


def test_weight_decay_leaves_out_what_the_paper_does(create):
    model = create("emo_1m")
    groups = {g["weight_decay"]: g["params"] for g in parameter_groups(model, imagenet())}
    assert sum(p.numel() for p in groups[0.0]) == 18_048
    assert sum(p.numel() for p in groups[0.05]) == 1_343_120
    from tenfold.emo.dense import Segmentor

    segmentor = Segmentor("emo_1m", "semantic-fpn", 3)
    made = parameter_groups(segmentor, imagenet("emo-1m-semantic-fpn"))
    assert {(g["weight_decay"], g["scale"]) for g in made} == {
        (0.05, 1.0), (0.05, 10.0), (0.0, 1.0),
    }  # fmt: skip
    assert sum(len(g["params"]) for g in made) == len(list(segmentor.parameters()))
    names = {id(p): name for name, p in segmentor.named_parameters()}
    free = {names[id(p)] for g in made if g["weight_decay"] == 0 for p in g["params"]}
    assert free == {name for name in names.values() if "norm" in name}
    stage, stem = "backbone.body.model.stage", "backbone.body.model.stage0.0.convs.0.1.weight"
    assert {f"{stage}1.0.norm.weight", f"{stage}3.1.norm.norm.bias"} <= free
    assert stem in names.values()
    assert stem not in free
    head = parameter_groups(model, replace(imagenet(), head_rate=3.0))
    scaled = {id(p) for g in head if g["scale"] == 3 for p in g["params"]}
    assert scaled == {id(p) for p in model.head.parameters()}


def test_statistics_are_repaired():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.copy_(torch.tensor([1.0, math.nan, math.inf, -math.inf]))
    assert repair_statistics(nn.Sequential(norm)) == 3
    assert norm.running_mean.tolist() == [1, 0, 1, -1]
    assert repair_statistics(norm) == 0


def test_the_loss_is_label_smoothing_as_published(create):
    job = task(TrainConfig(**TINY))
    model = job.model().eval()
    images, labels = job.collate([job.val[i] for i in range(4)])
    found = job.loss(model, (images, labels))["class"]
    log = model(images).log_softmax(1)
    expected = -(0.9 * log[range(4), labels] + 0.1 * log.mean(1)).mean()
    torch.testing.assert_close(found, expected)


def test_training_is_deterministic_and_ema_follows_all_floating_state():
    runs = [train(tiny(), compute.fabric("cpu")) for _ in range(2)]
    (a, ema, result), (b, _, again) = runs
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    assert result["last"] == again["last"]
    name = "stage1.0.conv_local.norm.running_mean"
    raw, mean = a.state_dict()[name], ema.state_dict()[name]
    assert not torch.equal(raw, mean)
    assert mean.abs().sum() > 0


def test_the_average_is_the_recurrence():
    states = []
    job = tiny(epochs=3, max_steps=None, evaluate_every=3)
    one_batch = torch.utils.data.Subset(digits(32), range(64))
    job.train_data = lambda rank, world: one_batch  # one step an epoch
    first = {}
    make = job.model

    def model():
        made = make()
        first.update({k: v.clone() for k, v in made.state_dict().items()})
        states.append(made)
        return made

    job.model = model
    seen = []
    _, ema, _ = train(
        job, compute.fabric("cpu"),
        on_epoch=lambda e, m: seen.append(
            {k: v.clone() for k, v in states[0].state_dict().items()}
        ),
    )  # fmt: skip
    expected = first
    for state in seen:
        expected = {
            k: 0.9 * v + 0.1 * state[k] if v.is_floating_point() else state[k]
            for k, v in expected.items()
        }
    for k, v in ema.state_dict().items():
        torch.testing.assert_close(v, expected[k], atol=1e-6, rtol=1e-5)


def test_bfloat16_learns_what_float32_learns():
    options = {"epochs": 1, "max_steps": 1, "batch_size": 32, "ema": 0.0}
    results = [
        train(tiny(precision=p, **options), compute.fabric("cpu", precision=p))[2]
        for p in ("32-true", "bf16-mixed")
    ]
    a, b = (result["last"]["loss"] for result in results)
    assert a != b
    assert b == pytest.approx(a, rel=0.02)


def test_steps_without_a_finite_loss_are_skipped():
    job = tiny()
    plain, calls = job.loss, []

    def loss(model, batch):
        calls.append(1)
        parts = plain(model, batch)
        return {k: v * math.nan for k, v in parts.items()} if len(calls) == 2 else parts

    job.loss = loss
    model, _, result = train(job, compute.fabric("cpu"))
    assert result["skipped"] == 1
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.data
@pytest.mark.parametrize(("head", "size", "batch"), [("ssdlite", 320, 2), ("retinanet", 128, 2)])
def test_detectors_train_on_the_coco_slice(real, head, size, batch):
    config = TrainConfig(
        task="detection", head=head, data=str(real("coco-tiny")), train_split="train2017",
        val_split="val2017", image_size=size, batch_size=batch, limit=4, epochs=1, max_steps=2,
        warmup_epochs=0, learning_rate=1e-3, ema=0.0, no_decay="norm", device="cpu",
    )  # fmt: skip
    model, _, result = train(task(config), compute.fabric("cpu"))
    assert 0 < result["last"]["loss"] < 100
    assert 0 <= result["last"]["AP"] <= 100
    assert not any(
        m.training for m in model.train().backbone.modules() if isinstance(m, nn.BatchNorm2d)
    )


@pytest.mark.data
@pytest.mark.slow
def test_ssdlite_overfits_eight_images(real):
    from tenfold.emo.data.coco import ssd_transform

    config = TrainConfig(
        task="detection", head="ssdlite", data=str(real("coco-tiny")), train_split="train2017",
        val_split="train2017", image_size=320, batch_size=8, limit=8, epochs=220,
        learning_rate=4e-3, warmup_epochs=0, warmup_steps=10, ema=0.0, clip=10.0, drop_path=0.0,
        weight_decay=0.0, no_decay="norm", evaluate_every=220, device="cpu",
    )  # fmt: skip
    job = task(config)
    job.train.transform = ssd_transform(320, training=False)
    make = job.model

    def model():  # from random weights the statistics of BatchNorm must be learned too
        made = make()
        made.backbone.norm_eval = False
        return made

    job.model = model
    result = train(job, compute.fabric("cpu"))[2]
    assert result["last"]["AP50"] > 50


@pytest.mark.data
@pytest.mark.parametrize("head", ["deeplabv3", "semantic-fpn"])
def test_segmentors_train_on_the_ade_sample(real, head):
    config = TrainConfig(
        task="segmentation", head=head, data=str(real("ade20k-sample")), image_size=96,
        train_split="validation", val_split="validation", batch_size=3, epochs=2, warmup_epochs=0,
        learning_rate=1e-3, schedule="poly", ema=0.0, no_decay="norm", device="cpu",
    )  # fmt: skip
    result = train(task(config), compute.fabric("cpu"))[2]
    assert result["last"]["loss"] > 0
    assert 0 < result["last"]["mIoU"] <= 100


@pytest.mark.data
def test_a_few_steps_on_cifar(real):
    config = load_recipe(TrainConfig, "emo", "cifar10")
    data = os.path.join(real("cifar10-jpeg"), "cifar10-jpeg.zip")
    job = task(replace(config, data=data, batch_size=8, max_steps=2, workers=0, device="cpu"))
    job.val.items = job.val.items[::500]
    result = train(job, compute.fabric("cpu"))[2]
    assert len(job.names) == 10
    assert result["last"]["loss"] < 5


@pytest.mark.gpu
def test_bf16_on_a_gpu():
    config = TrainConfig(**TINY | {"device": "cuda", "precision": "bf16-mixed"})
    result = train(task(config), compute.fabric("cuda", precision="bf16-mixed"))[2]
    assert math.isfinite(result["last"]["loss"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"window": (7, 7)}, "window"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"head": "ssdlite"}, "head='ssdlite'"),
        ({"precision": "fp8"}, "fp8"),
        ({"task": "detect"}, "detection"),
        ({"schedule": "cosin"}, "cosine"),
        ({"no_decay": "bias"}, "no_decay"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"limit": -1, "task": "detection", "head": "ssdlite"}, "limit=-1"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"devices": 0}, "devices=0"),
        ({"crop_scale": 1.5}, "crop_scale=1.5"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"clip": -1.0}, "clip"),
        ({"rate_noise": (0.1,)}, "rate_noise"),
        ({"limit": 3}, "limit=3 with task='classification'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed="),
        ({"drop_path": 2.0}, "drop_path=2.0"),
    ],
)
def test_impossible_runs_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "emo_3m"}, "emo_3m"),
        ({"data": "nowhere"}, "nowhere"),
        ({"weights": Path("/nowhere")}, "weights /nowhere"),
        ({"randaugment": "foo"}, "randaugment='foo'"),
        ({"randaugment": "rand-foo"}, "randaugment='rand-foo'"),
        ({"data": "nowhere", "task": "detection", "head": "ssdlite"}, "is missing"),
        ({"data": "nowhere", "task": "segmentation", "head": "pspnet"}, "holds no"),
    ],
)
def test_missing_data_is_named_before_anything_starts(options, words):
    with pytest.raises(InputError, match=words):
        task(TrainConfig(**options))


def test_too_few_images_are_refused():
    job = task(TrainConfig(**TINY | {"batch_size": 2000}))
    with pytest.raises(InputError, match="1437 training images"):
        train(job, compute.fabric("cpu"))


PAPER = [name for name in recipes("emo") if name.endswith("-imagenet")]


@pytest.mark.parametrize("name", PAPER)
def test_the_published_recipe(name):
    config, second = imagenet(name), name.startswith("emo2")
    assert (config.clip, config.ema, config.smoothing) == (5.0, 0.9998, 0.1)
    assert config.randaugment == "rand-m9-mstd0.5-inc1"
    assert (config.crop_scale, config.crop, config.image_size) == (0.08, 0.875, 224)
    assert (config.epochs, config.warmup_epochs, config.schedule) == (300, 20, "cosine")
    assert (config.warmup_rate, config.min_rate) == (1e-6, 1e-6)
    assert (config.weight_decay, config.no_decay) == (0.05, "1-d")
    batch = config.batch_size * config.devices
    assert (batch, config.learning_rate) == ((1024, 3e-3) if second else (2048, 6e-3))
    assert (config.evaluate_every, config.evaluate_all_from) == (5, 200)
    noisy = name in ("emo-1m-imagenet", "emo-2m-imagenet")
    assert config.rate_noise == ((0.42, 0.9) if noisy else ())
    assert config.seed == (0 if name == "emo-5m-imagenet" else 42)


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        ("emo_1m", 0.04036), ("emo_2m", 0.05), ("emo_5m", 0.05), ("emo_6m", 0.05),
        ("emo2_1m", 0.04036), ("emo2_2m", 0.05), ("emo2_5m", 0.05), ("emo2_20m", 0.1),
        ("emo2_50m", 0.2),
    ],
)  # fmt: skip
def test_the_published_rates_of_stochastic_depth(model, rate):
    assert model_options(TrainConfig(model=model))["drop_path_rate"] == rate
    assert model_options(TrainConfig(model=model, drop_path=0.3))["drop_path_rate"] == 0.3


def test_stochastic_depth_grows_over_the_blocks():
    model = task(TrainConfig(**TINY)).model()
    blocks = [block for stage in model.stages() for block in stage]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.04036 * t / 14 for t in range(15)])


def test_the_optimiser_and_the_clipping_are_the_published_ones(monkeypatch):
    from timm.utils import ModelEmaV3

    seen = {}

    class Spy(torch.optim.AdamW):
        def __init__(self, groups, **options):
            seen.update(options)
            super().__init__(groups, **options)

    monkeypatch.setattr("tenfold.emo.training.torch.optim.AdamW", Spy)
    update, fabric = ModelEmaV3.update, compute.fabric("cpu")
    monkeypatch.setattr(
        ModelEmaV3, "update",
        lambda self, model: (seen.update(decay=self.decay), update(self, model)),
    )  # fmt: skip
    clip = fabric.clip_gradients
    monkeypatch.setattr(
        fabric, "clip_gradients", lambda *a, **k: (seen.update(clip=k["max_norm"]), clip(*a, **k))
    )
    train(tiny(ema=0.9998, max_steps=1), fabric)
    assert (seen["betas"], seen["eps"]) == ((0.9, 0.999), 1e-8)
    assert (seen["decay"], seen["clip"]) == (0.9998, 5.0)


def test_the_scale_of_float16_goes_through_the_checkpoint(tmp_path):
    # Float16 needs a GPU; its precision plugin is asked for its state in the same way on a CPU.
    scales = []

    class Killed(Exception):
        pass

    def fabric(scale):
        made = compute.fabric("cpu")
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        made.strategy.precision.state_dict = plugin.state_dict
        made.strategy.precision.load_state_dict = plugin.load_state_dict
        scales.append(plugin.scaler.get_scale)
        return made

    def kill(epoch, metrics):
        raise Killed

    run = Run.create("emo", None, TrainConfig(**TINY), tmp_path)
    job = tiny(epochs=2, max_steps=None)
    job.train_data = lambda rank, world: torch.utils.data.Subset(digits(32), range(64))
    with pytest.raises(Killed):
        train(job, fabric(4096.0), run, kill)
    train(job, fabric(2.0), run)
    assert [scale() for scale in scales] == [4096.0, 4096.0]
