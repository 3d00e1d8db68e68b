"""The folder of a network: its structure as JSON or YAML, and its weights (section 12)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic
from tenfold.spaic.network.network import Network
from tenfold.spaic.saving.building import network_from_dict
from tenfold.spaic.saving.description import network_to_dict
from tenfold.spaic.saving.memory import MOST_BYTES, Memory, check_memory
from tenfold.spaic.saving.state import (
    all_shown,
    load_state,
    load_synapses,
    read_state,
    save_state,
    state_of,
)


def network_save(
    net: Network,
    path: Path | str | None = None,
    trans_format: str = "json",
    *,
    filename: str | None = None,
    combine: bool = False,
    save: bool = True,
    save_weight: bool = True,
) -> Any:
    """Writes a network: its structure, and its weights beside it.

    Torch modules of the layers in `saving.layers` are written out; other modules, functions and
    classes of your own by their names: `network_load` takes them again.

    Args:
        net: The network.
        path: The folder that is made; the current one if only a filename is given. A path that
            ends in .json, .yaml or .yml is the structure's file itself, with its weights beside
            it, unless there is a folder of this name.
        trans_format: json or yaml; a file's ending says so instead.
        filename: Makes `<path>/<filename>/<filename>.json` (or `.yml`), as the official front end
            does, instead of `<path>/network.json` (or `.yaml`).
        combine: Whether the weights stand in the structure's file too, as lists of numbers.
        save: Whether anything is written.
        save_weight: Whether the weights are.

    Returns:
        The structure's file, beside which stands `weights.safetensors` (or
        `<filename>.safetensors`); with `save=False` the structure as a dictionary.

    Raises:
        InputError: For another format, or a part that a file cannot hold.
    """
    if trans_format not in ("json", "yaml"):
        raise InputError(f"trans_format={trans_format!r}; expected 'json' or 'yaml'")
    if save and path is None and filename is None:
        raise InputError(f"{net!r}: give the path of a folder, or a filename")
    net.prepare()
    made = network_to_dict(net)
    if combine and save_weight:
        made["weights"] = {
            name: {"dtype": str(value.dtype).removeprefix("torch."), "values": value.tolist()}
            for name, value in state_of(net).items()
        }
    if not save:
        return made
    folder = Path(path or ".") / (filename or "")
    if filename is None and _names_a_file(folder):
        file, weights = folder, folder.with_suffix(".safetensors")
        trans_format = "json" if file.suffix == ".json" else "yaml"
    else:
        ending = "yml" if filename and trans_format == "yaml" else trans_format
        file = folder / f"{filename or 'network'}.{ending}"
        weights = folder / f"{filename or 'weights'}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    if save_weight and not combine:
        save_state(net, weights)
    write_atomic(file, _text(made, trans_format))
    return file


def _names_a_file(path: Path) -> bool:
    """Whether a path is a structure's file; a folder may have any name."""
    return path.suffix in (".json", ".yaml", ".yml") and not path.is_dir()


def _text(made: dict[str, Any], trans_format: str) -> str:
    if trans_format == "json":
        return json.dumps(made, indent=2)
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes lists that occur twice twice: aliases are not read."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(made, Dumper=Plain, sort_keys=False)
    return text


def network_load(
    path: Path | str | None = None,
    load_weight: bool = True,
    *,
    filename: str | None = None,
    device: str = "cpu",
    modules: Mapping[str, torch.nn.Module] | None = None,
    functions: Mapping[str, Any] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Network:
    """Reads a network that `network_save` wrote; nothing in the files can run code.

    Args:
        path: The folder; or the structure's file, whose weights lie beside it as
            `<stem>.safetensors` or `weights.safetensors`.
        load_weight: Whether the weights are read too; otherwise they are drawn anew, and given
            synapses, delays and biases stay.
        filename: As in `network_save`.
        device: Where the network runs.
        modules: The torch modules that the file holds by name only: name of the `Module` (of one
            inside an assembly, `assembly.name`) → its torch module. Layers of `saving.layers` are
            made from the file.
        functions: The functions and classes that the file holds by name only: name → function,
            for example the `distance_weight_function` of a link, a `Rule`, or a node of your own.
        most_bytes: What the network may take when it is built; a file of more is refused.

    Raises:
        InputError: If the files are missing, damaged, or name what does not exist or was not
            handed in.
    """
    folder = Path(path or ".") / (filename or "")
    found = [folder / f"{filename or 'network'}.{ending}" for ending in ("json", "yaml", "yml")]
    if filename is None and _names_a_file(folder):
        if not folder.is_file():
            raise InputError(f"there is no file {folder}")
        folder, found = folder.parent, [folder]
    file = next((item for item in found if item.is_file()), None)
    if file is None:
        raise InputError(f"{folder} holds no {found[0].name}, .yaml or .yml")
    with _telling(file):
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            made = json.loads(text)
        else:
            import yaml

            class Plain(yaml.SafeLoader):
                """Refuses aliases, by which a short file may stand for a gigantic one."""

                def compose_node(self, parent: Any, index: Any) -> Any:
                    if self.check_event(yaml.AliasEvent):
                        raise yaml.YAMLError("it holds aliases")
                    return super().compose_node(parent, index)

            try:
                made = yaml.load(text, Loader=Plain)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
        net = network_from_dict(made, modules, functions, most_bytes)
        weights = {
            name: torch.tensor(held["values"], dtype=_DTYPES[held["dtype"]])
            for name, held in made.get("weights", {}).items()
        }
    if device != "cpu":
        net.set_backend(device=device)
    own = file.with_suffix(".safetensors")
    beside = own if own.is_file() else folder / "weights.safetensors"
    try:
        if load_weight:
            load_state(net, weights or beside)
        else:
            load_synapses(net, weights or (read_state(beside) if beside.is_file() else {}))
        with all_shown(net):  # delays are the state's
            check_memory(net, Memory(most_bytes))
    except (MemoryError, RuntimeError) as error:
        raise InputError(f"{file}: the network cannot be built ({error})") from error
    return net


@contextmanager
def _telling(file: Path) -> Iterator[None]:
    """Turns what a damaged or hostile file makes of its readers into one kind of error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except KeyError as error:
        raise InputError(f"{file}: not a network file (it lacks {error})") from error
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a network file ({told})") from error


_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}
