"""Devices, precision, seeds and distribution, through Lightning Fabric.

A training loop asks once for a Fabric and then runs unchanged on a CPU, a GPU, many GPUs or many
machines. This module imports torch only when one of its functions is called.
"""

import os
import platform
import random
import re
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fabric(
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
    strategy: str = "auto",
) -> "Fabric":
    """Gives a launched Fabric: `setup` models and optimisers with it, `backward` through it.

    Args:
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `mps`.
        devices: How many devices on each machine; on a CPU, how many processes.
        num_nodes: How many machines.
        precision: `32-true`, `bf16-mixed`, or another of Fabric's; those of float16 need a GPU.
        strategy: A Fabric strategy such as `ddp`; `auto` chooses by the number of devices.

    Returns:
        The Fabric; with several devices this process is one of several that run the same code.

    Raises:
        InputError: If this machine cannot do what is asked for.
    """
    import logging
    import warnings

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning_fabric\..*")
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    wish = {"devices": devices, "num_nodes": num_nodes, "precision": precision}
    try:
        made = Fabric(accelerator=device, strategy=strategy, **wish)  # type: ignore[arg-type]
    except (ImportError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise InputError(f"device {device!r}, {wish}: {error}") from error
    if made.device.type == "cpu" and precision.startswith("16"):  # Fabric would take another one
        raise InputError(f"precision {precision!r} needs a GPU; a CPU has 'bf16-mixed' instead")
    made.launch()
    return made


def is_main_process() -> bool:
    """Says whether this is the process that writes files and prints; true outside of a launch."""
    ranks = ("RANK",) if "RANK" in os.environ else ("NODE_RANK", "LOCAL_RANK")
    return all(os.environ.get(name, "0") in ("", "0") for name in ranks)


def seed_everything(seed: int) -> None:
    """Seeds the random generators of Python, NumPy and torch (all devices, data workers too).

    Args:
        seed: From 0 to 2³² − 1.

    Raises:
        InputError: If the seed is outside of that range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 4294967295, got {seed}")
    from lightning_fabric import seed_everything as seed_all

    seed_all(seed, workers=True, verbose=False)


def random_state() -> dict[str, Any]:
    """Gives the state of all random generators, in a form that a checkpoint can hold."""
    import numpy as np
    import torch

    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is the point
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype("int64")), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` gave, so that a resumed run draws the same numbers.

    Args:
        state: From `random_state`, possibly through a checkpoint.
    """
    import numpy as np
    import torch

    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype("uint32"), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def environment() -> dict[str, Any]:
    """Describes the machine and the software, for a run's `environment.json` and `doctor`.

    Returns:
        Plain values: `python`, `platform`, `cpu`, `cores`, `memory_gib`, `gpus` (their names),
        `cuda` (version or None), `packages` (name → version), `git_commit` (or None).
    """
    import torch

    names = {dist.name.lower() for dist in metadata.distributions()}
    told = [n for n in sorted(names) if re.fullmatch("torch|numpy|lightning-fabric|tenfold-.*", n)]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "gpus": gpus or ["Apple GPU"] * torch.backends.mps.is_available(),
        "cuda": torch.version.cuda,
        "packages": {name: metadata.version(name) for name in told},
        "git_commit": git_commit(),
    }


def cpu_name() -> str:
    """Names the processor."""
    with suppress(OSError):  # only Linux has this file
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text("utf-8"))
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """Measures the main memory in GiB; None where the system does not say."""
    with suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None


def git_commit() -> str | None:
    """Gives the commit of the working folder's git repository, `-dirty` if changed, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip()
    return None
