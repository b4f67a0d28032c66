"""What is collected: z by episode, actions, resets, updates called for, and environments that misbehave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from sb3_rpg import RPG
from tests.conftest import LabelledEnv, env_makers, labelled_vec_env, small_rpg

Label = tuple[int, int, int]


def stored(model: RPG) -> list[tuple[Label, tuple[float, ...], bool]]:
    """(environment, episode, step), z and episode-start flag of every stored transition, by environment in its order."""
    buffer: Any = model.replay_buffer
    order = np.arange(buffer.size()) if not buffer.full else (buffer.pos + np.arange(buffer.size())) % buffer.buffer_size
    rows = []
    for env in range(buffer.n_envs):
        for row in order:
            label = tuple(int(x) for x in buffer.observations[row, env])
            after = tuple(int(x) for x in buffer.next_observations[row, env])
            assert after == (label[0], label[1], label[2] + 1), f"{label} is followed by {after}"
            rows.append((label, tuple(buffer.latents[row, env].tolist()), bool(buffer.episode_starts[row, env])))
    return rows  # type: ignore[return-value]


def check_latents(model: RPG) -> dict[tuple[int, int], tuple[float, ...]]:
    """z is constant within an episode, another in every other one, and starts are flagged; z by (environment, episode)."""
    latents: dict[tuple[int, int], set[tuple[float, ...]]] = {}
    before: Label | None = None
    for label, z, start in stored(model):
        latents.setdefault(label[:2], set()).add(z)
        assert start == (label[2] == 0), label
        assert before is None or before[:2] != label[:2] or before[2] + 1 == label[2], f"a step is missing before {label}"
        before = label
    assert all(len(z) == 1 for z in latents.values()), latents
    by_episode = {episode: next(iter(z)) for episode, z in latents.items()}
    assert len(set(by_episode.values())) == len(by_episode)
    return by_episode


# --------------------------------------------------------------- z by episode


@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_z_belongs_to_an_episode_from_the_first_step_on(n_envs: int, terminates: bool) -> None:
    env = labelled_vec_env(n_envs, lengths=(3, 7, 1), terminates=terminates)
    model = small_rpg(env, learning_starts=12).learn(60)
    latents = check_latents(model)
    assert len(latents) >= 3 * n_envs
    assert {episode[0] for episode in latents} == set(range(n_envs))


@pytest.mark.slow
def test_z_belongs_to_an_episode_in_other_processes_too() -> None:
    env = SubprocVecEnv(list(env_makers(2, lengths=(3, 4))))
    try:
        assert len(check_latents(small_rpg(env).learn(30))) >= 6
    finally:
        env.close()


def test_z_stays_constant_where_the_ring_buffer_has_wrapped_around() -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(5, 3)), buffer_size=24).learn(100)
    assert model.replay_buffer.full
    check_latents(model)


def test_warm_up_is_acted_by_the_untrained_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_rpg(learning_starts=100)

    def refuse(mask: Any = None, probability: Any = None) -> Any:
        raise AssertionError("a uniform action was drawn")

    monkeypatch.setattr(model.action_space, "sample", refuse)
    model.learn(20)
    check_latents(model)
    assert model._n_updates == model._n_model_updates == 0


def test_actions_are_stored_scaled_and_acted_in_the_spaces_own_scale() -> None:
    env = LabelledEnv()
    model = small_rpg(env).learn(40)
    acted = np.array(env.actions)
    assert np.all((acted >= -2.0) & (acted <= 6.0)) and acted.std() > 0.3
    scaled = model.replay_buffer.actions[:40, 0]
    assert np.all(np.abs(scaled) <= 1.0)
    assert np.allclose(-2.0 + (scaled + 1.0) / 2.0 * 8.0, acted, atol=1e-4)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_action_noise_is_added_in_the_scaled_space_and_clipped(n_envs: int) -> None:
    noise = NormalActionNoise(mean=np.array([10.0, 0.0]), sigma=np.zeros(2))
    env = labelled_vec_env(n_envs)
    model = small_rpg(env, action_noise=noise).learn(30)
    scaled = model.replay_buffer.actions[: model.replay_buffer.size()]
    assert np.all(scaled[..., 0] == 1.0) and not np.any(scaled[..., 1] == 1.0)
    acted = np.array(env.envs[0].unwrapped.actions)  # type: ignore[attr-defined]
    assert np.allclose(acted[:, 0], 6.0)


def test_the_target_entropy_counts_all_dimensions_of_an_action() -> None:
    assert small_rpg(LabelledEnv(action_shape=(2, 3))).target_entropy == -6.0


# ---------------------------------------------------- several calls of learn()


def test_learning_anew_starts_episodes_anew_without_crossing_into_them() -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(50,)))
    model.learn(16).learn(16)
    assert model.num_timesteps == 16
    assert set(check_latents(model)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    segments: Any = model.replay_buffer.sample_segments(300, 3)
    assert th.all(segments.observations[:, 1] == segments.next_observations[-1, :, 1])


def test_learning_on_goes_on_with_the_episode_and_its_z() -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(50,)))
    model.learn(16).learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 32
    assert set(check_latents(model)) == {(0, 0), (1, 0)}


def test_another_environment_starts_with_another_z() -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(50,))).learn(16)
    model.set_env(labelled_vec_env(2, lengths=(30, 50)))
    model.learn(16, reset_num_timesteps=False)
    z = [latent for label, latent, start in stored(model) if start]
    assert len(set(z)) == 4


class StopAt(BaseCallback):
    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


@pytest.mark.parametrize("step", [8, 10])
@pytest.mark.parametrize("normalize", [False, True])
def test_stopping_within_or_at_the_end_of_an_episode_and_going_on_mixes_no_episodes(step: int, normalize: bool) -> None:
    """SB3 does not store the step at which a callback stops training, though the environment has taken it."""
    env: VecEnv = labelled_vec_env(1, lengths=(5,))
    model = small_rpg(VecNormalize(env) if normalize else env)
    model.learn(100, callback=StopAt(step))
    # What SB3 notes of an episode is not lost either
    assert [info["l"] for info in model.ep_info_buffer or ()] == [5] * (step // 5)
    model.learn(12, reset_num_timesteps=False)
    check_latents(model)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_action_noise_starts_anew_with_an_episode_also_where_training_stops(n_envs: int) -> None:
    one = OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))
    several = VectorizedActionNoise(one, n_envs)
    model = small_rpg(labelled_vec_env(n_envs, lengths=(5,)), action_noise=one if n_envs == 1 else several)
    model.learn(100, callback=StopAt(5 * n_envs))
    assert model._episode_num == n_envs
    for part in [one] if n_envs == 1 else several.noises:
        assert isinstance(part, OrnsteinUhlenbeckActionNoise) and not part.noise_prev.any()


# ------------------------------------------------------------ updates called for


@pytest.mark.parametrize(
    ("n_envs", "train_freq", "gradient_steps", "steps", "updates"),
    [
        (1, 1, 1, 30, 20),  # learning starts with the step after the 10th
        (1, 3, 1, 30, 7),  # after steps 12, 15, ..., 30
        (1, (3, "step"), 2, 30, 14),
        (1, (2, "episode"), 1, 42, 3),  # episodes of 7: after steps 14, 28, 42
        (1, "auto", 1, 30, 2),  # every 10th step: 20, 30
        (2, "auto", 1, 40, 3),  # every 5th vector step: 20, 30, 40
        (8, "auto", 1, 48, 5),  # every vector step: 16, 24, ..., 48
        (2, 2, -1, 24, 16),  # 4 at each of 12, 16, 20, 24
        (1, (1, "episode"), -1, 28, 21),  # 7 at each of 14, 21, 28
        (1, 1, 0, 30, 0),
    ],
)
def test_updates_by_train_freq_and_gradient_steps(
    n_envs: int, train_freq: Any, gradient_steps: int, steps: int, updates: int
) -> None:
    model = small_rpg(labelled_vec_env(n_envs), train_freq=train_freq, gradient_steps=gradient_steps)
    counts = {"policy": 0, "intrinsic": 0}
    update_policy, update_intrinsic = model._update_policy, model.update_intrinsic_reward

    def count_policy(batch_size: int) -> None:
        assert batch_size == 8
        counts["policy"] += 1
        update_policy(batch_size)

    def count_intrinsic() -> None:
        counts["intrinsic"] += 1
        update_intrinsic()

    model._update_policy, model.update_intrinsic_reward = count_policy, count_intrinsic  # type: ignore[method-assign]
    model.learn(steps)
    assert model.num_timesteps == steps
    assert model._n_updates == model._n_model_updates == counts["intrinsic"] == updates
    assert counts["policy"] == updates


@pytest.mark.parametrize(("delay", "expected"), [(1, 20), (3, 6)])
def test_policy_delay(delay: int, expected: int) -> None:
    model = small_rpg(policy_delay=delay)
    calls: list[int] = []
    model._update_policy = calls.append  # type: ignore[method-assign, assignment]
    model.learn(30)
    assert len(calls) == expected


@pytest.mark.parametrize(("batch_size", "actor_batch_size", "expected"), [(8, None, 8), (8, 6, 6)])
def test_states_that_the_actor_imagines_from(batch_size: int, actor_batch_size: int | None, expected: int) -> None:
    model = small_rpg(batch_size=batch_size, actor_batch_size=actor_batch_size)
    sample, sizes = model.replay_buffer.sample_states, set()

    def spy(n: int, *args: Any) -> Any:
        sizes.add(n)
        return sample(n, *args)

    model.replay_buffer.sample_states = spy  # type: ignore[method-assign, assignment]
    model.learn(30)
    assert sizes == {expected}


def test_learning_may_start_with_the_first_step() -> None:
    assert small_rpg(learning_starts=0).learn(6)._n_updates == 6


# ------------------------------------------------------------- buffers, planning


@pytest.mark.parametrize("latent", ["gaussian", "learned_gaussian", "categorical", "mixed"])
def test_episodes_longer_than_the_replay_buffer(latent: str) -> None:
    model = small_rpg(LabelledEnv(lengths=(100,)), latent=latent, buffer_size=20).learn(60)
    assert len(model.replay_buffer.start_index) == 0 and model._n_updates == 50


@pytest.mark.parametrize("plan_every", [0, 2])
def test_planned_z_changes_within_an_episode_only_when_it_is_planned_anew(plan_every: int) -> None:
    model = small_rpg(LabelledEnv(lengths=(6,)), plan_every=plan_every)
    model.policy.plan_latent = lambda states, planning: th.randn(len(states), 3)  # type: ignore[method-assign]
    model.learn(36)
    by_episode: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    for label, z, _ in stored(model):
        by_episode.setdefault(label[:2], []).append(z)
    changes = {step for episode in by_episode.values() for step in range(1, 6) if episode[step] != episode[step - 1]}
    assert changes == (set() if plan_every == 0 else {2, 4})


# ------------------------------------------------- environments that misbehave


class Faulty(LabelledEnv):
    """From step ``at`` of the second episode on, observations or rewards are not finite; or the last observation is not."""

    def __init__(self, fault: str, value: float, space: str = "vector"):
        super().__init__(lengths=(6,), space=space)
        self.fault, self.value = fault, value

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        faulty = self.episode == 1 and self.step_number == (6 if self.fault == "last observation" else 3)
        if faulty and "observation" in self.fault:
            label = obs["label"] if isinstance(obs, dict) else obs
            label[2] = self.value
        return obs, self.value if faulty and self.fault == "reward" else reward, terminated, truncated, info


FAULTS = [
    (fault, step, value, normalize)
    for fault, step in (("observation", 9), ("reward", 9), ("last observation", 12))
    for value in (np.nan, np.inf)
    for normalize in (False, True)
    if not (fault == "last observation" and value == np.inf and normalize)  # VecNormalize clips it: a finite one is stored
]


@pytest.mark.parametrize(("fault", "step", "value", "normalize"), FAULTS)
def test_what_is_not_finite_is_refused_at_its_step_and_the_model_can_still_be_saved(
    fault: str, step: int, value: float, normalize: bool, tmp_path: Path
) -> None:
    env: VecEnv = RPG._wrap_env(Faulty(fault, value), verbose=0)
    if normalize:
        env = VecNormalize(env)
    model = small_rpg(env, learning_starts=2)
    kind = fault.removeprefix("last ")
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=f"non-finite {kind}.* in environment 0 at step {step}") as e,
    ):
        model.learn(30)
    assert "can still be saved" in str(e.value)
    assert model.replay_buffer.size() == step - 1
    buffer: Any = model.replay_buffer
    for array in (buffer.observations, buffer.next_observations, buffer.rewards):
        assert np.isfinite(array).all()
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    model.save(tmp_path / "model.zip")
    assert RPG.load(tmp_path / "model.zip", device="cpu").num_timesteps == step
    # The environment has made a step that is not stored: who goes on nevertheless begins an episode
    if not normalize:  # VecNormalize's statistics are lost
        model.learn(5, reset_num_timesteps=False)
        assert model.replay_buffer.size() > step - 1 and buffer.episode_starts[step - 1, 0]


def test_a_policy_that_has_diverged_is_told_before_the_environment_sees_its_action() -> None:
    env = LabelledEnv()
    model = small_rpg(env).learn(10)
    with th.no_grad():
        next(iter(model.actor.action_head.parameters())).fill_(np.nan)
    with pytest.raises(ValueError, match=r"the policy's action at step 10 is not finite .*Load the last checkpoint"):
        model.learn(10, reset_num_timesteps=False)
    assert len(env.actions) == 10


def test_a_dict_observation_that_is_not_finite_is_named_by_its_key() -> None:
    with pytest.raises(ValueError, match=r"non-finite observation\['label'\] \(nan\) in environment 0 at step 9"):
        small_rpg(Faulty("observation", np.nan, space="dict"), "MultiInputPolicy").learn(30)


def test_a_first_observation_that_is_not_finite_is_refused_before_the_first_step() -> None:
    class FromTheStart(LabelledEnv):
        def _observation(self) -> Any:
            return np.full(3, np.nan, dtype=np.float32)

    env = FromTheStart()
    with pytest.raises(ValueError, match=r"non-finite observation .* at step 0"):
        small_rpg(env).learn(10)
    assert env.actions == []


@pytest.mark.parametrize(
    "space", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3), spaces.Box(0, 1, (2, 3), np.float64)]
)
def test_other_observation_spaces(space: spaces.Space) -> None:
    class Sampled(gym.Env):
        observation_space, action_space = space, spaces.Box(-1, 1, (1,))

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            return self.observation_space.sample(), {}

        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return self.observation_space.sample(), 0.0, False, False, {}

    model = small_rpg(Sampled(), intrinsic_reward="auto").learn(14)
    assert model._n_updates == 4
    assert model.predict(space.sample())[0].shape == (1,)


@pytest.mark.parametrize("latent", ["learned_gaussian", "categorical", "mixed"])
def test_where_no_start_is_stored_alpha_z_rests(latent: str) -> None:
    model = small_rpg(LabelledEnv(lengths=(100,)), latent=latent, buffer_size=20).learn(22)
    before = model.actor.latent_temperature.item()
    model.learn(8, reset_num_timesteps=False)
    assert len(model.replay_buffer.start_index) == 0 and model.actor.latent_temperature.item() == before
