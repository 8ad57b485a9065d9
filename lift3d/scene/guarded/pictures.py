"""Open picture files with Pillow: size, mode and metadata, before pixels are decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import file_size, reading

PIXELS = 200_000_000
"""Most pixels of a picture: phones take 200 megapixels, and that is 0.6 GB of colour."""


def pillow() -> Any:
    """Pillow's `Image`, with our limit of pixels instead of its own of 179 million."""
    from PIL import Image

    # Pillow raises at twice this number and only warns between both.
    Image.MAX_IMAGE_PIXELS = PIXELS // 2
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


@contextmanager
def opened_picture(
    source: Path | bytes, where: str = "", error: type[InputError] = FrameError
) -> Iterator[Any]:
    """A picture as Pillow's image; its pixels are decoded when they are asked for.

    Every exception of the block becomes `error`, which names `where` or the path. Pictures of more
    than `PIXELS` are refused.
    """
    where = where or str(source)
    if isinstance(source, Path):
        size = file_size(source, error)
    else:
        size = len(source)
        source = BytesIO(source)  # type: ignore[assignment]
    library = pillow()
    with reading(where, "a picture", error):
        try:
            image = library.open(source)
        except library.UnidentifiedImageError as fault:
            raise error(
                f"{where} is not an image that can be read (found {size} bytes); copy it again"
            ) from fault
        except library.DecompressionBombError as fault:
            raise error(
                f"{where} has more than {PIXELS // 1_000_000} megapixels; save it smaller"
            ) from fault
        with image:
            yield image


def check_pixels(data: bytes, where: str, error: type[InputError] = FrameError) -> None:
    """Raise `error` where an encoded picture has more than `PIXELS`, by its header.

    A format that Pillow does not know passes; OpenCV has a limit of its own.
    """
    library = pillow()
    try:
        with opened_picture(data, where, error):
            pass
    except error as fault:
        if not isinstance(fault.__cause__, library.UnidentifiedImageError):
            raise
