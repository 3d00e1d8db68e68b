"""Pictures with labels in tar shards, as webdataset writes them: streamed, and written."""

from __future__ import annotations

import io
import itertools
import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from tenfold.emo.data.images import ENDINGS, ImageFolder, Transform, open_image, seeded
from tenfold.shared.errors import InputError


class Shards(IterableDataset[tuple[Tensor, int]]):
    """Pictures in tar shards as webdataset writes them, read as a stream.

    A sample is a run of members with one stem: `<key>.jpg` (or png, …) and `<key>.cls`, the
    label's number as text. Nothing but pictures and numbers is decoded. Each process and each
    data worker reads its own shards, so the data may be larger than any disk it is read from.

    Args:
        paths: The tar files, in order, at least as many as processes; http(s) addresses are
            streamed without a local copy.
        transform: From picture to tensor.
        classes: The names of the labels.
        seed: Seeds the order of the shards, the shuffle buffer and `transform` in each epoch;
            None keeps the order (evaluation).
        buffer: Samples in the shuffle buffer.
        rank: This process.
        world: The number of processes.
        batch: If given, the stream never ends: each data worker reads its shards again and again,
            so that every process makes the same number of batches of this size, however many
            samples its shards hold.

    Raises:
        InputError: If there are too few shards, a shard is damaged or holds something else, or
            the shards of a data worker hold less than a batch.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        transform: Transform,
        classes: Sequence[str],
        seed: int | None = None,
        buffer: int = 1000,
        rank: int = 0,
        world: int = 1,
        batch: int | None = None,
    ) -> None:
        missing = [path for path in paths if not is_address(path) and not Path(path).is_file()]
        if not paths or missing:
            raise InputError(f"shards: {missing[0] if missing else 'none given'} cannot be found")
        if len(paths) < world:
            raise InputError(
                f"{len(paths)} shards for {world} processes; expected at least one each"
            )
        self.paths, self.transform, self.classes = list(paths), transform, list(classes)
        self.seed, self.buffer, self.rank, self.world, self.epoch = seed, buffer, rank, world, 0
        self.batch = batch

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        count, this = (worker.num_workers, worker.id) if worker else (1, 0)
        paths = list(self.paths)
        order = random.Random(f"{self.seed} {self.epoch}")
        if self.seed is not None:
            order.shuffle(paths)
        mine = paths[self.rank :: self.world][this::count]
        for lap in itertools.count() if mine else ():
            found = 0
            for sample in self._shuffled(mine, order):
                yield self._decode(lap, *sample)
                found += 1
            if self.batch is None:
                return
            if found < self.batch:
                raise InputError(
                    f"the {len(mine)} shards of process {self.rank + 1} of {self.world}, data "
                    f"worker {this + 1} of {count}, hold {found} samples; expected at least a "
                    f"batch of {self.batch}: take fewer workers or a smaller batch_size"
                )

    def _shuffled(
        self, paths: list[Path | str], order: random.Random
    ) -> Iterator[tuple[str, bytes, int]]:
        """Streams the samples of some shards through the shuffle buffer."""
        held: list[tuple[str, bytes, int]] = []
        for sample in (s for path in paths for s in self._samples(path)):
            held.append(sample)
            if self.seed is None or len(held) >= self.buffer:
                yield held.pop(order.randrange(len(held)) if self.seed is not None else 0)
        if self.seed is not None:
            order.shuffle(held)
        yield from held

    def _samples(self, path: Path | str) -> Iterator[tuple[str, bytes, int]]:
        """Streams a shard: key, encoded picture, label."""
        parts: dict[str, bytes] = {}
        key = ""
        try:
            with open_stream(path) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
                for member in tar:
                    stem, _, ending = member.name.rpartition(".")
                    if not member.isfile():
                        continue
                    if stem != key and parts:
                        yield self._complete(path, key, parts)
                        parts = {}
                    key = stem
                    content = tar.extractfile(member)
                    parts[ending.lower()] = content.read() if content else b""
        except (tarfile.TarError, EOFError, zlib.error, OSError, HTTPError) as error:
            raise InputError(f"shard {path} is damaged or out of reach: {error}") from error
        if parts:
            yield self._complete(path, key, parts)

    def _complete(
        self, path: Path | str, key: str, parts: dict[str, bytes]
    ) -> tuple[str, bytes, int]:
        name = f"{path}:{key}"
        picture = next((parts[e] for e in parts if f".{e}" in ENDINGS), None)
        label = parts.get("cls", b"").strip()
        if picture is None or not label.isdigit() or int(label) >= len(self.classes):
            raise InputError(
                f"{name} has the parts {', '.join(sorted(parts))}; expected a picture and .cls "
                f"with a number below {len(self.classes)}"
            )
        return name, picture, int(label)

    def _decode(self, lap: int, name: str, picture: bytes, label: int) -> tuple[Tensor, int]:
        image = open_image(picture, name)
        if self.seed is None:
            return self.transform(image), label
        with seeded(self.seed, self.epoch, lap, zlib.crc32(name.rpartition("/")[2].encode())):
            return self.transform(image), label


def is_address(path: Path | str) -> bool:
    """Says whether a shard is an http(s) address rather than a file."""
    return str(path).startswith(("http://", "https://"))


@contextmanager
def open_stream(path: Path | str) -> Iterator[Any]:
    """Opens a file, or an http(s) address, for reading from its beginning to its end.

    An address is asked again, up to four times, where the server is busy or does not answer.

    Args:
        path: The file or the address.

    Raises:
        OSError: If it cannot be opened.
    """
    if not is_address(path):
        with Path(path).open("rb") as file:
            yield file
        return
    import requests
    from requests.adapters import HTTPAdapter

    with requests.Session() as session:
        again = Retry(4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
        session.mount("http://", HTTPAdapter(max_retries=again))
        session.mount("https://", HTTPAdapter(max_retries=again))
        with session.get(str(path), stream=True, timeout=60) as answer:
            answer.raise_for_status()
            yield answer.raw


def expand_braces(name: str) -> list[str]:
    """Expands a range in braces, as in a shell: `train-{000000..000146}.tar` gives 147 names.

    Args:
        name: A name with one range, or with none, which stands for itself.
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if found is None:
        return [name]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    return [f"{name[: found.start()]}{n:0{len(first)}d}{name[found.end() :]}" for n in numbers]


def write_shards(
    dataset: ImageFolder, folder: Path, split: str = "train", per_shard: int = 1000
) -> list[Path]:
    """Writes pictures as the tar shards that `train` reads: `<split>-000000.tar`, `classes.txt`.

    The pictures' files are copied as they are. Their order is shuffled (always the same way),
    since a stream of one class after the other would not train well.

    Args:
        dataset: The pictures.
        folder: Where the shards go.
        split: The beginning of the shards' names.
        per_shard: Samples in each.

    Returns:
        The shards.

    Raises:
        InputError: If `per_shard` is not positive, or the folder has other classes.
    """
    if per_shard < 1:
        raise InputError(f"per_shard={per_shard}; expected >= 1")
    folder.mkdir(parents=True, exist_ok=True)
    names, listed = "".join(f"{name}\n" for name in dataset.classes), folder / "classes.txt"
    if listed.is_file() and listed.read_text(encoding="utf-8") != names:
        raise InputError(f"{listed} has other classes; expected an empty folder or the same ones")
    listed.write_text(names, encoding="utf-8")
    order = list(range(len(dataset)))
    random.Random(0).shuffle(order)
    paths = []
    for start in range(0, len(order), per_shard):
        path = folder / f"{split}-{start // per_shard:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for index in order[start : start + per_shard]:
                name, label = dataset.items[index]
                parts = {Path(name).suffix.lower(): dataset.content(index), ".cls": b"%d" % label}
                for ending, content in parts.items():
                    info = tarfile.TarInfo(f"{index:08d}{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        paths.append(path)
    return paths
