"""The latent world model: replayed and imagined steps, what depends on what, and its heads."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_rpg.latents import GaussianLatent
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.world_model import Encoder, WorldModel

STATE, ACTION, LATENT, HIDDEN = 5, 2, 3, 7


@pytest.fixture
def model() -> WorldModel:
    encoder = Encoder(FlattenExtractor(spaces.Box(-1, 1, (4,))), state_dim=STATE, net_arch=[6])
    return WorldModel(encoder, ACTION, LATENT, HIDDEN, n_critics=3, net_arch=[9, 8], value_net_arch=[11])


def replayed_states(model: WorldModel, start: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """Step by step with torch's own GRU cell."""
    hidden, states = model.initial_hidden(start), []
    for action in actions:
        hidden = model.gru(model.action_embedding(action), hidden)
        states.append(model.decoder(hidden))
    return th.stack(states)


def test_replay_equals_torchs_gru_cell_step_by_step(model: WorldModel) -> None:
    start, actions = th.randn(4, STATE), th.rand(3, 4, ACTION)
    rollout = model.replay(start, actions)
    assert rollout.states.shape == (3, 4, STATE)
    assert th.allclose(rollout.states, replayed_states(model, start, actions), atol=1e-5)
    assert th.equal(rollout.actions, actions) and th.equal(rollout.start, start)
    assert rollout.log_probs.numel() == 0


def test_imagined_steps_equal_replayed_ones_of_the_same_actions(model: WorldModel) -> None:
    start = th.randn(4, STATE)
    seen = []

    def act(state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        seen.append(state)
        return state[:, :ACTION].tanh(), state.sum(dim=1)

    imagined = model.imagine(start, act, horizon=3)
    replayed = model.replay(start, imagined.actions)
    assert th.allclose(imagined.states, replayed.states, atol=1e-5)
    assert th.allclose(imagined.embeddings, replayed.embeddings, atol=1e-5)
    # The policy sees s_t, then each predicted state but the last
    assert th.equal(th.stack(seen), imagined.states_before)
    assert th.equal(imagined.states_before, th.cat([start.unsqueeze(0), imagined.states[:2]]))
    assert th.equal(imagined.log_probs, imagined.states_before.sum(dim=-1))


@pytest.mark.parametrize("horizon", [1, 4])
def test_horizon_is_the_number_of_steps(model: WorldModel, horizon: int) -> None:
    rollout = model.imagine(th.randn(2, STATE), lambda s: (s[:, :ACTION], s[:, 0]), horizon)
    for tensor in (rollout.states, rollout.actions, rollout.embeddings, rollout.log_probs, rollout.states_before):
        assert tensor.shape[:2] == (horizon, 2)


def test_a_state_depends_on_its_own_and_earlier_actions_only(model: WorldModel) -> None:
    start, actions = th.randn(4, STATE, requires_grad=True), th.rand(3, 4, ACTION, requires_grad=True)
    states = model.replay(start, actions).states
    to_actions, to_start = th.autograd.grad(states[1, 2].sum(), [actions, start])
    reached = to_actions.abs().sum(dim=-1) > 0
    expected = th.zeros(3, 4, dtype=th.bool)
    expected[:2, 2] = True  # steps 0 and 1, of the same element of the batch
    assert th.equal(reached, expected)
    assert th.equal(to_start.abs().sum(dim=-1) > 0, th.tensor([False, False, True, False]))


def test_gradient_through_imagined_steps_equals_finite_differences(model: WorldModel) -> None:
    model.double()
    start, weight = th.randn(2, STATE, dtype=th.float64), th.randn(STATE, ACTION, dtype=th.float64, requires_grad=True)

    def last_state(weight: th.Tensor) -> th.Tensor:
        # The second action depends on the policy's weight also through the state that the first one led to
        return model.imagine(start, lambda s: ((s @ weight).tanh(), s.sum(dim=1)), horizon=2).states[-1]

    assert th.autograd.gradcheck(last_state, weight)


def test_rewards_and_terminations_read_the_next_state_and_the_action(model: WorldModel) -> None:
    nn.init.normal_(model.termination[-1].weight)  # type: ignore[arg-type]
    start, actions = th.randn(4, STATE), th.rand(3, 4, ACTION)
    rollout = model.replay(start, actions)
    for predict in (model.predict_rewards, model.predict_terminations):
        before = predict(rollout)
        assert before.shape == (3, 4) and before.dtype == th.float32
        for name in ("states", "embeddings"):
            tensor = getattr(rollout, name).detach().clone()
            tensor[1, 2] += 1.0
            differs = predict(rollout._replace(**{name: tensor})) != before
            assert differs.nonzero().tolist() == [[1, 2]], name


def test_values_of_each_head_read_state_and_z(model: WorldModel) -> None:
    states, z = th.randn(3, 4, STATE), th.randn(4, LATENT)
    values = model.predict_values(states, z)
    assert values.shape == (3, 3, 4) and values.dtype == th.float32
    assert not th.allclose(values[0], values[1])
    # One z for each element of the batch, the same at all its steps
    for k in range(3):
        for b in range(4):
            assert th.allclose(model.predict_values(states[k, b : b + 1], z[b : b + 1])[:, 0], values[:, k, b], atol=1e-5)
    assert not th.allclose(model.predict_values(states, z + 1.0), values)
    assert th.allclose(model.predict_values(states, z, n_heads=1), values[:1], atol=1e-6)


def test_before_it_has_learned_the_model_expects_no_termination(model: WorldModel) -> None:
    rollout = model.replay(th.randn(50, STATE), th.rand(3, 50, ACTION))
    assert th.sigmoid(model.predict_terminations(rollout)).max() < 0.01


def test_default_sizes_are_the_papers() -> None:
    """28 observed numbers, 2 actions, z of 12: 1.29 million parameters in model and values, 0.1 million in the policy."""
    policy = RPGPolicy(spaces.Box(-1, 1, (28,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4, latent_space=GaussianLatent(12))
    world_model = policy.world_model

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    # Terminations are not in the paper's count
    assert round(count(world_model) - count(world_model.termination), -4) == 1_290_000
    assert round(count(policy.actor.action_head), -5) == 100_000
    assert world_model.encoder.state_dim == 100 and world_model.gru.hidden_size == 256
    assert len(world_model.predict_values(th.zeros(1, 100), th.zeros(1, 12))) == 2
    # torch's default initialisation: uniform within 1/sqrt(256)
    assert world_model.gru.weight_hh.abs().max() <= 1 / 16
    gram = world_model.decoder[0].weight @ world_model.decoder[0].weight.T  # type: ignore[operator]
    assert th.allclose(gram, th.eye(256), atol=1e-4)


def test_encoder_preprocesses_what_the_buffer_returns() -> None:
    image_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    encoder = Encoder(NatureCNN(image_space, features_dim=8), STATE, [6])
    image = th.randint(0, 256, (2, 1, 36, 36), dtype=th.uint8)
    assert encoder(image).shape == (2, STATE)
    expected = encoder.net(encoder.features_extractor(image.float() / 255.0))
    assert th.allclose(encoder(image), expected, atol=1e-5)

    as_it_is = Encoder(FlattenExtractor(image_space), STATE, [6], normalize_images=False)
    assert th.allclose(as_it_is(image), as_it_is.net(image.float().flatten(1)), atol=1e-4)


def test_encoder_reads_every_entry_of_a_dict_and_discrete_observations() -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(-1, 1, (2,))})
    encoder = Encoder(CombinedExtractor(space), STATE, [6])
    obs = {"a": th.randn(4, 3), "b": th.randn(4, 2)}
    states = encoder(obs)
    assert states.shape == (4, STATE)
    for key in obs:
        assert not th.allclose(encoder({**obs, key: obs[key] + 1.0}), states)

    discrete = Encoder(FlattenExtractor(spaces.Discrete(4)), STATE, [6])
    assert th.allclose(discrete(th.tensor([[2]])), discrete.net(th.eye(4)[2:3]), atol=1e-6)
