"""The folder of a network: its structure as JSON or YAML, and its weights (section 12)."""

import json
from pathlib import Path
from typing import Any

from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic
from tenfold.spaic.network.network import Network
from tenfold.spaic.saving.building import network_from_dict
from tenfold.spaic.saving.description import network_to_dict
from tenfold.spaic.saving.state import load_state, save_state


def network_save(net: Network, path: Path | str, trans_format: str = "json") -> Path:
    """Writes a network: its structure, and its weights beside it.

    Args:
        net: The network.
        path: The folder that is made.
        trans_format: json or yaml.

    Returns:
        The structure's file; `weights.safetensors` stands beside it.

    Raises:
        InputError: For another format, or a part that a file cannot hold.
    """
    if trans_format not in ("json", "yaml"):
        raise InputError(f"trans_format={trans_format!r}; expected 'json' or 'yaml'")
    net.prepare()
    made = network_to_dict(net)
    if trans_format == "json":
        text = json.dumps(made, indent=2)
    else:
        import yaml

        class Plain(yaml.SafeDumper):
            """Writes lists that occur twice twice: aliases are not read."""

            def ignore_aliases(self, data: Any) -> bool:
                return True

        text = yaml.dump(made, Dumper=Plain, sort_keys=False)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_state(net, folder / "weights.safetensors")
    file = folder / f"network.{trans_format}"
    write_atomic(file, text)
    return file


def network_load(path: Path | str, load_weight: bool = True) -> Network:
    """Reads a network that `network_save` wrote; nothing in the files can run code.

    Args:
        path: The folder; or the structure's file, whose weights lie beside it as
            `<stem>.safetensors` or `weights.safetensors`.
        load_weight: Whether the weights are read too.

    Raises:
        InputError: If the files are missing, damaged, or name what does not exist.
    """
    folder = Path(path)
    found = [folder / f"network.{ending}" for ending in ("json", "yaml")]
    if folder.suffix in (".json", ".yaml", ".yml"):
        folder, found = folder.parent, [folder]
    file = next((item for item in found if item.is_file()), None)
    if file is None:
        raise InputError(f"{path} holds no network.json or network.yaml")
    try:
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
        net = network_from_dict(made)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a network file ({error!r})") from error
    if load_weight:
        own = file.with_suffix(".safetensors")
        load_state(net, own if own.is_file() else folder / "weights.safetensors")
    return net
