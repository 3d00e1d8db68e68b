"""The deterministic fill of the card's section 11: weights from the names of the parameters."""

import math
import zlib

import numpy as np
import torch


def u(key, n):
    """n numbers in [-1, 1] from a name, float64."""
    h = (np.arange(n, dtype=np.uint64) * 2654435761 + zlib.crc32(key.encode())) % 2**32
    h ^= h >> np.uint64(15)
    h = h * 2246822519 % 2**32
    h ^= h >> np.uint64(13)
    return h.astype(np.float64) / 2**31 - 1


def value(name, tensor):
    n = tensor.numel()
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(tensor)
    if name.endswith("running_mean"):
        filled = 0.1 * u(name, n)
    elif name.endswith("running_var"):
        filled = 1 + 0.5 * u(name, n)
    elif tensor.ndim >= 2:
        filled = u(name, n) * math.sqrt(6 / (n / tensor.shape[0]))
    elif name.endswith("bias"):
        filled = 0.1 * u(name, n)
    else:
        filled = 1 + 0.1 * u(name, n)
    return torch.from_numpy(filled).reshape(tensor.shape)


def fill(model):
    """Fills a model, in float64 and eval mode."""
    model.double().eval()
    model.load_state_dict({name: value(name, t) for name, t in model.state_dict().items()})
    return model


def image(size):
    return torch.from_numpy(u("input", 3 * size * size)).reshape(1, 3, size, size)
