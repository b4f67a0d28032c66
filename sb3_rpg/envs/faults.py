"""What can break on a robot, for any environment: to see which of a policy's modes still works then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces


class WeakActuator(gym.ActionWrapper[Any, npt.NDArray[Any], npt.NDArray[Any]], gym.utils.RecordConstructorArgs):
    """
    Actuators that do less than they are told, or nothing: their entries of the action are multiplied by a factor.

    0 must be an actuator at rest, as it is for the motors of MuJoCo's locomotion tasks (``HalfCheetah-v5``, ``Ant-v5``, ...).
    The action space stays as it is, so any policy can act. In RL Zoo's files: ``env_wrapper: {sb3_rpg.envs.WeakActuator:
    {index: 0}}``.

    :param env: an environment with a one-dimensional Box of actions
    :param index: the actuator, or several
    :param factor: what is left of its strength: 0 for a dead one, 1 for one that works
    :raises ValueError: if the action space is another, 0 is outside of it, there is no such actuator, or the factor is not
        between 0 and 1
    """

    def __init__(self, env: gym.Env[Any, npt.NDArray[Any]], index: int | Sequence[int], factor: float = 0.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, index=index, factor=factor)
        gym.ActionWrapper.__init__(self, env)
        space = env.action_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"env: its action space is {space}; weakening an actuator takes a Box of one dimension")
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"factor={factor} must be between 0 (dead) and 1 (works)")
        indices = np.atleast_1d(np.asarray(index, dtype=np.int64))
        if indices.size == 0 or indices.min() < 0 or indices.max() >= space.shape[0]:
            raise ValueError(f"index={index} must name actuators from 0 to {space.shape[0] - 1}")
        if (space.low[indices] > 0).any() or (space.high[indices] < 0).any():
            raise ValueError(f"index={index}: 0 is outside of the action space {space}, so no rest to fall back to")
        self.scale = np.ones(space.shape, dtype=space.dtype)
        self.scale[indices] = factor

    def action(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        :param action: what the policy asks for, (n_actuators,)
        :return: what is done, (n_actuators,)
        """
        return np.asarray(action) * self.scale
