"""Kinematic references: agents go on as now along their lanes, and modes are differences to that.

Not of the paper: an option for small data, where a network that starts from nothing learns
neither motion nor lanes. The first mode starts as a motion at the present speed and its fading
change; others brake, speed up, or keep left or right where lanes part. What the network predicts
are speeds along, and shifts across, these paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfold.tenet.data.scenario import FUTURE, NOW, OBJECT_TYPES, SECONDS_PER_STEP
from tenfold.tenet.data.scene import CROSSING, Batch

RECENT = 10
"""Steps over which the present acceleration is measured."""
STEP = 2.0
"""Metres between two points of a path."""
POINTS = 45
"""Steps of a path; it goes straight on after them."""
_STARTS = ((0.0, 0.0), (-0.6, 0.0), (0.6, 0.0), (-1.5, 0.0), (-0.3, 1.0), (-0.3, -1.0))
"""(m/s^2, left or right) of the first six modes."""
_FADE = 1.5  # seconds
_PRIOR = 1.5  # the logit of the first mode: most go on as now
_STANDING = 0.1  # m/s: below, the course is the heading
_NEAR = 1.2  # metres: the width of a lane's pull
_KEEP = 40.0  # how strongly a mode that keeps left prefers lanes that bend left
_RETURN = 3.0  # metres of way over which the distance to a lane is made up
_ON_LANES = [OBJECT_TYPES.index(name) for name in ("vehicle", "motorcyclist", "cyclist", "bus")]


class KinematicReference(nn.Module):
    """K motions along lanes, and what the network changes in them.

    Mode k has the speed ``max(0, |v| + a tau (1 - exp(-t / tau)) + a_k t)``: the present
    acceleration ``a`` fades. ``a_k``, ``tau`` and the modes' prior logits are learnt; the
    side that a mode keeps where lanes part is fixed.

    Args:
        modes: K; those after the sixth start farther out.
    """

    side: Tensor

    def __init__(self, modes: int) -> None:
        super().__init__()
        starts = [
            [_STARTS[mode % len(_STARTS)][0] * (1 + mode // len(_STARTS)) for mode in range(modes)],
            [_STARTS[mode % len(_STARTS)][1] for mode in range(modes)],
        ]
        self.acceleration = nn.Parameter(torch.tensor(starts[0]))
        self.register_buffer("side", torch.tensor(starts[1]), persistent=False)
        self.prior = nn.Parameter(torch.tensor([_PRIOR] + [0.0] * (modes - 1)))
        self.log_fade = nn.Parameter(torch.tensor(_FADE).log())

    def forward(
        self, batch: Batch, scene: Tensor, agent: Tensor, change: Tensor, lanes: bool = True
    ) -> Tensor:
        """Gives the trajectories of n agents, in the frame of their scene.

        Args:
            batch: The scenes.
            scene: int64 [n].
            agent: int64 [n]; there at the last step.
            change: [n, K, 60, 2], m/s: along and, to the left, across the paths.
            lanes: Follow lanes; else straight on.

        Returns:
            [n, K, 60, 2], metres.
        """
        state, valid = batch.state[scene, agent].float(), batch.valid[scene, agent]
        velocity, heading = state[:, NOW, 3:], state[:, NOW, 2:3]
        speed = velocity.norm(dim=-1, keepdim=True)
        facing = torch.cat([heading.cos(), heading.sin()], dim=-1)
        course = torch.where(speed > _STANDING, velocity / speed.clamp_min(_STANDING), facing)
        with torch.no_grad():
            on_lanes = torch.tensor(_ON_LANES, device=state.device)
            follows = (batch.object_type[scene, agent, None] == on_lanes).any(dim=1)
            ahead, tangent = self._paths(
                state[:, NOW, :2], course, _segments(batch, scene, follows & lanes)
            )
        seconds = SECONDS_PER_STEP * torch.arange(1, FUTURE + 1, device=state.device)
        fade = self.log_fade.exp()
        gained = recent_acceleration(state, valid) * fade * (1 - (-seconds / fade).exp())
        speeds = (speed + gained)[:, None] + self.acceleration[:, None] * seconds
        speeds = (speeds.clamp_min(0.0) + change[..., 0]).clamp_min(0.0)
        way = speeds.cumsum(dim=-1) * SECONDS_PER_STEP
        across = change[..., 1].cumsum(dim=-1) * SECONDS_PER_STEP
        # The point of the path at that way; its last step goes on without an end.
        row = (way / STEP).long().clamp_max(POINTS - 1)
        pick = row[..., None].expand(*row.shape, 2)
        start, direction = ahead.gather(2, pick), tangent.gather(2, pick)
        left = torch.stack([-direction[..., 1], direction[..., 0]], dim=-1)
        return start + (way - row * STEP)[..., None] * direction + across[..., None] * left

    def _paths(self, start: Tensor, course: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """Goes on lane by lane.

        At each step near segments pull: towards their direction and their line, the more the nearer
        they are; those that run another way do not.

        Args:
            start: [n, 2].
            course: [n, 2], unit vectors.
            segments: Of the lanes of each agent.

        Returns:
            Points and directions [n, K, POINTS, 2].
        """
        g, modes = segments, len(self.side)
        place, u = (v[:, None].expand(-1, modes, 2) for v in (start, course))
        keep = (_KEEP * self.side)[:, None]
        offset_along, offset_left = g.x * g.ux + g.y * g.uy, g.x * -g.uy + g.y * g.ux
        ahead, tangent = [], []
        for _ in range(POINTS):
            ux, uy = u[..., :1], u[..., 1:]
            px, py = place[..., :1] + STEP * ux, place[..., 1:] + STEP * uy
            same, bends = ux * g.ux + uy * g.uy, ux * g.uy - uy * g.ux
            along = px * g.ux + py * g.uy - offset_along
            beyond = along - along.clamp_min(0.0).minimum(g.length)
            off = py * g.ux - px * g.uy - offset_left  # to the left of the segment
            near = (off.square() + beyond.square()) / (2 * _NEAR**2)
            pull = (-near).exp() * (same - 0.5).clamp_min(0.0) * g.there
            share = pull * (keep * bends).clamp(-8.0, 8.0).exp()
            share = share / share.sum(dim=-1, keepdim=True).clamp_min(1e-9)
            back = share * (off / -_RETURN)
            wish = torch.cat(
                [
                    (share * g.ux - back * g.uy).sum(dim=-1, keepdim=True),
                    (share * g.uy + back * g.ux).sum(dim=-1, keepdim=True),
                ],
                dim=-1,
            )
            total = pull.sum(dim=-1, keepdim=True)
            u = nn.functional.normalize(u + total / (total + 0.05) * (wish - u), dim=-1)
            ahead.append(place)
            tangent.append(u)
            place = place + STEP * u
        return torch.stack(ahead, dim=2), torch.stack(tangent, dim=2)


@dataclass
class Segments:
    """The L segments of the lanes around n agents: begin, unit direction, length; [n, 1, L]."""

    x: Tensor
    y: Tensor
    ux: Tensor
    uy: Tensor
    length: Tensor
    there: Tensor


def _segments(batch: Batch, scene: Tensor, follows: Tensor) -> Segments:
    """Gives the segments of lanes (not crossings) for those of n agents that follow them."""
    valid = batch.line_valid & (batch.line_kind != CROSSING)
    lines = torch.where(batch.line_valid[..., None, None], batch.lines, 0.0).float()
    begins = lines[:, :, :-1].flatten(1, 2)
    steps = (lines[:, :, 1:] - lines[:, :, :-1]).flatten(1, 2)
    length = steps.norm(dim=-1)
    unit = steps / length.clamp_min(1e-6)[..., None]
    there = valid[..., None].expand(*valid.shape, lines.shape[2] - 1).flatten(1, 2) & (length > 0)
    there = there[scene] & follows[:, None]
    x, y, ux, uy, length = (
        part[scene, None]
        for part in (begins[..., 0], begins[..., 1], unit[..., 0], unit[..., 1], length)
    )
    return Segments(x, y, ux, uy, length, there[:, None].float())


def recent_acceleration(state: Tensor, valid: Tensor) -> Tensor:
    """Fits a line to the speeds of the last second: m/s^2 [n, 1]; 0 with fewer than two steps.

    Args:
        state: float32 [n, 50, 5]: x, y, heading, vx, vy.
        valid: bool [n, 50].
    """
    there = valid[:, -RECENT:].float()
    speeds = torch.where(valid[:, -RECENT:, None], state[:, -RECENT:, 3:], 0.0).norm(dim=-1)
    seconds = SECONDS_PER_STEP * torch.arange(RECENT, device=state.device)
    count = there.sum(dim=1, keepdim=True).clamp_min(1)
    from_mean = (seconds - (there * seconds).sum(dim=1, keepdim=True) / count) * there
    spread = from_mean.square().sum(dim=1, keepdim=True)
    return (from_mean * speeds).sum(dim=1, keepdim=True) / spread.clamp_min(1e-4)
