"""Features of spoken words: mel-frequency cepstral coefficients (card section 13)."""

import struct
from pathlib import Path

import numpy as np
from scipy.fft import dct

from tenfold.shared.errors import InputError

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
        features = mfcc(read_wav(path)).reshape(-1)
        low, high = features.min(), features.max()
        rows.append((features - low) / max(high - low, 1e-12))
    return np.stack(rows).astype(np.float32), np.array([k for k, _ in files]), names
