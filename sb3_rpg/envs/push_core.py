"""Geometry and batched dynamics of AntPush's maze (Section 5 of the paper) with a point robot, in plain NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CELL_SIZE = 8.0
"""Side of a cell, in AntPush's units. Cell (i, j) is the square of this side around ``(8 i, 8 j)``."""
FREE_CELLS = ((0, 0), (-1, 0), (-1, 1), (0, 1), (1, 1), (0, 2))
"""(column, row) of all cells without a wall: start, left of it, then left, place and right of the box, goal."""
LOWER_CORNER = (-12.0, -4.0)
UPPER_CORNER = (12.0, 20.0)
"""No cell reaches beyond."""
BOX_START = (0.0, 8.0)
GOAL = (0.0, 19.0)
SUCCESS_DISTANCE = 5.0
"""To the goal, from the robot's centre."""
REWARD_SCALE = -0.1
"""Of the distance to the goal."""
ROBOT_HALF = 1.0
BOX_HALF = 4.0
"""Half the side; robot and box are squares that do not turn. The box fills a cell, so that it fits its corridor exactly."""
MAX_SPEED = 1.0
"""Units a step, on each axis."""
RESPONSE = 0.2
"""Share of the difference between wanted and actual velocity that a step makes up for."""
EPISODE_LENGTH = 100

# Squares whose sides come closer than this touch, and do not overlap: far above the rounding error of a position, and far
# below any length that shows
_GRAZE = 1e-9


def _solid_cells() -> BoolArray:
    """Whether there is a wall, shape (5 columns, 5 rows): columns -2 to 2, rows -1 to 3."""
    solid = np.ones((5, 5), dtype=bool)
    for column, row in FREE_CELLS:
        solid[column + 2, row + 1] = False
    solid.setflags(write=False)
    return solid


_SOLID = _solid_cells()


def wall_cells() -> FloatArray:
    """
    The cells with a wall that touch a free one, at an edge or a corner.

    :return: (x, y) of their centres, shape (n, 2)
    """
    near = {(column + i, row + j) for column, row in FREE_CELLS for i in (-1, 0, 1) for j in (-1, 0, 1)}
    return CELL_SIZE * np.array(sorted(near - set(FREE_CELLS)), dtype=np.float64)


def free_travel(centres: FloatArray, half: float, axis: int, distances: FloatArray) -> FloatArray:
    """
    How far squares can go along an axis before a wall stops them.

    A step is shorter than a cell, so that the only line of the grid to be met is the next one ahead of the leading side; a
    square no wider than a cell reaches at most two cells behind it.

    :param centres: centres of the squares, shape (n, 2)
    :param half: half their side, at most half a cell
    :param axis: 0 for x, 1 for y
    :param distances: how far they would go, signed, below a cell, shape (n,)
    :return: how far they do go, shape (n,)
    """
    signs = np.where(distances < 0.0, -1.0, 1.0)
    # The grid is its own mirror image, so that both directions are one in mirrored coordinates
    sides = signs * centres[:, axis] + half
    ahead = np.ceil((sides - CELL_SIZE / 2 - _GRAZE) / CELL_SIZE)  # of the cell that the line ahead closes
    room = np.maximum(CELL_SIZE * ahead + CELL_SIZE / 2 - sides, 0.0)
    meets = np.abs(distances) > room
    if not meets.any():
        return distances
    across = centres[:, 1 - axis] + CELL_SIZE / 2
    behind = (signs * (ahead + 1.0)).astype(np.int64)
    low = np.floor((across - half + _GRAZE) / CELL_SIZE).astype(np.int64)
    high = np.floor((across + half - _GRAZE) / CELL_SIZE).astype(np.int64)
    if axis == 0:
        solid = _SOLID[behind + 2, low + 1] | _SOLID[behind + 2, high + 1]
    else:
        solid = _SOLID[low + 2, behind + 1] | _SOLID[high + 2, behind + 1]
    return np.where(meets & solid, signs * room, distances)


def _meetings(offsets: FloatArray, axis: int, travels: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
    """
    Who of robot and box, moving along an axis, meets the other.

    :param offsets: from the one that moves to the other, shape (n, 2)
    :param axis: 0 for x, 1 for y
    :param travels: how far it goes, signed, shape (n,)
    :return: whether it meets the other, the sign of its way, and how far it goes before, each of shape (n,)
    """
    signs = np.where(travels < 0.0, -1.0, 1.0)
    reach = ROBOT_HALF + BOX_HALF
    gaps = signs * offsets[:, axis] - reach  # negative where the other is behind or beside it
    meets = (np.abs(offsets[:, 1 - axis]) < reach - _GRAZE) & (gaps > -_GRAZE) & (np.abs(travels) > gaps)
    return meets, signs, np.maximum(gaps, 0.0)


def push_along(robots: FloatArray, boxes: FloatArray, axis: int, distances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Move robots along an axis, and with them the boxes that are in their way, until a wall stops either.

    :param robots: their centres, shape (n, 2)
    :param boxes: their boxes' centres, shape (n, 2)
    :param axis: 0 for x, 1 for y
    :param distances: how far the robots would go, signed, shape (n,)
    :return: how far robots and boxes do go, each of shape (n,)
    """
    travels = free_travel(robots, ROBOT_HALF, axis, distances)
    pushes, signs, gaps = _meetings(boxes - robots, axis, travels)
    if not pushes.any():
        return travels, np.zeros_like(travels)
    pushed = free_travel(boxes, BOX_HALF, axis, np.where(pushes, travels - signs * gaps, 0.0))
    return np.where(pushes, signs * gaps + pushed, travels), np.where(pushes, pushed, 0.0)


def slide_along(robots: FloatArray, boxes: FloatArray, axis: int, distances: FloatArray) -> FloatArray:
    """
    Let boxes go on along an axis until a wall or their robot, which they do not move, stops them.

    :param robots: their robots' centres, shape (n, 2)
    :param boxes: their centres, shape (n, 2)
    :param axis: 0 for x, 1 for y
    :param distances: how far they would go, signed, shape (n,)
    :return: how far they do go, shape (n,)
    """
    travels = free_travel(boxes, BOX_HALF, axis, distances)
    meets, signs, gaps = _meetings(robots - boxes, axis, travels)
    return np.where(meets, signs * gaps, travels)


def _touch_nothing(robots: FloatArray, boxes: FloatArray, moves: FloatArray) -> bool:
    """Whether no move comes near a wall or a box: then the rest, which would find the same, can be left out."""
    lengths = np.abs(moves)
    in_cell = np.abs(robots - CELL_SIZE * np.rint(robots / CELL_SIZE)) + lengths < CELL_SIZE / 2 - ROBOT_HALF
    if not in_cell.all():
        return False
    return bool((np.abs(boxes - robots) - lengths > ROBOT_HALF + BOX_HALF).any(axis=1).all())


class PushCore:
    """
    A batch of point robots, each alone with its box in its own copy of AntPush's maze.

    A robot is a square of side 2, about as wide as the ant. Its velocity follows the wanted one, ``clip(action, -1, 1)``
    units a step, with a lag: ``v += 0.2 * (wanted - v)``. It then moves along x and along y, by exactly that much or up to the
    wall or the jammed box that stops it, which also stops its velocity.

    The box is as AntPush's: next to nothing in weight, and its slides have no friction. Where it is pushed, it takes on the
    robot's velocity, and it keeps it when the robot falls behind, until a wall or the robot stops it.

    :param n_agents: number of robots
    :raises ValueError: if ``n_agents`` is not positive
    """

    def __init__(self, n_agents: int = 1) -> None:
        if n_agents < 1:
            raise ValueError(f"n_agents must be at least 1, got {n_agents}")
        self.n_agents = n_agents
        # Every step and reset binds new arrays, so a reference stays valid
        self.positions: FloatArray = np.zeros((n_agents, 2))
        """Centres of the robots, shape (n_agents, 2)."""
        self.velocities: FloatArray = np.zeros((n_agents, 2))
        """Movements of the last step, shape (n_agents, 2)."""
        self.boxes: FloatArray = np.tile(np.array(BOX_START), (n_agents, 1))
        """Centres of the boxes, shape (n_agents, 2)."""
        self.box_velocities: FloatArray = np.zeros((n_agents, 2))
        """Velocities that the boxes go on with, shape (n_agents, 2)."""

    def reset(self, agents: npt.ArrayLike | None = None, starts: npt.ArrayLike | None = None) -> FloatArray:
        """
        Put robots and boxes at their start, at rest.

        :param agents: indices or boolean mask of the robots to reset, all when ``None``
        :param starts: their (x, y) starts, of a shape that broadcasts to (number of robots reset, 2); the origin when
            ``None``
        :return: positions of all robots, shape (n_agents, 2)
        :raises ValueError: if a start is not inside the start's cell
        """
        index = slice(None) if agents is None else np.atleast_1d(np.asarray(agents))
        places = np.zeros(2) if starts is None else np.asarray(starts, dtype=np.float64)
        limit = CELL_SIZE / 2 - ROBOT_HALF
        if not (np.abs(places) <= limit).all():
            raise ValueError(f"starts must be within [-{limit:g}, {limit:g}] of the origin, got {places}; move them inside")
        self.positions, self.velocities = self.positions.copy(), self.velocities.copy()
        self.boxes, self.box_velocities = self.boxes.copy(), self.box_velocities.copy()
        self.positions[index], self.velocities[index] = places, 0.0
        self.boxes[index], self.box_velocities[index] = BOX_START, 0.0
        return self.positions

    def step(self, actions: npt.ArrayLike) -> FloatArray:
        """
        Move every robot, and the boxes that are on their way, once.

        :param actions: wanted velocities in units a step, shape (n_agents, 2), clipped to [-1, 1]
        :return: new positions, shape (n_agents, 2)
        :raises ValueError: if the shape is wrong or an action is NaN or infinite
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != (self.n_agents, 2):
            raise ValueError(
                f"actions must have shape ({self.n_agents}, 2), got {actions.shape}; pass one (x, y) pair a robot"
            )
        finite = np.isfinite(actions)
        if not finite.all():
            bad = actions[~finite.all(axis=1)][0]
            raise ValueError(f"actions must be finite, got {bad}; check the policy's output for NaN")
        wanted = MAX_SPEED * np.minimum(np.maximum(actions, -1.0), 1.0)
        moves = self.velocities + RESPONSE * (wanted - self.velocities)
        if not self.box_velocities.any() and _touch_nothing(self.positions, self.boxes, moves):
            self.positions, self.velocities = self.positions + moves, moves
            return self.positions
        positions, boxes, box_velocities = self.positions.copy(), self.boxes.copy(), self.box_velocities.copy()
        for axis in range(2):
            slid = slide_along(positions, boxes, axis, box_velocities[:, axis])
            boxes[:, axis] += slid
            moves[:, axis], pushed = push_along(positions, boxes, axis, moves[:, axis])
            positions[:, axis] += moves[:, axis]
            boxes[:, axis] += pushed
            kept = np.where(slid == box_velocities[:, axis], slid, 0.0)  # nothing bounces
            box_velocities[:, axis] = np.where(pushed != 0.0, moves[:, axis], kept)
        self.positions, self.velocities = positions, moves
        self.boxes, self.box_velocities = boxes, box_velocities
        return positions

    def distances(self) -> FloatArray:
        """
        :return: distances of the robots to the goal, shape (n_agents,)
        """
        offsets = self.positions - GOAL
        return np.hypot(offsets[:, 0], offsets[:, 1])
