"""SAM and similar networks on small random weights: the contract, not the quality of masks."""

import functools
import pickle

import numpy as np
import pytest
from tiny_sam import (
    EVERYTHING,
    FAMILY,
    HEIGHT,
    PROMPTS,
    WIDTH,
    family,
    nearly_equal,
    picture,
    points,
    sam,
    view,
)

from lift3d.scene import Camera, Prompt, Scene, View
from lift3d.scene.protocols import Segmenter
from lift3d.scene.workers.crew import Share
from lift3d.scene.workers.local import LocalCrew
from lift3d.scene.workers.views import Pool
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.spread import spread
from lift3d.segmentation.tracking.byocl import ByoclConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["sam", *FAMILY])
def segmenter(request, sam_checkpoint, sam_folders):
    if request.param == "sam":
        return sam(sam_checkpoint)
    return family(sam_folders[request.param])


def test_it_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)


def test_automatic_masks_have_the_views_size_and_scores_from_0_to_1(segmenter):
    masks = segmenter.segment(view())
    assert len(masks) > 1
    assert masks.stack.shape[1:] == (HEIGHT, WIDTH)
    assert (masks.scores >= 0).all()
    assert (masks.scores <= 1).all()
    assert masks.stack.any((1, 2)).all()


def test_mask_i_is_of_prompt_i_whatever_the_other_prompts(segmenter):
    seen = view()
    together = segmenter.prompt(seen, PROMPTS)
    assert together.stack.shape == (len(PROMPTS), HEIGHT, WIDTH)
    for index, prompt in enumerate(PROMPTS):
        alone = segmenter.prompt(seen, [prompt])
        assert nearly_equal(alone.stack[0], together.stack[index]), index
        np.testing.assert_allclose(alone.scores[0], together.scores[index], atol=1e-4)
    backwards = segmenter.prompt(seen, PROMPTS[::-1])
    assert nearly_equal(backwards.stack[::-1], together.stack)
    assert len(np.unique(together.stack.reshape(len(PROMPTS), -1), axis=0)) > 3


def test_alternatives_are_three_and_grow_and_the_best_is_the_mask_of_the_prompt(segmenter):
    seen, prompt = view(), points((30, 20))
    several = segmenter.alternatives(seen, prompt)
    assert len(several) == 3
    assert (np.diff(several.stack.sum((1, 2))) >= 0).all()
    one = segmenter.prompt(seen, [prompt])
    assert one.scores[0] == pytest.approx(several.scores.max(), abs=1e-4)


def test_a_prompt_without_an_object_gets_an_empty_mask_and_no_alternatives(segmenter):
    nothing = points(negative=[(5, 5)])
    answers = segmenter.prompt(view(), [nothing, points((30, 20))])
    assert not answers.stack[0].any()
    assert answers.scores[0] == 0
    assert len(segmenter.alternatives(view(), nothing)) == 0
    assert segmenter.prompt(view(), []).stack.shape == (0, HEIGHT, WIDTH)


def test_a_dense_prompt_counts(segmenter):
    seen, xy = view(), np.array([[50.0, 50]])
    left = np.zeros((HEIGHT, WIDTH), bool)
    left[:, :60] = True
    asked = [Prompt(xy, np.array([True]), mask=mask) for mask in (left, ~left)]
    # Logits, since the masks of random weights may hardly move.
    network = segmenter.network
    embedding = segmenter._embedding(seen)
    logits = [
        network.decode(embedding, segmenter._prompt_batch(embedding, [p]), False) for p in asked
    ]
    assert (logits[0][0] - logits[1][0]).abs().max() > 1e-3


def test_an_empty_dense_prompt_is_none(segmenter):
    empty = Prompt(PROMPTS[0].xy, PROMPTS[0].positive, mask=np.zeros((HEIGHT, WIDTH), bool))
    answers = segmenter.prompt(view(), [PROMPTS[0], empty])
    assert nearly_equal(answers.stack[0], answers.stack[1])


def test_an_image_is_encoded_once_for_all_prompts(segmenter, monkeypatch):
    calls = []
    encode = segmenter.network.encode
    monkeypatch.setattr(segmenter.network, "encode", lambda image: calls.append(1) or encode(image))
    seen = view(picture(7))
    segmenter.segment(seen)
    segmenter.prompt(seen, PROMPTS)
    segmenter.alternatives(seen, PROMPTS[0])
    segmenter.prompt(view(picture(7), "again"), PROMPTS[:1])
    assert len(calls) == 1


def test_an_embedding_of_another_process_gives_the_same_masks(segmenter, monkeypatch):
    image = picture(5)
    wanted = segmenter.prompt(view(image), [points((40, 40))])
    sent = pickle.loads(pickle.dumps(segmenter.prepared(view(image))))
    monkeypatch.setattr(segmenter.network, "encode", None)  # not encoded again
    here = view(image)
    segmenter.use_prepared(here, sent)
    assert np.array_equal(segmenter.prompt(here, [points((40, 40))]).stack, wanted.stack)


def test_workers_give_the_same_masks_and_answers(sam_checkpoint):
    settings = SamConfig(checkpoint=sam_checkpoint, device="cpu", automatic=EVERYTHING)
    own, camera = settings.build(), Camera(np.eye(3), WIDTH, HEIGHT, np.eye(4))
    views = [View(str(n), camera, functools.partial(picture, n)) for n in range(3)]
    pool = Pool(LocalCrew(Share(1.0), 2), 2, print)
    try:
        asks = frozenset(("masks", "prompts"))
        spread_out = spread(pool, settings.build, settings.build(), views, lambda number: asks)
        for each in views:
            ours, alone = spread_out.segment(each), own.segment(each)
            assert np.array_equal(ours.stack, alone.stack)
            assert np.array_equal(ours.scores, alone.scores)
            ours = spread_out.prompt(each, [points((40, 40))])
            assert np.array_equal(ours.stack, own.prompt(each, [points((40, 40))]).stack)
    finally:
        pool.close()


def test_features_are_the_cached_embedding_without_its_padding(segmenter, monkeypatch):
    one = view(picture(11))
    whole = segmenter.network.encode(one.image())
    name = "image" if "image" in whole.tensors else "image2"
    map_ = whole.tensors[name][0].float().numpy()
    calls = []
    encode = segmenter.network.encode
    monkeypatch.setattr(segmenter.network, "encode", lambda i: calls.append(0) or encode(i))
    grid = segmenter.features(one)
    rows = map_.shape[1] if whole.padded is None else map_.shape[1] * 3 // 4  # 160x120
    assert grid.shape == (rows, map_.shape[2], map_.shape[0])
    assert grid.dtype == np.float32
    np.testing.assert_array_equal(grid, map_[:, :rows].transpose(1, 2, 0))
    grid[:] = 0  # the caller's to change
    np.testing.assert_array_equal(segmenter.features(one), map_[:, :rows].transpose(1, 2, 0))
    segmenter.prompt(one, [points((40, 40))])
    assert len(calls) == 1


def test_byocl_clusters_the_cached_embedding(sam_checkpoint, monkeypatch):
    segmenter = sam(sam_checkpoint)
    one = view()
    segmenter.segment(one)
    monkeypatch.setattr(segmenter.network, "encode", lambda image: pytest.fail("encoded again"))
    (labels,) = ByoclConfig(labels=4).build(segmenter).track(Scene("s", (one,), True, "a test"))
    assert labels.shape == (HEIGHT, WIDTH)
    assert 1 < len(np.unique(labels)) <= 4


def test_prompts_of_one_kind_share_a_call(segmenter, monkeypatch):
    sizes = []
    decode = segmenter.network.decode
    monkeypatch.setattr(
        segmenter.network,
        "decode",
        lambda e, asked, several: sizes.append(len(asked.points)) or decode(e, asked, several),
    )
    many = [points((x, y)) for x in range(5, 155, 30) for y in range(5, 115, 50)]
    segmenter.prompt(view(), many)
    assert sizes == [len(many)]
    sizes.clear()
    segmenter.segment(view())
    assert sizes == [16]


def test_a_wide_and_a_tall_picture_both_work(segmenter):
    for height, width in ((40, 160), (160, 40), (100, 100)):
        seen = view(picture(0, height, width))
        assert segmenter.prompt(seen, [points((10, 10))]).stack.shape == (1, height, width)
