"""What intrinsic rewards by prediction have in common: features of a transition, its action as an input, their precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, preprocess_obs
from torch import nn

from sb3_rpg.intrinsic.base import IntrinsicReward, Observation
from sb3_rpg.intrinsic.features import Indices, ObservationFeatures, ObservationFunction


class DynamicsReward(IntrinsicReward):
    """
    An intrinsic reward made of models that predict what an action does.

    They see what RND sees, the object-centric features of observations, and the action as the replay buffer stores it (a
    discrete one as one-hot). A subclass fills :attr:`networks` and calls ``_make_optimizer`` at the end of its constructor.

    Matrix products follow the caller's autocast, on bfloat16 copies of the networks as in RND; features, differences,
    losses and statistics are float32.

    :param observation_space: Observation space of the stored (unnormalised) observations.
    :param action_space: Action space, Box or Discrete.
    :param indices: See :class:`~sb3_rpg.intrinsic.features.ObservationFeatures`, as for all up to ``keys``.
    :param function: Function that returns the scalars to encode, or its dotted path.
    :param n_frequencies: Frequencies of the encoding.
    :param obs_scale: Factor of the observation.
    :param object_scale: Factor of the scalars before they are encoded.
    :param normalize: Whether to standardise real-valued dimensions of the observation.
    :param keys: For a Dict space, the entries that form the observation part.
    :param kwargs: Arguments of :class:`~sb3_rpg.intrinsic.base.IntrinsicReward`: ``scale``, ``clip``, ``learning_rate``,
        ``warmup_updates``, ``device``.
    :raises ValueError: if the action space is neither Box nor Discrete, or an argument is out of its range.
    """

    networks: nn.ModuleDict

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        indices: Indices | Mapping[str, Indices] | None = None,
        function: ObservationFunction | str | None = None,
        n_frequencies: int = 6,
        obs_scale: float = 1.0,
        object_scale: float = 1.0,
        normalize: bool = True,
        keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(action_space, spaces.Box | spaces.Discrete):
            raise ValueError(
                f"{type(self).__name__} predicts from actions and knows Box and Discrete ones, not "
                f"`action_space`={action_space}; use `intrinsic_reward='rnd'`, which looks at observations alone."
            )
        super().__init__(observation_space, action_space, **kwargs)
        self.features = ObservationFeatures(
            observation_space,
            indices=indices,
            function=function,
            n_frequencies=n_frequencies,
            obs_scale=obs_scale,
            object_scale=object_scale,
            normalize=normalize,
            keys=keys,
        )
        self.discrete = isinstance(action_space, spaces.Discrete)
        self.action_dim = int(action_space.n) if isinstance(action_space, spaces.Discrete) else get_action_dim(action_space)

    def observe(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> None:
        self.features.observe(next_obs)

    def action_inputs(self, actions: th.Tensor) -> th.Tensor:
        """
        :param actions: Actions as stored, (B, action_dim), for a Discrete space (B, 1) integers.
        :return: What networks see of them, (B, :attr:`action_dim`), float32.
        """
        inputs = preprocess_obs(actions, self.action_space, normalize_images=False)
        assert isinstance(inputs, th.Tensor)
        return inputs.flatten(1)
