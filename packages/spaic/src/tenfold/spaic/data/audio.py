"""Features of spoken words: mel-frequency cepstral coefficients (card section 13)."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy.fft import dct

from tenfold.shared.errors import InputError
from tenfold.spaic.data.bounded import read_npz

SAMPLES = 16_000
"""What a recording is resampled to: a second at 16 kHz."""


def read_wav(path: Path | str) -> np.ndarray:
    """Reads a WAV file and resamples it to 16,000 samples, however long it was.

    Args:
        path: The file; of several channels the first counts.

    Returns:
        float64 [16000].

    Raises:
        InputError: If it cannot be read, or is empty.
    """
    from scipy.io import wavfile
    from scipy.signal import resample

    try:
        _, signal = wavfile.read(path)
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path}: cannot be read as a WAV file ({error})") from error
    signal = signal[:, 0] if signal.ndim == 2 else signal
    if not len(signal):
        raise InputError(f"{path}: holds no sound")
    return np.asarray(resample(signal.astype(np.float64), SAMPLES))


def mel_filters(count: int = 26, size: int = 512, rate: float = 16_000) -> np.ndarray:
    """Gives triangular filters, equally far apart on the mel scale 2595 log10(1 + f/700).

    Args:
        count: The number of filters.
        size: The length of the Fourier transform.
        rate: Samples a second.

    Returns:
        float64 [count, size // 2 + 1].
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    bins = np.floor((size + 1) * hertz / rate)
    k = np.arange(size // 2 + 1)
    low, mid, high = (bins[i : i + count, None] for i in range(3))
    rising = (k >= low) & (k < mid)
    falling = (k >= mid) & (k < high)
    up = (k - low) / np.maximum(mid - low, 1)
    down = (high - k) / np.maximum(high - mid, 1)
    return np.asarray(np.where(rising, up, np.where(falling, down, 0.0)))


def mfcc(signal: np.ndarray, rate: float = 16_000) -> np.ndarray:
    """Gives 13 mel-frequency cepstral coefficients of windows of 25 ms, one each 10 ms.

    The definition and the defaults are those of python_speech_features, which the official loader
    uses: pre-emphasis 0.97, 512 points, 26 filters, liftering 22, the logarithm of the energy in
    place of the first coefficient. Of a second at 16 kHz 99 · 13 = 1,287 numbers.

    Args:
        signal: [samples].
        rate: Samples a second.

    Returns:
        float64 [windows, 13].

    Raises:
        InputError: For a signal that is not a row of finite numbers.
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1 or not len(signal) or not np.isfinite(signal).all():
        raise InputError(f"signal has shape {signal.shape}; expected a row of finite numbers")
    width, step, size = round(0.025 * rate), round(0.01 * rate), 512
    sharp = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    count = 1 + max(0, -(-(len(sharp) - width) // step))
    padded = np.zeros((count - 1) * step + width)
    padded[: len(sharp)] = sharp[: len(padded)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)[::step]
    power = np.abs(np.fft.rfft(windows, size)) ** 2 / size
    tiny = np.finfo(float).eps
    energy = power.sum(1)
    features = power @ mel_filters(26, size, rate).T
    features = np.log(np.where(features == 0, tiny, features))
    made = dct(features, type=2, axis=1, norm="ortho")[:, :13]
    made = made * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    made[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return np.asarray(made)


def gammatone_filters(
    bands: int = 100, low: float = 20.0, size: int = 512, rate: float = 16_000
) -> tuple[np.ndarray, np.ndarray]:
    """Gives fourth-order gammatone filters in the frequency domain.

    The centres are equally far apart on the ERB-rate scale 21.4 log10(1 + 0.00437 f) of Glasberg &
    Moore (1990); |H(f)| = (1 + ((f − f_c)/b)²)^−2 with b = 1.019 ERB(f_c) = 1.019 · 24.7 (0.00437
    f_c + 1), the usual approximation near the centre.

    Args:
        bands: The number of filters.
        low: The lowest centre in Hz; the highest lies a band below half the rate.
        size: The length of the Fourier transform.
        rate: Samples a second.

    Returns:
        The centres [bands] in Hz, rising, and the magnitudes [bands, size // 2 + 1].
    """
    first, last = (21.4 * np.log10(1 + 0.00437 * f) for f in (low, rate / 2))
    scale = np.linspace(first, last, bands, endpoint=False)
    centres = (10 ** (scale / 21.4) - 1) / 0.00437
    width = 1.019 * 24.7 * (0.00437 * centres + 1)
    f = np.arange(size // 2 + 1) * rate / size
    return centres, (1 + ((f - centres[:, None]) / width[:, None]) ** 2) ** -2.0


def gammatone_spectrogram(signal: np.ndarray, rate: float = 16_000, bands: int = 100) -> np.ndarray:
    """Gives the gammatone spectrogram of windows of 16 ms, one each 8 ms (card section 13).

    Args:
        signal: [samples].
        rate: Samples a second.
        bands: The number of filters, from 20 Hz up.

    Returns:
        float64 [bands, windows], in dB.

    Raises:
        InputError: For a signal shorter than a window.
    """
    width, step, size = round(0.016 * rate), round(0.008 * rate), 512
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1 or len(signal) < width:
        raise InputError(f"signal has shape {signal.shape}; expected at least {width} samples")
    windows = np.lib.stride_tricks.sliding_window_view(signal, width)[::step] * np.hanning(width)
    magnitude = np.abs(np.fft.rfft(windows, size))
    _, filters = gammatone_filters(bands, 20.0, size, rate)
    return np.asarray(20 * np.log10(np.maximum(filters @ magnitude.T, 1e-10)))


def keypoints(
    spectrogram: np.ndarray, reach: int = 3, significance: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the key points of a spectrogram, which become spikes (card section 13).

    A point counts that is the highest of those up to `reach` away in time, or in frequency, and
    lies above the mean of the square around it by more than `significance`. The official code asks
    `is_keypoint is True` of an array's element, which finds none; the unit (dB) and the square are
    a reconstruction.

    Args:
        spectrogram: [bands, windows].
        reach: How far a neighbour may be.
        significance: In the unit of the spectrogram.

    Returns:
        The window and the band of each key point, sorted by window.
    """
    from scipy.ndimage import maximum_filter1d, uniform_filter

    x = np.asarray(spectrogram, dtype=np.float64)
    size = 2 * reach + 1
    highest = np.zeros(x.shape, dtype=bool)
    for axis in (0, 1):
        around = maximum_filter1d(x, size, axis=axis, mode="constant", cval=-np.inf)
        highest |= x == around
    # The mean over those neighbours that exist.
    total, there = (uniform_filter(part, size, mode="constant") for part in (x, np.ones_like(x)))
    window, band = np.nonzero((highest & (x - total / there > significance)).T)
    return window, band


def read_spoken(folder: Path | str, part: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads `<folder>/<part>/<class>/*.wav`, as TIDIGITS, RWCP10 and MNISTVoices are arranged.

    Args:
        folder: The data set's folder.
        part: train or test.

    Returns:
        float32 [n, 1287], each feature put between 0 and 1 by the recording's own lowest and
        highest; int64 [n]; the names of the classes, in order.

    Raises:
        InputError: If there is no such folder or recording.
    """
    root = Path(folder) / part
    names = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    files = [(k, p) for k, name in enumerate(names) for p in sorted((root / name).glob("*.wav"))]
    if not files:
        raise InputError(f"{root} holds no <class>/*.wav")
    rows = []
    for _, path in files:
        rows.append(mfcc(read_wav(path)).reshape(-1))
    return _between(np.stack(rows)), np.array([k for k, _ in files]), names


def _between(features: np.ndarray) -> np.ndarray:
    """Puts each row between 0 and 1 by its own lowest and highest value."""
    low, high = (f(1, keepdims=True) for f in (features.min, features.max))
    return np.asarray((features - low) / np.maximum(high - low, 1e-12), dtype=np.float32)


def read_spoken_split(
    folder: Path | str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads the recordings of train and of test, which must have the same classes.

    Args:
        folder: With `train/<class>/*.wav` and `test/<class>/*.wav`.

    Returns:
        float32 [n, 1287] and int64 [n] of train, the same of test.

    Raises:
        InputError: As `read_spoken`, or for other classes.
    """
    x, y, names = read_spoken(folder, "train")
    x_test, y_test, others = read_spoken(folder, "test")
    if names != others:
        raise InputError(f"{folder}: train has the classes {names}, test {others}")
    return x, y, x_test, y_test


_PARTS = ("train_audios", "train_labels", "test_audios", "test_labels")


def write_features(folder: Path | str) -> Path:
    """Keeps the cepstral coefficients of spoken words as `mfcc_feature.npz` in their folder.

    The keys are the official ones: those of the features, `Time` (50 ms) and `neuron_num`.

    Args:
        folder: With `train/<class>/*.wav` and `test/<class>/*.wav`.

    Returns:
        The file.

    Raises:
        InputError: As `read_spoken_split`.
    """
    x, y, x_test, y_test = read_spoken_split(folder)
    path = Path(folder) / "mfcc_feature.npz"
    np.savez_compressed(
        path,
        train_audios=x,
        train_labels=y,
        test_audios=x_test,
        test_labels=y_test,
        Time=50,
        neuron_num=x.shape[1],
    )
    return path


def read_features(path: Path | str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads kept features; nothing in the file can run code.

    Args:
        path: An .npz with the keys of `write_features`; `Time` and `neuron_num` are not looked at.

    Returns:
        float32 [n, features], from 0 to 1, and int64 [n], of train and of test.

    Raises:
        InputError: If the file cannot be read, or its arrays do not fit together.
    """
    try:
        x, y, x_test, y_test = read_npz(path, _PARTS)
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of features ({error})") from error
    for part, features, labels in (("train", x, y), ("test", x_test, y_test)):
        numbers = features.dtype.kind in "fiu" and labels.dtype.kind in "iu"
        if not numbers or features.ndim < 2 or len(features) != labels.size or not len(features):
            raise InputError(
                f"{path}: {part}_audios is {features.dtype} {features.shape}, {part}_labels "
                f"{labels.dtype} {labels.shape}; expected numbers [n, features] and a label each"
            )
    flat = [_between(part.reshape(len(part), -1).astype(np.float64)) for part in (x, x_test)]
    labelled = [part.reshape(-1).astype(np.int64) for part in (y, y_test)]
    return flat[0], labelled[0], flat[1], labelled[1]
