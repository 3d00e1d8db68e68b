"""What an HDF5 file of a stranger may hold (section 12)."""

from typing import Any

from tenfold.shared.errors import InputError


def package() -> Any:
    """Gives the package h5py.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError("HDF5 needs h5py: install tenfold-spaic[hdf5]") from error
    return h5py


def check(file: Any, most: int) -> None:
    """Looks at all that is declared, before anything of it is read.

    A dataset of any size may be declared without a value of it being there, and a link may lead
    into another file.

    Args:
        file: The open file.
        most: As many bytes its datasets may have together.

    Raises:
        InputError: For more bytes, for what lies in another file, for what has several names.
    """
    h5py, total, groups = package(), 0, [file]
    while groups:
        group = groups.pop()
        for key in group:
            name, link = (
                f"{file.filename}: {group.name.rstrip('/')}/{key}",
                group.get(key, getlink=True),
            )
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{name} is a {type(link).__name__}; expected what is in the file")
            part = group[key]
            if h5py.h5o.get_info(part.id).rc > 1:  # groups might also lie in themselves
                raise InputError(f"{name} has several names")
            if isinstance(part, h5py.Group):
                groups.append(part)
            elif isinstance(part, h5py.Dataset):
                if part.external or part.is_virtual:
                    raise InputError(f"{name} has its values in another file")
                total += part.nbytes
                if total > most:
                    raise InputError(f"{name}: the file declares {total:,} bytes; at most {most:,}")
