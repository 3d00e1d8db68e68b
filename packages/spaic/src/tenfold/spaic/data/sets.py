"""The data sets that go by name (section 13): where their files are, and their splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.shared.datasets import Dataset, File, data_root, locate
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.data.audio import read_features, read_spoken_split
from tenfold.spaic.data.events import Events, read_gestures, read_heidelberg, read_nmnist
from tenfold.spaic.data.images import normalised, read_cifar10, read_idx, read_medmnist
from tenfold.spaic.data.touch import read_braille

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


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
        part: What of the data set these are, if they are not all of it.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    timed: bool = False
    shape: tuple[int, ...] | None = None
    part: str = ""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample, without time."""
        return self.shape or self.x.shape[2 if self.timed else 1 :]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(max(self.y.max(), self.y_test.max())) + 1


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
    if all(p.is_file() or p.with_suffix("").is_file() for p in train):
        return _idx_split("mnist")
    locate(CATALOGUE["mnist-test"])
    images, labels = _idx_part("mnist", "t10k")
    parts = images[:8000], labels[:8000], images[8000:], labels[8000:]
    return Split(*parts, shape=(1, 28, 28), part="test file alone")


def fashion_mnist() -> Split:
    """Fashion-MNIST: 60,000 train and 10,000 test images of clothes, in MNIST's format."""
    locate(CATALOGUE["fashion-mnist"])
    return _idx_split("fashion-mnist")


def _idx_split(folder: str) -> Split:
    return Split(*_idx_part(folder, "train"), *_idx_part(folder, "t10k"), shape=(1, 28, 28))


def _idx_part(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    names = ("images-idx3-ubyte", "labels-idx1-ubyte")
    x, y = (read_idx(data_root() / folder / f"{part}-{name}.gz") for name in names)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"{data_root() / folder}: {part} has images {x.shape} and labels {y.shape}; expected "
            "[n, rows, columns] and [n]"
        )
    return x.reshape(len(x), -1).astype(np.float32) / 255, y.astype(np.int64)


def cifar10() -> Split:
    """CIFAR-10: 50,000 train and 10,000 test images, normalised, [3, 32, 32].

    The Python version (`cifar-10-batches-py`) is read too where it lies in the folder.
    """
    folder, ending = data_root() / "cifar10" / "cifar-10-batches-py", ""
    if not folder.is_dir():
        folder, ending = locate(CATALOGUE["cifar10"]) / "cifar-10-batches-bin", ".bin"
    parts = [read_cifar10(folder / f"data_batch_{k}{ending}") for k in range(1, 6)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    x_test, y_test = read_cifar10(folder / f"test_batch{ending}")
    return Split(normalised(x), y, normalised(x_test), y_test)


def medmnist(name: str) -> Split:
    """A set of MedMNIST: its train and test parts, pixels / 255.

    Args:
        name: pathmnist (9 classes, 3 × 28 × 28) or octmnist (4 classes, 28 × 28).
    """
    path = locate(CATALOGUE[name]) / f"{name}.npz"
    parts: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for part in ("train", "test"):
        images, labels = read_medmnist(path, part)
        images = images[..., None] if images.ndim == 3 else images
        shape = (images.shape[3], *images.shape[1:3])
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        parts += [flat.astype(np.float32) / 255, labels]
    return Split(parts[0], parts[1], parts[2], parts[3], shape=shape)


def dvs_gesture(steps: int = 20, cell: int = 4) -> Split:
    """DVS128 Gesture, 11 classes: counts in windows of each gesture's first 1.5 s.

    Args:
        steps: The number of windows.
        cell: cell × cell pixels are counted together: 4 gives 32 × 32.
    """
    folder = locate(CATALOGUE["dvs-gesture"]) / "DvsGesture"
    side = 128 // cell
    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        rows, labels = [], []
        for events, label in read_gestures(folder, part):
            small = Events(events.x // cell, events.y // cell, events.polarity, events.time)
            rows.append(small.frames(steps, (side, side), 1500.0).reshape(steps, -1))
            labels.append(label)
        if not rows:
            raise InputError(f"{folder}: trials_to_{part}.txt names no gesture")
        parts += [np.stack(rows), np.array(labels)]
    return Split(parts[0], parts[1], parts[2], parts[3], timed=True, shape=(2, side, side))


_SPOKEN_FOR = {"shd": 1370.0, "ssc": 1000.0}
"""How long a recording lasts, in ms (card section 13)."""


def heidelberg(name: str, steps: int = 20) -> Split:
    """The Heidelberg spoken digits or commands: spikes of 700 channels, counted in windows.

    SHD has 8,156 and 2,264 recordings of 20 classes, SSC 75,466 and 20,382 of 35 (its validation
    part is left out). With 20 windows SSC takes 5 GB of memory. Needs the extra `hdf5`.

    Args:
        name: shd or ssc.
        steps: The number of windows.

    Raises:
        InputError: If a file is missing or broken, or a unit is not one of the 700.
    """
    folder = locate(CATALOGUE[name])
    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        path = folder / f"{name}_{part}.h5"
        pairs, labels = read_heidelberg(path)
        made = np.zeros((len(pairs), steps, 700), dtype=np.float32)
        for row, (times, units) in zip(made, pairs, strict=True):
            if len(units) and not 0 <= units.min() <= units.max() < 700:
                raise InputError(f"{path}: units {units.min()}..{units.max()}; expected 0..699")
            step = np.floor(times * steps / _SPOKEN_FOR[name]).astype(np.int64)
            seen = (step >= 0) & (step < steps)
            counted = np.bincount(step[seen] * 700 + units[seen], minlength=steps * 700)
            row[:] = counted.reshape(steps, 700)
        parts += [made, labels]
    return Split(parts[0], parts[1], parts[2], parts[3], timed=True)


def spoken(name: str) -> Split:
    """Spoken words as mel-frequency cepstral coefficients (`tenfold.spaic.data.audio`).

    Features that stand in the folder as `mfcc_feature.npz`, with the official keys `train_audios`,
    `train_labels`, `test_audios`, `test_labels`, are taken from there; `write_features` makes such
    a file. Either way each recording's features are put between 0 and 1.

    Args:
        name: tidigits, rwcp10 or mnist-voices: a folder with `train/<class>/*.wav` and
            `test/<class>/*.wav`, as the user has arranged it.

    Raises:
        InputError: If the folder is missing, or train and test have different classes.
    """
    folder = data_root() / name
    kept = folder / "mfcc_feature.npz"
    return Split(*(read_features(kept) if kept.is_file() else read_spoken_split(folder)))


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


def braille(taxels: Sequence[int] = (1, 2, 6, 10), upsampled: int = 2) -> Split:
    """Braille letters under a robot's finger: 27 classes, 1,080 train and 270 test recordings.

    Recordings are cut to the length of the shortest (76 samples), of the 12 taxels the four that
    answer are taken, standardised, and every sample is repeated, which makes 152 steps of 1 ms (the
    protocol of card section 17). Mean and deviation are those of the training recordings; the split
    is drawn with seed 0, every class in the same proportion.

    Args:
        taxels: Which of the 12.
        upsampled: How often each sample is repeated.
    """
    from sklearn.model_selection import train_test_split

    rows, letters = read_braille(locate(CATALOGUE["braille"]) / "braille.pkl")
    shortest = min(map(len, rows))
    x = np.stack([row[:shortest, list(taxels)] for row in rows])
    order = np.arange(len(x))
    train, test = train_test_split(order, test_size=0.2, random_state=0, stratify=letters)
    mean, deviation = x[train].mean((0, 1)), x[train].std((0, 1))
    x = np.repeat((x - mean) / (deviation + 1e-3), upsampled, axis=1).astype(np.float32)
    return Split(x[train], letters[train], x[test], letters[test], timed=True)


_LOADERS: dict[str, Callable[[int], Split]] = {
    "digits": lambda steps: digits(),
    "mnist": lambda steps: mnist(),
    "fashion-mnist": lambda steps: fashion_mnist(),
    "cifar10": lambda steps: cifar10(),
    "pathmnist": lambda steps: medmnist("pathmnist"),
    "octmnist": lambda steps: medmnist("octmnist"),
    "nmnist-small": lambda steps: nmnist_small(steps),
    "dvs-gesture": lambda steps: dvs_gesture(steps),
    "shd": lambda steps: heidelberg("shd", steps),
    "ssc": lambda steps: heidelberg("ssc", steps),
    "braille": lambda steps: braille(),
    "tidigits": lambda steps: spoken("tidigits"),
    "rwcp10": lambda steps: spoken("rwcp10"),
    "mnist-voices": lambda steps: spoken("mnist-voices"),
}
SETS = tuple(_LOADERS)
"""What `load` knows."""


def load(name: str, steps: int = 20) -> Split:
    """Loads a data set by its name.

    Args:
        name: One of `SETS`; scikit-learn brings digits.
        steps: The number of windows of event data.

    Raises:
        InputError: For an unknown name, or files that are missing; it says from where to get them.
    """
    if name not in SETS:
        raise InputError(did_you_mean(name, SETS, "data set"))
    return _LOADERS[name](steps)


def _mnist(parts: Sequence[tuple[str, str | None, int]], name: str, title: str) -> Dataset:
    files = tuple(
        File(f"{file}.gz", f"{_MIRROR}/{file}.gz", sha256=digest, size=size)
        for file, digest, size in parts
    )
    home = "https://yann.lecun.com/exdb/mnist/"
    return Dataset(name, title, "mnist", files, "CC BY-SA 3.0", home, package="spaic")


_TEST_FILES: tuple[tuple[str, str | None, int], ...] = (
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

_TRAIN_FILES: tuple[tuple[str, str | None, int], ...] = (
    ("train-images-idx3-ubyte", None, 9_912_422),
    ("train-labels-idx1-ubyte", None, 28_881),
)

_UNCHECKED = "Its checksum is not known here; the reader checks the format."

CATALOGUE: dict[str, Dataset] = {
    item.name: item
    for item in (
        _mnist(_TEST_FILES, "mnist-test", "MNIST, the 10,000 test images"),
        _mnist(_TRAIN_FILES + _TEST_FILES, "mnist", "MNIST, 60,000 + 10,000 images"),
        Dataset(
            "fashion-mnist",
            "Fashion-MNIST, 60,000 + 10,000 images",
            "fashion-mnist",
            tuple(
                File(f"{part}-{name}.gz", f"{_FASHION}/{part}-{name}.gz", sha256=None)
                for part in ("train", "t10k")
                for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
            ),
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
            note=_UNCHECKED,
            package="spaic",
        ),
        Dataset(
            "cifar10",
            "CIFAR-10, 50,000 + 10,000 images, binary version",
            "cifar10",
            (
                File(
                    "cifar-10-binary.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    sha256=None,
                    unpack=True,
                    provides=tuple(
                        f"cifar-10-batches-bin/{name}.bin"
                        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
                    ),
                ),
            ),
            "research use",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            note=_UNCHECKED,
            package="spaic",
        ),
        *(
            Dataset(
                name,
                title,
                name,
                (
                    File(
                        f"{name}.npz",
                        f"https://zenodo.org/records/10519652/files/{name}.npz",
                        sha256=None,
                    ),
                ),
                "CC BY 4.0",
                "https://medmnist.com",
                note=_UNCHECKED,
                package="spaic",
            )
            for name, title in (
                ("pathmnist", "PathMNIST, 9 classes of tissue"),
                ("octmnist", "OctMNIST, 4 classes of retina"),
            )
        ),
        *(
            Dataset(
                name,
                title,
                name,
                tuple(
                    File(
                        f"{name}_{part}.h5.zip",
                        f"https://zenkelab.org/datasets/{name}_{part}.h5.zip",
                        sha256=None,
                        unpack=True,
                        provides=(f"{name}_{part}.h5",),
                    )
                    for part in ("train", "test")
                ),
                "CC BY 4.0",
                "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
                note=_UNCHECKED,
                package="spaic",
            )
            for name, title in (
                ("shd", "Spiking Heidelberg Digits, 8,156 + 2,264 recordings"),
                ("ssc", "Spiking Speech Commands, 75,466 + 20,382 recordings"),
            )
        ),
        Dataset(
            "dvs-gesture",
            "DVS128 Gesture, 1,176 + 288 gestures",
            "dvs-gesture",
            (
                File("DvsGesture/trials_to_train.txt", "", sha256=None),
                File("DvsGesture/trials_to_test.txt", "", sha256=None),
            ),
            "CC BY 4.0",
            "https://research.ibm.com/interactive/dvsgesture/",
            note="Unpack DvsGesture.tar.gz there by hand.",
            package="spaic",
        ),
        Dataset(
            "braille",
            "Tactile Braille letters, 27 classes, 1,350 recordings",
            "braille",
            (File("braille.pkl", "", sha256=None),),
            "CC BY 4.0",
            "https://zenodo.org/records/6556273",
            note="Put the record's pickle of raw taxel data there under this name, gzip-compressed "
            "or not. Its checksum is not known here; the reader checks the format.",
            package="spaic",
        ),
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
