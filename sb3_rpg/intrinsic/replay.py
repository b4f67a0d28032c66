"""
Replay buffers that add an intrinsic reward to what they sample: the adapter for SB3's off-policy algorithms.

The stored rewards stay extrinsic. What :meth:`sample` returns is ``extrinsic_scale * extrinsic + bonus``, with the bonus of
the moment: an old transition loses its bonus as its surroundings become known, which a bonus written into the buffer when
the transition was collected could never do.
"""

import copy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg.intrinsic.base import IntrinsicReward, Observation
from sb3_rpg.intrinsic.registry import make_intrinsic_reward
from sb3_rpg.precision import PRECISIONS, autocast_context, resolve_precision

Transitions = tuple[Any, np.ndarray, Any]


class IntrinsicRewardMixin(ReplayBuffer):
    """
    What the intrinsic replay buffers add to SB3's.

    The model of the intrinsic reward lives in the buffer, so that ``save_replay_buffer`` and ``load_replay_buffer`` keep it
    with the transitions it was trained on, its statistics and its optimizer; it follows the buffer to another device.
    It is trained by :class:`~sb3_rpg.intrinsic.callback.IntrinsicRewardCallback`; without that callback every bonus is 0.

    :param args: Arguments of SB3's buffer.
    :param intrinsic_reward: A name, a subclass of :class:`~sb3_rpg.intrinsic.base.IntrinsicReward`, or ``None``.
    :param intrinsic_reward_kwargs: Its further arguments, e.g. ``dict(indices="0:2", scale=0.1)``.
    :param extrinsic_scale: Factor of the stored reward (after VecNormalize, where that is used).
    :param precision: "fp32", "bf16" (matrix products of the intrinsic reward's networks) or "auto", which is bf16 where the
        hardware multiplies it faster.
    :param kwargs: Keyword arguments of SB3's buffer.
    :raises ValueError: for a Dict observation in a buffer for arrays, or n-step returns.
    """

    def __init__(
        self,
        *args: Any,
        intrinsic_reward: str | type[IntrinsicReward] | None = "rnd",
        intrinsic_reward_kwargs: dict[str, Any] | None = None,
        extrinsic_scale: float = 1.0,
        precision: str = "auto",
        **kwargs: Any,
    ) -> None:
        if "n_steps" in kwargs:
            raise ValueError(
                f"{type(self).__name__} does not support n-step returns (`n_steps`): every step of the window would need a "
                "bonus of its own. Leave `n_steps` at 1."
            )
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {PRECISIONS}, not {precision!r}.")
        # Exists before SB3's constructor assigns `device`, which passes it on
        self.intrinsic_reward: IntrinsicReward | None = None
        super().__init__(*args, **kwargs)
        self.extrinsic_scale = extrinsic_scale
        self.precision = precision
        self.intrinsic_reward = make_intrinsic_reward(
            intrinsic_reward, self.observation_space, self.action_space, device=self.device, **(intrinsic_reward_kwargs or {})
        )

    @property
    def device(self) -> th.device:
        """Device of what is sampled and of the intrinsic reward."""
        return self._device

    @device.setter
    def device(self, device: th.device) -> None:
        # SB3 assigns this attribute after a buffer was loaded on another machine
        self._device = device
        if self.intrinsic_reward is not None:
            self.intrinsic_reward.to(device)

    def update_intrinsic_reward(self, batch_size: int = 512, memory_size: int | None = None) -> dict[str, th.Tensor]:
        """
        Train the intrinsic reward for one step on transitions uniform over the buffer (Section 4.3.2).

        :param batch_size: Number of transitions.
        :param memory_size: Use the most recent transitions only, see :func:`uniform_transition_batch`.
        :return: Metrics of :meth:`~sb3_rpg.intrinsic.base.IntrinsicReward.update`; empty without an intrinsic reward.
        """
        if self.intrinsic_reward is None:
            return {}
        batch = uniform_transition_batch(self, batch_size, memory_size)
        with self._autocast():
            return self.intrinsic_reward.update(*batch)

    def newest_rewards(self, n_steps: int) -> tuple[float, float]:
        """
        :param n_steps: Number of vector steps to look back.
        :return: Mean extrinsic reward (as stored) and mean bonus of the transitions of these steps.
        """
        rows = np.repeat((self.pos - 1 - np.arange(min(n_steps, _n_complete_rows(self)))) % self.buffer_size, self.n_envs)
        envs = np.tile(np.arange(self.n_envs), len(rows) // self.n_envs)
        bonus = self._bonus(*_to_tensors(_gather(self, rows, envs), self.device))
        return float(self.rewards[rows, envs].mean()), float(bonus.mean())

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        # Draws as SB3's buffers do, so that without an intrinsic reward the same seed gives the same batch
        envs = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))
        stored = _gather(self, batch_inds, envs)
        # The bonus reads raw observations: to VecNormalize's moving statistics old observations would look new again
        raw_obs, actions, raw_next_obs = _to_tensors(stored, self.device)
        bonus = self._bonus(raw_obs, actions, raw_next_obs)
        obs, next_obs = raw_obs, raw_next_obs
        if env is not None:
            obs = _to_tensor(self._normalize_obs(stored[0], env), self.device)
            next_obs = _to_tensor(self._normalize_obs(stored[2], env), self.device)
        rewards = self._normalize_reward(self.rewards[batch_inds, envs].reshape(-1, 1), env)
        terminated = self.dones[batch_inds, envs] * (1 - self.timeouts[batch_inds, envs])
        samples: Any = DictReplayBufferSamples if isinstance(obs, dict) else ReplayBufferSamples
        return samples(
            observations=obs,
            actions=actions,
            next_observations=next_obs,
            dones=self.to_torch(terminated.reshape(-1, 1)),
            rewards=self.extrinsic_scale * self.to_torch(rewards) + bonus.unsqueeze(1),
        )

    def _bonus(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        :return: Bonus of a batch of raw transitions, (B,); zeros without an intrinsic reward.
        """
        if self.intrinsic_reward is None:
            return th.zeros(actions.shape[0], device=self.device)
        with self._autocast():
            return self.intrinsic_reward.bonus(obs, actions, next_obs)

    def _autocast(self) -> th.autocast:
        return autocast_context(resolve_precision(self.precision, self.device), self.device)

    def __getstate__(self) -> dict[str, Any]:
        parent_state = getattr(super(), "__getstate__", None)  # `object` has it from Python 3.11 on
        state = dict(self.__dict__ if parent_state is None else parent_state())
        # A pickle restores a tensor on the device it came from, which another machine may not have
        if self.intrinsic_reward is not None:
            state["intrinsic_reward"], state["_device"] = copy.deepcopy(self.intrinsic_reward).cpu(), th.device("cpu")
        return state


class IntrinsicReplayBuffer(IntrinsicRewardMixin):
    """SB3's ``ReplayBuffer`` with an intrinsic reward; see :class:`IntrinsicRewardMixin`."""

    def __init__(self, buffer_size: int, observation_space: spaces.Space, *args: Any, **kwargs: Any) -> None:
        if isinstance(observation_space, spaces.Dict):
            raise ValueError("IntrinsicReplayBuffer is for array observations; use IntrinsicDictReplayBuffer for Dict ones.")
        super().__init__(buffer_size, observation_space, *args, **kwargs)


class IntrinsicDictReplayBuffer(IntrinsicRewardMixin, DictReplayBuffer):  # type: ignore[misc]
    """SB3's ``DictReplayBuffer`` with an intrinsic reward; see :class:`IntrinsicRewardMixin`."""


def uniform_transition_batch(
    replay_buffer: ReplayBuffer, batch_size: int, memory_size: int | None = None
) -> tuple[Observation, th.Tensor, Observation]:
    """
    Transitions drawn uniformly, with replacement, from all that a replay buffer holds, as they were stored.

    A novelty model has to be trained on *all* past observations: one that sees recent ones only forgets the others, which
    then look new again, and the agent goes in circles (coverage of the paper's maze halves, Figure 8D).

    :param replay_buffer: Replay buffer with SB3's storage: arrays (buffer_size, n_envs, \\*shape), or dicts of them.
    :param batch_size: Number of transitions.
    :param memory_size: Draw from the most recent ``memory_size`` transitions only (rounded up to whole vector steps), to
        show the above.
    :return: Observations (B, \\*shape), actions (B, action_dim) and next observations on the buffer's device, not
        normalised; float64 becomes float32, which not every device knows, other dtypes stay.
    :raises ValueError: if the buffer is empty or ``memory_size`` is not positive.
    """
    if memory_size is not None and memory_size <= 0:
        raise ValueError(f"`memory_size` must be positive, not {memory_size}.")
    n_rows = _n_complete_rows(replay_buffer)
    if n_rows == 0:
        raise ValueError("Cannot draw transitions: the replay buffer is empty.")
    if memory_size is not None:
        n_rows = min(n_rows, -(-memory_size // replay_buffer.n_envs))
    ages = np.random.randint(0, n_rows, size=batch_size)
    rows = (replay_buffer.pos - 1 - ages) % replay_buffer.buffer_size
    envs = np.random.randint(0, replay_buffer.n_envs, size=batch_size)
    return transitions_at(replay_buffer, rows, envs)


def transitions_at(
    replay_buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray
) -> tuple[Observation, th.Tensor, Observation]:
    """
    Stored transitions as a novelty model sees them.

    :param replay_buffer: Replay buffer with SB3's storage.
    :param rows: Their rows (B,).
    :param envs: Their environments (B,).
    :return: As :func:`uniform_transition_batch`.
    """
    return _to_tensors(_gather(replay_buffer, rows, envs), replay_buffer.device)


def _n_complete_rows(replay_buffer: ReplayBuffer) -> int:
    """Number of vector steps whose observation and next observation are both in the buffer."""
    # With one array for both, the newest next observation has overwritten the oldest observation
    return replay_buffer.size() - int(replay_buffer.optimize_memory_usage and replay_buffer.full)


def _gather(replay_buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> Transitions:
    """Observations, actions and next observations as stored, each (B, ...) or a dict of such arrays."""
    obs = _at(replay_buffer.observations, rows, envs)
    if replay_buffer.optimize_memory_usage:
        next_obs = _at(replay_buffer.observations, (rows + 1) % replay_buffer.buffer_size, envs)
    else:
        next_obs = _at(replay_buffer.next_observations, rows, envs)
    return obs, replay_buffer.actions[rows, envs], next_obs


def _at(storage: Any, rows: np.ndarray, envs: np.ndarray) -> Any:
    if isinstance(storage, dict):
        return {key: array[rows, envs] for key, array in storage.items()}
    return storage[rows, envs]


def _to_tensors(transitions: Transitions, device: th.device) -> tuple[Observation, th.Tensor, Observation]:
    obs, actions, next_obs = transitions
    return _to_tensor(obs, device), _to_tensor(actions, device), _to_tensor(next_obs, device)


def _to_tensor(value: Any, device: th.device) -> Any:
    if isinstance(value, dict):
        return {key: _to_tensor(array, device) for key, array in value.items()}
    return th.as_tensor(value.astype(np.float32) if value.dtype == np.float64 else value, device=device)
