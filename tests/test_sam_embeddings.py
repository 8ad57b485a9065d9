"""Embeddings of SAM on the disk."""

import functools
import os

import numpy as np
import pytest
import torch
from tiny_sam import FAMILY, PROMPTS, family, picture, sam, view

from lift3d.networks.sam.embeddings import EmbeddingConfig
from lift3d.scene.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def counted(segmenter, calls):
    encode = segmenter.network.encode
    segmenter.network.encode = lambda image: calls.append(1) or encode(image)
    return segmenter


@pytest.mark.parametrize("name", ["sam", *FAMILY])
def test_an_embedding_from_disk_gives_the_same_masks(name, sam_checkpoint, sam_folders, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path / "kept")
    made = functools.partial(sam, sam_checkpoint) if name == "sam" else None
    made = made or functools.partial(family, sam_folders[name])
    first, calls = made(embeddings=kept), []
    masks = first.segment(view())
    again = counted(made(embeddings=kept), calls)
    reread = again.segment(view())
    np.testing.assert_array_equal(masks.stack, reread.stack)
    np.testing.assert_array_equal(masks.scores, reread.scores)
    assert not calls
    again.prompt(view(picture(1)), PROMPTS[:1])
    assert len(calls) == 1


def test_the_folder_keeps_its_budget_by_removing_the_least_recently_used(sam_checkpoint, tmp_path):
    size = 32 * 16 * 16 * 4 + 500
    (tmp_path / "weights.pth").write_bytes(b"0" * 10 * size)
    kept = EmbeddingConfig(memory=1, folder=tmp_path, gigabytes=3 * size / 1e9)
    calls = []
    segmenter = counted(sam(sam_checkpoint, embeddings=kept), calls)

    def look(seed):
        before = set(tmp_path.glob("*.embedding"))
        segmenter.prompt(view(picture(seed)), PROMPTS[:1])
        for path in set(tmp_path.glob("*.embedding")) - before:
            os.utime(path, (seed, seed))  # old times, ascending
        return len(calls)

    assert [look(seed) for seed in (1, 2, 3)] == [1, 2, 3]
    assert look(1) == 3  # used again, so removed last
    assert look(4) == 4
    held = list(tmp_path.glob("*.embedding"))
    assert len(held) == 3
    assert sum(path.stat().st_size for path in held) <= 3 * size
    assert look(1) == 4
    assert look(2) == 5
    assert (tmp_path / "weights.pth").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_damaged_file_is_computed_again(sam_checkpoint, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path)
    masks = sam(sam_checkpoint, embeddings=kept).segment(view())
    (path,) = tmp_path.glob("*.embedding")
    for content in (path.read_bytes()[:-10], b"", b"no embedding"):
        path.write_bytes(content)
        again = sam(sam_checkpoint, embeddings=kept).segment(view())
        np.testing.assert_array_equal(masks.stack, again.stack)


def test_other_weights_do_not_share_embeddings(sam_checkpoint, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path)
    sam(sam_checkpoint, embeddings=kept).prompt(view(), PROMPTS[:1])
    state = torch.load(sam_checkpoint, weights_only=True)
    state["image_encoder.pos_embed"][0, 0, 0, 0] += 1
    torch.save(state, tmp_path / "other.pth")
    sam(tmp_path / "other.pth", embeddings=kept).prompt(view(), PROMPTS[:1])
    assert len(list(tmp_path.glob("*.embedding"))) == 2


def test_a_folder_that_is_a_file_is_refused(sam_checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        sam(sam_checkpoint, embeddings=EmbeddingConfig(folder=tmp_path / "file"))
