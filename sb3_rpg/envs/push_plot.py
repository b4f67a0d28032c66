"""Pictures of the push task and of who went where, coloured by latent. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sb3_rpg.envs.maze_plot import draw_visits
from sb3_rpg.envs.push_core import (
    BOX_HALF,
    BOX_START,
    CELL_SIZE,
    GOAL,
    LOWER_CORNER,
    SUCCESS_DISTANCE,
    UPPER_CORNER,
    wall_cells,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_push(ax: Axes, title: str | None = None) -> Axes:
    """
    Draw walls, the box where it starts, and the disc of success, and set up the axes.

    :param ax: axes to draw on
    :param title: title of the axes
    :return: the axes
    """
    from matplotlib.patches import Circle, Rectangle

    def add_square(centre: npt.ArrayLike, half: float, **style: object) -> None:
        ax.add_patch(Rectangle(tuple(np.asarray(centre) - half), 2 * half, 2 * half, **style))  # type: ignore[arg-type]

    ax.add_patch(Circle(GOAL, SUCCESS_DISTANCE, facecolor="#fce8a8", linewidth=0, zorder=0))
    for cell in wall_cells():
        add_square(cell, CELL_SIZE / 2, facecolor="0.25", linewidth=0, zorder=3)
    add_square(BOX_START, BOX_HALF, facecolor="0.92", edgecolor="0.5", linestyle="--", zorder=0)
    ax.plot(*GOAL, marker="*", markersize=9, color="0.25", zorder=4)
    ax.set_xlim(LOWER_CORNER[0] - 1, UPPER_CORNER[0] + 1)
    ax.set_ylim(LOWER_CORNER[1] - 1, UPPER_CORNER[1] + 1)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title is not None:
        ax.set_title(title)
    return ax


def draw_push_visits(
    ax: Axes,
    positions: npt.ArrayLike,
    latents: npt.ArrayLike | None = None,
    *,
    trajectories: bool = False,
    among: npt.ArrayLike | None = None,
    title: str | None = None,
    size: float = 4.0,
    alpha: float = 0.7,
) -> Axes:
    """
    Draw the push task and the robot's positions in it, coloured by the latent that the policy held.

    :param ax: axes to draw on
    :param positions: see :func:`~sb3_rpg.envs.maze_plot.draw_visits`, as for all that follow
    :param latents: one a position or an episode
    :param trajectories: connect the positions of each episode by a line
    :param among: the latents that colours are shared out to
    :param title: title of the axes
    :param size: area of a marker, in points squared
    :param alpha: opacity of the markers
    :return: the axes
    :raises ValueError: if the shapes do not match
    """
    return draw_visits(
        ax,
        positions,
        latents,
        trajectories=trajectories,
        among=among,
        title=title,
        size=size,
        alpha=alpha,
        geometry=draw_push,
    )
