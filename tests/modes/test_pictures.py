"""Pictures show what there is: each episode where it went, in its mode's colour."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sb3_rpg.envs import MazeVecEnv
from sb3_rpg.modes import Mode, Trajectory, slice_latents
from tests.conftest import small_rpg

pytest.importorskip("matplotlib")

from sb3_rpg.modes.pictures import (
    mode_colors,
    mode_label,
    return_figure,
    slice_figure,
    trajectory_colors,
    trajectory_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OBS = np.array([0.0, 1.0, 0.0], dtype=np.float32)


def episode(i: int, success: bool | None = None, dim: int = 3) -> Trajectory:
    rng = np.random.default_rng(i)
    return Trajectory(rng.normal(size=3), rng.uniform(-4, 4, (6, dim)), np.zeros((5, 1)), np.full(5, float(i)), success)


def modes_of(*groups: list[int]) -> list[Mode]:
    total = sum(map(len, groups))
    return [
        Mode(n, np.array(group), np.zeros(3), len(group) / total, 5.0 * float(np.mean(group)), None)
        for n, group in enumerate(groups)
    ]


def colors_of_lines(figure: Figure) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(line.get_color()) for line in figure.axes[0].lines])


@pytest.mark.parametrize("dims", [(0, 1), (2, 0), (-1, 1)])
def test_paths_over_the_chosen_dimensions_in_the_colour_of_their_mode(dims: tuple[int, int]) -> None:
    trajectories = [episode(i) for i in range(5)]
    modes = modes_of([0, 3, 4], [1, 2])
    figure = trajectory_figure(trajectories, modes, dims=dims)
    lines = figure.axes[0].lines
    for line, trajectory in zip(lines, trajectories, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), trajectory.path[:, list(dims)])
    colors = mode_colors(2)
    np.testing.assert_allclose(colors_of_lines(figure), colors[[0, 1, 1, 0, 0]])
    assert figure.axes[0].get_xlabel() == f"dimension {dims[0]}"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [mode_label(mode) for mode in modes]
    assert mode_label(modes[0]) == "mode 0: 60%, return 11.67"


def test_colours_by_z_are_alike_for_similar_z() -> None:
    trajectories = [episode(i) for i in range(4)]
    trajectories.append(trajectories[0]._replace(latent=trajectories[0].latent + 1e-6))
    colors = trajectory_colors(trajectories)
    np.testing.assert_allclose(colors[4], colors[0], atol=1e-3)
    assert np.linalg.norm(colors[0] - colors[1]) > 0.05
    figure = trajectory_figure(trajectories)
    np.testing.assert_allclose(colors_of_lines(figure), colors)
    assert not figure.legends
    without_z = [t._replace(latent=np.zeros(0)) for t in trajectories]
    assert len(np.unique(trajectory_colors(without_z), axis=0)) == 1


def test_ends_are_hollow_where_episodes_failed() -> None:
    figure = trajectory_figure([episode(0, True), episode(1, False), episode(2, None)])
    full, hollow, starts = figure.axes[0].collections
    ends = [episode(i).path[-1, :2] for i in range(3)]
    np.testing.assert_allclose(np.asarray(full.get_offsets()), [ends[0], ends[2]])
    np.testing.assert_allclose(np.asarray(hollow.get_offsets()), [ends[1]])
    assert np.asarray(hollow.get_facecolor())[0, :3].min() == 1.0
    assert len(np.asarray(starts.get_offsets())) == 3


@pytest.mark.parametrize(("maze", "n_walls"), [(True, 68), ([(1, 0), (0, 1)], 66), ([], 68)])
def test_the_maze_is_drawn_beneath(maze: bool | list[tuple[int, int]], n_walls: int) -> None:
    figure = trajectory_figure([episode(0)], maze=maze)
    assert len(figure.axes[0].collections[0].get_paths()) == n_walls


def test_many_modes_share_a_grey() -> None:
    trajectories = [episode(i) for i in range(10)]
    modes = modes_of(*[[i] for i in range(10)])
    colors = mode_colors(10)
    assert len(np.unique(colors, axis=0)) == 8 and np.array_equal(colors[7], colors[9])
    (legend,) = trajectory_figure(trajectories, modes).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == 8 and texts[-1] == "3 more, 30% together"


def test_returns_by_mode_and_by_z() -> None:
    trajectories = [episode(i, success=i > 2) for i in range(6)]
    modes = modes_of([0, 1, 5], [2, 3, 4])
    ax = return_figure(trajectories, modes).axes[0]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    rows = np.rint(points[:, 1])
    assert sorted(points[rows == 0, 0]) == [0.0, 5.0, 25.0] and sorted(points[rows == 1, 0]) == [10.0, 15.0, 20.0]
    assert [np.asarray(line.get_xdata())[0] for line in ax.lines] == [10.0, 15.0]  # the means
    by_z, histogram = return_figure(trajectories).axes
    assert sorted(np.concatenate([np.asarray(c.get_offsets())[:, 1] for c in by_z.collections])) == [0, 5, 10, 15, 20, 25]
    assert sum(patch.get_width() for patch in histogram.patches) == 6  # type: ignore[attr-defined]
    alike = [t._replace(rewards=np.array([0.3 + 1e-16 * i])) for i, t in enumerate(trajectories)]
    assert sum(patch.get_width() for patch in return_figure(alike).axes[1].patches) == 6  # type: ignore[attr-defined]
    one_hot = [t._replace(latent=np.eye(3)[i % 3]) for i, t in enumerate(trajectories)]
    assert return_figure(one_hot).axes[0].get_xlabel() == "category of z"


# --- slices -----------------------------------------------------------------------------------------------------------


def test_a_plane_through_two_latents() -> None:
    model = small_rpg().learn(20)
    first, second = np.array([2.0, 0.0, 0.0]), np.array([1.0, 3.0, 0.0])
    cut = slice_latents(model, OBS, [first, second], n_points=5)
    assert cut.latents.shape == (5, 5, 3) and cut.values.shape == (5, 5) and cut.returns is None
    for z, expected in ((first, (2.0, 0.0)), (second, (1.0, 3.0))):
        place, distance = cut.project(z)
        assert place == pytest.approx(expected) and distance == pytest.approx(0.0, abs=1e-9)
    assert cut.project(np.array([0.0, 0.0, 4.0]))[1] == pytest.approx(4.0)
    assert cut.offsets[-1] == pytest.approx(1.15 * 3.0)  # both lie inside
    np.testing.assert_allclose(cut.latents[4, 0], [-cut.offsets[-1], cut.offsets[-1], 0.0], rtol=1e-6)  # top left
    along = slice_latents(model, OBS, dims=(2, 0), n_points=3)
    np.testing.assert_allclose(along.latents[0, 2], [-2.6, 0.0, 2.6], rtol=1e-6)
    assert along.labels == ("z[2]", "z[0]")


def test_returns_of_a_slice_are_those_of_its_latents() -> None:
    from sb3_rpg.modes import roll_out

    model = small_rpg(MazeVecEnv(2)).learn(40)
    env = MazeVecEnv(3, reward="escape", max_episode_steps=20)
    obs = np.zeros(28, dtype=np.float32)
    cut = slice_latents(model, obs, n_points=3, env=env)
    assert cut.returns is not None
    alone = roll_out(model, env, cut.latents[2, 1][None])[0]
    assert cut.returns[2, 1] == alone.episode_return
    figure = slice_figure(cut, modes_of([0], [1]))
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_allclose(np.asarray(images[0]), cut.values)
    np.testing.assert_allclose(np.asarray(images[1]), cut.returns)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1"]


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`trajectories` is empty: roll some latents out first"):
        trajectory_figure([])
    with pytest.raises(ValueError, match=r"`dims`=\(0, 3\) must be two of the 3 dimensions"):
        trajectory_figure([episode(0)], dims=(0, 3))
    with pytest.raises(ValueError, match=r"names .* where the maze has no passage"):
        trajectory_figure([episode(0)], maze=[(0, 0)])
    model = small_rpg()
    with pytest.raises(ValueError, match=r"`dims`=\(0, 0\) must be two different dimensions of z, from 0 to 2"):
        slice_latents(model, OBS, dims=(0, 0))
    with pytest.raises(ValueError, match="on one line with the origin"):
        slice_latents(model, OBS, [np.ones(3), 2 * np.ones(3)])
    with pytest.raises(ValueError, match=r"`through` has the shape \(1, 3\)"):
        slice_latents(model, OBS, [np.ones(3)])
    with pytest.raises(ValueError, match="`n_points` must be at least 2, got 1"):
        slice_latents(model, OBS, n_points=1)
    with pytest.raises(ValueError, match="latent='categorical' with 3 numbers has no plane to slice"):
        slice_latents(small_rpg(latent="categorical"), OBS)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pictures need matplotlib: pip install "sb3_rpg\[modes\]"'):
        trajectory_figure([episode(0)])
