"""Connections: who is linked to whom (`link_type`) and what a spike does there (`syn_type`).

Weights have the layout (post, pre): `Isyn = O Wᵀ (+ bias)`. A dense link holds its weight as one
matrix; `sparse`-stored links hold `pre_index`, `post_index` and one weight (and perhaps one delay)
a synapse, in numpy order of creation, which the event engine turns into an out-adjacency.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.groups import Layer, NeuronGroup
from tenfold.spaic.network.objects import BaseModule
from tenfold.spaic.units import plain

# ------------------------------------------------------------------------------------ initialising


class Initializer:
    """A way to draw the first weights: one of the functions of `torch.nn.init`.

    Args:
        name: uniform, normal, xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal,
            constant or sparse.
        **arguments: Those of the function, for example a=-0.1, b=0.1 of uniform.
    """

    _KNOWN: Mapping[str, Callable[..., Tensor]] = {
        "uniform": torch.nn.init.uniform_,
        "normal": torch.nn.init.normal_,
        "xavier_uniform": torch.nn.init.xavier_uniform_,
        "xavier_normal": torch.nn.init.xavier_normal_,
        "kaiming_uniform": torch.nn.init.kaiming_uniform_,
        "kaiming_normal": torch.nn.init.kaiming_normal_,
        "constant": lambda t, constant_value=0.0, **_: torch.nn.init.constant_(t, constant_value),
        "sparse": lambda t, sparsity=0.1, std=0.01, **k: torch.nn.init.sparse_(
            t, sparsity, std, **k
        ),
    }

    def __init__(self, name: str, **arguments: Any) -> None:
        if name not in self._KNOWN:
            raise InputError(did_you_mean(name, self._KNOWN, "initializer"))
        self.name, self.arguments = name, arguments

    def __call__(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draws a tensor.

        Args:
            shape: Its shape.
            generator: Where the numbers come from.
        """
        made = torch.empty(tuple(shape))
        return self._KNOWN[self.name](made, generator=generator, **self.arguments)


# --------------------------------------------------------------------------------------- the class

DENSE = {
    "full": "full",
    "full_connection": "full",
    "one_to_one": "one_to_one",
    "sparse": "sparse",
    "sparse_connection": "sparse",
    "random": "random",
    "random_connection": "random",
    "dist_depd": "dist_depd",
}
STORED = {
    "one_to_one_sparse": "one_to_one_sparse",
    "sparse_sparse": "sparse_sparse",
    "sparse_connection_sparse": "sparse_sparse",
    "random_connection_sparse": "random_sparse",
    "bernoulli": "bernoulli",
    "fixed_in_degree": "fixed_in_degree",
    "fixed_out_degree": "fixed_out_degree",
    "fixed_total": "fixed_total",
    "index": "index",
}
IMAGES = {
    "conv": "conv",
    "conv_connection": "conv",
    "conv_transpose": "conv_transpose",
    "pool": "pool",
    "pool_connection": "pool",
}
OTHERS = {"null": "null", "spike2mass": "spike2mass", "mass2spike": "mass2spike"}
LINKS = DENSE | STORED | IMAGES | OTHERS
"""link_type → its plain name."""

SYNAPSES = [
    "basic",
    "conv",
    "conv_transpose",
    "maxpool",
    "avgpool",
    "flatten",
    "batchnorm2d",
    "dropout",
    "upsample",
    "directpass",
    "1_order_synapse",
    "2_order_synapse",
    "alpha_synapse",
    "stp",
    "electrical",
    "delay_complex_synapse",
]
"""The names of `syn_type`."""

_LINK_OPTIONS: dict[str, set[str]] = {
    "full": {"w_mean", "w_std"},
    "one_to_one": {"w_mean"},
    "sparse": {"w_mean", "w_std", "density", "is_int"},
    "random": {"probability"},
    "dist_depd": {
        "w_amp",
        "dist_a",
        "dist_b",
        "distance_weight_function",
        "dist_function",
        "pos_range",
        "zero_self",
        "p",
    },
    "one_to_one_sparse": {"w_mean"},
    "sparse_sparse": {"w_std", "density"},
    "random_sparse": {"probability"},
    "bernoulli": {"p", "w_mean", "w_std", "no_self"},
    "fixed_in_degree": {"degree", "w_mean", "w_std"},
    "fixed_out_degree": {"degree", "w_mean", "w_std"},
    "fixed_total": {"number", "w_mean", "w_std"},
    "index": {"pre_index", "post_index", "w_mean", "w_std"},
    "null": set(),
    "spike2mass": {"w_mean", "w_std"},
    "mass2spike": {"w_mean", "w_std", "unit_conversion"},
}
_IMAGE_OPTIONS = {
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


class Connection(BaseModule):
    """A connection between two layers.

    Args:
        pre: The source: a NeuronGroup or a node.
        post: The target.
        name: The name.
        link_type: Who is linked to whom; see `LINKS`.
        syn_type: What a spike does there; a name or a list carried out in order; see `SYNAPSES`.
        max_delay: Longest delay in ms; > 0 draws a delay for each synapse uniformly from
            [min_delay, max_delay], unless `delay` is given.
        sparse_with_mask: Keep the zeros of a `sparse` link zero while it is trained.
        pre_var_name: The source's variable.
        post_var_name: The target's input, or one of its states: then the sum is added to the state
            at the end of the step (no delay) in which the spike was made.
        syn_kwargs: Parameters of the synapse models (tau, tau_r, tau_d, p, num_features, U, ...).
        prefer_device: Kept for the network's file.
        weight: An array of the weight's shape (of one value a synapse for sparse storage), a
            number, or an `Initializer`.
        bias: An array of one value a target neuron or channel, or an `Initializer`.
        w_min: The weights are clamped to [w_min, w_max] at the start of each run.
        w_max: See w_min.
        is_parameter: Whether a gradient learner trains the weight; by default that of the link.
        min_delay: Shortest delay in ms.
        delay: One delay in ms for all, or an array (post, pre), or one a synapse.
        train_delay: Whether a gradient learner trains the delays (dense links; linear
            interpolation between the two neighbouring steps).
        weight_quantization: Round the weights and clip them to [−128, 128] at the start of a run.
        **options: Those of the link, for example density, probability, degree, kernel_size, w_std.

    Raises:
        InputError: For a name, shape or value that does not fit; it names the connection.
    """

    label = "con"

    def __init__(
        self,
        pre: Layer,
        post: Layer,
        name: str | None = None,
        link_type: str = "full",
        syn_type: str | Sequence[str] | None = None,
        max_delay: Any = 0.0,
        sparse_with_mask: bool = False,
        pre_var_name: str = "O",
        post_var_name: str = "Isyn",
        syn_kwargs: Mapping[str, Any] | None = None,
        prefer_device: str | None = None,
        *,
        weight: Any = None,
        bias: Any = None,
        w_min: float | None = None,
        w_max: float | None = None,
        is_parameter: bool | None = None,
        min_delay: Any = None,
        delay: Any = None,
        train_delay: bool = False,
        weight_quantization: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(name)
        for side, layer in (("pre", pre), ("post", post)):
            if not isinstance(layer, Layer):
                raise InputError(f"{self!r}: {side} is {layer!r}; expected a group or a node")
        if link_type not in LINKS:
            raise InputError(f"{self!r}: {did_you_mean(link_type, LINKS, 'link_type')}")
        self.pre, self.post = pre, post
        self.link_type, self.kind = link_type, LINKS[link_type]
        self.syn_type = self._synapses(syn_type)
        self.pre_var_name, self.post_var_name = pre_var_name, post_var_name
        self.sparse_with_mask, self.prefer_device = sparse_with_mask, prefer_device
        self.syn_kwargs = dict(syn_kwargs or {})
        known = _IMAGE_OPTIONS if self.kind in IMAGES.values() else _LINK_OPTIONS[self.kind]
        for key in options:
            if key not in known:
                raise InputError(f"{self!r}: {did_you_mean(key, known, f'option of {link_type}')}")
        self.options = options
        self.given_weight, self.given_bias = weight, bias
        self.w_min, self.w_max = w_min, w_max
        self.is_parameter = (
            self.kind not in STORED.values() if is_parameter is None else is_parameter
        )
        self.weight_quantization = weight_quantization
        self.max_delay = float(plain(max_delay, "time"))
        self.min_delay = plain(min_delay, "time")
        self.given_delay = plain(delay, "time")
        self.train_delay = train_delay
        if self.max_delay < 0 or not math.isfinite(self.max_delay):
            raise InputError(f"{self!r}: max_delay={max_delay}; expected >= 0 ms")
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        self.delay: Tensor | None = None
        self.mask: Tensor | None = None
        self.pre_index: Tensor | None = None
        self.post_index: Tensor | None = None
        self.modules: dict[str, torch.nn.Module] = {}
        self.training = True
        self._state: dict[str, Any] = {}
        if self.kind in IMAGES.values():
            self._image_shapes()

    def _synapses(self, given: str | Sequence[str] | None) -> list[str]:
        default = {"conv": "conv", "conv_transpose": "conv_transpose", "pool": "avgpool"}
        if given is None:
            given = default.get(self.kind, "directpass" if self.kind == "null" else "basic")
        chosen = [given] if isinstance(given, str) else list(given)
        for name in chosen:
            if name not in SYNAPSES:
                raise InputError(f"{self!r}: {did_you_mean(name, SYNAPSES, 'syn_type')}")
        if "electrical" in chosen and not (
            isinstance(self.pre, NeuronGroup) and isinstance(self.post, NeuronGroup)
        ):
            raise InputError(f"{self!r}: an electrical synapse needs a NeuronGroup on both sides")
        return chosen

    # ------------------------------------------------------------------------------------ images

    def _image_shapes(self) -> None:
        """Checks or fills the target's shape from the source's."""
        if self.pre.shape is None or len(self.pre.shape) != 3:
            raise InputError(
                f"{self!r}: the source of a {self.kind} link has shape {self.pre.shape}; expected "
                "(channels, height, width)"
            )
        option = self.options.get
        channels = int(option("in_channels", self.pre.shape[0]))
        if channels != self.pre.shape[0]:
            raise InputError(
                f"{self!r}: in_channels={channels}, but the source has {self.pre.shape[0]}"
            )
        default = self.post.shape[0] if self.post.shape else channels
        self.out_channels = int(
            option("out_channels", channels if self.kind == "pool" else default)
        )
        size: tuple[int, int] = self.pre.shape[1:]
        for name in self.syn_type:
            if name in ("conv", "conv_transpose"):
                k, s, p, d = (
                    int(option(key, value))
                    for key, value in zip(
                        ("kernel_size", "stride", "padding", "dilation"), (3, 1, 0, 1), strict=True
                    )
                )
                if name == "conv":
                    size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n in size)  # type: ignore[assignment]
                else:
                    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n in size)  # type: ignore[assignment]
            elif name in ("maxpool", "avgpool"):
                k, s, p = self._pooling()
                size = tuple((n + 2 * p - k) // s + 1 for n in size)  # type: ignore[assignment]
            elif name == "upsample":
                size = tuple(n * int(option("upscale", 2)) for n in size)  # type: ignore[assignment]
        if min(size) < 1:
            raise InputError(f"{self!r}: the kernel is larger than the image {self.pre.shape}")
        made = (self.out_channels, *size)
        if self.post.shape is None:
            self.post.shape = made
        elif self.post.shape != made and self.post.num != math.prod(made):
            raise InputError(
                f"{self!r}: the {self.kind} link gives shape {made}, but {self.post!r} has "
                f"{self.post.shape}"
            )

    def _pooling(self) -> tuple[int, int, int]:
        option = self.options.get
        return (
            int(option("pool_kernel_size", 2)),
            int(option("pool_stride", 2)),
            int(option("pool_padding", 0)),
        )

    # ----------------------------------------------------------------------------------- weights

    @property
    def stored_sparse(self) -> bool:
        """Whether it holds one entry a synapse instead of a matrix."""
        return self.kind in STORED.values()

    @property
    def deliverable(self) -> bool:
        """Whether it is a plain weighted link, without a synapse model of its own."""
        return self.syn_type == ["basic"] and (self.stored_sparse or self.kind in DENSE.values())

    def prepare(
        self, generator: torch.Generator, dt: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Draws the weights and delays, once.

        Args:
            generator: Where random numbers come from.
            dt: The step in ms.
            dtype: The precision.
            device: The device.
        """
        if self.weight is None and self.kind not in ("null", "pool"):
            made = self._draw(generator)
            if not bool(torch.isfinite(made).all()):
                raise InputError(f"{self!r}: weight holds values that are not finite")
            made = made.to(device=device, dtype=dtype)
            self.weight = torch.nn.Parameter(made, requires_grad=self.is_parameter)
            if self.mask is not None:
                self.mask = self.mask.to(device=device, dtype=dtype)
        if self.bias is None and self.given_bias is not None:
            size = self.out_channels if self.kind in IMAGES.values() else self.post.num
            bias = self._given(self.given_bias, (size,), "bias", generator)
            self.bias = torch.nn.Parameter(bias.to(device=device, dtype=dtype))
        if self.delay is None and (self.max_delay > 0 or self.given_delay is not None):
            made = self._draw_delays(generator)
            self.delay = torch.nn.Parameter(
                made.to(device=device, dtype=dtype), requires_grad=self.train_delay
            )
        if "batchnorm2d" in self.syn_type and "batchnorm2d" not in self.modules:
            features = self.syn_kwargs.get("num_features")
            if features is None:
                raise InputError(f"{self!r}: batchnorm2d needs syn_kwargs={{'num_features': c}}")
            module = torch.nn.BatchNorm2d(int(features)).to(device=device, dtype=dtype)
            self.modules["batchnorm2d"] = module

    def _given(
        self, value: Any, shape: tuple[int, ...], what: str, generator: torch.Generator
    ) -> Tensor:
        if isinstance(value, Initializer):
            return value(shape, generator)
        made = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
        made = made.detach().to(torch.float64)
        if made.ndim == 0:
            return made.expand(shape).clone()
        if tuple(made.shape) != shape:
            layout = " (post, pre)" if len(shape) == 2 else ""
            raise InputError(
                f"{self!r}: {what} has shape {tuple(made.shape)}; expected {shape}{layout}"
            )
        return made.clone()

    def _draw(self, generator: torch.Generator) -> Tensor:
        if self.stored_sparse:
            return self._draw_stored(generator)
        option, n, m = self.options.get, self.post.num, self.pre.num

        def normal(shape: tuple[int, ...], mean: float, std: float) -> Tensor:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            return drawn * float(option("w_std", std)) + float(option("w_mean", mean))

        if self.kind in IMAGES.values():
            k = int(option("kernel_size", 3))
            groups = int(option("groups", 1))
            shape: tuple[int, ...] = (self.out_channels, self.pre.shape[0] // groups, k, k)  # type: ignore[index]
            if self.kind == "conv_transpose":
                shape = (self.pre.shape[0], self.out_channels // groups, k, k)  # type: ignore[index]
        else:
            shape = (n, 1) if self.kind == "spike2mass" else (n, m)
        if self.kind == "one_to_one":
            self._same_size()
            self.mask = torch.eye(n)
        if self.given_weight is not None:
            made = self._given(self.given_weight, shape, "weight", generator)
            if self.kind == "sparse" and self.sparse_with_mask:
                self.mask = (made != 0).to(made.dtype)
        elif self.kind == "one_to_one":
            made = torch.eye(n, dtype=torch.float64) * float(option("w_mean", 0.05))
        elif self.kind == "random":
            made = torch.rand(shape, generator=generator, dtype=torch.float64)
            made = made * (made < float(option("probability", 0.1)))
            if self.pre is self.post or n == m:
                made.fill_diagonal_(0)
        elif self.kind == "dist_depd":
            made = self._by_distance(generator)
        else:
            made = normal(shape, 0.05 if self.kind in IMAGES.values() else 0.005, 0.05)
            if self.kind == "sparse":
                made = made * self._pattern(shape, generator)
                if option("is_int", False):
                    made = made.round()
                if self.sparse_with_mask:
                    self.mask = (made != 0).to(made.dtype)
        return made if self.mask is None else made * self.mask

    def _pattern(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        density = float(self.options.get("density", 0.1))
        if not 0 <= density <= 1:
            raise InputError(f"{self!r}: density={density}; expected from 0 to 1")
        return (torch.rand(shape, generator=generator) < density).to(torch.float64)

    def _same_size(self) -> None:
        if self.pre.num != self.post.num:
            raise InputError(
                f"{self!r}: one_to_one needs equal sizes, got {self.pre.num} and {self.post.num}"
            )

    def _by_distance(self, generator: torch.Generator) -> Tensor:
        """w_amp (e^{−r/a}/a − e^{−r/b}/(2b)) of the distance r of two neurons (section 5)."""
        option = self.options.get
        sides = [getattr(layer, "neuron_position", None) for layer in (self.post, self.pre)]
        if any(side is None for side in sides):
            raise InputError(f"{self!r}: dist_depd needs neuron_position of both groups")
        apart = torch.as_tensor(sides[0])[:, None] - torch.as_tensor(sides[1])[None]
        how = option("dist_function", "euclidean")
        if how == "circular":
            apart = apart.abs()
            apart = torch.minimum(apart, float(option("pos_range", 1.0)) - apart)
        elif how != "euclidean":
            raise InputError(
                f"{self!r}: {did_you_mean(how, ('euclidean', 'circular'), 'dist_function')}"
            )
        r = apart.norm(dim=-1)
        function = option("distance_weight_function")
        a, b = float(option("dist_a", 0.2)), float(option("dist_b", 0.4))
        amplitude = float(option("w_amp", -0.1))
        made = (
            torch.as_tensor(function(r), dtype=torch.float64)
            if function is not None
            else amplitude * (torch.exp(-r / a) / a - 0.5 * torch.exp(-r / b) / b)
        )
        if option("zero_self", False):
            made.fill_diagonal_(0)
        share = float(option("p", 1.0))
        return made * (torch.rand(made.shape, generator=generator) < share)

    def _draw_stored(self, generator: torch.Generator) -> Tensor:
        """Draws the pairs of a sparse link, then one weight each."""
        option, n, m = self.options.get, self.post.num, self.pre.num
        # NumPy draws many integers faster; its seed comes from the network's generator.
        seed = int(torch.randint(2**62, (1,), generator=generator))
        random = np.random.default_rng(seed)
        kind = self.kind
        if kind == "one_to_one_sparse":
            self._same_size()
            pre = post = np.arange(n)
        elif kind in ("bernoulli", "sparse_sparse", "random_sparse"):
            key = {"bernoulli": "p", "sparse_sparse": "density"}.get(kind, "probability")
            share = float(option(key, 0.1))
            if not 0 <= share <= 1:
                raise InputError(f"{self!r}: {key}={share}; expected from 0 to 1")
            pre, post = _bernoulli_pairs(m, n, share, random)
            if (self.pre is self.post or kind == "random_sparse") and option(
                "no_self", kind == "random_sparse"
            ):
                keep = pre != post
                pre, post = pre[keep], post[keep]
        elif kind in ("fixed_in_degree", "fixed_out_degree"):
            degree = int(self._needed("degree"))
            into = kind == "fixed_in_degree"
            one = np.repeat(np.arange(n if into else m), degree)
            other = random.integers(m if into else n, size=len(one))
            pre, post = (other, one) if into else (one, other)
        elif kind == "fixed_total":
            number = int(self._needed("number"))
            pre, post = random.integers(m, size=number), random.integers(n, size=number)
        else:
            pre, post = (np.asarray(self._needed(key)) for key in ("pre_index", "post_index"))
            for side, index, size in (("pre", pre, m), ("post", post, n)):
                if index.ndim != 1 or index.dtype.kind not in "iu" or len(pre) != len(post):
                    raise InputError(f"{self!r}: {side}_index must be a list of whole numbers")
                if len(index) and not 0 <= index.min() <= index.max() < size:
                    raise InputError(
                        f"{self!r}: {side}_index holds {index.min()}..{index.max()}; expected "
                        f"0..{size - 1}"
                    )
        self.pre_index = torch.from_numpy(np.ascontiguousarray(pre, dtype=np.int64))
        self.post_index = torch.from_numpy(np.ascontiguousarray(post, dtype=np.int64))
        count = len(pre)
        if self.given_weight is not None:
            if isinstance(self.given_weight, Initializer) and self.given_weight.name not in (
                "uniform",
                "normal",
                "constant",
            ):
                raise InputError(f"{self!r}: a sparse link takes uniform, normal or constant")
            return self._given(self.given_weight, (count,), "weight", generator)
        if kind == "random_sparse":
            return torch.from_numpy(random.random(count) * float(option("probability", 0.1)))
        if kind == "sparse_sparse":
            return torch.from_numpy(random.random(count) * float(option("w_std", 0.05)))
        mean = float(option("w_mean", 0.05 if kind == "one_to_one_sparse" else 0.005))
        std = 0.0 if kind == "one_to_one_sparse" else float(option("w_std", 0.0))
        return torch.from_numpy(random.standard_normal(count) * std + mean)

    def _needed(self, key: str) -> Any:
        if key not in self.options:
            raise InputError(f"{self!r}: link_type {self.link_type!r} needs {key}=")
        return self.options[key]

    def _draw_delays(self, generator: torch.Generator) -> Tensor:
        shape = tuple(self.weight.shape) if self.weight is not None else (1,)
        if self.given_delay is not None:
            value = self.given_delay
            single = np.ndim(value) == 0 and not self.train_delay
            made = (
                torch.as_tensor(float(value)).to(torch.float64)
                if single
                else self._given(value, shape, "delay", generator)
            )
        else:
            low = float(self.min_delay) if self.min_delay is not None else min(1.0, self.max_delay)
            if not 0 <= low <= self.max_delay:
                raise InputError(
                    f"{self!r}: min_delay={low}; expected from 0 to max_delay={self.max_delay}"
                )
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
            made = (self.max_delay - low) * drawn + low
        if not bool(torch.isfinite(made).all()) or bool((made < 0).any()):
            raise InputError(f"{self!r}: delays must be finite and >= 0 ms")
        return made

    def delay_steps(self, dt: float, compat: str | None) -> np.ndarray:
        """Gives the delays as whole steps: rounded down in the compatible mode, else to nearest.

        Args:
            dt: The step in ms.
            compat: The network's mode.
        """
        if self.delay is None:
            return np.zeros((), dtype=np.int64)
        steps = self.delay.detach().cpu().to(torch.float64).numpy() / dt
        steps = np.floor(steps + 1e-6) if compat == "spaic" else np.rint(steps)
        return np.asarray(steps, dtype=np.int64)

    def start_run(self, dt: float, compat: str | None) -> None:
        """Clamps and quantises the weights and forgets what is on its way.

        Args:
            dt: The step in ms.
            compat: The network's mode.
        """
        self._state = {}
        self._dt, self._compat = dt, compat
        if self.weight is not None:
            with torch.no_grad():
                if self.w_min is not None or self.w_max is not None:
                    self.weight.clamp_(self.w_min, self.w_max)
                if self.weight_quantization:
                    self.weight.round_().clamp_(-128, 128)
                if self.mask is not None:
                    self.weight.mul_(self.mask)

    @property
    def weight_name(self) -> str:
        """The name of the weight in saved states: `con_id:post_id<-pre_id:{weight}`."""
        return f"{self.id}:{self.post.id}<-{self.pre.id}:{{weight}}"

    def parameters(self) -> dict[str, Tensor]:
        """Gives the saved tensors by their full names."""
        base = self.weight_name[: -len("{weight}")]
        tensors = {"weight": self.weight, "bias": self.bias, "delay": self.delay}
        return {f"{base}{{{key}}}": value for key, value in tensors.items() if value is not None}

    # ---------------------------------------------------------------------------------- one step

    def deliver(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Gives what arrives at the target when the source's variable is x in one step.

        Args:
            x: [batch, *source shape].
            random: For dropout and the rate-to-spike link.

        Returns:
            [batch, *target shape] (or [batch, target size]).
        """
        for name in self.syn_type:
            x = self._apply(name, x, random)
        return x.reshape(len(x), *self.post.size) if self.post.shape else x

    def _apply(self, name: str, x: Tensor, random: torch.Generator) -> Tensor:
        option, get = self.options.get, self.syn_kwargs.get
        if name == "basic":
            return self._weighted(x, random)
        if name == "conv":
            return F.conv2d(
                x,
                self.weight,  # type: ignore[arg-type]
                self.bias,
                int(option("stride", 1)),
                int(option("padding", 0)),
                int(option("dilation", 1)),
                int(option("groups", 1)),
            )
        if name == "conv_transpose":
            return F.conv_transpose2d(
                x,
                self.weight,  # type: ignore[arg-type]
                self.bias,
                int(option("stride", 1)),
                int(option("padding", 0)),
                0,
                int(option("groups", 1)),
                int(option("dilation", 1)),
            )
        if name == "maxpool":
            return F.max_pool2d(x, *self._pooling())
        if name == "avgpool":
            return F.avg_pool2d(x, *self._pooling())
        if name == "flatten":
            return x.flatten(1)
        if name == "upsample":
            return F.interpolate(x, scale_factor=int(option("upscale", 2)))
        if name == "batchnorm2d":
            module = self.modules["batchnorm2d"]
            module.train(self.training)
            return module(x)
        if name == "dropout":
            p = float(get("p", 0.5))
            if not self.training or p == 0:
                return x
            keep = torch.rand(x.shape, generator=random, device=x.device) >= p
            return x * keep / (1 - p)
        if name == "directpass":
            return x
        if name == "stp":
            return self._short_term_plasticity(x)
        if name == "1_order_synapse":
            return self._decaying("R", self._weighted_once(x, random), float(get("tau", 2.0)))
        if name == "2_order_synapse":
            drive = self._weighted_once(x, random)
            rise, decay = float(get("tau_r", 9.0)), float(get("tau_d", 2.0))
            return self._decaying("R", drive, rise) - self._decaying("D", drive, decay)
        if name == "alpha_synapse":  # (t/τ) e^{1 − t/τ}: peak 1 at τ after the spike
            drive, tau = self._weighted_once(x, random), float(get("tau", 2.0))
            beta = math.exp(-self._dt / tau)
            none = torch.zeros_like(drive)
            first, second = self._state.get("a", none), self._state.get("b", none)
            second = beta * (second + self._dt / tau * math.e * first)
            self._state["a"], self._state["b"] = beta * first + drive, second
            return second
        if name == "delay_complex_synapse":
            return self._rotating(x)
        raise InputError(f"{self!r}: {name} cannot be carried out on one variable")

    def _weighted_once(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Weights x unless an earlier stage (a convolution, `basic`) has done so."""
        before = (
            self.syn_type[: self.syn_type.index("basic") + 1] if "basic" in self.syn_type else []
        )
        weighted = bool(before) or self.kind in IMAGES.values() or self.kind == "null"
        return x if weighted else self._weighted(x, random)

    def _decaying(self, name: str, drive: Tensor, tau: float) -> Tensor:
        if tau <= 0:
            raise InputError(f"{self!r}: a synapse's time constant is {tau}; expected > 0 ms")
        made = math.exp(-self._dt / tau) * self._state.get(name, 0.0) + drive
        self._state[name] = made
        return made

    def _short_term_plasticity(self, x: Tensor) -> Tensor:
        """Tsodyks–Markram: u ← u + U(1 − u), release u·R, R ← R − u·R at each spike."""
        get = self.syn_kwargs.get
        rise, rest = float(get("tau_f", 500.0)), float(get("tau_d", 200.0))
        base = float(get("U", 0.2))
        u = self._state.get("u", torch.zeros_like(x)) * math.exp(-self._dt / rise)
        r = 1 - (1 - self._state.get("r", torch.ones_like(x))) * math.exp(-self._dt / rest)
        raised = u + base * (1 - u)
        u = torch.where(x > 0, raised, u)
        released = torch.where(x > 0, u * r, torch.zeros_like(r))
        self._state["u"], self._state["r"] = u, r - released
        return x * released

    def _rotating(self, x: Tensor) -> Tensor:
        """Delay by rotation of a complex slot, then a rotating and decaying current (section 6)."""
        get, dt = self.syn_kwargs.get, self._dt
        assert self.weight is not None
        tau, k = float(get("tau", 10.0)), float(get("rot_k", 6.0))
        longest = float(get("max_delay", self.max_delay or 5.0))
        turn = max(longest, k * tau)
        state, weight = self._state, self.weight
        if "slots" not in state:
            complex_type = torch.complex128 if x.dtype == torch.float64 else torch.complex64
            shape = (len(x), *weight.shape)
            state["slots"] = torch.zeros(shape, dtype=complex_type, device=x.device)
            state["current"] = torch.zeros(shape[:2], dtype=complex_type, device=x.device)
            delay = self.delay if self.delay is not None else torch.zeros_like(weight)
            angle = delay.detach() * math.pi / turn
            state["start"] = 1j / tau * torch.polar(torch.ones_like(angle), angle)
            # On time is on time: rounding must not make a slot a step late.
            state["close"] = 1e-6 / tau
        slots = state["slots"] * np.exp(-1j * math.pi * dt / turn)
        ready = slots.real > state["close"]
        arrived = torch.where(ready, slots, torch.zeros_like(slots))
        slots = torch.where(ready, torch.zeros_like(slots), slots)
        new = x.flatten(1)[:, None, :].to(slots.dtype) * state["start"]
        state["slots"] = slots + new
        decay = math.exp(-dt / tau) * np.exp(-1j * math.pi * dt / (k * tau))
        state["current"] = state["current"] * decay + (arrived * weight).sum(-1)
        made: Tensor = state["current"].real
        return made

    def _weighted(self, x: Tensor, random: torch.Generator) -> Tensor:
        x = x.flatten(1)
        if self.kind == "spike2mass":
            rate = self._decaying(
                "rate", x.mean(1, keepdim=True), float(self.syn_kwargs.get("tau", 6.0))
            )
            return F.linear(rate, self.weight, self.bias)  # type: ignore[arg-type]
        if self.kind == "mass2spike":
            scale = float(self.options.get("unit_conversion", 1.0)) * self._dt
            drawn = torch.rand((len(x), *self.weight.shape), generator=random, device=x.device)  # type: ignore[union-attr]
            hit = (drawn < x[:, None, :] * scale).to(x.dtype)
            return (hit * self.weight).sum(-1)  # type: ignore[operator]
        if self.stored_sparse:
            return self._scattered(x)
        weight = self.weight if self.mask is None else self.weight * self.mask  # type: ignore[operator]
        if self.delay is None:
            return F.linear(x, weight, self.bias)  # type: ignore[arg-type]
        return F.linear(self._history(x), self._lagged(weight), self.bias)  # type: ignore[arg-type]

    def _history(self, x: Tensor) -> Tensor:
        """The last lags of x side by side: [batch, lags * pre], the newest first."""
        lags = self._lags()
        past = [x, *self._state.get("past", [])][:lags]
        self._state["past"] = past
        return torch.cat([*past, *[torch.zeros_like(x)] * (lags - len(past))], dim=1)

    def _lags(self) -> int:
        if "lags" not in self._state:
            largest = float(self.delay.detach().max()) / self._dt  # type: ignore[union-attr]
            self._state["lags"] = math.ceil(largest - 1e-6) + 1 + int(self.train_delay)
        return int(self._state["lags"])

    def _lagged(self, weight: Tensor) -> Tensor:
        """The weights of all lags side by side: [post, lags * pre]."""
        version = (id(weight), weight._version)
        if not self.train_delay and self._state.get("version") == version and self.mask is None:
            return self._state["kernel"]
        if self.train_delay:
            assert self.delay is not None
            steps: Tensor = torch.clamp(self.delay / self._dt, 0, self._lags() - 1)
        else:
            steps = torch.from_numpy(self.delay_steps(self._dt, self._compat)).to(weight)
        lag = torch.arange(self._lags(), device=weight.device, dtype=weight.dtype)[:, None, None]
        share = (1 - (steps - lag).abs()).clamp(min=0)
        made = (weight * share).transpose(0, 1).reshape(len(weight), -1)
        if not self.train_delay:
            self._state["version"], self._state["kernel"] = version, made
        return made

    def _scattered(self, x: Tensor) -> Tensor:
        """Adds each synapse's contribution to its target."""
        if self.delay is None:
            values = x[:, self.pre_index]
        else:
            if "steps" not in self._state:
                steps = torch.from_numpy(self.delay_steps(self._dt, self._compat))
                self._state["steps"] = steps.to(x.device)
                self._state["lags"] = int(steps.max()) + 1 if steps.numel() else 1
            history = self._history(x).reshape(len(x), self._lags(), -1)
            values = history[:, self._state["steps"], self.pre_index]
        made = torch.zeros(len(x), self.post.num, dtype=x.dtype, device=x.device)
        assert self.post_index is not None
        assert self.weight is not None
        made = made.index_add(1, self.post_index.to(x.device), values * self.weight)
        return made if self.bias is None else made + self.bias


def _bernoulli_pairs(
    m: int, n: int, share: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws each of m × n pairs with one probability, in time proportional to the pairs drawn."""
    if share <= 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if share >= 1:
        pairs = np.arange(m * n)
        return pairs // n, pairs % n
    # The gaps between drawn pairs are geometric.
    total, found, last = m * n, [], -1
    while last < total - 1:
        size = int((total - last) * share * 1.05) + 16
        steps = last + np.cumsum(random.geometric(share, size=size))
        found.append(steps[steps < total])
        last = int(steps[-1])
    pairs = np.concatenate(found)
    return pairs // n, pairs % n


# ------------------------------------------------------------------------------------- projections


class ConnectionPolicy:
    """Chooses which pairs of terminal groups of a projection are connected; combine with `&`."""

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs.

        Args:
            pre: The source assembly.
            post: The target assembly.
        """
        raise NotImplementedError

    def __and__(self, other: "ConnectionPolicy") -> "ConnectionPolicy":
        return _Both(self, other)


class _Both(ConnectionPolicy):
    def __init__(self, one: ConnectionPolicy, other: ConnectionPolicy) -> None:
        self.one, self.other = one, other

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        kept = {(id(a), id(b)) for a, b in self.other.pairs(pre, post)}
        return [(a, b) for a, b in self.one.pairs(pre, post) if (id(a), id(b)) in kept]


class IncludedTypePolicy(ConnectionPolicy):
    """Keeps pairs whose labels meet the given ones.

    Args:
        pre_types: Labels of sources; None for all.
        post_types: Labels of targets; None for all.
        level: Which level of the tree is looked at; -1 for the terminal groups.
    """

    keep = True

    def __init__(
        self,
        pre_types: Sequence[str] | None = None,
        post_types: Sequence[str] | None = None,
        level: int = -1,
    ) -> None:
        self.pre_types, self.post_types, self.level = pre_types, post_types, level

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs."""
        found = []
        for a in _level(pre, self.level):
            for b in _level(post, self.level):
                inside = all(
                    types is None or bool(set(types) & set(part.type))
                    for types, part in ((self.pre_types, a), (self.post_types, b))
                )
                if inside == self.keep:
                    found += [(x, y) for x in a.get_groups() for y in b.get_groups()]
        return found


class ExcludedTypePolicy(IncludedTypePolicy):
    """Drops pairs whose labels meet the given ones."""

    keep = False


class IndexConnectPolicy(ConnectionPolicy):
    """Takes pairs by position.

    Args:
        pre_indexs: Positions of sources: an index among the groups of the first level below the
            assembly, or (level, index).
        post_indexs: Positions of targets.
    """

    def __init__(self, pre_indexs: Sequence[Any], post_indexs: Sequence[Any]) -> None:
        self.pre_indexs, self.post_indexs = pre_indexs, post_indexs

    def pairs(self, pre: Any, post: Any) -> list[tuple[Layer, Layer]]:
        """Lists the chosen pairs."""

        def at(root: Any, position: Any) -> Any:
            level, index = position if isinstance(position, tuple) else (1, position)
            found = _level(root, level)
            if not -len(found) <= index < len(found):
                raise InputError(f"{root!r} has {len(found)} groups at level {level}, not {index}")
            return found[index]

        return [
            (x, y)
            for i in self.pre_indexs
            for j in self.post_indexs
            for x in at(pre, i).get_groups()
            for y in at(post, j).get_groups()
        ]


def _level(root: Any, level: int) -> list[Any]:
    """The parts of an assembly at one level below it; -1 for its terminal groups."""
    if level == -1:
        return list(root.get_groups())
    from tenfold.spaic.network.objects import Assembly

    at = [root]
    for _ in range(level):
        at = [m for part in at for m in part.members.values() if isinstance(m, Assembly)]
    return at


class Projection(BaseModule):
    """Connections between two assemblies, made by policies when the network is built.

    Args:
        pre: The source assembly.
        post: The target assembly.
        policies: A list of policies, which must all choose a pair. Without one nothing is made.
        link_type: That of the connections.
        ConnectionParameters: Further arguments of the connections.
        name: The name.
    """

    label = "prj"

    def __init__(
        self,
        pre: Any,
        post: Any,
        policies: Sequence[ConnectionPolicy] | ConnectionPolicy = (),
        link_type: str = "full",
        ConnectionParameters: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.pre, self.post = pre, post
        self.policies = [policies] if isinstance(policies, ConnectionPolicy) else list(policies)
        self.link_type = link_type
        self.ConnectionParameters = dict(ConnectionParameters or {})
        self._made: dict[tuple[int, int], Connection] = {}

    def expand(self) -> list[Connection]:
        """Makes the connections that the policies choose, named `auto_con<k>`; once each."""
        chosen: list[tuple[Layer, Layer]] = []
        for number, policy in enumerate(self.policies):
            found = policy.pairs(self.pre, self.post)
            kept = {(id(a), id(b)) for a, b in found}
            chosen = found if number == 0 else [p for p in chosen if (id(p[0]), id(p[1])) in kept]
        made = []
        for a, b in chosen:
            key = (id(a), id(b))
            if key not in self._made:
                con = Connection(a, b, link_type=self.link_type, **self.ConnectionParameters)
                con.owner, con.name = self.owner, f"{self.name}_auto_con{len(self._made)}"
                self._made[key] = con
            made.append(self._made[key])
        return made
