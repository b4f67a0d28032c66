"""The push task's geometry, its local optima by scripted policies, and laws that hold for all moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.envs import PushCore
from sb3_rpg.envs.push_core import BOX_HALF, ROBOT_HALF, wall_cells
from tests.envs.push_policies import (
    AHEAD_THEN_RIGHT,
    IDLE,
    LEFT_AND_ROUND,
    RIGHT_AT_ONCE,
    STRAIGHT_AHEAD,
    head_for,
    outcome,
)

#: AntPush's map, top row first, as the task's description has it
MAP = """
#####
##.##
#...#
#..##
#####
"""
WALLS = [
    (8.0 * (column - 2), 8.0 * (3 - row))
    for row, line in enumerate(MAP.split())
    for column, sign in enumerate(line)
    if sign == "#"
]
TOLERANCE = 1e-9


def depth(a: np.ndarray, half_a: float, b: Sequence[float] | np.ndarray, half_b: float) -> float:
    """How deep two squares are in each other; negative if they are apart."""
    return float(half_a + half_b - np.abs(np.asarray(a) - b).max())


def assert_legal(core: PushCore) -> None:
    for robot, box in zip(core.positions, core.boxes, strict=True):
        assert depth(robot, ROBOT_HALF, box, BOX_HALF) <= TOLERANCE
        for wall in WALLS:
            assert depth(robot, ROBOT_HALF, wall, 4.0) <= TOLERANCE, (robot, wall)
            assert depth(box, BOX_HALF, wall, 4.0) <= TOLERANCE, (box, wall)


# --- geometry and optima ----------------------------------------------------------------------------------------------


def test_walls_are_those_of_the_map() -> None:
    assert {tuple(cell) for cell in wall_cells().tolist()} <= set(WALLS)
    free = {(0, 0), (-8, 0), (-8, 8), (0, 8), (8, 8), (0, 16)}
    everywhere = {(8 * i, 8 * j) for i in range(-2, 3) for j in range(-1, 4)}
    assert everywhere - set(WALLS) == free
    # The rest of the map cannot be touched
    assert {(x, y) for x, y in everywhere - free if any(max(abs(x - a), abs(y - b)) == 8 for a, b in free)} == {
        tuple(cell) for cell in wall_cells().tolist()
    }


def test_straight_ahead_the_box_jams_in_the_goals_cell() -> None:
    value, core = outcome(STRAIGHT_AHEAD)
    np.testing.assert_allclose(core.boxes[0], [0, 16])
    np.testing.assert_allclose(core.positions[0], [0, 11])
    assert core.distances()[0] == pytest.approx(8.0)  # no success, and no way on
    assert value == pytest.approx(-89.0, abs=0.5)
    for direction in ((0, 1), (1, 1), (-1, 1)):
        for _ in range(20):
            core.step([direction])
        np.testing.assert_allclose(core.boxes[0], [0, 16])


def test_right_is_a_dead_end() -> None:
    value, core = outcome(AHEAD_THEN_RIGHT)
    assert depth(core.positions[0], 0.0, (8, 8), 4.0) > 0  # in the cell on the right
    assert core.distances()[0] > 13
    assert value == pytest.approx(-136, abs=2)
    value, core = outcome(RIGHT_AT_ONCE)
    np.testing.assert_allclose(core.positions[0], [3, 0], atol=1e-12)
    np.testing.assert_array_equal(core.boxes[0], [0, 8])
    assert value < outcome(IDLE)[0]


def test_round_the_left_the_way_opens() -> None:
    value, core = outcome(LEFT_AND_ROUND)
    assert core.boxes[0, 0] >= 2 * ROBOT_HALF and core.boxes[0, 1] == 8  # pushed aside by a robot's width
    assert core.distances()[0] < 0.1
    assert value == pytest.approx(-65.5, abs=2)


def test_the_optima_are_far_apart() -> None:
    idle, ahead, right, left = (outcome(way)[0] for way in (IDLE, STRAIGHT_AHEAD, AHEAD_THEN_RIGHT, LEFT_AND_ROUND))
    assert idle == pytest.approx(-190)
    assert idle + 50 < right < ahead - 40
    assert idle + 100 < ahead < left - 20


def test_the_first_steps_pay_ahead_and_cost_to_the_left() -> None:
    start, ahead, left = PushCore(), PushCore(), PushCore()
    for _ in range(10):
        ahead.step([(0, 1)])
        left.step([(-1, 0)])
    assert ahead.distances()[0] < start.distances()[0] < left.distances()[0]


def test_a_box_touched_from_below_slides_ahead_and_cannot_be_pushed_aside() -> None:
    core = PushCore()
    core.reset(starts=(0.0, 2.99))
    core.step([(0, 1)])
    assert 8.0 < core.boxes[0, 1] < 8.25 and core.box_velocities[0, 1] == core.velocities[0, 1] > 0
    for _ in range(5):  # the robot turns back
        core.step([(0, -1)])
    assert 8.25 < core.boxes[0, 1] < 16
    core.positions = np.array([[-6.0, 8.0]])  # beside it, on the left
    core.velocities = np.zeros((1, 2))
    for _ in range(20):
        core.step([(1, 0)])
        assert core.boxes[0, 0] == 0.0
    np.testing.assert_allclose(core.positions[0], [-5, 8])


def test_a_box_goes_on_alone_until_a_wall_stops_it() -> None:
    core = PushCore()
    core.positions, core.velocities = np.array([[-5.5, 8.0]]), np.array([[0.9, 0.0]])
    core.step([(-1.0, 0.0)])  # touches it, braking
    speed = core.velocities[0, 0]
    assert speed > 0
    np.testing.assert_allclose(core.boxes[0], [-5.5 + speed + ROBOT_HALF + BOX_HALF, 8])
    for _ in range(30):
        before = core.boxes[0, 0]
        core.step([(-1.0, 0.0)])
        assert core.boxes[0, 0] == pytest.approx(min(before + speed, 8.0))
        assert core.box_velocities[0, 0] == (speed if core.boxes[0, 0] < 8.0 else 0.0)
    np.testing.assert_array_equal(core.boxes[0], [8, 8])


def test_a_robot_in_its_way_stops_a_box() -> None:
    core = PushCore()
    core.positions = np.array([[8.0, 8.0]])
    core.box_velocities = np.array([[0.7, 0.0]])
    for _ in range(10):
        core.step([(0.0, 0.0)])
    np.testing.assert_allclose(core.boxes[0], [8.0 - ROBOT_HALF - BOX_HALF, 8])
    np.testing.assert_array_equal(core.box_velocities, [[0, 0]])
    np.testing.assert_array_equal(core.positions, [[8, 8]])


# --- motion -----------------------------------------------------------------------------------------------------------


def test_velocity_lags_and_a_wall_takes_it() -> None:
    core = PushCore()
    for t in range(1, 4):
        core.step([(-0.5, 0)])
        assert core.velocities[0] == pytest.approx([-0.5 * (1 - 0.8**t), 0])
    core.reset()
    np.testing.assert_array_equal(core.velocities, np.zeros((1, 2)))
    for _ in range(30):
        core.step([(3.0, -3.0)])  # clipped
    np.testing.assert_allclose(core.positions[0], [3, -3])
    np.testing.assert_allclose(core.velocities[0], [0, 0], atol=1e-12)
    core.step([(-1.0, 0.0)])
    assert core.velocities[0, 0] == pytest.approx(-0.2)  # at once, as nothing is left of the speed into the wall


def test_starts_are_checked() -> None:
    core = PushCore(2)
    core.reset([1], (2.0, -3.0))
    np.testing.assert_array_equal(core.positions, [[0, 0], [2, -3]])
    with pytest.raises(ValueError, match=r"starts must be within \[-3, 3\] of the origin"):
        core.reset(starts=(0.0, 3.5))
    with pytest.raises(ValueError, match="n_agents must be at least 1, got 0"):
        PushCore(0)
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 2\), got \(1, 2\)"):
        core.step([(0, 0)])
    with pytest.raises(ValueError, match="actions must be finite"):
        core.step([(0, np.nan), (0, 0)])


#: ways that keep robots at the box and at the walls, so that something happens
DRIFTS = ((0.0, 1.0), (-1.0, 0.0), (-1.0, 1.0), (1.0, 0.0), (0.3, 1.0), (0.0, -1.0))


@st.composite
def action_sequences(draw: st.DrawFn) -> np.ndarray:
    """(T, 2): the way round the left or some legs of constant drift, with noise."""
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        actions = head_for(PushCore(), LEFT_AND_ROUND)
        return actions + draw(st.sampled_from([0.0, 0.05, 0.3])) * rng.normal(size=actions.shape)
    legs = draw(st.lists(st.tuples(st.sampled_from(DRIFTS), st.integers(1, 15)), min_size=1, max_size=8))
    noise = draw(st.sampled_from([0.0, 0.1, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drift = np.repeat([leg for leg, _ in legs], [length for _, length in legs], axis=0)
    return drift + noise * rng.normal(size=drift.shape)


@settings(max_examples=60, deadline=None)
@given(action_sequences())
def test_nothing_penetrates_and_boxes_take_their_speed_from_the_robot_alone(actions: np.ndarray) -> None:
    core = PushCore()
    core.reset(starts=(0.05, -0.05))
    for action in actions:
        robot, box, speed = core.positions[0], core.boxes[0], core.box_velocities[0]
        core.step(action[None])
        assert_legal(core)
        assert np.abs(core.velocities).max() <= 1.0
        np.testing.assert_allclose(core.positions[0], robot + core.velocities[0], atol=1e-12)
        moved, kept = core.boxes[0] - box, core.box_velocities[0]
        for axis in range(2):
            if kept[axis] == speed[axis]:  # on its own, at rest or as before
                assert moved[axis] == pytest.approx(speed[axis], abs=TOLERANCE)
            elif kept[axis] == 0.0:  # stopped, on its way or where it was pushed to
                assert abs(moved[axis]) <= max(abs(speed[axis]), 1.0) + TOLERANCE
            else:  # by the robot, which is at its side now, and went the same way
                assert kept[axis] == core.velocities[0, axis] and moved[axis] * kept[axis] > 0
                assert abs(moved[axis]) <= abs(kept[axis]) + TOLERANCE
                offsets = np.abs(core.boxes[0] - core.positions[0])
                assert offsets[axis] == pytest.approx(ROBOT_HALF + BOX_HALF, abs=TOLERANCE)
                assert offsets[1 - axis] < ROBOT_HALF + BOX_HALF + 1.0
        # It has slid along one corridor alone
        assert box[0] == 0.0 or box[1] == 8.0


@settings(max_examples=20, deadline=None)
@given(st.lists(action_sequences(), min_size=2, max_size=4), st.integers(0, 30))
def test_a_batch_is_its_robots_one_by_one(sequences: list[np.ndarray], reset_at: int) -> None:
    length = min(len(actions) for actions in sequences)
    batch, singles = PushCore(len(sequences)), [PushCore() for _ in sequences]
    for t in range(length):
        batch.step(np.stack([actions[t] for actions in sequences]))
        if t == reset_at:
            batch.reset([0], (0.5, 0.5))
        for i, (single, actions) in enumerate(zip(singles, sequences, strict=True)):
            single.step(actions[t][None])
            if t == reset_at and i == 0:
                single.reset(starts=(0.5, 0.5))
            for name in ("positions", "velocities", "boxes", "box_velocities"):
                np.testing.assert_array_equal(getattr(batch, name)[i], getattr(single, name)[0])


@settings(max_examples=20, deadline=None)
@given(action_sequences())
def test_arrays_that_were_handed_out_stay_as_they_were(actions: np.ndarray) -> None:
    core = PushCore()
    held = [(core.positions, core.velocities, core.boxes, core.box_velocities)]
    kept = [tuple(array.copy() for array in held[0])]
    for action in actions:
        core.step(action[None])
        held.append((core.positions, core.velocities, core.boxes, core.box_velocities))
        kept.append(tuple(array.copy() for array in held[-1]))
    core.reset()
    for arrays, copies in zip(held, kept, strict=True):
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
