"""A plane through the latent space: what lies between and around the modes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_rpg.modes.choice import Observation, latent_values
from sb3_rpg.modes.trajectories import roll_out

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


class LatentSlice(NamedTuple):
    """A square grid of n x n latents on a plane through the origin; the first axis is the vertical one."""

    #: where the grid's rows and columns lie along both directions, (n,)
    offsets: np.ndarray
    #: the two directions that span the plane, orthonormal, (2, latent_dim)
    directions: np.ndarray
    #: their names: horizontal, vertical
    labels: tuple[str, str]
    #: z of each point, (n, n, latent_dim)
    latents: np.ndarray
    #: what the model expects of each, (n, n), see :func:`~sb3_rpg.modes.latent_values`
    values: np.ndarray
    #: what an episode with each earned, (n, n); None where none was acted
    returns: np.ndarray | None

    def project(self, latent: np.ndarray) -> tuple[np.ndarray, float]:
        """
        :param latent: (latent_dim,)
        :return: its place on the plane (2,), and its distance from it
        """
        place = self.directions @ np.asarray(latent, dtype=np.float64)
        return place, float(np.linalg.norm(latent - place @ self.directions))


def slice_latents(
    model: "RPG",
    obs: Observation,
    through: Sequence[np.ndarray] | None = None,
    dims: tuple[int, int] = (0, 1),
    n_points: int = 21,
    extent: float | None = None,
    horizon: int = 0,
    env: VecEnv | None = None,
) -> LatentSlice:
    """
    Values, and returns if there is an ``env``, over a plane of latents: through the origin and two latents, such as those of
    two modes, or along two of z's dimensions.

    :param model: a model whose z is continuous
    :param obs: an episode's first observation
    :param through: two latents that the plane is laid through; None: along ``dims``
    :param dims: two of z's dimensions
    :param n_points: points along each direction; episodes with an ``env`` are as many as its square
    :param extent: how far the plane goes from the origin; None: so far that 99 % of a Gaussian's draws lie within, and both
        latents of ``through``
    :param horizon: see :func:`~sb3_rpg.modes.latent_values`
    :param env: roll every point out here
    :return: the slice
    :raises ValueError: if z is not continuous or has a single dimension, or an argument is out of its range
    """
    space = model.latent_space
    if space.dim < 2 or space.n_categories or space.name == "hypersphere":
        raise ValueError(
            f"latent={space.name!r} with {space.dim} numbers has no plane to slice: it takes a Gaussian z of two or more; the "
            "alternatives of a categorical z are few enough to look at each"
        )
    if n_points < 2:
        raise ValueError(f"`n_points` must be at least 2, got {n_points}")
    directions, labels = _directions(space.dim, through, dims)
    if extent is None:
        extent = 2.6 if through is None else max(2.6, *(1.15 * float(np.abs(directions @ z).max()) for z in through))
    offsets = np.linspace(-extent, extent, n_points)
    columns, rows = np.meshgrid(offsets, offsets)
    latents = (columns[..., None] * directions[0] + rows[..., None] * directions[1]).astype(np.float32)
    flat = latents.reshape(-1, space.dim)
    returns = None
    if env is not None:
        returns = np.array([t.episode_return for t in roll_out(model, env, flat, [0])]).reshape(n_points, n_points)
    values = latent_values(model, obs, flat, horizon).reshape(n_points, n_points)
    return LatentSlice(offsets, directions, labels, latents, values, returns)


def _directions(dim: int, through: Sequence[np.ndarray] | None, dims: tuple[int, int]) -> tuple[np.ndarray, tuple[str, str]]:
    if through is None:
        if len(set(dims)) != 2 or not all(0 <= d < dim for d in dims):
            raise ValueError(f"`dims`={tuple(dims)} must be two different dimensions of z, from 0 to {dim - 1}")
        return np.eye(dim)[list(dims)], (f"z[{dims[0]}]", f"z[{dims[1]}]")
    span = np.asarray(through, dtype=np.float64)
    if span.shape != (2, dim):
        raise ValueError(f"`through` has the shape {span.shape}, expected (2, {dim}): two latents")
    # Gram-Schmidt: the first latent lies on the horizontal axis, the second above it
    first = span[0] / max(float(np.linalg.norm(span[0])), 1e-12)
    rest = span[1] - (span[1] @ first) * first
    if np.linalg.norm(rest) < 1e-6 * max(float(np.linalg.norm(span[1])), 1e-12) or not span[0].any():
        raise ValueError("`through` holds two latents on one line with the origin, which span no plane; choose others")
    return np.stack([first, rest / np.linalg.norm(rest)]), ("towards the first z", "towards the second z, across the first")
