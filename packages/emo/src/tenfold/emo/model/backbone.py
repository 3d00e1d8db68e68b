"""EMO and EMOv2: the networks, registered in timm.

    stage0   stem, stride 2
    stage1–4 strides 4, 8, 16, 32; block 0 halves the map and doubles λ, attention in stages 3, 4
    norm     LayerNorm over channels
    head     mean over positions, linear

After `import tenfold.emo`, `timm.create_model("emo_5m", features_only=True)` and everything else
that timm offers work. The names of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint_seq
from torch import Tensor, nn

from tenfold.emo.model.block import Activation, Attention, ChannelNorm, Norm, batch_norm, iRMB
from tenfold.emo.model.checkpoints import select_weights
from tenfold.shared.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

STAGES = 4


class Stem(nn.Module):
    """The first convolution: 3×3, stride 2, with bias and BatchNorm (key `convs.0`)."""

    def __init__(self, in_chans: int, out: int, act: Activation | None) -> None:
        super().__init__()
        conv = nn.Conv2d(in_chans, out, 3, 2, padding=1, bias=True)
        norm = batch_norm(out)
        parts: list[nn.Module] = [conv, norm, *([nn.SiLU()] if act else [])]
        self.convs: Any = nn.ModuleList([nn.Sequential(*parts)])

    def forward(self, x: Tensor) -> Tensor:
        """Maps an image [B, in_chans, H, W] to [B, out, ceil(H / 2), ceil(W / 2)]."""
        return self.convs[0](x)


class EMO(nn.Module):
    """An EMO or EMOv2 network, a timm model in every respect.

    Example:
        >>> model = EMO(dims=(8, 16, 24, 32), depths=(1, 2, 2, 2), stem_dim=8, head_dims=8)
        >>> model(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1000])

    Shapes:
        Input float [B, in_chans, H, W], any H and W. `forward_features` gives
        [B, C_4, ceil(H / 32), ceil(W / 32)], `forward` gives logits [B, num_classes].

    Args:
        depths: Blocks of the stages 1–4.
        dims: Channels of the stages.
        stem_dim: Channels of the stem.
        expansions: λ of the stages; block 0 of a stage has 2λ.
        head_dims: Channels of an attention head in each stage.
        window: w, the side of an attention group; one number, or one for each stage.
        kernel_sizes: Of the depth-wise convolutions of the stages.
        norms: The norm of each stage.
        acts: The activation of each stage.
        attention_stages: Which of the stages 1–4 attend.
        attention: `remote` (EMO as published), `close` or `spanning` (EMOv2).
        pre_attention: Whether attention comes before the expansion (EMO as published).
        stem_se: Squeeze-excitation in the stem (EMO).
        stem_act: Whether the first convolution has an activation (EMOv2).
        layer_scale: Initial LayerScale of the blocks (EMOv2: 1e-6); None for none.
        drop_path_rate: The largest rate of stochastic depth; it grows linearly over the blocks.
        drop_rate: Dropout before the head.
        num_classes: Number of logits; 0 for no head.
        in_chans: Channels of the image.
        global_pool: `avg`, or `` for none (`forward_head` then keeps the map).

    Raises:
        InputError: If the parts do not fit together; the message names the argument.

    Source: sections 2.4 and 8.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 8, 3),
        dims: Sequence[int] = (32, 48, 80, 168),
        stem_dim: int = 24,
        expansions: Sequence[float] = (2.0, 2.5, 3.0, 3.5),
        head_dims: int | Sequence[int] = (16, 16, 20, 21),
        window: int | Sequence[int] = 7,
        kernel_sizes: Sequence[int] = (3, 3, 5, 5),
        norms: Sequence[Norm] = ("batch", "batch", "layer", "layer"),
        acts: Sequence[Activation] = ("silu", "silu", "gelu", "gelu"),
        attention_stages: Sequence[int] = (3, 4),
        attention: Attention = "remote",
        pre_attention: bool = True,
        stem_se: bool = True,
        stem_act: bool = False,
        layer_scale: float | None = None,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        head_dims = head_dims if isinstance(head_dims, Sequence) else [head_dims] * STAGES
        windows = window if isinstance(window, Sequence) else [window] * STAGES
        for name, values in {
            "depths": depths,
            "dims": dims,
            "expansions": expansions,
            "head_dims": head_dims,
            "window": windows,
            "kernel_sizes": kernel_sizes,
            "norms": norms,
            "acts": acts,
        }.items():
            if len(values) != STAGES:
                raise InputError(f"{name}={tuple(values)}; expected {STAGES} values, one a stage")
        if min(depths) < 1:
            raise InputError(f"depths={tuple(depths)}; expected at least one block in each stage")
        if global_pool not in ("avg", ""):
            raise InputError(f"global_pool={global_pool!r}; expected 'avg' or ''")
        if not set(attention_stages) <= {1, 2, 3, 4}:
            raise InputError(
                f"attention_stages={tuple(attention_stages)}; expected some of 1, 2, 3, 4"
            )
        for name, value, least in (
            ("in_chans", in_chans, 1),
            ("stem_dim", stem_dim, 1),
            ("num_classes", num_classes, 0),
        ):
            if value < least:
                raise InputError(f"{name}={value}; expected >= {least}")
        if not 0 <= drop_path_rate < 1:
            raise InputError(f"drop_path_rate={drop_path_rate}; expected from 0 to below 1")
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.global_pool = global_pool
        self.num_features = self.head_hidden_size = dims[-1]
        self.grad_checkpointing = False

        self.stage0 = nn.Sequential(
            Stem(in_chans, stem_dim, "silu" if stem_act else None),
            iRMB(stem_dim, expand=False, norm=None, skip=False, se=stem_se),
        )
        before, at, total = stem_dim, 0, sum(depths)
        self.feature_info = []
        for s in range(STAGES):
            blocks = []
            for j in range(depths[s]):
                attends = j > 0 and s + 1 in attention_stages
                blocks.append(
                    iRMB(
                        before if j == 0 else dims[s],
                        dims[s],
                        expansion=expansions[s] * (2 if j == 0 else 1),
                        kernel_size=kernel_sizes[s],
                        stride=2 if j == 0 else 1,
                        attention=attention if attends else None,
                        head_dim=head_dims[s],
                        window=windows[s],
                        pre_attention=pre_attention,
                        norm=norms[s],
                        act=acts[s],
                        skip=j > 0,
                        layer_scale=layer_scale,
                        drop_path=drop_path_rate * at / max(total - 1, 1),
                    )
                )
                at += 1
            setattr(self, f"stage{s + 1}", nn.Sequential(*blocks))
            before = dims[s]
            self.feature_info.append(
                {"num_chs": dims[s], "reduction": 4 << s, "module": f"stage{s + 1}"}
            )
        self.norm: nn.Module = ChannelNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)

    def stages(self) -> list[nn.Sequential]:
        """Gives the stages 1–4 that there are (`prune_intermediate_layers` removes the last)."""
        return [
            getattr(self, f"stage{s + 1}") for s in range(STAGES) if hasattr(self, f"stage{s + 1}")
        ]

    def _run(self, stage: nn.Sequential, x: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training and not torch.jit.is_scripting():
            return checkpoint_seq(stage, x)
        return stage(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images [B, in_chans, H, W] to the normalised last map [B, C_4, H/32, W/32]."""
        x = self.stage0(x)
        for stage in self.stages():
            x = self._run(stage, x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps the last map [B, C_4, H, W] to logits [B, num_classes].

        Args:
            x: From `forward_features`.
            pre_logits: Whether to return the pooled features [B, C_4] instead.
        """
        if self.global_pool:
            x = x.mean((2, 3))
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        if pre_logits or not self.num_classes:
            return x
        return self.head(x) if x.ndim == 2 else self.head(x.movedim(1, -1)).movedim(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [B, in_chans, H, W] to logits [B, num_classes]."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Gives the maps of chosen stages (0–3 for the strides 4–32), as timm's models do.

        Args:
            x: Images [B, in_chans, H, W].
            indices: Which stages: the last n, a list, or all of them.
            norm: Whether the last stage's map is normalised.
            stop_early: Whether to leave out the stages after the last chosen one.
            output_fmt: `NCHW`.
            intermediates_only: Whether to return only the list of maps.

        Returns:
            The list of maps, or the last map and the list.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt={output_fmt!r}; expected 'NCHW'")
        stages = self.stages()
        wanted, last = feature_take_indices(len(stages), indices)
        maps = []
        x = self.stage0(x)
        for i, stage in enumerate(stages[: last + 1] if stop_early else stages):
            x = self._run(stage, x)
            if i in wanted:
                maps.append(self.norm(x) if norm and i == STAGES - 1 else x)
        if intermediates_only:
            return maps
        return self.norm(x), maps

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Removes what the chosen stages do not need, as timm's models do.

        Args:
            indices: As in `forward_intermediates`.
            prune_norm: Whether the final norm goes.
            prune_head: Whether the head goes.
        """
        wanted, last = feature_take_indices(STAGES, indices)
        for s in range(last + 1, STAGES):
            delattr(self, f"stage{s + 1}")
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return wanted

    def get_classifier(self) -> nn.Module:
        """Gives the last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a new one.

        Args:
            num_classes: Number of logits; 0 for no head.
            global_pool: `avg` or ``; unchanged if None.
        """
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise InputError(f"global_pool={global_pool!r}; expected 'avg' or ''")
            self.global_pool = global_pool
        if num_classes < 0:
            raise InputError(f"num_classes={num_classes}; expected >= 0")
        self.num_classes = num_classes
        reference = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _initialise(head)
        self.head = head.to(device=reference.device, dtype=reference.dtype)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights, as torch does; a published file's content gives its averaged ones.

        So `timm.create_model(…, checkpoint_path=FILE)` takes the published files, too.

        Args:
            state_dict: The weights, or a mapping that holds them as `net_E` or `net`.
            strict: Whether all names must fit.
            assign: Whether the tensors are taken instead of copied.
        """
        return super().load_state_dict(select_weights(state_dict), strict, assign)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups parameters by depth, for timm's layer decay and freezing.

        Args:
            coarse: By stage instead of by block.
        """
        blocks = (
            r"^stage([1-4])" if coarse else [(r"^stage([1-4])\.(\d+)", None), (r"^norm", (99999,))]
        )
        return {"stem": r"^stage0", "blocks": blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps only the blocks' inputs for the backward pass, and computes the rest again.

        Args:
            enable: Whether to do so.
        """
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names parameters without weight decay beyond the 1-D ones: none."""
        return set()


def _initialise(module: nn.Module) -> None:
    """Initialises linear layers; convolutions keep the default of torch (section 2.4)."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_V1: dict[str, dict[str, Any]] = {
    "emo_1m": {"drop_path_rate": 0.04036},
    "emo_2m": {
        "depths": (3, 3, 9, 3),
        "dims": (32, 48, 120, 200),
        "head_dims": (16, 16, 20, 20),
        "drop_path_rate": 0.05,
    },
    "emo_5m": {
        "depths": (3, 3, 9, 3),
        "dims": (48, 72, 160, 288),
        "expansions": (2.0, 3.0, 4.0, 4.0),
        "head_dims": (24, 24, 32, 32),
        "drop_path_rate": 0.05,
    },
    "emo_6m": {
        "depths": (3, 3, 9, 3),
        "dims": (48, 72, 160, 320),
        "expansions": (2.0, 3.0, 4.0, 5.0),
        "head_dims": (16, 24, 20, 32),
        "drop_path_rate": 0.05,
    },
}
_V2: dict[str, dict[str, Any]] = {
    "emo2_1m": {
        "dims": (32, 48, 80, 180),
        "head_dims": (16, 16, 20, 20),
        "drop_path_rate": 0.04036,
    },
    "emo2_2m": {
        "depths": (3, 3, 9, 3),
        "dims": (32, 48, 120, 200),
        "head_dims": (16, 16, 20, 20),
        "drop_path_rate": 0.05,
    },
    "emo2_5m": {
        "depths": (3, 3, 9, 3),
        "dims": (48, 72, 160, 288),
        "expansions": (2.0, 3.0, 4.0, 4.0),
        "head_dims": (16, 24, 32, 32),
        "drop_path_rate": 0.05,
    },
    "emo2_20m": {
        "depths": (3, 3, 13, 3),
        "dims": (64, 128, 320, 448),
        "expansions": (2.0, 3.0, 4.0, 4.0),
        "head_dims": (16, 32, 32, 32),
        "drop_path_rate": 0.1,
    },
    "emo2_50m": {
        "depths": (5, 8, 20, 7),
        "dims": (64, 128, 384, 512),
        "expansions": (2.0, 3.0, 4.0, 4.0),
        "head_dims": (16, 32, 32, 32),
        "drop_path_rate": 0.2,
    },
}
for _options in _V2.values():
    _options.update(
        stem_dim=_options["dims"][0] // 2,
        kernel_sizes=(5, 5, 5, 5),
        attention="spanning",
        pre_attention=False,
        stem_se=False,
        stem_act=True,
        layer_scale=1e-6,
    )

MODELS: dict[str, dict[str, Any]] = _V1 | _V2
"""The published models: name in timm → arguments of `EMO` (table of section 2.4, section 8)."""

default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "first_conv": "stage0.0.convs.0.0",
            "classifier": "head",
            "paper_ids": "arXiv:2301.01146" if name in _V1 else "arXiv:2412.06674",
        }
        for name in MODELS
    }
)


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    # The rate of stochastic depth belongs to training: a recipe gives it, timm's default is 0.
    published = {k: v for k, v in MODELS[name].items() if k != "drop_path_rate"}
    return build_model_with_cfg(
        EMO,
        name,
        pretrained,
        pretrained_filter_fn=select_weights,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **(published | options),
    )


@register_model
def emo_1m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMO-1M: 1 361 168 parameters, 261 M FLOPs at 224²."""
    return _create("emo_1m", pretrained, **options)


@register_model
def emo_2m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMO-2M: 2 377 472 parameters, 439 M FLOPs at 224²."""
    return _create("emo_2m", pretrained, **options)


@register_model
def emo_5m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMO-5M: 5 108 848 parameters, 903 M FLOPs at 224²."""
    return _create("emo_5m", pretrained, **options)


@register_model
def emo_6m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMO-6M: 6 168 496 parameters, 961 M FLOPs at 224²."""
    return _create("emo_6m", pretrained, **options)


@register_model
def emo2_1m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMOv2-1M: 1 460 844 parameters, 285 M FLOPs at 224²."""
    return _create("emo2_1m", pretrained, **options)


@register_model
def emo2_2m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMOv2-2M: 2 384 312 parameters, 487 M FLOPs at 224²."""
    return _create("emo2_2m", pretrained, **options)


@register_model
def emo2_5m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMOv2-5M: 5 126 440 parameters, 1 035 M FLOPs at 224²."""
    return _create("emo2_5m", pretrained, **options)


@register_model
def emo2_20m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMOv2-20M: 20 195 208 parameters, 4 017 M FLOPs at 224²."""
    return _create("emo2_20m", pretrained, **options)


@register_model
def emo2_50m(pretrained: bool = False, **options: Any) -> nn.Module:
    """EMOv2-50M: 49 815 560 parameters, 8 804 M FLOPs at 224²."""
    return _create("emo2_50m", pretrained, **options)
