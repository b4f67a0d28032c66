"""Checkpoints: all that a killed run needs to go on where its last one was written."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from benchmarks.runs import Row

# A resumed environment starts a new episode. Seeded as before, it would repeat the run's first episodes
RESUME_SEED_STRIDE = 100_003


@dataclass
class RunState:
    """
    What a run knows beside its model.

    :param rows: measurements so far
    :param next_due: step of the next measurement, by metric
    :param seconds: wall-clock seconds so far, over all sessions
    :param cpu_seconds: processor seconds so far, over all sessions
    :param resumes: how often the run was resumed
    :param returns: returns of the training episodes since the last evaluation
    :param successes: their successes, where the environment reports them
    :param origins: the code of each session, the first one first, see :func:`~benchmarks.provenance.origin`
    """

    rows: list[Row] = field(default_factory=list)
    next_due: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    resumes: int = 0
    returns: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    origins: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(folder: Path, model: BaseAlgorithm, state: RunState) -> None:
    """
    Write a checkpoint; the one before is removed once the new one is complete.

    :param folder: folder of the run's checkpoints
    :param model: the model, between two rollouts
    :param state: the rest
    """
    env = model.get_env()
    assert env is not None
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"{model.num_timesteps:012d}", folder / ".incomplete"
    if target.exists():
        return
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    model.save(temporary / "model.zip")
    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(temporary / "replay_buffer.pkl")
    content = {"state": vars(state), "environment": _environment_state(env), "randomness": _randomness()}
    (temporary / "state.pkl").write_bytes(pickle.dumps(content))
    # A folder has its final name only when it is complete
    os.replace(temporary, target)
    for path in folder.iterdir():
        if path != target:
            shutil.rmtree(path, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """
    :param folder: folder of the run's checkpoints
    :return: the newest complete one, if any
    """
    complete = [path for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []
    return max(complete, default=None)


def load_checkpoint(
    path: Path, model_class: type[BaseAlgorithm], env: VecEnv, seed: int, device: str
) -> tuple[BaseAlgorithm, RunState]:
    """
    :param path: a checkpoint
    :param model_class: class of the model
    :param env: a new environment for training
    :param seed: seed of the run
    :param device: torch's device
    :return: the model, ready to go on, and the rest
    """
    content = pickle.loads((path / "state.pkl").read_bytes())
    # By field: a run that was begun with an older version of this file goes on
    state = RunState(**content["state"])
    state.resumes += 1
    model = model_class.load(path / "model.zip", env=env, device=device)
    if isinstance(model, OffPolicyAlgorithm):
        model.load_replay_buffer(path / "replay_buffer.pkl")
    _restore_environment_state(env, content["environment"])
    # After load(), which seeds everything as at the run's start
    env.seed(seed + RESUME_SEED_STRIDE * state.resumes)
    _restore_randomness(content["randomness"])
    return model, state


def layers(env: VecEnv) -> Iterator[VecEnv]:
    """
    :param env: a vectorised environment
    :return: the environment and all that it wraps, outermost first
    """
    yield env
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        yield env


def _environment_state(env: VecEnv) -> dict[str, Any]:
    from sb3_rpg.envs import MazeVecEnv

    state: dict[str, Any] = {}
    for layer in layers(env):
        if isinstance(layer, VecNormalize):
            state["normalization"] = (layer.obs_rms, layer.ret_rms)
        if isinstance(layer, MazeVecEnv):
            # Coverage counts from the start of training
            state["visited"] = layer.visited
    return state


def _restore_environment_state(env: VecEnv, state: dict[str, Any]) -> None:
    from sb3_rpg.envs import MazeVecEnv

    for layer in layers(env):
        if isinstance(layer, VecNormalize):
            layer.obs_rms, layer.ret_rms = state["normalization"]
        if isinstance(layer, MazeVecEnv):
            layer.visited = state["visited"].copy()


def _randomness() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
    }


def _restore_randomness(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"])
    if th.cuda.is_available() and len(state["cuda"]) == th.cuda.device_count():
        th.cuda.set_rng_state_all(state["cuda"])
