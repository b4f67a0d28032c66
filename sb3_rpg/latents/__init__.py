"""
Latent spaces: what z is, how it is drawn, and how well (s, a) tells it.

A latent space is a description without parameters of its own. It is asked for z's prior or policy pi(z|s1), given the raw
outputs of a network on s1, and for the posterior p_phi(z|s,a), given the raw outputs of a network on (s, a); which
networks those are is the policy's business (``LatentSpace.policy_dim`` and ``LatentSpace.posterior_dim`` are the widths
that it must provide). Every z is a float32 vector of ``LatentSpace.dim`` numbers, so that buffers, policies and values
need not know its kind.
"""

from typing import Any

from sb3_rpg.latents.base import LatentSpace
from sb3_rpg.latents.categorical import CategoricalLatent
from sb3_rpg.latents.gaussian import GaussianLatent
from sb3_rpg.latents.hypersphere import HypersphereLatent
from sb3_rpg.latents.mixed import MixedLatent
from sb3_rpg.latents.none import NoLatent

__all__ = [
    "LATENT_SPACES",
    "CategoricalLatent",
    "GaussianLatent",
    "HypersphereLatent",
    "LatentSpace",
    "MixedLatent",
    "NoLatent",
    "make_latent_space",
]

LATENT_SPACES = ("gaussian", "learned_gaussian", "categorical", "mixed", "hypersphere", "none")


def make_latent_space(latent: str | LatentSpace, latent_dim: int = 12, **kwargs: Any) -> LatentSpace:
    """
    :param latent: a latent space, or the name of one: ``LATENT_SPACES``
    :param latent_dim: width of z; number of categories for "categorical"; number of continuous dimensions for "mixed";
        ignored for "none" and when ``latent`` is a latent space already
    :param kwargs: further arguments of the space's class
    :return: the latent space
    :raises ValueError: if the name is unknown or an argument is out of its range
    """
    if isinstance(latent, LatentSpace):
        if kwargs:
            raise ValueError(
                f"`latent_kwargs`={kwargs!r} are for a latent's name; `latent` is {latent!r}: give them to its class"
            )
        return latent
    try:
        if latent == "none":
            return NoLatent(**kwargs)
        if latent in ("gaussian", "learned_gaussian"):
            return GaussianLatent(latent_dim, learned=latent == "learned_gaussian", **kwargs)
        if latent == "categorical":
            return CategoricalLatent(latent_dim, **kwargs)
        if latent == "mixed":
            return MixedLatent(latent_dim, **kwargs)
        if latent == "hypersphere":
            return HypersphereLatent(latent_dim, **kwargs)
    except TypeError as error:
        raise ValueError(f"`latent_kwargs`={kwargs!r} do not fit latent={latent!r}: {error}") from error
    raise ValueError(f"`latent` must be one of {', '.join(LATENT_SPACES)} or a LatentSpace, got {latent!r}")
