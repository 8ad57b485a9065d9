"""The mask of a box or of clicks in one picture, without weights, where depth is sparse.

With a box: GrabCut (Rother et al. 2004) inside of it. With clicks alone: random walks over
superpixels from the clicks and the image's border give the start.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from lift3d.correction.clicks.filling import Superpixels
from lift3d.scene import Prompt, View

ROUNDS = 4
DISC = 1 / 100
"""Radius around a click that is certain, as a share of the longer side. Chosen by hand."""
BORDER = 1 / 100
"""Width of the image's border that is certainly outside, likewise."""


def cut_out(
    view: View, superpixels: Superpixels | None, prompt: Prompt
) -> Bool[np.ndarray, "height width"] | None:
    """The object of a prompt in its view; None where the picture shows none.

    A box needs no `superpixels`.
    """
    import cv2

    image = np.ascontiguousarray(view.image()[..., ::-1])
    height, width = image.shape[:2]
    state = np.full((height, width), cv2.GC_BGD, np.uint8)
    if prompt.box is not None:
        x0, y0, x1, y1 = (int(each) for each in np.round(prompt.box))
        state[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = cv2.GC_PR_FGD
    else:
        assert superpixels is not None
        edge = max(1, round(BORDER * max(height, width)))
        likely = superpixels.filled(None, (prompt.xy, prompt.positive), border=True)
        inner = (slice(edge, height - edge), slice(edge, width - edge))
        state[inner] = np.where(likely[inner] > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    radius = max(1, round(DISC * max(height, width)))
    for xy, positive in zip(prompt.xy, prompt.positive, strict=True):
        centre = (round(float(xy[0])), round(float(xy[1])))
        cv2.circle(state, centre, radius, cv2.GC_FGD if positive else cv2.GC_BGD, -1)
    inside = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if not inside.any() or inside.all():
        return None
    cv2.setRNGSeed(0)
    back, front = np.zeros((1, 65)), np.zeros((1, 65))
    no_box = (0, 0, 1, 1)
    cv2.grabCut(image, state, no_box, back, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    mask = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if not mask.any():
        return None
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    clicked = prompt.xy[prompt.positive].round().astype(int)
    if len(clicked):
        kept = np.unique(parts[clicked[:, 1].clip(0, height - 1), clicked[:, 0].clip(0, width - 1)])
        mask = np.isin(parts, kept[kept > 0])
    else:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        mask = parts == sizes.argmax()
    return mask if mask.any() else None
