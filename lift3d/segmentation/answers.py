"""Answer point prompts from existing masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lift3d.scene import Masks, Prompt


def best_mask(masks: Masks, prompts: Sequence[Prompt]) -> Masks:
    """For each prompt, the mask that classifies most of its points correctly.

    A point is correct if it is positive and inside, or negative and outside; a tie goes to the
    mask with more positive points. The score is the share of correct points. If no mask holds a
    positive point, the answer is an empty mask with score 0. Ids are those of the chosen masks,
    0 for an empty mask.
    """
    height, width = masks.stack.shape[1:]
    answers = np.zeros((len(prompts), height, width), bool)
    scores = np.zeros(len(prompts), np.float32)
    ids = np.zeros(len(prompts), np.int32)
    for index, prompt in enumerate(prompts):
        if not len(masks) or not prompt.positive.any():
            continue
        x = np.clip(np.round(prompt.xy[:, 0]).astype(int), 0, width - 1)
        y = np.clip(np.round(prompt.xy[:, 1]).astype(int), 0, height - 1)
        inside = masks.stack[:, y, x]
        hits = inside[:, prompt.positive].sum(1)
        correct = (inside == prompt.positive).sum(1)
        best = int(np.lexsort((-hits, -correct))[0])
        if hits[best]:
            answers[index] = masks.stack[best]
            scores[index] = correct[best] / len(prompt.xy)
            ids[index] = 0 if masks.ids is None else masks.ids[best]
    return Masks(answers, scores, ids)
