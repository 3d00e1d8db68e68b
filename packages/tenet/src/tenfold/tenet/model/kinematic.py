"""Kinematic references: where agents would be if they went on as now, or a little otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tenfold.tenet.data.scenario import FUTURE, NOW, SECONDS_PER_STEP

RECENT = 10
"""Steps over which the present acceleration is measured."""
_STARTS = ((0.0, 0.0), (-0.6, 0.0), (0.6, 0.0), (-1.5, 0.0), (0.0, 0.02), (0.0, -0.02))
"""(m/s^2, 1/m) of the first six modes."""
_FADE = 1.5  # seconds
_STANDING = 0.1  # m/s: below, the course is the heading


class KinematicReference(nn.Module):
    """Velocities of K motions that go on as now, changed by an acceleration and a curvature each.

    ``v_k(t) = R(kappa_k s_k(t)) u max(0, |v| + a tau (1 - exp(-t / tau)) + a_k t)``: the present
    acceleration ``a`` along the course ``u`` fades; ``s_k`` is the way since now. The first mode
    starts without a change; ``a_k``, ``kappa_k`` and ``tau`` are learnt.

    Args:
        modes: K; those after the sixth start farther out.
    """

    def __init__(self, modes: int) -> None:
        super().__init__()
        starts = [
            [value * (1 + mode // len(_STARTS)) for value in _STARTS[mode % len(_STARTS)]]
            for mode in range(modes)
        ]
        self.acceleration = nn.Parameter(torch.tensor([start[0] for start in starts]))
        self.curvature = nn.Parameter(torch.tensor([start[1] for start in starts]))
        self.log_fade = nn.Parameter(torch.tensor(_FADE).log())

    def forward(self, state: Tensor, valid: Tensor) -> Tensor:
        """Gives velocities in the frame of the states.

        Args:
            state: float32 [n, 50, 5]: x, y, heading, vx, vy.
            valid: bool [n, 50]; true at the last step.

        Returns:
            [n, K, 60, 2], m/s.
        """
        velocity, heading = state[:, NOW, 3:], state[:, NOW, 2:3]
        speed = velocity.norm(dim=-1, keepdim=True)
        facing = torch.cat([heading.cos(), heading.sin()], dim=-1)
        course = torch.where(speed > _STANDING, velocity / speed.clamp_min(_STANDING), facing)
        seconds = SECONDS_PER_STEP * torch.arange(1, FUTURE + 1, device=state.device)
        fade = self.log_fade.exp()
        gained = recent_acceleration(state, valid) * fade * (1 - (-seconds / fade).exp())
        speeds = (speed + gained)[:, None] + self.acceleration[:, None] * seconds
        speeds = speeds.clamp_min(0.0)
        angle = self.curvature[:, None] * speeds.cumsum(dim=-1) * SECONDS_PER_STEP
        cos, sin = angle.cos(), angle.sin()
        x, y = course[:, None, None, 0], course[:, None, None, 1]
        return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) * speeds[..., None]


def recent_acceleration(state: Tensor, valid: Tensor) -> Tensor:
    """Fits a line to the speeds of the last second: m/s^2 [n, 1]; 0 with fewer than two steps."""
    there = valid[:, -RECENT:].float()
    speeds = torch.where(valid[:, -RECENT:, None], state[:, -RECENT:, 3:], 0.0).norm(dim=-1)
    seconds = SECONDS_PER_STEP * torch.arange(RECENT, device=state.device)
    count = there.sum(dim=1, keepdim=True).clamp_min(1)
    from_mean = (seconds - (there * seconds).sum(dim=1, keepdim=True) / count) * there
    spread = from_mean.square().sum(dim=1, keepdim=True)
    return (from_mean * speeds).sum(dim=1, keepdim=True) / spread.clamp_min(1e-4)
