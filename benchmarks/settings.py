"""From hyperparameter files to models and environments, through RL Zoo's own code: what its commands would make."""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import inspect
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from benchmarks.schema import Task
from benchmarks.variants import register_variants

if TYPE_CHECKING:
    from rl_zoo3.exp_manager import ExperimentManager

#: arguments of an algorithm that a run has from elsewhere
NOT_SETTINGS = {"self", "policy", "env", "verbose", "seed", "device", "tensorboard_log", "_init_setup_model"}

# A rollout may go on a little beyond the budget
BUFFER_RESERVE = 10_000


def import_packages(names: Iterable[str]) -> None:
    """
    Import what registers environments.

    :param names: packages
    :raises ValueError: if one cannot be imported
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"gym_packages={name!r} cannot be imported ({error}): install it or correct its name") from error


def load_zoo() -> None:
    """
    Make RL Zoo know our algorithms and environments, whether or not the start-up hook is installed, and "reinforce".

    :raises ValueError: if RL Zoo is missing
    """
    from sb3_rpg.zoo import register

    try:
        register()
    except ImportError as error:
        raise ValueError(str(error)) from error
    register_variants()
    from rl_zoo3.utils import ALGOS

    # A2C as it is; hyperparams/reinforce.yml makes it that, on the bandit alone
    ALGOS.setdefault("reinforce", ALGOS["a2c"])


def resolve_settings(algo: str, env_id: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """
    Hyperparameters as ``python -m rl_zoo3.train --algo ... --env ...`` would take them from its files; for RPG with the
    defaults of all others, so that a run is known to be an old one after a default has changed.

    :param algo: RL Zoo's name of the algorithm
    :param env_id: the environment's id
    :param overrides: hyperparameters that replace the file's
    :return: plain data, sorted by name
    :raises ValueError: if algorithm or environment are unknown
    """
    load_zoo()
    from rl_zoo3.utils import ALGOS

    if algo not in ALGOS:
        raise ValueError(f"algo={algo!r} is unknown to RL Zoo; it has {', '.join(sorted(ALGOS))}")
    if env_id not in gym.registry:
        raise ValueError(
            f"env={env_id!r} is not registered with gymnasium: check its name, or name the package that registers it "
            "(--gym-packages)"
        )
    # RL Zoo prints what it reads
    with contextlib.redirect_stdout(io.StringIO()):
        _, settings = _manager(algo, env_id, dict(overrides)).read_hyperparameters()
    settings = {**_own_defaults(ALGOS[algo]), **settings}
    plain = {key: settings[key] for key in sorted(settings) if key != "n_timesteps"}
    try:
        return dict(json.loads(json.dumps(plain)))
    except TypeError as error:
        raise ValueError(f"overrides={dict(overrides)!r} must be plain data, code in strings ({error})") from error


def _own_defaults(algorithm: type[BaseAlgorithm]) -> dict[str, Any]:
    """What the constructor takes for granted. Other packages' defaults go with their versions, which the manifest has."""
    if not algorithm.__module__.startswith("sb3_rpg."):
        return {}
    parameters = inspect.signature(algorithm.__init__).parameters.items()
    return {name: parameter.default for name, parameter in parameters if name not in NOT_SETTINGS}


@dataclass
class Workbench:
    """
    What a run is made of.

    :param algo: RL Zoo's name of the algorithm
    :param task: the environment
    :param settings: hyperparameters, see :func:`resolve_settings`
    :param budget: environment steps
    :param seed: seed
    :param device: torch's device
    """

    algo: str
    task: Task
    settings: Mapping[str, Any]
    budget: int
    seed: int
    device: str = "auto"

    def __post_init__(self) -> None:
        load_zoo()
        manager = _manager(self.algo, self.task.env_id, None, self.budget, self.seed)
        # RL Zoo changes what it is given
        settings = copy.deepcopy({**self.settings, "n_timesteps": self.budget})
        self._kwargs, manager.env_wrapper, self._callbacks, manager.vec_env_wrapper = manager._preprocess_hyperparams(settings)
        manager.eval_env_kwargs = manager.env_kwargs
        self._manager = manager

    def callbacks(self) -> list[BaseCallback]:
        """
        :return: the callbacks that the settings name
        """
        return list(self._callbacks)

    def make_env(self) -> VecEnv:
        """
        :return: the environment for training
        """
        if self.task.vec_env == "zoo":
            return self._manager.create_envs(self._manager.n_envs, no_log=True)
        from sb3_rpg.envs import MazeVecEnv, PushVecEnv

        options = gym.spec(self.task.env_id).kwargs
        env: VecEnv
        if self.task.vec_env == "push":
            env = VecMonitor(PushVecEnv(self._manager.n_envs, **options))
        else:
            env = MazeVecEnv(self._manager.n_envs, **options)
            # Returns of a maze without reward say nothing
            env = env if env.reward == "none" else VecMonitor(env)
        env.seed(self.seed)
        return self._manager._maybe_normalize(env, eval_env=False)

    def make_eval_env(self, n_envs: int) -> VecEnv:
        """
        :param n_envs: number of copies
        :return: an environment of its own for evaluation
        """
        return self._manager.create_envs(n_envs, eval_env=True, no_log=True)

    def model_class(self) -> type[BaseAlgorithm]:
        """
        :return: the algorithm's class
        """
        from rl_zoo3.utils import ALGOS

        return ALGOS[self.algo]

    def make_model(self, env: VecEnv) -> BaseAlgorithm:
        """
        :param env: the environment for training
        :return: an untrained model
        """
        kwargs = self._manager._preprocess_action_noise(dict(self._kwargs), {}, env)
        parameters = inspect.signature(self.model_class().__init__).parameters
        if "buffer_size" in parameters:
            # A buffer that never fills behaves alike at any size, but is written to every checkpoint in whole
            size = kwargs.get("buffer_size", parameters["buffer_size"].default)
            kwargs["buffer_size"] = min(size, self.budget + BUFFER_RESERVE)
        return self.model_class()(env=env, seed=self.seed, verbose=0, device=self.device, **kwargs)


def _manager(
    algo: str, env_id: str, overrides: dict[str, Any] | None, n_timesteps: int = 0, seed: int = 0
) -> ExperimentManager:
    from rl_zoo3.exp_manager import ExperimentManager

    # The folder is only searched for earlier runs: nothing is written
    return ExperimentManager(
        argparse.Namespace(),
        algo,
        env_id,
        log_folder=os.devnull,
        n_timesteps=n_timesteps,
        hyperparams=overrides,
        seed=seed,
        eval_freq=-1,
        verbose=0,
    )
