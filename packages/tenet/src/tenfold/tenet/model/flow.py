"""The Temporal Flow Header: from the features of the future back to the observed past."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

CHANNELS = (32, 64, 128)


class ResidualBlock(nn.Module):
    """conv3, GroupNorm(1), ReLU, conv3, GroupNorm(1), + shortcut, ReLU, along time.

    Args:
        inner: Channels that come in.
        outer: Channels that go out.
        stride: Of the first convolution.
    """

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inner, outer, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(1, outer)
        self.conv2 = nn.Conv1d(outer, outer, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(1, outer)
        self.shortcut: nn.Module = nn.Identity()
        if inner != outer or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv1d(inner, outer, 1, stride, bias=False), nn.GroupNorm(1, outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inner, T] → [N, outer, T / stride]."""
        y = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class TemporalFlowHeader(nn.Module):
    """A feature pyramid over the future steps that reconstructs the history; for training only.

    Bottom-up 60, 30, 15 steps with 32, 64, 128 channels; lateral convolutions to D; top-down by
    linear interpolation; a residual block; a linear map along time to the observed steps.

    Args:
        width: D.
        future: 60.
        history: 50.
        outputs: Numbers a step: 2 for positions, 4 with cos and sin of the heading.
    """

    def __init__(self, width: int, future: int, history: int, outputs: int) -> None:
        super().__init__()
        inner = (width, *CHANNELS[:-1])
        self.groups = nn.ModuleList(
            nn.Sequential(ResidualBlock(a, b, stride=1 if level == 0 else 2), ResidualBlock(b, b))
            for level, (a, b) in enumerate(zip(inner, CHANNELS, strict=True))
        )
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv1d(c, width, 3, 1, 1, bias=False), nn.GroupNorm(1, width))
            for c in CHANNELS
        )
        self.fuse = ResidualBlock(width, width)
        self.time = nn.Linear(future, history)
        self.out = nn.Linear(width, outputs)

    def forward(self, z: Tensor) -> Tensor:
        """Reconstructs the past.

        Args:
            z: [..., 60, D], the features of the future.

        Returns:
            [..., 50, outputs], in forward time order.
        """
        x = z.flatten(0, -3).transpose(1, 2)
        levels = []
        for group in self.groups:
            x = group(x)
            levels.append(x)
        top: Tensor | None = None
        for lateral, level in zip(reversed(self.laterals), reversed(levels), strict=True):
            y = lateral(level)
            if top is not None:
                y = y + interpolate(top, size=y.shape[-1], mode="linear", align_corners=False)
            top = y
        assert top is not None
        made = self.out(self.time(self.fuse(top)).transpose(1, 2))
        return made.unflatten(0, z.shape[:-2])
