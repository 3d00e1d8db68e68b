"""Readers of event cameras and spike recordings (card section 13)."""

import csv
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError


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
        _expect(count=count, duration=duration)
        step = np.floor(self.time * count / duration).astype(np.int64)
        return self._counted(step, count, shape)

    def by_number(self, count: int, shape: tuple[int, int]) -> np.ndarray:
        """Counts events in frames of equally many; the rest goes to the last (card section 13).

        Args:
            count: The number of frames.
            shape: (height, width).

        Returns:
            float32 [count, 2, height, width].
        """
        _expect(count=count)
        size = len(self.time) // count
        index = np.arange(len(self.time)) // size if size else np.full(len(self.time), count - 1)
        return self._counted(np.minimum(index, count - 1), count, shape)

    def by_time(self, count: int, shape: tuple[int, int]) -> np.ndarray:
        """Counts events in frames of a fixed number: of (t_last − t_first)//count µs each.

        Args:
            count: The number of frames; the last takes the rest.
            shape: (height, width).

        Returns:
            float32 [count, 2, height, width].
        """
        _expect(count=count)
        if not len(self.time):
            return self._counted(np.zeros(0, np.int64), count, shape)
        since = np.rint((self.time - self.time[0]) * 1000).astype(np.int64)
        step = max(int(since[-1]) // count, 1)
        return self._counted(np.minimum(since // step, count - 1), count, shape)

    def by_duration(self, duration: float, shape: tuple[int, int]) -> np.ndarray:
        """Counts events in frames of a fixed duration; each begins with the event that closes one.

        Args:
            duration: In ms; a frame closes when an event is later than its first by more.
            shape: (height, width).

        Returns:
            float32 [frames, 2, height, width].
        """
        _expect(duration=duration)
        bounds = [0]
        while bounds[-1] < len(self.time):  # one turn a frame
            limit = self.time[bounds[-1]] + duration
            bounds.append(int(np.searchsorted(self.time, limit + 1e-9, side="right")))
        sizes = np.diff(bounds)
        index = np.repeat(np.arange(len(sizes)), sizes)
        return self._counted(index, len(sizes), shape)

    def between(self, start: float, end: float) -> "Events":
        """Gives the events from start to end, their times counted from start.

        Args:
            start: In ms.
            end: In ms, not included.
        """
        kept = (self.time >= start) & (self.time < end)
        parts = (self.x[kept], self.y[kept], self.polarity[kept], self.time[kept] - start)
        return Events(*parts)

    def trains(
        self, shape: tuple[int, int], on_only: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gives (times in ms, neurons), as the encoder `mstb` takes them.

        Args:
            shape: (height, width).
            on_only: Brighter events only, as the official loader of DVS128 Gesture; a neuron is
                then y·width + x, else (polarity·height + y)·width + x.
        """
        height, width = shape
        seen = (self.x < width) & (self.y < height)
        if on_only:
            seen &= self.polarity == 1
        place = self.y[seen] * width + self.x[seen]
        if not on_only:
            place = place + self.polarity[seen] * height * width
        return self.time[seen], place.astype(np.int64)

    def _counted(self, index: np.ndarray, count: int, shape: tuple[int, int]) -> np.ndarray:
        height, width = shape
        seen = (index >= 0) & (index < count) & (self.x < width) & (self.y < height)
        flat = ((index * 2 + self.polarity) * height + self.y) * width + self.x
        made = np.bincount(flat[seen], minlength=count * 2 * height * width)
        return made.reshape(count, 2, height, width).astype(np.float32)


def _expect(count: int = 1, duration: float = 1.0) -> None:
    """Refuses numbers of frames and durations that there cannot be."""
    if count < 1:
        raise InputError(f"count={count}; expected >= 1 frames")
    if not 0 < duration < float("inf"):
        raise InputError(f"duration={duration}; expected > 0 ms")


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
        if kind == 1 and (size < 8 or size % 4):
            raise InputError(f"{where}: the packet at byte {at} has events of {size} bytes")
        if kind == 1 and capacity:
            pairs = np.frombuffer(body, dtype="<u4").reshape(capacity, -1)[:, :2].astype(np.int64)
            parts.append(np.column_stack([pairs[:, 0], pairs[:, 1] | (overflow << 31)]))
        at += 28 + capacity * size
    if at < len(content):
        raise InputError(f"{where}: {len(content) - at} bytes follow the last packet")
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


GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
"""The classes of DVS128 Gesture, which its files count from 1."""


def read_gesture_labels(text: str, where: str = "labels file") -> list[tuple[int, float, float]]:
    """Reads a `*_labels.csv` of DVS128 Gesture: a header, then class, start and end in µs.

    Args:
        text: The file's content.
        where: The file, for messages.

    Returns:
        (class from 0, start in ms, end in ms) of each gesture.

    Raises:
        InputError: For a row that is not three whole numbers in order, or a class outside 1..11.
    """
    found = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if number == 1 or not row:
            continue
        try:
            label, start, end = (int(cell) for cell in row)
        except ValueError as error:
            raise InputError(f"{where}, row {number}: {row}; expected class, start, end") from error
        if not 1 <= label <= len(GESTURES) or not 0 <= start < end:
            raise InputError(
                f"{where}, row {number}: {row}; expected a class from 1 to 11 and start < end"
            )
        found.append((label - 1, start / 1000, end / 1000))
    return found


def read_gestures(folder: Path | str, part: str = "train") -> Iterator[tuple[Events, int]]:
    """Reads the recordings of DVS128 Gesture and cuts them into gestures, one after the other.

    Args:
        folder: IBM's `DvsGesture`, with `trials_to_train.txt`, `trials_to_test.txt`, and an
            `.aedat` and a `_labels.csv` a trial. All of it gives 1,176 and 288 gestures.
        part: train or test.

    Yields:
        The events of a gesture, times from its start, and its class from 0.

    Raises:
        InputError: If a file is missing or broken; it names the file.
    """
    folder = Path(folder)
    if part not in ("train", "test"):
        raise InputError(f"part={part!r}; expected 'train' or 'test'")
    listing = folder / f"trials_to_{part}.txt"
    try:
        names = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{listing}: cannot be read ({error})") from error
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{listing}: {name!r} is not the name of a file")
        path = folder / name
        labels = path.with_name(path.stem + "_labels.csv")
        try:
            events = read_aedat31(path.read_bytes(), str(path))
            rows = read_gesture_labels(labels.read_text(), str(labels))
        except OSError as error:
            raise InputError(f"{path}: a trial cannot be read ({error})") from error
        for label, start, end in rows:
            yield events.between(start, end), label


def from_tonic(sample: Any) -> Events:
    """Turns the events of a tonic data set into those of this package.

    Args:
        sample: A structured array with x, y (or without, for one row of sensors), t in µs and p:
            the first of the pair that `dataset[i]` of `tonic.datasets` gives.

    Raises:
        InputError: If it has other fields.

    Example:
        >>> dataset = tonic.datasets.NMNIST("data", train=False)
        >>> events, label = dataset[0]
        >>> frames = from_tonic(events).frames(20, (34, 34), 300.0)  # [20, 2, 34, 34]
        >>> net.input(frames[None])  # an Encoder(shape=(2, 34, 34), coding_method="null")
    """
    names = set(getattr(getattr(sample, "dtype", None), "names", None) or ())
    if not {"x", "t", "p"} <= names:
        raise InputError(
            f"a sample with the fields {sorted(names) or type(sample).__name__}; expected a "
            "structured array with x, y, t, p"
        )
    x = np.asarray(sample["x"], dtype=np.int64)
    y = np.asarray(sample["y"], dtype=np.int64) if "y" in names else np.zeros_like(x)
    polarity = (np.asarray(sample["p"]) > 0).astype(np.int64)
    return Events(x, y, polarity, np.asarray(sample["t"], dtype=np.float64) / 1000)


def split_of_tonic(
    train: Any, test: Any, steps: int, duration: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads two tonic data sets as counts in windows of time, as a `Split` takes them.

    Args:
        train: A data set of tonic: `len`, `[i]` gives (events, label), `sensor_size`.
        test: Another.
        steps: The number of windows.
        duration: The time that they cover, in ms.

    Returns:
        float32 [n, steps, 2·height·width] and int64 [n] of train, the same of test.
    """
    width, height = (int(n) for n in train.sensor_size[:2])
    made = []
    for part in (train, test):
        pairs = [part[i] for i in range(len(part))]
        frames = [
            from_tonic(events).frames(steps, (height, width), duration).reshape(steps, -1)
            for events, _ in pairs
        ]
        made += [np.stack(frames), np.array([int(label) for _, label in pairs])]
    return made[0], made[1], made[2], made[3]
