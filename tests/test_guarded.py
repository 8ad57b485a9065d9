"""Damaged files of every kind: one error that names the file, and no memory for what they claim."""

import io
import json
import os
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lift3d
from lift3d.association.surface import Surface
from lift3d.scene.errors import FrameError, InputError, MissingExtra
from lift3d.scene.guarded import load_bytes, pictures, reading
from lift3d.scene.guarded.arrays import load_npy, load_npz, npy_shape
from lift3d.scene.guarded.json_file import finite, load_json
from lift3d.scene.guarded.pictures import check_pixels, opened_picture
from lift3d.scene.guarded.ply import load_ply
from lift3d.scene.storage import load_arrays

BARE = {
    r"json\.loads\(": [
        "correction/edits.py",  # line by line: each fault names its line
        "networks/mvsam/weights.py",  # in the header of a file that is being guarded
        "scene/__init__.py",  # what it has just written
        "viewing/server.py",  # no file: the body of a request
    ],
    r"np\.load\(": ["association/shape/joining.py", "association/votes/features.py"],  # its own
    r"np\.(loadtxt|genfromtxt|fromfile|memmap)\(": [],
    r"PlyData\.read\(": [],
    r"Image\.open\(|Pillow\.open\(|imread\(": [],
    r"zlib\.decompress\(": [],
    r"from_pretrained\(": ["networks/pretrained.py"],
    r"torch\.load\(": ["export/distillation/training.py", "networks/checkpoint.py"],
}
"""Calls that believe what a file says, and the modules that may make them."""
BINARY = "ply\nformat binary_little_endian 1.0\n"
XYZ = "property float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize(
    "fault", [KeyError("x"), OverflowError("too large"), StopIteration(), MemoryError(), OSError()]
)
def test_whatever_a_library_raises_becomes_an_error_that_names_the_file(fault):
    with pytest.raises(FrameError, match=r"a\.bin"), reading("a.bin", "anything", FrameError):
        raise fault


@pytest.mark.parametrize("ours", [InputError("said"), MissingExtra("said"), KeyboardInterrupt()])
def test_our_own_errors_pass(ours):
    with pytest.raises(type(ours)) as caught, reading("a.bin", "anything"):
        raise ours
    assert caught.value is ours


def test_pipes_folders_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", tmp_path, tmp_path / "none", tmp_path / "zero\0byte"):
        with pytest.raises(FrameError, match=r"is not a file|is missing|cannot be read"):
            load_bytes(path, FrameError)


def npy(header: str) -> bytes:
    return (
        np.lib.format.MAGIC_PREFIX + b"\1\0" + len(header).to_bytes(2, "little") + header.encode()
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4 an npz that is called npy",
        npy("{'descr': '|b1', 'fortran_order': False, 'shape': (1048576, 1200, 1600), }\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }\n"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"),
        npy("{'descr': '<f4', 'fortran_order': 'what\n"),
        npy("(" * 500),
        np.lib.format.MAGIC_PREFIX + b"\7\7junk",
    ],
)
def test_a_damaged_npy_is_an_error_before_memory_is_taken(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    for read in (load_npy, npy_shape):
        with pytest.raises(InputError, match=r"a\.npy cannot be read as an \.npy array"):
            read(path)


def test_arrays_are_read_as_they_were_written(tmp_path):
    empty, ids = np.zeros((0, 4, 5), bool), np.arange(6, dtype=np.int32).reshape(2, 3)
    np.save(tmp_path / "a.npy", empty)
    np.savez_compressed(tmp_path / "b.npz", empty=empty, ids=ids)
    assert load_npy(tmp_path / "a.npy").shape == npy_shape(tmp_path / "a.npy") == (0, 4, 5)
    both = load_npz(tmp_path / "b.npz")
    assert list(both) == ["empty", "ids"]
    np.testing.assert_array_equal(both["ids"], ids)
    assert list(load_npz(tmp_path / "b.npz", ["ids", "other"])) == ["ids"]


def test_an_npz_that_unpacks_to_more_than_a_gigabyte_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    shape = {"descr": "|b1", "fortran_order": False, "shape": (2, 1 << 30)}
    np.lib.format.write_array_header_1_0(header, shape)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(33):
            file.write(bytes(1 << 25))
    with pytest.raises(InputError, match="more than 1 GB when unpacked"):
        load_npz(path)


def test_an_npz_with_a_wrong_checksum_is_an_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(50))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        load_npz(path)


@pytest.mark.parametrize(
    "wrong", [{"node": np.zeros(2)}, {"strength": np.zeros(4, np.float32)}, {"object": np.int32(3)}]
)
def test_arrays_of_a_run_have_the_types_and_shapes_of_their_fields(tmp_path, wrong):
    fields = {
        "superpoint": np.zeros(5, np.int32),
        "edges": np.zeros((3, 2), np.int32),
        "strength": np.zeros(3, np.float32),
        "joins": np.zeros((0, 2), np.int32),
        "likelihood": np.zeros(0, np.float32),
        "node": np.zeros(2, np.int32),
        "object": np.zeros(2, np.int32),
    }
    np.savez(tmp_path / "a.npz", **fields)
    assert len(load_arrays(tmp_path / "a.npz", Surface).superpoint) == 5
    np.savez(tmp_path / "a.npz", **(fields | wrong))
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*lift again"):
        load_arrays(tmp_path / "a.npz", Surface)


@pytest.mark.parametrize(
    "header",
    [
        f"{BINARY}element vertex 2147483648\n{XYZ}",
        f"{BINARY}element vertex 0\n{XYZ}element face 2147483648\nproperty list uchar int i\n",
        f"ply\nformat ascii 1.0\nelement vertex 99\n{XYZ}",
        f"{BINARY}element vertex -1\n{XYZ}",
        f"{BINARY}element vertex 1\nproperty quad x\n",
        f"{BINARY}element vertex\n{XYZ}",
        "ply\n",
        "",
    ],
)
def test_a_ply_that_cannot_hold_what_its_header_counts_is_an_error(tmp_path, header):
    path = tmp_path / "a.ply"
    path.write_text(f"{header}end_header\n" if header else "")
    with pytest.raises(InputError, match=r"a\.ply cannot be read as PLY"):
        load_ply(path)


def test_coordinates_that_are_lists_are_an_error(tmp_path):
    path = tmp_path / "a.ply"
    lists = XYZ.replace("float x", "list uchar float x")
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex 1\n{lists}end_header\n1 5 0 0\n")
    with pytest.raises(InputError, match="x of the vertices is a list"):
        load_ply(path).columns("xyz")
    with pytest.raises(InputError, match="vertices have x, y, z; expected red"):
        load_ply(path).column("red")


def test_json_that_is_too_deep_or_of_another_kind_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    for text, said in (
        ("[" * 100_000, "nested too deeply"),
        ("[1, 2]", "holds a list, not an object"),
        ("", "Expecting value"),
        ("\xff{}", "codec can't decode"),
    ):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(InputError, match=rf"a\.json cannot be read as JSON \(.*{said}"):
            load_json(path, kind=dict)
    path.write_text("\ufeff" + json.dumps({"w": 1}), encoding="utf-8")
    assert load_json(path) == {"w": 1}, "a byte order mark, as Windows writes it"


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), "3", None, [1], True])
def test_numbers_in_json_are_finite(value):
    with pytest.raises(InputError, match="w is"):
        finite(value, "w")


def test_pictures_above_the_limit_are_refused_in_words(tmp_path, monkeypatch):
    Image.new("L", (40, 50)).save(tmp_path / "a.png")
    Image.new("L", (40, 51)).save(tmp_path / "b.png")
    monkeypatch.setattr(pictures, "PIXELS", 2000)
    with opened_picture(tmp_path / "a.png") as image:
        assert image.size == (40, 50)
    for source in (tmp_path / "b.png", (tmp_path / "b.png").read_bytes()):
        with (
            pytest.raises(FrameError, match="b has more than 0 megapixels"),
            opened_picture(source, "b"),
        ):
            pass
    with pytest.raises(FrameError, match="megapixels"):
        check_pixels((tmp_path / "b.png").read_bytes(), "b")
    check_pixels(zlib.compress(b"not for Pillow"), "c")  # OpenCV decides


def test_a_photo_of_180_megapixels_is_within_the_limit(shared_data):
    path = sorted(shared_data("fault_cases/photos_big").iterdir())
    with opened_picture(max(path, key=lambda each: each.stat().st_size)) as image:
        assert image.size == (15000, 12000)


@pytest.mark.parametrize("call", BARE)
def test_only_the_guarded_loaders_call_what_believes_a_file(call):
    package = Path(lift3d.__file__).parent
    found = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if re.search(call, path.read_text()) and "guarded" not in path.parts
    ]
    assert found == BARE[call], "use lift3d.scene.guarded"
