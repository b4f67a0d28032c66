"""The buffer's samples made ready for the updates: latents drawn anew, episode starts added, bonus of each step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import configure

from sb3_rpg.batches import (
    PolicyBatch,
    automatic_relabel,
    draw_steps,
    fill_latents,
    map_observations,
    relabel_latents,
    segment_novelty,
    take_steps,
    with_episode_starts,
)
from sb3_rpg.buffers import SegmentSamples
from sb3_rpg.intrinsic import IntrinsicReward
from sb3_rpg.latents import LATENT_SPACES, make_latent_space
from tests.conftest import LabelledEnv, labelled_vec_env, small_rpg


def test_map_observations_keeps_their_structure() -> None:
    assert th.equal(map_observations(th.ones(2), lambda x: x + 1), th.full((2,), 2.0))  # type: ignore[arg-type]
    mapped = map_observations({"a": th.ones(1), "b": th.zeros(1)}, lambda x: x + 1)
    assert isinstance(mapped, dict) and mapped["a"].item() == 2.0 and mapped["b"].item() == 1.0


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_relabelled_latents_belong_to_the_prior_and_the_others_are_kept(latent: str, fraction: float) -> None:
    th.manual_seed(0)
    space = make_latent_space(latent, 4)
    params = th.zeros(40, space.policy_dim) if space.policy_dim else None
    stored = space.sample(40, params, 1.0, th.device("cpu"))
    latents = relabel_latents(stored, space, fraction)
    n = round(40 * fraction) if space.dim else 0
    assert latents.shape == stored.shape and th.equal(latents[n:], stored[n:])
    if n == 0:
        return
    assert not th.equal(latents[:n], stored[:n])
    if space.policy_dim:  # a learned prior is known by what it drew
        assert all((stored == row).all(dim=1).any() for row in latents[:n])
    elif latent == "hypersphere":
        assert th.allclose(latents.norm(dim=1), th.ones(40), atol=1e-5)
    else:
        assert not any((stored == row).all(dim=1).any() for row in latents[:n])


@pytest.mark.parametrize("latent", [name for name in LATENT_SPACES if name != "none"])
def test_unknown_latents_are_drawn_from_the_prior_and_the_others_are_kept(latent: str) -> None:
    space = make_latent_space(latent, 4)
    params = th.zeros(3000, space.policy_dim) if space.policy_dim else None
    stored = space.sample(3000, params, 1.0, th.device("cpu"))
    unknown = th.arange(3000) % 3 > 0
    filled = fill_latents(stored.masked_fill(unknown.unsqueeze(1), th.nan), space)
    assert th.equal(filled[~unknown], stored[~unknown]) and filled.isfinite().all()
    # 2000 draws: of each entry's mean and spread, five standard errors
    assert th.allclose(filled[unknown].mean(dim=0), stored.mean(dim=0), atol=0.2)
    assert th.allclose(filled[unknown].var(dim=0), stored.var(dim=0), atol=0.2)


@pytest.mark.parametrize("latent", ["categorical", "mixed", "gaussian"])
def test_demonstrations_are_learned_from_with_latents_that_are_in_the_space(
    latent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = small_rpg(LabelledEnv(lengths=(20,)), latent="none").learn(40), small_rpg(latent=latent)
    stored = teacher.replay_buffer
    for row in range(40):
        step = (stored.observations, stored.next_observations, stored.actions, stored.rewards, stored.dones)
        student.replay_buffer.add(*(array[row] for array in step), [{}])
    seen: list[th.Tensor] = []
    original = student.posterior.reward

    def watched(states: th.Tensor, actions: th.Tensor, z: th.Tensor, baseline: bool) -> th.Tensor:
        seen.append(z)
        return original(states, actions, z, baseline)

    monkeypatch.setattr(student.posterior, "reward", watched)
    student.set_logger(configure(None, []))
    student.train(2, 16)
    z = th.cat([part.flatten(0, -2) for part in seen])
    assert len(z) > 0 and z.isfinite().all()
    if latent != "gaussian":
        assert th.equal(z[:, : student.latent_space.n_categories].sum(dim=1), th.ones(len(z)))
    assert all(parameter.isfinite().all() for parameter in student.policy.parameters())


def test_automatic_relabelling_grows_with_the_length_of_the_stored_episodes() -> None:
    assert automatic_relabel(50.0) == pytest.approx(0.025)
    assert automatic_relabel(1000.0) == automatic_relabel(1e5) == 0.5
    buffer: Any = small_rpg(labelled_vec_env(2, lengths=(5,))).learn(40).replay_buffer
    assert buffer.mean_episode_length == 5.0
    buffer.reset()
    assert buffer.mean_episode_length == 0.0


def test_episode_starts_are_put_behind_the_batch() -> None:
    batch = PolicyBatch(th.zeros(3, 2), th.ones(3, 4), th.zeros(3, dtype=th.bool))
    longer = with_episode_starts(batch, th.full((2, 2), 7.0), 2)
    assert th.equal(longer.observations[3:], th.full((2, 2), 7.0))  # type: ignore[index]
    assert longer.episode_starts.tolist() == [False] * 3 + [True] * 2 and longer.latents.shape == (5, 4)


def test_both_updates_learn_from_relabelled_latents(actor_batches: list[PolicyBatch]) -> None:
    model = small_rpg(latent_relabel=0.5).learn(40)
    stored: Any = model.replay_buffer
    known = th.as_tensor(stored.latents[: stored.size()]).flatten(0, 1)

    def is_stored(latents: th.Tensor) -> list[bool]:
        return [bool((known == z).all(dim=1).any()) for z in latents]

    half = len(actor_batches[-1].latents) // 2
    expected = [False] * half + [True] * half
    assert is_stored(actor_batches[-1].latents) == is_stored(model._sample_segments()[0].latents) == expected
    # By default, a share that grows with the episodes' length: here a quarter of their share of 1000 steps
    model = small_rpg(LabelledEnv(lengths=(250,)), batch_size=16).learn(300)
    stored = model.replay_buffer
    known = th.as_tensor(stored.latents[: stored.size()]).flatten(0, 1)
    n_drawn = round(16 * 0.5 * stored.mean_episode_length / 1000.0)
    assert n_drawn == 1 and is_stored(model._sample_segments()[0].latents) == [False] * n_drawn + [True] * (16 - n_drawn)


@pytest.mark.parametrize("n_drawn", [1, 2, 4])
def test_drawn_steps_are_different_and_equally_likely(n_drawn: int) -> None:
    th.manual_seed(0)
    steps = draw_steps(5, 2000, n_drawn, th.device("cpu"))
    assert steps is not None and steps.shape == (n_drawn, 2000)
    assert all(len(set(column)) == n_drawn for column in steps.T.tolist())
    shares = th.bincount(steps.flatten(), minlength=5) / 2000
    assert th.allclose(shares, th.tensor(n_drawn / 5), atol=0.05)


def test_taking_steps_keeps_each_segments_own() -> None:
    x = th.arange(3 * 4 * 2.0).view(3, 4, 2)
    steps = th.tensor([[2, 0, 1, 1], [0, 1, 2, 0]])
    taken = take_steps(x, steps)
    for m, b in itertools.product(range(2), range(4)):
        assert th.equal(taken[m, b], x[steps[m, b], b])
    assert draw_steps(3, 4, 3, x.device) is draw_steps(3, 4, 7, x.device) is None and take_steps(x, None) is x


class PositionNovelty(IntrinsicReward):
    """Tells by its value which transition it was asked for."""

    def errors(self, obs: Any, actions: th.Tensor, next_obs: Any) -> th.Tensor:
        return 100.0 * obs[:, 0] + 10.0 * actions[:, 0] + next_obs[:, 0]


def test_the_novelty_is_that_of_the_steps_asked_for() -> None:
    space = spaces.Box(-1, 1, (1,))
    start, following, actions = th.tensor([[0.0], [5.0]]), th.arange(6.0).view(3, 2, 1) + 1, th.rand(3, 2, 1)
    ones = th.ones(3, 2)
    segments = SegmentSamples(start, following, actions, ones, ones, ones, th.zeros(2, 0), ones[0].bool(), th.arange(2))
    bonus = PositionNovelty(space, space)
    before = th.cat([start.unsqueeze(0), following[:-1]])
    expected = (100.0 * before + 10.0 * actions + following).squeeze(-1)
    assert th.equal(segment_novelty(bonus, segments), expected)
    assert th.equal(segment_novelty(bonus, segments, th.tensor([[2, 0]])), expected[[2, 0], [0, 1]].unsqueeze(0))


def test_another_z_may_come_from_any_row_of_the_batch() -> None:
    space = make_latent_space("learned_gaussian", 1)
    stored = th.arange(10.0).unsqueeze(1)
    drawn = th.cat([relabel_latents(stored, space, 0.1)[:1] for _ in range(300)])
    assert set(drawn.flatten().tolist()) == set(range(10))
