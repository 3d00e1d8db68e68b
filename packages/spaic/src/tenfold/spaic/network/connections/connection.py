"""Connections: who is linked to whom (`link_type`) and what a spike does there (`syn_type`).

Weights have the layout (post, pre): `Isyn = O Wᵀ (+ bias)`. A dense link holds its weight as one
matrix; `sparse`-stored links hold `pre_index`, `post_index` and one weight (and perhaps one delay)
a synapse, in numpy order of creation, which the event engine turns into an out-adjacency.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.connections import synapses
from tenfold.spaic.network.connections.delays import delayed, draw_delays
from tenfold.spaic.network.connections.images import IMAGE_OPTIONS, IMAGES, image_shapes
from tenfold.spaic.network.connections.links import (
    DENSE,
    LINK_OPTIONS,
    LINKS,
    STAGE,
    STORED,
    STORED_AS,
    draw_weight,
    given_tensor,
)
from tenfold.spaic.network.groups import Layer, NeuronGroup
from tenfold.spaic.network.objects import BaseModule, OfRun, untagged
from tenfold.spaic.units import measured, milliseconds, plain


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
            at the end of the step (no delay) in which the spike was made; of `iaf_psc_delta` before
            the threshold of a later step.
        syn_kwargs: Parameters of the synapse models (tau, tau_r, tau_d, p, num_features, U, ...).
        prefer_device: Kept for the network's file.
        weight: An array of the weight's shape (of one value a synapse for sparse storage), a
            number, a `Quantity` of these, or an `Initializer`.
        bias: An array of one value a target neuron or channel, or an `Initializer`.
        w_min: The weights are clamped to [w_min, w_max] at the start of each run.
        w_max: See w_min.
        is_parameter: Whether a gradient learner trains weight and bias; by default that of the
            link.
        min_delay: Shortest delay in ms.
        delay: One delay in ms for all, on any link but an electrical one; or an array (post, pre),
            or one a synapse, on links whose synapses are pairs of neurons.
        train_delay: Whether a gradient learner trains the delays of a dense link; see
            `network.connections.delays`.
        weight_quantization: Round the weights and clip them to [−128, 128] at the start of a run.
        is_sparse: Hold a sparse, random or one_to_one link one entry a synapse instead of as a
            matrix with zeros.
        **options: Those of the link, for example density, probability, degree, kernel_size, w_std.

    Raises:
        InputError: For a name, shape or value that does not fit; it names the connection.
    """

    label = "con"
    of_run: ClassVar[OfRun] = {"_state": dict}

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
        is_sparse: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(name)
        for side, layer in (("pre", pre), ("post", post)):
            if not isinstance(layer, Layer):
                raise InputError(f"{self!r}: {side} is {layer!r}; expected a group or a node")
        self.pre, self.post = pre, post
        if not isinstance(link_type, str):
            raise InputError(f"{self!r}: link_type={link_type!r}; expected a name")
        if link_type not in LINKS:
            raise InputError(f"{self!r}: {did_you_mean(link_type, LINKS, 'link_type')}")
        if is_sparse and LINKS[link_type] not in STORED.values():
            if LINKS[link_type] not in STORED_AS:
                raise InputError(
                    f"{self!r}: is_sparse=True with link_type {link_type!r}; expected one of "
                    f"{', '.join(STORED_AS)}"
                )
            link_type = STORED_AS[LINKS[link_type]]
        self.link_type, self.kind = link_type, LINKS[link_type]
        self.pre_var_name, self.post_var_name = untagged(pre_var_name), untagged(post_var_name)
        self.sparse_with_mask, self.prefer_device = sparse_with_mask, prefer_device
        self.syn_kwargs = {
            key: measured(key, value, f"{self!r}") for key, value in (syn_kwargs or {}).items()
        }
        known = LINK_OPTIONS.get(self.kind, set())
        known = known | IMAGE_OPTIONS if self.kind in IMAGES.values() else known
        for key in options:
            if key not in known:
                raise InputError(f"{self!r}: {did_you_mean(key, known, f'option of {link_type}')}")
        self.options = {key: plain(value) for key, value in options.items()}
        self.syn_type = self._synapses(syn_type)
        if self.kind == "continuous_local":  # its weights lie between bounds (section 5)
            w_min, w_max = (0.0 if w_min is None else w_min), (0.1 if w_max is None else w_max)
        self.given_weight, self.given_bias = plain(weight), plain(bias)
        self.w_min, self.w_max = plain(w_min), plain(w_max)
        for key, value in (("w_min", self.w_min), ("w_max", self.w_max)):
            if value is not None and not (isinstance(value, Real) and not math.isnan(value)):
                raise InputError(f"{self!r}: {key}={value!r}; expected a number")
        if None not in (self.w_min, self.w_max) and self.w_min > self.w_max:
            raise InputError(f"{self!r}: w_min={w_min} is above w_max={w_max}")
        self.is_parameter = (
            self.kind not in STORED.values() if is_parameter is None else is_parameter
        )
        self.weight_quantization = weight_quantization
        self.max_delay = milliseconds("max_delay", max_delay, f"{self!r}")
        self.min_delay = (
            None if min_delay is None else milliseconds("min_delay", min_delay, f"{self!r}")
        )
        self.given_delay = measured("delay", delay, f"{self!r}")
        for key, value in (("weight", weight), ("bias", bias), ("delay", self.given_delay)):
            if isinstance(value, str):
                raise InputError(f"{self!r}: {key}={value!r}; expected numbers")
        self.train_delay = train_delay
        if self.max_delay < 0 or not math.isfinite(self.max_delay):
            raise InputError(f"{self!r}: max_delay={max_delay}; expected >= 0 ms")
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        self.delay: Tensor | None = None
        self.mask: Tensor | None = None
        self.pre_index: Tensor | None = None
        self.post_index: Tensor | None = None
        self.awaited: int | None = None  # as many synapses are about to come from a file
        self.modules: dict[str, torch.nn.Module] = {}
        # A plan may turn a link to a state into one to an input, which is read a step earlier.
        self.into, self.ahead = post_var_name, 0
        self.training = True
        self.dtype = torch.float32
        self._state: dict[str, Any] = {}
        synapses.check(self)
        if self.kind in IMAGES.values():
            self.fit_image()

    def __repr__(self) -> str:
        if self.name or "post" not in self.__dict__:
            return super().__repr__()
        ends = [f"{layer!r} of {layer.shape or 'no'} neurons" for layer in (self.pre, self.post)]
        return f"Connection (unnamed) from {ends[0]} to {ends[1]}"

    def _synapses(self, given: str | Sequence[str] | None) -> list[str]:
        if given is None:
            given = STAGE.get(self.kind, "basic")
        chosen = [given] if isinstance(given, str) else list(given)
        if self.options.get("Isyn_bn", False) and "isyn_bn" not in chosen:
            chosen.append("isyn_bn")
        for name in chosen:
            if name not in synapses.SYNAPSES:
                raise InputError(f"{self!r}: {did_you_mean(name, synapses.SYNAPSES, 'syn_type')}")
        if "electrical" in chosen and not (
            isinstance(self.pre, NeuronGroup) and isinstance(self.post, NeuronGroup)
        ):
            raise InputError(f"{self!r}: an electrical synapse needs a NeuronGroup on both sides")
        if "electrical" in chosen and (len(chosen) > 1 or self.kind not in DENSE.values()):
            raise InputError(
                f"{self!r}: an electrical synapse stands alone in syn_type, on a link that holds a "
                f"matrix ({', '.join(DENSE)}), not on {self.link_type}"
            )
        return chosen

    def fit_image(self) -> None:
        """Checks the target's shape of a link between images, or fills it from the source's.

        Raises:
            InputError: If the shapes do not fit.
        """
        self.out_channels, *self.out_size = image_shapes(self)

    # ----------------------------------------------------------------------------------- weights

    @property
    def stored_sparse(self) -> bool:
        """Whether it holds one entry a synapse instead of a matrix."""
        return self.kind in STORED.values()

    @property
    def deliverable(self) -> bool:
        """Whether it is a plain weighted link, without a synapse model of its own."""
        plain = self.stored_sparse or self.kind in DENSE.values() or self.kind == "all_to_all"
        return self.syn_type == ["basic"] and plain

    def _check_channels(self) -> None:
        """Refuses a batch normalisation of other channels than it sees."""
        if "batchnorm2d" not in self.syn_type or "num_features" not in self.syn_kwargs:
            return
        before = self.syn_type[: self.syn_type.index("batchnorm2d")]
        seen = self.pre.shape and self.pre.shape[0]
        if {"conv", "conv_transpose", "local"} & set(before):
            seen = self.out_channels
        if isinstance(self.syn_kwargs["num_features"], Integral) and (
            self.syn_kwargs["num_features"] != seen
        ):
            raise InputError(
                f"{self!r}: batchnorm2d has num_features={self.syn_kwargs['num_features']}, and "
                f"what it sees has {seen} channels"
            )

    def prepare(
        self, generator: torch.Generator, dt: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Draws the weights and delays, once.

        Args:
            generator: Where random numbers come from.
            dt: The step in ms.
            dtype: The precision.
            device: The device.

        Raises:
            InputError: For weights, delays or options that do not fit; it names the connection.
        """
        self.dtype = dtype
        if self.kind in IMAGES.values():
            self.fit_image()
        if self.weight is None and self.kind not in ("null", "pool"):
            made = draw_weight(self, generator)
            if not bool(torch.isfinite(made).all()):
                raise InputError(f"{self!r}: weight holds values that are not finite")
            made = made.to(device=device, dtype=dtype)
            self.weight = torch.nn.Parameter(made, requires_grad=self.is_parameter)
            if self.mask is not None:
                self.mask = self.mask.to(device=device, dtype=dtype)
        if self.bias is None and self.given_bias is not None:
            size = self.out_channels if self.kind in IMAGES.values() else self.post.num
            bias = given_tensor(self, self.given_bias, (size,), "bias", generator)
            if not bool(torch.isfinite(bias).all()):
                raise InputError(f"{self!r}: bias holds values that are not finite")
            self.bias = torch.nn.Parameter(bias.to(device=device, dtype=dtype))
        delayed = self.max_delay > 0 or "delay_complex_synapse" in self.syn_type
        if self.delay is None and (delayed or self.given_delay is not None):
            made = draw_delays(self, generator)
            self.delay = torch.nn.Parameter(
                made.to(device=device, dtype=dtype), requires_grad=self.train_delay
            )
        self._check_channels()
        for name in self.syn_type:
            make = synapses.SYNAPSES[name].module
            if make is not None and name not in self.modules:
                self.modules[name] = make(self, generator).to(device=device, dtype=dtype)

    def forget(self) -> None:
        """Forgets what was drawn, since the layers have other sizes; the next build draws anew."""
        self.weight = self.bias = self.delay = self.mask = None
        self.pre_index = self.post_index = None
        self.modules, self._state = {}, {}

    def delay_steps(self, dt: float, compat: str | None) -> np.ndarray:
        """Gives the delays as whole steps: rounded down and at most `max_delay` in the
        compatible mode, else to nearest.

        A link that reads what its source was a step before has waited that step already.

        Args:
            dt: The step in ms.
            compat: The network's mode.
        """
        if self.delay is None:
            return np.zeros((), dtype=np.int64)
        steps = self.delay.detach().cpu().to(torch.float64).numpy() / dt
        if compat == "spaic":
            longest = self.max_delay / dt if self.max_delay > 0 else math.inf
            steps = np.floor(np.minimum(steps, longest) + 1e-6)
        else:
            steps = np.rint(steps)
        return np.maximum(np.asarray(steps, dtype=np.int64) - self.ahead, 0)

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
        """Gives the saved tensors (weight, bias, delay) by their full names.

        Returns:
            Name → tensor, in the link's own layout.
        """
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
        if self.weight is not None and x.dtype != self.weight.dtype:
            x = x.to(self.weight.dtype)  # models may have a precision of their own
        x = delayed(self, x)
        for name in self.syn_type:
            x = synapses.apply(self, name, x, random)
        if self.post.shape and math.prod(x.shape[1:]) != self.post.num:
            raise InputError(
                f"{self!r} gives {tuple(x.shape[1:])}; {self.post!r} has {self.post.size}"
            )
        return x.reshape(len(x), *self.post.size) if self.post.shape else x
