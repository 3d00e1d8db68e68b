import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.emo.data.images import ImageFolder, eval_transform
from tenfold.emo.data.shards import write_shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes found, each for itself."""
    folder = tmp_path_factory.mktemp("two")
    for k in range(36):
        path = folder / "images" / "train" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    pictures = ImageFolder(folder / "images", "train", eval_transform(32))
    assert len(write_shards(pictures, folder / "shards", per_shard=12)) == 3
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A process that waits for the other for ever would end here.
    subprocess.run(
        [sys.executable, script, folder], env=environment, check=True, timeout=200,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("part", ["net", "ema"])
@pytest.mark.parametrize("name", ["whole", "resumed", "shards"])
def test_both_have_the_same_network_average_and_statistics(ranks, name, part):
    a, b = (rank[name] for rank in ranks)
    assert "stage1.0.conv_local.norm.running_mean" in a[part]
    assert_same(a[part], b[part])
    # All but the loss, which each process has of its own images.
    scores = [{**rank["result"]["best"], "loss": 0} for rank in (a, b)]
    assert scores[0] == scores[1]


def test_a_resumed_training_ends_where_the_whole_one_does(ranks):
    for rank in ranks:
        assert_same(rank["whole"]["net"], rank["resumed"]["net"])
        assert_same(rank["whole"]["ema"], rank["resumed"]["ema"])
        assert rank["whole"]["result"]["last"] == rank["resumed"]["result"]["last"]


def test_shards_of_unequal_processes_make_equal_steps(ranks):
    # 36 // (4 · 2) = 4 steps in each of two epochs, though one process has but 12 of the samples.
    assert [rank["shards"]["result"]["steps"] for rank in ranks] == [8, 8]
