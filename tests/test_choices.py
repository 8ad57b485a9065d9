"""How backends are chosen: by words on the command line, and by what is known of the scene."""

import dataclasses
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lift3d import cli, datasets
from lift3d.cli.choices import wrong_choice
from lift3d.cli.commands import EXAMPLES, Lift
from lift3d.cli.options import wrong_option
from lift3d.datasets import READERS, read_again, read_scene
from lift3d.datasets.photos import Photos
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.video import Video
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig, as_json, backend_name, poses_unused
from lift3d.scene import Masks, Prompt
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.scene.mask_sets import flat
from lift3d.scene.protocols import ReconstructorConfig, Segmenter, SegmenterConfig
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.tracked import Tracked
from lift3d.segmentation.tracking.byocl import ByoclConfig
from lift3d.segmentation.tracking.independent import IndependentConfig
from lift3d.segmentation.tracking.mastsam import MastsamConfig

SMALL = ["reader:synthetic", "--reader.views", "6", "--reader.width", "80", "--reader.height", "60"]


@pytest.fixture(scope="module")
def scene():
    return SyntheticConfig(views=6, width=80, height=60).read()


def settings(run):
    return json.loads((run / "run.json").read_text())["settings"]


# Words.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--segmentation", "sam"], "`segmentation:sam`"),
        (["--segmentation=sam"], "`segmentation:sam`"),
        (["--segmentation:sam"], "`segmentation:sam`"),
        (["--tracking", "mastsam"], "`tracking:mastsam`"),
        (["--reader", "video"], "`reader:video`"),
        (["--matching", "flow"], "`matching:flow`"),
        (["--fusion", "tsdf"], "`fusion:tsdf`"),
        (["--reconstruction", "auto"], "`reconstruction:auto`"),
        (["--segmentation", "samm"], "did you mean 'sam'"),
        (["--segmentation"], "a backend is one word"),
        (["reader:vidoe"], "unknown reader 'vidoe'; did you mean 'video'"),
    ],
)
@pytest.mark.parametrize("command", ["lift", "info", "batch"])
def test_a_backend_that_is_not_one_word_gets_the_word_to_type(command, words, said, capsys):
    assert cli.main([command, "in", *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segmentaton:bands"], "'segmentaton'; did you mean `segmentation:bands`?"),
        (["sam"], "type `segmentation:sam`"),
        (["mast3r"], "type `reconstruction:mast3r` or `matching:mast3r`"),
        (["--reader.views", "6"], "`--reader.views` belongs to `reader:synthetic`; write that"),
        (["--reader.views", "6", "reader:synthetic"], "belongs to `reader:synthetic`; write that"),
        (
            ["segmentation:sam", "--segmentation.chekpoint", "x"],
            "`--segmentation.chekpoint` is no option of `segmentation:sam`; did you mean "
            "`--segmentation.checkpoint`?",
        ),
        (["--voxl", "0.1"], "unknown option `--voxl`; did you mean `--voxel`?"),
        (["--asociation.points=3"], "did you mean `--association.points`?"),
        (["--zzzzzz"], "`lift3d lift --help` lists the options"),
    ],
)
def test_a_misspelled_backend_or_option_gets_one_line_with_the_right_one(words, said, capsys):
    assert cli.main(["lift", "in", "--out", "o", *words]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_a_misspelled_synthetic_gets_the_right_word(capsys):
    assert cli.main(["lift", "syntetic:0", "--out", "o"]) == 2
    assert "syntetic:0 does not exist; did you mean `synthetic:0`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["reader:synthetic", "--reader.no-noise", "--reader.views=3"],
        ["segmentation:sam", "--segmentation.automatic.points_per_side", "8"],
        ["--association.by-shape", "False", "--tolerance.absolute", "0.1", "--fusion.voxel", "1"],
        ["segmentation:folder", "--segmentation.path", "sam"],
    ],
)
def test_options_that_exist_are_left_to_tyro(words):
    assert wrong_choice(["lift", "in", *words]) is None
    assert wrong_option(Lift, ["lift", "in", *words]) is None


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_no_example_of_the_help_is_taken_for_a_mistake(kind):
    lines = "\n".join(EXAMPLES[kind]).replace("\\\n", " ").splitlines()
    for line in lines:
        given = shlex.split(line, comments=True)[1:]
        assert wrong_choice(given) is None
        assert wrong_option(kind, given) is None


def test_the_message_for_an_unknown_layout_names_the_page(tmp_path):
    (tmp_path / "scan").mkdir()
    with pytest.raises(InputError, match=r"docs/your-own-scan\.md"):
        read_scene(tmp_path / "scan")


def test_a_reader_has_options_like_every_backend():
    words = ["clip.mp4", "reader:video", "--reader.focal", "1400"]
    assert cli._parse(["lift", *words, "--out", "o"]).reader == Video(focal=1400.0)
    assert cli._parse(["info", *words]).reader == Video(focal=1400.0)
    assert cli._parse(["batch", *words, "--out", "o"]).reader == Video(focal=1400.0)


def test_every_reader_describes_a_layout_of_its_own():
    described = [READERS[name].expects for name in READERS.own]
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("name", READERS.own)
def test_every_reader_is_chosen_by_its_name(name):
    config = cli._parse(["lift", "in", "--out", "o", f"reader:{name}"])
    assert config.reader == READERS[name]()


def test_what_a_note_says_of_an_option_can_be_typed(tmp_path):
    """The words in backquotes, put behind a lift, are read as that option."""
    for name in ("a", "b"):
        Image.new("RGB", (80, 60)).save(tmp_path / f"{name}.jpg")
    (note,) = read_scene(tmp_path).notes
    typed = note.split("`")[1].replace(" N", " 1400").split()
    config = cli._parse(["lift", str(tmp_path), "--out", "o", *typed])
    assert config.reader == Photos(focal=1400.0)


def test_every_option_that_a_message_of_a_reader_names_is_one():
    text = "".join(path.read_text() for path in Path(datasets.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"""words\(["']([\w-]+)["'], ["'](\w+)["']""", text))
    assert named >= {("video", "focal"), ("video", "motion"), ("photos", "focal")}
    for reader, option in named:
        assert option in {each.name for each in dataclasses.fields(READERS[reader])}


def test_a_run_records_its_reader_with_all_options(tmp_path, capsys):
    run = tmp_path / "run"
    given = ["lift", "synthetic:3", "--out", str(run), "--voxel", "0.05", *SMALL]
    assert cli.main([*given, "--reader.no-noise"]) == 0, capsys.readouterr().err
    recorded = settings(run)["reader"]
    assert recorded["backend"] == "synthetic"
    want = SyntheticConfig(views=6, width=80, height=60, noise=False)
    assert recorded == as_json(want)
    again, exact = Run.open(run).scene.views[2], want.read(Path("synthetic:3")).views[2]
    assert np.array_equal(again.depth(), exact.depth())
    assert settings(run)["association"]["by_shape"] is True


def test_a_reader_that_is_found_is_recorded_too(tmp_path):
    found = LiftConfig(Path("synthetic:4"), Path("o")).with_reader()
    assert as_json(found)["reader"]["backend"] == "synthetic"
    assert as_json(found)["reader"] == as_json(SyntheticConfig())
    with pytest.raises(InputError, match=r"unknown option 'fokal'; did you mean 'focal'"):
        read_again(tmp_path, "video", {"fokal": 3})


def test_readers_are_asked_in_the_order_they_are_listed():
    """Those that guess last, as the words at READERS say; a subset before the whole."""
    order = list(READERS.own)
    guess = [READERS[name].guesses for name in order]
    assert guess == sorted(guess)
    assert order.index("hololens-subset") < order.index("hololens")
    assert order[-1] == "photos"


# Choices that the scene decides.


def test_poses_of_fewer_than_half_of_the_views_are_passed_over_and_that_is_said(scene):
    none = photos(scene)
    config = LiftConfig(Path("in"), Path("o"))
    for posed, name, warned in ((0, "colmap", 0), (2, "colmap", 1), (3, "sensor", 0)):
        some = scene.with_views([*scene.views[:posed], *none.views[posed:]])
        assert backend_name("reconstruction", config.for_source(some).reconstruction) == name
        assert len(poses_unused(config, some)) == warned


class _Dense:
    """Stands in for a network that gives photos their poses and dense depth."""

    def __init__(self, made):
        self.made = made

    def reconstruct(self, scene, progress=None, folder=None):
        return dataclasses.replace(self.made, source=scene.source)


@dataclass(frozen=True)
class DenseConfig(ReconstructorConfig):
    def build(self):
        return _Dense(SyntheticConfig(views=6, width=80, height=60).read())


def photos(scene):
    """The same pictures and nothing else."""
    views = [
        dataclasses.replace(
            view,
            load_depth=None,
            camera=dataclasses.replace(view.camera, world_from_camera=None),
        )
        for view in scene.views
    ]
    return scene.with_views(views)


def test_matching_and_association_of_photos_use_the_depth_that_a_network_gave(scene, tmp_path):
    config = LiftConfig(
        Path("photos"),
        tmp_path / "run",
        voxel=0.05,
        reconstruction=DenseConfig(),
        tracking=MastsamConfig(),
    )
    lift(config, photos(scene))
    found = settings(tmp_path / "run")
    assert found["matching"]["backend"] == "depth"
    assert found["association"]["by_shape"] is True


def test_sparse_depth_is_no_depth_to_match_by(scene):
    config = LiftConfig(Path("in"), Path("o"))
    sparse = scene.with_views([dataclasses.replace(view, sparse=True) for view in scene.views])
    assert backend_name("matching", config.resolved(sparse).matching) == "flow"
    assert backend_name("matching", config.resolved(scene).matching) == "depth"


@dataclass(frozen=True)
class Surfaces(FolderConfig):
    """Masks of surfaces that no list of names knows."""

    masks_are_surfaces = True


def test_what_masks_are_decides_and_not_the_name_of_their_backend(scene):
    config = LiftConfig(Path("in"), Path("o"), segmentation=Surfaces(Path("masks")))
    assert config.resolved(scene).association.by_shape is True
    given = dataclasses.replace(config, segmentation=Surfaces(Path("masks"), ids="consistent"))
    assert backend_name("tracking", given.resolved(scene).tracking) == "given"
    assert given.resolved(scene).association.by_shape is False
    assert given.resolved(scene).association.trust_ids is True


# What is built.


def test_byocl_builds_no_segmenter_unless_it_gives_features(scene, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Heavy(SegmenterConfig):
        def build(self):
            pytest.fail("its weights would have been loaded")

    config = LiftConfig(
        Path("synthetic"),
        tmp_path / "run",
        voxel=0.05,
        segmentation=Heavy(),
        tracking=ByoclConfig(labels=4, grid=16),
    )
    assert not config.needs_segmenter
    lift(config, scene)

    @dataclass(frozen=True)
    class Features(Heavy):
        gives_features = True

    assert dataclasses.replace(config, segmentation=Features()).needs_segmenter


def test_settings_of_a_tracker_are_checked_before_the_first_stage(scene, tmp_path):
    config = LiftConfig(Path("in"), tmp_path / "run", tracking=MastsamConfig(points=0))
    with pytest.raises(InputError, match="mastsam needs points >= 1"):
        lift(config, scene)
    assert not (tmp_path / "run").exists()


# Prompts over segmenter and tracker.


def test_masks_start_where_prompts_are(scene):
    class Whole(Segmenter):
        def segment(self, view):
            return self.prompt(view, [None, None])

        def prompt(self, view, prompts):
            shape = (len(prompts), view.camera.height, view.camera.width)
            return Masks(np.ones(shape, bool), np.ones(len(prompts), np.float32))

    labeller = Tracked(Whole(), IndependentConfig().build)
    point = Prompt(np.array([[4.0, 4.0]]), np.array([True]))
    everything = list(labeller.label(scene))
    prompted = list(labeller.label(scene, {scene.views[1].name: [point]}))
    assert [flat(masks).any() for masks in everything] == [True] * len(scene)
    assert [flat(masks).any() for masks in prompted] == [False, True, *[False] * (len(scene) - 2)]
    with pytest.raises(InputError, match="cannot be prompted"):
        next(Tracked(None, ByoclConfig().build).label(scene, {}))


def test_masks_in_files_are_checked_through_the_whole_labeller(scene, tmp_path):
    write_label_map(tmp_path, scene.views[0].name, scene.views[0].instances())
    config = LiftConfig(Path("in"), Path("o"), segmentation=FolderConfig(tmp_path))
    with pytest.raises(InputError, match="masks for 1 of 6 views"):
        config.resolved(scene).scene_segmenter().check(scene)


def test_regions_say_that_they_are_surfaces():
    assert RegionsConfig.masks_are_surfaces
    assert not FolderConfig.masks_are_surfaces
