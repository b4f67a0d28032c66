"""Pictures of the maze and of who went where, coloured by latent (Fig. 5 of the paper). Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sb3_rpg.envs.maze import GOALS, RewardKind
from sb3_rpg.envs.maze_layout import (
    GAP_WIDTH,
    HALF_SIZE,
    ROOM_SIZE,
    FloatArray,
    IntArray,
    Passage,
    check_passages,
    maze_walls,
)
from sb3_rpg.envs.raster import PALE_GOLD

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's palette without black (the walls) and with yellow, the faintest on white, last.
_PALETTE = np.array(
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [230, 159, 0], [240, 228, 66]]
) / 255.0  # fmt: skip
_SINGLE_COLOR = (0.4, 0.4, 0.4)
_BLOCKED_COLOR = (0.8, 0.0, 0.1)
_GOAL_COLOR = np.array(PALE_GOLD) / 255.0

_OKLAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _oklab_to_rgb(oklab: FloatArray) -> FloatArray:
    """
    Convert from Oklab, where Euclidean distance is close to perceived difference.

    :param oklab: lightness, green-red, blue-yellow, shape (..., 3)
    :return: sRGB colours in [0, 1], shape (..., 3)
    """
    linear = np.clip((oklab @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _categories(latents: npt.NDArray[np.generic]) -> IntArray | None:
    """Category of each latent, or ``None`` when the latents are continuous."""
    if latents.ndim == 1 and np.issubdtype(latents.dtype, np.integer):
        return latents.astype(np.int64)
    if latents.ndim == 2 and latents.shape[1] > 1 and np.isin(latents, (0, 1)).all() and (latents.sum(axis=1) == 1).all():
        return np.asarray(latents.argmax(axis=1), dtype=np.int64)
    return None


def _category_colors(n_categories: int) -> FloatArray:
    """Distinct colours: a palette that colour-blind readers can tell apart as long as it lasts, then a circle of hues."""
    if n_categories <= len(_PALETTE):
        return _PALETTE[:n_categories]
    angles = 2 * np.pi * np.arange(n_categories) / n_categories
    lightness = np.array([0.55, 0.7, 0.85])[np.arange(n_categories) % 3]  # neighbours in hue differ in lightness
    return _oklab_to_rgb(np.stack([lightness, 0.13 * np.cos(angles), 0.13 * np.sin(angles)], axis=-1))


def latent_colors(latents: npt.ArrayLike, among: npt.ArrayLike | None = None) -> FloatArray:
    """
    One colour a latent: similar latents look similar.

    Categorical latents (integer codes or one-hot rows) get the colours of a colour-blind-safe palette. Continuous ones
    are projected on their first two principal components. The first runs from dark blue to light yellow, the second from
    green to red, evenly in perceived colour; distance from the mean is squashed such that a Gaussian fills the disc of
    colours evenly.

    :param latents: integer codes of shape (n,), or latents of shape (n, d)
    :param among: the latents that colours are shared out to, of the same kind, for several pictures in which a latent should
        keep its colour; those of this one when ``None``
    :return: sRGB colours in [0, 1], shape (n, 3)
    :raises ValueError: if the shape is none of these, a latent is NaN or infinite, or ``among`` is of another kind
    """
    latents = np.asarray(latents)
    among = latents if among is None else np.asarray(among)
    categories, all_categories = _categories(latents), _categories(among)
    if categories is not None and all_categories is not None:
        if categories.size and categories.min() < 0:
            raise ValueError(f"latents must not hold negative codes, got {categories.min()}; count categories from 0")
        n_categories = among.shape[1] if among.ndim == 2 else int(all_categories.max(initial=0)) + 1
        if categories.max(initial=0) >= max(n_categories, 1):
            raise ValueError(f"among must hold all categories of latents, got {n_categories} of them; take those of one model")
        return _category_colors(n_categories)[categories]
    if latents.ndim != 2 or latents.shape[1] == 0:
        raise ValueError(f"latents must be integers of shape (n,) or have shape (n, d), got {latents.shape}; add an axis")
    if among.shape[1:] != latents.shape[1:] or (len(latents) and (categories is None) != (all_categories is None)):
        raise ValueError(
            f"among must hold latents of the same kind, of shape (m, {latents.shape[1]}), got {among.shape}; "
            "take those of one model"
        )
    latents, among = latents.astype(np.float64), among.astype(np.float64)
    if not (np.isfinite(latents).all() and np.isfinite(among).all()):
        raise ValueError("latents must be finite, got NaN or infinity; drop those rows first")
    if len(latents) == 0:
        return np.zeros((0, 3))
    centre = among.mean(axis=0)
    _, singular_values, axes = np.linalg.svd(among - centre, full_matrices=False)
    spread = singular_values[:2]
    # Where all are alike there is no component
    scale = np.where(spread > 1e-9 * (1.0 + spread[0]), np.sqrt(len(among)) / np.maximum(spread, 1e-300), 0.0)
    components = (latents - centre) @ axes[:2].T * scale
    # The sign of a component is arbitrary; fix it, so that the same latents get the same colours on every machine.
    components = components * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])
    u, v = (components[:, i] if i < components.shape[1] else np.zeros(len(latents)) for i in range(2))
    radius = np.hypot(u, v)
    squash = np.sqrt(1.0 - np.exp(-0.5 * radius**2)) / np.maximum(radius, 1e-12)  # uniform on the disc for a Gaussian
    u, v = u * squash, v * squash
    return _oklab_to_rgb(np.stack([0.66 + 0.17 * u, 0.16 * v, 0.14 * u], axis=-1))


def draw_maze(
    ax: Axes,
    title: str | None = None,
    cells: bool = False,
    blocked: Sequence[Passage] = (),
    reward: RewardKind = "none",
) -> Axes:
    """
    Draw the walls and set up the axes. Where a passage is walled off, its gap is drawn in red.

    :param ax: axes to draw on
    :param title: title of the axes
    :param cells: whether to show the unit cells that coverage counts
    :param blocked: passages that are walled off, see :data:`~sb3_rpg.envs.maze_layout.PASSAGES`
    :param reward: tint the rooms that it rewards, see :class:`~sb3_rpg.envs.maze.MazeEnv`
    :return: the axes
    :raises ValueError: if one is none of the maze's passages
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    for x, y in GOALS[reward]:
        corner = (x - ROOM_SIZE / 2, y - ROOM_SIZE / 2)
        ax.add_patch(Rectangle(corner, ROOM_SIZE, ROOM_SIZE, facecolor=_GOAL_COLOR, linewidth=0, zorder=-1))
    if cells:
        ticks = np.arange(-HALF_SIZE + 1.0, HALF_SIZE)
        grid = [[(x, -HALF_SIZE), (x, HALF_SIZE)] for x in ticks] + [[(-HALF_SIZE, y), (HALF_SIZE, y)] for y in ticks]
        ax.add_collection(LineCollection(grid, colors="0.9", linewidths=0.6, zorder=0))
    ax.add_collection(LineCollection(list(maze_walls(blocked)), colors="0.15", linewidths=1.6, capstyle="butt", zorder=3))
    if blocked:
        half = GAP_WIDTH / 2
        plugs = [
            [(x, y - half), (x, y + half)] if x % 2 else [(x - half, y), (x + half, y)] for x, y in check_passages(blocked)
        ]
        ax.add_collection(LineCollection(plugs, colors=[_BLOCKED_COLOR], linewidths=4.0, capstyle="butt", zorder=5.5))
    ax.set_xlim(-HALF_SIZE - 0.15, HALF_SIZE + 0.15)
    ax.set_ylim(-HALF_SIZE - 0.15, HALF_SIZE + 0.15)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title is not None:
        ax.set_title(title)
    return ax


def draw_visits(
    ax: Axes,
    positions: npt.ArrayLike,
    latents: npt.ArrayLike | None = None,
    *,
    trajectories: bool = False,
    among: npt.ArrayLike | None = None,
    title: str | None = None,
    size: float = 4.0,
    alpha: float = 0.7,
    geometry: Callable[[Axes, str | None], Axes] = draw_maze,
) -> Axes:
    """
    Draw the maze and the states visited in it, coloured by the latent that the policy held (see :func:`latent_colors`).

    :param ax: axes to draw on
    :param positions: (x, y) positions, shape (n, 2) or (episodes, steps, 2)
    :param latents: one latent a position or an episode: shape (n, d) or (episodes, d), or integer codes of shape (n,) or
        (episodes,); grey for all when ``None``
    :param trajectories: connect the positions of each episode by a line; needs positions by episode
    :param among: the latents that colours are shared out to, see :func:`latent_colors`
    :param title: title of the axes
    :param size: area of a marker, in points squared
    :param alpha: opacity of the markers
    :param geometry: draws what the states lie in, given axes and title: for another task than the maze
    :return: the axes
    :raises ValueError: if the shapes do not match
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim not in (2, 3) or positions.shape[-1] != 2:
        raise ValueError(f"positions must have shape (n, 2) or (episodes, steps, 2), got {positions.shape}; pass (x, y) pairs")
    if trajectories and positions.ndim != 3:
        raise ValueError(f"trajectories=True needs positions of shape (episodes, steps, 2), got {positions.shape}; group them")
    categories: IntArray | None = None
    colors = np.tile(_SINGLE_COLOR, (len(positions), 1))
    if latents is not None:
        latents = np.asarray(latents)
        if latents.ndim == 0 or len(latents) != len(positions):
            raise ValueError(
                f"latents must have one row for each of the {len(positions)} rows of positions, got shape {latents.shape}; "
                "select the same rows from both"
            )
        categories = _categories(latents)
        colors = latent_colors(latents, among)
    geometry(ax, title)
    if trajectories:
        from matplotlib.collections import LineCollection

        ax.add_collection(LineCollection(list(positions), colors=list(colors), linewidths=0.8, alpha=0.6 * alpha, zorder=1))
    per_position = np.repeat(colors, positions.shape[1], axis=0) if positions.ndim == 3 else colors
    x, y = positions.reshape(-1, 2).T
    ax.scatter(x, y, s=size, c=per_position, alpha=alpha, linewidths=0, zorder=2, rasterized=True)
    if categories is not None and categories.size:
        # Empty scatters, so that the legend shows full colours at a readable size.
        for category in np.unique(categories).tolist():
            color = colors[np.flatnonzero(categories == category)[0]]
            ax.scatter([], [], s=40, color=[color], linewidths=0, label=f"z = {category}")
        share_legend([ax])
    return ax


def share_legend(row: Sequence[Axes]) -> None:
    """
    Put one legend behind a row, of every z that any of its pictures shows; a z has one colour throughout the row.

    :param row: axes drawn by :func:`draw_visits`, left to right; their own legends are removed
    """
    handles: dict[str, Artist] = {}
    for ax in row:
        if (legend := ax.get_legend()) is not None:
            legend.remove()
        found, labels = ax.get_legend_handles_labels()
        handles.update(zip(labels, found, strict=True))
    if handles:
        labels = sorted(handles, key=lambda label: (len(label), label))
        shown = [handles[label] for label in labels]
        row[-1].legend(shown, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.2)
