"""What the novelty model sees: encodings, indices as users write them, scaling and the spaces that are refused."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.intrinsic.features import ObservationFeatures, parse_indices, positional_encoding

VECTOR = spaces.Box(-np.inf, np.inf, (5,))
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
GOAL = spaces.Dict(
    {"achieved_goal": spaces.Box(-1, 1, (2,)), "observation": spaces.Box(-1, 1, (2, 2)), "button": spaces.Discrete(3)}
)


def distance(obs: th.Tensor) -> th.Tensor:
    return (obs[:, :2] - obs[:, 2:4]).norm(dim=1, keepdim=True)


def image_centre(obs: th.Tensor) -> th.Tensor:
    return obs.float().mean(dim=(1, 2, 3)).unsqueeze(1) / 255


def flat(obs: th.Tensor) -> th.Tensor:
    return obs[:, 0]


def test_encoding_by_hand() -> None:
    encoded = positional_encoding(th.tensor([[0.5, -1.0]]), n_frequencies=2)
    expected = [0.5, -1.0, np.sin(0.5), np.sin(1.0), np.sin(-1.0), np.sin(-2.0)]
    expected += [np.cos(0.5), np.cos(1.0), np.cos(-1.0), np.cos(-2.0)]
    np.testing.assert_allclose(encoded.numpy(), [expected], rtol=1e-6)


def test_a_scalar_becomes_thirteen_numbers_up_to_frequency_32() -> None:
    encoded = positional_encoding(th.tensor([[0.1]]))[0]
    assert encoded.shape == (13,)
    np.testing.assert_allclose(encoded[6], np.sin(3.2), rtol=1e-6)
    np.testing.assert_allclose(encoded[12], np.cos(3.2), rtol=1e-6)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (3, [3]),
        ([0, 1], [0, 1]),
        ("3:6,10", [3, 4, 5, 10]),
        (["3:6", 10], [3, 4, 5, 10]),
        (" 3:6 , 10 ", [3, 4, 5, 10]),
        ("9:", [9, 10, 11]),
        (":", list(range(12))),
        ("::4", [0, 4, 8]),
        (-1, [11]),
        ("-2:", [10, 11]),
        (np.int64(2), [2]),
    ],
)
def test_indices_as_yaml_can_write_them(indices: Any, expected: list[int]) -> None:
    assert parse_indices(indices, 12) == expected


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (7, r"Index 7 is outside the observation, which has 5 values \(0 to 4\)"),
        ([0, -6], r"Index -6 is outside the observation"),
        ("3:9", r"Slice '3:9' reaches outside the observation, which has 5 values"),
        ("4:2", r"Slice '4:2' selects nothing"),
        ("a:b", r"Cannot read 'a:b' in `indices`"),
        ("1,,2", r"Cannot read '' in `indices`"),
        ("0:4:0", r"Cannot read '0:4:0' in `indices`"),
        ("1:2:3:4", r"Cannot read '1:2:3:4' in `indices`"),
        (1.5, r"Cannot read 1.5 in `indices`"),
        ([True], r"Cannot read True in `indices`"),
        ([[0, 1]], r"Cannot read \[0, 1\] in `indices`"),
        ([], r"selects nothing; leave it out"),
        ("0:3,2", r"selects \[2\] of the observation more than once"),
    ],
)
def test_wrong_indices_are_named(indices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservationFeatures(VECTOR, indices=indices)


def test_observation_and_encodings_side_by_side() -> None:
    features = ObservationFeatures(VECTOR, indices=[1, 4], obs_scale=0.05, object_scale=0.2, normalize=False)
    obs = th.randn(7, 5, dtype=th.float64)
    result = features(obs)
    assert result.shape == (7, features.dim) == (7, 5 + 26)
    assert result.dtype == th.float32
    th.testing.assert_close(result[:, :5], 0.05 * obs.float())
    th.testing.assert_close(result[:, 5:], positional_encoding(0.2 * obs[:, [1, 4]].float()))


@given(data=st.data(), size=st.integers(1, 40), n_frequencies=st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_any_index_set(data: st.DataObject, size: int, n_frequencies: int) -> None:
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
    spellings: list[Any] = [indices, ",".join(map(str, indices)), [str(index) for index in indices]]
    written = data.draw(st.sampled_from(spellings))
    space = spaces.Box(-1, 1, (size,))
    features = ObservationFeatures(space, indices=written, n_frequencies=n_frequencies, normalize=data.draw(st.booleans()))
    obs = th.rand(3, size) * 2 - 1
    features.observe(obs)
    result = features(obs)
    n = len(indices)
    assert result.shape == (3, features.dim) == (3, size + n * (1 + 2 * n_frequencies))
    assert th.equal(result[:, size : size + n], obs[:, indices]), "encoded scalars are never normalised"
    sines, cosines = result[:, size + n :].unflatten(1, (2, n * n_frequencies)).unbind(1)
    th.testing.assert_close(sines.square() + cosines.square(), th.ones_like(sines))


@given(start=st.integers(-12, 12), stop=st.integers(-12, 12), step=st.integers(-3, 3).filter(bool))
@settings(max_examples=60, deadline=None)
def test_slices_mean_what_python_means(start: int, stop: int, step: int) -> None:
    expected = list(range(12))[start:stop:step]
    if expected:
        assert parse_indices(f"{start}:{stop}:{step}", 12) == expected
    else:
        with pytest.raises(ValueError, match="selects nothing"):
            parse_indices(f"{start}:{stop}:{step}", 12)


def test_normalisation_follows_the_training_batches_only() -> None:
    features = ObservationFeatures(spaces.Box(-np.inf, np.inf, (2,)))
    assert th.equal(features(th.tensor([[3.0, -4.0]])), th.tensor([[3.0, -4.0]])), "nothing seen: mean 0, variance 1"
    batch = th.tensor([[100.0, 0.001], [102.0, 0.003]])
    features.observe(batch)
    for _ in range(2):  # calling it does not move the statistics
        np.testing.assert_allclose(features(batch)[:, 0].numpy(), [-1, 1], rtol=1e-5)
    np.testing.assert_allclose(features(batch)[:, 1].numpy(), [-1, 1], rtol=2e-2)
    assert features(th.tensor([[1e6, 0.0]]))[0, 0] == 10.0
    assert {"statistics.mean", "statistics.variance", "statistics.count"} <= set(features.state_dict())


def test_function_of_the_raw_observation_as_object_or_dotted_path() -> None:
    obs = th.randn(4, 5)
    features = ObservationFeatures(VECTOR, function=distance, normalize=False)
    th.testing.assert_close(features(obs)[:, 5:], positional_encoding(distance(obs)))
    features = ObservationFeatures(VECTOR, function="torch.atleast_2d", normalize=False, object_scale=0.5)
    th.testing.assert_close(features(obs)[:, 5:], positional_encoding(0.5 * obs))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no.such.module.f", "Cannot import `function='no.such.module.f'`"),
        ("torch.no_such_function", "Cannot import"),
        ("nodots", "Cannot import"),
        ("torch.pi", "is not callable"),
        (flat, r"must return a tensor \(B, k\); for a batch of 2 observations it returned \(2,\)"),
        (len, "it returned int"),
    ],
)
def test_wrong_functions_are_named(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservationFeatures(VECTOR, function=function)


def test_images_need_a_function() -> None:
    for space in (IMAGE, spaces.Box(0, 255, (36, 36), np.uint8)):
        with pytest.raises(ValueError, match=r"is an image.* Pass `function`"):
            ObservationFeatures(space)
    features = ObservationFeatures(IMAGE, function=image_centre)
    assert features(th.zeros(2, 3, 36, 36, dtype=th.uint8)).shape == (2, 13)


def test_images_in_a_dict_are_left_out_or_read_by_a_function() -> None:
    space = spaces.Dict({"camera": IMAGE, "state": spaces.Box(-1, 1, (3,))})
    with pytest.raises(ValueError, match=r"\['camera'\] are images.*`keys=\['state'\]`"):
        ObservationFeatures(space)
    with pytest.raises(ValueError, match="need a vector of real numbers, observation entry 'camera'"):
        ObservationFeatures(space, keys=["state"], indices={"camera": [0]})
    obs = {"camera": th.zeros(2, 3, 36, 36, dtype=th.uint8), "state": th.zeros(2, 3)}
    assert ObservationFeatures(space, keys=["state"])(obs).shape == (2, 3)
    assert ObservationFeatures(space, function=lambda o: image_centre(o["camera"]))(obs).shape == (2, 3 + 13)


def test_dict_observation_is_flattened_with_one_hot_entries() -> None:
    features = ObservationFeatures(GOAL, indices={"achieved_goal": ":", "observation": 3}, normalize=False)
    obs = {
        "achieved_goal": th.tensor([[0.1, 0.2]]),
        "observation": th.tensor([[[0.3, 0.4], [0.5, 0.6]]]),
        "button": th.tensor([[2]]),
    }
    result = features(obs)
    assert result.shape == (1, features.dim) == (1, 2 + 4 + 3 + 3 * 13)
    np.testing.assert_allclose(result[0, :9].numpy(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(result[0, 9:12].numpy(), [0.1, 0.2, 0.6], rtol=1e-6)


def test_keys_choose_the_entries_of_a_dict() -> None:
    obs = {"achieved_goal": th.zeros(1, 2), "observation": th.ones(1, 2, 2), "button": th.zeros(1, 1)}
    assert th.equal(ObservationFeatures(GOAL, keys=["observation"], normalize=False)(obs), th.ones(1, 4))


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (GOAL, {"indices": [0]}, "must be a mapping of some of"),
        (GOAL, {"indices": {"goal": [0]}}, "`indices` names 'goal', the observation has"),
        (GOAL, {"indices": {"achieved_goal": 2}}, "Index 2 is outside observation entry 'achieved_goal', which has 2 values"),
        (GOAL, {"indices": {"button": 0}}, "need a vector of real numbers, observation entry 'button'"),
        (GOAL, {"keys": ["goal"]}, r"`keys` names \['goal'\]"),
        (GOAL, {"keys": ["button", "button"]}, r"`keys`=\['button', 'button'\] names an entry twice"),
        (GOAL, {"keys": []}, r"`keys`=\[\] leaves nothing to look at"),
        (VECTOR, {"indices": {"a": 0}}, "`indices` must be no mapping"),
        (VECTOR, {"keys": ["a"]}, "`keys` is for Dict observations"),
        (VECTOR, {"indices": 0, "function": distance}, "`indices` or `function`, not both"),
        (VECTOR, {"n_frequencies": -1}, "`n_frequencies` must be an integer of at least 0, got -1"),
        (spaces.Discrete(4), {"indices": 0}, "need a vector of real numbers"),
    ],
)
def test_wrong_arguments_are_named(space: spaces.Space, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservationFeatures(space, **arguments)


@pytest.mark.parametrize(
    ("space", "obs", "dim"),
    [
        (spaces.Discrete(4), th.tensor([[3], [0]]), 4),
        (spaces.MultiDiscrete([2, 3]), th.tensor([[1, 2], [0, 0]]), 5),
        (spaces.MultiBinary(3), th.tensor([[1, 0, 1], [0, 0, 0]], dtype=th.int8), 3),
        (spaces.Box(0, 255, (4,), np.uint8), th.tensor([[0, 1, 2, 255]] * 2, dtype=th.uint8), 4),
        (spaces.Box(-1, 1, (2, 3), np.float64), th.zeros(2, 2, 3, dtype=th.float64), 6),
    ],
)
def test_every_vector_space_of_sb3(space: spaces.Space, obs: th.Tensor, dim: int) -> None:
    features = ObservationFeatures(space)
    features.observe(obs)
    result = features(obs)
    assert result.shape == (2, dim) == (2, features.dim)
    assert result.dtype == th.float32
    assert th.isfinite(result).all()


def test_one_hot_entries_are_scaled() -> None:
    features = ObservationFeatures(spaces.Discrete(3), obs_scale=0.5)
    assert features(th.tensor([[1]])).tolist() == [[0.0, 0.5, 0.0]]


def test_standardised_dimensions_are_clipped_on_both_sides_then_scaled() -> None:
    features = ObservationFeatures(spaces.Box(-np.inf, np.inf, (1,)), obs_scale=0.5)
    features.observe(th.tensor([[100.0], [102.0]]))
    result = features(th.tensor([[-1e6], [100.0], [102.0], [1e6]]))
    np.testing.assert_allclose(result[:, 0].numpy(), [-5.0, -0.5, 0.5, 5.0], rtol=1e-4)
