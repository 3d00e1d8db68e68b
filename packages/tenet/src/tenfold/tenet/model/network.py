"""TENET: transformer encoding of agents and map, mode queries, three heads.

The paper names the parts (attention along time and across agents, cross-attention to the map, K
learnable tokens, three heads); widths, depths and every other figure here are a reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.tenet.data.scenario import FUTURE, HISTORY, NOW, SECONDS_PER_STEP
from tenfold.tenet.data.scene import (
    AGENT_FEATURES,
    LINE_FEATURES,
    Batch,
    agent_features,
    line_features,
)
from tenfold.tenet.model.attention import (
    CrossAttention,
    Grid,
    SelfAttention,
    attention,
    unless_full,
)
from tenfold.tenet.model.flow import TemporalFlowHeader
from tenfold.tenet.model.kinematic import KinematicReference

Winners = Callable[[Tensor], Tensor]
MapCross = Literal["all", "last"]
FlowTarget = Literal["xy", "xy+heading"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network; all of it reconstruction."""

    width: int = 128
    """D."""
    heads: int = 8
    """H."""
    encoder_layers: int = 3
    """Layers of time attention, agent attention, map cross-attention."""
    decoder_layers: int = 2
    """Layers of cross-attention to the scene, attention along time, attention across modes."""
    modes: int = 6
    """K."""
    dropout: float = 0.1
    """Of each residual branch, in training."""
    flow: bool = True
    """The Temporal Flow Header (an auxiliary loss; changes no prediction by itself)."""
    flow_target: FlowTarget = "xy"
    """What the Temporal Flow Header reconstructs."""
    laplace: bool = False
    """Predict Laplace scales beside positions."""
    use_map: bool = True
    """Cross-attention to the map; off for the ablation."""
    agent_attention: bool = True
    """Attention across agents; off for the ablation."""
    map_cross: MapCross = "all"
    """Which steps query the map: all, or the last one only (cheaper)."""
    dense: bool = False
    """A small head that predicts one future of every agent, for an auxiliary loss."""
    kinematic: bool = False
    """Predict speeds along and shifts across paths that follow lanes, one a mode, instead of
    positions. Adds 2 K + 1 parameters; for small data (`model.kinematic`)."""
    scale: float = 20.0
    """Metres of one unit of position."""

    def __post_init__(self) -> None:
        """Refuses shapes that no network has."""
        for name in ("width", "heads", "encoder_layers", "decoder_layers", "modes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        if self.width % self.heads:
            raise InputError(f"width={self.width} is not a multiple of heads={self.heads}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}; expected from 0 to below 1")


SIZES = {
    "tenet-tiny": ModelConfig(width=64, heads=4),
    "tenet-base": ModelConfig(),
    "tenet-large": ModelConfig(width=256),
}
"""The three sizes: 1,106,095, 3,553,455 and 13,191,343 parameters."""


def model_config(size: str, **changes: object) -> ModelConfig:
    """Gives the configuration of a size, with changes.

    Raises:
        InputError: If there is no such size.
    """
    if size not in SIZES:
        raise InputError(did_you_mean(size, SIZES, kind="size"))
    return replace(SIZES[size], **changes)  # type: ignore[arg-type]


@dataclass
class Forecast:
    """What the network says about n agents, in the scene frame, metres."""

    trajectories: Tensor
    """[n, K, 60, 2]."""
    logits: Tensor
    """[n, K]."""
    scales: Tensor | None = None
    """[n, K, 60, 2], with ``laplace``."""
    history: Tensor | None = None
    """[n, K or 1, 50, 2 or 4], in training with ``flow``: of all modes, or of the winners."""
    dense: Tensor | None = None
    """[B, A, 60, 2], in training with ``dense``."""

    @property
    def probabilities(self) -> Tensor:
        """[n, K]; sum to 1."""
        return self.logits.float().softmax(dim=-1)


class EncoderLayer(nn.Module):
    """Time attention, agent attention, cross-attention to the map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.time = SelfAttention(config.width, config.dropout)
        self.agents = (
            SelfAttention(config.width, config.dropout) if config.agent_attention else None
        )
        self.map = (
            CrossAttention(config.width, config.heads, config.dropout) if config.use_map else None
        )
        self.map_cross = config.map_cross

    def forward(self, x: Tensor, grid: Grid, lines: Tensor, line_valid: Tensor | None) -> Tensor:
        """Tokens [n, D] → tokens [n, D]."""
        x = self.time(x, grid.over_time)
        if self.agents is not None:
            x = self.agents(x, grid.over_agents)
        if self.map is not None and self.map_cross == "all":
            x = self.map(x, lines, line_valid, grid)
        elif self.map is not None:
            whole = grid.spread(x)
            last = self.map(whole[:, :, NOW], lines, line_valid)
            x = grid.pack(torch.cat([whole[:, :, :NOW], last[:, :, None]], dim=2))
        return x

    def forward_last(
        self, x: Tensor, grid: Grid, lines: Tensor, line_valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Does the same, but only for what the decoder reads: the result is equal, the cost small.

        Returns:
            The focal agent's tokens [B, 50, D], and all agents' tokens at the last step [B, A, D].
        """
        x = self.time(x, grid.over_time)
        whole = grid.spread(x)
        own, now = whole[:, 0], whole[:, :, NOW]
        if self.agents is not None:
            b, a, t, d = whole.shape
            weight, bias = self.agents.qkv.weight, self.agents.qkv.bias
            kv = nn.functional.linear(self.agents.norm(x), weight[d:], bias[d:])
            k, v = grid.spread(kv).transpose(1, 2).chunk(2, dim=-1)  # [B, T, A, D]
            both = torch.cat([own, now], dim=1)
            q = nn.functional.linear(self.agents.norm(both), weight[:d], bias[:d])
            valid = None if grid.valid is None else grid.valid.transpose(1, 2)
            by_step = attention(
                q[:, :t].reshape(b * t, 1, d),
                k.reshape(b * t, a, d),
                v.reshape(b * t, a, d),
                None if valid is None else valid.reshape(b * t, a),
                self.heads,
            ).view(b, t, d)
            at_end = attention(
                q[:, t:],
                k[:, NOW],
                v[:, NOW],
                None if valid is None else valid[:, NOW],
                self.heads,
            )
            both = self.agents.finish(both, torch.cat([by_step, at_end], dim=1))
            own, now = both[:, :t], both[:, t:]
        if self.map is not None and self.map_cross == "all":
            both = self.map(torch.cat([own, now], dim=1), lines, line_valid)
            own, now = both[:, : own.shape[1]], both[:, own.shape[1] :]
        elif self.map is not None:
            now = self.map(now, lines, line_valid)
            own = torch.cat([own[:, :NOW], now[:, :1]], dim=1)
        return own, now


class DecoderLayer(nn.Module):
    """Mode queries: cross-attention to the scene, attention along time, attention across modes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scene = CrossAttention(config.width, config.heads, config.dropout)
        self.time = SelfAttention(config.width, config.dropout)
        self.modes = SelfAttention(config.width, config.dropout)

    def forward(self, q: Tensor, memory: Tensor, valid: Tensor | None) -> Tensor:
        """[n, K, 60, D] → [n, K, 60, D]; memory [n, L, D], valid bool [n, L] or None."""
        n, k, t, d = q.shape
        q = self.scene(q.reshape(n, k * t, d), memory, valid).view(n, k, t, d)
        q = self.time(q.flatten(0, 1), self._attend).view(n, k, t, d)
        q = self.modes(q.transpose(1, 2).flatten(0, 1), self._attend)
        return q.view(n, t, k, d).transpose(1, 2)

    def _attend(self, qkv: Tensor) -> Tensor:
        """All tokens of a row see each other."""
        split = [t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1)]
        made = nn.functional.scaled_dot_product_attention(*split)
        return made.transpose(1, 2).flatten(2)


class Tenet(nn.Module):
    """The network.

    Args:
        config: Its shape.
        packed: Let the linear layers see valid tokens only; the same result, about twice as fast on
            real scenes. Off for ``torch.compile``, whose shapes must not depend on the data.
    """

    def __init__(self, config: ModelConfig | None = None, packed: bool = True) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        self.packed = packed
        d = config.width
        self.agent_embed = nn.Sequential(
            nn.Linear(AGENT_FEATURES, d), nn.LayerNorm(d), nn.ReLU(), nn.Linear(d, d)
        )
        self.time_embed = nn.Parameter(torch.empty(HISTORY, d))
        if config.use_map:
            self.point_embed = nn.Sequential(
                nn.Linear(LINE_FEATURES, d), nn.LayerNorm(d), nn.ReLU(), nn.Linear(d, d)
            )
            self.line_embed = nn.Sequential(
                nn.Linear(2 * d, d), nn.LayerNorm(d), nn.ReLU(), nn.Linear(d, d)
            )
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(d)
        self.mode_embed = nn.Parameter(torch.empty(config.modes, d))
        self.future_embed = nn.Parameter(torch.empty(FUTURE, d))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(d)
        numbers = 4 if config.laplace else 2
        self.regression = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, numbers))
        self.score = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 1))
        self.reference = KinematicReference(config.modes) if config.kinematic else None
        self.flow: TemporalFlowHeader | None = None
        if config.flow:
            outputs = 2 if config.flow_target == "xy" else 4
            self.flow = TemporalFlowHeader(d, FUTURE, HISTORY, outputs)
        self.dense: nn.Module | None = None
        if config.dense:
            self.dense = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, FUTURE * 2))
        self._initialise()

    def _initialise(self) -> None:
        """Draws the weights: Xavier-uniform, biases zero, each of q, k and v on its own."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            parts = {SelfAttention: ("qkv", 3), CrossAttention: ("kv", 2)}.get(type(module))
            if parts:
                for part in getattr(module, parts[0]).weight.data.chunk(parts[1]):
                    nn.init.xavier_uniform_(part)
        nn.init.normal_(self.time_embed, std=0.02)
        nn.init.normal_(self.future_embed, std=0.02)
        # With 0.02 here all modes would stay equal beside layer-normed tokens.
        nn.init.normal_(self.mode_embed, std=1.0)
        if self.reference is not None:  # start at the references and their priors
            for last in (self.regression[-1], self.score[-1]):
                nn.init.zeros_(last.get_parameter("weight"))

    def forward(
        self, batch: Batch, targets: Tensor | None = None, winners: Winners | None = None
    ) -> Forecast:
        """Forecasts the focal agents, or any agents.

        Args:
            batch: B scenes.
            targets: bool [B, A], agents that are valid at the last step; n of them. None: the focal
                agent of each scene, n = B, for which the last layer does only what is needed.
            winners: In training: trajectories → int64 [n], the modes whose past is reconstructed;
                None for all, which costs K times as much.

        Returns:
            The forecast; in training mode with the outputs of the auxiliary heads.
        """
        scale = self.config.scale
        grid = Grid(batch.valid, self.config.heads, self.packed)
        x = grid.pack(self.agent_embed(agent_features(batch, scale)) + self.time_embed)
        lines, line_valid = self._lines(batch), unless_full(batch.line_valid, self.packed)
        for layer in self.encoder[:-1]:
            x = layer(x, grid, lines, line_valid)
        last: EncoderLayer = self.encoder[-1]  # type: ignore[assignment]
        if targets is None:
            own, now = last.forward_last(x, grid, lines, line_valid)
            scene = torch.arange(own.shape[0], device=own.device)
            agent = torch.zeros_like(scene)
        else:
            whole = grid.spread(last(x, grid, lines, line_valid))
            scene, agent = targets.nonzero(as_tuple=True)
            own, now = whole[scene, agent], whole[:, :, NOW]
        own, now = self.encoder_norm(own), self.encoder_norm(now)
        z = self._decode(batch, own, now, lines, scene, agent)
        turn, shift = _own_frame(batch, scene, agent)
        made = self.regression(z).float()
        logits = self.score(z.amax(dim=2)).squeeze(-1).float()
        if self.reference is not None:
            change = made[..., :2] * scale / (FUTURE * SECONDS_PER_STEP)
            trajectories = self.reference(batch, scene, agent, change, self.config.use_map)
            logits = logits + self.reference.prior
        else:
            trajectories = made[..., :2] * scale @ turn[:, None] + shift[:, None, None]
        forecast = Forecast(trajectories, logits)
        if self.config.laplace:
            forecast.scales = nn.functional.softplus(made[..., 2:]) + 1e-3
        if self.training and self.flow is not None:
            if winners is not None:
                z = z[torch.arange(len(z), device=z.device), winners(trajectories)][:, None]
            past = self.flow(z).float()
            moved = (past[..., :2] * scale) @ turn[:, None] + shift[:, None, None]
            forecast.history = torch.cat([moved, past[..., 2:]], dim=-1)
        if self.training and self.dense is not None:
            offsets = self.dense(now).float().unflatten(-1, (FUTURE, 2)) * scale
            forecast.dense = offsets + batch.state[:, :, NOW, None, :2]
        return forecast

    def _lines(self, batch: Batch) -> Tensor:
        """Embeds polylines in the manner of PointNet: [B, M, D]."""
        if not self.config.use_map or batch.lines.shape[1] == 0:
            return batch.state.new_zeros(batch.state.shape[0], 0, self.config.width)
        points = self.point_embed(line_features(batch, self.config.scale))
        whole = points.amax(dim=2, keepdim=True).expand_as(points)
        return self.line_embed(torch.cat([points, whole], dim=-1)).amax(dim=2)

    def _decode(
        self, batch: Batch, own: Tensor, now: Tensor, lines: Tensor, scene: Tensor, agent: Tensor
    ) -> Tensor:
        """Lets the mode queries of n agents read the scene: features of the future [n, K, 60,
        D]."""
        q = self.mode_embed[:, None] + self.future_embed + own[:, None, None, NOW]
        memory = torch.cat([own, now[scene], lines[scene]], dim=1)
        there = torch.cat([batch.valid[scene, agent], batch.valid[scene, :, NOW]], dim=1)
        if lines.shape[1]:
            there = torch.cat([there, batch.line_valid[scene]], dim=1)
        valid = unless_full(there, self.packed)
        for layer in self.decoder:
            q = layer(q, memory, valid)
        return self.decoder_norm(q)


def _own_frame(batch: Batch, scene: Tensor, agent: Tensor) -> tuple[Tensor, Tensor]:
    """Gives what brings an agent's own frame into the scene's: R.T [n, 2, 2] and shift [n, 2].

    For the focal agent they are the identity and zero.
    """
    state = batch.state[scene, agent, NOW].float()
    cos, sin = state[:, 2].cos(), state[:, 2].sin()
    turn = torch.stack([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)], dim=-2)
    return turn, state[:, :2]


def world_logits(forecast: Forecast, targets: Tensor) -> Tensor:
    """Gives the logits of joint worlds: the mean over the scene's agents (reconstruction).

    Args:
        forecast: Of the agents ``targets``; mode k of all of them is world k.
        targets: bool [B, A].

    Returns:
        [B, K].
    """
    scene = targets.nonzero(as_tuple=True)[0]
    total = forecast.logits.new_zeros(len(targets), forecast.logits.shape[1])
    total = total.index_add(0, scene, forecast.logits)
    return total / targets.sum(dim=1, keepdim=True).clamp_min(1)
