"""Files appear complete or not at all; files that are not what they should be are refused with what they are."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.save_util import save_to_pkl

from sb3_rpg import RPG
from sb3_rpg.saving import CHECKPOINT_FORMAT, atomic_path
from tests.conftest import LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg


def test_atomic_path_replaces_only_when_all_was_written(tmp_path: Path) -> None:
    target = tmp_path / "file.zip"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_path(target, ".zip") as path:
        path.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with atomic_path(tmp_path / "file", ".zip") as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["model", "model.zip", "new/folder/model.v2"])
@pytest.mark.filterwarnings("ignore:Path .* does not exist")
def test_models_are_saved_under_the_name_that_sb3_gives_them(name: str, tmp_path: Path) -> None:
    model = small_rpg()
    model.save(tmp_path / "rpg" / name)
    SAC("MlpPolicy", LabelledEnv(), buffer_size=10, device="cpu").save(tmp_path / "sac" / name)
    files = [[p.relative_to(tmp_path / algo) for p in sorted((tmp_path / algo).rglob("*"))] for algo in ("rpg", "sac")]
    assert files[0] == files[1]
    assert changed(parameters_of(model.policy), RPG.load(str(tmp_path / "rpg" / name), device="cpu").policy) == set()


def test_a_failed_save_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_rpg().learn(20)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("stable_baselines3.common.save_util.th.save", full_disk)
    monkeypatch.setattr("stable_baselines3.common.save_util.pickle.dump", full_disk)
    for save in (model.save, model.save_replay_buffer):
        with pytest.raises(OSError, match="No space"):
            save(tmp_path / ("model" if save == model.save else "buffer"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def rewritten(model: RPG, **changes: Any) -> io.BytesIO:
    """A saved model with some of its data changed."""
    source, target = io.BytesIO(), io.BytesIO()
    model.save(source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                data = {**json.loads(content), **changes}
                content = json.dumps({key: value for key, value in data.items() if value is not None}).encode()
            new.writestr(name, content)
    target.seek(0)
    return target


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.zip"
    model = small_rpg()
    model.save(file)
    complete = file.read_bytes()
    for length in (0, 100, len(complete) // 2, len(complete) - 10):
        file.write_bytes(complete[:length])
        with pytest.raises(ValueError, match=r"model\.zip is not a complete model file .*load another checkpoint"):
            RPG.load(file)
    file.write_bytes(b"no zip at all" * 100)
    with pytest.raises(ValueError, match="is not a complete model file"):
        RPG.load(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("holiday.jpg", b"...")
    with pytest.raises(ValueError, match=r"is not a complete model file .*'data'"):
        RPG.load(str(file))
    SAC("MlpPolicy", LabelledEnv(), buffer_size=10, device="cpu").save(file)
    with pytest.raises(ValueError, match=r"was not saved by RPG: its policy is of the module stable_baselines3\.sac"):
        RPG.load(file)
    with pytest.raises(FileNotFoundError):
        RPG.load(tmp_path / "nothing")


def test_checkpoints_of_later_formats_are_refused_and_of_earlier_arguments_loaded() -> None:
    model = small_rpg(latent_relabel=0.5).learn(20)
    later = rewritten(model, checkpoint_format=CHECKPOINT_FORMAT + 1, sb3_rpg_version="9.8.7")
    with pytest.raises(ValueError, match=r"saved by sb3_rpg 9\.8\.7 in checkpoint format .*: upgrade sb3_rpg"):
        RPG.load(later)
    # An argument that did not exist yet has its default
    assert RPG.load(rewritten(model, latent_relabel=None), device="cpu").latent_relabel == "auto"
    assert RPG.load(rewritten(model), device="cpu").latent_relabel == 0.5


def test_replay_buffers_that_do_not_fit_are_refused_and_the_own_one_is_kept(tmp_path: Path) -> None:
    model = small_rpg(labelled_vec_env(2)).learn(40)
    own = model.replay_buffer
    file = tmp_path / "buffer.pkl"

    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            model.load_replay_buffer(file)
        assert model.replay_buffer is own

    small_rpg(labelled_vec_env(3)).learn(30).save_replay_buffer(file)
    refused("another number of environments than the model: 3 instead of 2")
    small_rpg(labelled_vec_env(2), latent_dim=7).learn(30).save_replay_buffer(file)
    refused("another width of z than the model: 7 instead of 3")
    small_rpg(labelled_vec_env(2, action_shape=(4,))).learn(30).save_replay_buffer(file)
    refused("another action space than the model")
    small_rpg(labelled_vec_env(2), latent="categorical").learn(30).save_replay_buffer(file)
    refused("another kind of z than the model: categorical instead of gaussian")
    save_to_pkl(file, ReplayBuffer(10, model.observation_space, model.action_space, n_envs=2))
    refused("is a ReplayBuffer, which holds no latents: it was saved by another algorithm")
    model.save_replay_buffer(file)
    file.write_bytes(file.read_bytes()[:-50])
    refused(r"buffer\.pkl is not a complete replay buffer")


# ---------------------------------------------------------------------- safety


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_parameters_alone_can_be_loaded_without_executing_what_is_pickled(tmp_path: Path) -> None:
    model = small_rpg().learn(30)
    trace = tmp_path / "executed"
    # As SB3 stores what is not JSON
    import base64

    evil = {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(Evil(trace))).decode()}
    file = rewritten(model, anything=evil)
    other = small_rpg(seed=5)
    (tmp_path / "model.zip").write_bytes(file.read())
    other.set_parameters(str(tmp_path / "model.zip"), device="cpu")
    assert not trace.exists()
    assert changed(parameters_of(model.policy), other.policy) == set()
    file.seek(0)
    RPG.load(file, device="cpu")
    assert trace.exists(), "the file was harmless: nothing was tested"


# ------------------------------------------------------- evaluation and offline


def test_evaluation_within_training_changes_nothing() -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            for deterministic in (True, False):
                obs: Any = self.model.observation_space.sample()
                actions.append(self.model.predict(obs, deterministic=deterministic)[0])
            return True

    actions: list[np.ndarray] = []
    evaluated, plain = small_rpg().learn(40, Evaluate()), small_rpg().learn(40)
    assert changed(parameters_of(plain.policy), evaluated.policy) == set()
    assert np.array_equal(plain.replay_buffer.actions[:40], evaluated.replay_buffer.actions[:40])
    assert len({action.tobytes() for action in actions}) > 60  # samples all the same


def test_evaluations_of_one_learn_after_another_draw_other_z() -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Evaluate(BaseCallback):
        def _on_training_start(self) -> None:
            z.append(self.model.predict(np.zeros(3, dtype=np.float32))[1][0])  # type: ignore[index]

        def _on_step(self) -> bool:
            return True

    z: list[np.ndarray] = []
    for _ in range(2):
        model = small_rpg()
        for _ in range(3):
            model.learn(10, Evaluate(), reset_num_timesteps=False)
    assert len({latent.tobytes() for latent in z[:3]}) == 3
    assert np.array_equal(z[:3], z[3:])  # and the same ones with the same seed


def test_outside_of_training_predictions_follow_the_global_seed() -> None:
    model = small_rpg().learn(20)
    obs = np.zeros(3, dtype=np.float32)
    th.manual_seed(3)
    first = model.predict(obs)[0]
    assert not np.array_equal(model.predict(obs)[0], first)
    th.manual_seed(3)
    assert np.array_equal(model.predict(obs)[0], first)


def test_training_from_a_loaded_buffer_alone(tmp_path: Path) -> None:
    model = small_rpg(labelled_vec_env(2)).learn(60)
    model.save_replay_buffer(tmp_path / "buffer")
    offline = small_rpg(labelled_vec_env(2), seed=3)
    offline.load_replay_buffer(tmp_path / "buffer")
    offline.set_logger(configure(None, []))
    before = {name: parameters_of(part) for name, part in offline.policy.named_children()}
    offline.train(gradient_steps=10, batch_size=16)
    assert offline._n_updates == offline._n_model_updates == 10
    for name, part in offline.policy.named_children():
        assert changed(before[name], part), name
