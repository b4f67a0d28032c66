"""Coverage of the maze by random behaviour: the floor that exploration methods are measured against."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from sb3_rpg.envs.maze_core import EPISODE_LENGTH, MazeCore
from sb3_rpg.envs.maze_layout import N_CELLS, IntArray, cells_of

BaselineKind = Literal["uniform", "direction"]


def random_coverage(kind: BaselineKind, n_steps: int, seed: int, n_envs: int = 5) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """
    Coverage of the maze over training when nothing is learnt, in episodes of 50 steps.

    ``"uniform"`` draws an action from [-1, 1]^2 at every step, ``"direction"`` draws one at the start of each episode and
    holds it. At 250,000 steps the former covers about 0.29 of the cells, the latter 0.36: all that can be seen from the
    start along a straight line, so drawing unit directions instead makes no difference in the end.

    :param kind: ``"uniform"`` or ``"direction"``
    :param n_steps: number of environment steps over all environments, at least ``n_envs``
    :param seed: seed of the actions
    :param n_envs: number of environments that step together; they restart together as well
    :return: ``steps`` (environment steps so far: 0, n_envs, 2 n_envs, ..., n_steps rounded down to a multiple of
        ``n_envs``) and ``coverage`` (share of the 100 cells visited by then, starts included), both of shape (T + 1,)
    :raises ValueError: if ``kind`` is unknown, ``n_envs`` is not positive or ``n_steps`` is below ``n_envs``
    """
    if kind not in get_args(BaselineKind):
        raise ValueError(f"kind must be one of {get_args(BaselineKind)}, got {kind!r}; pick one of them")
    if n_envs < 1:
        raise ValueError(f"n_envs must be at least 1, got {n_envs}")
    if n_steps < n_envs:
        raise ValueError(f"n_steps must be at least n_envs = {n_envs}, got {n_steps}; every environment steps once at least")
    rng = np.random.default_rng(seed)
    n_vec_steps = n_steps // n_envs
    n_rounds = -(-n_vec_steps // EPISODE_LENGTH)

    # Nothing is learnt, so no episode depends on an earlier one and all can run at once.
    core = MazeCore(n_rounds * n_envs)
    start_cell = int(cells_of(core.positions[0]))
    n_draws = EPISODE_LENGTH if kind == "uniform" else 1
    # Rounds come first, so that a longer run with the same seed begins with the shorter one.
    actions = rng.uniform(-1.0, 1.0, size=(n_rounds, n_draws, n_envs, 2))
    cells = np.empty((n_rounds, EPISODE_LENGTH, n_envs), dtype=np.int64)
    for t in range(EPISODE_LENGTH):
        positions = core.step(actions[:, min(t, n_draws - 1)].reshape(-1, 2))
        cells[:, t] = cells_of(positions).reshape(n_rounds, n_envs)

    # In the order of a sequential run: rounds of episodes one after the other, environments side by side.
    visits = cells.reshape(-1)[: n_vec_steps * n_envs]
    seen, first_visits = np.unique(visits, return_index=True)
    discoveries = np.zeros(n_vec_steps + 1, dtype=np.int64)
    discoveries[0] = 1
    others = seen != start_cell
    np.add.at(discoveries, first_visits[others] // n_envs + 1, 1)
    return n_envs * np.arange(n_vec_steps + 1), np.cumsum(discoveries) / N_CELLS
