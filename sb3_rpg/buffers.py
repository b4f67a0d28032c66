"""
Replay buffers that store z beside each transition and return segments that never cross an episode.

Layout and transitions are SB3's own; ``sample`` returns what SB3's buffers return. ``sample_segments`` returns K
consecutive steps with a mask that ends at the episode's end, at a reset without ``done`` (``learn()`` called anew), and at
the ring's write head.
"""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

Observations = np.ndarray | dict[str, np.ndarray]


class SegmentSamples(NamedTuple):
    """K consecutive steps of B episodes, time first; what lies behind an episode's end is masked, never another episode."""

    #: o_t, (B, ...)
    observations: PyTorchObs
    #: o_{t+1} .. o_{t+K}, (K, B, ...); an episode's final observation, not the next one's first
    next_observations: PyTorchObs
    #: in [-1, 1], (K, B, action_dim)
    actions: th.Tensor
    #: extrinsic, (K, B)
    rewards: th.Tensor
    #: 1 where the episode terminated, 0 where it was truncated or went on, (K, B)
    terminated: th.Tensor
    #: 1 where the step belongs to the episode of the first, (K, B); the first row is all 1
    mask: th.Tensor
    #: z that the first step was acted with, (B, latent_dim)
    latents: th.Tensor
    #: True where o_t is its episode's first, (B,)
    episode_starts: th.Tensor


class EpisodeStartIndex:
    """
    Places of the stored episode starts, oldest first, in a ring of their own: O(1) to keep, O(1) to sample from.

    :param capacity: number of transitions of the replay buffer
    """

    def __init__(self, capacity: int):
        self._places = np.zeros(capacity, dtype=np.int64)
        self._first, self._count = 0, 0

    def __len__(self) -> int:
        return self._count

    def append(self, places: np.ndarray) -> None:
        """
        :param places: flat places (row * n_envs + env) of new starts
        """
        slots = (self._first + self._count + np.arange(len(places))) % len(self._places)
        self._places[slots] = places
        self._count += len(places)

    def drop_oldest(self, n: int) -> None:
        """
        :param n: number of starts that were overwritten
        """
        self._first = (self._first + n) % len(self._places)
        self._count -= n

    def sample(self, batch_size: int) -> np.ndarray:
        """
        :param batch_size: number of starts to draw, with replacement
        :return: flat places, (batch_size,); none where none is stored: of an episode longer than the buffer
        """
        if self._count == 0:
            return self._places[:0]
        return self._places[(self._first + np.random.randint(0, self._count, size=batch_size)) % len(self._places)]


class LatentBufferMixin(ReplayBuffer):
    """
    What the latent buffers add to SB3's: ``latents``, ``episode_starts`` and segments.

    z and the episode-start flags of the coming transition are handed over with :meth:`stage` before SB3's own
    ``add(obs, next_obs, action, reward, done, infos)`` is called, so that SB3's calling code need not be copied.
    Transitions added without (``extend``, demonstrations) get z = 0 and start an episode where the one before was done.
    Where one kind follows the other, an episode starts too.

    :param args: see SB3
    :param latent_dim: width of z
    :param kwargs: see SB3
    """

    latents: np.ndarray
    episode_starts: np.ndarray

    def __init__(self, *args: Any, latent_dim: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.latent_dim = latent_dim
        self._init_latents()

    def _init_latents(self) -> None:
        self.latents = np.zeros((self.buffer_size, self.n_envs, self.latent_dim), dtype=np.float32)
        self.episode_starts = np.zeros((self.buffer_size, self.n_envs), dtype=bool)
        self.start_index = EpisodeStartIndex(self.buffer_size * self.n_envs)
        self._staged: tuple[np.ndarray, np.ndarray] | None = None
        #: whether the newest transition was handed over with stage(); None: the buffer is empty
        self._newest_staged: bool | None = None

    def stage(self, latents: np.ndarray, episode_starts: np.ndarray) -> None:
        """
        :param latents: z that the coming transition was acted with, (n_envs, latent_dim)
        :param episode_starts: True where the coming transition is its episode's first, (n_envs,)
        """
        self._staged = (latents, episode_starts)

    def reset(self) -> None:
        super().reset()
        self._init_latents()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """
        As SB3's ``add``; takes z and episode starts from :meth:`stage`.
        """
        row, overwrites = self.pos, self.full
        if self._staged is not None:
            latents, starts = self._staged
            starts = starts | (self._newest_staged is False)
        else:
            latents, starts = np.zeros_like(self.latents[row]), (self.dones[row - 1] > 0) | (self._newest_staged is not False)
        self._newest_staged, self._staged = self._staged is not None, None
        super().add(*args, **kwargs)
        if overwrites:
            self.start_index.drop_oldest(int(self.episode_starts[row].sum()))
        self.latents[row], self.episode_starts[row] = latents, starts
        self.start_index.append(row * self.n_envs + np.flatnonzero(starts))

    def sample_segments(self, batch_size: int, horizon: int, env: VecNormalize | None = None) -> SegmentSamples:
        """
        Segments whose first step is uniform over all stored transitions.

        :param batch_size: B
        :param horizon: K
        :param env: normalises observations and rewards, if given
        :return: the segments
        """
        rows, envs = self._uniform_places(batch_size)
        steps = (rows + np.arange(horizon)[:, None]) % self.buffer_size  # (K, B)
        mask = np.ones((horizon, batch_size), dtype=bool)
        # Age counts from the oldest row, so that no segment runs over the write head into the oldest steps
        oldest = self.pos if self.full else 0
        age = (rows - oldest) % self.buffer_size
        for k in range(1, horizon):
            mask[k] = mask[k - 1] & ~self.episode_starts[steps[k], envs] & (age + k < self.size())
        # Masked steps repeat the last valid one: no foreign episode is ever read, not even to be multiplied by zero
        last = mask.sum(axis=0) - 1
        steps = (rows + np.minimum(np.arange(horizon)[:, None], last)) % self.buffer_size
        terminated = self.dones[steps, envs] * (1.0 - self.timeouts[steps, envs])
        return SegmentSamples(
            observations=self._observation_tensors(self.observations, rows, envs, env),
            next_observations=self._next_observation_tensors(steps, envs, env),
            actions=self.to_torch(self.actions[steps, envs], copy=False).float(),
            rewards=self.to_torch(self._normalize_reward(self.rewards[steps, envs], env), copy=False),
            terminated=self.to_torch(terminated.astype(np.float32), copy=False),
            mask=self.to_torch(mask.astype(np.float32), copy=False),
            latents=self.to_torch(self.latents[rows, envs], copy=False),
            episode_starts=self.to_torch(self.episode_starts[rows, envs], copy=False),
        )

    def normalize_segments(self, segments: SegmentSamples, env: VecNormalize) -> SegmentSamples:
        """
        Segments as the policy sees them, from segments as they were stored.

        :param segments: sampled without ``env``
        :param env: normalises observations and rewards
        :return: the same segments, normalised
        """
        return segments._replace(
            observations=self._normalize_tensors(segments.observations, env),
            next_observations=self._normalize_tensors(segments.next_observations, env),
            rewards=self.to_torch(self._normalize_reward(segments.rewards.cpu().numpy(), env), copy=False),
        )

    def _normalize_tensors(self, obs: PyTorchObs, env: VecNormalize) -> PyTorchObs:
        if isinstance(obs, dict):
            normalized = env.normalize_obs({key: value.cpu().numpy() for key, value in obs.items()})
            return {key: self.to_torch(value, copy=False) for key, value in normalized.items()}  # type: ignore[union-attr]
        return self.to_torch(env.normalize_obs(obs.cpu().numpy()), copy=False)  # type: ignore[arg-type]

    def sample_states(self, batch_size: int, env: VecNormalize | None = None) -> tuple[PyTorchObs, th.Tensor, th.Tensor]:
        """
        Where the actor's imagined steps start: uniform over all stored transitions.

        :param batch_size: B
        :param env: normalises observations, if given
        :return: o_t (B, ...), z (B, latent_dim), True where o_t is its episode's first (B,)
        """
        rows, envs = self._uniform_places(batch_size)
        return (
            self._observation_tensors(self.observations, rows, envs, env),
            self.to_torch(self.latents[rows, envs], copy=False),
            self.to_torch(self.episode_starts[rows, envs], copy=False),
        )

    def sample_starts(self, batch_size: int, env: VecNormalize | None = None) -> PyTorchObs:
        """
        Where pi(z|s1) is asked: uniform over the stored episodes' first observations.

        :param batch_size: B
        :param env: normalises observations, if given
        :return: o_1, (B, ...), or (0, ...) while no episode's first observation is stored
        """
        rows, envs = np.divmod(self.start_index.sample(batch_size), self.n_envs)
        return self._observation_tensors(self.observations, rows, envs, env)

    def _uniform_places(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.size() == 0:
            raise ValueError("the replay buffer is empty: collect or load transitions before sampling from it")
        return np.random.randint(0, self.size(), size=batch_size), np.random.randint(0, self.n_envs, size=batch_size)

    def _observation_tensors(
        self, stored: Observations, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None
    ) -> PyTorchObs:
        if isinstance(stored, dict):
            values = self._normalize_obs({key: array[rows, envs] for key, array in stored.items()}, env)
            assert isinstance(values, dict)
            return {key: self.to_torch(array, copy=False) for key, array in values.items()}
        values = self._normalize_obs(stored[rows, envs], env)
        assert isinstance(values, np.ndarray)
        return self.to_torch(values, copy=False)

    def _next_observation_tensors(self, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> PyTorchObs:
        return self._observation_tensors(self.next_observations, rows, envs, env)


class LatentReplayBuffer(LatentBufferMixin, ReplayBuffer):
    """SB3's ``ReplayBuffer`` with z and segments; arguments as there, and ``latent_dim``."""


class LatentDictReplayBuffer(LatentBufferMixin, DictReplayBuffer):
    """SB3's ``DictReplayBuffer`` with z and segments; arguments as there, and ``latent_dim``."""


#: SB3's buffers and the latent ones that RPG uses in their place
LATENT_BUFFERS: dict[type[ReplayBuffer], type[LatentBufferMixin]] = {
    ReplayBuffer: LatentReplayBuffer,
    DictReplayBuffer: LatentDictReplayBuffer,
}


def latent_buffer_class(buffer_class: type[ReplayBuffer] | None, observation_space: spaces.Space) -> type[LatentBufferMixin]:
    """
    :param buffer_class: what the user asked for, or None
    :param observation_space: observation space
    :return: the latent buffer to use
    :raises ValueError: if there is no latent variant of the class
    """
    if buffer_class is None:
        buffer_class = DictReplayBuffer if isinstance(observation_space, spaces.Dict) else ReplayBuffer
    if issubclass(buffer_class, LatentBufferMixin):
        return buffer_class
    if buffer_class not in LATENT_BUFFERS:
        raise ValueError(
            f"`replay_buffer_class={buffer_class.__name__}` does not store z; use None, "
            f"{', '.join(cls.__name__ for cls in LATENT_BUFFERS)}, or a subclass of one of "
            f"{', '.join(cls.__name__ for cls in LATENT_BUFFERS.values())}"
        )
    return LATENT_BUFFERS[buffer_class]
