"""Models and environments are those that RL Zoo's own commands would make."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from benchmarks.schema import Task
from benchmarks.settings import BUFFER_RESERVE, NOT_SETTINGS, Workbench, import_packages, resolve_settings
from sb3_rpg import RPG
from sb3_rpg.envs import MazeVecEnv, PushVecEnv
from sb3_rpg.intrinsic import IntrinsicReplayBuffer, IntrinsicRewardCallback
from tests.benchmarks.conftest import TINY_RPG


def test_settings_are_the_files_with_overrides() -> None:
    settings = resolve_settings("sac", "Pendulum-v1", {"gamma": 0.5})
    assert settings["learning_rate"] == 1e-3  # RL Zoo's
    assert settings["gamma"] == 0.5
    assert "n_timesteps" not in settings  # the budget is the experiment's
    assert resolve_settings("rpg", "RPGMaze-v0", {})["n_envs"] == 5  # ours


def test_bad_names_and_values_are_explained() -> None:
    with pytest.raises(ValueError, match=r"algo='rgp' is unknown.*rpg"):
        resolve_settings("rgp", "Pendulum-v1", {})
    with pytest.raises(ValueError, match=r"env='Pendulum-v99' is not registered.*--gym-packages"):
        resolve_settings("sac", "Pendulum-v99", {})
    with pytest.raises(ValueError, match="plain data"):
        resolve_settings("sac", "Pendulum-v1", {"policy_kwargs": {"activation_fn": object()}})
    with pytest.raises(ValueError, match="gym_packages='no_such_package'"):
        import_packages(["no_such_package"])


def test_the_maze_is_one_batch_and_counts_coverage() -> None:
    settings = resolve_settings("sac_rnd", "RPGMaze-v0", {"policy_kwargs": "dict(net_arch=[8])"})
    bench = Workbench("sac_rnd", Task("RPGMaze-v0", "maze"), settings, 100, seed=3, device="cpu")
    env = bench.make_env()
    assert isinstance(env, MazeVecEnv) and env.num_envs == 5
    model = bench.make_model(env)
    assert isinstance(model, SAC) and isinstance(model.replay_buffer, IntrinsicReplayBuffer)
    assert model.seed == 3
    assert [type(callback) for callback in bench.callbacks()] == [IntrinsicRewardCallback]
    # The file says 800,000: a buffer that cannot fill is made smaller
    assert model.buffer_size == 100 + BUFFER_RESERVE


def test_batched_tasks_take_their_options_from_the_registration() -> None:
    def make_env(env_id: str, vec_env: str) -> Any:
        bench = Workbench("sac", Task(env_id, vec_env), resolve_settings("sac", env_id, {}), 100, seed=3, device="cpu")
        return bench.make_env()

    sparse = make_env("RPGMazeSparse-v0", "maze")
    assert isinstance(sparse, VecMonitor) and sparse.get_attr("reward") == ["sparse"] * 5
    push = make_env("RPGPointPush-v0", "push")
    assert isinstance(push, VecMonitor) and isinstance(push.venv, PushVecEnv) and push.num_envs == 5


def test_code_schedules_and_noise_are_parsed() -> None:
    overrides = {
        "learning_rate": "lin_1e-3",
        "train_freq": [1, "episode"],
        "noise_type": "normal",
        "noise_std": 0.1,
        "policy_kwargs": "dict(net_arch=[8], activation_fn=nn.ELU)",
        "buffer_size": 50,
    }
    bench = Workbench("td3", Task("Pendulum-v1"), resolve_settings("td3", "Pendulum-v1", overrides), 100, 0, "cpu")
    model = bench.make_model(bench.make_env())
    assert isinstance(model, TD3)
    assert model.lr_schedule(0.5) == pytest.approx(5e-4)
    assert model.train_freq.unit.value == "episode"  # type: ignore[union-attr]
    assert model.action_noise is not None
    assert model.buffer_size == 50  # smaller than the budget, as the user wants it


def test_on_policy_and_normalised() -> None:
    settings = resolve_settings("ppo", "Pendulum-v1", {"normalize": True, "n_envs": 2, "n_steps": 8, "batch_size": 8})
    bench = Workbench("ppo", Task("Pendulum-v1"), settings, 100, 0, "cpu")
    env = bench.make_env()
    assert isinstance(env, VecNormalize) and env.num_envs == 2 and env.norm_reward
    evaluation = bench.make_eval_env(3)
    assert isinstance(evaluation, VecNormalize) and evaluation.num_envs == 3
    assert not evaluation.training and not evaluation.norm_reward
    assert isinstance(bench.make_model(env), PPO)


def test_settings_survive_being_used() -> None:
    settings = resolve_settings("rpg", "RPGBandit-v0", TINY_RPG)
    before = dict(settings)
    bench = Workbench("rpg", Task("RPGBandit-v0"), settings, 100, 0, "cpu")
    assert isinstance(bench.make_model(bench.make_env()), RPG)
    assert settings == before


def test_settings_of_our_own_algorithm_name_its_defaults() -> None:
    # so that curves made before a default changed are told from those made after
    settings = resolve_settings("rpg", "RPGMaze-v0", {"tau": 0.5})
    signature = inspect.signature(RPG.__init__).parameters
    assert set(signature) - set(settings) == NOT_SETTINGS - {"policy"}
    assert settings["tau"] == 0.5 and settings["learning_rate"] == 3e-4  # the call's and the file's go first
    assert settings["horizon"] == signature["horizon"].default
    assert "tau" not in resolve_settings("sac", "RPGMaze-v0", {})
