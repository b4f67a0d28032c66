"""Videos: every step is there, side by side, in files that can be read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg.envs import MazeVecEnv
from sb3_rpg.modes.videos import Film, film_latent, tile_films, write_video
from tests.conftest import small_rpg

Image = pytest.importorskip("PIL.Image")


def film(n: int, value: int, every: int = 1) -> Film:
    return Film(np.full((n, 20, 30, 3), value, dtype=np.uint8), every, 1.0, None)


@pytest.mark.parametrize("normalize", [False, True])
def test_an_episode_is_filmed(normalize: bool) -> None:
    model = small_rpg(MazeVecEnv(1)).learn(20)
    env = MazeVecEnv(1, reward="sparse", max_episode_steps=20, render_mode="rgb_array")
    z = np.array([1.0, 0.0, -1.0], dtype=np.float32)
    filmed = film_latent(model, VecNormalize(env, norm_obs=False) if normalize else env, z, width=54)
    # The picture after the last step is that of the next episode, and left out
    assert filmed.frames.shape == (20, 54, 54, 3) and filmed.every == 1
    assert filmed.episode_return == 0.0 and filmed.success is False
    assert (filmed.frames[0] != filmed.frames[-1]).any()
    env = MazeVecEnv(1, reward="sparse", max_episode_steps=20, render_mode="rgb_array")
    short = film_latent(model, env, z, width=54, max_frames=6)
    assert short.every == 4 and np.array_equal(short.frames, filmed.frames[::4])
    assert film_latent(model, MazeVecEnv(1, max_episode_steps=2, render_mode="rgb_array"), z).success is None


def test_the_policy_sees_normalised_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_rpg(MazeVecEnv(1)).learn(20)
    env: Any = VecNormalize(MazeVecEnv(1, max_episode_steps=3, render_mode="rgb_array"))
    env.obs_rms.mean[:] = 0.5
    seen: list[np.ndarray] = []
    predict = model.predict

    def watched(obs: np.ndarray, *args: object, **kwargs: object) -> object:
        seen.append(obs)
        return predict(obs, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "predict", watched)
    film_latent(model, env, np.zeros(3, dtype=np.float32))
    assert len(seen) == 3 and np.allclose(seen[0], env.normalize_obs(MazeVecEnv(1, start_noise=0.0).reset()), atol=0.1)
    assert env.obs_rms.mean[0] == 0.5


def test_tiles() -> None:
    colors = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    grid = tile_films([film(8, 10), film(3, 100), film(2, 200, every=2)], ["a", "b", "c"], colors)
    height, width = 20 + 22 + 8, 30 + 8
    assert grid.shape == (4, 2 * height, 2 * width, 3)  # at the pace of the fastest: every second step
    tiles = [grid[:, y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    assert (tiles[0][:, 26:46, 4:34] == 10).all()
    assert (tiles[1][:2, 26:46, 4:34] == 100).all() and (tiles[1][2:, 26:46, 4:34] == 177).all()  # ended: paler
    assert (tiles[3] == 255).all()
    for tile, color in zip(tiles, colors, strict=False):
        assert (tile[0, 24, 2] == 255 * color).all()
        assert (tile[0, :22] < 100).any()  # the caption


def test_files_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = tile_films([film(5, 10), film(5, 200)], ["a", "b"], np.zeros((2, 3)))
    if importlib.util.find_spec("moviepy") is not None:
        moviepy = importlib.import_module("moviepy")
        target = write_video(tmp_path / "video", frames, fps=10)
        assert target == tmp_path / "video.mp4"
        with moviepy.VideoFileClip(str(target)) as clip:
            assert tuple(clip.size) == frames.shape[2:0:-1] and clip.duration == pytest.approx(0.5, abs=0.11)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "moviepy" else find(name))
    target = write_video(tmp_path / "video", frames, fps=10)
    assert target == tmp_path / "video.gif"
    with Image.open(target) as image:
        assert image.size == frames.shape[2:0:-1]
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frames[0]).max() < 40


def test_errors() -> None:
    model = small_rpg(MazeVecEnv(1))
    with pytest.raises(ValueError, match="`env` has 2 copies; a film takes one"):
        film_latent(model, MazeVecEnv(2, render_mode="rgb_array"), np.zeros(3))
    with pytest.raises(ValueError, match='renders no images: make it with render_mode="rgb_array"'):
        film_latent(model, MazeVecEnv(1), np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="1 films, 2 captions and 1 colours must be as many"):
        tile_films([film(2, 0)], ["a", "b"], np.zeros((1, 3)))
