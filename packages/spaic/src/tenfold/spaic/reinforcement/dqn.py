"""A Q-network of spiking neurons for discrete actions, by surrogate gradients (section 14)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Decoder, Encoder
from tenfold.spaic.reinforcement.environment import GymEnvironment
from tenfold.spaic.reinforcement.pipeline import RLPipeline


@dataclass(frozen=True)
class DQNConfig:
    """One training of a spiking Q-network."""

    environment: str = "CartPole-v1"
    """An environment of gymnasium with discrete actions."""
    episodes: int = 250
    """Training episodes."""
    hidden: int = 128
    """Spiking neurons."""
    spike_steps: int = 5
    """Time steps of 1 ms for a decision."""
    batch_size: int = 64
    """Transitions a training step."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    discount: float = 0.99
    """How much a reward counts one step later."""
    following: float = 0.01
    """How far the target network follows in a step."""
    random_first: float = 0.9
    """Share of random actions in the beginning."""
    random_last: float = 0.02
    """Share that it falls to."""
    random_episodes: int = 60
    """Within so many episodes, along an exponential."""
    capacity: int = 20_000
    """Transitions that are kept."""
    seed: int = 0
    """Seed of weights, actions and episodes."""

    def __post_init__(self) -> None:
        """Refuses values that no training can have."""
        for name in ("episodes", "hidden", "spike_steps", "batch_size", "random_episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")


def q_network(states: int, actions: int, config: DQNConfig) -> Network:
    """Builds state → LIF neurons → leaky integrators, whose mean potential is Q.

    Args:
        states: Numbers of a state; each goes in as x and as 1 − x, so that zero is seen too.
        actions: The number of actions.
        config: Sizes.

    Returns:
        A network with `input`, `values` (the decoder of Q) and `action` (the action of highest Q).
    """
    net = Network("q")
    net.set_random_seed(config.seed)
    net.set_backend_dt(1.0)
    net.input = Encoder(num=2 * states, coding_method="float")
    net.hidden = NeuronGroup(config.hidden, model="lif", tau_m=5.0)
    net.last = NeuronGroup(actions, model="li", tau_m=5.0)
    generator = torch.Generator().manual_seed(config.seed)
    before: Any = net.input
    for target in (net.hidden, net.last):
        bound = (6 / (before.num + target.num)) ** 0.5
        if target is net.hidden:
            bound *= 4  # states are small numbers; most neurons shall reach their threshold
        weight = (torch.rand(target.num, before.num, generator=generator) * 2 - 1) * bound
        link = Connection(before, target, weight=weight, bias=torch.zeros(target.num))
        net.add_connection(f"into_{target.name}", link)
        before = target
    net.values = Decoder(dec_target=net.last, num=actions, coding_method="spike_rate")
    net.action = Action(dec_target=net.last, num=actions, coding_method="highest_spikes_action")
    net.learner = Learner(trainable=net, algorithm="sbp")
    net.learner.set_optimizer("Adam", lr=config.learning_rate)
    net.build(strategy=1)
    return net


class _Doubled(GymEnvironment):
    """Shows x and 1 − x."""

    def rates(self, observation: Any) -> np.ndarray:
        x = super().rates(observation)
        return np.concatenate([x, 1 - x])


@dataclass
class Balanced:
    """What a training gave.

    Attributes:
        network: The Q-network.
        returns: The return of each training episode.
    """

    network: Network
    returns: list[float]


def train_dqn(config: DQNConfig = DQNConfig()) -> Balanced:
    """Trains a Q-network in an `RLPipeline`: one step of Adam a step of the environment.

    Args:
        config: The training.

    Raises:
        InputError: If gymnasium is missing, or the environment has other actions.
    """
    env = _Doubled(config.environment)
    states = env.size // 2
    net, slow = (q_network(states, env.actions, config) for _ in range(2))
    pipeline = RLPipeline(
        net,
        env,
        float(config.spike_steps),
        config.episodes,
        action_repeat=None,
        probability_random_action=config.random_first,
        replay_memory=True,
        memory_capacity=config.capacity,
        seed=config.seed,
    )
    memory = pipeline.memory
    assert memory is not None
    time = pipeline.time

    def values(network: Network, data: np.ndarray) -> torch.Tensor:
        network.input(data)
        network.run(time)
        made: torch.Tensor = network.values.predict
        return made

    def learn() -> None:
        batch = memory.sample(config.batch_size)
        state = np.stack([item.state for item in batch])
        after = np.stack(
            [item.state if item.next_state is None else item.next_state for item in batch]
        )
        going = torch.tensor([item.next_state is not None for item in batch])
        reward = torch.tensor([item.reward for item in batch], dtype=torch.float32)
        action = torch.tensor([item.action for item in batch])
        with torch.no_grad():
            best = values(net, after).argmax(1)  # double Q-learning
            worth = values(slow, after)[torch.arange(len(batch)), best]
            goal = reward + config.discount * going * worth
        found = values(net, state)[torch.arange(len(batch)), action]
        loss = torch.nn.functional.smooth_l1_loss(found, goal)
        net.learner.optim_zero_grad()
        loss.backward()
        net.learner.optim_step()
        with torch.no_grad():
            pairs = zip(slow.learner.parameters(), net.learner.parameters(), strict=True)
            for old, new in pairs:
                old.lerp_(new, config.following)

    def episode_over(episode: int, _: float) -> None:
        share = min(1.0, (episode + 1) / config.random_episodes)
        ratio = config.random_last / config.random_first
        pipeline.probability_random_action = config.random_first * ratio**share

    show = pipeline.update_step

    def update_step(found: Any) -> None:
        if len(memory) >= config.batch_size:
            learn()
        show(found)  # last, so that the action belongs to this state

    pipeline.update_step = update_step  # type: ignore[method-assign]
    returns = pipeline.run(episode_over)
    env.close()
    return Balanced(net, returns)
