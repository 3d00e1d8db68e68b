"""Reward-modulated STDP on CartPole: a spiking actor, and a critic that says what was better.

Place cells code the state; two populations of LIF neurons that inhibit each other act; `rstdpet`
strengthens the links whose spikes went before a reward. The reward is the temporal-difference error
of a critic that is linear in the place cells, after Barto, Sutton & Anderson (IEEE SMC 1983); that
such an error can reward STDP is shown by Frémaux, Sprekeler & Gerstner (PLoS Comput. Biol. 2013).
The method card asks for the example (section 14) and gives no numbers: all of them are our choice.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Encoder, Reward
from tenfold.spaic.reinforcement.environment import GymEnvironment
from tenfold.spaic.reinforcement.pipeline import RLPipeline


@dataclass(frozen=True)
class RSTDPConfig:
    """One training of a spiking actor by reward-modulated STDP."""

    environment: str = "CartPole-v1"
    """An environment of gymnasium with discrete actions and a Box of as many numbers as fields."""
    fields: tuple[tuple[float, float, int], ...] = (
        (-2.4, 2.4, 3),
        (-1.5, 1.5, 3),
        (-0.21, 0.21, 7),
        (-2.0, 2.0, 5),
    )
    """For each number of the state: the lowest and the highest centre of place cells, and how many
    centres there are. The cells stand on the grid of all of them."""
    episodes: int = 60
    """Training episodes."""
    population: int = 10
    """Spiking neurons of each action."""
    decision_time: float = 10.0
    """How long the network runs for a decision, in ms (steps of 1 ms)."""
    rate: float = 3.5
    """Spikes a ms of all place cells together."""
    learning_rate: float = 0.01
    """How fast weights change (`lr` of rstdpet)."""
    trace: float = 10.0
    """How long a synapse remembers that it was used, in ms (`tau_z` of rstdpet)."""
    critic_rate: float = 0.5
    """How fast the critic learns."""
    critic_trace: float = 0.8
    """λ: how much of a state is still to blame a decision later."""
    discount: float = 0.95
    """How much a reward counts one decision later."""
    seed: int = 0
    """Seed of weights, spikes and episodes."""

    def __post_init__(self) -> None:
        """Refuses values that no training can have."""
        for name in ("episodes", "population"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        for name in ("decision_time", "rate", "learning_rate", "trace", "critic_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)}; expected a finite number > 0")
        for name in ("critic_trace", "discount"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}; expected from 0 to 1")
        for low, high, count in self.fields:
            if not low < high or count < 2:
                raise InputError(f"fields={(low, high, count)}; expected low < high, two centres")


class PlaceCells(GymEnvironment):
    """An environment seen by place cells: Gaussian bumps on a grid whose activities sum to one.

    Args:
        name: The environment.
        fields: As in `RSTDPConfig`.

    Raises:
        InputError: If the environment shows another number of numbers.
    """

    def __init__(self, name: Any, fields: tuple[tuple[float, float, int], ...]) -> None:
        self.centres = [np.linspace(low, high, count) for low, high, count in fields]
        super().__init__(name)

    def rates(self, observation: Any) -> np.ndarray:
        """Gives the activity of each place cell.

        Args:
            observation: As the environment gives it.

        Returns:
            float32 [cells], of sum 1.
        """
        seen = np.asarray(observation, dtype=np.float64).reshape(-1)
        if len(seen) != len(self.centres):
            raise InputError(
                f"{self.name} shows {len(seen)} numbers; fields has {len(self.centres)}"
            )
        bumps = []
        for value, centre in zip(seen, self.centres, strict=True):
            apart = (np.clip(value, centre[0], centre[-1]) - centre) / (centre[1] - centre[0])
            bump = np.exp(-0.5 * (1.5 * apart) ** 2)
            bumps.append(bump / bump.sum())
        return reduce(np.multiply.outer, bumps).reshape(-1).astype(np.float32)


class Critic:
    """Learns what a state is worth, TD(λ), and rewards what led to a better one than expected.

    V(s) = v·s with the place cells' activities s; δ = r + γ V(s') − V(s), v += rate δ e,
    e = γλ e + s. r is −1 where the episode ended (the pole fell) and 0 elsewhere: the environment's
    own reward of 1 a step, less 1, and −1 for the end.

    Args:
        size: The number of place cells.
        config: Its rates.
    """

    def __init__(self, size: int, config: RSTDPConfig) -> None:
        self.config = config
        self.value, self.trace = np.zeros(size), np.zeros(size)

    def __call__(
        self, state: np.ndarray, reward: float, next_state: np.ndarray, ended: bool
    ) -> float:
        """Learns from a transition.

        Args:
            state: Before.
            reward: The environment's; not looked at.
            next_state: After.
            ended: Whether the episode ended.

        Returns:
            δ, the reward for the network.
        """
        c = self.config
        after = -1.0 if ended else c.discount * float(self.value @ next_state)
        error = after - float(self.value @ state)
        self.trace = c.discount * c.critic_trace * self.trace + state
        self.value += c.critic_rate * error * self.trace
        if ended:
            self.trace[:] = 0
        return error


def rstdp_actor(cells: int, actions: int, config: RSTDPConfig = RSTDPConfig()) -> Network:
    """Builds place cells → a population of LIF neurons an action; populations inhibit each other.

    Args:
        cells: The number of place cells.
        actions: The number of actions.
        config: Sizes and rates.

    Returns:
        A network with `input`, `neurons`, `plastic`, `inhibit`, `action` and `reward`.
    """
    net = Network("rstdp_actor")
    net.set_random_seed(config.seed)
    net.set_backend_dt(1.0)
    size = actions * config.population
    net.input = Encoder(num=cells, coding_method="poisson", unit_conversion=config.rate)
    net.neurons = NeuronGroup(size, model="lif", tau_m=8.0)
    drawn = torch.rand(size, cells, generator=torch.Generator().manual_seed(config.seed))
    net.plastic = Connection(
        net.input,
        net.neurons,
        weight=0.1 + 0.02 * drawn,
        is_parameter=False,
        w_min=0.0,
        w_max=0.3,
    )
    # Only the population that wins has spikes, so only its links are rewarded or punished.
    ones = torch.ones(config.population, config.population)
    others = torch.kron(1 - torch.eye(actions), ones) / config.population
    net.inhibit = Connection(net.neurons, net.neurons, weight=-others, is_parameter=False)
    net.action = Action(
        dec_target=net.neurons,
        num=actions,
        coding_method="pop_rate_action",
        pop_size=config.population,
    )
    net.reward = Reward(dec_target=net.neurons, num=size, coding_method="environment_reward")
    net.learner = Learner(
        trainable=net.plastic,
        algorithm="rstdpet",
        lr=config.learning_rate,
        tau_z=config.trace,
        A_minus=0.0,
    )
    return net


@dataclass
class Acted:
    """What a training gave.

    Attributes:
        network: The actor.
        critic: The critic; `value` is what each place is worth, from −1 (falls) to 0.
        returns: The return of each training episode; for CartPole, the steps balanced.
        before: Returns of test episodes of the untrained actor.
        after: The same of the trained one; nothing is learned in test episodes.
    """

    network: Network
    critic: Critic
    returns: list[float]
    before: list[float]
    after: list[float]


def train_rstdp(config: RSTDPConfig = RSTDPConfig(), episodes: int = 10) -> Acted:
    """Trains an actor by reward-modulated STDP, and tests it before and after.

    Args:
        config: The training.
        episodes: Test episodes, with seeds of their own.

    Raises:
        InputError: If gymnasium is missing, or the environment does not fit the fields.
    """
    env = PlaceCells(config.environment, config.fields)
    net = rstdp_actor(env.size, env.actions, config)
    critic = Critic(env.size, config)

    def played(count: int, judge: Any, seed: int) -> list[float]:
        pipeline = RLPipeline(
            net,
            env,
            config.decision_time,
            count,
            action_repeat=None,
            critic=judge,
            continuous=True,
            seed=seed,
        )
        return pipeline.run()

    def indifferent(*_: Any) -> float:
        return 0.0

    before = played(episodes, indifferent, 10_000)
    returns = played(config.episodes, critic, config.seed)
    after = played(episodes, indifferent, 10_000)
    env.close()
    return Acted(net, critic, returns, before, after)
