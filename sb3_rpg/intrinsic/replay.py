"""Uniform samples of past transitions."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_rpg.intrinsic.base import Observation


def uniform_transition_batch(
    replay_buffer: ReplayBuffer, batch_size: int, memory_size: int | None = None
) -> tuple[Observation, th.Tensor, Observation]:
    """
    Transitions drawn uniformly, with replacement, from all that a replay buffer holds, as they were stored.

    :param replay_buffer: Replay buffer with SB3's storage, arrays (buffer_size, n_envs, \\*shape) or dicts of them.
    :param batch_size: Number of transitions.
    :param memory_size: Draw from the most recent ``memory_size`` transitions only (rounded up to whole vector steps).
    :return: Observations (B, \\*shape), actions (B, action_dim) and next observations on the buffer's device, not
        normalised; float64 becomes float32, which not every device knows, other dtypes stay.
    :raises ValueError: if the buffer is empty or ``memory_size`` is not positive.
    """
    n_rows = replay_buffer.size()
    if replay_buffer.optimize_memory_usage and replay_buffer.full:
        n_rows -= 1  # the oldest row's observation was overwritten by the newest next observation
    if n_rows == 0:
        raise ValueError("Cannot draw transitions: the replay buffer is empty.")
    if memory_size is not None:
        if memory_size <= 0:
            raise ValueError(f"`memory_size` must be positive, not {memory_size}.")
        n_rows = min(n_rows, -(-memory_size // replay_buffer.n_envs))
    ages = np.random.randint(0, n_rows, size=batch_size)
    rows = (replay_buffer.pos - 1 - ages) % replay_buffer.buffer_size
    envs = np.random.randint(0, replay_buffer.n_envs, size=batch_size)
    if replay_buffer.optimize_memory_usage:
        next_obs = replay_buffer.observations[(rows + 1) % replay_buffer.buffer_size, envs]
    else:
        next_obs = _gather(replay_buffer.next_observations, rows, envs)
    obs = _gather(replay_buffer.observations, rows, envs)
    actions = replay_buffer.actions[rows, envs]
    device = replay_buffer.device
    return _to_tensors(obs, device), th.as_tensor(actions, device=device), _to_tensors(next_obs, device)


def _gather(storage: Any, rows: np.ndarray, envs: np.ndarray) -> Any:
    """Rows of an array (buffer_size, n_envs, ...), or of each array in a dict."""
    if isinstance(storage, dict):
        return {key: array[rows, envs] for key, array in storage.items()}
    return storage[rows, envs]


def _to_tensors(obs: Any, device: th.device) -> Observation:
    if isinstance(obs, dict):
        return {key: _to_tensor(array, device) for key, array in obs.items()}
    return _to_tensor(obs, device)


def _to_tensor(array: np.ndarray, device: th.device) -> th.Tensor:
    return th.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array, device=device)
