"""The z that still works is found, within the trials that there are."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rpg.envs import MazeEnv, MazeVecEnv
from sb3_rpg.modes import (
    Mode,
    Trajectory,
    adapt,
    candidate_latents,
    latent_values,
    mode_latents,
    spread_latents,
    successive_halving,
)
from tests.conftest import labelled_vec_env, small_rpg

# --- successive halving -----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=25),
    n_trials=st.integers(1, 40),
    target=st.sampled_from([None, 2.0]),
)
def test_never_more_trials_than_allowed_and_the_best_of_those_tried(
    values: list[int], n_trials: int, target: float | None
) -> None:
    calls: list[int] = []

    def trial(index: int) -> float:
        calls.append(index)
        return float(values[index])

    best, scores = successive_halving(trial, len(values), n_trials, target)
    assert len(calls) == sum(map(len, scores)) <= n_trials
    assert values[best] == max(values[i] for i in calls)
    tried = list(dict.fromkeys(calls))
    assert tried == list(range(len(tried)))  # in their order
    if target is None:
        # No trial is left unused as long as there is a candidate that was not tried
        assert len(calls) == n_trials or len(tried) == len(values)
        if n_trials >= 2 * len(values):
            assert len(tried) == len(values)
    elif max(values[i] for i in calls) >= target:
        assert calls[-1] == best and values[best] >= target


def test_ten_trials_find_the_one_that_works_among_ten() -> None:
    for right in range(10):
        best, scores = successive_halving(lambda i, right=right: float(i == right), 12, 10)  # type: ignore[misc]
        assert best == right
        # Failures are not tried again before others have had their turn
        if right >= 5:
            assert all(len(own) == 1 for own in scores[:5])


def test_one_trial_takes_the_first() -> None:
    assert successive_halving(lambda i: float(i), 5, 1) == (0, [[0.0], [], [], [], []])


def test_fewer_candidates_than_trials_are_tried_more_often() -> None:
    _, scores = successive_halving(lambda i: float(i), 2, 10)
    assert [len(own) for own in scores] == [5, 5]
    _, scores = successive_halving(lambda i: float(i), 3, 10)
    assert [len(own) for own in scores] == [2, 4, 4]
    assert successive_halving(lambda i: 1.0, 1, 4)[1] == [[1.0] * 4]


def test_of_equals_the_first_is_taken() -> None:
    assert successive_halving(lambda i: 1.0, 20, 10)[0] == 0
    assert successive_halving(lambda i: float(i >= 2), 4, 12)[0] == 2
    # Unless another was tried more often: five candidates once, then the three that are left, two of them twice
    assert successive_halving(lambda i: 0.0, 8, 10)[0] == 5


def test_noise_is_averaged_out() -> None:
    """The gap is one standard deviation; chance would be right in 1 of 8."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        best, _ = successive_halving(lambda i, rng=rng: float(i == 3) + rng.normal(), 8, 80)  # type: ignore[misc]
        hits += best == 3
    assert hits > 170


def test_target_ends_the_search() -> None:
    calls: list[int] = []

    def trial(index: int) -> float:
        calls.append(index)
        return float(index)

    best, scores = successive_halving(trial, 10, 10, target=2.0)
    assert best == 2 and calls == [0, 1, 2] and scores[2] == [2.0]


# --- with a policy ----------------------------------------------------------------------------------------------------


class TargetEnv(gym.Env):
    """Two steps; each earns how near the action's first entry is to a target, plus noise."""

    def __init__(self, target: float, noise: float = 0.0) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.target, self.noise, self.episodes, self.steps = target, noise, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.episodes += self.steps == 2
        distance = abs(float(action[0]) - self.target)
        reward = -distance + self.noise * float(self.np_random.normal())
        return np.zeros(3, dtype=np.float32), reward, False, self.steps == 2, {"is_success": distance < 0.1}


def acting_like_z(model: Any) -> Any:
    """The policy does what the first entry of z says."""

    def predict(obs: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False, **_: Any) -> Any:
        z = np.atleast_2d(state[0] if isinstance(state, tuple) else state)
        return z[:, :2].astype(np.float32), (z,)

    model.predict = predict
    return model


LATENTS = np.array([[-1.0, 0, 0], [-0.5, 0, 0], [0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]], dtype=np.float32)


@pytest.mark.parametrize("right", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_right_z_is_known(right: int, noise: float) -> None:
    env = TargetEnv(float(LATENTS[right, 0]), noise)
    model = acting_like_z(small_rpg(TargetEnv(0.0)))
    found = adapt(model, env, n_trials=10, candidates=LATENTS)
    assert np.array_equal(found.latent, LATENTS[right])
    assert found.n_trials == env.episodes == len(found.trajectories) <= 10
    assert found.success_rate == 1.0 and found.score == pytest.approx(0.0, abs=0.2)
    assert sum(map(len, found.scores)) == found.n_trials and np.array_equal(found.tried, LATENTS)
    own = found.scores[right]
    assert found.standard_error is not None and found.score == pytest.approx(np.mean(own)) and len(own) >= 2
    assert np.array_equal(found.trajectories[0].latent, LATENTS[0])


def test_score_target_and_a_single_trial() -> None:
    env = TargetEnv(-0.5)
    model = acting_like_z(small_rpg(TargetEnv(0.0)))
    one = adapt(model, env, 1, LATENTS)
    assert one.n_trials == env.episodes == 1 and one.standard_error is None and np.array_equal(one.latent, LATENTS[0])
    first = adapt(model, env, 10, LATENTS, score=lambda t: float(bool(t.success)), target=1.0)
    assert first.n_trials == 2 and np.array_equal(first.latent, LATENTS[1]) and first.score == 1.0
    away = adapt(model, env, 10, LATENTS, score=lambda t: -t.episode_return)
    assert np.array_equal(away.latent, LATENTS[4])


def test_the_way_that_is_still_open_is_found() -> None:
    """Four z that leave the maze's first room by its four exits; three exits are walled off."""
    directions = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=np.float32)
    exits = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    model = acting_like_z(small_rpg(MazeVecEnv(1)))
    for open_way, z in zip(exits, directions, strict=True):
        env = gym.make("RPGMaze-v0", reward="escape", blocked=[way for way in exits if way != open_way])
        found = adapt(model, env, 4, directions, descriptor="position")
        assert np.array_equal(found.latent, z) and found.success_rate == 1.0 and found.trajectories[0].path.shape == (51, 2)


def test_candidates_of_different_modes_first() -> None:
    trajectories = [Trajectory(np.array([float(i)]), np.zeros((2, 1)), np.zeros((1, 1)), np.zeros(1), None) for i in range(7)]

    def mode(number: int, members: list[int], mean_return: float) -> Mode:
        return Mode(number, np.array(members), trajectories[members[0]].latent, len(members) / 7, mean_return, None)

    modes = [mode(0, [4, 0, 1], 1.0), mode(1, [2, 3], 5.0), mode(2, [6, 5], 1.0)]
    assert mode_latents(trajectories, modes).ravel().tolist() == [2, 4, 6, 3, 0, 5, 1]


def test_without_candidates_they_spread_from_the_best() -> None:
    model = small_rpg().learn(20)
    obs = np.zeros(3, dtype=np.float32)
    latents, values = candidate_latents(model, obs), latent_values(model, obs, candidate_latents(model, obs))
    spread = spread_latents(model, obs, 10)
    assert spread.shape == (10, 3) and np.array_equal(spread[0], latents[values.argmax()])
    nearest = [np.linalg.norm(spread[:i] - spread[i], axis=1).min() for i in range(1, 10)]
    assert (np.diff(nearest) <= 1e-6).all() and nearest[-1] > 0
    few = small_rpg(latent="categorical", latent_dim=3).learn(20)
    assert len(np.unique(spread_latents(few, obs, 10), axis=0)) == 3
    found = adapt(model, labelled_vec_env(1), 3)
    assert found.n_trials == 3 and len(np.unique(found.tried, axis=0)) == 3


def test_errors() -> None:
    model = small_rpg()
    with pytest.raises(ValueError, match="`n_trials` must be at least 1, got 0"):
        adapt(model, labelled_vec_env(1), 0)
    with pytest.raises(ValueError, match="`env` has 2 copies, expected one"):
        adapt(model, labelled_vec_env(2), 3)
    with pytest.raises(ValueError, match=r"`candidates` has the shape \(2, 4\), expected \(n, 3\)"):
        adapt(model, labelled_vec_env(1), 3, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="`modes` is empty"):
        mode_latents([], [])
    with pytest.raises(ValueError, match="`n_candidates`=0 and `n_trials`=3 must be at least 1"):
        successive_halving(lambda i: 0.0, 0, 3)


def test_a_plain_environment_is_as_good_as_a_vectorised_one() -> None:
    model = acting_like_z(small_rpg(MazeVecEnv(1)))
    z = np.eye(3, dtype=np.float32)[:2]
    plain = adapt(model, gym.wrappers.TimeLimit(MazeEnv(reward="escape"), 20), 2, z)
    vectorised = adapt(model, DummyVecEnv([lambda: gym.wrappers.TimeLimit(MazeEnv(reward="escape"), 20)]), 2, z)
    assert plain.scores == vectorised.scores and plain.scores[0][0] > 0


def test_standard_error_is_that_of_the_mean() -> None:
    model = acting_like_z(small_rpg(TargetEnv(0.0)))
    found = adapt(model, TargetEnv(0.0, noise=0.1), n_trials=8, candidates=LATENTS[2:3])
    (own,) = found.scores
    assert len(own) == 8 and found.standard_error == pytest.approx(np.std(own, ddof=1) / 8**0.5)


def test_deterministic_reaches_the_policy() -> None:
    model, asked = acting_like_z(small_rpg(TargetEnv(0.0))), set()
    act = model.predict

    def watched(obs: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        asked.add(deterministic)
        return act(obs, state, episode_start)

    model.predict = watched
    for deterministic in (True, False):
        asked.clear()
        adapt(model, TargetEnv(0.0), 2, LATENTS, deterministic=deterministic)
        assert asked == {deterministic}


def test_all_trials_of_a_candidate_count() -> None:
    told = {0: iter([10.0, 5.0]), 1: iter([9.0, 5.5]), 2: iter([0.0]), 3: iter([0.0])}
    assert successive_halving(lambda i: next(told[i]), 4, 6)[0] == 0  # 7.5 and 7.25 on average
