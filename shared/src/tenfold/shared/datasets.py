"""Where data lies, how it is fetched and checked, and how archives are unpacked safely.

Each data set has one folder under the data root, with the official file names inside. The root is
`TENFOLD_DATA` if that is set, else the platform's folder for a user's data.
"""

import dataclasses
import os
import re
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from tenfold.shared.errors import InputError, UnavailableError
from tenfold.shared.progress import message, progress

_CHUNK = 1 << 20


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

    def __post_init__(self) -> None:
        """Checks the declaration."""
        for name in (self.name, *self.provides):
            if not _is_inside(name):
                raise ValueError(f"file name {name!r} must be a relative path inside the folder")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 of {self.name!r} must be 64 lower-case hexadecimal digits")


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
    state: Literal["ok", "present", "missing", "wrong hash"]
    """`present` means that the file is there and its checksum was not looked at."""
    expected: str | None = None
    found: str | None = None


def data_root() -> Path:
    """Gives the folder that holds all data sets: `TENFOLD_DATA`, else the user's data folder."""
    given = os.environ.get("TENFOLD_DATA")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("tenfold", appauthor=False)


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
        state: Literal["present", "missing"] = "present" if there else "missing"
        found.append(FileStatus(file.name, folder / file.name, state, file.sha256))
    return found


def verify(ds: Dataset) -> list[FileStatus]:
    """Says for each file whether it is there and has its checksum.

    Args:
        ds: The data set.
    """
    found = []
    for item in status(ds):
        if item.path.is_file() and item.expected is not None:
            digest = _sha256(item.path)
            state: Literal["ok", "wrong hash"] = "ok" if digest == item.expected else "wrong hash"
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
    wrong = [item for item in verify(ds) if item.state == "wrong hash"]
    if wrong:
        each = (f"{item.path}: expected {item.expected}, found {item.found}" for item in wrong)
        raise InputError(f"wrong sha256 of {'; '.join(each)}; move it away and fetch again")
    missing = [item.file for item in status(ds) if item.state == "missing"]
    wanted = [file for file in ds.files if file.name in missing]
    if wanted and ds.needs_acceptance and not accept_licence:
        raise InputError(
            f"data set {ds.name!r} needs you to accept its licence: {ds.licence} ({ds.homepage}); "
            f"then run `tenfold {ds.package} data fetch {ds.name} --accept-licence`"
        )
    by_hand = [str(folder / file.name) for file in wanted if not file.url]
    if by_hand:
        raise InputError(f"download by hand from {ds.homepage} and put into: {', '.join(by_hand)}")
    for file in ds.files:
        if file in wanted:
            message(f"{ds.name}: fetching {file.url}")
            _download(file, folder / file.name)
        if file.unpack and not _is_unpacked(file, folder):
            unpack(folder / file.name, folder)
    return folder


def _is_unpacked(file: File, folder: Path) -> bool:
    """Says whether everything that an archive gives is in place."""
    return bool(file.provides) and all((folder / name).exists() for name in file.provides)


def _download(file: File, path: Path) -> None:
    """Downloads one file, through pooch for the checksum and the move into place."""
    import pooch
    import requests

    part = path.with_name(path.name + ".part")

    def resume(url: str, output_file: str, _: object) -> None:
        _continue(url, part, file)
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")
    path.parent.mkdir(parents=True, exist_ok=True)
    hint = f"or put the file into {path} by hand"
    try:
        known = f"sha256:{file.sha256}" if file.sha256 else None
        pooch.retrieve(file.url, known, fname=path.name, path=path.parent, downloader=resume)
    except requests.HTTPError as error:
        raise UnavailableError(f"{file.url}: the server says {error}; {hint}") from error
    except (requests.RequestException, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnavailableError(
            f"{file.url} could not be downloaded; try again {hint} ({reason})"
        ) from error
    except ValueError as error:  # pooch: the checksum
        raise UnavailableError(f"{file.url} is not the expected file: {error}; {hint}") from error


def _continue(url: str, part: Path, file: File) -> None:
    """Downloads to a partial file, from where an earlier attempt ended if the server can."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == 416:  # nothing is left: the part is whole, or not ours
            return
        answer.raise_for_status()
        resumed = answer.status_code == 206
        start = have if resumed else 0
        rest = answer.headers.get("Content-Length")
        total = start + int(rest) if rest else file.size
        with part.open("ab" if resumed else "wb") as target, progress(part.stem, total) as bar:
            bar.update(start)
            for chunk in answer.iter_content(1 << 16):
                target.write(chunk)
                bar.update(len(chunk))
            target.flush()
            os.fsync(target.fileno())
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"ended after {part.stat().st_size} of {total} bytes")


def _sha256(path: Path) -> str:
    """Computes a file's checksum."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, folder: Path, limit: int = 1 << 40) -> None:
    """Unpacks a zip or tar archive; nothing is put into the folder unless all of it is sound.

    Args:
        archive: The file; any compression that zipfile and tarfile know.
        folder: Where the members go; files of the same names are replaced.
        limit: The most bytes that the members may have in all. Archives that grow more than a
            thousandfold (and beyond 1 GiB) are refused too.

    Raises:
        InputError: If a member would leave the folder or is a link or device, the members are too
            large, or the archive is damaged or of another kind.
    """
    limit = min(limit, max(1 << 30, 1000 * archive.stat().st_size))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as temporary:
        written = 0
        try:
            for name, source in _members(archive):
                target = Path(temporary, *PurePosixPath(name).parts)
                if source is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as file:
                    while chunk := source.read(_CHUNK):
                        written += len(chunk)
                        if written > limit:
                            raise InputError(f"{archive}: its members have more than {limit} bytes")
                        file.write(chunk)
        except InputError:
            raise
        except _unpacking_errors() as error:
            raise InputError(f"{archive} cannot be unpacked: {error}") from error
        for path in sorted(Path(temporary).rglob("*")):
            target = folder / path.relative_to(temporary)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)


def _unpacking_errors() -> tuple[type[Exception], ...]:
    """Gives the errors that mean: the archive is damaged, encrypted, or cannot be written out."""
    import lzma
    import zlib

    damage = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
    return (*damage, OSError, RuntimeError, NotImplementedError, ValueError)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yields each member's name and content (None for a folder), or refuses the archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise InputError(f"{archive}: member {info.filename!r} is a link or a device")
                _check_member(archive, info.filename)
                yield info.filename, None if info.is_dir() else opened.open(info)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    raise InputError(f"{archive}: member {member.name!r} is a link or a device")
                _check_member(archive, member.name)
                yield member.name, None if member.isdir() else tar.extractfile(member)
    else:
        raise InputError(f"{archive}: neither a zip nor a tar archive")


def _check_member(archive: Path, name: str) -> None:
    """Refuses a member whose path leaves the folder."""
    if not _is_inside(name):
        raise InputError(f"{archive}: member {name!r} would leave the folder")


def _is_inside(name: str) -> bool:
    """Says whether a path with `/` stays inside the folder that it is relative to, everywhere."""
    plain = bool(name) and not re.search(r"[\\\0]|^[A-Za-z]:", name)
    return plain and not name.startswith("/") and ".." not in PurePosixPath(name).parts
