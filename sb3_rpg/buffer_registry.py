"""Which latent buffer takes the place of which of SB3's."""

from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_rpg.buffers import LatentBufferMixin, LatentDictReplayBuffer, LatentReplayBuffer
from sb3_rpg.her import LatentHerReplayBuffer

#: SB3's buffers and the latent ones that RPG uses in their place
LATENT_BUFFERS: dict[type[ReplayBuffer], type[LatentBufferMixin]] = {
    ReplayBuffer: LatentReplayBuffer,
    DictReplayBuffer: LatentDictReplayBuffer,
    HerReplayBuffer: LatentHerReplayBuffer,
}


GOAL_KEYS = frozenset({"observation", "achieved_goal", "desired_goal"})


def latent_buffer_class(buffer_class: type[ReplayBuffer] | None, observation_space: spaces.Space) -> type[LatentBufferMixin]:
    """
    :param buffer_class: what the user asked for, or None
    :param observation_space: observation space
    :return: the latent buffer to use
    :raises ValueError: if there is no latent variant of the class, or it does not fit the observations
    """
    is_dict = isinstance(observation_space, spaces.Dict)
    if buffer_class is None:
        buffer_class = DictReplayBuffer if is_dict else ReplayBuffer
    given = f"`replay_buffer_class={buffer_class.__name__}`"
    latent_class = LATENT_BUFFERS.get(buffer_class)
    if latent_class is None:
        if not issubclass(buffer_class, LatentBufferMixin):
            raise ValueError(
                f"{given} does not store z; use None, {', '.join(cls.__name__ for cls in LATENT_BUFFERS)}, or a subclass of "
                f"one of {', '.join(cls.__name__ for cls in LATENT_BUFFERS.values())}"
            )
        latent_class = buffer_class
    if issubclass(latent_class, HerReplayBuffer):
        if not (isinstance(observation_space, spaces.Dict) and set(observation_space.spaces) >= GOAL_KEYS):
            raise ValueError(
                f"{given} needs Dict observations with the keys {', '.join(sorted(GOAL_KEYS))}, got {observation_space}; "
                "use None for tasks without goals"
            )
    elif issubclass(latent_class, DictReplayBuffer) != is_dict:
        kind = "Dict" if is_dict else "array"
        raise ValueError(
            f"{given} does not fit {kind} observations; use None or {'DictReplayBuffer' if is_dict else 'ReplayBuffer'}"
        )
    return latent_class
