"""Batched dynamics of the maze of Fig. 5 and Fig. 8 of the paper, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sb3_rpg.envs.maze_layout import HALF_SIZE, N_ROOMS, ROOM_SIZE, FloatArray, IntArray, Passage, check_passages, gap_table

STEP_SIZE = 0.25
"""Length of a move along one axis for an action of 1."""
STOP_MARGIN = 1e-5
"""Fraction of the attempted move that is kept between the agent and the wall that stopped it."""
EPISODE_LENGTH = 50

# A crossing this close to the end of a gap counts as a hit. It is far above the rounding error of the crossing point and
# far below any visible length, so a move that is let through is inside the gap in exact arithmetic as well.
_GRAZE = 1e-12


def _gap_ends(gaps: FloatArray, axes: IntArray, lines: FloatArray, along: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Look up the gap in the stretch of wall that a point of a wall's line belongs to.

    :param gaps: see :func:`~sb3_rpg.envs.maze_layout.gap_table`
    :param axes: axis perpendicular to the line, shape (m,)
    :param lines: coordinate of the line on that axis, shape (m,)
    :param along: coordinate of the point along the line, shape (m,)
    :return: lower and upper end of the gap, each of shape (m,); ``inf`` where there is none
    """
    line_index = ((lines + HALF_SIZE) / ROOM_SIZE).astype(np.int64)
    # Which stretch a lattice point falls into does not matter: both are solid there.
    stretch = np.floor((along + HALF_SIZE) / ROOM_SIZE).astype(np.int64).clip(0, N_ROOMS - 1)
    return gaps[0, axes, line_index, stretch], gaps[1, axes, line_index, stretch]


def _is_past(points: FloatArray, limits: FloatArray, directions: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether points on a line have reached their limits, which may be infinite, when moving in their directions."""
    return np.where(directions > 0.0, points >= limits, points <= limits)


def move(positions: FloatArray, actions: FloatArray, gaps: FloatArray) -> FloatArray:
    """
    Move agents by ``0.25 * clip(actions, -1, 1)``, each up to just before the first wall on its way.

    A move is shorter than the distance from a wall's line to the midline of a room, so the only line it can reach on an
    axis is the one nearest to its start, and the test against all 68 walls is one look-up an axis. Walls are closed
    sets: touching the end of a gap is a hit.

    :param positions: positions inside the maze and not on a wall, shape (n, 2)
    :param actions: finite actions, shape (n, 2)
    :param gaps: see :func:`~sb3_rpg.envs.maze_layout.gap_table`
    :return: new positions, shape (n, 2)
    """
    ends = positions + STEP_SIZE * np.minimum(np.maximum(actions, -1.0), 1.0)
    # The nearest odd coordinate. Exact next to a line, unlike a division of `positions + 5` into rooms.
    lines = 2.0 * np.rint(0.5 * (positions - 1.0)) + 1.0
    before, after = positions - lines, ends - lines
    reached = before * after <= 0.0
    if not reached.any():
        return ends

    moves = ends - positions
    rows, axes = np.nonzero(reached)
    others = 1 - axes
    distance, travel = before[rows, axes], moves[rows, axes]
    start, drift = positions[rows, others], moves[rows, others]
    # A start on a line (which can only be inside a gap) is left at once, unless the move runs along the line.
    crossing = distance != 0.0
    sliding = ~crossing & (travel == 0.0)
    times = np.where(crossing, -distance / np.where(crossing, travel, 1.0), 0.0)  # in (0, 1], shape (m,)
    along = start + times * drift
    gap_low, gap_high = _gap_ends(gaps, axes, lines[rows, axes], along)
    blocked = crossing & ~((gap_low + _GRAZE < along) & (along < gap_high - _GRAZE))
    if sliding.any():
        gap_end = np.where(drift > 0.0, gap_high, gap_low)
        slid_into = sliding & (drift != 0.0) & _is_past(ends[rows, others], gap_end, drift)
        times = np.where(slid_into, (gap_end - start) / np.where(slid_into, drift, 1.0), times)
        blocked |= slid_into
    if not blocked.any():
        return ends

    first = np.full(len(positions), np.inf)
    np.minimum.at(first, rows[blocked], times[blocked])
    stopped = np.isfinite(first)
    shares = np.where(stopped, np.maximum(np.where(stopped, first, 0.0) - STOP_MARGIN, 0.0), 1.0)
    stops = np.where(stopped[:, None], positions + shares[:, None] * moves, ends)
    # A margin below the floating-point resolution would put the agent on the wall: keep its coordinate then.
    touching = stopped[:, None] & reached & (before != 0.0) & (before * (stops - lines) <= 0.0)
    stops = np.where(touching, positions, stops)
    if sliding.any():
        stuck = slid_into & _is_past(stops[rows, others], gap_end, drift)
        stops[rows[stuck], others[stuck]] = start[stuck]
    return stops


class MazeCore:
    """
    A batch of agents, each alone in its own copy of the maze of Fig. 5 of the paper.

    :param n_agents: number of agents
    :param blocked: passages that are walled off, see :data:`~sb3_rpg.envs.maze_layout.PASSAGES`
    :raises ValueError: if ``n_agents`` is not positive, or a passage is none of the maze's
    """

    def __init__(self, n_agents: int = 1, blocked: Sequence[Passage] = ()) -> None:
        if n_agents < 1:
            raise ValueError(f"n_agents must be at least 1, got {n_agents}")
        self.n_agents = n_agents
        self.blocked = check_passages(blocked)
        self.positions: FloatArray = np.zeros((n_agents, 2))
        """Current positions, shape (n_agents, 2). Every step and reset binds a new array, so a reference stays valid."""

    def reset(self, agents: npt.ArrayLike | None = None, starts: npt.ArrayLike | None = None) -> FloatArray:
        """
        Put agents at their start.

        :param agents: indices or boolean mask of the agents to reset, all when ``None``
        :param starts: their (x, y) starts, of a shape that broadcasts to (number of agents reset, 2); the centre of the
            maze when ``None``
        :return: positions of all agents, shape (n_agents, 2)
        :raises ValueError: if a start is outside the maze or on a wall
        """
        positions = self.positions.copy()
        index = slice(None) if agents is None else np.atleast_1d(np.asarray(agents))
        positions[index] = 0.0 if starts is None else np.asarray(starts, dtype=np.float64)
        if starts is not None:
            _check_free(positions[index], gap_table(self.blocked))
        self.positions = positions
        return positions

    def step(self, actions: npt.ArrayLike) -> FloatArray:
        """
        Move every agent once, see :func:`move`.

        :param actions: actions of shape (n_agents, 2), clipped to [-1, 1]
        :return: new positions, shape (n_agents, 2)
        :raises ValueError: if the shape is wrong or an action is NaN or infinite
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != (self.n_agents, 2):
            raise ValueError(
                f"actions must have shape ({self.n_agents}, 2), got {actions.shape}; pass one (x, y) pair an agent"
            )
        finite = np.isfinite(actions)
        if not finite.all():
            bad = actions[~finite.all(axis=1)][0]
            raise ValueError(f"actions must be finite, got {bad}; check the policy's output for NaN")
        self.positions = move(self.positions, actions, gap_table(self.blocked))
        return self.positions


def _check_free(positions: FloatArray, gaps: FloatArray) -> None:
    """
    Check that positions are in the free space of the maze.

    :param positions: (x, y) positions, shape (n, 2)
    :param gaps: see :func:`~sb3_rpg.envs.maze_layout.gap_table`
    :raises ValueError: if a position is outside the maze or on a wall
    """
    free = np.asarray((np.abs(positions) < HALF_SIZE).all(axis=1))
    lines = 2.0 * np.rint(0.5 * (positions - 1.0)) + 1.0
    rows, axes = np.nonzero((positions == lines) & free[:, None])
    along = positions[rows, 1 - axes]
    gap_low, gap_high = _gap_ends(gaps, axes, lines[rows, axes], along)
    free[rows[~((gap_low < along) & (along < gap_high))]] = False
    if not free.all():
        raise ValueError(f"starts must be inside the maze and not on a wall, got {positions[~free][0]}; move it into a room")
