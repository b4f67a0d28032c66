"""Upload and download through the Hugging Face Hub's functions for SB3, with the network replaced by a folder."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from sb3_rpg import RPG
from tests.conftest import small_rpg

hub = pytest.importorskip("huggingface_sb3")
pytestmark = pytest.mark.skipif(
    "sb3-team-hf-integration" not in importlib.metadata.packages_distributions().get("huggingface_sb3", []),
    reason="an older package of the same module",
)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the Hub's place."""
    folder = tmp_path / "remote"

    class FolderApi:
        def __init__(self, token: str | None = None):
            pass

        def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id: str, folder_path: str, **kwargs: Any) -> None:
            shutil.copytree(folder_path, folder / repo_id)

        def upload_file(self, path_or_fileobj: str, path_in_repo: str, repo_id: str, **kwargs: Any) -> None:
            (folder / repo_id).mkdir(parents=True)
            shutil.copyfile(path_or_fileobj, folder / repo_id / path_in_repo)

    def download(repo_id: str, filename: str, **kwargs: Any) -> str:
        return str(folder / repo_id / filename)

    monkeypatch.setattr(sys.modules["huggingface_sb3.push_to_hub"], "HfApi", FolderApi)  # its function has its name
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_packaged_agent_comes_back(remote: Path) -> None:
    model = small_rpg(gym.make("RPGMaze-v0")).learn(60)
    env = Monitor(gym.make("RPGMaze-v0", render_mode="rgb_array"))
    hub.package_to_hub(
        model,
        "rpg-maze",
        "RPG",
        "RPGMaze-v0",
        env,
        "someone/rpg-maze",
        n_eval_episodes=1,
        video_length=5,
        commit_message="RPG",
    )
    files = {path.name for path in (remote / "someone" / "rpg-maze").iterdir()}
    assert {"rpg-maze.zip", "README.md", "config.json", "results.json"} <= files
    assert json.loads((remote / "someone" / "rpg-maze" / "config.json").read_text())["latent"] == "gaussian"
    loaded = RPG.load(hub.load_from_hub("someone/rpg-maze", "rpg-maze.zip"), device="cpu")
    obs = env.reset(seed=0)[0]
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_a_pushed_file_comes_back(remote: Path, tmp_path: Path) -> None:
    model = small_rpg().learn(30)
    model.save(tmp_path / "agent.zip")
    hub.push_to_hub("someone/agent", str(tmp_path / "agent.zip"), "an agent")
    loaded = RPG.load(hub.load_from_hub("someone/agent", "agent.zip"), device="cpu")
    obs = np.zeros(3, dtype=np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
