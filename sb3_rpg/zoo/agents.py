"""Agents that RL Zoo has trained: found in its log folder, loaded, and given their environments, as its ``enjoy`` does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rpg.zoo.registration import register


@dataclass(frozen=True)
class SavedAgent:
    """
    A trained agent in RL Zoo's log folder.

    :param algo: RL Zoo's name of its algorithm
    :param env_id: id of its environment
    :param path: the model's file
    :param hyperparams: what it was trained with, as RL Zoo's helpers read it
    :param stats_path: folder of the statistics of VecNormalize, where there is one
    :param env_kwargs: arguments of the environment
    """

    algo: str
    env_id: str
    path: Path
    hyperparams: dict[str, Any]
    stats_path: str | None
    env_kwargs: dict[str, Any]

    def load(self, device: str = "auto", seed: int = 0) -> BaseAlgorithm:
        """
        :param device: torch's device
        :param seed: seed of the model
        :return: the model
        """
        from rl_zoo3.utils import ALGOS

        # Hindsight asks the environment for rewards as soon as the buffer is there
        needs_env = "HerReplayBuffer" in str(self.hyperparams.get("replay_buffer_class", ""))
        return ALGOS[self.algo].load(self.path, self.make_env(seed=seed) if needs_env else None, device=device, seed=seed)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path.parent

    def make_env(self, n_envs: int = 1, seed: int = 0, render: bool = False) -> VecEnv:
        """
        :param n_envs: number of copies, all in this process
        :param seed: seed
        :param render: with the render mode ``rgb_array``
        :return: an environment to test the agent in: wrapped, normalised and stacked as in training, rewards left as they are
        """
        from rl_zoo3.utils import create_test_env

        kwargs = {**self.env_kwargs, "render_mode": "rgb_array"} if render else self.env_kwargs
        # RL Zoo takes out of the hyperparameters what it has used, and prints what it loads
        with contextlib.redirect_stdout(io.StringIO()):
            return create_test_env(
                self.env_id,
                n_envs=n_envs,
                stats_path=self.stats_path,
                seed=seed,
                should_render=False,
                hyperparams=dict(self.hyperparams),
                env_kwargs=kwargs,
                vec_env_cls=DummyVecEnv,
            )

    def can_render(self) -> bool:
        """
        :return: whether the environment has the render mode ``rgb_array``
        """
        env = gym.make(self.env_id, **self.env_kwargs)
        modes = env.metadata.get("render_modes") or ()
        env.close()
        return "rgb_array" in modes


def find_agent(
    algo: str,
    env_id: str,
    folder: str,
    exp_id: int = 0,
    load_best: bool = False,
    load_checkpoint: int | None = None,
    load_last_checkpoint: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
) -> SavedAgent:
    """
    Find what ``python -m rl_zoo3.train`` has saved.

    :param algo: RL Zoo's name of the algorithm
    :param env_id: id of the environment
    :param folder: RL Zoo's log folder
    :param exp_id: number of the run; 0: the latest, -1: the folder has no numbers
    :param load_best: the best model instead of the last
    :param load_checkpoint: the checkpoint of this step instead
    :param load_last_checkpoint: the last checkpoint instead
    :param env_kwargs: arguments of the environment, which go before those it was trained with
    :return: the agent, not loaded yet
    :raises ImportError: if RL Zoo is missing
    :raises ValueError: if algorithm or environment are unknown, or no such model was saved
    """
    register()
    import yaml
    from huggingface_sb3 import EnvironmentName
    from rl_zoo3.utils import ALGOS, get_model_path, get_saved_hyperparams

    if algo not in ALGOS:
        raise ValueError(f"algo={algo!r} is unknown to RL Zoo; it has {', '.join(sorted(ALGOS))}")
    if env_id not in gym.registry:
        raise ValueError(
            f"env={env_id!r} is not registered with gymnasium: check its name, or import its package (--gym-packages)"
        )
    if not Path(folder, algo).is_dir():
        raise ValueError(f"folder={folder!r} has no folder {algo!r}: name the log folder that RL Zoo's train wrote to (-f)")
    name = EnvironmentName(env_id)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _, file, log_path = get_model_path(
                exp_id,
                folder,
                algo,
                name,
                load_best,
                # Only ever part of a file's name
                load_checkpoint,  # type: ignore[arg-type]
                load_last_checkpoint,
            )
    except (AssertionError, ValueError) as error:
        raise ValueError(f"folder={folder!r} holds no such model of {algo} on {env_id}: {error}") from error
    saved = Path(log_path, str(name))
    hyperparams, stats_path = get_saved_hyperparams(str(saved), test_mode=True)
    kwargs = dict(hyperparams.pop("env_kwargs", None) or {})
    arguments = saved / "args.yml"
    if arguments.is_file():
        # Written by RL Zoo with objects of its own; as trustworthy as the model beside it
        kwargs.update(yaml.unsafe_load(arguments.read_text(encoding="utf-8")).get("env_kwargs") or {})
    kwargs.update(env_kwargs or {})
    return SavedAgent(algo, env_id, Path(file), hyperparams, stats_path, kwargs)
