"""Spiking-DDPG: a spiking actor and a deep critic (card section 14).

After Tang, Kumar & Michmizos (2020, arXiv 2003.01157): the state goes in as Poisson spikes, passes
three hidden layers of two-state LIF neurons, and comes out as rates, which make the action. The
critic is an ordinary network; its gradient −∂Q/∂a goes back through the spike counts with a
rectangular surrogate. Populations with Gaussian receptive fields code each number of the state, and
the constants of the neurons (current decay 0.5, potential decay 0.75 a step, threshold 0.5) are
those of Tang, Kumar, Yoo & Michmizos (CoRL 2020), since the method card gives none.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError
from tenfold.shared.progress import progress
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.network import Network, NetworkModule
from tenfold.spaic.network.nodes import Decoder, Encoder
from tenfold.spaic.reinforcement.environment import gymnasium_module, open_environment


@dataclass(frozen=True)
class DDPGConfig:
    """One training of a spiking actor."""

    environment: str = "Pendulum-v1"
    """An environment of gymnasium with a bounded Box of actions."""
    steps: int = 12_000
    """Steps in the environment."""
    warm_up: int = 1_000
    """Of them at random, before the training begins."""
    hidden: tuple[int, ...] = (64, 64, 64)
    """Neurons of the actor's hidden layers."""
    population: int = 10
    """Neurons that code each number of the state, and neurons of each action."""
    spike_steps: int = 5
    """Time steps of 1 ms for a decision."""
    critic: tuple[int, ...] = (128, 128)
    """Units of the critic's hidden layers."""
    batch_size: int = 64
    """Transitions a training step."""
    actor_rate: float = 1e-3
    """Step size of the actor's Adam."""
    critic_rate: float = 1e-3
    """Step size of the critic's Adam."""
    discount: float = 0.99
    """How much a reward counts one step later."""
    following: float = 0.005
    """How far the target networks follow in a step."""
    noise: float = 0.1
    """Deviation of the exploring noise, as a share of the actions' half range."""
    capacity: int = 50_000
    """Transitions that are kept."""
    seed: int = 0
    """Seed of weights, spikes, noise and episodes."""

    def __post_init__(self) -> None:
        """Refuses values that no training can have."""
        for name in ("steps", "population", "spike_steps", "batch_size", "capacity"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        if self.warm_up < self.batch_size:
            raise InputError(
                f"warm_up={self.warm_up}; expected at least batch_size={self.batch_size}"
            )


class SpikingActor(nn.Module):
    """A policy of spiking neurons: states [batch, n] → actions [batch, m].

    Args:
        low: The lowest value of each number of the state.
        high: The highest.
        actions: How many numbers an action has.
        config: Sizes and times.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, actions: int, config: DDPGConfig) -> None:
        super().__init__()
        self.low: Tensor
        self.span: Tensor
        self.centres: Tensor
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float32))
        self.register_buffer("span", torch.as_tensor(high - low, dtype=torch.float32))
        self.register_buffer("centres", torch.linspace(0, 1, config.population))
        self.config, self.actions = config, actions
        self.spiking = NetworkModule(self._network(len(low)), float(config.spike_steps))
        self.weight = nn.Parameter(torch.zeros(actions, config.population))
        generator = torch.Generator().manual_seed(config.seed)
        with torch.no_grad():
            self.weight.copy_(torch.rand(self.weight.shape, generator=generator) * 2 - 1)
        self.bias = nn.Parameter(torch.zeros(actions))

    def _network(self, states: int) -> Network:
        config = self.config
        net = Network("actor")
        net.set_random_seed(config.seed)
        net.set_backend_dt(1.0)
        net.input = Encoder(num=states * config.population, coding_method="poisson")
        before: Any = net.input
        generator = torch.Generator().manual_seed(config.seed)
        decays = {"tau_p": -1 / np.log(0.5), "tau_m": -1 / np.log(0.75)}
        for number, size in enumerate((*config.hidden, self.actions * config.population), 1):
            group = NeuronGroup(size, model="lifm", v_th=0.5, **decays)
            net.add_assembly(f"layer{number}", group)
            bound = before.num**-0.5
            weight = (torch.rand(size, before.num, generator=generator) * 2 - 1) * bound
            bias = (torch.rand(size, generator=generator) * 2 - 1) * bound
            net.add_connection(f"link{number}", Connection(before, group, weight=weight, bias=bias))
            before = group
        net.output = Decoder(dec_target=before, num=before.num, coding_method="spike_rate")
        net.learner = Learner(
            trainable=net, algorithm="sbp", surrogate_func="RectangleGrad", alpha=0.5
        )
        net.build(strategy=1)
        return net

    def coded(self, state: Tensor) -> Tensor:
        """Codes states as firing probabilities of populations with Gaussian receptive fields.

        Args:
            state: [batch, n].

        Returns:
            [batch, n · population], from 0 to 1.
        """
        x = ((state - self.low) / self.span).clamp(0, 1)
        width = 1 / max(len(self.centres) - 1, 1)
        return torch.exp(-0.5 * ((x[..., None] - self.centres) / width) ** 2).flatten(1)

    def forward(self, state: Tensor) -> Tensor:
        """Decides.

        Args:
            state: [batch, n].

        Returns:
            [batch, m], from −1 to 1.
        """
        rates = self.spiking(self.coded(state)).reshape(len(state), self.actions, -1)
        return torch.tanh((rates * self.weight).sum(2) + self.bias)


class _Critic(nn.Module):
    """Q(state, action) as an ordinary network."""

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        made: Tensor = self.layers(torch.cat([state, action], dim=1))
        return made[:, 0]


@dataclass
class Driven:
    """What a training gave.

    Attributes:
        actor: The trained actor; its actions are between −1 and 1.
        returns: The return of each whole training episode.
        before: Returns of test episodes of the untrained actor.
        after: The same of the trained one, without exploring noise.
    """

    actor: SpikingActor
    returns: list[float]
    before: list[float]
    after: list[float]


def train_ddpg(
    config: DDPGConfig = DDPGConfig(),
    episodes: int = 5,
    on_episode: Callable[[int, float], None] | None = None,
) -> Driven:
    """Trains a spiking actor with a deep critic, and tests it before and after.

    Args:
        config: The training.
        episodes: Test episodes, with seeds of their own.
        on_episode: Called with the number of each training episode and its return.

    Raises:
        InputError: If gymnasium is missing, or the environment has other spaces.
    """
    gymnasium = gymnasium_module()
    env = open_environment(config.environment)
    space, acts = env.observation_space, env.action_space
    box = gymnasium.spaces.Box
    if not isinstance(space, box) or not isinstance(acts, box) or len(space.shape) != 1:
        raise InputError(f"{config.environment}: expected Box spaces, got {space} and {acts}")
    if (
        not np.isfinite([space.low, space.high]).all()
        or not np.isfinite([acts.low, acts.high]).all()
    ):
        raise InputError(f"{config.environment}: states and actions must be bounded, got {space}")
    middle, half = (acts.high + acts.low) / 2, (acts.high - acts.low) / 2
    actor = SpikingActor(space.low, space.high, acts.shape[0], config)
    target = SpikingActor(space.low, space.high, acts.shape[0], config)
    target.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        critic = _Critic(space.shape[0] + acts.shape[0], config.critic)
    judge = copy.deepcopy(critic).requires_grad_(False)
    before = play(actor, config.environment, episodes)
    optimisers = (
        torch.optim.Adam(actor.parameters(), lr=config.actor_rate),
        torch.optim.Adam(critic.parameters(), lr=config.critic_rate),
    )
    random = np.random.default_rng(config.seed)
    store = _Store(config.capacity, space.shape[0], acts.shape[0])
    state, _ = env.reset(seed=config.seed)
    total, returns = 0.0, []
    with progress("acting", total=config.steps) as bar:
        for step in range(config.steps):
            if step < config.warm_up:
                action = random.uniform(-1, 1, acts.shape[0]).astype(np.float32)
            else:
                chosen = decided(actor, state) + config.noise * random.normal(size=acts.shape[0])
                action = np.clip(chosen, -1, 1).astype(np.float32)
            after, reward, ended, cut, _ = env.step(middle + half * action)
            store.add(state, action, float(reward), after, bool(ended))
            state, total = after, total + float(reward)
            if step >= config.warm_up:
                batch = store.draw(config.batch_size, random)
                _learn(actor, critic, target, judge, optimisers, batch, config)
            if ended or cut:
                returns.append(total)
                if on_episode is not None:
                    on_episode(len(returns) - 1, total)
                bar.update(step + 1 - bar.done, episode_return=total)
                state, _ = env.reset()
                total = 0.0
        bar.update(config.steps - bar.done)
    env.close()
    return Driven(actor, returns, before, play(actor, config.environment, episodes))


class _Store:
    """Transitions in arrays, the oldest overwritten."""

    def __init__(self, capacity: int, states: int, actions: int) -> None:
        widths = (states, actions, 1, states, 1)
        self.columns = [np.zeros((capacity, width), dtype=np.float32) for width in widths]
        self.capacity, self.seen = capacity, 0

    def add(self, *row: Any) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column[self.seen % self.capacity] = value
        self.seen += 1

    def draw(self, n: int, random: np.random.Generator) -> list[Tensor]:
        index = random.integers(min(self.seen, self.capacity), size=n)
        return [torch.from_numpy(column[index]) for column in self.columns]


def _learn(
    actor: SpikingActor,
    critic: nn.Module,
    target: SpikingActor,
    judge: nn.Module,
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    batch: list[Tensor],
    config: DDPGConfig,
) -> None:
    """One step of DDPG (Lillicrap et al. 2016): critic, actor, and their followers."""
    state, action, reward, after, ended = batch
    with torch.no_grad():
        worth = judge(after, target(after))
        goal = reward[:, 0] + config.discount * (1 - ended[:, 0]) * worth
    loss = nn.functional.mse_loss(critic(state, action), goal)
    optimisers[1].zero_grad()
    loss.backward()
    optimisers[1].step()
    critic.requires_grad_(False)
    loss = -critic(state, actor(state)).mean()
    optimisers[0].zero_grad()
    loss.backward()
    optimisers[0].step()
    critic.requires_grad_(True)
    with torch.no_grad():
        for slow, fast in ((judge, critic), (target, actor)):
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.lerp_(new, config.following)


@torch.no_grad()
def decided(actor: SpikingActor, state: np.ndarray) -> np.ndarray:
    """Gives the action for one state.

    Args:
        actor: The actor.
        state: [n].

    Returns:
        [m], from −1 to 1.
    """
    made: np.ndarray = actor(torch.from_numpy(np.asarray(state, dtype=np.float32))[None])[0].numpy()
    return made


def play(actor: SpikingActor, name: str, episodes: int, seed: int = 10_000) -> list[float]:
    """Plays episodes without noise.

    Args:
        actor: The actor.
        name: The environment.
        episodes: How many.
        seed: Of the first episode; the next has the next number.

    Returns:
        The return of each.
    """
    env = open_environment(name)
    middle = (env.action_space.high + env.action_space.low) / 2
    half = (env.action_space.high - env.action_space.low) / 2
    found = []
    for episode in range(episodes):
        state, _ = env.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            state, reward, ended, cut, _ = env.step(middle + half * decided(actor, state))
            total, over = total + float(reward), bool(ended or cut)
        found.append(total)
    env.close()
    return found
