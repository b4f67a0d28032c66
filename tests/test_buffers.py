"""Replay buffers: segments against an independent record of everything that was stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_rpg.buffer_registry import latent_buffer_class
from sb3_rpg.buffers import LatentDictReplayBuffer, LatentReplayBuffer, SegmentSamples
from tests.collector import Collector, check_segments, filled, labels
from tests.conftest import labelled_vec_env


@st.composite
def collectors(draw: st.DrawFn, kind: str = "vector") -> Collector:
    n_envs = draw(st.integers(1, 3))
    lengths = [draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)) for _ in range(n_envs)]
    collector = Collector(draw(st.integers(1, 12)), lengths, kind)
    resets = draw(st.sets(st.integers(0, 30), max_size=3))
    for t in range(draw(st.integers(1, 30))):
        if t in resets:
            collector.reset_all()
        collector.step()
    np.random.seed(draw(st.integers(0, 1000)))
    return collector


@settings(max_examples=80, deadline=None)
@given(collector=collectors(), horizon=st.integers(1, 5))
def test_segments_hold_one_episode_with_its_z_and_every_stored_step_can_start_one(collector: Collector, horizon: int) -> None:
    n_stored = len(collector.stored)
    segments = collector.buffer.sample_segments(n_stored * 20, horizon)
    assert check_segments(collector, segments, horizon) == set(collector.stored)
    assert th.all(segments.mask[0] == 1)


@settings(max_examples=20, deadline=None)
@given(collector=collectors(kind="dict"), horizon=st.integers(1, 4))
def test_segments_of_dict_observations(collector: Collector, horizon: int) -> None:
    segments = collector.buffer.sample_segments(64, horizon)
    check_segments(collector, segments, horizon)
    assert isinstance(segments.observations, dict) and isinstance(segments.next_observations, dict)
    assert th.equal(segments.observations["extra"], segments.observations["label"][:, 2:])
    assert th.equal(segments.next_observations["extra"], segments.next_observations["label"][..., 2:])


@settings(max_examples=80, deadline=None)
@given(collector=collectors())
def test_start_index_holds_exactly_the_stored_episode_starts(collector: Collector) -> None:
    buffer, stored = collector.buffer, collector.stored
    expected = {label for label in stored if label[2] == 0}
    assert len(buffer.start_index) == len(expected)
    sampled = buffer.sample_starts(20 * max(len(expected), 1))
    assert set(labels(sampled)) == expected


@settings(max_examples=30, deadline=None)
@given(collector=collectors())
def test_states_of_the_actors_batch_carry_their_z_and_tell_starts(collector: Collector) -> None:
    obs, z, starts = collector.buffer.sample_states(20 * len(collector.stored))
    assert set(labels(obs)) == set(collector.stored)
    for label, latent, start in zip(labels(obs), z.tolist(), starts.tolist(), strict=True):
        assert latent == pytest.approx([label[0] + 0.5, label[1] + 0.25])
        assert start is (label[2] == 0)


def test_first_steps_are_uniform_over_all_that_is_stored() -> None:
    collector = filled()
    n = 40000
    counts: dict[tuple[int, int, int], int] = {}
    for label in labels(collector.buffer.sample_segments(n, 3).observations):
        counts[label] = counts.get(label, 0) + 1
    expected = n / len(collector.stored)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_dtypes_and_shapes() -> None:
    segments = filled().buffer.sample_segments(6, 3)
    shapes = {name: tuple(value.shape) for name, value in segments._asdict().items()}
    assert shapes == {
        "observations": (6, 3),
        "next_observations": (3, 6, 3),
        "actions": (3, 6, 2),
        "rewards": (3, 6),
        "terminated": (3, 6),
        "mask": (3, 6),
        "latents": (6, 2),
        "episode_starts": (6,),
        "places": (6,),
    }
    others = {"episode_starts": th.bool, "places": th.int64}
    assert all(value.dtype == others.get(name, th.float32) for name, value in segments._asdict().items())


def test_an_episode_longer_than_the_buffer_leaves_no_start_but_segments() -> None:
    collector = Collector(4, [(50,)])
    for _ in range(20):
        collector.step()
    assert check_segments(collector, collector.buffer.sample_segments(50, 3), 3) == {(0, 0, n) for n in range(16, 20)}
    assert len(collector.buffer.start_index) == 0
    starts: Any = collector.buffer.sample_starts(5)
    assert starts.shape == (0, 3)


@pytest.mark.parametrize("told", [True, False])
def test_a_truncated_step_is_no_termination_unless_time_outs_are_not_told(told: bool) -> None:
    collector = Collector(10, [(2,)], handle_timeout_termination=told)
    for _ in range(4):  # an episode that terminates, then one that is truncated
        collector.step()
    segments = collector.buffer.sample_segments(200, 1)
    flags = dict(zip(labels(segments.observations), segments.terminated[0].tolist(), strict=True))
    assert flags == {(0, 0, 0): 0.0, (0, 0, 1): 1.0, (0, 1, 0): 0.0, (0, 1, 1): 0.0 if told else 1.0}


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_sb3s_sample_still_returns_single_transitions(kind: str) -> None:
    collector = filled(kind=kind)
    samples = collector.buffer.sample(200)
    before, after = labels(samples.observations), labels(samples.next_observations)
    assert set(before) == set(collector.stored)
    for b, (env, episode, number) in enumerate(before):
        step = collector.history[collector.stored[env, episode, number]][env]
        assert after[b] == (env, episode, number + 1)
        assert samples.rewards[b].item() == 100 * episode + number
        assert bool(samples.dones[b]) == step.terminated


def test_transitions_without_z_have_none_and_start_where_the_one_before_was_done() -> None:
    collector = Collector(20, [(3,), (5,)])
    for _ in range(8):
        collector.step(staged=False)
    segments = collector.buffer.sample_segments(400, 3)
    assert segments.latents.isnan().all() and collector.buffer.lacks_latents
    check_segments(collector, segments._replace(latents=_expected_latents(segments)), 3)
    assert set(labels(collector.buffer.sample_starts(100))) == {s for s in collector.stored if s[2] == 0}


def _expected_latents(segments: SegmentSamples) -> th.Tensor:
    return th.tensor([[env + 0.5, episode + 0.25] for env, episode, _ in labels(segments.observations)])


def test_extend_takes_demonstrations_as_sb3_does() -> None:
    source, collector = filled(9, rows=20), Collector(20, [(4, 3), (5,)])
    columns = zip(*(collector.transition(steps) for steps in source.history), strict=True)
    collector.buffer.extend(*(list(column) for column in columns))
    assert collector.buffer.size() == 9
    assert set(labels(collector.buffer.sample_segments(400, 2).observations)) == set(source.stored)
    assert set(labels(collector.buffer.sample_starts(100))) == {s for s in source.stored if s[2] == 0}


@pytest.mark.parametrize("staged_first", [True, False])
def test_demonstrations_and_an_unfinished_episode_beside_them_are_kept_apart(staged_first: bool) -> None:
    collector = Collector(20, [(50,)])
    for _ in range(3):
        collector.step(staged=staged_first)
    collector._episodes, collector._numbers = [7], [5]  # the middle of another episode
    for _ in range(3):
        collector.step(staged=not staged_first)
    segments: Any = collector.buffer.sample_segments(300, 3)
    for first, last in zip(labels(segments.observations), labels(segments.next_observations[2]), strict=True):
        assert first[1] == last[1]


def test_segments_of_an_empty_buffer_are_refused() -> None:
    with pytest.raises(ValueError, match="the replay buffer is empty: collect or load transitions"):
        Collector(5, [(3,)]).buffer.sample_segments(4, 2)


def test_reset_forgets_everything() -> None:
    collector = filled()
    assert collector.buffer.terminations_seen
    collector.step(staged=False)
    assert collector.buffer.lacks_latents
    collector.buffer.reset()
    assert not collector.buffer.terminations_seen and not collector.buffer.lacks_latents
    fresh = Collector(10, [(4, 3), (5,)])
    fresh.buffer = collector.buffer
    for _ in range(4):
        fresh.step()
    assert check_segments(fresh, fresh.buffer.sample_segments(200, 3), 3) == set(fresh.stored)
    assert len(fresh.buffer.start_index) == 2


@pytest.mark.parametrize("steps", [7, 10, 23])
def test_stored_steps_come_in_order_also_around_the_ring(steps: int) -> None:
    collector = Collector(10, [(4, 3), (5,)])
    for _ in range(steps):
        collector.step()
    found = list(collector.buffer.steps_in_order())
    assert len(found) == min(steps, 10)
    for (rewards, dones, starts), row in zip(found, collector.history[-10:], strict=True):
        assert starts.tolist() == [step.start for step in row]
        assert dones.astype(bool).tolist() == [step.terminated or step.truncated for step in row]
        assert np.array_equal(rewards, collector.transition(row)[3])


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("norm_reward", [True, False])
def test_normalised_segments_are_those_that_vec_normalize_would_give(kind: str, norm_reward: bool) -> None:
    collector = filled(kind=kind)
    env = VecNormalize(labelled_vec_env(2, space=kind), norm_reward=norm_reward, clip_obs=3.0)
    statistics = list(env.obs_rms.values()) if isinstance(env.obs_rms, dict) else [env.obs_rms]
    for rms in statistics:
        rms.mean, rms.var = rms.mean + 1.5, rms.var * 4.0
    env.ret_rms.var = np.array(25.0)

    np.random.seed(5)
    at_once = collector.buffer.sample_segments(50, 3, env)
    np.random.seed(5)
    raw = collector.buffer.sample_segments(50, 3)
    afterwards = collector.buffer.normalize_segments(raw, env)
    for name, expected in at_once._asdict().items():
        got = getattr(afterwards, name)
        for key in expected if isinstance(expected, dict) else [...]:
            assert th.equal(got[key], expected[key]) and got[key].dtype == expected[key].dtype, name

    def plain(obs: Any) -> th.Tensor:
        return obs["label"] if isinstance(obs, dict) else obs

    for name in ("observations", "next_observations"):
        expected = ((plain(getattr(raw, name)) - 1.5) / 2.0).clamp(-3.0, 3.0)
        assert th.allclose(plain(getattr(at_once, name)), expected, atol=1e-5)
    assert th.allclose(at_once.rewards, (raw.rewards / 5.0).clamp(-10, 10) if norm_reward else raw.rewards, atol=1e-5)

    np.random.seed(6)
    states = collector.buffer.sample_states(50)[0]
    np.random.seed(6)
    assert th.allclose(
        plain(collector.buffer.sample_states(50, env)[0]), ((plain(states) - 1.5) / 2.0).clamp(-3.0, 3.0), atol=1e-5
    )
    assert set(plain(collector.buffer.sample_starts(50, env))[:, 2].tolist()) == {-0.75}


def test_sb3s_buffers_are_replaced_by_their_latent_variants_and_foreign_ones_refused() -> None:
    box, dictionary = spaces.Box(-1, 1, (3,)), spaces.Dict({"a": spaces.Box(-1, 1, (3,))})

    class Own(LatentReplayBuffer):
        pass

    assert latent_buffer_class(None, box) is LatentReplayBuffer
    assert latent_buffer_class(None, dictionary) is LatentDictReplayBuffer
    assert latent_buffer_class(ReplayBuffer, box) is LatentReplayBuffer
    assert latent_buffer_class(DictReplayBuffer, dictionary) is LatentDictReplayBuffer
    assert latent_buffer_class(Own, box) is Own
    with pytest.raises(ValueError, match="`replay_buffer_class=HerReplayBuffer` needs Dict observations with the keys"):
        latent_buffer_class(HerReplayBuffer, dictionary)
    with pytest.raises(ValueError, match="`replay_buffer_class=ReplayBuffer` does not fit Dict observations; use None or"):
        latent_buffer_class(ReplayBuffer, dictionary)
    with pytest.raises(ValueError, match="`replay_buffer_class=LatentDictReplayBuffer` does not fit array observations"):
        latent_buffer_class(LatentDictReplayBuffer, box)
    with pytest.raises(ValueError, match="`replay_buffer_class=NStepReplayBuffer` does not store z; use None, ReplayBuffer"):
        latent_buffer_class(NStepReplayBuffer, box)
