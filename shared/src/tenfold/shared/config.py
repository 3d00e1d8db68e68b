"""Typed dataclasses from and to TOML, the recipes of a package, and strict JSON.

A run is described by one frozen dataclass. Its TOML form holds the same names; a field that is
`None` is left out, so a field that may be `None` must have `None` as its default.
"""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.files import write_atomic

T = TypeVar("T")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], source: str = "configuration") -> T:
    """Makes a dataclass from a mapping of plain values, checking every name and type.

    Args:
        cls: The dataclass. Its fields are bool, int, float, str, Path, Literal, lists and tuples
            of these, other dataclasses, and unions (`X | None`) of these.
        mapping: Field name → value, as TOML or JSON gives it.
        source: Where the mapping comes from; it begins each error message.

    Returns:
        An instance of `cls`; fields that are not in the mapping have their defaults.

    Raises:
        InputError: For an unknown name, a missing field without a default, a wrong type, and
            whatever ValueError the dataclass itself raises.
    """
    values = check_fields(cls, mapping, source)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory:
            raise InputError(f"{source}: {field.name!r} is missing")  # it has neither
    try:
        return cls(**values)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error


def check_fields(cls: Any, mapping: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Converts the values of a mapping to the types of a dataclass's fields; it may be partial.

    Args:
        cls: The dataclass.
        mapping: Field name → plain value.
        source: Where the mapping comes from; it begins each error message.

    Returns:
        Field name → value of the field's type, for the names in `mapping`.

    Raises:
        InputError: For an unknown name or a wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    values = {}
    for name, value in mapping.items():
        if name not in names:
            raise InputError(f"{source}: {did_you_mean(name, names, kind='key')}")
        kind, plain = TypeAdapter(hints[name]), json.dumps(value, default=str)
        try:  # JSON, in which a list may be a tuple and text a path, but "1" is no number
            values[name] = kind.validate_json(plain, strict=True, extra="forbid")
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, (name, *item['loc'])))}: {item['msg']}, got {item['input']!r}"
                for item in error.errors()
            )
            raise InputError(f"{source}: {wrong}") from error
    return values


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a TOML file as a mapping of plain values.

    Args:
        path: The file.

    Raises:
        InputError: If there is no such file or it is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error


def read_toml(cls: type[T], path: Path) -> T:
    """Reads a dataclass from a TOML file of its fields.

    Args:
        cls: The dataclass.
        path: The file.

    Raises:
        InputError: As `from_mapping` and `read_mapping` do; the message begins with the path.
    """
    return from_mapping(cls, read_mapping(path), str(path))


def write_toml(config: Any, path: Path) -> None:
    """Writes a dataclass as a TOML file that `read_toml` turns into an equal one, atomically.

    Args:
        config: The dataclass instance.
        path: The file.

    Raises:
        TypeError: If a field is None although its default is not: TOML has no None, so reading
            the file back would give another configuration.
    """
    import tomli_w
    from pydantic import TypeAdapter

    for field in dataclasses.fields(config):
        if getattr(config, field.name) is None and field.default is not None:
            raise TypeError(f"{field.name} is None: give this field None as its default")
    kind = TypeAdapter(type(config))
    table = kind.dump_python(config, mode="json", exclude_none=True, warnings=False)
    write_atomic(path, tomli_w.dumps(table))


def resource_folder(package: str) -> Path:
    """Finds the installed files of a package, e.g. those of `tenfold.l2w_den` for `l2w-den`.

    Args:
        package: The name in the command line.

    Raises:
        InputError: If the package is not installed.
    """
    from importlib.resources import files

    try:
        return Path(str(files(f"tenfold.{package.replace('-', '_')}")))
    except ModuleNotFoundError as error:
        raise InputError(f"no package {package!r} here; install tenfold-{package}") from error


def recipes(package: str) -> dict[str, Path]:
    """Finds the recipes that a package brings: name → TOML file.

    Args:
        package: The name in the command line, e.g. `"ccgc"`; its files are `recipes/*.toml`.
    """
    return {path.stem: path for path in sorted(resource_folder(package).glob("recipes/*.toml"))}


def find_recipe(package: str, name_or_path: str) -> Path:
    """Finds a recipe by its name in the package or by the path of a TOML file.

    Args:
        package: The name in the command line.
        name_or_path: A name such as `cora`, or a path that ends in `.toml`.

    Raises:
        InputError: If the package has no recipe of this name.
    """
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    known = recipes(package)
    if name_or_path not in known:
        hint = did_you_mean(name_or_path, known, kind=f"{package} recipe")
        raise InputError(f"{hint}; or give the path of a .toml file")
    return known[name_or_path]


def load_recipe(cls: type[T], package: str, name_or_path: str) -> T:
    """Reads a recipe as the dataclass that describes a run.

    Args:
        cls: The dataclass.
        package: The name in the command line.
        name_or_path: A recipe's name, or a path that ends in `.toml`.

    Raises:
        InputError: If there is no such recipe, or it does not fit the dataclass.
    """
    return read_toml(cls, find_recipe(package, name_or_path))


def to_json(value: Any, indent: int | None = None) -> str:
    """Writes strict JSON: NaN and infinities become null, scientific types become plain ones.

    Args:
        value: Plain values, dataclasses, paths, dates, NumPy and torch scalars and arrays.
        indent: Spaces a level; `None` for one line.

    Raises:
        TypeError: For a value that has no JSON form.
    """
    from pydantic_core import PydanticSerializationError
    from pydantic_core import to_json as write

    try:  # NumPy and torch scalars and arrays have `tolist`
        made = write(value, indent=indent, inf_nan_mode="null", fallback=lambda item: item.tolist())
    except (AttributeError, PydanticSerializationError) as error:
        raise TypeError(f"no JSON form: {error}") from error
    return made.decode()
