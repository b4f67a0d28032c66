"""The random baselines of coverage."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_rpg.envs import MazeEnv, random_coverage
from sb3_rpg.envs.baselines import BaselineKind


def final_coverage(kind: BaselineKind, n_steps: int, n_seeds: int) -> np.ndarray:
    return np.array([random_coverage(kind, n_steps, seed)[1][-1] for seed in range(n_seeds)])


def test_coverage_at_50k_steps() -> None:
    """Bands around the means over 200 seeds: 0.238 (standard deviation 0.017) and 0.360 (0.001)."""
    uniform, direction = final_coverage("uniform", 50_000, 10), final_coverage("direction", 50_000, 10)
    assert 0.22 < uniform.mean() < 0.26
    assert 0.355 < direction.mean() <= 0.36
    assert (uniform < direction).all()


def test_coverage_at_250k_steps_matches_the_published_baselines() -> None:
    assert final_coverage("uniform", 250_000, 5).mean() == pytest.approx(0.28, abs=0.03)
    np.testing.assert_allclose(final_coverage("direction", 250_000, 5), 0.36)


@pytest.mark.parametrize("kind", ["uniform", "direction"])
def test_curve(kind: BaselineKind) -> None:
    steps, shares = random_coverage(kind, 5_000, seed=3)
    np.testing.assert_array_equal(steps, np.arange(0, 5_001, 5))
    assert steps.shape == shares.shape
    assert shares[0] == 0.01  # the start
    assert (np.diff(shares) >= 0).all()
    np.testing.assert_array_equal(shares, random_coverage(kind, 5_000, seed=3)[1])
    assert not np.array_equal(shares, random_coverage(kind, 5_000, seed=4)[1])
    np.testing.assert_array_equal(shares[:401], random_coverage(kind, 2_000, seed=3)[1])


def test_curve_is_the_coverage_of_the_environment() -> None:
    """One environment, driven by the same actions step by step."""
    _, shares = random_coverage("direction", 200, seed=0, n_envs=1)
    actions = np.random.default_rng(0).uniform(-1, 1, size=(4, 2))
    env = MazeEnv()
    expected: list[float] = []
    for action in actions:
        _, info = env.reset()
        if not expected:
            expected.append(info["coverage"])
        expected += [env.step(action)[4]["coverage"] for _ in range(50)]
    np.testing.assert_array_equal(shares, expected)


def test_steps_that_do_not_fill_the_last_episode() -> None:
    steps, shares = random_coverage("uniform", 1_013, seed=0, n_envs=4)
    assert steps[-1] == 1_012
    np.testing.assert_array_equal(steps, 4 * np.arange(254))
    assert shares.shape == (254,)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'levy'"):
        random_coverage("levy", 100, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_envs must be at least 1, got 0"):
        random_coverage("uniform", 100, seed=0, n_envs=0)
    with pytest.raises(ValueError, match="n_steps must be at least n_envs = 5, got 4"):
        random_coverage("uniform", 4, seed=0)
