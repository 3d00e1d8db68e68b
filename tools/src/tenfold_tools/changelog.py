"""The CHANGELOG of a member, in the form of keepachangelog.com."""

import datetime
import re

from tenfold_tools.errors import InputError

_UNRELEASED = re.compile(r"^## \[?unreleased\]?[ \t]*$", re.IGNORECASE | re.MULTILINE)
_SECTION = re.compile(r"^## |^\[[^\]]+\]: ", re.MULTILINE)


def move_unreleased(text: str, version: str, date: datetime.date, where: str) -> str:
    """Makes the section "Unreleased" the section of a version, below a new empty one.

    Args:
        text: The CHANGELOG.
        version: The version that is released.
        date: The day.
        where: What the file is called in messages.

    Returns:
        The new CHANGELOG.

    Raises:
        InputError: If there is no such section, it says nothing, or the version has one already.
    """
    heading = _UNRELEASED.search(text)
    if heading is None:
        raise InputError(f"{where}: there is no section `## [Unreleased]`")
    if re.search(rf"^## \[?{re.escape(version)}\]?( |$)", text, re.MULTILINE):
        raise InputError(f"{where}: there is a section for {version} already")
    following = _SECTION.search(text, heading.end())
    end = following.start() if following else len(text)
    body = text[heading.end() : end]
    if not any(line.strip() and not line.startswith("#") for line in body.splitlines()):
        raise InputError(f"{where}: the section `## [Unreleased]` is empty; say what has changed")
    rest = text[end:]
    moved = f"## [Unreleased]\n\n## [{version}] - {date:%Y-%m-%d}\n\n{body.strip()}\n"
    return text[: heading.start()] + moved + (f"\n{rest}" if rest else "")
