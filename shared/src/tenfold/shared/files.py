"""Writing a file so that a crash at any moment leaves the old one or the new one, whole."""

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file by way of a temporary file beside it, flushed to the disk and renamed.

    Args:
        path: The file; its folder is made if need be.
        content: The bytes, or text for UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's own entries to the disk, where the system can (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
