"""Intrinsic rewards by name, for configuration files."""

import inspect
from typing import Any

import torch as th
from gymnasium import spaces

from sb3_rpg.intrinsic.base import IntrinsicReward
from sb3_rpg.intrinsic.disagreement import Disagreement
from sb3_rpg.intrinsic.icm import ICM
from sb3_rpg.intrinsic.rnd import RND

#: all of them take the arguments of the features, such as ``indices`` and ``keys``
INTRINSIC_REWARDS: dict[str, type[IntrinsicReward]] = {"rnd": RND, "icm": ICM, "disagreement": Disagreement}


def make_intrinsic_reward(
    name_or_class: str | type[IntrinsicReward] | None,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    device: th.device | str = "auto",
    **kwargs: Any,
) -> IntrinsicReward | None:
    """
    Create an intrinsic reward from its name.

    :param name_or_class: A name of :data:`INTRINSIC_REWARDS` (case does not matter), a subclass of
        :class:`~sb3_rpg.intrinsic.base.IntrinsicReward`, or ``None`` or "none" for no intrinsic reward.
    :param observation_space: Observation space of the stored (unnormalised) observations.
    :param action_space: Action space.
    :param device: Device of the model.
    :param kwargs: Further arguments of the class; ignored where there is no intrinsic reward, so that switching it off
        takes one word.
    :return: The intrinsic reward, or ``None``.
    :raises ValueError: if the name is unknown, or an argument.
    """
    if name_or_class is None or (isinstance(name_or_class, str) and name_or_class.lower() == "none"):
        return None
    if isinstance(name_or_class, str):
        if name_or_class.lower() not in INTRINSIC_REWARDS:
            known = ", ".join(repr(name) for name in [*sorted(INTRINSIC_REWARDS), "none"])
            raise ValueError(
                f"Unknown intrinsic reward {name_or_class!r}; known are {known}, or a subclass of IntrinsicReward."
            )
        name_or_class = INTRINSIC_REWARDS[name_or_class.lower()]
    elif not (isinstance(name_or_class, type) and issubclass(name_or_class, IntrinsicReward)):
        raise ValueError(f"An intrinsic reward is a name or a subclass of IntrinsicReward, not {name_or_class!r}.")
    try:
        inspect.signature(name_or_class).bind(observation_space, action_space, device=device, **kwargs)
        if unknown := kwargs.keys() - _argument_names(name_or_class):
            raise TypeError(f"got an unexpected keyword argument {min(unknown)!r}")
    except TypeError as error:
        raise ValueError(f"`intrinsic_reward_kwargs`={kwargs!r} do not fit {name_or_class.__name__}: {error}") from error
    return name_or_class(observation_space, action_space, device=device, **kwargs)


def _argument_names(kind: type[IntrinsicReward]) -> set[str]:
    """Names of the constructor's arguments, and of those of the base classes that it passes its ``kwargs`` on to."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names
