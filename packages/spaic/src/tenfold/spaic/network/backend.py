"""Where a network runs, as an object of its own (section 2)."""

from dataclasses import dataclass


@dataclass
class Backend:
    """Where and with which step a network runs; kept for scripts of the official front end.

    `Torch_Backend` is another name of it.

    Args:
        device: A torch device, or a list of one.
        dt: The step in ms.
        backend_name: Always pytorch.

    Example:
        >>> backend = Backend("cpu")
        >>> backend.dt = 1.0
        >>> net.set_backend(backend)  # what it says now holds
    """

    device: str | list[str] = "cpu"
    dt: float = 0.1
    backend_name: str = "pytorch"


Torch_Backend = Backend
