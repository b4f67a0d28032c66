"""Sampling by novelty: the sum tree, the account that a buffer keeps, and what training draws by it."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from sb3_rpg import RPG
from sb3_rpg.novelty import NoveltyIndex, SumTree
from tests.collector import filled
from tests.conftest import LabelledEnv, labelled_vec_env, small_rpg


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 70),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 69), st.floats(0, 1e6)), min_size=1, max_size=9), max_size=6),
)
def test_the_tree_holds_the_last_weights_and_draws_none_of_zero(capacity: int, changes: list[list[tuple[int, float]]]) -> None:
    tree, weights = SumTree(capacity), np.zeros(capacity)
    for change in changes:
        places = np.array([place % capacity for place, _ in change])
        tree.set(places, np.array([weight for _, weight in change]))
        for (_, weight), place in zip(change, places, strict=True):
            weights[place] = weight
    assert tree.total == pytest.approx(weights.sum())
    if weights.any():
        drawn = tree.sample(40)
        assert len(drawn) == 40 and (weights[drawn] > 0).all() and (np.diff(drawn) >= 0).all()
    # The sums depend on the weights alone, not on how they came about: a run that is loaded draws what it would have drawn
    other = SumTree(capacity)
    other.set(np.arange(capacity), weights)
    assert np.array_equal(tree._sums, other._sums)


def test_draws_are_in_proportion_to_novelty_to_the_power() -> None:
    np.random.seed(0)
    novelty = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.5], dtype=np.float32)
    index = NoveltyIndex(3, 2, exponent=2.0)
    index.rate(np.arange(6), novelty)

    def counts() -> np.ndarray:
        # One at a time: together they are spread evenly, and fit better than chance
        return np.bincount(np.concatenate([index.sample(1) for _ in range(5000)]), minlength=6)

    squares = np.delete(novelty.astype(float), 4) ** 2
    observed = counts()
    assert observed[4] == 0
    assert chisquare(np.delete(observed, 4), 5000 * squares / squares.sum()).pvalue > 1e-3
    assert chisquare(np.delete(observed, 4), np.full(5, 1000)).pvalue < 1e-9
    index.exponent = 0.0
    assert chisquare(counts(), np.full(6, 5000 / 6)).pvalue > 1e-3
    # Spread over a batch, no count is further from what is expected than the two ends of its interval
    index.exponent = 1.0
    assert (np.abs(np.bincount(index.sample(300), minlength=6) - 300 * novelty / novelty.sum()) <= 2).all()


def test_what_is_new_is_to_be_rated_once() -> None:
    index = NoveltyIndex(buffer_size=10, n_envs=2, exponent=1.0)
    index.forget(np.arange(5))
    index.forget(np.array([4]))
    assert [places.tolist() for places in index.take_unrated(3)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert list(index.take_unrated(3)) == []
    index.forget(np.array([7]))
    assert [places.tolist() for places in index.take_unrated(3)] == [[14, 15]]


def test_a_pickled_account_goes_on() -> None:
    index = NoveltyIndex(buffer_size=6, n_envs=2, exponent=1.5)
    index.rate(np.array([3, 0, 11]), np.array([0.5, 2.0, 0.25], dtype=np.float32))
    index.forget(np.array([4]))
    copy = pickle.loads(pickle.dumps(index))
    assert copy.exponent == 1.5 and [places.tolist() for places in copy.take_unrated(9)] == [[8, 9]]
    assert np.array_equal(copy._tree._sums, index._tree._sums)


def rating_of(model: RPG) -> np.ndarray:
    """The novelty on account, (rows, n_envs)."""
    assert model.replay_buffer.novelty is not None
    return model.replay_buffer.novelty._novelty.reshape(-1, model.n_envs)


def novelty_of(model: RPG) -> np.ndarray:
    """The bonus's errors at all stored transitions now, (rows, n_envs)."""
    buffer = model.replay_buffer
    obs, actions, next_obs = (
        th.as_tensor(x[: buffer.size()]).flatten(0, 1) for x in (buffer.observations, buffer.actions, buffer.next_observations)
    )
    assert model.bonus is not None
    return model.bonus.novelty(obs, actions, next_obs).view(-1, model.n_envs).numpy()


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_training_rates_what_it_stores_and_what_it_draws(kind: str) -> None:
    env = labelled_vec_env(2, space=kind)
    policy = "MultiInputPolicy" if kind == "dict" else "MlpPolicy"
    model = small_rpg(env, policy, novelty_share=0.5, buffer_size=40, head_steps=None).learn(30)
    rows = model.replay_buffer.size()
    model._count_by_novelty(8)
    assert not np.isnan(rating_of(model)[:rows]).any() and np.isnan(rating_of(model)[rows:]).all()
    if kind == "vector":
        before = rating_of(model).copy()
        segments, _, _ = model._sample_segments()
        drawn = segments.places[segments.mask.all(dim=0)].tolist()
        changed = np.flatnonzero(np.nan_to_num(before) != np.nan_to_num(rating_of(model)))
        assert len(changed) > 0 and set(changed.tolist()) <= set(segments.places.tolist())
        # A segment is as novel as its steps are on average
        now = novelty_of(model)
        for place in drawn:
            row, column = divmod(place, 2)
            assert rating_of(model)[row, column] == pytest.approx(now[row : row + 3, column].mean(), rel=1e-4)
    # The ring goes round: what was overwritten is rated anew
    model.learn(30, reset_num_timesteps=False)
    model._count_by_novelty(8)
    assert model.replay_buffer.full and not np.isnan(rating_of(model)).any()


def test_the_novel_is_drawn_more_often_by_model_and_actor() -> None:
    model = small_rpg(LabelledEnv(lengths=(50,)), novelty_share=0.5, batch_size=64, actor_batch_size=32).learn(40)
    buffer = model.replay_buffer
    model._count_by_novelty(8)
    assert buffer.novelty is not None
    novelty = np.full(40, 0.01, dtype=np.float32)
    novelty[17] = 10.0
    buffer.novelty.rate(np.arange(40), novelty)
    places = buffer.sample_segments(64, 3, n_by_novelty=32).places
    assert 32 <= (places == 17).sum() <= 40
    # At random places of the batch, of which a part gets another z
    assert 4 < (places[:32] == 17).sum() < 30
    states = buffer.sample_states(64, n_by_novelty=32)[0]
    assert isinstance(states, th.Tensor) and 32 <= (states[:, 2] == 17).sum() <= 40
    asked: list[tuple[int, int]] = []
    draw = buffer._draw_places

    def spy(batch_size: int, n_by_novelty: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((batch_size, n_by_novelty))
        return draw(batch_size, n_by_novelty)

    buffer._draw_places = spy  # type: ignore[method-assign]
    model.train(1, 64)
    assert asked == [(64, 32), (32, 16)]


def test_an_actor_of_larger_batches_than_the_model_draws_by_novelty_alone() -> None:
    model = small_rpg(novelty_share=0.25, batch_size=1, actor_batch_size=16).learn(30)
    assert not np.isnan(rating_of(model)[: model.replay_buffer.size() - 1]).any()


def test_without_a_share_or_a_bonus_nothing_is_kept_or_drawn() -> None:
    plain = small_rpg(seed=3).learn(25)
    assert plain.replay_buffer.novelty is None
    unrewarded = small_rpg(seed=3, intrinsic_reward=None, novelty_share=0.5).learn(25)
    same = small_rpg(seed=3, intrinsic_reward=None).learn(25)
    assert unrewarded.replay_buffer.novelty is None
    for one, other in zip(unrewarded.policy.parameters(), same.policy.parameters(), strict=True):
        assert th.equal(one, other)


def test_a_buffer_that_was_filled_without_is_rated_at_once() -> None:
    model = small_rpg().learn(20)
    model.novelty_share, model.novelty_exponent = 0.5, 1.0
    model.train(1, 8)
    assert not np.isnan(rating_of(model)[:20]).any()
    model.novelty_exponent = 3.0
    model.train(1, 8)
    assert model.replay_buffer.novelty is not None and model.replay_buffer.novelty.exponent == 3.0
    model.replay_buffer.reset()
    assert model.replay_buffer.novelty is None


class Plane(gym.Env):
    """Only its spaces are used."""

    observation_space = spaces.Box(-5.0, 5.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}


def error_where_it_is_rare(novelty_share: float, seed: int) -> float:
    """How far the reward that was learned is from the bonus at 5 of 2,000 transitions, relative to it, after 300 updates."""
    model = small_rpg(
        Plane(), novelty_share=novelty_share, seed=seed, batch_size=64, buffer_size=2000, horizon=1, intrinsic_reward="rnd"
    )
    observations = 0.3 * np.random.default_rng(seed).standard_normal((2000, 2), dtype=np.float32)
    observations[::400] += 3.0
    for observation in observations:
        model.replay_buffer.stage(np.zeros((1, 3), np.float32), np.array([True]))
        model.replay_buffer.add(observation[None], observation[None], np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    model.train_world_model(300)
    rare, actions = th.as_tensor(observations[::400]), th.zeros(5, 1)
    assert model.bonus is not None
    with th.no_grad():
        bonus = model.bonus.bonus(rare, actions, rare)
        learned = model.world_model.predict_rewards(model.world_model.replay(model.world_model.encoder(rare), actions[None]))
    return float((learned - bonus).abs().mean() / bonus.abs().mean())


def test_what_is_rare_and_new_is_learned_sooner() -> None:
    uniform, by_novelty = (np.mean([error_where_it_is_rare(share, seed) for seed in range(4)]) for share in (0.0, 0.5))
    assert by_novelty < 0.5 * uniform  # measured: 0.07 and 0.32


@pytest.mark.parametrize(("name", "value"), [("novelty_share", 1.5), ("novelty_share", "auto"), ("novelty_exponent", -1.0)])
def test_errors(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        small_rpg(**{name: value})


def test_where_nothing_is_novel_all_are_drawn_alike() -> None:
    index = NoveltyIndex(3, 2, exponent=1.0)
    index.rate(np.arange(6), np.zeros(6, dtype=np.float32))
    assert (np.abs(np.bincount(index.sample(600), minlength=6) - 100) <= 2).all()


def test_what_is_overwritten_is_to_be_rated_anew() -> None:
    collector = filled(23)  # of 10 rows of two environments: the third is overwritten next
    index = collector.buffer.index_novelty(1.0)
    assert sorted(np.concatenate(list(index.take_unrated(99)))) == list(range(20))
    collector.step()
    assert [places.tolist() for places in index.take_unrated(99)] == [[6, 7]]
