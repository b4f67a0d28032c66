"""Pictures of modes: where each z goes, what it earns, and where in the latent space the good ones lie. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sb3_rpg.envs.maze_layout import Passage
from sb3_rpg.envs.maze_plot import draw_maze, latent_colors
from sb3_rpg.modes.clusters import Mode
from sb3_rpg.modes.slices import LatentSlice
from sb3_rpg.modes.trajectories import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: modes that get a colour and a line in the legend; the rest, which are small, share a grey
SHOWN_MODES = 7
_GREY = np.array([0.72, 0.72, 0.72])
_OUTLINE: dict[str, Any] = {"linewidths": 0.6, "edgecolors": "white"}


def mode_colors(n_modes: int) -> npt.NDArray[np.float64]:
    """
    One colour a mode, which colour-blind readers can tell apart.

    :param n_modes: number of modes, the largest first
    :return: sRGB colours in [0, 1], (n_modes, 3); grey from the eighth on
    """
    colors = np.tile(_GREY, (n_modes, 1))
    shown = min(n_modes, SHOWN_MODES)
    colors[:shown] = latent_colors(np.arange(shown))
    return colors


def trajectory_colors(trajectories: Sequence[Trajectory], modes: Sequence[Mode] | None = None) -> npt.NDArray[np.float64]:
    """
    :param trajectories: n of them
    :param modes: their modes; None: coloured by z, similar ones alike
    :return: sRGB colours in [0, 1], (n, 3)
    """
    if modes is None:
        latents = np.stack([t.latent for t in trajectories])
        if latents.shape[1] == 0:  # a policy without z
            return np.tile(latent_colors(np.zeros(1, dtype=np.int64)), (len(trajectories), 1))
        return latent_colors(latents)
    colors = np.tile(_GREY, (len(trajectories), 1))
    for mode, color in zip(modes, mode_colors(len(modes)), strict=True):
        colors[mode.members] = color
    return colors


def mode_label(mode: Mode) -> str:
    """
    :param mode: a mode
    :return: its line in a legend: number, share, return, success
    """
    text = f"mode {mode.number}: {mode.share:.0%}, return {mode.mean_return:.4g}"
    return text if mode.success_rate is None else f"{text}, success {mode.success_rate:.0%}"


def trajectory_figure(
    trajectories: Sequence[Trajectory],
    modes: Sequence[Mode] | None = None,
    dims: tuple[int, int] = (0, 1),
    maze: bool | Sequence[Passage] | None = None,
    labels: tuple[str, str] | None = None,
) -> Figure:
    """
    Where each episode went, over two dimensions of the descriptor.

    A black cross is the start, a disc the end of an episode; hollow where the environment says that it failed.

    :param trajectories: of different latents
    :param modes: colour by mode, with a legend; None: colour by z, similar ones alike
    :param dims: the two dimensions of the paths
    :param maze: draw the walls of ``RPGMaze-v0`` (True), with passages walled off (their list)
    :param labels: names of the two dimensions
    :return: the figure; ``figure.savefig("trajectories.png")`` writes it
    :raises ImportError: if matplotlib is missing
    :raises ValueError: if there are no trajectories, or they lack a dimension
    """
    paths = _chosen(trajectories, dims)
    figure = new_figure(9.2 if modes is not None else 6.4, 6.0)
    ax = figure.add_subplot()
    if maze is not None and maze is not False:
        draw_maze(ax, blocked=() if maze is True else maze)
    else:
        x, y = labels or (f"dimension {dims[0]}", f"dimension {dims[1]}")
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        _tidy(ax)
    colors = trajectory_colors(trajectories, modes)
    # Many lines darken each other: more of them are drawn fainter
    alpha = float(np.clip(40.0 / len(paths), 0.45, 0.9))
    for path, color in zip(paths, colors, strict=True):
        ax.plot(*path.T, color=color, linewidth=1.1, alpha=alpha, zorder=1.5, solid_joinstyle="round")
    ends = np.stack([path[-1] for path in paths])
    _draw_points(ax, ends[:, 0], ends[:, 1], colors, np.array([t.success is False for t in trajectories]))
    starts = np.unique(np.stack([path[0] for path in paths]).round(9), axis=0)
    ax.scatter(
        starts[:, 0], starts[:, 1], s=55 if len(starts) == 1 else 14, marker="x", color="black", linewidths=1.6, zorder=6
    )
    if modes is None:
        ax.set_title(f"{len(paths)} episodes, coloured by z")
    else:
        ax.set_title(f"{len(paths)} episodes, {len(modes)} mode{'s' if len(modes) != 1 else ''}")
        _mode_legend(figure, modes)
    return figure


def return_figure(trajectories: Sequence[Trajectory], modes: Sequence[Mode] | None = None) -> Figure:
    """
    How returns are distributed: a row of points a mode with its mean, or over z's first principal component.

    :param trajectories: of different latents
    :param modes: their modes; None: by z
    :return: the figure
    :raises ImportError: if matplotlib is missing
    :raises ValueError: if there are no trajectories
    """
    _check_some(trajectories)
    returns = np.array([t.episode_return for t in trajectories])
    colors = trajectory_colors(trajectories, modes)
    failed = np.array([t.success is False for t in trajectories])
    if modes is not None:
        figure = new_figure(7.6, 1.6 + 0.42 * max(len(modes), 3))
        ax = figure.add_subplot()
        _draw_by_mode(ax, returns, modes, colors, failed)
        ax.set_title(f"Returns of {len(returns)} episodes by mode (bar: mean)")
        return figure
    figure = new_figure(7.6, 4.2)
    ax, beside = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    latents = np.stack([t.latent for t in trajectories]).astype(np.float64)
    if _is_one_hot(latents):
        x, name = latents.argmax(axis=1).astype(float), "category of z"
        x_drawn = x + _jitter(x, 0.18)
        ax.set_xticks(np.arange(latents.shape[1]))
    else:
        x = x_drawn = _first_component(latents)
        name = "z (first principal component)" if latents.shape[1] > 1 else "z"
    _draw_points(ax, x_drawn, returns, colors, failed)
    ax.set_xlabel(name)
    ax.set_ylabel("return")
    # Equal but for rounding, they cannot be cut into bins
    equal = np.ptp(returns) <= 1e-9 * (1.0 + np.abs(returns).max())
    limits = (returns[0] - 0.5, returns[0] + 0.5) if equal else None
    beside.hist(returns, bins=min(20, max(5, len(returns) // 4)), range=limits, orientation="horizontal", color="0.6")
    beside.axhline(returns.mean(), color="black", linewidth=1.2)
    beside.set_xlabel("episodes")
    for axes in (ax, beside):
        _tidy(axes)
    figure.suptitle(f"Returns of {len(returns)} episodes by z (line: mean {returns.mean():.4g})", fontsize="large")
    return figure


def slice_figure(latent_slice: LatentSlice, modes: Sequence[Mode] | None = None) -> Figure:
    """
    A map of a plane through the latent space: what the model expects of each z and, where they were rolled out, what they
    earned.

    :param latent_slice: see :func:`~sb3_rpg.modes.slices.slice_latents`
    :param modes: mark the z of each, by its number, where it falls on the plane; small where it lies off the plane
    :return: the figure
    :raises ImportError: if matplotlib is missing
    """
    maps = {"value that the model expects": latent_slice.values}
    if latent_slice.returns is not None:
        maps["return of the episode"] = latent_slice.returns
    figure = new_figure(5.6 * len(maps), 5.0)
    offsets = latent_slice.offsets
    half = (offsets[1] - offsets[0]) / 2
    extent = (offsets[0] - half, offsets[-1] + half) * 2
    for ax, (title, values) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        image = ax.imshow(values, origin="lower", extent=extent, cmap="cividis", interpolation="nearest")
        figure.colorbar(image, ax=ax, shrink=0.82)
        ax.set_title(title)
        ax.set_xlabel(latent_slice.labels[0])
        ax.set_ylabel(latent_slice.labels[1])
        for mode in (modes or [])[:SHOWN_MODES]:
            (x, y), distance = latent_slice.project(mode.latent)
            if max(abs(x), abs(y)) <= offsets[-1]:
                on_plane = distance < 0.25 * max(float(np.linalg.norm(mode.latent)), 1e-9)
                _mark(ax, x, y, str(mode.number), 11 if on_plane else 7)
    if modes:
        figure.suptitle("A plane through z = 0; numbers: z of the modes (small: beside the plane)", fontsize="medium")
    return figure


def new_figure(width: float, height: float) -> Figure:
    """
    :param width: in inches
    :param height: in inches
    :return: an empty figure, known to nobody else: it needs no display and no closing
    :raises ImportError: if matplotlib is missing
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "sb3_rpg[modes]"') from error
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _check_some(trajectories: Sequence[Trajectory]) -> None:
    if len(trajectories) == 0:
        raise ValueError("`trajectories` is empty: roll some latents out first, see sb3_rpg.modes.roll_out")


def _chosen(trajectories: Sequence[Trajectory], dims: tuple[int, int]) -> list[np.ndarray]:
    _check_some(trajectories)
    width = trajectories[0].path.shape[1]
    if len(dims) != 2 or not all(-width <= dim < width for dim in dims):
        raise ValueError(f"`dims`={tuple(dims)} must be two of the {width} dimensions of the paths, counted from 0")
    return [t.path[:, list(dims)] for t in trajectories]


def _mode_legend(figure: Figure, modes: Sequence[Mode]) -> None:
    from matplotlib.lines import Line2D

    colors = mode_colors(len(modes))
    lines = [
        Line2D([], [], color=tuple(colors[i]), linewidth=4, label=mode_label(m)) for i, m in enumerate(modes[:SHOWN_MODES])
    ]
    rest = modes[SHOWN_MODES:]
    if rest:
        text = f"{len(rest)} more, {sum(mode.share for mode in rest):.0%} together"
        lines.append(Line2D([], [], color=tuple(_GREY), linewidth=4, label=text))
    figure.legend(handles=lines, loc="outside right center", frameon=False, fontsize="small")


def _draw_by_mode(ax: Axes, returns: np.ndarray, modes: Sequence[Mode], colors: np.ndarray, failed: np.ndarray) -> None:
    for row, mode in enumerate(modes):
        members = mode.members
        height = row + _jitter(members, 0.22)
        _draw_points(ax, returns[members], height, colors[members], failed[members])
        ax.plot([mode.mean_return] * 2, [row - 0.34, row + 0.34], color="black", linewidth=2.0, zorder=6)
    ax.set_yticks(range(len(modes)), [f"mode {mode.number} ({len(mode.members)})" for mode in modes])
    ax.set_ylim(len(modes) - 0.4, -0.6)
    ax.set_xlabel("return")
    _tidy(ax)


def _draw_points(ax: Axes, x: np.ndarray, y: np.ndarray, colors: np.ndarray, failed: np.ndarray) -> None:
    ax.scatter(x[~failed], y[~failed], s=30, c=colors[~failed], zorder=5, **_OUTLINE)
    ax.scatter(x[failed], y[failed], s=24, facecolors="white", edgecolors=colors[failed], linewidths=1.1, zorder=5)


def _mark(ax: Axes, x: float, y: float, text: str, size: float) -> None:
    box: dict[str, Any] = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "black", "linewidth": 1.0}
    ax.text(x, y, text, fontsize=size, ha="center", va="center", bbox=box, zorder=7)


def _jitter(points: np.ndarray, width: float) -> np.ndarray:
    """Reproducible offsets, so that equal returns can be counted."""
    return np.random.default_rng(0).uniform(-width, width, size=len(points))


def _is_one_hot(latents: np.ndarray) -> bool:
    return latents.shape[1] > 1 and bool(np.isin(latents, (0, 1)).all() and (latents.sum(axis=1) == 1).all())


def _first_component(latents: np.ndarray) -> np.ndarray:
    if latents.shape[1] == 0:
        return np.zeros(len(latents))
    centred = latents - latents.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])


def _tidy(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
