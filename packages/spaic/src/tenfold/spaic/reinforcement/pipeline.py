"""The loop between a network with an Action node and an environment (card section 14)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Encoder, Reward
from tenfold.spaic.reinforcement.environment import GymEnvironment


@dataclass(frozen=True)
class Transition:
    """What happened in one step of an environment.

    Attributes:
        state: Before.
        action: What was done.
        next_state: After; None if the episode ended.
        reward: For it.
    """

    state: np.ndarray
    action: Any
    next_state: np.ndarray | None
    reward: float


class ReplayMemory:
    """Keeps the latest transitions and draws from them.

    Args:
        capacity: How many are kept.
        seed: Of the draws.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise InputError(f"capacity={capacity}; expected >= 1")
        self._kept: deque[Transition] = deque(maxlen=capacity)
        self._random = np.random.default_rng(seed)

    def push(self, state: np.ndarray, action: Any, next_state: Any, reward: float) -> None:
        """Adds a transition; the oldest makes room.

        Args:
            state: Before.
            action: What was done.
            next_state: After; None if the episode ended.
            reward: For it.
        """
        self._kept.append(Transition(state, action, next_state, reward))

    def sample(self, n: int) -> list[Transition]:
        """Draws transitions without repetition.

        Args:
            n: How many.

        Raises:
            InputError: If there are fewer.
        """
        if not 1 <= n <= len(self._kept):
            raise InputError(f"a sample of {n} from {len(self._kept)} transitions")
        return [self._kept[i] for i in self._random.choice(len(self._kept), n, replace=False)]

    def __len__(self) -> int:
        return len(self._kept)


class RLPipeline:
    """Lets a network act in an environment, one run of the network for each step.

    The network has one Encoder for the state, one Action, and perhaps a Reward (with the coding
    `environment_reward`), which are found by their kind.

    Args:
        network: The network.
        environment: The environment.
        time: How long the network runs for a step of the environment, in ms.
        num_episodes: Episodes of `run`.
        action_repeat: How often the same action may come in a row; then another is drawn. None
            for any number.
        probability_random_action: How often an action is drawn instead.
        render_interval: Every how many steps the environment is shown; None for never.
        reward_delay: By how many steps the network's reward is late; None for none.
        replay_memory: Whether transitions are kept in `memory`.
        memory_capacity: How many.
        seed: Of the drawn actions and the episodes.
        critic: Says what reward the network gets for a transition: called with the state, the
            environment's reward, the next state, and whether the episode ended there. None: the
            environment's reward.
        continuous: Whether the network goes on from step to step within an episode, as rules with
            an eligibility trace need that are rewarded for the step before. Otherwise, as in the
            official code, each step is a new run: states and traces begin anew.

    Raises:
        InputError: If the network lacks a node, or a number makes no sense.
    """

    def __init__(
        self,
        network: Network,
        environment: GymEnvironment,
        time: float,
        num_episodes: int = 100,
        action_repeat: int | None = 2,
        probability_random_action: float = 0.0,
        render_interval: int | None = None,
        reward_delay: int | None = None,
        replay_memory: bool = False,
        memory_capacity: int = 10_000,
        seed: int = 0,
        critic: Callable[[np.ndarray, float, np.ndarray, bool], float] | None = None,
        continuous: bool = False,
    ) -> None:
        self.network, self.environment, self.time = network, environment, time
        self.encoder = _only(network, Encoder, exact=True)
        self.action = _only(network, Action)
        rewards = network.parts(Reward)
        self.reward: Reward | None = rewards[0] if rewards else None
        if not 0 <= probability_random_action <= 1:
            raise InputError(
                f"probability_random_action={probability_random_action}; expected from 0 to 1"
            )
        for name, value in (
            ("action_repeat", action_repeat),
            ("num_episodes", num_episodes),
            ("render_interval", render_interval),
        ):
            if value is not None and value < 1:
                raise InputError(f"{name}={value}; expected >= 1")
        if reward_delay is not None and reward_delay < 1:
            raise InputError(f"reward_delay={reward_delay}; expected None or >= 1 steps")
        self.num_episodes, self.action_repeat = num_episodes, action_repeat
        self.probability_random_action = probability_random_action
        self.render_interval, self.reward_delay = render_interval, reward_delay
        self.memory = ReplayMemory(memory_capacity, seed) if replay_memory else None
        self.critic, self.continuous = critic, continuous
        self._random = np.random.default_rng(seed)
        self._seed: int | None = seed
        self.returns: list[float] = []
        self.reset_pipeline()

    def reset_pipeline(self) -> None:
        """Begins an episode: resets the environment and lets the network see its first state."""
        if self._seed is not None:
            self.environment.seed(self._seed)
            self._seed = None
        self._late: deque[float] = deque([0.0] * (self.reward_delay or 0))
        self._last, self._repeated, self.steps, self.total = -1, 0, 0, 0.0
        self.state = self.environment.reset()
        self._show(self.state, 0.0)

    def env_step(self) -> tuple[np.ndarray, float, bool]:
        """Acts once, as the network's Action says, or at random.

        Returns:
            The next state, the reward for the network, and whether the episode is over.
        """
        actions = self.environment.actions
        chosen = int(self.action.predict[0])
        if self._random.random() < self.probability_random_action:
            chosen = int(self._random.integers(actions))
        self._repeated = self._repeated + 1 if chosen == self._last else 1
        if self.action_repeat is not None and self._repeated > self.action_repeat and actions > 1:
            others = [a for a in range(actions) if a != chosen]
            chosen, self._repeated = int(self._random.choice(others)), 1
        self._last = chosen
        before = self.state
        self.state, reward, ended, cut, _ = self.environment.step(chosen)
        self.steps, self.total = self.steps + 1, self.total + reward
        if self.memory is not None:
            self.memory.push(before, chosen, None if ended else self.state, reward)
        if self.render_interval and self.steps % self.render_interval == 0:
            self.environment.render()
        if self.critic is not None:
            reward = self.critic(before, reward, self.state, ended)
        return self.state, reward, ended or cut

    def update_step(self, found: tuple[np.ndarray, float, bool]) -> None:
        """Lets the network see a state and its reward, and run.

        Args:
            found: What `env_step` gave.
        """
        state, reward, _ = found
        self._late.append(reward)
        self._show(state, self._late.popleft())

    def _show(self, state: np.ndarray, reward: float) -> None:
        self.encoder(state[None])
        if self.reward is not None:
            self.reward([reward])
        going_on = self.continuous and self.steps > 0
        (self.network.run_continue if going_on else self.network.run)(self.time)

    def run(self, on_episode: Callable[[int, float], None] | None = None) -> list[float]:
        """Plays episodes.

        Args:
            on_episode: Called with the number of the episode and its return.

        Returns:
            The return of each episode of this call; `returns` holds those of all calls.
        """
        begun = len(self.returns)
        with progress("episodes", total=self.num_episodes) as bar:
            for episode in range(self.num_episodes):
                if episode or self.steps:
                    self.reset_pipeline()
                done = False
                while not done:
                    found = self.env_step()
                    self.update_step(found)
                    done = found[2]
                self.returns.append(self.total)
                if on_episode is not None:
                    on_episode(episode, self.total)
                bar.update(total=self.total)
        return self.returns[begun:]


def _only(network: Network, kind: type, exact: bool = False) -> Any:
    found = [node for node in network.parts(kind) if not exact or type(node) is kind]
    if len(found) != 1:
        raise InputError(
            f"{network!r} has {len(found)} nodes of the kind {kind.__name__}; expected one"
        )
    return found[0]
