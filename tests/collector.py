"""Transitions of known labels, stored as RPG stores them, and a record of them that is independent of the buffer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces

from sb3_rpg.buffers import LatentBufferMixin, LatentDictReplayBuffer, LatentReplayBuffer, SegmentSamples
from tests.conftest import LabelledEnv

ACTION_SPACE = spaces.Box(-1, 1, (2,))


class Step(NamedTuple):
    """One transition: from ``(env, episode, number)`` to ``(env, episode, number + 1)``."""

    env: int
    episode: int
    number: int
    terminated: bool
    truncated: bool
    start: bool

    @property
    def z(self) -> list[float]:
        return [self.env + 0.5, self.episode + 0.25]


class Collector:
    """
    Fills a buffer as RPG does: auto-reset where an episode ends, sometimes a reset of all environments without ``done``.

    :param rows: vector steps that the buffer holds
    :param lengths: of each environment's episodes, in turn; odd episodes are truncated, even ones terminate
    :param kind: "vector" or "dict" observations
    """

    def __init__(self, rows: int, lengths: Sequence[Sequence[int]], kind: str = "vector", **kwargs: Any):
        self.n_envs, self.lengths, self.kind, self.rows = len(lengths), lengths, kind, rows
        space = LabelledEnv(space=kind).observation_space
        buffer_class: Any = LatentDictReplayBuffer if kind == "dict" else LatentReplayBuffer
        self.buffer: LatentBufferMixin = buffer_class(
            rows * self.n_envs,
            space,
            ACTION_SPACE,
            device="cpu",
            n_envs=self.n_envs,
            latent_dim=2,
            **kwargs,
        )
        self.history: list[list[Step]] = []
        self._episodes, self._numbers = [0] * self.n_envs, [0] * self.n_envs

    def observations(self, steps: Sequence[Step], after: int = 0) -> Any:
        label = np.array([[s.env, s.episode, s.number + after] for s in steps], dtype=np.float32)
        return {"label": label, "extra": label[:, 2:]} if self.kind == "dict" else label

    def reset_all(self) -> None:
        """What ``learn()`` does: new episodes, without the old ones' having ended."""
        for env in range(self.n_envs):
            if self._numbers[env] > 0:
                self._episodes[env], self._numbers[env] = self._episodes[env] + 1, 0

    def step(self, staged: bool = True) -> None:
        steps = []
        for env in range(self.n_envs):
            episode, number = self._episodes[env], self._numbers[env]
            done = number + 1 >= self.lengths[env][episode % len(self.lengths[env])]
            odd = episode % 2 == 1
            steps.append(Step(env, episode, number, done and not odd, done and odd, number == 0))
        if staged:
            self.buffer.stage(np.array([s.z for s in steps], dtype=np.float32), np.array([s.start for s in steps]))
        self.buffer.add(*self.transition(steps))
        self.history.append(steps)
        for s in steps:
            ended = s.terminated or s.truncated
            self._episodes[s.env], self._numbers[s.env] = (s.episode + 1, 0) if ended else (s.episode, s.number + 1)

    def transition(self, steps: Sequence[Step]) -> tuple[Any, ...]:
        return (
            self.observations(steps),
            self.observations(steps, after=1),
            np.array([[s.env, s.number] for s in steps], dtype=np.float32),
            np.array([100 * s.episode + s.number for s in steps], dtype=np.float32),
            np.array([s.terminated or s.truncated for s in steps]),
            [{"TimeLimit.truncated": s.truncated} for s in steps],
        )

    @property
    def stored(self) -> dict[tuple[int, int, int], int]:
        """The index into ``history`` of every transition that the buffer must still hold, by its label."""
        first = max(0, len(self.history) - self.rows)
        return {s[:3]: t for t in range(first, len(self.history)) for s in self.history[t]}

    def segment(self, label: tuple[int, int, int], horizon: int) -> list[Step]:
        """What a segment that starts there has to hold."""
        first, env = self.stored[label], label[0]
        steps = [self.history[first][env]]
        for t in range(first + 1, min(first + horizon, len(self.history))):
            if self.history[t][env].start:
                break
            steps.append(self.history[t][env])
        return steps


def labels(obs: Any) -> list[tuple[int, int, int]]:
    label = obs["label"] if isinstance(obs, dict) else obs
    return [(int(e), int(p), int(s)) for e, p, s in label.reshape(-1, 3).tolist()]


def check_segments(collector: Collector, segments: SegmentSamples, horizon: int) -> set[tuple[int, int, int]]:
    """Compare all that was sampled with the collector's own record; return where segments started."""
    starts = labels(segments.observations)
    following = labels(segments.next_observations)
    for b, label in enumerate(starts):
        steps = collector.segment(label, horizon)
        n = len(steps)
        assert segments.mask[:, b].tolist() == [1.0] * n + [0.0] * (horizon - n), label
        assert segments.latents[b].tolist() == pytest.approx(steps[0].z)
        assert bool(segments.episode_starts[b]) == steps[0].start
        for k, s in enumerate(steps):
            assert following[k * len(starts) + b] == (s.env, s.episode, s.number + 1)
            assert segments.actions[k, b].tolist() == [s.env, s.number]
            assert segments.rewards[k, b].item() == 100 * s.episode + s.number
            assert bool(segments.terminated[k, b]) == s.terminated
        for k in range(n, horizon):  # masked, and even so never from another episode
            assert following[k * len(starts) + b][:2] == label[:2]
    return set(starts)


def filled(n_steps: int = 23, rows: int = 10, kind: str = "vector", **kwargs: Any) -> Collector:
    collector = Collector(rows, [(4, 3), (5,)], kind, **kwargs)
    for _ in range(n_steps):
        collector.step()
    return collector
