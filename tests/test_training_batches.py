"""What the updates are given: rewards, scaled and with their bonus, and observations that VecNormalize normalises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg import RPG
from sb3_rpg.batches import PolicyBatch, take_steps
from sb3_rpg.policies import PlanningConfig
from sb3_rpg.reward_scaling import ReturnScaler
from tests.conftest import LabelledEnv, labelled_vec_env, small_rpg


@pytest.mark.parametrize("head_steps", [None, 1, 2])
def test_the_reward_that_is_learned_is_scaled_extrinsic_reward_plus_bonus(head_steps: int | None) -> None:
    model = small_rpg(reward_scale=3.0, head_steps=head_steps).learn(10)
    assert model.bonus is not None

    def bonus(obs: th.Tensor, actions: th.Tensor, next_obs: th.Tensor) -> th.Tensor:
        return next_obs[:, 2] - 0.5 * obs[:, 2]

    model.bonus.novelty = bonus  # type: ignore[method-assign, assignment]
    model.bonus.bonus_from_errors = lambda errors: errors  # type: ignore[method-assign]
    segments, rewards, steps = model._sample_segments()
    assert (steps is None) == (head_steps is None) and len(rewards) == (head_steps or 3)
    next_obs: Any = take_steps(segments.next_observations, steps)  # type: ignore[arg-type]
    step, mask = next_obs[..., 2], take_steps(segments.mask, steps)
    # The environment's reward is the step's number; its bonus here: that number, less half of the one before
    expected = 3.0 * step + step - 0.5 * (step - 1.0)
    assert th.allclose(rewards * mask, expected * mask, atol=1e-5)
    assert th.equal(take_steps(segments.rewards, steps) * mask, step * mask)
    plain = small_rpg(reward_scale=3.0, intrinsic_reward=None, head_steps=head_steps).learn(10)
    segments, rewards, steps = plain._sample_segments()
    assert th.equal(rewards, 3.0 * take_steps(segments.rewards, steps))


def test_arguments_reach_the_updates_and_plans() -> None:
    arguments: dict[str, Any] = {
        "gamma": 0.7,
        "horizon": 4,
        "target_horizon": 2,
        "value_weight_decay": 0.5,
        "max_grad_norm": 3.0,
        "entropy_in_target": True,
        "posterior_baseline": False,
        "loss_weights": {"consistency": 3.0, "reward": 4.0, "value": 5.0, "termination": 6.0},
        "beta": 0.3,
        "ent_coef": 0.2,
        "latent_ent_coef": 0.4,
    }
    model = small_rpg(**arguments, plan_horizon=2)
    settings = model.update_settings()._asdict()
    assert {name: settings[name] for name in arguments} == arguments and not settings["model_terminations"]
    assert model.planning_config(3) == PlanningConfig(3, 2, 0.7, 0.5, False)


def test_the_bonus_learns_from_batches_of_its_own_size() -> None:
    model = small_rpg(intrinsic_batch_size=5).learn(12)
    sizes: list[int] = []
    assert model.bonus is not None
    update = model.bonus.update

    def spy(obs: th.Tensor, actions: th.Tensor, next_obs: th.Tensor) -> Any:
        sizes.append(len(obs))
        return update(obs, actions, next_obs)

    model.bonus.update = spy  # type: ignore[method-assign, assignment]
    model.learn(3, reset_num_timesteps=False)
    assert sizes == [5, 5, 5]


def test_returns_that_scale_rewards_do_not_run_across_a_reset() -> None:
    model = small_rpg(LabelledEnv(lengths=(50,), reward=100.0)).learn(20).learn(20)
    expected = ReturnScaler()
    for step in range(40):
        start = np.array([step in (0, 20)])
        expected.update(np.array([100.0 * (step % 20 + 1)]), np.array([False]), model.gamma, start)
    assert model._return_scaler.factor == pytest.approx(expected.factor) and expected.factor < 0.5


def test_automatic_reward_scale_follows_the_returns() -> None:
    model = small_rpg(LabelledEnv(reward=100.0)).learn(60)  # rewards of 100 to 700: returns of up to 2600
    assert model._extrinsic_scale() == model._return_scaler.factor < 0.3
    assert small_rpg(LabelledEnv(lengths=(1,)), horizon=1).learn(30)._extrinsic_scale() == 5.0  # always the same reward


def test_the_reward_scale_follows_a_gamma_that_load_replaced(tmp_path: Path) -> None:
    file = tmp_path / "model.zip"
    small_rpg(LabelledEnv(reward=100.0), gamma=0.99).save(file)
    loaded = RPG.load(file, LabelledEnv(reward=100.0), "cpu", gamma=0.01).learn(60)
    assert loaded._extrinsic_scale() == small_rpg(LabelledEnv(reward=100.0), gamma=0.01).learn(60)._extrinsic_scale()
    assert loaded._extrinsic_scale() > 1.5 * small_rpg(LabelledEnv(reward=100.0), gamma=0.99).learn(60)._extrinsic_scale()


# --------------------------------------------------------------- VecNormalize


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_vec_normalize(kind: str) -> None:
    env = VecNormalize(labelled_vec_env(2, space=kind))
    model = small_rpg(env, "MultiInputPolicy" if kind == "dict" else "MlpPolicy", head_steps=None).learn(60)
    buffer: Any = model.replay_buffer
    labels = (buffer.observations["label"] if kind == "dict" else buffer.observations)[:30]
    assert np.array_equal(labels, np.round(labels)) and labels[..., 2].max() == 6  # stored as the environment gave them
    assert buffer.rewards[:30].max() == 7.0

    seen: dict[str, Any] = {}
    assert model.bonus is not None
    novelty = model.bonus.novelty

    def spy(obs: Any, actions: th.Tensor, next_obs: Any) -> th.Tensor:
        seen["next_obs"] = next_obs
        return novelty(obs, actions, next_obs)

    model.bonus.novelty = spy  # type: ignore[method-assign]
    learned: Any = model._sample_segments()[0].next_observations
    raw = seen["next_obs"]
    if kind == "dict":
        raw, learned = raw["label"], learned["label"]
    # The bonus reads what was stored
    assert th.allclose(raw, raw.round(), atol=1e-3) and not th.allclose(learned, learned.round(), atol=1e-3)
    expected = env.normalize_obs({"label": raw.numpy(), "extra": raw[:, 2:].numpy()} if kind == "dict" else raw.numpy())
    expected = expected["label"] if isinstance(expected, dict) else expected
    assert np.allclose(learned.flatten(0, 1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_actors_batch_is_normalised_and_has_as_many_episode_starts_again_as_a_quarter(
    latent: str, kind: str, actor_batches: list[PolicyBatch]
) -> None:
    env = VecNormalize(labelled_vec_env(2, space=kind))
    small_rpg(env, "MultiInputPolicy" if kind == "dict" else "MlpPolicy", latent=latent).learn(30)
    observations: Any = actor_batches[-1].observations
    n_starts = 2 if latent == "categorical" else 0
    latents, flags = actor_batches[-1].latents, actor_batches[-1].episode_starts
    assert len(latents) == len(flags) == 8 + n_starts and flags.dtype == th.bool
    # Statistics have moved by one step of the environments since the batch was drawn
    raw = {key: value.numpy() for key, value in observations.items()} if kind == "dict" else observations.numpy()
    original: Any = env.unnormalize_obs(raw)
    label = original["label"] if kind == "dict" else original
    assert label[:, 2].max() > 2.5
    assert np.array_equal(flags.numpy(), np.round(label[:, 2]) == 0) and flags[8:].all()


@pytest.mark.parametrize("norm_reward", [True, False])
def test_loaded_rewards_are_scaled_as_they_are_learned_from(norm_reward: bool, tmp_path: Path) -> None:
    def env() -> VecNormalize:
        return VecNormalize(labelled_vec_env(1, lengths=(30,), reward=100.0), norm_reward=norm_reward)

    teacher = small_rpg(env()).learn(60)
    teacher.save_replay_buffer(tmp_path / "buffer.pkl")
    teacher.get_vec_normalize_env().save(str(tmp_path / "statistics.pkl"))  # type: ignore[union-attr]
    model = small_rpg(VecNormalize.load(str(tmp_path / "statistics.pkl"), labelled_vec_env(1)))
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.train_world_model(1)
    rewards = model._sample_segments()[0].rewards
    assert (model._extrinsic_scale() == 5.0) == norm_reward
    assert (rewards.abs().max() < 11.0) == norm_reward


@pytest.mark.parametrize("norm_reward", [True, False])
def test_rewards_that_vec_normalize_leaves_alone_are_scaled(norm_reward: bool) -> None:
    env = VecNormalize(labelled_vec_env(1, lengths=(30,)), norm_reward=norm_reward)
    scale = small_rpg(env).learn(60)._extrinsic_scale()
    assert (scale == 5.0) if norm_reward else (scale < 1.0)


def test_starts_are_a_quarter_of_the_actors_batch_and_lend_no_z(actor_batches: list[PolicyBatch]) -> None:
    small_rpg(latent="categorical", latent_relabel=1.0, batch_size=8, actor_batch_size=16).learn(20)
    assert len(actor_batches) == 10
    for batch in actor_batches:
        assert len(batch.latents) == 16 + 4 and batch.episode_starts[16:].all()
        assert th.equal(batch.latents[:16].sum(dim=1), th.ones(16))


def test_metrics_of_the_reward_are_scaled_extrinsic_and_bonus() -> None:
    model, seen = small_rpg(reward_scale=3.0, head_steps=None).learn(20), {}
    model.metrics.add = lambda values, *_: seen.update(values)  # type: ignore[method-assign]
    segments, rewards, _ = model._sample_segments()
    assert seen["extrinsic_reward"].item() == pytest.approx(3.0 * segments.rewards.mean().item(), rel=1e-5)
    assert (seen["extrinsic_reward"] + seen["intrinsic_reward"]).item() == pytest.approx(rewards.mean().item(), rel=1e-5)
