"""Typed dataclasses from and to TOML, the recipes of a package, and strict JSON.

A run is described by one frozen dataclass. Its TOML form holds the same names; a field that is
`None` is left out, so a field that may be `None` must have `None` as its default.
"""

import dataclasses
import datetime
import enum
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from tenfold.shared.errors import InputError, did_you_mean

T = TypeVar("T")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], source: str = "configuration") -> T:
    """Makes a dataclass from a mapping of plain values, checking every name and type.

    Args:
        cls: The dataclass. Its fields are bool, int, float, str, Path, Literal, an enum, lists,
            tuples and dicts of these, other dataclasses, and unions (`X | None`) of these.
        mapping: Field name → value, as TOML or JSON gives it.
        source: Where the mapping comes from; it begins each error message.

    Returns:
        An instance of `cls`; fields that are not in the mapping have their defaults.

    Raises:
        InputError: For an unknown name, a missing field without a default, a wrong type.
    """
    values = check_fields(cls, mapping, source)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        missing = dataclasses.MISSING
        if field.name not in values and field.default is field.default_factory is missing:
            raise InputError(f"{source}: {field.name!r} is missing")
    try:
        return cls(**values)
    except InputError:
        raise
    except ValueError as error:  # from the dataclass's own __post_init__
        raise InputError(f"{source}: {error}") from error


def check_fields(cls: type[Any], mapping: Mapping[str, Any], source: str) -> dict[str, Any]:
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
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    values = {}
    for name, value in mapping.items():
        if name not in names:
            raise InputError(f"{source}: {did_you_mean(name, names, kind='key')}")
        values[name] = _convert(value, hints[name], f"{source}: {name}")
    return values


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Converts one plain value to the type `hint`, or raises an InputError that names `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    wrong = InputError(f"{where}: expected {_describe(hint)}, got {value!r}")
    if hint is Any:
        return value
    if origin is typing.Annotated:
        return _convert(value, args[0], where)
    if origin is Literal:
        for choice in args:
            if value == choice and type(value) is type(choice):
                return choice
        raise wrong
    if origin in (Union, types.UnionType):
        options = [option for option in args if option is not type(None)]
        if value is None and len(options) < len(args):
            return None
        if len(options) == 1:  # `X | None`: what is wrong with X says most
            return _convert(value, options[0], where)
        for option in sorted(options, key=lambda kind: type(value) is not kind):
            try:
                return _convert(value, option, where)
            except InputError:
                continue
        raise wrong
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_mapping(hint, value, where)
        raise wrong
    if origin in (list, tuple, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise wrong
        each = args[:1] * len(value) if origin is not tuple or args[-1] is ... else args
        if len(each) != len(value):
            raise wrong
        pairs = enumerate(zip(value, each, strict=True))
        items = [_convert(item, kind, f"{where}[{i}]") for i, (item, kind) in pairs]
        return tuple(items) if origin is tuple else items
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(item, args[1], f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type):
        if hint is float and type(value) in (int, float):
            return float(value)
        if hint is Path and isinstance(value, str | Path):
            return Path(value)
        if issubclass(hint, enum.Enum) and value in [member.value for member in hint]:
            return hint(value)
        if type(value) is hint:
            return value
    raise wrong


def _describe(hint: Any) -> str:
    """Names a type the way a user would."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def read_mapping(path: Path | Traversable) -> dict[str, Any]:
    """Reads a TOML file as a mapping of plain values.

    Args:
        path: The file.

    Raises:
        InputError: If there is no such file or it is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); a TOML file goes here"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error


def read_toml(cls: type[T], path: Path | Traversable) -> T:
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

    from tenfold.shared.files import write_atomic

    write_atomic(path, tomli_w.dumps(_plain(config)).encode())


def _plain(value: Any) -> Any:
    """Converts a configuration value to what TOML holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        table = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if item is not None:
                table[field.name] = _plain(item)
            elif field.default is not None:
                raise TypeError(f"{field.name} is None: give this field None as its default")
        return table
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def resource_folder(package: str) -> Traversable:
    """Finds the installed files of a package, e.g. those of `tenfold.l2w_den` for `l2w-den`.

    Args:
        package: The name in the command line.

    Raises:
        InputError: If the package is not installed.
    """
    from importlib.resources import files

    try:
        return files(f"tenfold.{package.replace('-', '_')}")
    except ModuleNotFoundError as error:
        raise InputError(f"no package {package!r} here; install tenfold-{package}") from error


def recipes(package: str) -> dict[str, Traversable]:
    """Finds the recipes that a package brings: name → TOML file.

    Args:
        package: The name in the command line, e.g. `"ccgc"`; its files are `recipes/*.toml`.
    """
    folder = resource_folder(package) / "recipes"
    if not folder.is_dir():
        return {}
    found = {item.name.removesuffix(".toml"): item for item in folder.iterdir()}
    return {name: found[name] for name in sorted(found) if found[name].name.endswith(".toml")}


def find_recipe(package: str, name_or_path: str) -> Path | Traversable:
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
        value: Plain values, dataclasses, enums, paths, dates, NumPy and torch scalars and arrays.
        indent: Spaces a level; `None` for one line.

    Raises:
        TypeError: For a value that has no JSON form.
    """
    return json.dumps(_json_value(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    """Converts a value to what JSON holds."""
    if value is None or isinstance(value, bool | str | int):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _json_value(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return _json_value(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays, without importing either
        return _json_value(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")
