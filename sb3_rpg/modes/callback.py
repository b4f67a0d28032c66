"""Which modes a policy has while it is being trained: counted, measured and drawn."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, sync_envs_normalization, unwrap_vec_normalize

from sb3_rpg.modes.choice import sample_latents
from sb3_rpg.modes.clusters import Mode, diversity, effective_mode_count, find_modes, path_spread
from sb3_rpg.modes.trajectories import Descriptor, Trajectory, first_observation, roll_out
from sb3_rpg.randomness import SeparateStream
from sb3_rpg.rpg import RPG
from sb3_rpg.saving import atomic_path

if TYPE_CHECKING:
    from sb3_rpg.envs.maze_layout import Passage

#: what SB3's loggers of text cannot show
TEXT_FORMATS = ("stdout", "log", "json", "csv")


class ModesCallback(BaseCallback):
    """
    Rolls out ``n_latents`` draws of z every ``eval_freq`` calls, and logs what becomes of them, as SB3's ``EvalCallback``
    does with returns:

    - ``modes/count``, ``modes/effective_count``: see :func:`~sb3_rpg.modes.find_modes`,
      :func:`~sb3_rpg.modes.effective_mode_count`
    - ``modes/best_return``, ``modes/mean_return``, ``modes/worst_return`` over latents, and ``modes/return_std``
    - ``modes/return_0``, ``modes/share_0``, ...: mean return and share of the largest modes
    - ``modes/success_rate``, where the environment tells success
    - ``modes/spread``: root mean square distance of the paths from their mean, in the descriptor's units
    - ``modes/coverage``, ``modes/qd_score``, ``modes/state_entropy``: see :func:`~sb3_rpg.modes.diversity`, with ``bounds``
    - ``modes/trajectories``: the paths, coloured by mode, as a picture for TensorBoard, and for Weights & Biases where it
      follows TensorBoard

    The latents are drawn alike at each evaluation (from a prior that does not change, they are the same), so that two pictures
    differ by what was learned. Training does not notice any of this.

    :param eval_env: environment of its own, wrapped as the one for training
    :param eval_freq: calls, one a vector step, between two evaluations
    :param n_latents: latents rolled out, one episode each
    :param descriptor: what paths are made of; see :func:`~sb3_rpg.modes.roll_out`
    :param deterministic: the mode of pi(a|s,z) instead of samples
    :param bounds: lower and upper bounds of the descriptor, each (d,), for the measures over a grid
    :param n_logged: of so many of the largest modes, return and share are logged
    :param picture: draw the paths
    :param dims: dimensions of the descriptor that the picture shows; a descriptor of one is shown over time
    :param maze: draw the walls of ``RPGMaze-v0`` (True), or with passages walled off (their list)
    :param log_path: folder of ``modes.npz``, which gathers all evaluations, those from before a run was resumed too; None: it
        is not written
    :param verbose: 1: print counts and returns
    :raises ValueError: if a number is below its minimum; when training starts, if the policy has no z, or the file in
        ``log_path`` is of other latents
    :raises ImportError: when training starts, if scikit-learn, or matplotlib for a picture, is missing
    """

    model: RPG

    def __init__(
        self,
        eval_env: gym.Env | VecEnv,
        eval_freq: int = 10_000,
        n_latents: int = 64,
        descriptor: Descriptor | None = None,
        deterministic: bool = True,
        bounds: tuple[Sequence[float], Sequence[float]] | None = None,
        n_logged: int = 5,
        picture: bool = True,
        dims: tuple[int, int] = (0, 1),
        maze: "bool | Sequence[Passage] | None" = None,
        log_path: str | pathlib.Path | None = None,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        for name, value, least in (("eval_freq", eval_freq, 1), ("n_latents", n_latents, 2), ("n_logged", n_logged, 0)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}")
        self.eval_env = eval_env if isinstance(eval_env, VecEnv) else DummyVecEnv([lambda: eval_env])
        self.eval_freq, self.n_latents, self.descriptor = eval_freq, n_latents, descriptor
        self.deterministic, self.bounds, self.n_logged = deterministic, bounds, n_logged
        self.picture, self.dims, self.maze = picture, dims, maze
        self.log_path = None if log_path is None else pathlib.Path(log_path)
        #: of the last evaluation
        self.trajectories: list[Trajectory] = []
        self.modes: list[Mode] = []
        self._history: dict[str, list[Any]] = {name: [] for name in ("timesteps", "latents", "returns", "modes", "successes")}

    def _init_callback(self) -> None:
        if not isinstance(self.model, RPG):
            raise ValueError(f"ModesCallback looks at the z of RPG; this is {type(self.model).__name__}, which has none")
        if self.model.latent_space.dim == 0:
            raise ValueError("ModesCallback needs a policy with z; latent='none' has none, and all its episodes are one mode")
        _check_installed("sklearn")
        if self.picture:
            _check_installed("matplotlib")
        if self.log_path is not None:
            self.log_path.mkdir(parents=True, exist_ok=True)
            self._read_history(self.log_path / "modes.npz")

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq == 0:
            self.evaluate()
        return True

    def evaluate(self) -> None:
        """Roll out, find modes, log and dump."""
        self._sync_normalization()
        # Made anew, the stream begins anew: the same draws at each evaluation
        with SeparateStream(self.model.device, numpy=True).active():
            latents = sample_latents(self.model, first_observation(self.eval_env), self.n_latents)
            self.trajectories = roll_out(self.model, self.eval_env, latents, self.descriptor, self.deterministic)
            self.modes = find_modes(self.trajectories)
        for name, value in self.measures().items():
            self.logger.record(f"modes/{name}", value)
        if self.picture:
            self.logger.record("modes/trajectories", Figure(self._draw(), close=True), exclude=TEXT_FORMATS)
        # Dumped now, so that the numbers stand at the step that they belong to
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.log_path is not None:
            self._write(self.log_path)
        if self.verbose >= 1:
            returns = [t.episode_return for t in self.trajectories]
            print(
                f"Modes num_timesteps={self.num_timesteps}, {len(self.modes)} modes "
                f"({effective_mode_count(self.modes):.1f} effective), return {np.mean(returns):.2f}, best {max(returns):.2f}"
            )

    def measures(self) -> dict[str, float]:
        """
        :return: what is logged of the last evaluation, by name
        """
        returns = np.array([t.episode_return for t in self.trajectories])
        found = {
            "count": float(len(self.modes)),
            "effective_count": effective_mode_count(self.modes),
            "best_return": float(returns.max()),
            "mean_return": float(returns.mean()),
            "worst_return": float(returns.min()),
            "return_std": float(returns.std()),
            "spread": path_spread(self.trajectories),
        }
        successes = [t.success for t in self.trajectories if t.success is not None]
        if successes:
            found["success_rate"] = float(np.mean(successes))
        for mode in self.modes[: self.n_logged]:
            found[f"return_{mode.number}"], found[f"share_{mode.number}"] = mode.mean_return, mode.share
        if self.bounds is not None:
            found.update(diversity(self.trajectories, *self.bounds)._asdict())
        return found

    def _draw(self) -> Any:
        from sb3_rpg.modes.pictures import trajectory_figure

        if self.trajectories[0].path.shape[1] > 1:
            return trajectory_figure(self.trajectories, self.modes, self.dims, self.maze)
        timed = [t._replace(path=np.column_stack([np.arange(len(t.path)), t.path])) for t in self.trajectories]
        return trajectory_figure(timed, self.modes, labels=("step", "dimension 0"))

    def _sync_normalization(self) -> None:
        n_normalized = sum(
            env is not None for env in (self.model.get_vec_normalize_env(), unwrap_vec_normalize(self.eval_env))
        )
        if n_normalized == 0:
            return
        message = "`eval_env` is not wrapped as the environment for training is: wrap it in the same layers, in the same order"
        if n_normalized == 1:
            raise ValueError(message)
        try:
            sync_envs_normalization(self.training_env, self.eval_env)
        except (AttributeError, AssertionError) as error:
            raise ValueError(message) from error

    def _read_history(self, path: pathlib.Path) -> None:
        """What a run that is gone on with has written before; a run that begins writes a new file, as SB3's callbacks do."""
        if self.model.num_timesteps == 0 or self._history["timesteps"] or not path.is_file():
            return
        with np.load(path) as arrays:
            before = arrays["timesteps"] <= self.model.num_timesteps
            if arrays["latents"].shape[1:] != (self.n_latents, self.model.latent_space.dim):
                raise ValueError(
                    f"`log_path`: {path} holds evaluations of latents of the shape {arrays['latents'].shape[1:]}, not "
                    f"{(self.n_latents, self.model.latent_space.dim)}: go on with that `n_latents`, or choose another folder"
                )
            for name, values in self._history.items():
                values.extend(arrays[name][before])

    def _write(self, folder: pathlib.Path) -> None:
        numbers = np.zeros(len(self.trajectories), dtype=np.int64)
        for mode in self.modes:
            numbers[mode.members] = mode.number
        successes = [np.nan if t.success is None else float(t.success) for t in self.trajectories]
        latents = np.stack([t.latent for t in self.trajectories])
        returns = [t.episode_return for t in self.trajectories]
        for name, value in zip(self._history, (self.num_timesteps, latents, returns, numbers, successes), strict=True):
            self._history[name].append(value)
        with atomic_path(folder / "modes.npz", ".npz") as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: np.array(values) for name, values in self._history.items()}
            np.savez(file, **arrays)


def _check_installed(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise ImportError(f'ModesCallback needs {module}: pip install "sb3_rpg[modes]"') from error
