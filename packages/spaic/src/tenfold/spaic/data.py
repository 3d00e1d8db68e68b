"""Readers of the field's files, and the data sets that go by name (section 13)."""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.shared.datasets import Dataset, File, data_root, locate
from tenfold.shared.errors import InputError, did_you_mean

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"


def read_idx(path: Path | str) -> np.ndarray:
    """Reads an IDX file of bytes, plain or gzip-compressed.

    Args:
        path: The file; its name may lack or have the ending `.gz`.

    Returns:
        uint8, of the shape in the file's header (images [n, rows, columns], labels [n]).

    Raises:
        InputError: If there is no such file, or it is not an IDX file of bytes.
    """
    path = Path(path)
    other = path.with_name(path.name + ".gz") if path.suffix != ".gz" else path.with_suffix("")
    found = path if path.is_file() else other
    try:
        raw = found.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise InputError(f"{path}: cannot be read as an IDX file ({error})") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] not in (1, 2, 3, 4):
        raise InputError(f"{found}: not an IDX file of bytes (it begins with {content[:4].hex()})")
    ndim = content[3]
    shape = struct.unpack(f">{ndim}I", content[4 : 4 + 4 * ndim])
    body = content[4 + 4 * ndim :]
    if len(body) != int(np.prod(shape)):
        raise InputError(f"{found}: the header says {shape}, but {len(body)} bytes follow")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


@dataclass(frozen=True)
class Events:
    """What an event camera saw: one entry an event, sorted as in the file.

    Attributes:
        x: Column.
        y: Row.
        polarity: 1 for brighter, 0 for darker.
        time: In ms.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    time: np.ndarray

    def frames(self, count: int, shape: tuple[int, int], duration: float) -> np.ndarray:
        """Counts events in equal windows of time.

        Args:
            count: The number of windows.
            shape: (height, width).
            duration: The time that all windows cover, in ms; later events are left out.

        Returns:
            float32 [count, 2, height, width].
        """
        height, width = shape
        made = np.zeros((count, 2, height, width), dtype=np.float32)
        step = np.floor(self.time * count / duration).astype(np.int64)
        seen = (step >= 0) & (step < count) & (self.x < width) & (self.y < height)
        index = (step[seen], self.polarity[seen], self.y[seen], self.x[seen])
        np.add.at(made, index, 1.0)
        return made


def read_nmnist(content: bytes, where: str = "N-MNIST file") -> Events:
    """Reads the 5-byte events of N-MNIST: x, y, then the polarity's bit and 23 bits of µs.

    Args:
        content: The file's bytes.
        where: The file, for messages.

    Raises:
        InputError: If the length is not a multiple of five.
    """
    if len(content) % 5:
        raise InputError(f"{where}: {len(content)} bytes; expected a multiple of 5")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, 5).astype(np.int64)
    time = ((rows[:, 2] & 0x7F) << 16) | (rows[:, 3] << 8) | rows[:, 4]
    return Events(rows[:, 0], rows[:, 1], rows[:, 2] >> 7, time / 1000.0)


def read_aedat31(content: bytes, where: str = "AEDAT file") -> Events:
    """Reads the polarity events of an AEDAT 3.1 file, as DVS128 Gesture has them.

    Args:
        content: The file's bytes.
        where: The file, for messages.

    Raises:
        InputError: If the header or a packet is broken.
    """
    mark = b"#!END-HEADER\r\n"
    begin = content.find(mark)
    if begin < 0:
        raise InputError(f"{where}: no AEDAT header ends in '#!END-HEADER'")
    at, parts = begin + len(mark), []
    while at + 28 <= len(content):
        kind, size, overflow, capacity = (
            struct.unpack_from("<H", content, at)[0],
            *(struct.unpack_from("<I", content, at + k)[0] for k in (4, 12, 16)),
        )
        body = content[at + 28 : at + 28 + capacity * size]
        if len(body) < capacity * size or size < 1:
            raise InputError(f"{where}: the packet at byte {at} is cut off")
        if kind == 1:
            pairs = np.frombuffer(body, dtype="<u4").reshape(capacity, -1)[:, :2].astype(np.int64)
            parts.append(np.column_stack([pairs[:, 0], pairs[:, 1] | (overflow << 31)]))
        at += 28 + capacity * size
    rows = np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.int64)
    d = rows[:, 0]
    return Events((d >> 17) & 0x7FFF, (d >> 2) & 0x7FFF, (d >> 1) & 1, rows[:, 1] / 1000.0)


def read_heidelberg(path: Path | str) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Reads a file of the Heidelberg spiking data sets (SHD, SSC); needs the extra `hdf5`.

    Args:
        path: For example `shd_train.h5`.

    Returns:
        A pair (times in ms, units) a sample, as the encoder `mstb` takes them, and labels int64.

    Raises:
        InputError: If h5py or the file is missing, or the file has another layout.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading .h5 needs h5py: install tenfold-spaic[hdf5]") from error
    try:
        with h5py.File(path, "r") as file:
            times, units = file["spikes/times"], file["spikes/units"]
            pairs = [
                (np.asarray(t, dtype=np.float64) * 1000, np.asarray(u, dtype=np.int64))
                for t, u in zip(times, units, strict=True)
            ]
            return pairs, np.asarray(file["labels"], dtype=np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a file of the Heidelberg data sets ({error})") from error


@dataclass(frozen=True)
class Split:
    """Training and test samples.

    Attributes:
        x: float32 [n, *shape], or [n, time, *shape] for events.
        y: int64 [n].
        x_test: As x.
        y_test: As y.
        timed: Whether the second axis is time.
        shape: The shape of a sample before it was flattened, without time: (channels, height,
            width); None if x has that shape.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    timed: bool = False
    shape: tuple[int, ...] | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample, without time."""
        return self.shape or self.x.shape[2 if self.timed else 1 :]


def digits() -> Split:
    """The 1,797 handwritten digits of scikit-learn: 1,437 train, 360 test, drawn with seed 0.

    Every class is split in the same proportion. (In the file's own order the last digits are
    written by other people than the first, which is a harder task.)
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    y = y.astype(np.int64)
    train, test = train_test_split(np.arange(len(x)), test_size=360, random_state=0, stratify=y)
    return Split(x[train], y[train], x[test], y[test], shape=(1, 8, 8))


def mnist() -> Split:
    """MNIST: 60,000 train and 10,000 test; with the test files alone, 8,000 and 2,000 of them."""
    folder = data_root() / "mnist"
    train = [folder / f"train-{name}.gz" for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    whole = all(p.is_file() or p.with_suffix("").is_file() for p in train)
    if not whole:
        locate(CATALOGUE["mnist-test"])
    x, y = (read_idx(folder / f"t10k-{n}.gz") for n in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    images = x.reshape(len(x), -1).astype(np.float32) / 255
    labels = y.astype(np.int64)
    if not whole:
        return Split(images[:8000], labels[:8000], images[8000:], labels[8000:], shape=(1, 28, 28))
    first, second = (read_idx(p) for p in train)
    shaped = first.reshape(len(first), -1).astype(np.float32) / 255
    return Split(shaped, second.astype(np.int64), images, labels, shape=(1, 28, 28))


def nmnist_small(steps: int = 20) -> Split:
    """N-MNIST, 1,000 training and 100 test recordings, as counts in windows of 300 ms together.

    Args:
        steps: The number of windows.
    """
    import zipfile

    path = locate(CATALOGUE["nmnist-small"]) / "nmnist-small.zip"
    parts: list[np.ndarray] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for listing in ("train1K.txt", "test100.txt"):
                lines = archive.read(f"NMNISTsmall/{listing}").decode().split("\n")[1:]
                rows = [line.split() for line in lines if line.strip()]
                frames = [
                    read_nmnist(archive.read(f"NMNISTsmall/{name}.bs2"), f"{path}: {name}.bs2")
                    .frames(steps, (34, 34), 300.0)
                    .reshape(steps, -1)
                    for name, _ in rows
                ]
                parts += [np.stack(frames), np.array([int(label) for _, label in rows])]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{path}: not the archive of N-MNIST small ({error})") from error
    return Split(parts[0], parts[1], parts[2], parts[3], timed=True, shape=(2, 34, 34))


SETS = ("digits", "mnist", "nmnist-small")
"""What `load` knows."""


def load(name: str, steps: int = 20) -> Split:
    """Loads a data set by its name.

    Args:
        name: digits (with scikit-learn), mnist or nmnist-small.
        steps: The number of windows of event data.

    Raises:
        InputError: For an unknown name, or files that are missing; it says from where to get them.
    """
    if name not in SETS:
        raise InputError(did_you_mean(name, SETS, "data set"))
    if name == "digits":
        return digits()
    return mnist() if name == "mnist" else nmnist_small(steps)


def _mnist(parts: Sequence[tuple[str, str, int]], name: str, title: str) -> Dataset:
    files = tuple(
        File(f"{file}.gz", f"{_MIRROR}/{file}.gz", sha256=digest, size=size)
        for file, digest, size in parts
    )
    home = "https://yann.lecun.com/exdb/mnist/"
    return Dataset(name, title, "mnist", files, "CC BY-SA 3.0", home, package="spaic")


_TEST_FILES = (
    (
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        1_648_877,
    ),
    (
        "t10k-labels-idx1-ubyte",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        4_542,
    ),
)

CATALOGUE: dict[str, Dataset] = {
    item.name: item
    for item in (
        _mnist(_TEST_FILES, "mnist-test", "MNIST, the 10,000 test images"),
        Dataset(
            "nmnist-small",
            "N-MNIST, 1,000 + 100 recordings",
            "nmnist-small",
            (
                File(
                    "nmnist-small.zip",
                    "",
                    sha256="68f2bb85c279ed7e62c157a8aac398995aba0810dbaf07f4383d5a00cec51bd2",
                    size=18_284_627,
                ),
            ),
            "CC BY-SA 4.0",
            "https://github.com/bamsumit/slayerPytorch (example/04_NMNIST_CNN, NMNISTsmall.zip)",
            package="spaic",
        ),
    )
}
"""The data sets with files; scikit-learn brings the digits."""
