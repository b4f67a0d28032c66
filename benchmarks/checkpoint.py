"""Checkpoints: all that a killed run needs to go on where its last one was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.densities import Counts
from benchmarks.runs import Row
from sb3_rpg.checkpoints import load_checkpoint, write_checkpoint

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
    :param measuring_seconds: those of them that measurements took
    :param measuring_cpu_seconds: those of them that measurements took
    :param peak_memory: most bytes that the process held in memory, over all sessions
    :param resumes: how often the run was resumed
    :param returns: returns of the training episodes since the last evaluation
    :param successes: their successes, where the environment reports them
    :param histograms: of actions, by step, where the task has them
    :param origins: the code of each session, the first one first, see :func:`~benchmarks.provenance.origin`
    """

    rows: list[Row] = field(default_factory=list)
    next_due: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    measuring_seconds: float = 0.0
    measuring_cpu_seconds: float = 0.0
    peak_memory: int = 0
    resumes: int = 0
    returns: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    histograms: dict[int, Counts] = field(default_factory=dict)
    origins: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(folder: Path, model: BaseAlgorithm, state: RunState) -> None:
    """
    Write a checkpoint; the one before is removed once the new one is complete.

    :param folder: folder of the run's checkpoints
    :param model: the model, between two rollouts
    :param state: the rest
    """
    write_checkpoint(folder, model, extra=vars(state))


def resume(
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
    model, extra = load_checkpoint(path, model_class, env, device)
    # By field: a run that was begun with an older version of this file goes on
    state = RunState(**extra)
    state.resumes += 1
    # Of use only to environments that could not be restored, and are reset
    env.seed(seed + RESUME_SEED_STRIDE * state.resumes)
    return model, state
