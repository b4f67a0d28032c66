"""The callback: silent beside training, measured and logged at its time, one warning a failure."""

from __future__ import annotations

import csv
import gc
import math
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg import RPG
from sb3_rpg.diagnostics import FAILURES, DiagnosticsCallback, Failure, TrainingWarning, measure
from sb3_rpg.diagnostics.callback import EpisodeReturns
from sb3_rpg.diagnostics.samples import newest_block, stored_steps
from sb3_rpg.latents import LATENT_SPACES
from tests.conftest import LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg

ALWAYS = Failure("always", lambda measured: 1.0, "beta is {beta:.2f}", patience=2)


def random_numbers() -> list[float]:
    return [float(th.rand(())), float(np.random.rand())]


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"latent": "categorical"},
        {"latent": "learned_gaussian", "ent_coef": 0.1},
        {"intrinsic_reward": None, "latent": "none"},
    ],
)
def test_a_run_is_the_same_bit_for_bit_with_and_without(kwargs: dict[str, Any]) -> None:
    runs = []
    for diagnostics in (False, True):
        callback = DiagnosticsCallback(every=3) if diagnostics else None
        model = small_rpg(labelled_vec_env(2), diagnostics=False, **kwargs).learn(60, callback)
        bonus = {} if model.bonus is None else parameters_of(model.bonus)
        runs.append((parameters_of(model.policy), bonus, random_numbers(), model.replay_buffer.latents.copy()))
    for first, second in zip(runs[0][:2], runs[1][:2], strict=True):
        assert first.keys() == second.keys() and all(th.equal(first[name], second[name]) for name in first)
    assert runs[0][2] == runs[1][2] and np.array_equal(runs[0][3], runs[1][3])


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_everything_is_measured_and_logged(latent: str, tmp_path: Path) -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(5,)), latent=latent)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(200, DiagnosticsCallback(every=15, min_updates=10**9), log_interval=4)
    with (tmp_path / "progress.csv").open() as file:
        last = {name: float(value) for row in csv.DictReader(file) for name, value in row.items() if value}
    logged = {name.removeprefix("diagnostics/"): value for name, value in last.items() if name.startswith("diagnostics/")}
    expected = {"share_extrinsic", "share_bonus", "share_posterior", "share_entropy", "beta", "ent_coef", "ent_coef_change"}
    expected |= {
        "entropy_gap",
        "action_entropy",
        "exploration_share",
        "model_error",
        "model_return_bias",
        "model_return_error",
        "return_progress",
    }
    expected |= {f"model_error_step_{k}" for k in range(1, 6)} | {
        "value",
        "value_reached",
        "value_bias",
        "value_bias_relative",
    }
    expected |= {"bonus_error", "bonus_spread"} | {f"alarm_{failure.kind}" for failure in FAILURES}
    if latent != "none":
        expected |= {
            "information",
            "information_rise",
            "posterior_bound",
            "posterior_bound_max",
            "action_spread_over_z",
            "value_spread_over_z",
        }
        assert logged["posterior_bound"] <= logged["posterior_bound_max"] and 0 <= logged["information"] < np.log(129)
    assert set(logged) == expected
    assert all(np.isfinite(value) for value in logged.values())
    assert sum(value for name, value in logged.items() if name.startswith("share_")) == pytest.approx(1.0, abs=1e-4)
    assert 0 < last["time/share_diagnostics"] < 1


@pytest.mark.parametrize(
    ("env", "kwargs"),
    [
        (lambda: VecNormalize(labelled_vec_env(2)), {}),
        (lambda: labelled_vec_env(2, space="dict"), {"policy": "MultiInputPolicy"}),
        (lambda: labelled_vec_env(1, space="image"), {"policy": "CnnPolicy", "buffer_size": 30}),
        (lambda: labelled_vec_env(3, lengths=(1,)), {"horizon": 1}),
        (lambda: "RPGBandit-v0", {"horizon": 1}),  # all observations are alike
        (lambda: labelled_vec_env(1, lengths=(2,)), {"horizon": 3}),
        (lambda: LabelledEnv(lengths=(10**9,)), {"buffer_size": 16, "latent": "categorical"}),
        (lambda: labelled_vec_env(1, reward=1e30), {}),
        (lambda: labelled_vec_env(1), {"gamma": 1.0, "entropy_in_target": True, "precision": "bf16"}),
    ],
)
def test_awkward_runs(env: Any, kwargs: dict[str, Any]) -> None:
    callback = DiagnosticsCallback(every=5)
    model = small_rpg(env(), **kwargs).learn(60, callback)
    before = parameters_of(model.policy)
    assert model.policy.training and not changed(before, model.policy)
    found = measure(model)
    assert "model_error" in found and model.policy.training


def test_the_block_is_the_newest_steps_in_order_with_their_ends_also_around_the_ring() -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(4, 6)), buffer_size=40, intrinsic_reward=None, reward_scale=1.0).learn(70)
    assert model.replay_buffer.full
    block = newest_block(model, 24)
    labels = block.steps.observations.view(12, 2, 3)  # type: ignore[union-attr]
    following = block.steps.next_observations.view(12, 2, 3)  # type: ignore[union-attr]
    assert th.equal(labels[:, 1, 0], th.ones(12)) and th.equal(block.steps.extrinsic.view(12, 2), following[:, :, 2])
    assert th.equal(following[..., 2], labels[..., 2] + 1)
    ends = (labels[1:, :, 1] != labels[:-1, :, 1]) | (labels[1:, :, 2] < labels[:-1, :, 2])
    assert th.equal(block.last[:-1], ends) and block.last[-1].all()
    assert th.equal(block.steps.terminated.view(12, 2)[:-1] > 0, ends)
    newest = stored_steps(model, np.array([(model.replay_buffer.pos - 1) % 20]), np.array([0]))
    assert th.equal(newest.latents[0], block.steps.latents.view(12, 2, 3)[-1, 0])


def test_steps_are_measured_as_they_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    env = VecNormalize(labelled_vec_env(1, reward=100.0))
    model = small_rpg(env, reward_scale=3.0).learn(40)
    assert model.bonus is not None
    seen: list[th.Tensor] = []
    bonus = model.bonus.bonus

    def watched(obs: th.Tensor, actions: th.Tensor, next_obs: th.Tensor) -> th.Tensor:
        seen.extend([obs, next_obs])
        return bonus(obs, actions, next_obs)

    monkeypatch.setattr(model.bonus, "bonus", watched)
    rows = np.arange(5, 20)
    steps = stored_steps(model, rows, np.zeros(15, dtype=int))
    buffer = model.replay_buffer
    assert np.array_equal(seen[0].numpy(), buffer.observations[rows, 0])
    assert np.array_equal(seen[1].numpy(), buffer.next_observations[rows, 0])
    assert np.allclose(steps.extrinsic.numpy(), 3.0 * env.normalize_reward(buffer.rewards[rows, 0]), rtol=1e-5)
    observations: Any = steps.observations
    expected: Any = env.normalize_obs(buffer.observations[rows, 0])
    assert np.allclose(observations.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_demonstrations_are_measured(latent: str) -> None:
    teacher, student = small_rpg(latent="none").learn(60), small_rpg(latent=latent)
    stored = teacher.replay_buffer
    for row in range(60):
        step = (stored.observations, stored.next_observations, stored.actions, stored.rewards, stored.dones)
        student.replay_buffer.add(*(array[row] for array in step), [{}])
    student.train_world_model(3)
    found = measure(student)
    assert all(math.isfinite(found[name]) for name in ("information", "share_posterior", "value", "value_bias"))


def test_when_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(model: RPG) -> dict[str, float]:
        seen.append(model._n_model_updates)
        return measure(model)

    monkeypatch.setattr("sb3_rpg.diagnostics.callback.measure", spy)
    small_rpg(gradient_steps=2).learn(40, [DiagnosticsCallback(every=10)])
    assert seen == [10, 20, 30, 40, 50, 60]
    small_rpg(gradient_steps=0).learn(40, DiagnosticsCallback(every=1))
    assert len(seen) == 6  # nothing is learned


def test_calls_of_learn_that_go_on_are_one_run() -> None:
    def finished(calls: int) -> tuple[list[tuple[int, dict[str, float]]], list[float]]:
        model, callback = small_rpg(), DiagnosticsCallback(every=9)
        for call in range(calls):
            model.learn(60 // calls, callback, reset_num_timesteps=call == 0)
        return callback.history, callback._returns.finished

    (once, returns), (chunks, returns_of_chunks) = finished(1), finished(12)
    assert [step for step, _ in once] == [step for step, _ in chunks] and len(once) == 5
    assert returns == returns_of_chunks == [28.0] * 8
    # Without one of the user's: RPG's own
    model = small_rpg().learn(20)
    own = model._own_diagnostics
    assert own is not None and own._returns.finished == [28.0, 28.0]
    model.learn(20, reset_num_timesteps=False)
    assert model._own_diagnostics is own and own._returns.finished == [28.0] * 5
    model.learn(20)
    assert own._returns.finished == [28.0, 28.0], "another run"


def test_it_does_not_keep_alive_what_the_model_gives_up() -> None:
    model = small_rpg().learn(20)
    buffer = weakref.ref(model.replay_buffer)
    model.replay_buffer = None  # type: ignore[assignment]
    gc.collect()
    assert buffer() is None


def test_an_episode_that_a_reset_cuts_off_does_not_count() -> None:
    callback = DiagnosticsCallback()
    model = small_rpg().learn(10, callback)
    model.set_env(LabelledEnv())
    model.learn(10, callback, reset_num_timesteps=False)
    assert callback._returns.finished == [28.0, 28.0]


def test_one_warning_a_failure_with_the_remedy() -> None:
    callback = DiagnosticsCallback(every=2, min_updates=0, failures=[ALWAYS])
    with pytest.warns(TrainingWarning) as caught:
        small_rpg(beta=0.25).learn(60, callback)
    assert [step for step, _ in callback.history] == list(range(12, 61, 2)) and callback.history[0][1]["beta"] == 0.25
    texts = [str(warning.message) for warning in caught if warning.category is TrainingWarning]
    assert texts == ["always: beta is 0.25 (step 14; see docs/diagnosis.md)"]
    assert callback.detectors[0].active and callback.warned == {"always"}


def watching(callback: Any) -> list[DiagnosticsCallback]:
    if isinstance(callback, CallbackList):
        return [found for part in callback.callbacks for found in watching(part)]
    return [callback] if isinstance(callback, DiagnosticsCallback) else []


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(ValueError, match="knows how RPG goes wrong; this is SAC"):
        SAC("MlpPolicy", "Pendulum-v1").learn(5, DiagnosticsCallback())


def test_on_by_default_switched_off_or_replaced() -> None:
    assert len(watching(small_rpg()._init_callback(None))) == 1
    assert len(watching(small_rpg()._init_callback(lambda *_: True))) == 1
    assert watching(small_rpg(diagnostics=False)._init_callback(None)) == []
    own = DiagnosticsCallback(every=7)
    forms: list[Any] = [own, [own], CallbackList([CallbackList([own])])]
    for given in forms:
        assert watching(small_rpg()._init_callback(given)) == [own]
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        small_rpg(diagnostics=False).learn(20)
    with pytest.raises(ValueError, match=r"`every` must be at least 1, got 0; RPG\(..., diagnostics=False\) switches"):
        DiagnosticsCallback(every=0)


def test_returns_of_episodes_that_end_at_different_times() -> None:
    returns = EpisodeReturns(2)
    for step in range(1, 7):
        returns.update(np.array([1.0, 10.0]), np.array([step % 2 == 0, step == 5]))
    assert returns.finished == [2.0, 2.0, 50.0, 2.0]
    assert np.isnan(returns.progress())
    for value in range(100):
        returns.update(np.array([value, 0.0]), np.array([True, False]))
    assert returns.progress() > 2.0


def test_rewards_are_the_environments_own_under_vec_normalize() -> None:
    callback = DiagnosticsCallback(every=10**6)
    small_rpg(VecNormalize(labelled_vec_env(2))).learn(42, callback)
    assert callback._returns.finished == [28.0] * 6
