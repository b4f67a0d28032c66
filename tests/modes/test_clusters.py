"""Modes: found where there are some, one where there is one, the same whatever order or number of trajectories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.modes import Trajectory, diversity, effective_mode_count, embed_paths, find_modes

pytest.importorskip("sklearn")


def towards(angle: float, rng: np.random.Generator, noise: float = 0.05, steps: int = 20, reward: float = 0.0) -> Trajectory:
    """A noisy walk of length 1 from the origin."""
    line = np.linspace(0, 1, steps + 1)[:, None] * np.array([np.cos(angle), np.sin(angle)])
    path = line + noise * rng.normal(size=line.shape) * np.linspace(0, 1, steps + 1)[:, None]
    return Trajectory(rng.normal(size=3), path, np.zeros((steps, 1)), np.full(steps, reward / steps), reward > 0.5)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n_modes=st.integers(2, 6), n_each=st.integers(3, 30), seed=st.integers(0, 100), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_as_many_modes_as_directions_at_any_scale_and_length(n_modes: int, n_each: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(n_modes) / n_modes
    trajectories = [towards(a, rng, steps=int(rng.integers(10, 40))) for a in angles for _ in range(n_each)]
    trajectories = [t._replace(path=scale * t.path) for t in trajectories]
    order = rng.permutation(len(trajectories))
    modes = find_modes([trajectories[i] for i in order])
    assert len(modes) == n_modes and effective_mode_count(modes) == pytest.approx(n_modes)
    groups = {frozenset(order[mode.members] // n_each) for mode in modes}
    assert groups == {frozenset([i]) for i in range(n_modes)}
    assert sum(mode.share for mode in modes) == pytest.approx(1.0)


def test_identical_paths_are_one_mode() -> None:
    rng = np.random.default_rng(0)
    same = [towards(1.0, np.random.default_rng(0)) for _ in range(10)]
    assert len(find_modes(same)) == 1 and not embed_paths(same).any()
    assert effective_mode_count(find_modes(same)) == 1.0
    assert len(find_modes([towards(1.0, rng, noise=0.0) for _ in range(5)])) == 1


def test_modes_come_with_their_return_success_and_most_typical_latent() -> None:
    rng = np.random.default_rng(1)
    good = [towards(0.0, rng, reward=1.0) for _ in range(6)]
    poor = [towards(np.pi, rng) for _ in range(12)]
    large, small = find_modes([*good, *poor])
    assert (large.share, large.mean_return, large.success_rate) == (pytest.approx(2 / 3), 0.0, 0.0)
    assert (small.number, small.mean_return, small.success_rate) == (1, pytest.approx(1.0), 1.0)
    embedded = embed_paths([*good, *poor])
    distances = np.linalg.norm(embedded[small.members] - embedded[small.members].mean(axis=0), axis=1)
    assert (np.diff(distances) >= 0).all() and np.array_equal(small.latent, good[small.members[0]].latent)
    unknown = [t._replace(success=None) for t in good]
    assert find_modes(unknown)[0].success_rate is None


def test_a_stray_trajectory_hardly_counts() -> None:
    rng = np.random.default_rng(2)
    trajectories = [*(towards(a, rng) for a in (0.0, np.pi) for _ in range(50)), towards(np.pi / 2, rng)]
    modes = find_modes(trajectories)
    assert len(modes) == 3 and 2.0 < effective_mode_count(modes) < 2.2


def test_diversity_on_a_grid() -> None:
    def at(x: float, y: float, value: float) -> Trajectory:
        return Trajectory(np.zeros(1), np.array([[0.1, 0.1], [x, y]]), np.zeros((1, 1)), np.array([value]), None)

    found = diversity(
        [at(0.9, 0.9, 2.0), at(0.95, 0.95, 5.0), at(0.1, 0.9, 1.0), at(7.0, -3.0, 4.0)], [0, 0], [1, 1], n_bins=2
    )
    assert found.coverage == 0.75 and found.qd_score == 10.0  # the best of each cell
    shares = np.array([4, 2, 1, 1]) / 8
    assert found.state_entropy == pytest.approx(-(shares * np.log(shares)).sum())
    shifted = diversity([at(0.9, 0.9, 2.0)], [0, 0], [1, 1], n_bins=2, worst_return=-1.0)
    assert shifted.qd_score == 3.0


def test_errors() -> None:
    one = [towards(0.0, np.random.default_rng(0))]
    with pytest.raises(ValueError, match="`trajectories` holds 1; modes need at least two"):
        find_modes(one)
    with pytest.raises(ValueError, match=r"must be 2 bounds each, low below high"):
        diversity(one, [0.0], [1.0])
    with pytest.raises(ValueError, match=r"`n_bins`=10 over 7 dimensions is a grid of 1e\+07 cells"):
        diversity([one[0]._replace(path=np.zeros((3, 7)))], [0.0] * 7, [1.0] * 7)
    with pytest.raises(ValueError, match="`trajectories` holds 0 and `n_bins`=10"):
        diversity([], [0.0], [1.0])
    with pytest.raises(ValueError, match="holds paths that are not finite"):
        diversity([one[0]._replace(path=np.array([[0.0, 0.0], [np.nan, 0.0]]))], [0.0, 0.0], [1.0, 1.0])
    for wrong in ({"threshold": 0.0}, {"n_points": 0}):
        with pytest.raises(ValueError, match=r"`threshold`=.* and `n_points`=.* must be positive"):
            find_modes([*one, *one], **wrong)


def test_the_count_does_not_hang_on_the_episodes_drawn() -> None:
    """Of directions all around with none between: the same count for any seed and any number of episodes."""
    for n_modes in (1, 4, 7):
        counts = set()
        for seed in range(10):
            rng = np.random.default_rng(seed)
            angles = 2 * np.pi * rng.integers(n_modes, size=[40, 80][seed % 2]) / n_modes
            scattered = 0.0 if n_modes == 1 else 0.08
            trajectories = [towards(a + scattered * rng.normal(), rng, noise=0.0 if n_modes == 1 else 0.1) for a in angles]
            counts.add(len(find_modes(trajectories)))
        assert counts == {n_modes}
