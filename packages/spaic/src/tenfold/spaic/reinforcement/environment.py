"""An environment of gymnasium whose observations are rates (card section 14)."""

from typing import Any

import numpy as np

from tenfold.shared.errors import InputError


def gymnasium_module() -> Any:
    """Imports gymnasium, or says how to install it.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise InputError("environments need gymnasium: install tenfold-spaic[rl]") from error
    return gymnasium


def open_environment(name: str, **options: Any) -> Any:
    """Makes an environment.

    Args:
        name: Its registered name, for example `Pendulum-v1`.
        **options: Those of `gymnasium.make`.

    Raises:
        InputError: If gymnasium is missing or knows no such environment.
    """
    gymnasium = gymnasium_module()
    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.Error as error:
        raise InputError(f"environment {name!r}: {error}") from error


class GymEnvironment:
    """An environment with discrete actions; what it shows becomes numbers from 0 to `max_prob`.

    An observation is put between 0 and 1, made grey, resized, made binary and flattened, in this
    order and as far as asked for (the official order is binary before resized, whose averages are
    not binary). A bounded component goes linearly from its lowest to its highest
    value; an unbounded one, as CartPole's velocities, through the logistic function.

    Args:
        name: The environment's registered name, or an environment.
        shape: (height, width) that images are resized to.
        binary: Whether values above one half become 1 and the others 0.
        gray: Whether images (height, width, 3) become grey (ITU-R BT.601).
        flatten: Whether the result has one axis.
        max_prob: The highest value.
        clip_rewards: Whether only the sign of a reward counts.
        **options: Those of `gymnasium.make`.

    Raises:
        InputError: For actions that are not discrete, or observations that are not a Box or a
            number of states.
    """

    def __init__(
        self,
        name: Any,
        shape: tuple[int, int] | None = None,
        binary: bool = False,
        gray: bool = False,
        flatten: bool = True,
        max_prob: float = 1.0,
        clip_rewards: bool = True,
        **options: Any,
    ) -> None:
        gymnasium = gymnasium_module()
        self.env = open_environment(name, **options) if isinstance(name, str) else name
        self.name = name if isinstance(name, str) else type(name).__name__
        space = self.env.observation_space
        if not isinstance(self.env.action_space, gymnasium.spaces.Discrete):
            raise InputError(
                f"{self.name} has actions {self.env.action_space}; expected a Discrete space (for "
                "others see SpikingActor)"
            )
        if not isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            raise InputError(f"{self.name} shows {space}; expected a Box or Discrete space")
        image = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 3
        if (gray or shape is not None) and not image:
            raise InputError(
                f"{self.name} shows {space}; gray and shape are for images (height, width, 3)"
            )
        if gray and space.shape[2] != 3:
            raise InputError(f"{self.name} shows {space}; gray is for three colours")
        if shape is not None and (len(shape) != 2 or min(shape) < 1):
            raise InputError(f"shape={shape}; expected (height, width)")
        if not 0 < max_prob <= 1:
            raise InputError(f"max_prob={max_prob}; expected > 0 and at most 1")
        self.shape, self.binary, self.gray, self.flatten = shape, binary, gray, flatten
        self.max_prob, self.clip_rewards = max_prob, clip_rewards
        self.space = space
        self.actions = int(self.env.action_space.n)
        self._first = int(self.env.action_space.start)
        self._seed: int | None = None
        self.size = int(np.prod(self.rates(self._sample()).shape))

    def _sample(self) -> Any:
        gymnasium = gymnasium_module()
        if isinstance(self.space, gymnasium.spaces.Discrete):
            return int(self.space.start)
        return np.zeros(self.space.shape, dtype=self.space.dtype)

    def rates(self, observation: Any) -> np.ndarray:
        """Turns an observation into numbers from 0 to `max_prob`.

        Args:
            observation: As the environment gives it.

        Returns:
            float32, of one axis if `flatten`.
        """
        gymnasium = gymnasium_module()
        if isinstance(self.space, gymnasium.spaces.Discrete):
            x = np.zeros(int(self.space.n), dtype=np.float32)
            x[int(observation) - int(self.space.start)] = 1.0
            return self.max_prob * x
        x = np.asarray(observation, dtype=np.float64)
        low, high = (np.asarray(b, dtype=np.float64) for b in (self.space.low, self.space.high))
        # A range of 1e30 and more, as gymnasium writes for float32 without bounds, says nothing.
        bounded = (np.abs(low) < 1e30) & (np.abs(high) < 1e30)
        width = np.where(bounded, high - low, 1.0)
        linear = (x - np.where(bounded, low, 0.0)) / np.where(width > 0, width, 1.0)
        squashed = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
        x = np.clip(np.where(bounded, linear, squashed), 0.0, 1.0)
        if self.gray:
            x = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
        if self.shape is not None:
            x = _resized(x, self.shape)
        if self.binary:
            x = (x > 0.5).astype(np.float64)
        if self.flatten:
            x = x.reshape(-1)
        return (self.max_prob * x).astype(np.float32)

    def reset(self) -> np.ndarray:
        """Begins an episode and gives its first observation as rates."""
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None
        return self.rates(observation)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Acts.

        Args:
            action: From 0 to the number of actions − 1.

        Returns:
            The next observation as rates, the reward, whether the episode ended, whether it was
            cut off, and what else the environment says.
        """
        if not 0 <= action < self.actions:
            raise InputError(f"action={action}; expected 0..{self.actions - 1}")
        made, reward, ended, cut, info = self.env.step(self._first + int(action))
        reward = float(np.sign(reward)) if self.clip_rewards else float(reward)
        return self.rates(made), reward, bool(ended), bool(cut), info

    def render(self) -> Any:
        """Shows the environment, as its `render_mode` says."""
        return self.env.render()

    def seed(self, seed: int) -> None:
        """Seeds the next `reset`.

        Args:
            seed: The seed.
        """
        self._seed = seed

    def close(self) -> None:
        """Frees what the environment holds."""
        self.env.close()


def _resized(x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Averages the pixels of an image (height, width, channels) that fall together."""
    import torch

    image = torch.from_numpy(x).permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(image, size=shape, mode="area")
    return np.asarray(made[0].permute(1, 2, 0).numpy())
