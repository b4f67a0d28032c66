"""
Replay buffers that store z beside each transition and return segments that never cross an episode.

Layout and transitions are SB3's own; ``sample`` returns what SB3's buffers return. ``sample_segments`` returns K
consecutive steps with a mask that ends at the episode's end, at a reset without ``done`` (``learn()`` called anew), and at
the ring's write head.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg.compact import CompactReplayBuffer
from sb3_rpg.novelty import NoveltyIndex

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
    #: z that the first step was acted with, NaN where it is not known, (B, latent_dim)
    latents: th.Tensor
    #: True where o_t is its episode's first, (B,)
    episode_starts: th.Tensor
    #: flat place (row * n_envs + env) of the first step in the buffer, (B,)
    places: th.Tensor


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

    def __getstate__(self) -> dict[str, Any]:
        """Without the places that are not in use."""
        order = (self._first + np.arange(self._count)) % len(self._places)
        return {"capacity": len(self._places), "places": self._places[order]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "capacity" not in state:  # of an earlier version
            self.__dict__.update(state)
            return
        self._places = np.zeros(state["capacity"], dtype=np.int64)
        self._first, self._count = 0, 0
        self.append(state["places"])

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


class LatentBufferMixin(CompactReplayBuffer):
    """
    What the latent buffers add to SB3's: ``latents``, ``episode_starts`` and segments.

    z and the episode-start flags of the coming transition are handed over with :meth:`stage` before SB3's own
    ``add(obs, next_obs, action, reward, done, infos)`` is called, so that SB3's calling code need not be copied.
    Transitions added without (``extend``, demonstrations) get z = NaN, which is not known, and start an episode where the one
    before was done. Where one kind follows the other, an episode starts too.

    :param args: see SB3
    :param latent_dim: width of z
    :param kwargs: see SB3
    """

    latents: np.ndarray
    episode_starts: np.ndarray
    #: whether an episode has ever terminated, other than by a time limit, also if it was overwritten since
    terminations_seen: bool = False
    #: name of the latent space that z is from; None: not known
    latent_name: str | None = None
    #: whether transitions have ever been added without z
    lacks_latents: bool = False
    #: what is drawn by novelty, see :meth:`index_novelty`; None: nothing
    novelty: NoveltyIndex | None = None

    def __init__(self, *args: Any, latent_dim: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.latent_dim = latent_dim
        self._init_latents()

    def _init_latents(self) -> None:
        self.latents = np.zeros((self.buffer_size, self.n_envs, self.latent_dim), dtype=np.float32)
        self.episode_starts = np.zeros((self.buffer_size, self.n_envs), dtype=bool)
        self.start_index = EpisodeStartIndex(self.buffer_size * self.n_envs)
        self._staged: tuple[np.ndarray, np.ndarray] | None = None
        #: whether the newest transition was handed over with stage(); None: there is none that the next one may go on from
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
        self.terminations_seen = self.lacks_latents = False
        self.novelty = None

    def add(self, *args: Any, **kwargs: Any) -> None:
        """
        As SB3's ``add``; takes z and episode starts from :meth:`stage`.
        """
        row, overwrites = self.pos, self.full
        if self._staged is not None:
            latents, starts = self._staged
            starts = starts | (self._newest_staged is not True)
        else:
            latents = np.full_like(self.latents[row], np.nan)
            starts = (self.dones[row - 1] > 0) | (self._newest_staged is not False)
            self.lacks_latents = True
        self._newest_staged, self._staged = self._staged is not None, None
        self._begin_episodes(starts)
        super().add(*args, **kwargs)
        self._note_terminations(slice(row, row + 1))
        if overwrites:
            self.start_index.drop_oldest(int(self.episode_starts[row].sum()))
        self.latents[row], self.episode_starts[row] = latents, starts
        self.start_index.append(row * self.n_envs + np.flatnonzero(starts))
        if self.novelty is not None:
            self.novelty.forget(np.array([row]))

    def index_novelty(self, exponent: float) -> NoveltyIndex:
        """
        From the first call on, the buffer keeps account of how novel its transitions are; who asks for samples by novelty
        rates the new ones before.

        :param exponent: the probability is in proportion to novelty to this power
        :return: the account, with all stored transitions to be rated at the first call
        """
        if self.novelty is None:
            self.novelty = NoveltyIndex(self.buffer_size, self.n_envs, exponent)
            self.novelty.forget(np.arange(self.size()))
        elif self.novelty.exponent != exponent:
            self.novelty.exponent = exponent
        return self.novelty

    def after_loading(self, observations: Observations | None) -> None:
        """
        To be called before transitions are added that may be of other episodes than the newest ones.

        :param observations: what the environments show, as stored; where it is what the newest transitions led to, or these
            were their episodes' last, episodes go on. None: not known
        """
        # Buffers that were saved by an earlier version do not say it themselves
        self._note_terminations(slice(0, self.size()))
        newest = self.pos - 1
        if observations is None or not (_same(self.next_observations, newest, observations) | (self.dones[newest] > 0)).all():
            self._newest_staged = None

    def _begin_episodes(self, starts: np.ndarray) -> None:
        """
        Called before a transition is stored; a hook for buffers that keep their own record of episodes.

        :param starts: True where it is its episode's first, (n_envs,)
        """

    def _note_terminations(self, rows: slice) -> None:
        """
        :param rows: stored transitions to look at
        """
        self.terminations_seen |= bool((self.dones[rows] > self.timeouts[rows]).any())

    def steps_in_order(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """
        :return: rewards, dones and episode starts of the stored vector steps, oldest first, each of shape (n_envs,)
        """
        oldest = self.pos if self.full else 0
        for row in (oldest + np.arange(self.size())) % self.buffer_size:
            yield self.rewards[row], self.dones[row], self.episode_starts[row]

    @property
    def mean_episode_length(self) -> float:
        """Stored transitions for each stored episode start."""
        return self.size() * self.n_envs / max(1, len(self.start_index))

    def sample_segments(
        self, batch_size: int, horizon: int, env: VecNormalize | None = None, n_by_novelty: int = 0
    ) -> SegmentSamples:
        """
        Segments whose first step is uniform over all stored transitions, or drawn by novelty.

        :param batch_size: B
        :param horizon: K
        :param env: normalises observations and rewards, if given
        :param n_by_novelty: how many, at random places of the batch, are drawn by novelty, see :meth:`index_novelty`
        :return: the segments
        """
        rows, envs = self._draw_places(batch_size, n_by_novelty)
        steps, mask = self._segment_places(rows, envs, horizon)
        obs, next_obs, rewards = self._stored_segments(rows, envs, steps)
        terminated = self.dones[steps, envs] * (1.0 - self.timeouts[steps, envs])
        return SegmentSamples(
            observations=self._observation_tensors(obs, env),
            next_observations=self._observation_tensors(next_obs, env),
            actions=self.to_torch(self.actions[steps, envs], copy=False).float(),
            rewards=self.to_torch(self._normalize_reward(rewards, env), copy=False),
            terminated=self.to_torch(terminated.astype(np.float32), copy=False),
            mask=self.to_torch(mask.astype(np.float32), copy=False),
            latents=self.to_torch(self.latents[rows, envs], copy=False),
            episode_starts=self.to_torch(self.episode_starts[rows, envs], copy=False),
            places=self.to_torch(rows * self.n_envs + envs, copy=False),
        )

    def _segment_places(self, rows: np.ndarray, envs: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """
        :param rows: of the first steps, (B,)
        :param envs: of the first steps, (B,)
        :param horizon: K
        :return: rows of all steps, and whether they belong to the episode of the first, each (K, B)
        """
        steps = (rows + np.arange(horizon)[:, None]) % self.buffer_size
        mask = np.ones(steps.shape, dtype=bool)
        # Age counts from the oldest row, so that no segment runs over the write head into the oldest steps
        oldest = self.pos if self.full else 0
        age = (rows - oldest) % self.buffer_size
        for k in range(1, horizon):
            mask[k] = mask[k - 1] & ~self.episode_starts[steps[k], envs] & (age + k < self.size())
        # Masked steps repeat the last valid one: no foreign episode is ever read, not even to be multiplied by zero
        last = mask.sum(axis=0) - 1
        return (rows + np.minimum(np.arange(horizon)[:, None], last)) % self.buffer_size, mask

    def _stored_segments(
        self, rows: np.ndarray, envs: np.ndarray, steps: np.ndarray
    ) -> tuple[Observations, Observations, np.ndarray]:
        """
        What a segment's observations and rewards are made of; a hook for buffers that rewrite them.

        :param rows: of the first steps, (B,)
        :param envs: of the segments, (B,)
        :param steps: rows of all steps, (K, B)
        :return: o_t (B, ...), next observations (K, B, ...), rewards (K, B), as stored
        """
        return _at(self.observations, rows, envs), _at(self.next_observations, steps, envs), self.rewards[steps, envs]

    def _stored_observations(self, rows: np.ndarray, envs: np.ndarray) -> Observations:
        """
        What imagined steps start from; a hook for buffers that rewrite it.

        :param rows: rows, (B,)
        :param envs: environments, (B,)
        :return: o_t as stored, (B, ...)
        """
        return _at(self.observations, rows, envs)

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

    def sample_states(
        self, batch_size: int, env: VecNormalize | None = None, n_by_novelty: int = 0
    ) -> tuple[PyTorchObs, th.Tensor, th.Tensor]:
        """
        Where the actor's imagined steps start: uniform over all stored transitions, or drawn by novelty.

        :param batch_size: B
        :param env: normalises observations, if given
        :param n_by_novelty: as in :meth:`sample_segments`
        :return: o_t (B, ...), z (B, latent_dim), NaN where it is not known, True where o_t is its episode's first (B,)
        """
        rows, envs = self._draw_places(batch_size, n_by_novelty)
        return (
            self._observation_tensors(self._stored_observations(rows, envs), env),
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
        return self._observation_tensors(self._stored_observations(rows, envs), env)

    def _draw_places(self, batch_size: int, n_by_novelty: int) -> tuple[np.ndarray, np.ndarray]:
        if self.size() == 0:
            raise ValueError("the replay buffer is empty: collect or load transitions before sampling from it")
        rows, envs = np.random.randint(0, self.size(), size=batch_size), np.random.randint(0, self.n_envs, size=batch_size)
        if n_by_novelty > 0:
            assert self.novelty is not None, "index_novelty() comes first"
            # Other parts of a batch are told apart by their places in it, too
            chosen = np.random.permutation(batch_size)[:n_by_novelty]
            rows[chosen], envs[chosen] = np.divmod(self.novelty.sample(n_by_novelty), self.n_envs)
        return rows, envs

    def _observation_tensors(self, stored: Observations, env: VecNormalize | None) -> PyTorchObs:
        values = self._normalize_obs(stored, env)
        if isinstance(values, dict):
            return {key: self.to_torch(array, copy=False) for key, array in values.items()}
        return self.to_torch(values, copy=False)


def _at(stored: Observations, rows: np.ndarray, envs: np.ndarray) -> Observations:
    if isinstance(stored, dict):
        return {key: array[rows, envs] for key, array in stored.items()}
    return stored[rows, envs]


def _same(stored: Observations, row: int, values: Observations) -> np.ndarray:
    """
    :return: whether an environment's values are those stored of it, (n_envs,)
    """
    if isinstance(stored, dict):
        assert isinstance(values, dict)
        return np.all([_same(array, row, values[key]) for key, array in stored.items()], axis=0)
    assert not isinstance(values, dict)
    equal = stored[row] == values.reshape(stored[row].shape).astype(stored.dtype)
    return equal.reshape(len(equal), -1).all(axis=1)


class LatentReplayBuffer(LatentBufferMixin, ReplayBuffer):
    """SB3's ``ReplayBuffer`` with z and segments; arguments as there, and ``latent_dim``."""


class LatentDictReplayBuffer(LatentBufferMixin, DictReplayBuffer):
    """SB3's ``DictReplayBuffer`` with z and segments; arguments as there, and ``latent_dim``."""
