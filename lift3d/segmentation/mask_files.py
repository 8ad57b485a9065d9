"""Masks of one view from a file or a folder, as other programs write them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32

from lift3d.datasets.mask_codes import from_polygons
from lift3d.datasets.patterns import natural
from lift3d.scene import Camera, LabelMap, Masks
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import UNPACKED, load_bytes, load_text, reading
from lift3d.scene.guarded.arrays import load_npy, load_npz
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.labelmaps import read_label_map

MOST_COLOURS = 1000
"""A picture with more colours is no picture of masks, each in its colour. Chosen by hand."""
BLENDED = 0.5
"""Share of colours with few pixels from which borders are taken to be blended. Chosen by hand."""
FEW = 4
"""Pixels of a colour that may come from a blended border. Chosen by hand."""
AGAIN = "write it again"
"""What to do with a damaged file of masks."""
UNREAD = {
    ".pkl": "a pickle can run programs, so it is not opened",
    ".pickle": "a pickle can run programs, so it is not opened",
    ".pt": "a torch file can run programs, so it is not opened",
    ".pth": "a torch file can run programs, so it is not opened",
    ".jpg": "JPEG changes ids along borders",
    ".jpeg": "JPEG changes ids along borders",
}
"""Files that masks come in and that are not read, with the reason."""


def read_masks(path: Path, camera: Camera) -> Masks:
    """The masks in a file or a folder, at the size of the camera's picture.

    FrameError where the file is damaged, InputError where its kind cannot be masks.
    """
    if path.is_dir():
        return _folder(path, camera)
    return READERS[path.suffix.lower()](path, camera)


def _folder(path: Path, camera: Camera) -> Masks:
    """One picture per mask; scores from the `metadata.csv` of SAM's `amg.py`."""
    files = sorted(path.glob("*.png"), key=lambda file: natural(file.stem))
    table = path / "metadata.csv"
    if not files and not table.is_file():
        raise FrameError(f"{path} holds no PNG; write one binary mask per object")
    quality = _qualities(table) if table.is_file() else {}
    check_room(len(files), path, camera)
    masks = [fitted(_binary(file), file, camera) for file in files]
    return stacked(masks, [quality.get(file.stem, 1.0) for file in files], camera)


def _qualities(table: Path) -> dict[str, float]:
    """The `predicted_iou` of each mask, by its id."""
    text = load_text(table, FrameError)
    expected = "the table of SAM's amg.py, with id and predicted_iou"
    with reading(table, expected, FrameError, "remove it to go without scores"):
        rows = csv.DictReader(text.splitlines())
        return {row["id"]: float(row["predicted_iou"]) for row in rows}


def _binary(path: Path) -> Bool[np.ndarray, "height width"]:
    """One mask: pixels that are not black; of a cut-out, pixels that are not transparent."""
    with opened_picture(path) as image:
        if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 0:
            return np.asarray(image)[..., 3] > 0
    return read_label_map(path) != 0


def _picture(path: Path, camera: Camera) -> Masks:
    """A label map in ids, or in one colour per mask."""
    return Masks.from_label_map(fitted(read_ids(path), path, camera))


def read_ids(path: Path) -> LabelMap:
    """The ids in a grey or palette picture, or ids for the colours of a colour picture.

    The id of a colour is red + 256 green + 65536 blue, as in COCO's panoptic pictures, so that a
    colour has the same id in all views. Black and transparent pixels have no mask.
    """
    indices, palette = None, None
    with opened_picture(path) as image:
        mode = image.mode
        if mode == "P":
            indices, palette = np.asarray(image), image.getpalette("RGB")
    if indices is not None and palette:
        return _background_first(indices, np.array(palette).reshape(-1, 3))
    if mode in ("RGB", "RGBA"):
        return _colour_ids(path)
    return read_label_map(path)


def _background_first(indices: np.ndarray, palette: np.ndarray) -> LabelMap:
    """Indices of a palette as ids, where the black one is 0 if 0 is another colour."""
    used = np.unique(indices)
    black = [each for each in used if each < len(palette) and not palette[each].any()]
    if not palette[0].any() or not black:
        return indices.astype(np.int32)
    return np.where(indices == black[0], 0, indices.astype(np.int32) + 1).astype(np.int32)


def _colour_ids(path: Path) -> LabelMap:
    import cv2

    # From memory, because OpenCV crashes on names that are not UTF-8.
    data = np.frombuffer(load_bytes(path, FrameError), np.uint8)
    with reading(path, "a picture of masks", FrameError, AGAIN):
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8:
        return read_label_map(path)
    blue, green, red = (pixels[..., channel].astype(np.int32) for channel in range(3))
    grey = bool((red == green).all() and (red == blue).all())
    ids = red if grey else red + 256 * green + 65536 * blue
    if pixels.shape[2] == 4:
        ids[pixels[..., 3] == 0] = 0
    if grey:
        return ids
    colours, counts = np.unique(ids, return_counts=True)
    blended = len(colours) > 16 and float(np.mean(counts <= FEW)) > BLENDED
    if len(colours) > MOST_COLOURS or blended:
        raise InputError(
            f"{path} is a colour picture of {len(colours)} colours; masks have one plain colour "
            "each, without blended borders: save ids in a grey PNG, or the colours without "
            "smoothing and not through JPEG"
        )
    return ids


def _array(path: Path, camera: Camera) -> Masks:
    """A label map or a stack of masks in an .npy or .npz file."""
    advice = "write it again, as an array of ids or a boolean stack (masks, height, width)"
    if path.suffix.lower() == ".npz":
        arrays = load_npz(path, error=FrameError, advice=advice)
    else:
        arrays = {"": load_npy(path, FrameError, advice)}
    if len(arrays) > 1 and all(name.isdecimal() for name in arrays):  # one mask per id
        check_room(len(arrays), path, camera)
        masks = [fitted(_one_mask(each, path), path, camera) for each in arrays.values()]
        return stacked(masks, [1.0] * len(masks), camera, [int(name) for name in arrays])
    name, scores = _named(arrays, path)
    return of_array(arrays[name], scores, path, camera)


def _one_mask(array: np.ndarray, path: Path) -> np.ndarray:
    mask = np.squeeze(array)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise _no_masks(path, array)
    return mask


def _named(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[str, np.ndarray | None]:
    """Name of the array of masks, and their scores."""
    score = next((arrays[n] for n in ("scores", "score", "predicted_iou") if n in arrays), None)
    for name in ("masks", "mask", "segmentation", "labels", "ids"):
        if name in arrays:
            return name, score
    several = [n for n, array in arrays.items() if array.ndim >= 2 or len(arrays) == 1]
    if len(several) != 1:
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected one array of masks, called "
            "masks"
        )
    return several[0], score


def of_array(array: np.ndarray, scores: np.ndarray | None, path: Path, camera: Camera) -> Masks:
    """Masks of an array: ids (height, width), or a stack (masks, height, width) or with the masks
    last. Floats are probabilities, above 0.5 inside, or where some are negative logits, above 0.

    Ids below 0 are no mask.
    """
    shape = array.shape
    if array.ndim == 4 and 1 in (shape[1], shape[3]):
        array = array[:, 0] if shape[1] == 1 else array[..., 0]
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3):
        raise _no_masks(path, array)
    whole = array.dtype.kind != "f" or np.array_equal(array, np.rint(array))
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]) and whole and array.size:
        single = array[0] if array.shape[0] == 1 else array[..., 0]
        if single.max() > 1 and len(np.unique(single)) > 2:
            array = single  # a label map with an axis of 1
    if array.ndim == 2:
        if not whole:
            raise _no_masks(path, array)
        return Masks.from_label_map(fitted(_small_ids(array), path, camera))
    if not _fits(array.shape[1:], camera) and _fits(array.shape[:2], camera):
        array = np.moveaxis(array, 2, 0)
    check_room(len(array), path, camera, array.nbytes)
    if array.dtype.kind == "f":
        array = array > (0.0 if array.size and np.nanmin(array) < 0 else 0.5)
    given = [1.0] * len(array)
    if scores is not None and np.size(scores) == len(array):
        given = [float(each) for each in np.ravel(scores)]
    return stacked([fitted(mask, path, camera) for mask in array], given, camera)


def _no_masks(path: Path, array: np.ndarray) -> FrameError:
    return FrameError(
        f"{path} holds {array.dtype} {array.shape}; expected whole ids (height, width) or a "
        "boolean stack (masks, height, width)"
    )


def _small_ids(array: np.ndarray) -> Int32[np.ndarray, "own_height own_width"]:
    """Ids as int32; larger ones are numbered anew."""
    if array.dtype.kind in "ui" and array.size and int(array.max()) > np.iinfo(np.int32).max:
        known, index = np.unique(np.maximum(array, 0), return_inverse=True)
        first = int(known[0] != 0)
        return (index.reshape(array.shape) + first).astype(np.int32)
    return np.maximum(array, 0).astype(np.int32)


def _json(path: Path, camera: Camera) -> Masks:
    from lift3d.segmentation.mask_json import view_masks_of

    return view_masks_of(load_json(path, FrameError, AGAIN), path, camera)


def _text(path: Path, camera: Camera) -> Masks:
    """Label files of ultralytics: a line `class x y x y ...` per mask, from 0 to 1, and maybe the
    confidence at its end.
    """
    masks, scores = [], []
    lines = load_text(path, FrameError).splitlines()
    check_room(len(lines), path, camera)
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        try:
            values = np.array([float(word) for word in words[1:]])
        except ValueError as error:
            raise InputError(f"{where}: expected `class x y x y ...` ({error})") from error
        if len(values) in (4, 5):
            raise InputError(f"{where} is a box; expected the polygon of a mask (task segment)")
        if len(values) < 6 or not ((values >= -0.01) & (values <= 1.01)).all():
            raise InputError(f"{where}: expected `class x y x y ...`, with x and y from 0 to 1")
        scores.append(float(values[-1]) if len(values) % 2 else 1.0)
        corners = values[: len(values) // 2 * 2].reshape(-1, 2) * (camera.width, camera.height)
        masks.append(from_polygons([corners], camera.height, camera.width))
    return stacked(masks, scores, camera)


def stacked(
    masks: Sequence[np.ndarray],
    scores: Sequence[float],
    camera: Camera,
    ids: Sequence[int] | None = None,
) -> Masks:
    """Masks at the camera's size as one stack; ids are 1, 2, ... unless given."""
    stack = np.zeros((len(masks), camera.height, camera.width), bool)
    for out, mask in zip(stack, masks, strict=True):
        np.not_equal(mask, 0, out=out)
    quality: Float32[np.ndarray, " masks"] = np.array(scores, np.float32)
    numbers = np.arange(1, len(stack) + 1) if ids is None else np.array(ids)
    return Masks(stack, quality, numbers.astype(np.int32))


def check_room(count: int, path: Path, camera: Camera, held: int = 0) -> None:
    """FrameError where so many masks, of `held` bytes as stored, take too much memory."""
    pixels = count * camera.height * camera.width
    if pixels > max(UNPACKED, held):
        raise FrameError(
            f"{path} has {count} masks, {pixels / 1e9:.1f} GB at the size of the image; "
            "expected fewer"
        )


def fitted(mask: np.ndarray, path: Path, camera: Camera) -> np.ndarray:
    """The mask resized to the image by nearest neighbour, which keeps ids."""
    height, width = mask.shape
    if (width, height) == (camera.width, camera.height):
        return mask
    if not mask.size:
        raise FrameError(f"{path} holds masks of {width}x{height} pixels; {AGAIN}")
    check_proportions((height, width), path, camera)
    rows = ((np.arange(camera.height) + 0.5) * height / camera.height).astype(int)
    columns = ((np.arange(camera.width) + 0.5) * width / camera.width).astype(int)
    return mask[rows][:, columns]


def check_proportions(size: tuple[int, int], path: Path, camera: Camera) -> None:
    """InputError where masks of this height and width are not of the whole image."""
    if not _fits(size, camera):
        raise InputError(
            f"{path} is {size[1]}x{size[0]}, its image {camera.width}x{camera.height}: the aspect "
            "ratios differ, so the mask cannot be resized; create masks of the full image"
        )


def _fits(size: tuple[int, ...], camera: Camera) -> bool:
    height, width = size
    difference = abs(width * camera.height - height * camera.width)
    return min(size) > 0 and difference <= max(camera.width, camera.height)


READERS: dict[str, Callable[[Path, Camera], Masks]] = {
    ".png": _picture,
    ".tif": _picture,
    ".tiff": _picture,
    ".npy": _array,
    ".npz": _array,
    ".json": _json,
    ".txt": _text,
}
"""Suffix -> reader, in the order of search."""


def is_coloured(path: Path) -> bool:
    """Whether a file is a colour picture: perhaps a drawing of masks that lie beside it."""
    if READERS.get(path.suffix.lower()) is not _picture:
        return False
    try:
        with opened_picture(path) as image:
            return image.mode in ("RGB", "RGBA")
    except FrameError:
        return False


def unread(name: str, suffix: str) -> str:
    """Why a file of masks is not read."""
    reason = UNREAD.get(suffix.lower(), f"{suffix or 'its kind'} is not read")
    return f"{name}: {reason}; save ids as .npy or grey PNG"
