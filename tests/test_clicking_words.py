"""Objects by words: names, classes, and what CLIP says of the pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_export import lifted_run

from lift3d import segmentation
from lift3d.cli import main
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.run.wording import Words
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import write_label_map


class ById:
    """Knows objects by their order of size in a view's masks; the words are `thing 1`, ..."""

    def __init__(self, ids_of):
        self.ids_of, self.calls = ids_of, 0

    def names(self, names):
        rows = np.zeros((len(names), 64), np.float32)
        for row, name in zip(rows, names, strict=True):
            row[int(name.split()[1]) if name.startswith("thing ") else 0] = 1
        return rows

    def masks(self, image, masks):
        self.calls += 1
        rows = np.zeros((len(masks.stack), 64), np.float32)
        for row, mask in zip(rows, masks.stack, strict=True):
            row[self.ids_of(image, mask)] = 1
        return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("room"), views=3, width=48, height=36)


def of_labels(run):
    """The id of a mask's object, from the label maps."""
    pictures = {view.image().tobytes(): view.name for view in run.scene.views}

    def ids_of(image, mask):
        own = run.labels[pictures[image.tobytes()]][mask]
        return int(np.bincount(own).argmax())

    return ids_of


def test_words_find_the_object_whose_pictures_they_fit(folder):
    run = Run.open(folder)
    scorer = ById(of_labels(run))
    wanted = max(each.id for each in run.objects)
    found = run.prompt(text=f"thing {wanted}", scorer=scorer)
    assert found.used["ids"] == [wanted]
    assert found.used["relevancy"][wanted] > 0.5
    assert set(found.points()) == set(run.edits.points_of(wanted))
    calls = scorer.calls
    run.prompt(text="thing 2", scorer=scorer)
    assert scorer.calls == calls  # features are kept
    run.edits.merge([wanted, next(each.id for each in run.objects if each.id != wanted)])
    run.prompt(text="thing 2", scorer=scorer)
    assert scorer.calls > calls  # but not after an edit
    run.edits.undo()


def test_words_that_fit_nothing_give_the_best_object_with_a_low_relevancy(folder):
    run = Run.open(folder)
    words = Words(run.clickable.place, ById(lambda image, mask: 1))
    ids, relevancy = words.meant("thing 63")
    assert max(relevancy.values()) <= 0.5
    assert len(ids) >= 1


def test_words_need_objects(folder):
    place = replace(Run.open(folder).clickable.place, label=None)
    with pytest.raises(InputError, match="lift the scan first"):
        Words(place, ById(lambda image, mask: 1))


def test_a_class_of_the_class_maps_finds_its_objects(tmp_path, capsys):
    scene = SyntheticConfig(views=3, width=48, height=36).read()
    sizes = np.bincount(np.concatenate([view.instances().ravel() for view in scene.views]))
    first, second = np.argsort(sizes[1:])[-2:] + 1
    for view in scene.views:
        ids = view.instances()
        write_label_map(tmp_path / "masks", view.name, ids)
        classes = np.where(np.isin(ids, [first, second]), 7, 3).astype(np.int32)
        write_label_map(tmp_path / "classes", view.name, classes)
    masks = segmentation.BACKENDS["folder"](path=tmp_path / "masks", ids="consistent")
    config = LiftConfig(
        Path("synthetic"), tmp_path / "run", voxel=0.08, segmentation=masks,
        classes=tmp_path / "classes",
    )  # fmt: skip
    lift(config, scene)
    run = Run.open(tmp_path / "run")
    found = run.prompt(text="7").used["ids"]
    assert 1 <= len(found) <= 2
    own = run.cloud.semantic[np.isin(run.cloud.instance, found)]
    assert (own == 7).mean() > 0.8
    run.edits.classify(found[0], "armchair")
    assert run.prompt(text="Armchair").used["ids"] == [found[0]]
    assert found[0] not in run.prompt(text="3").used["ids"]
    out = str(tmp_path / "answer")
    assert main(["click", str(tmp_path / "run"), "--clip", "nowhere", "--out", out, "--view", "a",
                 "--at", "1,1"]) == 2  # fmt: skip
    assert "give --text WORDS too" in capsys.readouterr().err
