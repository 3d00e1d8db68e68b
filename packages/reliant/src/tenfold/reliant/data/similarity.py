"""The similarity graph of the fairness benchmarks, rebuilt from the table alone, in chunks."""

from __future__ import annotations

import hashlib
import zipfile

import numpy as np
from platformdirs import user_cache_path
from scipy.spatial.distance import cdist

from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing
from tenfold.shared.progress import progress

ROWS_AT_ONCE = 512


def similarity_edges(x: np.ndarray, threshold: float, cache: bool = True) -> np.ndarray:
    """Joins each node to those that are nearly as similar as its most similar one.

    ``sim(i, j) = 1 / (1 + ||x_i - x_j||)``; with ``m_i`` the second largest entry of row ``i`` (the
    largest is ``sim(i, i)``), ``i -> j`` is an edge if ``j != i`` and ``sim(i, j) > threshold *
    m_i``. This gives the published edge files of Recidivism (0.6, 403,977 rows) and German (0.8,
    24,970 rows) and the smaller graph of Credit (0.7, 200,526 rows). Only ROWS_AT_ONCE rows of the
    matrix are held at a time.

    Args:
        x: float [N, d], raw attributes.
        threshold: share of ``m_i``, in (0, 1).
        cache: keep the result in the user's cache folder and take it from there.

    Returns:
        int64 [2, E], directed, sorted by source.

    Raises:
        InputError: for a threshold outside of (0, 1), another shape, or values that are not finite.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold={threshold}; expected a number between 0 and 1")
    try:
        x = np.ascontiguousarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"x: {error}; expected numbers [N, d]") from error
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise InputError(f"x: shape {list(x.shape)}; expected [N, d] with at least two nodes")
    if not np.isfinite(x).all():
        raise InputError("x has missing or infinite values; expected numbers")
    digest = hashlib.sha256(x.tobytes() + repr((x.shape, threshold)).encode()).hexdigest()[:32]
    path = user_cache_path("tenfold", appauthor=False) / "reliant" / f"edges-{digest}.npz"
    if cache and path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                edges: np.ndarray = stored["edges"].astype(np.int64)
                return edges
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # damaged: it is made again
    edges = _similarity_edges(x, threshold)
    if cache:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, edges=edges.astype(np.int32))
    return edges


def _similarity_edges(x: np.ndarray, threshold: float) -> np.ndarray:
    squares = np.square(x).sum(1)
    # Of whole numbers, a product gives the same distances to the last bit, and sooner.
    whole = bool((x % 1 == 0).all()) and float(squares.max()) < 2**50
    sources, targets = [], []
    with progress("similarity graph", total=len(x)) as bar:
        for start in range(0, len(x), ROWS_AT_ONCE):
            block = x[start : start + ROWS_AT_ONCE]
            rows = np.arange(len(block))
            if whole:
                similar = block @ x.T
                similar *= -2
                similar += squares
                similar += squares[start : start + len(block), None]
                np.sqrt(similar, out=similar)
            else:
                similar = cdist(block, x)
            similar += 1
            np.reciprocal(similar, out=similar)
            similar[rows, start + rows] = -1  # the largest of each row is left out
            source, target = (similar > threshold * similar.max(1, keepdims=True)).nonzero()
            sources.append(source + start)
            targets.append(target)
            bar.update(len(block))
    return np.stack([np.concatenate(sources), np.concatenate(targets)]).astype(np.int64)
