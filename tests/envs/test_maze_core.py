"""Geometry of the maze, and the batched dynamics against a slow reference that tests every wall in turn."""

from __future__ import annotations

import warnings
from collections import deque
from fractions import Fraction
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.envs.maze_core import MazeCore
from sb3_rpg.envs.maze_layout import (
    FARTHEST_ROOM,
    PASSAGES,
    cells_of,
    coverage,
    farthest_room,
    in_outer_room,
    in_room,
    maze_walls,
    room_depths,
)

# Written out again, independently of the implementation: the wall's line and the centres of its gaps.
GAPS_IN_HORIZONTAL_WALLS = {3: {-4, -2, 0, 2, 4}, 1: {-4, 0, 4}, -1: {0}, -3: {-4, -2, 0, 2, 4}}
GAPS_IN_VERTICAL_WALLS = {-3: {2, 0, -2}, -1: {0, -2}, 1: {2, 0, -4}, 3: {0, -4}}
LINES = (-5, -3, -1, 1, 3, 5)
CENTRES = (-4, -2, 0, 2, 4)
# (axis perpendicular to the wall, its line, centre of the stretch, whether it has a gap): 40 inner and 20 outer stretches
STRETCHES = [
    (axis, line, centre, centre in gaps.get(line, ()))
    for axis, gaps in enumerate((GAPS_IN_VERTICAL_WALLS, GAPS_IN_HORIZONTAL_WALLS))
    for line in LINES
    for centre in CENTRES
]

Number = TypeVar("Number", float, Fraction)
Point = tuple[Number, Number]


def swap(axis: int, across: float, along: float) -> list[float]:
    """(x, y) of a point given across and along a wall."""
    return [across, along] if axis == 0 else [along, across]


def reference_walls() -> list[tuple[int, float, float, float]]:
    """(axis perpendicular to the wall, its line, start, end) of all wall segments."""
    walls: list[tuple[int, float, float, float]] = []
    for axis, line, centre, has_gap in STRETCHES:
        if has_gap:
            walls += [(axis, line, centre - 1, centre - 0.2), (axis, line, centre + 0.2, centre + 1)]
        else:
            walls.append((axis, line, centre - 1, centre + 1))
    return walls


WALLS = reference_walls()
EXACT_WALLS = [(axis, Fraction(line), Fraction(start), Fraction(end)) for axis, line, start, end in WALLS]


def hit_time(begin: Point, end: Point, wall: tuple[int, Number, Number, Number]) -> Number | None:
    """First time in [0, 1] at which the segment from ``begin`` to ``end`` touches a closed wall segment."""
    axis, line, low, high = wall
    across, along = begin[axis], begin[1 - axis]
    d_across, d_along = end[axis] - across, end[1 - axis] - along
    if d_across != 0:
        time = (line - across) / d_across
        return time if 0 <= time <= 1 and low <= along + time * d_along <= high else None
    if across != line:
        return None
    if low <= along <= high:
        return line - line  # zero
    if d_along == 0:
        return None
    time = ((low if d_along > 0 else high) - along) / d_along
    return time if 0 <= time <= 1 else None


def reference_move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Test one move against every wall."""
    begin = (float(position[0]), float(position[1]))
    d_x, d_y = (0.25 * min(max(float(a), -1.0), 1.0) for a in action)
    times = [t for wall in WALLS if (t := hit_time(begin, (begin[0] + d_x, begin[1] + d_y), wall)) is not None]
    share = max(min(times) - 1e-5, 0.0) if times else 1.0
    return np.array([begin[0] + share * d_x, begin[1] + share * d_y])


def assert_legal(old: np.ndarray, new: np.ndarray) -> None:
    """In exact arithmetic: inside the maze, and no wall touched on the way."""
    begin = (Fraction(float(old[0])), Fraction(float(old[1])))
    end = (Fraction(float(new[0])), Fraction(float(new[1])))
    assert max(map(abs, end)) < 5
    for wall in EXACT_WALLS:
        assert hit_time(begin, end, wall) is None, f"{old} -> {new} touches {wall}"


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_walls_are_those_of_the_map() -> None:
    def as_set(segments: np.ndarray) -> set[tuple[float, ...]]:
        return {tuple(segment.ravel().tolist()) for segment in segments}

    inner = [w for w in WALLS if abs(w[1]) != 5]
    outer = [(axis, line, -5, 5) for axis in (0, 1) for line in (-5, 5)]
    expected = np.array([[swap(axis, line, low), swap(axis, line, high)] for axis, line, low, high in inner + outer])
    assert maze_walls().shape == (68, 2, 2)
    assert as_set(maze_walls()) == as_set(expected)


def test_number_of_passages() -> None:
    inner = [stretch for stretch in STRETCHES if abs(stretch[1]) != 5]
    assert len(inner) == 40
    assert sum(has_gap for *_, has_gap in inner) == 24


@pytest.mark.parametrize(("axis", "line", "centre", "has_gap"), STRETCHES)
def test_each_wall(axis: int, line: int, centre: int, has_gap: bool) -> None:
    """From both sides: through the gap's centre if there is one, never 0.3 beside it."""
    for side in (-1, 1):
        if abs(line + 0.1 * side) > 5:
            continue
        action = np.array([swap(axis, -side, 0.0)])
        for offset in (0.0, 0.19, -0.19, 0.21, -0.21, 0.3, -0.3):
            core = MazeCore()
            core.reset(starts=swap(axis, line + 0.1 * side, centre + offset))
            end = core.step(action)[0]
            assert end[1 - axis] == centre + offset
            if has_gap and abs(offset) < 0.2:
                assert end[axis] == pytest.approx(line - 0.15 * side, abs=1e-12)
            else:
                assert 0 < (end[axis] - line) * side <= 0.25 * 1.001e-5


def test_reachable_rooms_form_a_spanning_tree_of_depth_5() -> None:
    """Walk from room to room with real moves: 25 rooms, 24 passages; the deepest are (-2, 4) and (4, -2), 5 passages away."""
    depths = {(0, 0): 0}
    passages = set()
    queue = deque(depths)
    while queue:
        room = queue.popleft()
        for direction in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            core = MazeCore()
            core.reset(starts=room)
            for _ in range(8):  # from centre to centre
                core.step([direction])
            neighbour = (room[0] + 2 * direction[0], room[1] + 2 * direction[1])
            if core.positions[0] == pytest.approx(neighbour, abs=1e-9):
                passages.add(frozenset((room, neighbour)))
                if neighbour not in depths:
                    depths[neighbour] = depths[room] + 1
                    queue.append(neighbour)
    assert len(depths) == 25
    assert len(passages) == 24
    assert max(depths.values()) == 5
    assert {room for room, depth in depths.items() if depth == 5} == {(-2, 4), (4, -2)}
    assert farthest_room() == FARTHEST_ROOM == (-2.0, 4.0)
    table = room_depths()
    assert {(x, y): table[(y + 4) // 2, (x + 4) // 2] for x in CENTRES for y in CENTRES} == depths


# --- moves ------------------------------------------------------------------------------------------------------------


def random_situations(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions all over the maze, half of them crowded around walls, corners and ends of gaps, with random actions."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-5, 5, size=(n, 2))
    landmarks = rng.choice(LINES, size=(n, 2)) + rng.choice([0.0, 0.8, 1.2], size=(n, 2))
    near = landmarks + rng.normal(scale=0.1, size=(n, 2))
    positions = np.where(rng.random((n, 1)) < 0.5, near, positions).clip(-4.999, 4.999)
    actions = rng.uniform(-1.3, 1.3, size=(n, 2)) * rng.choice([0.0, 0.01, 1.0, 1.0, 1.0], size=(n, 2))
    return positions, actions


def test_moves_agree_with_the_reference() -> None:
    positions, actions = random_situations(20_000, seed=0)
    core = MazeCore(len(positions))
    core.reset(starts=positions)
    moved = core.step(actions)
    expected = np.array([reference_move(p, a) for p, a in zip(positions, actions, strict=True)])
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-12)
    hits = np.abs(moved - positions).sum(axis=1) < 0.999 * np.abs(0.25 * actions.clip(-1, 1)).sum(axis=1)
    assert 0.1 < hits.mean() < 0.9  # both outcomes are tested


def test_batch_agrees_with_single_agents() -> None:
    positions, actions = random_situations(300, seed=1)
    batch = MazeCore(300)
    batch.reset(starts=positions)
    moved = batch.step(actions)
    for position, action, end in zip(positions, actions, moved, strict=True):
        single = MazeCore()
        single.reset(starts=position)
        np.testing.assert_array_equal(single.step(action[None])[0], end)


def test_walks_of_random_agents_agree_with_the_reference() -> None:
    rng = np.random.default_rng(2)
    core = MazeCore(10)
    reference = np.zeros((10, 2))
    for _ in range(50):
        actions = rng.choice([-1.0, 1.0], size=(10, 2)) * rng.uniform(0.5, 1.0, size=(10, 2))
        core.step(actions)
        reference = np.array([reference_move(p, a) for p, a in zip(reference, actions, strict=True)])
    np.testing.assert_allclose(core.positions, reference, rtol=0, atol=1e-10)


TINY = st.sampled_from([0.0, 1e-17, -1e-17, 1e-15, -1e-15, 1e-11, -1e-11, 1e-6, -1e-6])
SPECIAL = st.sampled_from([line + offset for line in LINES for offset in (0.0, 0.8, 1.0, 1.2)])
COORDINATES = st.one_of(st.floats(-4.999, 4.999), st.builds(lambda a, b: a + b, SPECIAL, TINY), SPECIAL)
ACTIONS = st.one_of(st.floats(-1.5, 1.5), st.sampled_from([-1.0, 0.0, 0.8, -0.8, 1.0]), TINY)


@settings(deadline=None, max_examples=300)
@given(x=COORDINATES, y=COORDINATES, actions=st.lists(st.tuples(ACTIONS, ACTIONS), min_size=1, max_size=4))
def test_no_move_touches_a_wall(x: float, y: float, actions: list[tuple[float, float]]) -> None:
    core = MazeCore()
    try:
        core.reset(starts=(x, y))
    except ValueError:
        return  # on a wall or outside
    for action in actions:
        old = core.positions[0]
        assert_legal(old, core.step([action])[0])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), actions=st.lists(st.tuples(ACTIONS, ACTIONS), min_size=20, max_size=20))
def test_no_walk_leaves_the_free_space(seed: int, actions: list[tuple[float, float]]) -> None:
    """Directed walks that press against walls again and again."""
    core = MazeCore()
    heading = np.random.default_rng(seed).uniform(-1, 1, size=2)
    for action in actions:
        for push in (heading, heading, np.array(action)):
            old = core.positions[0]
            assert_legal(old, core.step(push[None])[0])


@pytest.mark.parametrize("corner", [(1, 1), (-1, 1), (3, -3), (5, 5), (-5, -5), (-5, 3)])
def test_corners_stop_a_diagonal_move(corner: tuple[int, int]) -> None:
    for x_side in (-1, 1):
        for y_side in (-1, 1):
            start = np.array([corner[0] + 0.1 * x_side, corner[1] + 0.1 * y_side])
            if np.abs(start).max() > 5:
                continue
            core = MazeCore()
            core.reset(starts=start)
            end = core.step([[-x_side, -y_side]])[0]
            assert ((end - corner) * (x_side, y_side) > 0).all()
            np.testing.assert_allclose(end, corner, atol=1e-5)


def test_end_of_a_gap_is_a_wall() -> None:
    """The wall x = 1 has a gap at |y| < 0.2; its ends stop a move that only grazes them, in any direction."""
    core = MazeCore(4)
    core.reset(starts=[(0.9, 0.2), (0.9, np.nextafter(0.2, 0)), (0.9, 0.1), (0.9, 0.19999)])
    ends = core.step([[1.0, 0.0], [1.0, 0.0], [0.8, 0.8], [1.0, 0.0]])
    np.testing.assert_array_equal(ends[:, 0] > 1, [False, False, False, True])
    core = MazeCore(3)
    core.reset(starts=[(1.0, 0.1), (1.0, 0.1), (1.0, -0.1)])  # on the wall's line, inside the gap
    ends = core.step([[0.0, 1.0], [0.0, 0.2], [0.4, -1.0]])
    assert ends[0, 0] == 1.0
    assert 0.2 - 3e-6 < ends[0, 1] < 0.2  # stopped by the end of the gap, along the wall
    np.testing.assert_allclose(ends[1:], [(1.0, 0.15), (1.1, -0.35)])  # free


def test_all_cases_in_one_batch() -> None:
    """Along a wall's line, straight at a wall, through a gap, freely, standing still on a line: no NaN, no warning."""
    core = MazeCore(5)
    core.reset(starts=[(1.0, 0.1), (0.9, 0.5), (0.9, 0.1), (0.0, 0.0), (1.0, 0.1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = core.step([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(ends, [(1.0, 0.2), (1.0, 0.5), (1.15, 0.1), (0.25, 0.25), (1.0, 0.1)], atol=3e-6)
    assert (ends[:2] < [(1.1, 0.2), (1.0, 1.0)]).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_moves_below_the_floating_point_resolution_do_not_end_on_a_wall(axis: int) -> None:
    """Moves of a few units in the last place, towards a wall and, on its line, towards the end of its gap."""
    for start, direction in [((np.nextafter(1, 0), 0.5), (1, 0)), ((1.0, np.nextafter(0.2, 0)), (0, 1))]:
        for action in 4 * np.logspace(-17, -14, 200):
            core = MazeCore()
            core.reset(starts=swap(axis, *start))
            old = core.positions[0]
            assert_legal(old, core.step([swap(axis, action * direction[0], action * direction[1])])[0])


def test_pressing_against_a_wall_never_gets_through() -> None:
    core = MazeCore()
    core.reset(starts=(0.5, 0.5))
    for _ in range(100):
        core.step([[1.0, 0.0]])
    assert 1 - 1e-5 < core.positions[0, 0] < 1


def test_actions_are_clipped() -> None:
    core = MazeCore(2)
    core.step([[3.0, -7.0], [1.0, -1.0]])
    np.testing.assert_array_equal(core.positions, [[0.25, -0.25]] * 2)


# --- interface --------------------------------------------------------------------------------------------------------


def test_reset_of_some_agents() -> None:
    core = MazeCore(3)
    before = core.step(np.full((3, 2), 0.5)).copy()
    kept = core.positions
    core.reset([1], starts=[(0.3, 0.4)])
    np.testing.assert_array_equal(core.positions, [before[0], (0.3, 0.4), before[2]])
    np.testing.assert_array_equal(kept, before)  # arrays handed out earlier do not change
    core.reset(0)
    np.testing.assert_array_equal(core.positions, [(0, 0), (0.3, 0.4), before[2]])
    core.reset(np.array([False, True, True]))
    np.testing.assert_array_equal(core.positions, np.zeros((3, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused(bad: float) -> None:
    core = MazeCore(2)
    with pytest.raises(ValueError, match=r"actions must be finite, got \[(nan|inf)"):
        core.step([[0.0, 0.0], [bad, 0.0]])
    np.testing.assert_array_equal(core.positions, np.zeros((2, 2)))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="n_agents must be at least 1, got 0"):
        MazeCore(0)
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 2\), got \(2,\)"):
        MazeCore(2).step([0.0, 0.0])
    for start in [(1.0, 0.5), (1.0, 0.2), (5.0, 0.0), (0.0, -7.0), (3.0, 3.0), (np.nan, 0.0)]:
        with pytest.raises(ValueError, match="starts must be inside the maze and not on a wall"):
            MazeCore().reset(starts=start)
    with pytest.raises(ValueError, match=r"positions must have shape \(..., 2\), got \(3,\)"):
        cells_of([1.0, 2.0, 3.0])
    for outside in [(5.1, 0.0), (np.nan, 0.0)]:
        with pytest.raises(ValueError, match=r"positions must be within \[-5, 5\]"):
            cells_of([(0.0, 0.0), outside])


def test_cells_and_coverage() -> None:
    assert cells_of((-4.9, -4.9)) == 0
    assert cells_of((4.9, -4.9)) == 9
    assert cells_of((-4.9, -3.9)) == 10
    assert cells_of((0.0, 0.0)) == 55
    assert cells_of((5.0, 5.0)) == 99
    centres = np.stack(np.meshgrid(np.arange(-4.5, 5), np.arange(-4.5, 5)), axis=-1)
    np.testing.assert_array_equal(cells_of(centres).ravel(), np.arange(100))
    assert coverage(centres) == 1.0
    assert coverage(centres[:5]) == 0.5
    assert coverage([(0.1, 0.1), (0.2, 0.9)]) == 0.01
    assert coverage(np.empty((0, 2))) == 0.0


def test_in_room() -> None:
    np.testing.assert_array_equal(
        in_room([(-2.9, 3.1), (-1.1, 4.9), (-0.9, 4), (-2, 2.9)], FARTHEST_ROOM), [True, True, False, False]
    )


def test_in_outer_room() -> None:
    np.testing.assert_array_equal(
        in_outer_room([(0, 0), (3.1, 0), (0, -3.1), (2.9, -2.9), (-4, 4), (3.0, 0)]), [False, True, True, False, True, False]
    )


# --- blocked passages -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    passage=st.sampled_from(PASSAGES), offset=st.floats(-0.2, 0.2), sideways=st.floats(-1, 1), side=st.sampled_from([-1, 1])
)
def test_nothing_passes_a_blocked_passage(passage: tuple[int, int], offset: float, sideways: float, side: int) -> None:
    axis = 0 if passage[0] % 2 else 1
    line, centre = passage[axis], passage[1 - axis]
    blocked = MazeCore(1, [passage])
    blocked.reset(starts=swap(axis, line + 0.1 * side, centre + offset))
    for _ in range(3):
        end = blocked.step(np.array([swap(axis, -side, sideways)]))[0]
        assert (end[axis] - line) * side > 0
    free = MazeCore()
    free.reset(starts=swap(axis, line + 0.1 * side, centre))
    assert (free.step(np.array([swap(axis, -side, 0.0)]))[0][axis] - line) * side < 0


@pytest.mark.parametrize("passage", PASSAGES)
def test_rooms_behind_a_blocked_passage_are_cut_off(passage: tuple[int, int]) -> None:
    """Random walks from the start stay in the rooms that a way leads to; all passages but one move as in the free maze."""
    depths = room_depths([passage])
    assert (depths < 0).any() and depths[2, 2] == 0
    assert len(maze_walls([passage])) == 67
    rng = np.random.default_rng(0)
    core = MazeCore(200, [passage])
    directions = rng.uniform(-1, 1, size=(200, 2))
    for step in range(150):
        if step % 10 == 0:
            directions = rng.uniform(-1, 1, size=(200, 2))
        columns, rows = np.floor((core.step(directions).T + 5) / 2).astype(int)
        assert (depths[rows, columns] >= 0).all()


def test_all_four_ways_out_blocked_is_a_prison() -> None:
    exits = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    assert (room_depths(exits) >= 0).sum() == 1
    for exit_ in exits:
        depths = room_depths([other for other in exits if other != exit_])
        assert depths[[0, -1]].max() >= 0 or depths[:, [0, -1]].max() >= 0  # one way is enough to get to an outer room


def test_passages_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"names \(0, 0\), where the maze has no passage; .* \(-1, 0\)"):
        MazeCore(1, [(0, 0)])
    with pytest.raises(ValueError, match=r"names \(-1, 2\), where the maze has no passage"):
        maze_walls([(-1, 2)])  # a wall without a gap
    assert MazeCore(1, [(1, 0), (-1, 0), (1, 0)]).blocked == ((-1, 0), (1, 0))
