"""Geometry of the maze of Fig. 5 and Fig. 8 of the paper: rooms, walls, passages, cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Passage = tuple[int, int]
"""(x, y) of the middle of a passage's gap: one coordinate is that of a wall, and odd, the other that of a room's centre."""

HALF_SIZE = 5.0
"""The maze is the square ``[-HALF_SIZE, HALF_SIZE]^2``."""
ROOM_SIZE = 2.0
N_ROOMS = 5
"""Rooms along one side."""
GAP_WIDTH = 0.4
N_CELLS = 100
"""Unit cells of the coverage metric."""

# Passages: coordinate of the wall's line -> coordinates, along the wall, of the centres of its gaps.
_GAPS_IN_VERTICAL_WALLS = {-3: (2, 0, -2), -1: (0, -2), 1: (2, 0, -4), 3: (0, -4)}
_GAPS_IN_HORIZONTAL_WALLS = {3: (-4, -2, 0, 2, 4), 1: (-4, 0, 4), -1: (0,), -3: (-4, -2, 0, 2, 4)}
PASSAGES: tuple[Passage, ...] = (
    *((line, centre) for line, centres in _GAPS_IN_VERTICAL_WALLS.items() for centre in centres),
    *((centre, line) for line, centres in _GAPS_IN_HORIZONTAL_WALLS.items() for centre in centres),
)
"""The 24 passages; the start's room has those at (-1, 0), (1, 0), (0, -1) and (0, 1)."""


def check_passages(blocked: Sequence[Passage]) -> tuple[Passage, ...]:
    """
    :param blocked: passages, see :data:`PASSAGES`
    :return: the same ones, sorted, each once
    :raises ValueError: if one is none of the maze's passages
    """
    passages = sorted({(int(x), int(y)) if x == int(x) and y == int(y) else (x, y) for x, y in blocked})
    for passage in passages:
        if passage not in PASSAGES:
            raise ValueError(
                f"blocked={list(blocked)} names {passage}, where the maze has no passage; passages are the (x, y) in the "
                f"middle of a gap: {', '.join(map(str, sorted(PASSAGES)))}"
            )
    return tuple(passages)


@cache
def gap_table(blocked: tuple[Passage, ...] = ()) -> FloatArray:
    """
    Ends of the gap in each stretch of wall.

    :param blocked: passages that are walled off, as :func:`check_passages` gives them
    :return: array of shape (2 ends, 2 axes, 6 lines, 5 stretches), read-only; a stretch without a gap has ``inf`` for both
        ends
    """
    table = np.full((2, 2, N_ROOMS + 1, N_ROOMS), np.inf)
    for passage in PASSAGES:
        if passage not in blocked:
            # The axis that the wall's line is perpendicular to: the odd coordinate
            axis = 0 if passage[0] % 2 else 1
            line, centre = passage[axis], passage[1 - axis]
            table[:, axis, (line + 5) // 2, (centre + 4) // 2] = centre - GAP_WIDTH / 2, centre + GAP_WIDTH / 2
    table.setflags(write=False)
    return table


def maze_walls(blocked: Sequence[Passage] = ()) -> FloatArray:
    """
    The wall segments of the maze; their end points belong to the wall.

    :param blocked: passages that are walled off
    :return: array of shape (68, 2, 2), one segment less for each blocked passage: segment, end point, (x, y)
    :raises ValueError: if one is none of the maze's passages
    """
    gaps = gap_table(check_passages(blocked))
    lines = [ROOM_SIZE * i - HALF_SIZE for i in range(N_ROOMS + 1)]
    walls: list[tuple[int, float, float, float]] = []  # axis perpendicular to the wall, its line, start and end along it
    for axis in range(2):
        for i, line in enumerate(lines):
            if i in (0, N_ROOMS):
                walls.append((axis, line, -HALF_SIZE, HALF_SIZE))
                continue
            for start, end, gap_low, gap_high in zip(lines, lines[1:], gaps[0, axis, i], gaps[1, axis, i], strict=False):
                if np.isinf(gap_low):
                    walls.append((axis, line, start, end))
                else:
                    walls += [(axis, line, start, float(gap_low)), (axis, line, float(gap_high), end)]
    segments = [
        [[line, start], [line, end]] if axis == 0 else [[start, line], [end, line]] for axis, line, start, end in walls
    ]
    return np.array(segments, dtype=np.float64)


def room_depths(blocked: Sequence[Passage] = ()) -> IntArray:
    """
    Number of passages between the centre room and every room.

    :param blocked: passages that are walled off
    :return: array of shape (5, 5) indexed ``[row, column]``, row 0 at the bottom (y = -4), column 0 at the left (x = -4);
        -1 for rooms that no way leads to
    :raises ValueError: if one is none of the maze's passages
    """
    gaps = gap_table(check_passages(blocked))
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
            if np.isfinite(gaps[0, axis, line_index, stretch]) and depths[neighbour] < 0:
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


def in_outer_room(positions: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """
    Whether positions are in one of the 16 rooms along the outer wall. Each of the start's four passages leads there, so one of
    them is enough.

    :param positions: (x, y) positions, shape (..., 2)
    :return: booleans of shape (...)
    """
    return np.asarray(np.abs(np.asarray(positions, dtype=np.float64)).max(axis=-1) > HALF_SIZE - ROOM_SIZE)


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
