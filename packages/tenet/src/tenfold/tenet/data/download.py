"""Downloads a part of a split, scenario by scenario, from the listing of the official bucket."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from tenfold.shared.datasets import data_root
from tenfold.shared.errors import InputError, UnavailableError
from tenfold.shared.files import write_atomic
from tenfold.shared.progress import message, progress
from tenfold.tenet.data.index import FOLDER, catalogue

BUCKET_URL = "https://s3.amazonaws.com/argoverse"
"""The public bucket; it is listed and read without an account."""
PREFIX = "datasets/av2/motion-forecasting"
_NAME = re.compile(r"([\w-]+)/(scenario_\1\.parquet|log_map_archive_\1\.json)")
_SECONDS = 30  # without an answer


@dataclass(frozen=True)
class Listed:
    """One file of the bucket."""

    name: str
    """``<scenario id>/<file>``."""
    size: int
    md5: str | None
    """None for files that were uploaded in parts, whose tag is no checksum."""


def list_split(split: str) -> Iterator[Listed]:
    """Lists the scenario files of a split, by name, page by page as they are asked for.

    Args:
        split: train, val or test.

    Raises:
        UnavailableError: If the bucket does not answer, or not with a listing.
    """
    prefix = f"{PREFIX}/{split}/"
    query = {"list-type": "2", "prefix": prefix}
    while True:
        entries, following = _parse(_get(BUCKET_URL, query))
        for key, size, tag in entries:
            name = key.removeprefix(prefix)
            if _NAME.fullmatch(name):  # anything else, such as a path that leaves the folder
                yield Listed(name, size, tag if re.fullmatch(r"[0-9a-f]{32}", tag) else None)
        if not following:
            return
        query["continuation-token"] = following


def _parse(answer: bytes) -> tuple[list[tuple[str, int, str]], str | None]:
    """Reads a page of a listing: key, size, tag of its entries, and where the next page begins."""
    try:
        page = ElementTree.fromstring(answer)
        entries = [
            (
                item.findtext("{*}Key", ""),
                int(item.findtext("{*}Size", "")),
                item.findtext("{*}ETag", "").strip('"'),
            )
            for item in page.iterfind("{*}Contents")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise UnavailableError(f"{BUCKET_URL}: not the listing of a bucket: {error}") from error
    return entries, page.findtext("{*}NextContinuationToken")


def fetch_scenarios(
    split: str, limit: int, accept_licence: bool = False, workers: int = 8
) -> tuple[Path, int]:
    """Downloads the first scenarios of a split; files that are there with their size are kept.

    Each file is checked by its size and, where the listing has one, its MD5, and written at once:
    whenever this is broken off, it goes on where it was.

    Args:
        split: train, val or test.
        limit: How many scenarios.
        accept_licence: The user's word for the licence.
        workers: Downloads at the same time.

    Returns:
        The folder of the split, and how many files were downloaded.

    Raises:
        InputError: If the licence is not accepted.
        UnavailableError: If the bucket does not answer, or a file comes with other content.
    """
    if limit < 1 or workers < 1:
        raise InputError(f"limit={limit}, workers={workers}; expected >= 1")
    licence = catalogue()[split].licence
    if not accept_licence:
        raise InputError(f"{split} has the licence {licence}; add --accept-licence to accept it")
    folder = data_root() / FOLDER / split
    wanted = []
    scenarios = groupby(list_split(split), key=lambda item: item.name.partition("/")[0])
    for count, (_, files) in enumerate(scenarios):
        if count == limit:
            break
        wanted += [item for item in files if not _is_there(folder / item.name, item)]
    message(f"{split}: fetching {len(wanted)} files into {folder}")
    with ThreadPoolExecutor(workers) as pool, progress("fetching", total=len(wanted)) as bar:
        tasks = [pool.submit(_fetch, split, item, folder / item.name) for item in wanted]
        try:
            for task in as_completed(tasks):
                task.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return folder, len(wanted)


def _is_there(path: Path, item: Listed) -> bool:
    """Says whether a file is in place; its content is the matter of `data verify`."""
    return path.is_file() and path.stat().st_size == item.size


def _fetch(split: str, item: Listed, path: Path) -> None:
    """Downloads and checks one file."""
    url = f"{BUCKET_URL}/{PREFIX}/{split}/{item.name}"
    content = _get(url)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if len(content) != item.size or item.md5 not in (None, md5):
        raise UnavailableError(
            f"{url}: {len(content)} bytes with MD5 {md5} came; the listing says {item.size} bytes "
            f"with MD5 {item.md5}; try again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)


def _get(url: str, query: dict[str, str] | None = None) -> bytes:
    """Reads a URL whole."""
    import requests

    try:
        with requests.get(url, params=query, timeout=_SECONDS) as answer:
            answer.raise_for_status()
            return answer.content
    except requests.RequestException as error:
        raise UnavailableError(f"{url} could not be read ({error}); try again") from error
