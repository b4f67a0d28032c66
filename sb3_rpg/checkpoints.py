"""
Checkpoints of a whole run: model, replay buffer, normalisation and randomness in one folder that is complete or absent.

SB3's ``CheckpointCallback`` writes several files between a step of the environment and its storage, so that a run killed
in between leaves a set that does not fit together, and a resumed one lacks a transition. Here a checkpoint is taken between
two rollouts, and its folder gets its name only once everything in it is on the disk. It works for any SB3 algorithm.
"""

import os
import pathlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_rpg.randomness import get_random_state, set_random_state
from sb3_rpg.saving import sync

Model = TypeVar("Model", bound=BaseAlgorithm)
Folder = str | pathlib.Path

#: what belongs to the state of SB3's own layers
LAYER_ATTRIBUTES: dict[type[VecEnv], tuple[str, ...]] = {
    VecNormalize: ("obs_rms", "ret_rms", "returns"),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecFrameStack: ("stacked_obs",),
    VecTransposeImage: (),
    VecCheckNan: ("_observations", "_actions"),
}


def write_checkpoint(folder: Folder, model: BaseAlgorithm, extra: Any = None, keep: int = 1) -> pathlib.Path:
    """
    Write a checkpoint of the run at ``folder/<steps>``; older ones are removed once it is complete.

    :param folder: folder of the run's checkpoints
    :param model: the model, between two rollouts
    :param extra: anything else to keep, picklable
    :param keep: how many checkpoints to keep, the new one included
    :return: the checkpoint
    :raises ValueError: if ``keep`` is below 1
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1, got {keep}: the new checkpoint is one of those that are kept")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"{model.num_timesteps:012d}", folder / ".incomplete"
    if not target.exists():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        content = {"extra": extra, "randomness": get_random_state(), "layers": _layer_states(model.get_env())}
        model.save(temporary / "model.zip")
        if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
            model.save_replay_buffer(temporary / "replay_buffer.pkl")
        (temporary / "state.pkl").write_bytes(pickle.dumps(content))
        for path in temporary.iterdir():
            sync(path)
        os.replace(temporary, target)
    for path in sorted(_complete(folder), key=lambda path: int(path.name))[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    return target


def latest_checkpoint(folder: Folder) -> pathlib.Path | None:
    """
    :param folder: folder of the run's checkpoints
    :return: the newest complete one, if any
    """
    return max(_complete(pathlib.Path(folder)), default=None, key=lambda path: int(path.name))


def load_checkpoint(
    path: Folder, model_class: type[Model], env: VecEnv, device: str = "auto", **kwargs: Any
) -> tuple[Model, Any]:
    """
    The model as it was when the checkpoint was written; go on with ``learn(..., reset_num_timesteps=False)``.

    Random generators are set to their state of then. What the environment itself is doing can only be restored by layers
    that offer ``state_dict()`` and ``load_state_dict()``, as ``MazeVecEnv`` does; where one does not, the run goes on with a
    new episode.

    :param path: a checkpoint
    :param model_class: class of the model
    :param env: a new environment for training, made as the one before
    :param device: torch's device
    :param kwargs: further arguments of ``model_class.load``
    :return: the model, and what was given as ``extra``
    :raises FileNotFoundError: if there is no checkpoint at ``path``
    :raises ValueError: if the environment is wrapped in other layers than the one before
    """
    path = pathlib.Path(path)
    if not (path / "state.pkl").is_file():
        raise FileNotFoundError(f"{path} is no checkpoint; latest_checkpoint(folder) finds the newest one of a run, if any")
    content = pickle.loads((path / "state.pkl").read_bytes())
    restored = _load_layer_states(env, content["layers"])
    model = model_class.load(path / "model.zip", env=env, device=device, force_reset=not restored, **kwargs)
    if isinstance(model, OffPolicyAlgorithm) and (path / "replay_buffer.pkl").is_file():
        model.load_replay_buffer(path / "replay_buffer.pkl", truncate_last_traj=not restored)
    set_random_state(content["randomness"])  # load() seeds everything as at the run's start
    return model, content["extra"]


class RunCheckpointCallback(BaseCallback):
    """
    Writes checkpoints that a killed run goes on from; never an incomplete one.

    :param folder: folder of this run's checkpoints
    :param save_freq: environment steps between two of them
    :param keep: how many to keep
    :param extra: called for what to keep beside the model
    :param verbose: 1: print where each was written
    :raises ValueError: if ``save_freq`` or ``keep`` is below 1; when training starts, if the folder holds a later checkpoint
    """

    def __init__(
        self,
        folder: Folder,
        save_freq: int,
        keep: int = 1,
        extra: Callable[[], Any] | None = None,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        if save_freq < 1 or keep < 1:
            raise ValueError(f"`save_freq` and `keep` must be at least 1, got {save_freq} and {keep}")
        self.folder, self.save_freq, self.keep, self.extra = pathlib.Path(folder), int(save_freq), keep, extra
        self._last_save = 0

    def _on_training_start(self) -> None:
        self._last_save = self.model.num_timesteps
        newest = latest_checkpoint(self.folder)
        if newest is not None and int(newest.name) > self._last_save:
            # The older of two is what is removed: that would be this run's
            raise ValueError(
                f"`folder`={str(self.folder)!r} holds a checkpoint of step {int(newest.name)}, this run is at step "
                f"{self._last_save}: go on with load_checkpoint(), choose another folder, or remove what is there"
            )

    def _on_rollout_start(self) -> None:
        # Here all collected transitions are stored and all updates for them are done
        if self.model.num_timesteps - self._last_save >= self.save_freq:
            self._write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        self._last_save = self.model.num_timesteps
        path = write_checkpoint(self.folder, self.model, None if self.extra is None else self.extra(), self.keep)
        if self.verbose > 0:
            print(f"Checkpoint written to {path}")


def layers_of(env: VecEnv) -> Iterator[VecEnv]:
    """
    :param env: a vectorised environment
    :return: the environment and all that it wraps, outermost first
    """
    yield env
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        yield env


def _complete(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []


def _layer_states(env: VecEnv | None) -> list[tuple[str, dict[str, Any] | None]]:
    """Kind and state of every layer, outermost first; None for the state of a layer that cannot tell it."""
    return [] if env is None else [(type(layer).__name__, _layer_state(layer)) for layer in layers_of(env)]


def _layer_state(layer: VecEnv) -> dict[str, Any] | None:
    if hasattr(type(layer), "state_dict"):  # wrappers pass attributes of what they wrap on as their own
        return dict(layer.state_dict())  # type: ignore[attr-defined]
    for kind, names in LAYER_ATTRIBUTES.items():
        if isinstance(layer, kind):
            return {name: getattr(layer, name) for name in names}
    return None


def _load_layer_states(env: VecEnv, states: list[tuple[str, dict[str, Any] | None]]) -> bool:
    """
    :return: whether every layer is in the state that it was saved in
    """
    layers = list(layers_of(env))
    kinds, saved_kinds = [type(layer).__name__ for layer in layers], [kind for kind, _ in states]
    if kinds != saved_kinds:
        raise ValueError(
            f"`env` is made of the layers {kinds}, the checkpoint's environment of {saved_kinds}; make it as the one before"
        )
    for layer, (_, state) in zip(layers, states, strict=True):
        if state is not None and hasattr(type(layer), "load_state_dict"):
            layer.load_state_dict(state)  # type: ignore[attr-defined]
        elif state is not None:
            for name, value in state.items():
                setattr(layer, name, value)
    return all(state is not None for _, state in states)
