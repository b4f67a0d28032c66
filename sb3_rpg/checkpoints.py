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
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
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

#: what a checkpoint is called while another of the same step takes its place
REPLACED = ".replaced"

#: what belongs to the state of SB3's own layers, as far as they have it: normalisation of rewards alone keeps no ``obs_rms``
LAYER_ATTRIBUTES: dict[type[VecEnv], tuple[str, ...]] = {
    VecNormalize: ("obs_rms", "ret_rms", "returns"),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecFrameStack: ("stacked_obs",),
    VecTransposeImage: (),
    VecCheckNan: ("_observations", "_actions"),
}


def write_checkpoint(folder: Folder, model: BaseAlgorithm, extra: Any = None, keep: int = 1) -> pathlib.Path:
    """
    Write a checkpoint of the run at ``folder/<steps>``; older ones, and one of the same step, are removed once it is complete.

    :param folder: folder of the run's checkpoints, and of no other run's
    :param model: the model, between two rollouts
    :param extra: anything else to keep, picklable
    :param keep: how many checkpoints to keep, the new one included
    :return: the checkpoint
    :raises ValueError: if ``keep`` is below 1, or the folder holds a checkpoint of a later step
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1, got {keep}: the new checkpoint is one of those that are kept")
    folder = pathlib.Path(folder)
    _refuse_later_step(folder, model.num_timesteps)
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"{model.num_timesteps:012d}", folder / ".incomplete"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    content = {
        "extra": extra,
        "randomness": get_random_state(),
        # Drawn from by SB3's algorithms before they learn
        "action_space": model.action_space.np_random.bit_generator.state,
        "layers": _layer_states(model.get_env()),
    }
    model.save(temporary / "model.zip")
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
        model.save_replay_buffer(temporary / "replay_buffer.pkl")
    (temporary / "state.pkl").write_bytes(pickle.dumps(content))
    for path in temporary.iterdir():
        sync(path)
    if target.exists():
        # Training from the buffer alone takes no steps. Folders cannot be exchanged at once: the old one stays loadable
        replaced = target.with_suffix(REPLACED)
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(target, replaced)
    os.replace(temporary, target)
    older = [path for path in _complete(folder) if path.suffix != REPLACED][:-keep]
    for path in [*older, *folder.glob(f"*{REPLACED}")]:
        shutil.rmtree(path, ignore_errors=True)
    return target


def latest_checkpoint(folder: Folder) -> pathlib.Path | None:
    """
    :param folder: folder of the run's checkpoints
    :return: the newest complete one, if any
    """
    return next(reversed(_complete(pathlib.Path(folder))), None)


def load_checkpoint(
    path: Folder, model_class: type[Model], env: GymEnv | str, device: str = "auto", **kwargs: Any
) -> tuple[Model, Any]:
    """
    The model as it was when the checkpoint was written; go on with ``learn(..., reset_num_timesteps=False)``.

    Random generators are set to their state of then, unless ``kwargs`` hold another ``seed``. What the environment itself is
    doing can only be restored by layers that offer ``state_dict()`` and ``load_state_dict()``, as ``MazeVecEnv`` does; where
    one does not, the run goes on with new episodes, other ones than at its beginning.

    :param path: a checkpoint
    :param model_class: class of the model
    :param env: a new environment for training, made as the one before, or its id; wrapped as the model's constructor does
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
    # As the model's constructor did
    vec_env = model_class._wrap_env(maybe_make_env(env, verbose=0), verbose=0)
    restored = _load_layer_states(vec_env, content["layers"])
    model = model_class.load(path / "model.zip", env=vec_env, device=device, force_reset=not restored, **kwargs)
    if isinstance(model, OffPolicyAlgorithm) and (path / "replay_buffer.pkl").is_file():
        model.load_replay_buffer(path / "replay_buffer.pkl", truncate_last_traj=not restored)
    # load() seeds everything as at the run's start
    if not restored and model.seed is not None:
        vec_env.seed((model.seed + model.num_timesteps) % 2**31)
    if "seed" not in kwargs:
        set_random_state(content["randomness"])
        if "action_space" in content:  # older checkpoints lack it
            model.action_space.np_random.bit_generator.state = content["action_space"]
    return model, content["extra"]


class RunCheckpointCallback(BaseCallback):
    """
    Writes checkpoints that a killed run goes on from; never an incomplete one.

    :param folder: folder of this run's checkpoints
    :param save_freq: environment steps between two of them
    :param keep: how many to keep
    :param extra: called for what to keep beside the model
    :param verbose: 1: print where each was written
    :raises ValueError: if ``save_freq`` or ``keep`` is below 1; when training starts, if the folder holds a later checkpoint;
        when one is due, if another run has written to the folder
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
        self._outer_error: BaseException | None = None
        self._newest: pathlib.Path | None = None

    def _on_training_start(self) -> None:
        self._outer_error = sys.exc_info()[1]
        self._last_save = self.model.num_timesteps
        _refuse_later_step(self.folder, self._last_save)
        self._newest = latest_checkpoint(self.folder)

    def _on_rollout_start(self) -> None:
        # Here all collected transitions are stored and all updates for them are done
        if self.model.num_timesteps - self._last_save >= self.save_freq:
            self._write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if sys.exc_info()[1] is not self._outer_error:
            # RL Zoo ends training in a `finally`: what has just failed must not take the last checkpoint's place
            return
        if self._newest is None or int(self._newest.stem) < self.model.num_timesteps:
            self._write()

    def _write(self) -> None:
        newest = latest_checkpoint(self.folder)
        if newest is not None and (self._newest is None or newest.stem > self._newest.stem):
            raise ValueError(
                f"`folder`={str(self.folder)!r} holds {newest.name}, the last that this run knows of is "
                f"{self._newest and self._newest.name}: another run writes there; give each run a folder of its own"
            )
        self._last_save = self.model.num_timesteps
        extra = None if self.extra is None else self.extra()
        self._newest = write_checkpoint(self.folder, self.model, extra, self.keep)
        if self.verbose > 0:
            print(f"Checkpoint written to {self._newest}")


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
    """Complete checkpoints, the newest last."""
    found = [path for path in folder.glob("*") if path.stem.isdigit() and path.suffix in ("", REPLACED)]
    return sorted(found, key=lambda path: (int(path.stem), path.suffix == ""))


def _refuse_later_step(folder: pathlib.Path, step: int) -> None:
    newest = latest_checkpoint(folder)
    if newest is not None and int(newest.stem) > step:
        # The older of two is what is removed: that would be this run's
        raise ValueError(
            f"`folder`={str(folder)!r} holds a checkpoint of step {int(newest.stem)}, this run is at step {step}: go on with "
            "load_checkpoint(), choose another folder, or remove what is there"
        )


def _layer_states(env: VecEnv | None) -> list[tuple[str, dict[str, Any] | None]]:
    """Kind and state of every layer, outermost first; None for the state of a layer that cannot tell it."""
    return [] if env is None else [(type(layer).__name__, _layer_state(layer)) for layer in layers_of(env)]


def _layer_state(layer: VecEnv) -> dict[str, Any] | None:
    if hasattr(type(layer), "state_dict"):  # wrappers pass attributes of what they wrap on as their own
        return dict(layer.state_dict())  # type: ignore[attr-defined]
    for kind, names in LAYER_ATTRIBUTES.items():
        if isinstance(layer, kind):
            return {name: vars(layer)[name] for name in names if name in vars(layer)}
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
