"""Backends from outside the package: registered in a process, or offered by a package."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_backends_page import install

import lift3d
from lift3d import cli
from lift3d.datasets import detect
from lift3d.datasets.photos import Photos
from lift3d.export.registry import FORMATS
from lift3d.run.settings import CHOICES, LiftConfig, backend_name, names
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Reader, Segmenter, SegmenterConfig
from lift3d.scene.registry import KINDS

THEIRS = '''
from dataclasses import dataclass
from lift3d.scene.protocols import SegmenterConfig

@dataclass(frozen=True)
class Config(SegmenterConfig):
    """Masks of another package."""

    sharpness: int = 3
    """An option."""

@dataclass(frozen=True)
class Again(Config):
    pass

not_settings = int
'''


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """Removes what a test registers or loads."""
    for each in KINDS.values():
        monkeypatch.setattr(each, "_added", {})
        monkeypatch.setattr(each, "_loaded", {})
    yield
    sys.modules.pop("their_masks", None)


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A package with three plug-ins: a valid one, one of a wrong type, one that fails on import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    offered = {
        "theirs": "their_masks:Config",
        "no-backend": "their_masks:not_settings",
        "broken": "there_is_no_such_module:Config",
    }
    points = {"lift3d.segmentation": offered, "lift3d.reader": {"broken": "no_such_reader:R"}}
    install(tmp_path, {"their_masks.py": THEIRS}, points, "their-masks")
    return tmp_path


def test_a_plugin_is_imported_when_it_is_used_and_not_before(theirs):
    assert "theirs" in KINDS["segmentation"]
    assert "theirs" in names("segmentation")
    config = cli._parse(["lift", "in", "--out", "o"])
    assert type(config.segmentation).__name__ == "RegionsConfig"
    assert "their_masks" not in sys.modules
    words = ["segmentation:theirs", "--segmentation.sharpness", "5"]
    config = cli._parse(["lift", "in", "--out", "o", *words])
    assert config.segmentation.sharpness == 5
    assert backend_name("segmentation", config.segmentation) == "theirs"


def test_a_plugin_with_the_name_of_a_built_in_backend_is_reported_once(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(KINDS["segmentation"], "_ignored", set())
    offered = {"lift3d.segmentation": {"regions": "their_masks:Config"}}
    install(tmp_path, {"their_masks.py": THEIRS}, offered, "their-masks")
    own = KINDS["segmentation"]["regions"]
    for _ in range(2):
        assert "regions" in names("segmentation")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "segmentation:regions of the package their-masks is ignored" in record.getMessage()
    assert KINDS["segmentation"]["regions"] is own


def test_help_lists_plugins_and_their_options_and_what_is_wrong_with_broken_ones(theirs, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["lift", "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "segmentation:theirs Masks of another package." in said
    assert "segmentation:broken segmentation:broken of the package their-masks" in said
    assert "cannot be loaded" in said
    with pytest.raises(SystemExit):
        cli.main(["lift", "segmentation:theirs", "--help"])
    assert "--segmentation.sharpness INT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "of the package their-masks cannot be loaded (ModuleNotFoundError"),
        ("no-backend", "expected a SegmentationConfig, settings as a frozen dataclass"),
    ],
)
def test_a_broken_plugin_is_an_error_only_where_it_is_used(theirs, name, said, capsys):
    assert cli.main(["lift", "in", "--out", "o", f"segmentation:{name}"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_broken_reader_of_a_plugin_stops_no_other_reader(theirs, tmp_path, caplog):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"photos/{name}.jpg")
    assert isinstance(detect(tmp_path / "photos"), Photos)
    assert "reader:broken of the package their-masks cannot be loaded" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no reader knows this[^$]*reader:broken of the package"):
        detect(tmp_path / "empty")


def test_a_name_that_two_packages_offer_is_refused(theirs, tmp_path):
    points = {"lift3d.segmentation": {"theirs": "their_masks:Again"}}
    install(tmp_path, {}, points, "another")
    sys.path.insert(0, sys.path[0])  # as another process would see it
    try:
        with pytest.raises(InputError, match=r"more than one package \(another, their-masks\)"):
            KINDS["segmentation"]["theirs"]
    finally:
        del sys.path[0]


def test_a_plugin_cannot_take_the_name_of_a_backend_of_lift3d(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    points = {"lift3d.segmentation": {"regions": "their_masks:Config"}}
    install(tmp_path, {"their_masks.py": THEIRS}, points)
    assert list(KINDS["segmentation"]).count("regions") == 1
    assert KINDS["segmentation"]["regions"].__module__ == "lift3d.segmentation.regions"


@dataclass(frozen=True)
class Mine(SegmenterConfig):
    """Masks of my own."""

    size: int = 2

    def build(self) -> Segmenter:
        raise InputError("mine is only a name")


def test_a_registered_backend_is_chosen_like_any_other():
    assert lift3d.register("segmentation", "mine")(Mine) is Mine
    words = ["segmentation:mine", "--segmentation.size", "7"]
    config = cli._parse(["lift", "in", "--out", "o", *words])
    assert config.segmentation == Mine(7)
    with pytest.raises(InputError, match=r"there is a segmentation:mine already"):
        lift3d.register("segmentation", "mine", int)
    with pytest.raises(InputError, match=r"there is a segmentation:sam already"):
        lift3d.register("segmentation", "sam", Mine)
    with pytest.raises(InputError, match="did you mean 'segmentation'"):
        lift3d.register("segmentatoin", "mine", Mine)
    with pytest.raises(InputError, match="expected a TrackerConfig"):
        lift3d.register("tracking", "mine", Mine)


def test_a_registered_reader_is_tried_before_those_that_guess(tmp_path):
    """The folder has photos, which `photos` would read, and the file of the registered reader."""
    from PIL import Image

    @dataclass(frozen=True)
    class Own(Reader):
        expects = "a folder with own.txt"

        def matches(self, path):
            return (path / "own.txt").is_file()

    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    (tmp_path / "own.txt").touch()
    lift3d.register("reader", "own", Own)
    assert isinstance(detect(tmp_path), Own)


def test_a_registered_format_is_listed_in_the_help(capsys):
    from dataclasses import replace

    lift3d.register("export", "mine", replace(FORMATS["ply"], name="mine"))
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"mine: {FORMATS['ply'].about}" in said


def test_a_plugin_that_fails_when_it_is_used_stops_no_other_reader_and_no_help(
    tmp_path, caplog, capsys
):
    from PIL import Image

    @dataclass(frozen=True)
    class Failing(Reader):
        """Fails."""

        expects = "nothing"

        def matches(self, path):
            raise ZeroDivisionError("of theirs")

    @dataclass(frozen=True)
    class Unmade(Mine):
        """Cannot even be made."""

        def __post_init__(self):
            raise ZeroDivisionError("when made")

    lift3d.register("reader", "failing", Failing)
    lift3d.register("segmentation", "unmade", Unmade)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.jpg")
    assert isinstance(detect(tmp_path), Photos)
    assert "reader skipped: failing: ZeroDivisionError('of theirs')" in caplog.text
    with pytest.raises(SystemExit):
        cli.main(["lift", "--help"])
    assert "segmentation:unmade when made" in " ".join(capsys.readouterr().out.split())
    assert cli._parse(["lift", "in", "--out", "o"]).out == Path("o")
    assert cli.main(["lift", "in", "--out", "o", "segmentation:unmade"]) == 2
    assert "segmentation:unmade cannot be set up" in capsys.readouterr().err


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_backend_of_the_package_has_the_type_of_its_kind(kind):
    registry = KINDS[kind]
    assert registry.own
    for name in registry.own:
        assert registry._checked(name, registry[name], "lift3d") is registry[name]
        assert registry.name_of(registry[name]) == name


def test_every_choice_of_a_run_is_a_field_of_its_settings():
    assert set(CHOICES) <= {each for each in LiftConfig.__dataclass_fields__}
    assert set(KINDS) == {*CHOICES, "export"}
