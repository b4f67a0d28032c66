"""Geometry and batched dynamics of the maze of Fig. 5 and Fig. 8 of the paper, in plain NumPy."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HALF_SIZE = 5.0
"""The maze is the square ``[-HALF_SIZE, HALF_SIZE]^2``."""
ROOM_SIZE = 2.0
N_ROOMS = 5
"""Rooms along one side."""
GAP_WIDTH = 0.4
STEP_SIZE = 0.25
"""Length of a move along one axis for an action of 1."""
STOP_MARGIN = 1e-5
"""Fraction of the attempted move that is kept between the agent and the wall that stopped it."""
N_CELLS = 100
"""Unit cells of the coverage metric."""
EPISODE_LENGTH = 50

# Passages: coordinate of the wall's line -> coordinates, along the wall, of the centres of its gaps.
_GAPS_IN_VERTICAL_WALLS = {-3: (2, 0, -2), -1: (0, -2), 1: (2, 0, -4), 3: (0, -4)}
_GAPS_IN_HORIZONTAL_WALLS = {3: (-4, -2, 0, 2, 4), 1: (-4, 0, 4), -1: (0,), -3: (-4, -2, 0, 2, 4)}
PASSAGES = (_GAPS_IN_VERTICAL_WALLS, _GAPS_IN_HORIZONTAL_WALLS)
"""Indexed by the axis that the wall's line is perpendicular to: 0 for vertical walls, 1 for horizontal ones."""

# A crossing this close to the end of a gap counts as a hit. It is far above the rounding error of the crossing point and
# far below any visible length, so a move that is let through is inside the gap in exact arithmetic as well.
_GRAZE = 1e-12


def _gap_table() -> FloatArray:
    """
    Ends of the gap in each stretch of wall.

    :return: array of shape (2 ends, 2 axes, 6 lines, 5 stretches); a stretch without a gap has ``inf`` for both ends
    """
    table = np.full((2, 2, N_ROOMS + 1, N_ROOMS), np.inf)
    for axis, passages in enumerate(PASSAGES):
        for line, centres in passages.items():
            for centre in centres:
                ends = centre - GAP_WIDTH / 2, centre + GAP_WIDTH / 2
                table[:, axis, (line + 5) // 2, (centre + 4) // 2] = ends
    table.setflags(write=False)
    return table


_GAPS = _gap_table()


def _gap_ends(axes: IntArray, lines: FloatArray, along: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Look up the gap in the stretch of wall that a point of a wall's line belongs to.

    :param axes: axis perpendicular to the line, shape (m,)
    :param lines: coordinate of the line on that axis, shape (m,)
    :param along: coordinate of the point along the line, shape (m,)
    :return: lower and upper end of the gap, each of shape (m,); ``inf`` where there is none
    """
    line_index = ((lines + HALF_SIZE) / ROOM_SIZE).astype(np.int64)
    # Which stretch a lattice point falls into does not matter: both are solid there.
    stretch = np.floor((along + HALF_SIZE) / ROOM_SIZE).astype(np.int64).clip(0, N_ROOMS - 1)
    return _GAPS[0, axes, line_index, stretch], _GAPS[1, axes, line_index, stretch]


def _is_past(points: FloatArray, limits: FloatArray, directions: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether points on a line have reached their limits, which may be infinite, when moving in their directions."""
    return np.where(directions > 0.0, points >= limits, points <= limits)


def maze_walls() -> FloatArray:
    """
    The wall segments of the maze; their end points belong to the wall.

    :return: array of shape (68, 2, 2): segment, end point, (x, y)
    """
    lines = [ROOM_SIZE * i - HALF_SIZE for i in range(N_ROOMS + 1)]
    walls: list[tuple[int, float, float, float]] = []  # axis perpendicular to the wall, its line, start and end along it
    for axis in range(2):
        for i, line in enumerate(lines):
            if i in (0, N_ROOMS):
                walls.append((axis, line, -HALF_SIZE, HALF_SIZE))
                continue
            for start, end, gap_low, gap_high in zip(lines, lines[1:], _GAPS[0, axis, i], _GAPS[1, axis, i], strict=False):
                if np.isinf(gap_low):
                    walls.append((axis, line, start, end))
                else:
                    walls += [(axis, line, start, float(gap_low)), (axis, line, float(gap_high), end)]
    segments = [
        [[line, start], [line, end]] if axis == 0 else [[start, line], [end, line]] for axis, line, start, end in walls
    ]
    return np.array(segments, dtype=np.float64)


def room_depths() -> IntArray:
    """
    Number of passages between the centre room and every room.

    :return: array of shape (5, 5) indexed ``[row, column]``, row 0 at the bottom (y = -4), column 0 at the left (x = -4)
    """
    depths = np.full((N_ROOMS, N_ROOMS), -1, dtype=np.int64)
    depths[N_ROOMS // 2, N_ROOMS // 2] = 0
    queue = deque([(N_ROOMS // 2, N_ROOMS // 2)])
    while queue:
        row, column = queue.popleft()
        for d_row, d_column in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            axis = 0 if d_column else 1
            position, direction = (column, d_column) if axis == 0 else (row, d_row)
            stretch = row if axis == 0 else column
            line_index = position + (direction + 1) // 2
            neighbour = (row + d_row, column + d_column)
            if np.isfinite(_GAPS[0, axis, line_index, stretch]) and depths[neighbour] < 0:
                depths[neighbour] = depths[row, column] + 1
                queue.append(neighbour)
    return depths


def farthest_room() -> tuple[float, float]:
    """
    Centre of the room that is most passages away from the start.

    Two rooms are 5 passages deep, (-2, 4) and (4, -2). The first in reading order (top row first, then left to right)
    is taken.

    :return: (x, y) of the room's centre, (-2, 4)
    """
    depths = room_depths()
    rows, columns = np.nonzero(depths == depths.max())
    row, column = min(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda room: (-room[0], room[1]))
    return ROOM_SIZE * column - 4.0, ROOM_SIZE * row - 4.0


FARTHEST_ROOM = farthest_room()


def in_room(positions: npt.ArrayLike, centre: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """
    Whether positions are in a room.

    :param positions: (x, y) positions, shape (..., 2)
    :param centre: (x, y) of the room's centre
    :return: booleans of shape (...)
    """
    offsets = np.abs(np.asarray(positions, dtype=np.float64) - centre)
    return np.asarray((offsets < ROOM_SIZE / 2).all(axis=-1))


def cells_of(positions: npt.ArrayLike) -> IntArray:
    """
    Unit cell of each position, counted row by row from the bottom left: ``floor(x + 5) + 10 * floor(y + 5)``.

    :param positions: (x, y) positions in the maze's own units, shape (..., 2)
    :return: cell indices in 0..99, shape (...)
    :raises ValueError: if the last axis is not of length 2 or a position is not in the maze
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim == 0 or positions.shape[-1] != 2:
        raise ValueError(f"positions must have shape (..., 2), got {positions.shape}; pass (x, y) pairs")
    inside = np.abs(positions) <= HALF_SIZE  # False for NaN
    if not inside.all():
        outside = positions[~inside.all(axis=-1)][0]
        raise ValueError(f"positions must be within [-5, 5], got {outside}; undo any scaling of the observation first")
    grid = np.floor(positions + HALF_SIZE).astype(np.int64).clip(0, 9)  # the top and right borders belong to the last cells
    return np.asarray(grid[..., 0] + 10 * grid[..., 1])


def coverage(positions: npt.ArrayLike) -> float:
    """
    Share of the 100 unit cells that hold at least one of the positions (the metric of Fig. 8).

    :param positions: (x, y) positions in the maze's own units, shape (..., 2)
    :return: a multiple of 0.01 between 0 and 1
    :raises ValueError: if the last axis is not of length 2 or a position is not in the maze
    """
    return np.unique(cells_of(positions)).size / N_CELLS


def move(positions: FloatArray, actions: FloatArray) -> FloatArray:
    """
    Move agents by ``0.25 * clip(actions, -1, 1)``, each up to just before the first wall on its way.

    A move is shorter than the distance from a wall's line to the midline of a room, so the only line it can reach on an
    axis is the one nearest to its start, and the test against all 68 walls is one look-up an axis. Walls are closed
    sets: touching the end of a gap is a hit.

    :param positions: positions inside the maze and not on a wall, shape (n, 2)
    :param actions: finite actions, shape (n, 2)
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
    gap_low, gap_high = _gap_ends(axes, lines[rows, axes], along)
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
    :raises ValueError: if ``n_agents`` is not positive
    """

    def __init__(self, n_agents: int = 1) -> None:
        if n_agents < 1:
            raise ValueError(f"n_agents must be at least 1, got {n_agents}")
        self.n_agents = n_agents
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
            _check_free(positions[index])
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
        self.positions = move(self.positions, actions)
        return self.positions


def _check_free(positions: FloatArray) -> None:
    """
    Check that positions are in the free space of the maze.

    :param positions: (x, y) positions, shape (n, 2)
    :raises ValueError: if a position is outside the maze or on a wall
    """
    free = np.asarray((np.abs(positions) < HALF_SIZE).all(axis=1))
    lines = 2.0 * np.rint(0.5 * (positions - 1.0)) + 1.0
    rows, axes = np.nonzero((positions == lines) & free[:, None])
    along = positions[rows, 1 - axes]
    gap_low, gap_high = _gap_ends(axes, lines[rows, axes], along)
    free[rows[~((gap_low < along) & (along < gap_high))]] = False
    if not free.all():
        raise ValueError(f"starts must be inside the maze and not on a wall, got {positions[~free][0]}; move it into a room")
