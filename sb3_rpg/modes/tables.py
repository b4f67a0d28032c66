"""Modes in numbers: one row a z, one row a mode, as CSV and on the terminal."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_rpg.modes.clusters import Mode
from sb3_rpg.modes.trajectories import Trajectory

Row = dict[str, Any]


def latent_rows(trajectories: Sequence[Trajectory], modes: Sequence[Mode], values: np.ndarray | None = None) -> list[Row]:
    """
    :param trajectories: of different latents
    :param modes: their modes
    :param values: what the model expected of each, (n,)
    :return: one row a z: its number, mode, return, success (empty where the environment does not tell), length in steps,
        value, and z itself
    """
    mode_of = {int(i): mode.number for mode in modes for i in mode.members}
    rows = []
    for i, t in enumerate(trajectories):
        row: Row = {
            "latent": i,
            "mode": mode_of[i],
            "return": t.episode_return,
            "success": "" if t.success is None else int(t.success),
            "length": len(t.rewards),
        }
        if values is not None:
            row["value"] = float(values[i])
        rows.append({**row, **_components(t.latent)})
    return rows


def mode_rows(trajectories: Sequence[Trajectory], modes: Sequence[Mode]) -> list[Row]:
    """
    :param trajectories: of different latents
    :param modes: their modes
    :return: one row a mode: its number, episodes, their share, mean, standard deviation, minimum and maximum of their returns,
        success rate (empty where the environment does not tell), mean length in steps, the number of its most typical z
        among the rows of :func:`latent_rows`, and that z
    """
    rows = []
    for mode in modes:
        members = [trajectories[int(i)] for i in mode.members]
        returns = np.array([t.episode_return for t in members])
        rows.append(
            {
                "mode": mode.number,
                "episodes": len(members),
                "share": mode.share,
                "return_mean": mode.mean_return,
                "return_std": float(returns.std()),
                "return_min": float(returns.min()),
                "return_max": float(returns.max()),
                "success": "" if mode.success_rate is None else mode.success_rate,
                "length_mean": float(np.mean([len(t.rewards) for t in members])),
                "latent": int(mode.members[0]),
                **_components(mode.latent),
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """
    :param path: the CSV file to write
    :param rows: with the same columns
    :return: the file
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def format_rows(rows: Sequence[Row]) -> str:
    """
    :param rows: with the same columns; those of z are left out
    :return: a table for the terminal
    """
    names = [name for name in rows[0] if not name.startswith("z_")]
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _components(latent: np.ndarray) -> Row:
    return {f"z_{i}": float(value) for i, value in enumerate(latent)}


def _cell(value: Any) -> str:
    if value == "":
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
