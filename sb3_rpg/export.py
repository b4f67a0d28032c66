"""
A trained policy for places without Stable-Baselines3: observation and z in, action out, as ONNX or TorchScript.

z is an input. Whoever acts chooses one at an episode's start (any draw of the latent space, or what
``model.predict(obs, deterministic=True)[1][0]`` returns) and keeps it.
"""

import importlib.util
import pathlib
import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_rpg.rpg import RPG
from sb3_rpg.saving import atomic_path


class ExportedPolicy(nn.Module):
    """
    The deterministic policy as a function of tensors: equal to ``predict(obs, state=z, deterministic=True)``. Images are
    channel-first, also where the environment's are not and ``predict`` turns them round.

    :param model: a trained model
    :param normalize: the environment's observation normalisation becomes part of the network, if given
    :raises ValueError: if an entry of Dict observations is called "z", as the latent is
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, model: RPG, normalize: VecNormalize | None = None):
        super().__init__()
        self.actor = model.policy.actor
        space, actions = model.observation_space, model.action_space
        assert isinstance(actions, spaces.Box)
        self.keys = sorted(space.spaces) if isinstance(space, spaces.Dict) else None
        self.has_latent = model.latent_space.dim > 0
        if self.has_latent and "z" in (self.keys or ()):
            raise ValueError("the observation has an entry 'z', which is the latent's name here; rename it in a wrapper")
        self.action_shape = actions.shape
        self.register_buffer("low", th.as_tensor(actions.low, device=model.device))
        self.register_buffer("high", th.as_tensor(actions.high, device=model.device))
        self.normalized: set[str] = set()
        self.clip = 0.0 if normalize is None else normalize.clip_obs
        if normalize is not None and normalize.norm_obs:
            statistics = normalize.obs_rms if isinstance(normalize.obs_rms, dict) else {"obs": normalize.obs_rms}
            for key, moments in statistics.items():
                self.normalized.add(key)
                std = np.sqrt(moments.var + normalize.epsilon)
                for name, value in (("mean", moments.mean), ("std", std)):
                    self.register_buffer(f"{name}_{key}", th.as_tensor(value, dtype=th.float32, device=model.device))

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs of :meth:`forward`, in order."""
        return [*(["obs"] if self.keys is None else self.keys), *(["z"] if self.has_latent else [])]

    def _normalize(self, key: str, obs: th.Tensor) -> th.Tensor:
        if key not in self.normalized:
            return obs
        mean, std = self.get_buffer(f"mean_{key}"), self.get_buffer(f"std_{key}")
        standardized = (obs - mean) / std
        return standardized.clamp(-self.clip, self.clip)

    def forward(self, *inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: observations (B, ...), for Dict spaces one tensor a key in alphabetical order, then z (B, latent_dim)
            unless the latent is "none"
        :return: actions in the action space's own scale, (B, ...)
        """
        obs: Any
        if self.keys is None:
            obs = self._normalize("obs", inputs[0])
        else:
            obs = {key: self._normalize(key, value) for key, value in zip(self.keys, inputs, strict=False)}
        z = inputs[-1] if self.has_latent else inputs[0].reshape(inputs[0].shape[0], -1)[:, :0].float()
        scaled = self.actor(obs, z, deterministic=True).view(-1, *self.action_shape)
        return self.low + 0.5 * (scaled + 1.0) * (self.high - self.low)

    def example_inputs(self, model: RPG, batch_size: int = 2) -> tuple[th.Tensor, ...]:
        """
        :param model: the model
        :param batch_size: B
        :return: inputs of the right shapes and types
        """
        space = model.observation_space
        parts = [space] if self.keys is None else [space[key] for key in self.keys]  # type: ignore[index]
        inputs = [th.as_tensor(np.stack([part.sample()] * batch_size), device=model.device) for part in parts]
        # As SB3's obs_to_tensor: networks have no float64
        inputs = [value.float() if value.dtype == th.float64 else value for value in inputs]
        if self.has_latent:
            inputs.append(th.zeros(batch_size, model.latent_space.dim, device=model.device))
        return tuple(inputs)


def to_torchscript(model: RPG, path: str | pathlib.Path | None = None, normalize: VecNormalize | None = None) -> Any:
    """
    :param model: a trained model
    :param path: where to write the ``.pt`` file, if given
    :param normalize: the environment's observation normalisation becomes part of the network, if given
    :return: the traced :class:`ExportedPolicy`, for batches of any size
    """
    module = ExportedPolicy(model, normalize).eval()
    model.policy.set_training_mode(False)
    with th.no_grad(), warnings.catch_warnings():
        # Shapes that are constant for a trained policy are meant to become constants
        warnings.filterwarnings("ignore", category=th.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = th.jit.trace(module, module.example_inputs(model))
    if path is not None:
        with atomic_path(path, ".pt") as temporary:
            traced.save(str(temporary))
    return traced


def to_onnx(model: RPG, path: str | pathlib.Path, normalize: VecNormalize | None = None) -> list[str]:
    """
    Write an ONNX file whose inputs and output have a batch of any size. Needs the extra ``export``.

    :param model: a trained model
    :param path: where to write the ``.onnx`` file
    :param normalize: the environment's observation normalisation becomes part of the network, if given
    :return: names of the inputs, in order; the output is ``action``
    :raises ImportError: if the extra is missing
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError('to_onnx needs onnxscript: pip install "sb3_rpg[export]"')
    module = ExportedPolicy(model, normalize).eval()
    model.policy.set_training_mode(False)
    inputs = module.example_inputs(model)
    batch = th.export.Dim("batch")
    with atomic_path(path, ".onnx") as temporary, th.no_grad():
        th.onnx.export(
            module,
            inputs,
            str(temporary),
            input_names=module.input_names,
            output_names=["action"],
            dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return module.input_names
