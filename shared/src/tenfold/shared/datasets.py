"""Where data lies, how it is fetched and checked, and how archives are unpacked safely.

Each data set has one folder under the data root, with the official file names inside. The root is
`TENFOLD_DATA` if that is set, else the platform's folder for a user's data.
"""

import dataclasses
import os
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from tenfold.shared.errors import InputError, UnavailableError
from tenfold.shared.progress import message, progress

State = Literal["ok", "present", "missing", "wrong hash"]
"""`present` means that the file is there and its checksum was not looked at."""


@dataclasses.dataclass(frozen=True)
class File:
    """One official file of a data set."""

    name: str
    """The path inside the data set's folder, with `/`."""
    url: str
    """Where it is downloaded; empty if it can only be had by hand."""
    sha256: str | None
    """The checksum; None only where nobody knows it."""
    size: int | None = None
    """The size in bytes."""
    unpack: bool = False
    """Whether it is an archive whose members belong into the folder."""
    provides: tuple[str, ...] = ()
    """What unpacking gives; with these in place the archive itself may be deleted."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set: its folder under the data root and its official files."""

    name: str
    title: str
    folder: str
    files: tuple[File, ...]
    licence: str
    homepage: str
    needs_acceptance: bool = False
    note: str = ""
    package: str = "<package>"
    """The package's name in the command line, for the advice in messages."""


@dataclasses.dataclass(frozen=True)
class FileStatus:
    """What was found in the place of one file."""

    file: str
    path: Path
    state: State
    expected: str | None = None
    found: str | None = None


def data_root() -> Path:
    """Gives the folder that holds all data sets: `TENFOLD_DATA`, else the user's data folder."""
    from platformdirs import user_data_path

    given = os.environ.get("TENFOLD_DATA")
    return Path(given).expanduser() if given else user_data_path("tenfold", appauthor=False)


def locate(ds: Dataset) -> Path:
    """Finds a data set that is in place.

    Args:
        ds: The data set.

    Returns:
        Its folder, which holds all the official files.

    Raises:
        InputError: If files are missing; it names each with its URL and where it belongs.
    """
    missing = [item for item in status(ds) if item.state == "missing"]
    if missing:
        urls = {file.name: file.url or ds.homepage for file in ds.files}
        where = "; ".join(f"{item.path} (from {urls[item.file]})" for item in missing)
        command = f"tenfold {ds.package} data fetch {ds.name}"
        raise InputError(f"data set {ds.name!r} lacks {where}; fetch it with `{command}`")
    return data_root() / ds.folder


def status(ds: Dataset) -> list[FileStatus]:
    """Says for each file whether it is there, without reading it.

    Args:
        ds: The data set.
    """
    folder = data_root() / ds.folder
    found = []
    for file in ds.files:
        there = (folder / file.name).is_file() or _is_unpacked(file, folder)
        state: State = "present" if there else "missing"
        found.append(FileStatus(file.name, folder / file.name, state, file.sha256))
    return found


def verify(ds: Dataset) -> list[FileStatus]:
    """Says for each file whether it is there and has its checksum.

    Args:
        ds: The data set.
    """
    import pooch

    found = []
    for item in status(ds):
        if item.path.is_file() and item.expected is not None:
            digest = pooch.file_hash(str(item.path))
            state: State = "ok" if digest == item.expected else "wrong hash"
            item = dataclasses.replace(item, state=state, found=digest)
        found.append(item)
    return found


def fetch(ds: Dataset, accept_licence: bool = False) -> Path:
    """Downloads what is missing, checks it, unpacks archives.

    A partial download stays as `<name>.part` and is resumed. Files that are there are not touched,
    except that a file with a wrong checksum is refused.

    Args:
        ds: The data set.
        accept_licence: The user's word for a data set with `needs_acceptance`.

    Returns:
        The data set's folder.

    Raises:
        InputError: If the licence must be accepted first, a file can only be had by hand, or a
            file that is there has a wrong checksum.
        UnavailableError: If the server cannot be reached or sends something else.
    """
    folder = data_root() / ds.folder
    found = {item.file: item for item in verify(ds)}
    wrong = [item for item in found.values() if item.state == "wrong hash"]
    if wrong:
        each = (f"{item.path}: expected {item.expected}, found {item.found}" for item in wrong)
        raise InputError(f"wrong sha256 of {'; '.join(each)}; move it away and fetch again")
    wanted = [file for file in ds.files if found[file.name].state == "missing"]
    if wanted and ds.needs_acceptance and not accept_licence:
        raise InputError(
            f"data set {ds.name!r} needs you to accept its licence: {ds.licence} ({ds.homepage}); "
            f"then run `tenfold {ds.package} data fetch {ds.name} --accept-licence`"
        )
    by_hand = [str(folder / file.name) for file in wanted if not file.url]
    if by_hand:
        raise InputError(f"download by hand from {ds.homepage} and put into: {', '.join(by_hand)}")
    for file in wanted:
        message(f"{ds.name}: fetching {file.url}")
        _download(file, folder / file.name)
    for file in ds.files:
        if file.unpack and not _is_unpacked(file, folder):
            unpack(folder / file.name, folder)
    return folder


def _is_unpacked(file: File, folder: Path) -> bool:
    """Says whether everything that an archive gives is in place."""
    return bool(file.provides) and all((folder / name).exists() for name in file.provides)


def _download(file: File, path: Path) -> None:
    """Downloads one file; pooch checks it and moves it into place, but cannot resume."""
    import pooch
    import requests

    part = path.with_name(path.name + ".part")

    def resume(url: str, output_file: str, _: object) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            if answer.status_code != 416:  # nothing is left: the part is whole, or not ours
                answer.raise_for_status()
                resumed = answer.status_code == 206
                start = have if resumed else 0
                rest = answer.headers.get("Content-Length")
                total = start + int(rest) if rest else file.size
                mode = "ab" if resumed else "wb"
                with part.open(mode) as target, progress(path.name, total) as bar:
                    bar.update(start)
                    for chunk in answer.iter_content(1 << 16):
                        bar.update(target.write(chunk))
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")
    known = f"sha256:{file.sha256}" if file.sha256 else None
    try:
        pooch.retrieve(file.url, known, path.name, path.parent, downloader=resume)
    except (OSError, ValueError) as error:  # of requests, of the disk; of pooch: the checksum
        raise UnavailableError(
            f"{file.url} could not be downloaded ({type(error).__name__}: {error}); try again, or "
            f"put the file into {path} by hand"
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive; nothing is put into the folder unless all of it is sound.

    Args:
        archive: The file; any compression that zipfile and tarfile know.
        folder: Where the members go; files of the same names are replaced.

    Raises:
        InputError: If a member would leave the folder, is a device or a link out of the folder,
            or the archive is damaged or of another kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as temporary:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as zipped:
                    _check_names(zipped.namelist())
                    zipped.extractall(temporary)  # a link becomes a file that holds its target
            else:
                with tarfile.open(archive) as tarred:
                    _check_names(tarred.getnames())
                    tarred.extractall(temporary, filter="data")
        except Exception as error:  # each compression has its own for a damaged archive
            raise InputError(f"{archive} cannot be unpacked: {error}") from error
        for path in sorted(Path(temporary).rglob("*")):
            target = folder / path.relative_to(temporary)
            if path.is_dir() and not path.is_symlink():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)


def _check_names(members: list[str]) -> None:
    """Refuses paths that leave the folder on any system, which zipfile would bend silently."""
    for name in members:
        if re.search(r"^$|^/|[\\\0]|^[A-Za-z]:|(^|/)\.\.(/|$)", name):
            raise ValueError(f"member {name!r} would leave the folder")
