"""Modes without a descriptor: found in observations whose entries have different units, most of them beside the point."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_rpg.modes import (
    Trajectory,
    action_paths,
    effective_mode_count,
    embed_paths,
    find_modes,
    principal_paths,
    stretch_means,
)


def observed(angle: float, rng: np.random.Generator, mixing: np.ndarray, steps: int = 50) -> Trajectory:
    """A walk in the plane, seen through 20 entries: 8 mixtures of the position, a gait of random phase, noise, a clock."""
    time = np.linspace(0, 1, steps + 1)[:, None]
    position = time * np.array([np.cos(angle), np.sin(angle)]) + 0.002 * np.cumsum(rng.normal(size=(steps + 1, 2)), axis=0)
    phase = rng.uniform(0, 2 * np.pi) + 2 * np.pi * time * rng.uniform(8, 12)
    gait = np.concatenate([np.sin(phase), np.cos(phase)], axis=1) @ mixing[:2, :4] * 3.0
    noise = 100.0 * rng.normal(size=(steps + 1, 6))
    path = np.concatenate([position @ mixing, gait, noise, 10 * time, np.full((steps + 1, 1), 7.0)], axis=1)
    return Trajectory(rng.normal(size=3), path, np.zeros((steps, 2)), np.zeros(steps), None)


def episodes(n_modes: int, n: int, seed: int) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    # Each entry of the observation tells something of both coordinates, in units of its own
    mixing = rng.uniform(0.5, 1.5, size=(2, 8)) * rng.choice([-1.0, 1.0], size=(2, 8)) * np.logspace(-2, 2, 8)
    angles = 2 * np.pi * np.arange(n_modes) / n_modes
    return [observed(angles[i % n_modes] + 0.03 * rng.normal(), rng, mixing, int(rng.integers(30, 60))) for i in range(n)]


@pytest.mark.parametrize("n_modes", [2, 3, 5])
def test_the_count_is_stable_over_seeds_and_numbers_of_episodes(n_modes: int) -> None:
    pytest.importorskip("sklearn")
    counts = []
    for seed in range(5):
        for n in (32, 64):
            modes = find_modes(principal_paths(episodes(n_modes, n, seed)).trajectories)
            counts.append(len(modes))
            assert effective_mode_count(modes) == pytest.approx(n_modes, abs=0.1)
    assert counts == [n_modes] * 10


def test_components_are_the_directions_in_which_episodes_differ() -> None:
    found = principal_paths(episodes(4, 64, 0), n_components=2)
    assert found.components.shape == (2, 20) and found.trajectories[0].path.shape[1] == 2
    weights = np.linalg.norm(found.components, axis=0)
    assert weights[:8].min() > 3 * weights[8:].max()  # the position; neither gait, noise nor clock
    assert weights[-1] == 0.0 and found.explained[0] >= found.explained[1] > 0.2
    again = principal_paths(episodes(4, 64, 0), n_components=2)
    assert np.array_equal(found.trajectories[3].path, again.trajectories[3].path)


def test_units_do_not_matter() -> None:
    plain = episodes(3, 30, 1)
    scales = np.logspace(-3, 3, plain[0].path.shape[1])
    other = [t._replace(path=scales * (5.0 + t.path)) for t in plain]
    a, b = principal_paths(plain), principal_paths(other)
    assert a.explained == pytest.approx(b.explained, rel=1e-6)
    for first, second in zip(a.trajectories, b.trajectories, strict=True):
        np.testing.assert_allclose(first.path, second.path, atol=1e-5)


def test_nothing_that_varies_is_one_mode() -> None:
    still = [t._replace(path=np.ones((5, 4))) for t in episodes(2, 6, 0)]
    found = principal_paths(still)
    assert found.trajectories[0].path.shape == (5, 1) and not found.explained.any()
    assert not embed_paths(found.trajectories).any()


def test_actions_tell_modes_of_a_single_step_apart() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)

    def choice(value: float) -> Trajectory:
        return Trajectory(rng.normal(size=2), np.zeros((2, 1)), np.array([[value + 0.01 * rng.normal()]]), np.zeros(1), None)

    trajectories = [choice(value) for value in (-0.6, 0.8) for _ in range(10)]
    assert len(find_modes(trajectories)) == 1
    modes = find_modes(action_paths(trajectories))
    assert [len(mode.members) for mode in modes] == [10, 10]


@pytest.mark.parametrize("n_steps", [1, 3, 10, 37])
def test_stretch_means_are_means_over_time(n_steps: int) -> None:
    path = np.random.default_rng(n_steps).normal(size=(n_steps + 1, 2))
    means = stretch_means(path, 10)
    assert means.shape == (10, 2)
    np.testing.assert_allclose(means.mean(axis=0), path[1:].mean(axis=0))
    fine = np.repeat(path[1:], 10, axis=0).reshape(10, n_steps, 2).mean(axis=1)  # n_steps tenths of steps each
    np.testing.assert_allclose(means, fine)
    constant = stretch_means(np.full((n_steps + 1, 1), 2.5), 4)
    np.testing.assert_allclose(constant, 2.5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`trajectories` is empty"):
        principal_paths([])
    with pytest.raises(ValueError, match="`n_components` must be at least 1, got 0"):
        principal_paths(episodes(2, 4, 0), n_components=0)
