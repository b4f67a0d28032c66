"""Pictures of the maze."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sb3_rpg.envs.maze import RewardKind, at_goal
from sb3_rpg.envs.maze_plot import draw_maze, draw_visits, latent_colors, share_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

pytest.importorskip("matplotlib")


@pytest.fixture
def ax() -> Iterator[Axes]:
    from matplotlib.figure import Figure

    yield Figure().add_subplot()


def lightness(colors: np.ndarray) -> np.ndarray:
    return colors @ np.array([0.2126, 0.7152, 0.0722])


def test_draw_maze(ax: Axes) -> None:
    assert draw_maze(ax, title="The maze", cells=True) is ax
    assert ax.get_title() == "The maze"
    assert [len(collection.get_paths()) for collection in ax.collections] == [18, 68]
    assert ax.get_aspect() == 1.0


def test_blocked_passages_are_walls_that_stand_out(ax: Axes) -> None:
    draw_maze(ax, blocked=[(1, 0), (0, 1)])
    walls, plugs = ax.collections
    assert len(walls.get_paths()) == 66
    ends = {tuple(np.asarray(path.vertices, dtype=np.float64).ravel().tolist()) for path in plugs.get_paths()}
    assert ends == {(1.0, -0.2, 1.0, 0.2), (-0.2, 1.0, 0.2, 1.0)}


@pytest.mark.parametrize(("reward", "rooms"), [("none", 0), ("sparse", 1), ("escape", 16)])
def test_rewarded_rooms_are_tinted(ax: Axes, reward: RewardKind, rooms: int) -> None:
    draw_maze(ax, reward=reward)
    assert len(ax.patches) == rooms
    for patch in ax.patches:
        assert at_goal(reward, patch.get_extents().transformed(ax.transData.inverted()).get_points().mean(axis=0))


@pytest.mark.parametrize("dim", [1, 2, 3, 12])
def test_gaussian_latents_get_similar_colors_when_similar(dim: int) -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, dim)) * np.linspace(3, 1, dim)
    colors = latent_colors(latents)
    assert colors.shape == (500, 3)
    assert ((colors >= 0) & (colors <= 1)).all()
    np.testing.assert_allclose(colors, latent_colors(latents))
    distances = np.linalg.norm(latents[:, None, :2] - latents[None, :, :2], axis=-1)
    differences = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert np.corrcoef(distances.ravel(), differences.ravel())[0, 1] > 0.5
    assert np.ptp(lightness(colors)) > 0.2  # readable without hue


def test_colors_do_not_depend_on_units() -> None:
    latents = np.random.default_rng(0).normal(size=(100, 4))
    np.testing.assert_allclose(latent_colors(latents), latent_colors(10 * latents + 3), atol=1e-9)


@pytest.mark.parametrize("latents", [np.random.default_rng(0).normal(size=(50, 4)), np.eye(9)[np.arange(50) % 9]])
def test_a_latent_keeps_its_color_among_the_same_latents(latents: np.ndarray) -> None:
    colors = latent_colors(latents)
    np.testing.assert_allclose(latent_colors(latents[5:15], among=latents), colors[5:15], atol=1e-9)
    codes = np.arange(9)
    np.testing.assert_array_equal(latent_colors(codes[2:4], among=codes), latent_colors(codes)[2:4])
    assert latent_colors(latents[:0], among=latents).shape == (0, 3)


def test_colors_among_latents_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"among must hold latents of the same kind, of shape \(m, 3\), got \(50, 4\)"):
        latent_colors(np.zeros((5, 3)), among=np.full((50, 4), 0.5))
    with pytest.raises(ValueError, match="of the same kind"):
        latent_colors(np.full((5, 4), 0.5), among=np.eye(4))
    with pytest.raises(ValueError, match="all categories of latents, got 3 of them"):
        latent_colors(np.array([0, 3]), among=np.arange(3))
    with pytest.raises(ValueError, match="negative codes, got -1"):
        latent_colors(np.array([0, -1]), among=np.arange(3))


def test_one_gaussian_latent_is_grey() -> None:
    assert np.ptp(latent_colors(np.zeros((3, 5))), axis=-1).max() < 0.02


@pytest.mark.parametrize("n_categories", [2, 7, 12, 30])
def test_categorical_latents_get_distinct_colors(n_categories: int) -> None:
    codes = np.random.default_rng(0).permutation(n_categories).repeat(2)
    colors = latent_colors(codes)
    np.testing.assert_array_equal(colors, latent_colors(np.eye(n_categories)[codes]))
    different = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert (different[codes[:, None] == codes[None]] == 0).all()
    assert different[codes[:, None] != codes[None]].min() > 0.05


def test_one_color_without_latents(ax: Axes) -> None:
    assert draw_visits(ax, np.zeros((5, 2)), title="No latent") is ax
    assert len(np.unique(np.asarray(ax.collections[-1].get_facecolor()), axis=0)) == 1
    assert ax.get_title() == "No latent"


def test_visits_of_episodes_take_the_color_of_their_latent(ax: Axes) -> None:
    positions = np.random.default_rng(0).uniform(-5, 5, size=(4, 50, 2))
    latents = np.random.default_rng(1).normal(size=(4, 3))
    draw_visits(ax, positions, latents, trajectories=True, alpha=1.0)
    walls, lines, markers = ax.collections
    assert (len(walls.get_paths()), len(lines.get_paths())) == (68, 4)
    np.testing.assert_allclose(np.asarray(markers.get_offsets(), dtype=np.float64), positions.reshape(-1, 2))
    np.testing.assert_allclose(np.asarray(markers.get_facecolor())[::50, :3], latent_colors(latents))
    assert ax.get_legend() is None


def test_categories_are_named(ax: Axes) -> None:
    draw_visits(ax, np.zeros((4, 2)), np.array([0, 2, 2, 0]))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["z = 0", "z = 2"]


def test_a_row_has_one_legend_of_all_its_latents() -> None:
    from matplotlib.figure import Figure

    row = Figure().subplots(1, 3)
    for ax, categories in zip(row, ([10, 2], [], [2]), strict=True):
        draw_visits(ax, np.zeros((len(categories), 2)), np.eye(12)[categories] if categories else None)
    share_legend(row)
    assert row[0].get_legend() is None and row[1].get_legend() is None
    assert [text.get_text() for text in row[2].get_legend().get_texts()] == ["z = 2", "z = 10"]


def test_bad_arguments_are_refused(ax: Axes) -> None:
    with pytest.raises(ValueError, match=r"positions must have shape .* got \(3,\)"):
        draw_visits(ax, np.zeros(3))
    with pytest.raises(ValueError, match=r"trajectories=True needs positions of shape \(episodes, steps, 2\), got \(5, 2\)"):
        draw_visits(ax, np.zeros((5, 2)), trajectories=True)
    with pytest.raises(ValueError, match=r"latents must have one row for each of the 5 rows .* got shape \(4, 2\)"):
        draw_visits(ax, np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"latents must be integers of shape \(n,\) or have shape \(n, d\), got \(5,\)"):
        latent_colors(np.zeros(5))
    with pytest.raises(ValueError, match="latents must be finite"):
        latent_colors(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="latents must not hold negative codes, got -1"):
        latent_colors(np.array([0, -1]))
