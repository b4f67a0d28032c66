"""Videos of modes side by side. Needs Pillow, which matplotlib brings; mp4 needs moviepy, which RL Zoo's extra brings."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from sb3_rpg.modes.trajectories import beneath_normalization

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG

Frames = npt.NDArray[np.uint8]

#: width of a tile, in pixels, and frames kept of an episode; longer ones are shown faster
TILE_WIDTH, MAX_FRAMES = 240, 250
_CAPTION_HEIGHT, _BORDER = 22, 4


class Film(NamedTuple):
    """An episode to look at."""

    #: (n, height, width, 3)
    frames: Frames
    #: environment steps between two frames
    every: int
    #: undiscounted
    episode_return: float
    #: None where the environment does not tell
    success: bool | None


def film_latent(
    model: RPG,
    env: VecEnv,
    latent: np.ndarray,
    deterministic: bool = True,
    width: int = TILE_WIDTH,
    max_frames: int = MAX_FRAMES,
) -> Film:
    """
    Film an episode that is acted with one z.

    :param model: a trained model
    :param env: one copy, made with ``render_mode="rgb_array"``
    :param latent: z, (latent_dim,)
    :param deterministic: the mode of pi(a|s,z) instead of samples
    :param width: of the frames, in pixels; their height follows
    :param max_frames: of longer episodes, every second, fourth, ... frame is kept
    :return: the film
    :raises ImportError: if Pillow is missing
    :raises ValueError: if the environment has several copies or does not render
    """
    if env.num_envs != 1:
        raise ValueError(f"`env` has {env.num_envs} copies; a film takes one")
    inner, normalize = beneath_normalization(env)
    obs: Any = inner.reset()
    frames, every, step, total = [_shrunk(env, width)], 1, 0, 0.0
    while True:
        action, _ = model.predict(normalize(obs), latent, deterministic=deterministic)
        obs, reward, dones, infos = inner.step(action)
        total += float(reward[0])
        step += 1
        if dones[0]:  # what is rendered now is the start of the next episode
            success = bool(infos[0]["is_success"]) if "is_success" in infos[0] else None
            return Film(np.stack(frames), every, total, success)
        if step % every == 0:
            frames.append(_shrunk(env, width))
            if len(frames) > max_frames:
                frames, every = frames[::2], 2 * every


def tile_films(films: Sequence[Film], captions: Sequence[str], colors: npt.NDArray[np.float64]) -> Frames:
    """
    Films side by side, each with a caption and a frame of its colour; those that end early keep their last picture, paler.

    :param films: n of one size
    :param captions: n lines
    :param colors: sRGB in [0, 1], (n, 3)
    :return: (frames, height, width, 3), both even, as video encoders want them
    :raises ImportError: if Pillow is missing
    :raises ValueError: if their numbers differ or there are none
    """
    if not films or not len(films) == len(captions) == len(colors):
        raise ValueError(
            f"{len(films)} films, {len(captions)} captions and {len(colors)} colours must be as many, at least one"
        )
    every = max(film.every for film in films)
    # All at the pace of the fastest
    clips = [film.frames[:: every // film.every] for film in films]
    n_frames = max(len(clip) for clip in clips)
    height, width = clips[0].shape[1:3]
    columns = int(np.ceil(np.sqrt(len(films))))
    rows = -(-len(films) // columns)
    cell = height + _CAPTION_HEIGHT + 2 * _BORDER, width + 2 * _BORDER
    size = [n + n % 2 for n in (rows * cell[0], columns * cell[1])]
    grid = np.full((n_frames, *size, 3), 255, dtype=np.uint8)
    for i, (clip, caption, color) in enumerate(zip(clips, captions, colors, strict=True)):
        top, left = (i // columns) * cell[0], (i % columns) * cell[1]
        grid[:, top : top + cell[0], left : left + cell[1]] = np.rint(255 * color).astype(np.uint8)
        grid[:, top : top + _CAPTION_HEIGHT, left : left + cell[1]] = _caption(caption, cell[1])
        inner = (
            slice(top + _CAPTION_HEIGHT + _BORDER, top + cell[0] - _BORDER),
            slice(left + _BORDER, left + cell[1] - _BORDER),
        )
        grid[(slice(len(clip)), *inner)] = clip
        grid[(slice(len(clip), None), *inner)] = (clip[-1] // 2 + 127).astype(np.uint8)
    return grid


def write_video(path: Path, frames: Frames, fps: float = 30.0) -> Path:
    """
    :param path: the file, without suffix; its folder must exist
    :param frames: (n, height, width, 3), both even
    :param fps: frames a second
    :return: the file written: mp4 where moviepy is installed, else GIF
    :raises ImportError: if Pillow is missing
    """
    if importlib.util.find_spec("moviepy") is not None:
        from moviepy import ImageSequenceClip

        target = path.with_suffix(".mp4")
        clip = ImageSequenceClip(list(frames), fps=fps)
        # Players of browsers and of some systems show no other format of pixels
        clip.write_videofile(str(target), codec="libx264", audio=False, logger=None, pixel_format="yuv420p")
        return target
    image = _pillow("Image")
    target = path.with_suffix(".gif")
    # One palette for all frames: colours do not flicker
    palette = image.fromarray(frames[0]).quantize(256)
    pictures = [image.fromarray(frame).quantize(palette=palette, dither=0) for frame in frames]
    pictures[0].save(target, save_all=True, append_images=pictures[1:], duration=max(20, round(1000 / fps)), loop=0)
    return target


def _shrunk(env: VecEnv, width: int) -> Frames:
    frame = env.get_images()[0]
    if frame is None or np.ndim(frame) != 3:
        raise ValueError('`env` renders no images: make it with render_mode="rgb_array"')
    image = _pillow("Image").fromarray(np.asarray(frame, dtype=np.uint8))
    return np.asarray(image.resize((width, max(2, round(image.height * width / image.width)))))


def _caption(text: str, width: int) -> Frames:
    image = _pillow("Image").new("RGB", (width, _CAPTION_HEIGHT), "white")
    font = _pillow("ImageFont").load_default(13)
    _pillow("ImageDraw").Draw(image).text((_BORDER, 3), text, fill="black", font=font)
    return np.asarray(image)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise ImportError('videos need Pillow, which matplotlib brings: pip install "sb3_rpg[modes]"') from error
