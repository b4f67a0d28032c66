"""Minimal drawing on RGB images, so that rendering needs nothing but NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
DARK: Color = (45, 45, 55)
GREY: Color = (150, 150, 160)
BLUE: Color = (0, 114, 178)
PALE_BLUE: Color = (203, 225, 242)
PALE_GOLD: Color = (252, 232, 168)
VERMILION: Color = (213, 94, 0)


def blank(width: int, height: int, color: Color = WHITE) -> Image:
    """
    A one-coloured image.

    :param width: columns, in pixels
    :param height: rows, in pixels
    :param color: (red, green, blue), each 0..255
    :return: image of shape (height, width, 3)
    """
    return np.full((height, width, 3), color, dtype=np.uint8)


def rectangle(image: Image, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    """
    Fill the pixels ``left <= x < right``, ``top <= y < bottom`` in place; what lies outside the image is cut off.

    :param image: image of shape (height, width, 3)
    :param left: first column
    :param top: first row, row 0 being the top one
    :param right: column after the last
    :param bottom: row after the last
    :param color: (red, green, blue), each 0..255
    """
    rows = slice(max(round(top), 0), max(round(bottom), 0))
    columns = slice(max(round(left), 0), max(round(right), 0))
    image[rows, columns] = color


def disc(image: Image, x: float, y: float, radius: float, color: Color) -> None:
    """
    Fill a disc in place; what lies outside the image is cut off.

    :param image: image of shape (height, width, 3)
    :param x: column of the centre
    :param y: row of the centre, row 0 being the top one
    :param radius: radius in pixels
    :param color: (red, green, blue), each 0..255
    """
    height, width, _ = image.shape
    top, bottom = max(int(y - radius), 0), min(int(y + radius) + 2, height)
    left, right = max(int(x - radius), 0), min(int(x + radius) + 2, width)
    rows, columns = np.ogrid[top:bottom, left:right]
    image[top:bottom, left:right][(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = color
