"""On a CUDA device: the same numbers as on a CPU, updates that wait for nothing, and that a CUDA graph can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from benchmarks.speed_cases import captured_update
from sb3_rpg import RPG
from sb3_rpg.intrinsic import replay
from sb3_rpg.updates import update_world_model
from tests.conftest import LabelledEnv, changed, parameters_of, small_rpg

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
LATENTS = ["gaussian", "learned_gaussian", "categorical", "mixed", "hypersphere", "none"]


@contextmanager
def no_waiting(model: RPG) -> Iterator[None]:
    """Within, whatever makes the host wait for the device is an error; batches are brought there outside of it."""

    def allowed(function: Callable[..., Any]) -> Callable[..., Any]:
        def bring(*args: Any, **kwargs: Any) -> Any:
            th.cuda.set_sync_debug_mode("default")
            tensors = function(*args, **kwargs)
            th.cuda.set_sync_debug_mode("error")
            return tensors

        return bring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.replay_buffer, "to_torch", allowed(model.replay_buffer.to_torch))
        patch.setattr(replay, "_to_tensors", allowed(replay._to_tensors))
        th.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            th.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("latent", LATENTS)
def test_an_update_waits_for_nothing(latent: str, precision: str) -> None:
    model = small_rpg(device="cuda", latent=latent, precision=precision, intrinsic_reward="rnd").learn(60)
    before = parameters_of(model.policy)
    with no_waiting(model):
        model.train(4, model.batch_size)
    different = changed(before, model.policy)
    assert any(name.startswith("world_model.gru") for name in different)
    assert any(name.startswith("actor.action_head") for name in different)


def test_the_guard_against_waiting_sees_it() -> None:
    model = small_rpg(device="cuda").learn(30)
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting(model):
        model.policy.world_model.gru.bias_hh.sum().item()


def test_the_model_learns_the_same_as_on_a_cpu() -> None:
    """float32, and no random numbers: the states' and rewards' terms of the first update."""
    models = {
        device: small_rpg(device=device, precision="fp32", horizon=3, intrinsic_reward=None) for device in ("cpu", "cuda")
    }
    for model in models.values():
        model.learn(30)
    cpu, cuda = models["cpu"], models["cuda"]
    cuda.policy.load_state_dict(cpu.policy.state_dict())
    cuda._twin.refresh()
    segments = cpu.replay_buffer.sample_segments(16, 3)
    on_cuda = type(segments)(*(value.cuda() for value in segments))  # type: ignore[union-attr]
    errors = []
    for model, batch in ((cpu, segments), (cuda, on_cuda)):
        metrics = update_world_model(model._twin, batch, batch.rewards, model.update_settings())
        errors.append([metrics[name].item() for name in ("consistency_loss", "reward_loss")])
    assert np.allclose(errors[0], errors[1], rtol=1e-3)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_what_was_trained_there_acts_the_same_on_a_cpu(latent: str, tmp_path: Path) -> None:
    model = small_rpg(device="cuda", latent=latent).learn(40)
    model.save(tmp_path / "model.zip")
    loaded = RPG.load(tmp_path / "model.zip", device="cpu")
    obs = np.stack([LabelledEnv().observation_space.sample() for _ in range(5)])
    actions, state = model.predict(obs, deterministic=True)
    expected, _ = loaded.predict(obs, state, deterministic=True)
    assert np.allclose(actions, expected, atol=1e-3)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_a_cuda_graph_holds_an_update(latent: str) -> None:
    model = small_rpg(device="cuda", latent=latent).learn(40)
    replay = captured_update(model)
    before = parameters_of(model.policy)
    for _ in range(3):
        replay()
    th.cuda.synchronize()
    different = changed(before, model.policy)
    assert any(name.startswith("world_model.gru") for name in different)
    assert any(name.startswith("actor.action_head") for name in different)
    assert all(th.isfinite(value).all() for value in model.policy.state_dict().values())
