"""Environments, the pipeline of the nodes, and spiking agents (card section 14)."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Action, Connection, Encoder, Network, NeuronGroup, Reward
from tenfold.spaic.reinforcement import (
    DDPGConfig,
    DQNConfig,
    GymEnvironment,
    PlaceCells,
    ReplayMemory,
    RLPipeline,
    RSTDPConfig,
    SpikingActor,
    train_ddpg,
    train_dqn,
    train_rstdp,
)
from tenfold.spaic.reinforcement.rstdp import Critic


class Corridor(gym.Env):
    """Shows where one is; action 1 goes right, and the end is reached after four steps."""

    observation_space = gym.spaces.Box(-1.0, 3.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.acts = 0, []
        return np.array([-1.0, 3.0]), {}

    def step(self, action):
        self.acts.append(action)
        self.place += action == 1
        shown = np.array([self.place - 1.0, 1.0])
        return shown, -2.5 if action != 1 else 0.5, len(self.acts) == 6, False, {}


class Screen(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (4, 6, 3), np.uint8)
    action_space = gym.spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        return np.zeros((4, 6, 3), np.uint8), {}

    def step(self, action):
        return np.full((4, 6, 3), (255, 0, 0), np.uint8), float(action), False, True, {}


class Greyish(Screen):
    observation_space = gym.spaces.Box(0, 255, (4, 6, 1), np.uint8)


def test_observations_become_rates_between_the_bounds():
    env = GymEnvironment(Corridor())
    np.testing.assert_allclose(env.reset(), [0, 1])
    state, reward, ended, cut, _ = env.step(1)
    np.testing.assert_allclose(state, [0.25, 0.5])
    assert (reward, ended, cut) == (1.0, False, False)
    assert env.step(0)[1] == -1.0
    assert GymEnvironment(Corridor(), clip_rewards=False, max_prob=0.5).size == 2
    cart = GymEnvironment("CartPole-v1")
    x = cart.rates(np.array([2.4, -1.5, 0.0, 2.0]))
    np.testing.assert_allclose(
        x, [(2.4 + 4.8) / 9.6, 1 / (1 + np.exp(1.5)), 0.5, 1 / (1 + np.exp(-2))], rtol=1e-6
    )
    cart.seed(3)
    first = cart.reset()
    cart.seed(3)
    np.testing.assert_array_equal(first, cart.reset())
    cart.close()
    one = GymEnvironment("FrozenLake-v1", is_slippery=False)
    assert one.reset().tolist() == [1.0] + [0.0] * 15


def test_images_become_grey_small_and_binary():
    env = GymEnvironment(Screen(), shape=(2, 3), gray=True, flatten=False, clip_rewards=False)
    assert env.reset().shape == (2, 3, 1)
    state, reward, ended, cut, _ = env.step(1)
    np.testing.assert_allclose(state, 0.299, rtol=1e-6)
    assert (reward, ended, cut) == (6.0, False, True)  # actions count from 5
    coloured = GymEnvironment(Screen(), binary=True)
    coloured.reset()
    assert coloured.step(0)[0].tolist() == [1.0, 0.0, 0.0] * 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GymEnvironment("Pendulum-v1"), "expected a Discrete space"),
        (lambda: GymEnvironment("CartPol-v1"), "CartPol"),
        (lambda: GymEnvironment(Corridor(), gray=True), "gray and shape are for images"),
        (lambda: GymEnvironment(Corridor(), max_prob=2.0), "max_prob=2.0"),
        (lambda: GymEnvironment(Greyish(), gray=True), "gray is for three colours"),
        (lambda: GymEnvironment(Screen(), shape=(0, 3)), r"shape=\(0, 3\); expected"),
        (lambda: always_left(render_interval=0), "render_interval=0; expected >= 1"),
        (lambda: always_left(action_repeat=0), "action_repeat=0; expected >= 1"),
        (lambda: always_left(reward_delay=0), "reward_delay=0"),
        (lambda: always_left(probability_random_action=1.5), "expected from 0 to 1"),
        (lambda: ReplayMemory(0), "capacity=0"),
        (lambda: ReplayMemory(3).sample(1), "a sample of 1 from 0 transitions"),
        (lambda: RSTDPConfig(discount=2.0), "discount=2.0; expected from 0 to 1"),
        (lambda: RSTDPConfig(fields=((1.0, -1.0, 3),)), "expected low < high"),
        (lambda: PlaceCells(Corridor(), ((0.0, 1.0, 2),)), "shows 2 numbers; fields has 1"),
        (lambda: DDPGConfig(warm_up=10), "warm_up=10; expected at least"),
        (lambda: train_ddpg(DDPGConfig(environment="CartPole-v1")), "expected Box spaces"),
    ],
)
def test_what_does_not_fit_is_told(make, message):
    with pytest.raises(InputError, match=message):
        make()


def always_left(**options):
    with Network() as net:
        state = Encoder(num=2, coding_method="float")
        cells = NeuronGroup(3, model="if", v_th=0.5)
        link = Connection(state, cells, weight=np.zeros((3, 2)), bias=[1.0, 0.0, 0.0])
        act = Action(dec_target=cells, num=3, coding_method="highest_spikes_action")
        reward = Reward(dec_target=cells, num=3, coding_method="environment_reward")
    assert link is net.link
    net.set_backend_dt(1.0)
    return net, RLPipeline(net, GymEnvironment(Corridor()), 3.0, 2, **options), act, reward


def test_the_pipeline_acts_repeats_no_action_too_often_and_delivers_rewards():
    _, pipeline, _, reward = always_left(action_repeat=2, replay_memory=True, reward_delay=1)
    seen = []
    for _ in range(6):
        found = pipeline.env_step()
        pipeline.update_step(found)
        seen.append((found[1], float(reward.value)))
    acts = pipeline.environment.env.acts
    assert acts[:2] == [0, 0]
    assert acts[2] != 0
    assert all(len(set(acts[k : k + 3])) > 1 for k in range(4))
    now, late = (np.array(part) for part in zip(*seen, strict=True))
    np.testing.assert_array_equal(late[1:], now[:-1])  # a step late
    assert len(pipeline.memory) == 6
    assert pipeline.memory._kept[-1].next_state is None
    np.testing.assert_allclose(pipeline.memory._kept[0].state, [0, 1])
    returns = pipeline.run()
    assert len(returns) == 2
    _, free, _, _ = always_left(action_repeat=None)
    first = free.run()
    assert first == [-6.0, -6.0]
    assert free.environment.env.acts == [0] * 6
    assert free.run() == first == [-6.0, -6.0]  # each call gives a list of its own
    assert free.returns == [-6.0] * 4


def test_a_pipeline_can_go_on_and_give_a_critic_s_reward():
    judged = []

    def critic(state, reward, next_state, ended):
        judged.append((state.tolist(), reward, next_state.tolist(), ended))
        return 7.0

    net, pipeline, _, reward = always_left(critic=critic, continuous=True)
    assert net.time == 3.0
    found = pipeline.env_step()
    pipeline.update_step(found)
    assert net.time == 6.0
    assert float(reward.value) == found[1] == 7.0
    assert judged == [([0, 1], -1.0, [0, 0.5], False)]
    assert pipeline.total == -1.0  # returns are the environment's
    pipeline.reset_pipeline()
    assert net.time == 3.0
    anew, pipeline, _, _ = always_left()
    pipeline.update_step(pipeline.env_step())
    assert anew.time == 3.0


def test_the_environment_is_shown_every_few_steps():
    _, pipeline, _, _ = always_left(render_interval=2)
    shown = []
    pipeline.environment.env.render = lambda: shown.append(pipeline.steps)
    pipeline.run()
    assert shown == [2, 4, 6] * 2


def test_random_actions_come_as_often_as_asked_and_repeat_with_the_seed():
    def acts(seed):
        _, pipeline, _, _ = always_left(
            action_repeat=None, probability_random_action=1.0, seed=seed
        )
        pipeline.run()
        return pipeline.returns

    assert acts(1) == acts(1)
    assert acts(1) != [-6.0, -6.0]


def test_a_pipeline_needs_its_nodes():
    net = Network("lame")
    net.input = Encoder(num=2)
    with pytest.raises(InputError, match="0 nodes of the kind Action"):
        RLPipeline(net, GymEnvironment(Corridor()), 1.0)


def test_the_memory_forgets_the_oldest():
    memory = ReplayMemory(3, seed=1)
    for k in range(5):
        memory.push(np.array([k]), k, None, 0.0)
    assert sorted(item.action for item in memory.sample(3)) == [2, 3, 4]


def test_place_cells_are_a_product_of_bumps_that_sums_to_one():
    env = PlaceCells(Corridor(), ((-1.0, 3.0, 3), (0.0, 1.0, 2)))
    made = env.rates(np.array([0.0, 9.0]))  # 9 lies beyond the field: as 1
    first = [np.exp(-0.5 * (1.5 * (c - 0.0) / 2) ** 2) for c in (-1, 1, 3)]
    second = [np.exp(-0.5 * 1.5**2), 1.0]
    expected = np.array([[a * b for b in second] for a in first]).reshape(-1)
    np.testing.assert_allclose(made, expected / expected.sum(), rtol=1e-6)
    assert env.size == 6


def test_the_critic_learns_how_far_the_end_is():
    critic = Critic(3, RSTDPConfig(discount=0.9, critic_rate=0.2))
    places = np.eye(3)
    for _ in range(300):
        for k in range(3):
            critic(places[k], 1.0, places[min(k + 1, 2)], k == 2)
    np.testing.assert_allclose(critic.value, [-0.81, -0.9, -1.0], atol=1e-6)


def test_rewarded_stdp_balances_the_pole_after_a_few_episodes():
    found = train_rstdp(RSTDPConfig(episodes=33), episodes=1)
    assert max(found.returns) > 110  # by chance the pole stands for 22 steps
    still = train_rstdp(RSTDPConfig(episodes=8, learning_rate=1e-9), episodes=1)
    assert still.before == found.before
    assert max(still.returns) < 90  # the critic alone does nothing


gym.register(
    "ShortPendulum-v0",
    entry_point="gymnasium.envs.classic_control:PendulumEnv",
    max_episode_steps=20,
)
SHORT = {
    "environment": "ShortPendulum-v0",
    "steps": 90,
    "warm_up": 30,
    "batch_size": 8,
    "hidden": (16, 16, 16),
    "critic": (32,),
    "population": 4,
}


def test_populations_code_the_state_and_the_action_has_a_gradient():
    config = DDPGConfig(**SHORT)
    actor = SpikingActor(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), 2, config)
    state = torch.tensor([[0.0, 10.0], [-1.0, 2.0]])
    coded = actor.coded(state)
    centres = np.linspace(0, 1, 4)
    for row, x in zip(coded, ([0.5, 1.0], [0.0, 0.2]), strict=True):
        expected = np.exp(-0.5 * ((np.array(x)[:, None] - centres) * 3) ** 2).reshape(-1)
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    action = actor(state)
    assert action.shape == (2, 2)
    assert float(action.detach().abs().max()) <= 1
    action.sum().backward()
    weights = [p.grad for name, p in actor.named_parameters() if "link1" in name]
    assert all(float(grad.abs().sum()) > 0 for grad in weights)


def test_a_short_training_of_the_actor_repeats_itself_and_changes_the_policy():
    one, two = (train_ddpg(DDPGConfig(**SHORT), episodes=1) for _ in range(2))
    assert one.returns == two.returns
    assert one.after == two.after
    assert one.after != one.before
    other = train_ddpg(DDPGConfig(**SHORT, seed=1), episodes=1)
    assert other.after != one.after


def test_a_short_training_of_the_q_network_repeats_itself():
    config = DQNConfig(episodes=5, batch_size=8, hidden=16)
    one, two = (train_dqn(config) for _ in range(2))
    assert one.returns == two.returns
    assert len(one.returns) == 5
    for a, b in zip(
        one.network.learner.parameters(), two.network.learner.parameters(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_spiking_actor_swings_the_pendulum_up():
    found = train_ddpg(DDPGConfig(steps=15_000))
    assert np.mean(found.before) < -800
    assert np.mean(found.after) > -300


@pytest.mark.slow
def test_the_q_network_balances_longer():
    returns = train_dqn(DQNConfig(episodes=110)).returns
    assert np.mean(returns[-20:]) > 3 * np.mean(returns[:20])


@pytest.mark.slow
def test_rewarded_stdp_balances_longer():
    found = [train_rstdp(RSTDPConfig(seed=seed)) for seed in range(3)]
    assert all(np.mean(one.before) < 40 for one in found)
    assert all(np.mean(one.after) > 3 * np.mean(one.before) for one in found)
