"""A flat wall with squares, seen by a camera that moves along it: computable by hand."""

from functools import partial

import numpy as np

from lift3d.scene import Camera, Masks, Scene, View
from lift3d.scene.protocols import Segmenter

WIDTH, HEIGHT, FOCAL = 160, 120, 100.0
DISTANCE = 2.0
PIXEL = DISTANCE / FOCAL  # metres of wall per pixel
K = np.array([[FOCAL, 0, 79.5], [0, FOCAL, 59.5], [0, 0, 1]])


def wall_labels(squares, shift, background=1):
    """Label map: `squares` are (left, top, size, id) in the pixels of the view at shift 0."""
    labels = np.full((HEIGHT, WIDTH), background, np.int32)
    for left, top, size, square in squares:
        start = max(left - shift, 0)
        labels[top : top + size, start : max(left + size - shift, 0)] = square
    return labels


def image_of(squares, shift):
    labels = wall_labels(squares, shift)
    return np.stack([labels * 40 % 256, labels * 90 % 256, labels * 150 % 256], -1).astype(np.uint8)


def depth_of(squares, shift):
    return np.full((HEIGHT, WIDTH), DISTANCE, np.float32)


def wall_view(squares, shift, name=None):
    """The camera `shift` pixels to the right."""
    pose = np.eye(4)
    pose[0, 3] = shift * PIXEL
    return View(
        name or f"view{shift:03d}",
        Camera(K, WIDTH, HEIGHT, pose),
        partial(image_of, squares, shift),
        partial(depth_of, squares, shift),
        load_instances=partial(wall_labels, squares, shift),
    )


def wall_scene(squares, shifts):
    views = tuple(wall_view(squares, shift) for shift in shifts)
    return Scene("wall", views, True, "test")


class TrueMasks(Segmenter):
    """Masks are the true objects; a prompt gets the object under most of its points."""

    def segment(self, view):
        masks = Masks.from_label_map(view.instances())
        return Masks(masks.stack, masks.scores)

    def prompt(self, view, prompts):
        labels = view.instances()
        stack = np.zeros((len(prompts), *labels.shape), bool)
        for index, prompt in enumerate(prompts):
            x, y = np.rint(prompt.xy[prompt.positive]).astype(int).T
            stack[index] = labels == np.bincount(labels[y, x]).argmax()
        return Masks(stack, np.ones(len(stack), np.float32))
