"""Readers of images, events and sound, on files written here byte by byte and on real ones."""

import gzip
import io
import json
import os
import pickle
import struct
import wave
import zipfile

import numpy as np
import pytest

from tenfold.shared.datasets import data_root
from tenfold.shared.errors import InputError
from tenfold.spaic.data import (
    CATALOGUE,
    LETTERS,
    SETS,
    CustomDataset,
    CustomSpikeDataset,
    Dataloader,
    Events,
    ImageNet,
    SpecifiedDataset,
    bounded,
    from_tonic,
    gammatone_filters,
    gammatone_spectrogram,
    keypoints,
    load,
    mel_filters,
    mfcc,
    normalised,
    read_aedat31,
    read_braille,
    read_cifar10,
    read_gesture_labels,
    read_gestures,
    read_idx,
    read_medmnist,
    read_pickle,
    read_wav,
    split_of_tonic,
    write_features,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    return tmp_path


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes())


def test_fashion_mnist_is_read_from_its_four_files(root):
    random = np.random.default_rng(0)
    (root / "fashion-mnist").mkdir()
    made = {}
    for part, n in (("train", 5), ("t10k", 3)):
        made[part] = random.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8)
        folder = root / "fashion-mnist"
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(made[part]))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    split = load("fashion-mnist")
    assert split.sample_shape == (1, 28, 28)
    np.testing.assert_allclose(split.x, made["train"].reshape(5, -1) / 255, rtol=1e-6)
    assert split.y_test.tolist() == [0, 1, 2]
    (root / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(labels[:2]))
    with pytest.raises(InputError, match="t10k has images"):
        load("fashion-mnist")


def cifar(n, seed):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(n, 3, 32, 32), dtype=np.uint8)
    labels = random.integers(10, size=n, dtype=np.uint8)
    rows = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
    return b"".join(rows), images, labels


def test_cifar10_is_read_from_its_binary_version_and_normalised(root):
    folder = root / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    images = []
    for k, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4"]):
        content, some, _ = cifar(2, k)
        (folder / f"{name}.bin").write_bytes(content)
        images.append(some)
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz \(from https"):
        load("cifar10")
    for name in ("data_batch_5", "test_batch"):
        (folder / f"{name}.bin").write_bytes(cifar(2, 9)[0])
    split = load("cifar10")
    assert split.x.shape == (10, 3, 32, 32)
    red = (images[0][0, 0] / 255 - 0.4914) / 0.2023
    np.testing.assert_allclose(split.x[0, 0], red, rtol=1e-4, atol=1e-5)
    assert normalised(np.full((1, 3, 1, 1), 128, np.uint8)).shape == (1, 3, 1, 1)
    content, _, labels = cifar(3, 4)
    (root / "some.bin").write_bytes(content)
    assert read_cifar10(root / "some.bin")[1].tolist() == labels.tolist()
    (root / "short.bin").write_bytes(content[:-1])
    with pytest.raises(InputError, match="9218 bytes; expected records of 3,073"):
        read_cifar10(root / "short.bin")
    (root / "wrong.bin").write_bytes(b"\x0b" + content[1:])
    with pytest.raises(InputError, match=r"record 0 has the label 11; expected 0\.\.9"):
        read_cifar10(root / "wrong.bin")
    for name in ("none.bin", "none"):
        with pytest.raises(InputError, match="cannot be read"):
            read_cifar10(root / name)


def python2(value):
    """Pickles as Python 2 did (protocol 2, text as bytes): the official file's own way."""
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value
    if isinstance(value, list):
        return b"(" + b"".join(b"K" + bytes([label]) for label in value) + b"l"
    n, size = value.shape
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    none = b"J\xff\xff\xff\xff"  # −1
    kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + none + none + b"K\x00tb"
    data = b"T" + struct.pack("<I", value.nbytes) + value.tobytes()
    shape = b"K" + bytes([n]) + b"M" + struct.pack("<H", size) + b"\x86"
    return head + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"


def test_cifar10_is_read_from_its_python_version_without_running_it(root):
    folder = root / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    made = {}
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        _, images, labels = cifar(2, k)
        flat = images.reshape(2, 3072)
        made[name] = images, labels.tolist()
        content = b"\x80\x02}(" + python2(b"data") + python2(flat)
        content += python2(b"labels") + python2(labels.tolist()) + b"u."
        if k == 3:  # written by Python 3
            content = pickle.dumps({"data": flat, "labels": labels.tolist()})
        (folder / name).write_bytes(content)
    found, labels = read_cifar10(folder / "data_batch_1")
    np.testing.assert_array_equal(found, made["data_batch_1"][0])
    assert labels.tolist() == made["data_batch_1"][1]
    split = load("cifar10")
    assert split.x.shape == (10, 3, 32, 32)
    expected = [label for k in range(1, 6) for label in made[f"data_batch_{k}"][1]]
    assert split.y.tolist() == expected
    np.testing.assert_allclose(split.x_test, normalised(made["test_batch"][0]))
    for wrong, message in (
        ([1], "expected a dict with `data` and `labels`"),
        ({"data": np.zeros((2, 4), np.uint8), "labels": [1, 2]}, r"data is uint8 \(2, 4\)"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, r"labels \(1,\)"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "has the label 10"),
        ({"data": Evil(root / "ran"), "labels": [1]}, r"it asks for \w+.mkdir"),
    ):
        (folder / "test_batch").write_bytes(pickle.dumps(wrong))
        with pytest.raises(InputError, match=message):
            load("cifar10")
    assert not (root / "ran").exists()


def test_medmnist_is_read_without_pickles(root):
    images = np.arange(2 * 28 * 28 * 3, dtype=np.uint8).reshape(2, 28, 28, 3)
    labels = np.array([[3], [1]])
    arrays = {f"{part}_images": images for part in ("train", "test")}
    arrays |= {f"{part}_labels": labels for part in ("train", "test")}
    (root / "pathmnist").mkdir()
    path = root / "pathmnist" / "pathmnist.npz"
    np.savez(path, **arrays)
    split = load("pathmnist")
    assert split.sample_shape == (3, 28, 28)
    assert split.y.tolist() == [3, 1]
    green = split.x[1].reshape(3, 28, 28)[1]
    np.testing.assert_allclose(green, images[1, :, :, 1] / 255, rtol=1e-6)
    with pytest.raises(InputError, match="not a file of MedMNIST with 'val'"):
        read_medmnist(path, "val")
    np.savez(path, train_images=np.array([{}], dtype=object), train_labels=labels)
    with pytest.raises(InputError, match="not a file of MedMNIST"):
        read_medmnist(path)
    np.savez(path, train_images=images, train_labels=labels[:1])
    with pytest.raises(InputError, match="with 1 labels"):
        read_medmnist(path)


def test_spoken_digits_of_heidelberg_are_counted_in_windows(root):
    h5py = pytest.importorskip("h5py")
    (root / "shd").mkdir()
    trains = [([0.0, 0.1, 1.3], [0, 699, 5]), ([0.5], [7])]
    for part in ("train", "test"):
        with h5py.File(root / "shd" / f"shd_{part}.h5", "w") as file:
            for name, column, kind in (("times", 0, np.float32), ("units", 1, np.int64)):
                made = file.create_dataset(f"spikes/{name}", 2, h5py.vlen_dtype(kind))
                for k, pair in enumerate(trains):
                    made[k] = np.array(pair[column], dtype=kind)
            file["labels"] = np.array([11, 3])
    split = load("shd", steps=10)
    assert (split.x.shape, split.timed) == ((2, 10, 700), True)
    assert sorted(zip(*(part.tolist() for part in np.nonzero(split.x[0])), strict=True)) == [
        (0, 0),
        (0, 699),
        (9, 5),
    ]
    assert split.x[1, 3, 7] == 1
    assert split.y_test.tolist() == [11, 3]
    with h5py.File(root / "shd" / "shd_test.h5", "a") as file:
        file["spikes/units"][1] = np.array([700])
    with pytest.raises(InputError, match=r"units 700\.\.700; expected 0\.\.699"):
        load("shd")


def aedat(rows):
    """Two packets of polarity events (x, y, p, µs), and one of another kind between them."""
    words = [struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for x, y, p, t in rows]
    half = len(words) // 2
    packets = b""
    for kind, part in ((1, words[:half]), (2, [bytes(8)]), (1, words[half:])):
        n = len(part)
        packets += struct.pack("<HHIIIIII", kind, 0, 8, 4, 0, n, n, n) + b"".join(part)
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + packets


def test_gestures_are_cut_out_of_the_recordings(root):
    folder = root / "dvs-gesture" / "DvsGesture"
    folder.mkdir(parents=True)
    rows = [(x, 127 - x, x % 2, 1000 * x) for x in range(100)]
    for part, name in (("train", "user01_fluorescent"), ("test", "user24_led")):
        (folder / f"trials_to_{part}.txt").write_text(f"{name}.aedat\n")
        (folder / f"{name}.aedat").write_bytes(aedat(rows))
        text = "class,startTime_usec,endTime_usec\n2,10000,30000\n11,50000,99000\n"
        (folder / f"{name}_labels.csv").write_text(text)
    (one, first), (two, second) = read_gestures(folder)
    assert (first, second) == (1, 10)
    np.testing.assert_allclose(one.time, np.arange(20))  # ms from the gesture's start
    assert one.x.tolist() == list(range(10, 30))
    assert len(two.time) == 49
    split = load("dvs-gesture", steps=5)
    assert split.x.shape == (2, 5, 2 * 32 * 32)
    assert split.x.sum() == 20 + 49
    assert split.y_test.tolist() == [1, 10]
    assert split.x[0].reshape(5, 2, 32, 32)[0, 1, (127 - 11) // 4, 11 // 4] > 0
    (folder / "trials_to_test.txt").write_text("../secret.aedat\n")
    with pytest.raises(InputError, match="is not the name of a file"):
        list(read_gestures(folder, "test"))
    (folder / "trials_to_test.txt").write_text("gone.aedat\n")
    with pytest.raises(InputError, match=r"gone\.aedat: a trial cannot be read"):
        list(read_gestures(folder, "test"))


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (struct.pack("<HHIIIIII", 1, 0, 6, 4, 0, 1, 1, 1) + bytes(6), "events of 6 bytes"),
        (struct.pack("<HHIIIIII", 1, 0, 4, 4, 0, 1, 1, 1) + bytes(4), "events of 4 bytes"),
        (struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, 2, 2, 2) + bytes(8), "is cut off"),
        (struct.pack("<HHIIIIII", 1, 0, 0, 4, 0, 2, 2, 2), "is cut off"),
        (bytes(10), "10 bytes follow the last packet"),
    ],
)
def test_broken_packets_of_aedat_are_told(packet, message):
    with pytest.raises(InputError, match=message):
        read_aedat31(b"#!END-HEADER\r\n" + packet)


def test_aedat_has_31_bits_of_time_and_the_rest_is_counted():
    def packet(overflow, *rows):
        pairs = [(x << 17 | y << 2 | p << 1 | 1, t) for x, y, p, t in rows]
        words = b"".join(struct.pack("<II", *pair) for pair in pairs)
        head = struct.pack("<HHIIIIII", 1, 0, 8, 4, overflow, len(rows), len(rows), len(rows))
        return head + words

    content = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet(0, (1, 2, 1, 7)) + packet(0)
    events = read_aedat31(content + packet(3, (127, 0, 0, 1000)))
    assert (events.x.tolist(), events.y.tolist(), events.polarity.tolist()) == (
        [1, 127],
        [2, 0],
        [1, 0],
    )
    np.testing.assert_allclose(events.time, [0.007, (3 * 2**31 + 1000) / 1000])
    assert len(read_aedat31(b"#!END-HEADER\r\n").time) == 0
    with pytest.raises(InputError, match="no AEDAT header"):
        read_aedat31(b"#!AER-DAT3.1\r\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [("12,1,2", "a class from 1 to 11"), ("1,5,5", "start < end"), ("1,x,3", "class, start, end")],
)
def test_broken_labels_of_gestures_are_told_with_their_row(row, message):
    with pytest.raises(InputError, match=message):
        read_gesture_labels(f"class,start,end\n{row}\n", "some.csv")


def drawn(n=997):
    random = np.random.default_rng(1)
    time = np.sort(random.integers(0, 300_000, n)) / 1000
    return Events(*(random.integers(8, size=n) for _ in range(2)), random.integers(2, size=n), time)


def test_frames_by_number_time_and_duration_agree_with_loops():
    events, shape = drawn(), (8, 8)
    size = 997 // 10
    by_number = events.by_number(10, shape)
    assert by_number.sum((1, 2, 3)).tolist() == [size] * 9 + [997 - 9 * size]
    micro = np.rint(events.time * 1000).astype(int)
    step = (micro[-1] - micro[0]) // 10
    counts = np.zeros(10)
    for t in micro:
        counts[min((t - micro[0]) // step, 9)] += 1
    assert events.by_time(10, shape).sum((1, 2, 3)).tolist() == counts.tolist()
    frames, left, sizes = 0, None, []
    for t in events.time:  # a frame closes when t − t_left > D
        if left is None or t - left > 25 + 1e-9:
            left, frames = t, frames + 1
            sizes.append(0)
        sizes[-1] += 1
    by_duration = events.by_duration(25.0, shape)
    assert by_duration.sum((1, 2, 3)).tolist() == sizes
    one = events.by_number(1, shape)[0]
    for p, y, x in ((0, 1, 2), (1, 7, 3)):
        same = (events.polarity == p) & (events.y == y) & (events.x == x)
        assert one[p, y, x] == same.sum()


def test_frames_that_there_cannot_be_are_refused():
    events, shape = drawn(), (8, 8)
    for make in (
        lambda: events.frames(0, shape, 300.0),
        lambda: events.by_number(0, shape),
        lambda: events.by_time(-1, shape),
        lambda: events.by_duration(-5.0, shape),
        lambda: events.frames(3, shape, float("nan")),
    ):
        with pytest.raises(InputError, match="expected >"):
            make()


def test_trains_name_neurons_as_the_official_loader_does():
    events = Events(*(np.array(v) for v in ([1, 2], [3, 0], [0, 1])), np.array([0.5, 2.0]))
    times, neurons = events.trains((4, 5))
    assert (times.tolist(), neurons.tolist()) == ([0.5, 2.0], [16, 22])
    times, neurons = events.trains((4, 5), on_only=True)
    assert (times.tolist(), neurons.tolist()) == ([2.0], [2])


class Recordings:
    """As tonic's data sets are: a length, items (events, label), and the sensor's size."""

    sensor_size = (6, 5, 2)

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        made = np.zeros(i + 1, dtype=[("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "<i8")])
        made["x"], made["y"], made["t"], made["p"] = 5, 4, 1000 * np.arange(i + 1), [1] * (i + 1)
        return made, i % 3


def test_tonic_s_events_become_frames():
    x, y, x_test, y_test = split_of_tonic(Recordings(4), Recordings(2), steps=2, duration=4.0)
    assert x.shape == (4, 2, 2 * 5 * 6)
    assert x.sum((1, 2)).tolist() == [1, 2, 3, 4]
    assert x[3].reshape(2, 2, 5, 6)[:, 1, 4, 5].tolist() == [2, 2]
    assert (y.tolist(), y_test.tolist()) == ([0, 1, 2, 0], [0, 1])
    assert len(x_test) == 2
    with pytest.raises(InputError, match="expected a structured array with x, y, t, p"):
        from_tonic(np.zeros(3))


def test_tonic_reads_the_same_events_as_this_package():
    io_of = pytest.importorskip("tonic.io")
    from tenfold.spaic.data import read_nmnist

    random = np.random.default_rng(2)
    raw = random.integers(256, size=(50, 5), dtype=np.uint8)
    raw[:, :2] %= 34
    raw[:, 2:] = np.sort(raw[:, 2:].view(np.uint8), axis=0)
    mine = read_nmnist(raw.tobytes())
    stream = io.BytesIO(raw.tobytes())
    theirs = from_tonic(io_of.read_mnist_file(stream, io_of.events_struct, is_stream=True))
    for name in ("x", "y", "polarity", "time"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(mine, name))


def test_cepstral_coefficients_are_those_of_python_speech_features():
    random = np.random.default_rng(0)
    t = np.arange(16000) / 16000
    signal = np.sin(2 * np.pi * 440 * t) * 1000 + random.normal(size=16000)
    made = mfcc(signal)
    assert made.shape == (99, 13)  # 1,287 numbers
    # Written down from python_speech_features 0.6.
    first = [14.902478, 18.496401, 2.009225, -14.294919, -27.398295, -33.116204, -29.942141]
    last = [-28.554721, -17.769554, -2.469432, 10.983417, 18.801897, 18.444666, 12.933033]
    np.testing.assert_allclose(made[0, :7], first, atol=1e-6)
    np.testing.assert_allclose(made[50, 6:], last, atol=1e-6)
    assert made.sum() == pytest.approx(216.06703937)
    filters = mel_filters()
    assert filters.max(1).tolist() == [1.0] * 26
    with pytest.raises(InputError, match="expected a row of finite numbers"):
        mfcc(np.full(100, np.nan))


def test_gammatone_filters_stand_on_the_erb_scale():
    centres, filters = gammatone_filters(50, 20.0, 4096)
    erb = 24.7 * (0.00437 * centres + 1)
    steps = np.diff(21.4 * np.log10(1 + 0.00437 * centres))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    assert centres[0] == pytest.approx(20.0)
    hertz = np.arange(2049) * 16_000 / 4096
    band = 30
    assert abs(hertz[filters[band].argmax()] - centres[band]) < 4
    # Half the magnitude lies where (1 + u²)² = 2, u in units of 1.019 ERB.
    half = centres[band] + 1.019 * erb[band] * np.sqrt(np.sqrt(2) - 1)
    assert np.interp(half, hertz, filters[band]) == pytest.approx(0.5, abs=0.01)
    t = np.arange(16_000) / 16_000
    tone = gammatone_spectrogram(np.sin(2 * np.pi * 1000 * t))
    assert tone.shape == (100, 124)
    assert abs(gammatone_filters()[0][tone[:, 60].argmax()] - 1000) < 60


def test_keypoints_are_those_of_a_loop():
    x = np.random.default_rng(3).normal(0, 3, (20, 30))
    expected = []
    for k in range(30):
        for b in range(20):
            rows, columns = slice(max(b - 3, 0), b + 4), slice(max(k - 3, 0), k + 4)
            top = x[b, k] == x[rows, k].max() or x[b, k] == x[b, columns].max()
            if top and x[b, k] - x[rows, columns].mean() > 3:
                expected.append((k, b))
    found = list(zip(*(part.tolist() for part in keypoints(x)), strict=True))
    assert found == expected
    assert len(found) > 20


def test_spoken_words_are_read_from_folders(root):
    random = np.random.default_rng(0)
    for part, n in (("train", 3), ("test", 1)):
        for word in ("oh", "one"):
            folder = root / "tidigits" / part / word
            folder.mkdir(parents=True)
            for k in range(n):
                with wave.open(str(folder / f"{k}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(8000)
                    file.writeframes(random.integers(-9999, 9999, 4000).astype("<i2").tobytes())
    split = load("tidigits")
    assert split.x.shape == (6, 1287)
    assert (split.x.min(), split.x.max()) == (0, 1)
    assert split.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(read_wav(root / "tidigits" / "train" / "oh" / "0.wav")) == 16000
    kept = write_features(root / "tidigits")
    sound = root / "tidigits" / "train" / "oh" / "0.wav"
    sound.unlink()
    again = load("tidigits")  # from the features
    np.testing.assert_allclose(again.x, split.x, atol=1e-6)
    assert (again.y_test.tolist(), again.x_test.shape) == ([0, 1], (2, 1287))
    with np.load(kept) as file:
        assert (int(file["Time"]), int(file["neuron_num"])) == (50, 1287)
    keys = [f"{part}_{what}" for part in ("train", "test") for what in ("audios", "labels")]
    np.savez(kept, **dict.fromkeys(keys, np.zeros(3)))
    with pytest.raises(InputError, match=r"train_audios is float64 \(3,\)"):
        load("tidigits")
    kept.write_bytes(b"no")
    with pytest.raises(InputError, match="not a file of features"):
        load("tidigits")
    kept.unlink()
    (root / "tidigits" / "test" / "two").mkdir()
    with pytest.raises(InputError, match="train has the classes"):
        load("tidigits")
    (root / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="cannot be read as a WAV file"):
        read_wav(root / "bad.wav")
    with pytest.raises(InputError, match="holds no <class>"):
        load("rwcp10")


def test_every_set_with_files_is_in_the_catalogue_and_says_where_to_get_them(root):
    folders = ("digits", "tidigits", "rwcp10", "mnist-voices")  # nothing to fetch
    for name in SETS:
        if name not in folders:
            assert name in CATALOGUE
            with pytest.raises(InputError, match="http"):
                load(name)
    assert data_root() == root


def test_the_loader_goes_through_every_sample_once():
    data = CustomDataset(np.arange(10)[:, None], np.arange(10) * 2)
    batches = list(Dataloader(data, batch_size=4))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    assert np.concatenate([x[:, 0] for x, _ in batches]).tolist() == list(range(10))
    loader = Dataloader(data, batch_size=4, shuffle=True, drop_last=True, seed=1)
    assert len(loader) == 2
    (first, second), again = list(loader), list(loader)
    seen = [*first[1].tolist(), *second[1].tolist()]
    assert len(set(seen)) == 8
    assert set(seen) < set(range(0, 20, 2))
    assert first[1].tolist() != again[0][1].tolist()
    same = next(iter(Dataloader(data, batch_size=4, shuffle=True, seed=1)))
    assert first[1].tolist() == same[1].tolist()
    own = Dataloader(data, batch_sampler=[[3, 1], [2]])
    assert [labels.tolist() for _, labels in own] == [[6, 2], [4]]


def test_spike_trains_and_images_of_a_folder_are_loaded(tmp_path):
    from PIL import Image

    trains = CustomSpikeDataset([[0.1, 0.2], [0.3]], [[1, 2], [0]], [5, 6])
    ((pairs, labels),) = Dataloader(trains, batch_size=2)
    assert [item[1].tolist() for item in pairs] == [[1, 2], [0]]
    assert labels.tolist() == [5, 6]
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text('{"images": ["a.png", "b.png"], "labels": [7, 8]}')
    folder = SpecifiedDataset(tmp_path, tmp_path / "labels.json")
    found, label = folder[0]
    assert (found.tolist(), label) == (image.tolist(), 7)
    with pytest.raises(InputError, match=r"b\.png: cannot be read as an image"):
        folder[1]
    (tmp_path / "labels.json").write_text('{"images": ["../a.png"], "labels": [7]}')
    with pytest.raises(InputError, match="is not a file inside"):
        SpecifiedDataset(tmp_path, tmp_path / "labels.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CustomDataset(np.zeros(3), np.zeros(2)), "3 samples with 2 labels"),
        (lambda: CustomSpikeDataset([[1.0]], [[1, 2]], [0]), "sample 0 has 1 times and 2 neurons"),
        (lambda: Dataloader(CustomDataset([1], [1]), shuffle=True, sampler=[0]), "excludes"),
        (lambda: Dataloader(CustomDataset([1], [1]), 2, batch_sampler=[[0]]), "excludes"),
        (lambda: Dataloader(CustomDataset([1], [1]), 0), "batch_size=0"),
        (lambda: Dataloader(CustomDataset([1], [1]), sampler=[], batch_sampler=[[0]]), "excludes"),
        (lambda: Dataloader(CustomDataset([1], [1]), drop_last=True, batch_sampler=[[0]]), "excl"),
        (lambda: Dataloader(CustomDataset([1], [1]), shuffle=True, batch_sampler=[[0]]), "excl"),
    ],
)
def test_wrong_arguments_of_the_loader_are_told(make, message):
    with pytest.raises(InputError, match=message):
        make()


def recordings(repetitions=5, kind=np.float64):
    random = np.random.default_rng(0)
    return [
        {
            "letter": letter,
            "repetition": k,
            "taxel_data": random.integers(0, 256, (76 + k % 2, 12)).astype(kind),
        }
        for letter in LETTERS
        for k in range(repetitions)
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_braille_is_read_from_a_pickle_of_any_protocol(tmp_path, protocol):
    path = tmp_path / "braille.pkl"
    rows = recordings(1)
    rows[1]["taxel_data"] = np.asfortranarray(rows[1]["taxel_data"].astype(">i4"))
    rows[2]["taxel_data"] = rows[2]["taxel_data"].tolist()
    rows[2]["repetition"] = np.int64(3)
    path.write_bytes(gzip.compress(pickle.dumps(rows, protocol=protocol)))
    found, letters = read_braille(path)
    assert letters.tolist() == list(range(27))
    for row, data in zip(rows, found, strict=True):
        np.testing.assert_allclose(data, 1 - np.asarray(row["taxel_data"]) / 255)


def test_braille_is_read_from_json_and_npz_too(tmp_path):
    rows = recordings(1)
    plain = [{**row, "taxel_data": row["taxel_data"].tolist()} for row in rows]
    (tmp_path / "some.json").write_text(json.dumps(plain))
    data = np.stack([row["taxel_data"] for row in rows])
    np.savez(tmp_path / "some.npz", letter=np.array(LETTERS), taxel_data=data)
    for name in ("some.json", "some.npz"):
        found, letters = read_braille(tmp_path / name)
        np.testing.assert_allclose(found, 1 - data / 255)
        assert letters.tolist() == list(range(27))


def test_braille_by_name_follows_the_protocol_of_four_taxels(root):
    rows = recordings(5)
    (root / "braille").mkdir()
    (root / "braille" / "braille.pkl").write_bytes(pickle.dumps(rows))
    split = load("braille")
    assert split.x.shape == (108, 152, 4)
    assert (len(split.x_test), split.timed) == (27, True)
    assert sorted(split.y_test.tolist()) == list(range(27))
    np.testing.assert_array_equal(split.x[:, ::2], split.x[:, 1::2])  # each sample twice
    np.testing.assert_allclose(split.x.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(split.x.std((0, 1)), 1, atol=5e-3)
    # Pressure is high: the sample of the highest value is the lowest.
    taken = np.stack([1 - row["taxel_data"][:76, [1, 2, 6, 10]] / 255 for row in rows])
    every = np.concatenate([split.x, split.x_test])[:, ::2]
    slope = np.polyfit(np.sort(taken.ravel()), np.sort(every.ravel()), 1)[0]
    assert slope > 1


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([{}], dtype=object), "an array of 'O8'"),
        (np.zeros(2, dtype=[("a", "f8")]), "an array of"),
        (np.array(["a"]), "an array of 'U1'"),
        (complex(1, 2), "it asks for builtins.complex"),
        (gzip.compress, "it asks for gzip.compress"),
        ([], "expected a list of recordings"),
        ({"letter": "A"}, "expected a list of recordings, got dict"),
        ([{"letter": "A"}], "recording 0: .*expected `letter`"),
        ([{"letter": "Ä", "taxel_data": np.zeros((2, 12))}], "letter 'Ä'"),
        ([{"letter": "A", "taxel_data": np.zeros((2, 4))}], r"is \(2, 4\); expected \(time, 12\)"),
        ([{"letter": "A", "taxel_data": np.full((2, 12), 256)}], "outside 0..255"),
        ([{"letter": "A", "taxel_data": np.full((2, 12), np.nan)}], "outside 0..255"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    path = tmp_path / "braille.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        read_braille(path)


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "braille.pkl"
    for protocol in range(6):
        path.write_bytes(pickle.dumps([Evil(mark)], protocol=protocol))
        with pytest.raises(InputError, match=r"it asks for \w+.mkdir"):
            read_braille(path)
        assert not mark.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - our own
    assert mark.exists()  # it would have
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(InputError, match="the encoding 'rot13'"):
        read_braille(path)
    sound = pickle.dumps(recordings(1))
    for cut in range(0, len(sound), len(sound) // 20):
        path.write_bytes(sound[:cut])
        with pytest.raises(InputError, match="cannot be read as a pickle"):
            read_braille(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_braille(tmp_path / "none.pkl")


def test_a_few_bytes_take_no_gigabytes(tmp_path, monkeypatch):
    path = tmp_path / "small.pkl"
    for content, message in (
        (b"]r\xff\xff\xff\x07.", "place 134217727 of the memory in 7 bytes"),  # 2 GB of places
        (b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little") + b".", "but only 1 remain"),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(I1099511627776\ncnumpy\ndtype\n(Vu1\ntR"
            b"I1\nVC\ntR.",
            "an array without its bytes",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_pickle(path)
    monkeypatch.setattr(bounded.unpacked, "__defaults__", (1000,))
    zeros = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2000) + bytes(2000))
    for name, read in (("i.gz", read_idx), ("p.pkl", read_pickle), ("p.pkl", read_pickle)):
        (tmp_path / name).write_bytes(zeros)
        with pytest.raises(InputError, match="more than 1,000 bytes"):
            read(tmp_path / name)
    path.write_bytes(bytes(1001))
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", lambda _: pytest.fail("read whole"))
        with pytest.raises(InputError, match="more than 1,000 bytes"):
            read_pickle(path)


def test_arrays_of_a_npz_are_read_within_bounds(tmp_path):
    path, x = tmp_path / "a.npz", np.arange(6.0).reshape(2, 3)
    np.savez_compressed(path, x=x, y=x[0], o=np.array([{}], dtype=object))
    found = bounded.read_npz(path, ["x", "y"])
    assert np.array_equal(found[0], x)
    assert np.array_equal(found[1], x[0])
    with pytest.raises(ValueError, match="y declares 24 bytes"):
        bounded.read_npz(path, ["x", "y"], most=50)
    with pytest.raises(ValueError, match="Object arrays"):
        bounded.read_npz(path, ["o"])
    header = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("train_images", "train_labels", "letter", "taxel_data"):
            packed.writestr(f"{name}.npy", header.getvalue())
    for read in (lambda p: read_medmnist(p, "train"), read_braille):
        with pytest.raises(InputError, match=r"declares 8,000,000,000,000 bytes; \d+ are there"):
            read(path)


@pytest.mark.parametrize("size", [2.5, 0, True, "3"])
def test_a_batch_has_a_whole_number_of_samples(size):
    with pytest.raises(InputError, match=r"batch_size=.*; expected a whole number >= 1"):
        Dataloader(CustomDataset(np.zeros((4, 2)), np.zeros(4)), batch_size=size)


def test_imagenet_is_read_from_folders_image_by_image(tmp_path):
    from PIL import Image

    def image(path, colour, size=(6, 4)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour).save(path, "PNG")

    image(tmp_path / "train" / "n02" / "a.JPEG", (255, 0, 0))
    image(tmp_path / "train" / "n01" / "b.JPEG", 128)
    image(tmp_path / "val" / "one.JPEG", (0, 0, 255), (4, 8))
    (tmp_path / "val.txt").write_text("one.JPEG n02\n")
    train, val = ImageNet(tmp_path, size=3), ImageNet(tmp_path, "val", size=None)
    assert train.wnids == ["n01", "n02"]
    pixels, label = train[1]
    assert (pixels.shape, pixels.dtype, label) == ((3, 3, 3), np.uint8, 1)
    assert (pixels == (255, 0, 0)).all()
    assert train[0][0][0, 0].tolist() == [128, 128, 128]
    assert (len(val), val[0][0].shape, val[0][1]) == (1, (8, 4, 3), 1)
    data, labels = next(iter(Dataloader(train, batch_size=2)))
    assert (data.shape, labels.tolist()) == ((2, 3, 3, 3), [0, 1])
    for text, message in (
        ("two.JPEG n02", "line 1: 'two.JPEG n02'; expected an image"),
        ("../val.txt n02", "expected an image"),
        ("one.JPEG n03", "class 'n03' is none of the folders"),
        ("", "names no image"),
    ):
        (tmp_path / "val.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            ImageNet(tmp_path, "val")
    (tmp_path / "train" / "n01" / "b.JPEG").write_bytes(b"no")
    with pytest.raises(InputError, match=r"b\.JPEG: cannot be read as an image"):
        train[0]
    with pytest.raises(InputError, match="holds no folders of classes"):
        ImageNet(tmp_path / "val")
    with pytest.raises(InputError, match="part='test'"):
        ImageNet(tmp_path, "test")
