"""Exported policies act as ``predict`` does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg import RPG
from sb3_rpg.export import ExportedPolicy, to_onnx, to_torchscript
from tests.conftest import Counter, LabelledEnv, labelled_vec_env, small_rpg

POLICIES = {"vector": "MlpPolicy", "dict": "MultiInputPolicy", "image": "CnnPolicy"}


def cases() -> list[Any]:
    plain = [(kind, latent, False) for kind in POLICIES for latent in ("gaussian", "none")]
    return [*plain, ("vector", "mixed", True), ("dict", "hypersphere", True)]


def prepare(kind: str, latent: str, normalize: bool) -> tuple[RPG, VecNormalize | None, list[np.ndarray], np.ndarray]:
    """A trained model, its normalisation, raw inputs of a batch, and what ``predict`` says to them."""
    env: Any = labelled_vec_env(2, space=kind, action_shape=(2, 2))
    normalizer = VecNormalize(env) if normalize else None
    model = small_rpg(normalizer or env, POLICIES[kind], latent=latent).learn(40)
    rng = np.random.default_rng(0)
    space = model.observation_space
    n = 5

    def draw(part: spaces.Space) -> np.ndarray:
        if kind == "image":
            return rng.integers(0, 256, (n, *part.shape)).astype(np.uint8)  # type: ignore[misc]
        return rng.uniform(-3, 8, (n, *part.shape)).astype(np.float32)  # type: ignore[misc]

    inputs = [draw(space[key]) for key in sorted(space.spaces)] if isinstance(space, spaces.Dict) else [draw(space)]
    obs: Any = dict(zip(sorted(space.spaces), inputs, strict=True)) if isinstance(space, spaces.Dict) else inputs[0]
    latent_space = model.latent_space
    params = th.zeros(n, latent_space.policy_dim) if latent_space.policy_dim else None
    z = latent_space.sample(n, params, 1.0, th.device("cpu")).numpy()
    seen = normalizer.normalize_obs(obs) if normalizer else obs
    expected = model.predict(seen, state=z, deterministic=True)[0]
    assert np.abs(expected - expected[0]).max() > 1e-3, "the policy is constant: nothing is tested"
    return model, normalizer, [*inputs, *([z] if latent != "none" else [])], expected


@pytest.mark.parametrize(("kind", "latent", "normalize"), cases())
def test_torchscript_is_predict(kind: str, latent: str, normalize: bool, tmp_path: Path) -> None:
    model, normalizer, inputs, expected = prepare(kind, latent, normalize)
    to_torchscript(model, tmp_path / "policy", normalizer)
    loaded = th.jit.load(str(tmp_path / "policy.pt"))
    with th.no_grad():
        for n in (5, 1):  # another batch than it was traced with
            actions = loaded(*[th.as_tensor(value[:n]) for value in inputs])
            assert np.allclose(actions.numpy(), expected[:n], atol=1e-5)


@pytest.mark.parametrize(("kind", "latent", "normalize"), cases())
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_is_predict(kind: str, latent: str, normalize: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, normalizer, inputs, expected = prepare(kind, latent, normalize)
    names = to_onnx(model, tmp_path / "policy.onnx", normalizer)
    assert names == ExportedPolicy(model).input_names and len(names) == len(inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    for n in (5, 1):
        (actions,) = session.run(["action"], dict(zip(names, [value[:n] for value in inputs], strict=True)))
        assert np.allclose(actions, expected[:n], atol=1e-5)


@pytest.mark.parametrize("latent", ["gaussian", "none"])
def test_discrete_observations(latent: str, tmp_path: Path) -> None:
    model = small_rpg(Counter(spaces.Discrete(8)), latent=latent).learn(20)
    traced = to_torchscript(model, tmp_path / "policy")
    obs, z = np.arange(5), np.ones((5, model.latent_space.dim), dtype=np.float32)
    inputs = [th.as_tensor(obs), *([th.as_tensor(z)] if latent != "none" else [])]
    expected = model.predict(obs, state=z, deterministic=True)[0]
    assert np.allclose(traced(*inputs).detach().numpy(), expected, atol=1e-5)
    assert np.allclose(traced(*[value[:2] for value in inputs]).detach().numpy(), expected[:2], atol=1e-5)


def test_an_entry_that_is_called_as_the_latent_is_refused() -> None:
    env = LabelledEnv()
    env.observation_space = spaces.Dict({"z": env.observation_space})
    with pytest.raises(ValueError, match="the observation has an entry 'z'"):
        to_torchscript(small_rpg(env, "MultiInputPolicy"))


def test_without_its_extra_onnx_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(ImportError, match=r'to_onnx needs onnxscript: pip install "sb3_rpg\[export\]"'):
        to_onnx(small_rpg(), tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []
