"""Where the hyperparameters of an experiment come from: our own files and RL Zoo's."""

from pathlib import Path
from typing import Any


def hyperparams_path(name: str) -> Path:
    """
    Find one of the project's hyperparameter files, in an installed package as in a checkout.

    :param name: the file's name, with or without ``.yml``: ``"rpg"``
    :return: the path of an existing file
    :raises FileNotFoundError: if there is no such file; the message names those that there are
    """
    package = Path(__file__).resolve().parent.parent
    # A wheel has the folder inside the package, a checkout beside it
    folder = package / "hyperparams"
    if not folder.is_dir():
        folder = package.parent / "hyperparams"
    path = folder / f"{name.removesuffix('.yml')}.yml"
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in folder.glob("*.yml"))) or f"none at all in {folder}"
        raise FileNotFoundError(f"name={name!r}: sb3_rpg has no hyperparameter file of this name, only {known}.")
    return path


def load_hyperparams(path: Path) -> dict[str, dict[str, Any]]:
    """
    :param path: a hyperparameter file in RL Zoo's format
    :return: the hyperparameters by environment id
    :raises ValueError: if the file holds anything else
    """
    import yaml  # comes with RL Zoo

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"path={str(path)!r} holds no mapping of environment ids to hyperparameters.")
    return content


def default_config(algo: str, env_id: str, zoo_folder: Path) -> Path | None:
    """
    The file to use when an experiment names none (``--conf-file``).

    RL Zoo's own settings come first: a file of ours for an algorithm of the Zoo only adds environments that the Zoo
    has no settings for.

    :param algo: the algorithm's name in RL Zoo
    :param env_id: the environment's id
    :param zoo_folder: RL Zoo's folder ``hyperparams``
    :return: one of our files, or None where RL Zoo's own default applies
    """
    try:
        ours = hyperparams_path(algo)
    except FileNotFoundError:
        return None
    theirs = zoo_folder / f"{algo}.yml"
    if not theirs.is_file():
        return ours
    if env_id in load_hyperparams(ours) and env_id not in load_hyperparams(theirs):
        return ours
    return None
