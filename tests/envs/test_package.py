"""The package of environments: what it registers, and that it imports nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import pytest

from sb3_rpg import envs
from sb3_rpg.envs import maze_core, push_core


def test_every_name_is_there() -> None:
    assert sorted(envs._MODULE_OF) == sorted(envs.__all__)
    for name in envs.__all__:
        assert getattr(envs, name).__module__.startswith("sb3_rpg.envs.")
    with pytest.raises(AttributeError, match="no attribute 'MaseEnv'"):
        _ = envs.MaseEnv


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [
        ("RPGBandit-v0", 1),
        ("RPGMaze-v0", maze_core.EPISODE_LENGTH),
        ("RPGMazeSparse-v0", maze_core.EPISODE_LENGTH),
        ("RPGPointPush-v0", push_core.EPISODE_LENGTH),
    ],
)
def test_registered_lengths_are_those_of_the_tasks(env_id: str, steps: int) -> None:
    assert gym.spec(env_id).max_episode_steps == steps
    gym.make(env_id).reset(seed=0)


def test_importing_the_project_imports_no_environment() -> None:
    code = "import sys, sb3_rpg; print([name for name in sys.modules if name.startswith('sb3_rpg.envs.')])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
