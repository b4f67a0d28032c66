"""Files of models: written so that a killed process leaves the old or the new one, read with clear errors."""

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.save_util import open_path

#: raised by one whenever a saved model's contents change their meaning
CHECKPOINT_FORMAT = 1

File = str | pathlib.Path | io.BufferedIOBase


@contextmanager
def atomic_path(path: str | pathlib.Path, suffix: str) -> Iterator[pathlib.Path]:
    """
    Write to a temporary file beside the final one, then rename it; nothing is left behind where writing fails.

    :param path: where the file shall be; ``suffix`` is added where it has none, as SB3 does
    :param suffix: with its dot
    :return: context of the path to write to
    """
    final = pathlib.Path(path)
    if final.suffix == "":
        final = pathlib.Path(f"{final}{suffix}")
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.incomplete{final.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: pathlib.Path) -> None:
    """
    Have the system write a file to the disk, so that a loss of power after the rename does not leave it empty.

    :param path: a file
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_model_file(path: File) -> None:
    """
    :param path: what ``RPG.load`` was given
    :raises FileNotFoundError: if there is none
    :raises ValueError: if the file is truncated, is no model, or was saved by another algorithm or a later version
    """
    name = getattr(path, "name", "the given stream") if isinstance(path, io.IOBase) else path
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            content: dict[str, Any] = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{name} is not a complete model file ({error}): it was truncated, or is something else; load another checkpoint"
        ) from error
    finally:
        if isinstance(path, (str, pathlib.Path)):
            file.close()
    saved_format = content.get("checkpoint_format")
    if saved_format is None:
        policy = content.get("policy_class")
        module = policy.get("__module__", "an unknown one") if isinstance(policy, dict) else "an unknown one"
        raise ValueError(f"{name} was not saved by RPG: its policy is of the module {module}; load it with its own algorithm")
    if saved_format > CHECKPOINT_FORMAT:
        raise ValueError(
            f"{name} was saved by sb3_rpg {content.get('sb3_rpg_version')} in checkpoint format {saved_format}; this version "
            f"reads formats up to {CHECKPOINT_FORMAT}: upgrade sb3_rpg"
        )
