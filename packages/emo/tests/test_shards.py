import functools
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from tenfold.emo.data.images import ImageFolder
from tenfold.emo.data.shards import Shards, expand_braces, write_shards
from tenfold.emo.settings import TrainConfig
from tenfold.emo.tasks import Classification, task, train_loader
from tenfold.shared.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Two classes, four pictures each."""
    for k in range(4):
        for label in ("cat", "ant"):
            pixels = np.random.default_rng(k).integers(0, 256, (30, 40, 3), np.uint8)
            path = tmp_path / "images" / "train" / label / f"{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def test_shards_are_read_whole_in_every_division(folder, tmp_path):
    source = ImageFolder(folder, "train", pil_to_tensor)
    paths = write_shards(source, tmp_path / "shards", per_shard=2)
    assert [path.name for path in paths] == [f"train-00000{k}.tar" for k in range(4)]
    assert (tmp_path / "shards" / "classes.txt").read_text() == "ant\ncat\n"

    def labels(**options):
        return [y for _, y in Shards(paths, pil_to_tensor, source.classes, **options)]

    assert sorted(labels()) == [0] * 4 + [1] * 4
    assert labels() != sorted(labels())  # they are shuffled where they are written
    assert sorted(labels(seed=1, buffer=3)) == sorted(labels())
    assert labels(seed=1, buffer=3) == labels(seed=1, buffer=3)
    assert len({tuple(labels(seed=s, buffer=3)) for s in range(8)}) > 3
    halves = [labels(rank=r, world=2) for r in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(labels())
    loader = DataLoader(Shards(paths, pil_to_tensor, source.classes), 1, num_workers=2)
    assert sorted(int(y) for _, y in loader) == sorted(labels())


def test_shards_refuse_what_is_not_a_sample(folder, tmp_path):
    def shard(name, members):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return [tmp_path / name]

    jpeg = (folder / "train" / "ant" / "0.jpg").read_bytes()

    def read(paths):
        return list(Shards(paths, pil_to_tensor, ["a", "b"]))

    assert len(read(shard("good.tar", [("x.jpg", jpeg), ("x.cls", b"1")]))) == 1
    for name, members in {
        "label.tar": [("x.jpg", jpeg), ("x.cls", b"2")],
        "text.tar": [("x.jpg", jpeg), ("x.cls", b"cat")],
        "lone.tar": [("x.jpg", jpeg)],
        "pickle.tar": [("x.pyd", b"\x80\x04."), ("x.cls", b"0")],
    }.items():
        with pytest.raises(InputError, match="expected a picture and"):
            read(shard(name, members))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "good.tar").read_bytes()[:700])
    with pytest.raises(InputError, match="damaged"):
        read([tmp_path / "cut.tar"])
    with pytest.raises(InputError, match="cannot be found"):
        Shards([], pil_to_tensor, ["a"])


def test_the_files_of_the_pictures_are_copied_as_they_are(folder, tmp_path):
    source = ImageFolder(folder, "train", pil_to_tensor)
    (path,) = write_shards(source, tmp_path / "shards")
    with tarfile.open(path) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
    for index, (name, label) in enumerate(source.items):
        assert found[f"{index:08d}.jpg"] == (folder / name).read_bytes()
        assert found[f"{index:08d}.cls"] == str(label).encode()
    with pytest.raises(InputError, match="other classes"):
        write_shards(ImageFolder(folder, "train", None, classes=["ant", "bee", "cat"]), path.parent)
    with pytest.raises(InputError, match="per_shard=0"):
        write_shards(source, tmp_path / "more", per_shard=0)


def test_a_training_stream_goes_on_until_the_epoch_is_full(folder, tmp_path):
    source = ImageFolder(folder, "train", pil_to_tensor)
    paths = write_shards(source, tmp_path / "shards", per_shard=3)  # 3 + 3 + 2
    seen = []
    for rank in (0, 1):
        stream = Shards(paths, pil_to_tensor, source.classes, 1, rank=rank, world=2, batch=2)
        loader = DataLoader(stream, 2, num_workers=rank)
        seen.append([len(y) for _, (_, y) in zip(range(9), loader, strict=False)])
    assert seen == [[2] * 9] * 2
    short = Shards(paths, pil_to_tensor, source.classes, 1, batch=9)
    with pytest.raises(InputError, match="hold 8 samples; expected at least a batch of 9"):
        list(short)


def test_each_round_of_a_stream_has_other_random_numbers(folder, tmp_path):
    source = ImageFolder(folder, "train", pil_to_tensor)
    paths = write_shards(source, tmp_path / "shards")
    stream = Shards(paths, lambda image: torch.rand(()), source.classes, 1, batch=8)
    values = [float(x) for _, (x, _) in zip(range(16), stream, strict=False)]
    assert len(set(values)) == 16


def test_digits_that_are_repeated_make_a_longer_epoch():
    job = task(TrainConfig(
        in_chans=1, image_size=32, epochs=1, batch_size=8, repeat=3, window=(4, 4, 2, 1),
        warmup_epochs=0, ema=0.0, device="cpu",
    ))  # fmt: skip
    loader = train_loader(job, 0, 1)
    assert sum(len(labels) for _, labels in loader) == 8 * len(loader) == 1437 * 3 // 8 * 8


def test_braces():
    assert expand_braces("a/train-{000008..000011}.tar") == [
        "a/train-000008.tar", "a/train-000009.tar", "a/train-000010.tar", "a/train-000011.tar"
    ]  # fmt: skip
    assert expand_braces("a.tar") == ["a.tar"]


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, and is busy at the first request of each shard."""

    seen: list[str]

    def do_GET(self):
        self.seen.append(self.path)
        if self.path.endswith(".tar") and self.seen.count(self.path) == 1:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path):
    """Serves `tmp_path` on this machine; gives the address and the paths asked for."""
    Server.seen = []
    handler = functools.partial(Server, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Server.seen
        server.shutdown()


def test_shards_are_streamed_from_an_address(folder, tmp_path, address):
    source = ImageFolder(folder, "train", pil_to_tensor)
    local = write_shards(source, tmp_path / "shards", per_shard=3)
    root, seen = address
    config = TrainConfig(
        data=f"{root}/shards", train_split="train-{000000..000002}.tar",
        val_split="train-000001.tar", image_size=32, batch_size=2, device="cpu",
    )  # fmt: skip
    job = Classification(config)
    assert job.names == ["ant", "cat"]
    data = job.train_data(0, 1)
    found = [y for _, (_, y) in zip(range(8), data, strict=False)]
    assert sorted(found) == [0] * 4 + [1] * 4
    labels = [y for _, y in Shards(local[1:2], pil_to_tensor, job.names)]
    assert [y for _, y in job.val] == labels
    assert seen.count("/shards/train-000000.tar") == 2  # busy once
    with pytest.raises(InputError, match=r"classes\.txt cannot be read"):
        Classification(TrainConfig(data=f"{root}/nowhere"))
    with pytest.raises(InputError, match="cannot be listed"):
        Classification(TrainConfig(data=f"{root}/shards"))
    with pytest.raises(InputError, match=r"train-000007\.tar is damaged or out of reach: 404"):
        list(Shards([f"{root}/shards/train-000007.tar"], pil_to_tensor, job.names))
