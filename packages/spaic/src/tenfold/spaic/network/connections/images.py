"""Links between images and between sequences: their windows, shapes and stages (sections 5, 6).

A layer of shape (channels, height, width) is an image, one of shape (channels, length) a sequence.
Both have the same links: `conv`, `conv_transpose`, `pool`; a setting of the window is one number
for all axes or one for each, as in torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from tenfold.spaic.network.connections.connection import Connection

IMAGES = {
    "conv": "conv",
    "conv_connection": "conv",
    "conv_transpose": "conv_transpose",
    "pool": "pool",
    "pool_connection": "pool",
    "continuous_local": "continuous_local",
}
"""link_type → its plain name."""

IMAGE_OPTIONS = {
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "upscale",
    "pool_kernel_size",
    "pool_stride",
    "pool_padding",
    "w_mean",
    "w_std",
}

# By the number of axes.
_CONV: Mapping[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}
_TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
_HIGHEST: Mapping[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d}
_MEAN: Mapping[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d}
_NORM: Mapping[int, type[torch.nn.Module]] = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d}


@dataclass(frozen=True)
class Window:
    """What slides over an image or a sequence; each setting has one number an axis.

    Attributes:
        kernel: The size.
        stride: From one position to the next.
        padding: Zeros before and behind, or `"same"`: as many as keep the size.
        dilation: From one value in the window to the next.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]

    def shrunk(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The number of positions of the window along each axis.

        Args:
            size: The sizes of the axes.
        """
        if isinstance(self.padding, str):
            return size
        rows = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in rows)

    def grown(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The size whose positions are these, as a transposed convolution makes it.

        Args:
            size: The sizes of the axes.
        """
        padding = (0,) * len(size) if isinstance(self.padding, str) else self.padding
        rows = zip(size, self.kernel, self.stride, padding, self.dilation, strict=True)
        return tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in rows)


def axes(con: "Connection") -> int:
    """How many axes the source of a link has beside its channels: 1 or 2.

    Args:
        con: A link of `IMAGES`.

    Raises:
        InputError: If the source is neither an image nor a sequence.
    """
    shape = con.pre.shape
    allowed = (3,) if con.kind == "continuous_local" else (2, 3)
    if shape is None or len(shape) not in allowed:
        sequence = "" if con.kind == "continuous_local" else " or (channels, length)"
        raise InputError(
            f"{con!r}: the source of a {con.kind} link has shape {shape}; expected "
            f"(channels, height, width){sequence}"
        )
    return len(shape) - 1


def _setting(con: "Connection", name: str, default: int, least: int) -> tuple[int, ...]:
    """A setting of the window: one number for all axes, or one for each."""
    value, count = con.options.get(name, default), axes(con)
    given = list(value) if isinstance(value, tuple | list) else [value] * count
    whole = all(isinstance(v, int | np.integer) for v in given)
    if len(given) != count or not whole or min(given) < least:
        raise InputError(
            f"{con!r}: {name}={value!r}; expected a whole number >= {least}, or one for each of "
            f"the {count} axes of {con.pre.shape}"
        )
    return tuple(int(v) for v in given)


def window(con: "Connection") -> Window:
    """The window of a convolution or of a `continuous_local` link.

    Args:
        con: The connection.

    Raises:
        InputError: For a setting that is not a size.
    """
    kernel, stride = _setting(con, "kernel_size", 3, 1), _setting(con, "stride", 1, 1)
    dilation, padding = _setting(con, "dilation", 1, 1), con.options.get("padding", 0)
    if not isinstance(padding, str):
        return Window(kernel, stride, _setting(con, "padding", 0, 0), dilation)
    if con.kind == "conv" and padding == "valid":
        return Window(kernel, stride, (0,) * len(kernel), dilation)
    if con.kind != "conv" or padding != "same" or set(stride) != {1}:
        raise InputError(
            f"{con!r}: padding={padding!r} of a {con.kind} link with stride {stride}; expected "
            "numbers, or, of a convolution, 'valid', or 'same' with stride 1"
        )
    return Window(kernel, stride, "same", dilation)


def pooling(con: "Connection") -> Window:
    """The window of a pooling.

    Args:
        con: The connection.

    Raises:
        InputError: For a setting that is not a size.
    """
    kernel, stride = _setting(con, "pool_kernel_size", 2, 1), _setting(con, "pool_stride", 2, 1)
    padding = _setting(con, "pool_padding", 0, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise InputError(
            f"{con!r}: pool_padding={padding}; expected at most half of pool_kernel_size={kernel}"
        )
    return Window(kernel, stride, padding, (1,) * len(kernel))


def groups(con: "Connection") -> int:
    """Into how many groups a convolution divides its channels.

    Args:
        con: The connection.
    """
    return int(con.options.get("groups", 1))


def unfolding(con: "Connection") -> dict[str, Any]:
    """The window of a link between images, as `unfold` of torch takes it.

    Args:
        con: The connection.

    Raises:
        InputError: For a link between sequences, or with padding "same", which unfold has not.
    """
    seen = window(con)
    if axes(con) != 2 or isinstance(seen.padding, str):
        raise InputError(f"{con!r}: only links between images, with padding in numbers, unfold")
    return {
        "kernel_size": seen.kernel,
        "dilation": seen.dilation,
        "padding": seen.padding,
        "stride": seen.stride,
    }


def image_shapes(con: "Connection") -> tuple[int, ...]:
    """Checks the target's shape of a link, or fills it from the source's.

    Args:
        con: A link of `IMAGES`.

    Returns:
        What it gives: channels, then the axes.

    Raises:
        InputError: If a shape or a setting does not fit.
    """
    axes(con)
    source: tuple[int, ...] = con.pre.size
    option = con.options.get
    channels = int(option("in_channels", source[0]))
    if channels != source[0]:
        raise InputError(f"{con!r}: in_channels={channels}, but the source has {source[0]}")
    default = con.post.shape[0] if con.post.shape else channels
    out_channels = int(option("out_channels", channels if con.kind == "pool" else default))
    if con.kind.startswith("conv") and (channels % groups(con) or out_channels % groups(con)):
        raise InputError(
            f"{con!r}: groups={groups(con)} does not divide {channels} channels into {out_channels}"
        )
    size = source[1:]
    for name in con.syn_type:
        if name in ("conv", "local"):
            size = window(con).shrunk(size)
        elif name == "conv_transpose":
            size = window(con).grown(size)
        elif name in ("maxpool", "avgpool"):
            size = pooling(con).shrunk(size)
        elif name == "upsample":
            factors = _setting(con, "upscale", 2, 1)
            size = tuple(n * factor for n, factor in zip(size, factors, strict=True))
    if min(size) < 1:
        raise InputError(f"{con!r}: the kernel is larger than the image {con.pre.shape}")
    made = (out_channels, *size)
    flat = con.post.shape == (math.prod(made),)
    if con.post.shape is None or (flat and not con.post.shaped and "flatten" not in con.syn_type):
        con.post.shape = made  # only its number was given
    elif con.post.shape != made and con.post.num != math.prod(made):
        raise InputError(
            f"{con!r}: the {con.kind} link gives shape {made}, but {con.post!r} has "
            f"{con.post.shape}"
        )
    if con.kind == "continuous_local" and (channels, out_channels) != (1, 1):
        raise InputError(
            f"{con!r}: continuous_local links sheets of one channel, got {channels}, {out_channels}"
        )
    neighbourhood(con)  # says what is wrong with it
    return made


def neighbourhood(con: "Connection") -> Tensor | None:
    """How the places of a `continuous_local` sheet share their activity in learning.

    K(r) = (e^{−r²/(2σ_c²)}/Z_c − e^{−r²/(2σ_s²)}/Z_s)/K₀ over the `clust_size` × `clust_size`
    places around a place that are at most `cutting` places away; Z_c and Z_s let each bell have the
    sum one, K₀ the middle the value one. So K adds up to zero: neighbours learn as a place does,
    those farther away the opposite; a sheet that is active everywhere learns at its borders only.

    The card (section 5) gives the three names and "difference-of-Gaussian smoothing across
    neighbours". Chosen here: σ_s = 2 σ_c (as `dist_depd` has its b = 2 a), that `clust_size` and
    `cutting` are counted in places, the scale, and that what is smoothed is the activity of the
    targets, as STDP sees it.

    Args:
        con: The connection; without its option `sigma_c` nothing is smoothed.

    Returns:
        [clust_size, clust_size], float64, or None.

    Raises:
        InputError: For a width or distance that is not positive, or a size that is not odd.
    """
    sigma, size = con.options.get("sigma_c"), con.options.get("clust_size", 5)
    cutting = con.options.get("cutting", math.inf)
    if sigma is None:
        given = {"clust_size", "cutting"} & set(con.options)
        if given:
            raise InputError(f"{con!r}: {', '.join(sorted(given))} without sigma_c")
        return None
    if not 0 < sigma < math.inf or not cutting > 0:
        raise InputError(f"{con!r}: sigma_c={sigma}, cutting={cutting}; expected > 0 places")
    if size != int(size) or size < 1 or size % 2 == 0:
        raise InputError(f"{con!r}: clust_size={size}; expected an odd number of places")
    along = torch.arange(int(size), dtype=torch.float64) - int(size) // 2
    apart = along[:, None] ** 2 + along[None] ** 2
    near = apart <= cutting**2
    if int(near.sum()) == 1:  # no neighbours
        return near.to(torch.float64)
    centre, surround = (
        torch.where(near, torch.exp(-apart / (2 * width**2)), 0.0) for width in (sigma, 2 * sigma)
    )
    made = centre / centre.sum() - surround / surround.sum()
    return made / made[int(size) // 2, int(size) // 2]


def weight_shape(con: "Connection") -> tuple[int, ...]:
    """The shape of the weight of a convolution or a `continuous_local` link.

    Args:
        con: The connection.
    """
    kernel, channels = window(con).kernel, con.pre.size[0]
    if con.kind == "continuous_local":
        return (math.prod(kernel), 1, *con.out_size)
    if con.kind == "conv_transpose":
        return (channels, con.out_channels // groups(con), *kernel)
    return (con.out_channels, channels // groups(con), *kernel)


# -------------------------------------------------------------------------------------- the stages


def convolved(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """A convolution, or its transpose, with a bias of one value a channel.

    Args:
        con: The connection.
        x: [batch, channels, *axes].
        random: Not used.
    """
    held = con._state.get("conv")
    if held is None:  # worked out once a run: a step of a small image takes microseconds
        seen, count = window(con), axes(con)
        settings: tuple[Any, ...] = (seen.stride, seen.padding, seen.dilation, groups(con))
        held = (_CONV[count], settings)
        if con.kind == "conv_transpose":
            settings = (seen.stride, seen.padding, 0, groups(con), seen.dilation)
            held = (_TRANSPOSED[count], settings)
        con._state["conv"] = held
    made: Tensor = held[0](x, con.weight, con.bias, *held[1])
    return made


def _pooled(
    con: "Connection", name: str, kinds: Mapping[int, Callable[..., Tensor]], x: Tensor
) -> Tensor:
    held = con._state.get(name)
    if held is None:
        seen = pooling(con)
        held = (kinds[axes(con)], (seen.kernel, seen.stride, seen.padding))
        con._state[name] = held
    made: Tensor = held[0](x, *held[1])
    return made


def highest(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Max pooling; see `convolved`."""
    return _pooled(con, "maxpool", _HIGHEST, x)


def mean(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Average pooling; see `convolved`."""
    return _pooled(con, "avgpool", _MEAN, x)


def upsampled(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Each value repeated `upscale` times along each axis; see `convolved`."""
    factors = tuple(map(float, _setting(con, "upscale", 2, 1)))
    return F.interpolate(x, scale_factor=factors)


def local(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """A receptive field of its own for each place, Σ_k w[k, 0, place] · patch[k, place]."""
    patches = F.unfold(x, **unfolding(con))
    weight: Tensor = con.weight  # type: ignore[assignment]
    made = (patches * weight.flatten(1)).sum(1)
    return (made if con.bias is None else made + con.bias).reshape(len(x), 1, *con.out_size)


def normalised(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Batch normalisation of each channel, in the connection's mode; see `convolved`."""
    module = con.modules["batchnorm2d"]
    module.train(con.training)
    try:
        made: Tensor = module(x)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{con!r}: batchnorm2d with num_features={con.syn_kwargs['num_features']} cannot take "
            f"what it sees, (batch, *shape)={tuple(x.shape)}: {error}"
        ) from error
    return made


def batch_norm(con: "Connection", generator: torch.Generator) -> torch.nn.Module:
    """Makes the module of a `batchnorm2d` stage (of sequences: torch's BatchNorm1d).

    Args:
        con: The connection.
        generator: Not used.

    Raises:
        InputError: Without the number of channels.
    """
    features = con.syn_kwargs.get("num_features")
    if features is None:
        raise InputError(f"{con!r}: batchnorm2d needs syn_kwargs={{'num_features': c}}")
    if not isinstance(features, Integral) or isinstance(features, bool) or features < 1:
        raise InputError(f"{con!r}: num_features={features!r}; expected a whole number >= 1")
    count = len(con.out_size) if con.kind in IMAGES.values() else 2
    return _NORM[count](int(features))
