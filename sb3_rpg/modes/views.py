"""How the command ``python -m sb3_rpg.modes`` describes, draws and measures paths in whatever environment it meets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_rpg.envs import MazeEnv
from sb3_rpg.envs.maze_layout import HALF_SIZE, Passage
from sb3_rpg.modes.clusters import Mode, diversity, effective_mode_count, stretch_means
from sb3_rpg.modes.projection import action_paths, principal_paths
from sb3_rpg.modes.trajectories import Descriptor, Trajectory, roll_out

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


#: longer episodes are drawn by their means over so many equal stretches, where the command chooses what to draw
DRAWN_STRETCHES = 40


class View(NamedTuple):
    """How paths are described, clustered and drawn."""

    #: for clusters
    trajectories: list[Trajectory]
    #: for pictures and measures over a grid: the same episodes over two dimensions, (T + 1, 2)
    drawn: list[Trajectory]
    #: names of the two dimensions
    labels: tuple[str, str]
    #: blocked passages, where the maze's walls are to be drawn
    maze: Sequence[Passage] | None


def make_view(
    model: "RPG",
    env: VecEnv,
    latents: np.ndarray,
    descriptor_texts: Sequence[str] | None = None,
    x: int | None = None,
    y: int | None = None,
    deterministic: bool = True,
) -> View:
    """
    Roll out the latents and describe their paths: as ``--descriptor`` says; without it by the position in the maze, and by the
    principal components of the observations elsewhere.

    :param model: the model
    :param env: its environment
    :param latents: (n, latent_dim)
    :param descriptor_texts: see :func:`parse_descriptor`
    :param x: dimension of the descriptor on the horizontal axis; None: the first
    :param y: dimension of the descriptor on the vertical axis; None: the second
    :param deterministic: the mode of pi(a|s,z) instead of samples
    :return: the paths
    :raises ValueError: if the descriptor, or a dimension, does not fit the environment
    """
    inner = env.get_attr("unwrapped")[0]
    maze: Sequence[Passage] | None = None
    descriptor, name = parse_descriptor(descriptor_texts)
    if descriptor_texts is None and isinstance(inner, MazeEnv):
        descriptor = name = "position"
    if descriptor == "position" and isinstance(inner, MazeEnv):
        maze = inner.core.blocked
    whole = descriptor in (None, "actions")
    trajectories = roll_out(model, env, latents, None if whole else descriptor, deterministic)
    if descriptor == "actions":
        trajectories = action_paths(trajectories)
    if descriptor is None and x is None and y is None:
        projection = principal_paths(trajectories)
        drawn = principal_paths(trajectories, 2)
        # The phase of a gait would hide where an episode goes
        paths = [_smoothed(t) for t in _two_dimensions(drawn.trajectories, 0, 1)]
        shares = [*drawn.explained, 0.0]
        labels = (f"first component ({shares[0]:.0%} of differences)", f"second component ({shares[1]:.0%})")
        return View(projection.trajectories, paths, labels, None)
    width = trajectories[0].path.shape[1]
    x = 0 if x is None else x
    y = min(1, width - 1) if y is None else y
    for option, dim in (("x", x), ("y", y)):
        if not -width <= dim < width:
            raise ValueError(f"--{option} {dim}: paths are described by {width} numbers ({name}), from 0 on")
    drawn_paths = _two_dimensions(trajectories, x, y)
    if descriptor is None:
        trajectories = principal_paths(trajectories).trajectories
    if (x, y) != (0, 1):
        maze = None  # the walls are drawn over x and y
    return View(trajectories, drawn_paths, (f"{name}[{x}]", f"{name}[{y}]"), maze)


def parse_descriptor(texts: Sequence[str] | None) -> tuple[Descriptor | None, str]:
    """
    :param texts: ``["3", "5"]``: entries of the observation; ``["actions"]``; one other word: an entry of ``info``
    :return: the descriptor, and its name
    :raises ValueError: if the texts are none of these
    """
    if texts is None:
        return None, "observation"
    if len(texts) == 1 and not texts[0].lstrip("-").isdecimal():
        return texts[0], texts[0]
    try:
        return [int(text) for text in texts], "descriptor"
    except ValueError:
        message = f"--descriptor {' '.join(texts)}: give entries of the observation (0 1 5), 'actions', or one name in info"
        raise ValueError(message) from None


def summary(view: View, modes: Sequence[Mode]) -> str:
    """
    :param view: the paths
    :param modes: their modes
    :return: a line of measures
    """
    points = np.concatenate([t.path for t in view.drawn])
    low, high = (np.full(2, -HALF_SIZE), np.full(2, HALF_SIZE)) if view.maze is not None else (points.min(0), points.max(0))
    high = np.where(high > low, high, low + 1.0)
    worst = min(t.episode_return for t in view.drawn)
    found = diversity(view.drawn, low.tolist(), high.tolist(), worst_return=worst)
    return (
        f"{len(modes)} modes of {len(view.drawn)} latents, effective number {effective_mode_count(modes):.2f}. Over a grid of "
        f"10 x 10: coverage {found.coverage:.2f}, QD-score {found.qd_score:.4g} above the worst return ({worst:.4g}), state "
        f"entropy {found.state_entropy:.2f} nats"
    )


def _smoothed(trajectory: Trajectory) -> Trajectory:
    if len(trajectory.path) <= 2 * DRAWN_STRETCHES:
        return trajectory
    means = stretch_means(trajectory.path, DRAWN_STRETCHES)
    # A start and an end are marked in pictures: they stay
    return trajectory._replace(path=np.concatenate([trajectory.path[:1], means, trajectory.path[-1:]]))


def _two_dimensions(trajectories: Sequence[Trajectory], x: int, y: int) -> list[Trajectory]:
    return [t._replace(path=t.path[:, [x, min(y, t.path.shape[1] - 1)]]) for t in trajectories]
