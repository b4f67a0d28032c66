"""What a novelty model sees of an observation: the scaled observation and positional encodings of the objects of interest."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, get_obs_shape, is_image_space, preprocess_obs
from torch import nn

from sb3_rpg.checks import require_integer, require_number
from sb3_rpg.intrinsic.statistics import RunningMoments

Indices = int | str | Sequence[int | str]
ObservationFunction = Callable[[Any], th.Tensor]


def positional_encoding(values: th.Tensor, n_frequencies: int = 6) -> th.Tensor:
    """
    Encode scalars as ``{x, sin(2^i x), cos(2^i x)}``, ``i = 0 .. n_frequencies - 1`` (Section 4.3.2; no factor of pi).

    :param values: Scalars (B, k).
    :param n_frequencies: Number of frequencies.
    :return: Encodings (B, k * (1 + 2 * n_frequencies)): all the scalars, then all their sines (scalar by scalar, low
        frequency first), then all their cosines.
    """
    frequencies = 2.0 ** th.arange(n_frequencies, device=values.device, dtype=values.dtype)
    angles = (values.unsqueeze(-1) * frequencies).flatten(1)  # (B, k * n_frequencies)
    return th.cat((values, angles.sin(), angles.cos()), dim=1)


def is_image(space: spaces.Space) -> bool:
    """
    :param space: Space of an observation, or of an entry of one.
    :return: Whether it is made of pixels: bytes in two dimensions or more.
    """
    return isinstance(space, spaces.Box) and (is_image_space(space) or (len(space.shape) > 1 and space.dtype == np.uint8))


def parse_indices(indices: Indices, size: int, where: str = "the observation") -> list[int]:
    """
    Read indices as YAML can write them: ``3``, ``[0, 1]``, ``"3:6,10"``, ``["3:6", 10]``, ``":"`` for all of them.

    :param indices: An index, a string of indices and slices, or a sequence of both; negative ones count from the end.
    :param size: Size of the flattened observation.
    :param where: What is indexed, for error messages.
    :return: Indices in [0, size), in the order given.
    :raises ValueError: if an entry is not an index or a slice, reaches outside the observation, selects nothing or
        selects something twice.
    """
    entries = list(indices) if isinstance(indices, Sequence | np.ndarray) and not isinstance(indices, str) else [indices]
    parsed: list[int] = []
    for entry in entries:
        if isinstance(entry, str):
            for text in entry.split(","):
                parsed += _parse_text(text.strip(), size, where)
        elif isinstance(entry, int | np.integer) and not isinstance(entry, bool):
            parsed.append(_check_index(int(entry), size, where))
        else:
            raise ValueError(f"Cannot read {entry!r} in `indices`: use integers or slice strings such as '3:6'.")
    if not parsed:
        raise ValueError(f"`indices={indices!r}` selects nothing; leave it out to encode nothing.")
    repeated = sorted({index for index in parsed if parsed.count(index) > 1})
    if repeated:
        raise ValueError(f"`indices={indices!r}` selects {repeated} of {where} more than once.")
    return parsed


def _check_index(index: int, size: int, where: str) -> int:
    if not -size <= index < size:
        raise ValueError(f"Index {index} is outside {where}, which has {size} values (0 to {size - 1}).")
    return index % size


def _parse_text(text: str, size: int, where: str) -> list[int]:
    """Indices of one comma-free piece of an index string."""
    try:
        numbers = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        return [_check_index(numbers[0], size, where)]
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] == 0):
        raise ValueError(f"Cannot read {text!r} in `indices`: use integers or slices such as '3:6'.")
    for bound in numbers[:2]:
        # Python would cut a slice short in silence, which hides an index computed for another observation
        if bound is not None and not -size <= bound <= size:
            raise ValueError(f"Slice {text!r} reaches outside {where}, which has {size} values (0 to {size - 1}).")
    selected = list(range(size))[slice(*numbers)]
    if not selected:
        raise ValueError(f"Slice {text!r} selects nothing of {where}, which has {size} values.")
    return selected


def import_function(path: str) -> ObservationFunction:
    """
    :param path: Dotted path of a function, such as ``my_package.features.gripper_to_ball``.
    :return: The function.
    :raises ValueError: if the path does not lead to a callable.
    """
    module_name, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"Cannot import `function={path!r}`: give the dotted path of an importable function.") from error
    if not callable(function):
        raise ValueError(f"`function={path!r}` is not callable.")
    return function


class ObservationFeatures(nn.Module):
    """
    The input of a novelty model: ``[obs_scale * observation, encodings of the objects of interest]``.

    A network is smooth, so that where observations differ little it predicts the unseen ones as well as the seen ones.
    Encoding the few scalars that matter for the task (the position of the agent, of a tool, of a door's hinge) with
    frequencies 2^0 .. 2^5 makes nearby values of *them* look different; without it, coverage of the paper's maze halves
    (Figure 8D). Naming them is the user's one decision, and the only one that must be made:

    - ``indices`` of the observation, e.g. ``[0, 1]``, ``"3:6,10"`` or, for a Dict space, ``{"achieved_goal": ":"}``;
    - or ``function`` of the observation, e.g. for the distance of two objects or for a symmetric logarithm of it.

    Neither means no encodings, e.g. because the environment encodes its observation itself. Name few: with every joint and
    velocity encoded, each observation is unlike any other and none becomes known.

    **Scaling.** The paper multiplies raw observations by a number picked for each task (0.05, or 0.1, or 0.01), which
    presumes that all dimensions are of like size. By default (``normalize=True``) each real-valued dimension is instead
    standardised by its cumulative mean and standard deviation over the training batches and clipped to +-10, which needs no
    picking; ``obs_scale`` multiplies the result. To reproduce the paper: ``normalize=False, obs_scale=0.05``.

    Encoded scalars are *not* standardised, for a changing scale would shift the phases of the high frequencies and make
    everything look new again: ``object_scale`` multiplies them. Choose it so that the range of interest is about [-1, 1];
    the finest period is then about 0.2, a tenth of that range.

    One-hot and binary entries pass unchanged but for ``obs_scale``.

    :param observation_space: Observation space.
    :param indices: Scalars of the flattened observation to encode; for a Dict space a mapping of keys to indices.
    :param function: Function of a batch of raw observations (as stored: same dtype, a dict for a Dict space) that returns
        the scalars to encode, (B, k); or its dotted path. It must be importable for the replay buffer to be saved.
    :param n_frequencies: Frequencies of the encoding; each scalar becomes ``1 + 2 * n_frequencies`` numbers.
    :param obs_scale: Factor of the observation.
    :param object_scale: Factor of the scalars before they are encoded.
    :param normalize: Whether to standardise real-valued dimensions.
    :param keys: For a Dict space, the entries that form the observation part; all of them by default.
    :raises ValueError: for images without ``function``, indices outside the observation, unknown keys, or a function whose
        result is not (B, k).
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        *,
        indices: Indices | Mapping[str, Indices] | None = None,
        function: ObservationFunction | str | None = None,
        n_frequencies: int = 6,
        obs_scale: float = 1.0,
        object_scale: float = 1.0,
        normalize: bool = True,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if indices is not None and function is not None:
            raise ValueError("Give `indices` or `function`, not both: a function can select by itself.")
        require_integer("n_frequencies", n_frequencies, 0)
        require_number("obs_scale", obs_scale, lambda x: True, "other than inf and nan")
        require_number("object_scale", object_scale, lambda x: True, "other than inf and nan")
        self.observation_space = observation_space
        self.function = import_function(function) if isinstance(function, str) else function
        self.n_frequencies = n_frequencies
        self.obs_scale = obs_scale
        self.object_scale = object_scale
        self.real_entries, self.discrete_entries = self._choose_entries(keys)
        real_dim = sum(get_flattened_obs_dim(self._subspace(key)) for key in self.real_entries)
        discrete_dim = sum(get_flattened_obs_dim(self._subspace(key)) for key in self.discrete_entries)
        self.statistics = RunningMoments((real_dim,)) if normalize and real_dim > 0 else None
        self.indices = self._parse_all(indices)
        self.n_objects = self._count_objects()
        self.dim = real_dim + discrete_dim + self.n_objects * (1 + 2 * n_frequencies)
        if self.dim == 0:
            raise ValueError(f"`keys`={keys} leaves nothing to look at; name an entry, or give `indices` or `function`.")

    def forward(self, obs: Any) -> th.Tensor:
        """
        :param obs: Raw observations (B, \\*shape), or a dict of them.
        :return: Features (B, :attr:`dim`), float32.
        """
        parts = []
        if self.real_entries:
            real = self._real(obs)
            if self.statistics is not None:
                real = self.statistics.standardize(real, epsilon=1e-8).clamp(-10.0, 10.0)
            parts.append(real * self.obs_scale)
        parts += [self._preprocessed(obs, key) * self.obs_scale for key in self.discrete_entries]
        if self.n_objects > 0:
            parts.append(positional_encoding(self._objects(obs) * self.object_scale, self.n_frequencies))
        return th.cat(parts, dim=1)

    def observe(self, obs: Any) -> None:
        """
        Let a training batch enter the statistics of the observation.

        :param obs: Raw observations (B, \\*shape), or a dict of them.
        """
        if self.statistics is not None:
            self.statistics.update(self._real(obs))

    def _choose_entries(self, keys: Sequence[str] | None) -> tuple[list[str | None], list[str | None]]:
        """Real-valued and one-hot entries of the observation part; ``None`` stands for an observation that is no dict."""
        space = self.observation_space
        if not isinstance(space, spaces.Dict):
            if keys is not None:
                raise ValueError(f"`keys` is for Dict observations, this observation space is {space}.")
            chosen: list[str | None] = [None]
        else:
            chosen = list(space.spaces if keys is None else keys)
            unknown = [key for key in chosen if key not in space.spaces]
            if unknown:
                raise ValueError(f"`keys` names {unknown}, the observation has {sorted(space.spaces)}.")
            if len(set(chosen)) < len(chosen):
                raise ValueError(f"`keys`={chosen} names an entry twice.")
        images = [key for key in chosen if is_image(self._subspace(key))]
        if images and self.function is None:
            vectors = [key for key in chosen if key not in images]
            remedy = f", or leave images out with `keys={vectors}`" if vectors else ""
            raise ValueError(
                f"The observation {'is an image' if images == [None] else f'entries {images} are images'}, whose pixels tell "
                "little about novelty. Pass `function`, which maps a batch of observations to the scalars of interest "
                f"(B, k){remedy}."
            )
        vectors = [key for key in chosen if key not in images]
        real = [key for key in vectors if isinstance(self._subspace(key), spaces.Box)]
        return real, [key for key in vectors if key not in real]

    def _parse_all(self, indices: Indices | Mapping[str, Indices] | None) -> dict[str | None, list[int]]:
        """Indices by entry of the observation."""
        space = self.observation_space
        if indices is None:
            return {}
        if isinstance(space, spaces.Dict) != isinstance(indices, Mapping):
            expected = f"a mapping of some of {sorted(space.spaces)}" if isinstance(space, spaces.Dict) else "no mapping"
            raise ValueError(f"`indices` must be {expected} for this observation space, not {indices!r}.")
        by_entry = dict(indices) if isinstance(indices, Mapping) else {None: indices}
        parsed: dict[str | None, list[int]] = {}
        for key, chosen in by_entry.items():
            if isinstance(space, spaces.Dict) and key not in space.spaces:
                raise ValueError(f"`indices` names {key!r}, the observation has {sorted(space.spaces)}.")
            subspace = self._subspace(key)
            where = "the observation" if key is None else f"observation entry {key!r}"
            if not isinstance(subspace, spaces.Box) or is_image(subspace):
                raise ValueError(f"Positional encodings need a vector of real numbers, {where} is {subspace}.")
            parsed[key] = parse_indices(chosen, get_flattened_obs_dim(subspace), where)
        return parsed

    def _count_objects(self) -> int:
        if self.function is None:
            return sum(len(chosen) for chosen in self.indices.values())
        space = self.observation_space
        # Zeros and not a sample, which would advance the random state of the user's space
        if isinstance(space, spaces.Dict):
            example: Any = {key: self._zeros(subspace) for key, subspace in space.spaces.items()}
        else:
            example = self._zeros(space)
        with th.no_grad():
            values = self.function(example)
        if not isinstance(values, th.Tensor) or values.ndim != 2 or values.shape[0] != 2 or values.shape[1] == 0:
            got = tuple(values.shape) if isinstance(values, th.Tensor) else type(values).__name__
            raise ValueError(f"`function` must return a tensor (B, k); for a batch of 2 observations it returned {got}.")
        return values.shape[1]

    def _objects(self, obs: Any) -> th.Tensor:
        if self.function is not None:
            return self.function(obs).float()
        return th.cat([self._preprocessed(obs, key)[:, chosen] for key, chosen in self.indices.items()], dim=1)

    def _real(self, obs: Any) -> th.Tensor:
        return th.cat([self._preprocessed(obs, key) for key in self.real_entries], dim=1)

    def _preprocessed(self, obs: Any, key: str | None) -> th.Tensor:
        """One entry as SB3 would give it to a network (Discrete as one-hot), flattened, float32."""
        entry = preprocess_obs(obs if key is None else obs[key], self._subspace(key), normalize_images=False)
        assert isinstance(entry, th.Tensor)
        return entry.flatten(1)

    def _subspace(self, key: str | None) -> spaces.Space:
        return self.observation_space if key is None else self.observation_space[key]  # type: ignore[index]

    @staticmethod
    def _zeros(space: spaces.Space) -> th.Tensor:
        shape = get_obs_shape(space)
        assert isinstance(shape, tuple)
        return th.as_tensor(np.zeros((2, *shape), dtype=space.dtype))
