"""Saving and loading that loses nothing: atomic files, clear errors, and runs that go on with the randomness they had."""

import pathlib
import pickle
import warnings
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr
from stable_baselines3.common.type_aliases import MaybeCallback, TensorDict

from sb3_rpg.randomness import RandomState, get_random_state, set_random_state
from sb3_rpg.saving import CHECKPOINT_FORMAT, File, atomic_path, check_model_file
from sb3_rpg.version import __version__

SelfPersistent = TypeVar("SelfPersistent", bound="PersistentOffPolicyAlgorithm")


class PersistentOffPolicyAlgorithm(OffPolicyAlgorithm):
    """SB3's off-policy base, with the files of model and replay buffer made safe."""

    #: what is saved of a model that has it, and need not be there in another that its parameters are loaded into
    optional_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        #: of the moment of saving; a run that goes on after loading goes on with it
        self._random_state: RandomState | None = None

    def _setup_model(self) -> None:
        pending = self._random_state
        super()._setup_model()  # which seeds everything, in load() too
        self._random_state = pending

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        As SB3's; a loaded model then goes on with this seed, not with the random generators' states of when it was saved.

        :param seed: see SB3
        """
        super().set_random_seed(seed)
        if seed is not None:
            self._random_state = None

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if self._random_state is not None and not reset_num_timesteps:
            set_random_state(self._random_state)
        self._random_state = None
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def save(
        self,
        path: File,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        As SB3's; a file appears at ``path`` only once it is complete, and the random generators' states are in it.

        :param path: see SB3
        :param exclude: see SB3
        :param include: see SB3
        """
        self.checkpoint_format, self.sb3_rpg_version = CHECKPOINT_FORMAT, __version__
        # A loaded model that has not gone on yet is saved with the state that it will go on with
        pending = self._random_state
        self._random_state = pending or get_random_state()
        try:
            if isinstance(path, (str, pathlib.Path)):
                with atomic_path(path, ".zip") as temporary:
                    super().save(temporary, exclude, include)
            else:
                super().save(path, exclude, include)
        finally:
            self._random_state = pending

    def set_parameters(
        self,
        load_path_or_dict: File | TensorDict,
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """
        As SB3's; of the :attr:`optional_parts`, those that this model lacks are left out, and those that the file lacks keep
        their values, with a warning: so a loaded model can go on without its bonus, or with one.

        :param load_path_or_dict: see SB3
        :param exact_match: see SB3
        :param device: see SB3
        """
        if isinstance(load_path_or_dict, dict):
            params: dict[str, Any] = dict(load_path_or_dict)
        else:
            params = dict(load_from_zip_file(load_path_or_dict, device=device, load_data=False)[1])
        own = self._get_torch_save_params()[0]
        for name in self.optional_parts:
            if name in params and name not in own:
                params.pop(name)
                text = f"the model has no `{name}`: that of the file is left out"
            elif name in own and name not in params and exact_match:
                params[name] = recursive_getattr(self, name).state_dict()
                text = f"the file holds no `{name}`: the model's own is left as it is"
            else:
                continue
            if not name.endswith(".optimizer"):
                warnings.warn(text, stacklevel=2)
        super().set_parameters(params, exact_match, device)

    def save_replay_buffer(self, path: File) -> None:
        """
        As SB3's; a file appears at ``path`` only once it is complete.

        :param path: see SB3
        """
        if isinstance(path, (str, pathlib.Path)):
            with atomic_path(path, ".pkl") as temporary:
                super().save_replay_buffer(temporary)
        else:
            super().save_replay_buffer(path)

    def load_replay_buffer(self, path: File, truncate_last_traj: bool = True) -> None:
        """
        As SB3's; what does not fit this model is refused and leaves the model's own buffer in place.

        :param path: see SB3
        :param truncate_last_traj: see SB3
        :raises ValueError: if the file is truncated, or the buffer is of another algorithm, latent or number of environments
        """
        own = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            self._check_replay_buffer()
        except (EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not a complete replay buffer ({error}); load another checkpoint") from error
        except Exception:
            self.replay_buffer = own
            raise

    def _check_replay_buffer(self) -> None:
        """
        :raises ValueError: if the replay buffer that was loaded does not fit the model
        """

    @classmethod
    def load(cls: type[SelfPersistent], path: File, *args: Any, **kwargs: Any) -> SelfPersistent:
        """
        As SB3's.

        With ``learn(..., reset_num_timesteps=False)`` the loaded model draws what the saved one would have drawn next, unless
        another ``seed`` is given here, or to its ``set_random_seed`` afterwards.

        :param path: see SB3
        :param args: see SB3
        :param kwargs: see SB3
        :raises ValueError: if the file is truncated, or was saved by another algorithm or a later version of this one
        """
        check_model_file(path)
        model = super().load(path, *args, **kwargs)
        if "seed" in kwargs:
            model._random_state = None
        return model
