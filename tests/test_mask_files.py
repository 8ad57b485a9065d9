"""Masks as other programs write them: arrays, run lengths, polygons, colours, folders."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lift3d.datasets.mask_codes import decompressed, from_polygons, from_run_lengths
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.mask_sets import MaskSet, view_masks
from lift3d.segmentation.folder import FolderConfig

HEIGHT, WIDTH = 12, 16
CHAIR, TABLE = np.zeros((2, HEIGHT, WIDTH), bool)
CHAIR[2:6, 2:7], TABLE[4:10, 5:14] = True, True
STACK = np.stack([CHAIR, TABLE])


def view(name="a", picture=None):
    camera = Camera(np.eye(3), WIDTH, HEIGHT, np.eye(4))
    return View(name, camera, partial(str, picture))


def segment(folder, of=None):
    return FolderConfig(folder).build().segment(of or view())


def counts_of(mask):
    """Run lengths, column by column, one pixel after the other."""
    counts, now = [0], False
    for pixel in mask.T.ravel():
        if pixel != now:
            counts, now = [*counts, 0], pixel
        counts[-1] += 1
    return counts


def compressed(counts):
    """COCO's characters, from the description of the format."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            digit, value = value & 31, value >> 5
            more = not ((value == 0 and not digit & 16) or (value == -1 and digit & 16))
            text += chr(48 + digit + 32 * more)
            if not more:
                break
    return text


def annotations(form):
    def coded(mask):
        if form == "polygons":
            y, x = np.nonzero(mask)
            x0, x1, y0, y1 = x.min(), x.max() + 1, y.min(), y.max() + 1
            return [[int(each) for each in (x0, y0, x1, y0, x1, y1, x0, y1)]]
        if form == "rows":
            return mask.tolist()
        counts = counts_of(mask)
        counts = counts if form == "plain" else compressed(counts)
        return {"size": list(mask.shape), "counts": counts}

    scores = (0.9, 0.5)
    return [
        {"id": i, "segmentation": coded(mask), "predicted_iou": score}
        for i, (mask, score) in enumerate(zip(STACK, scores, strict=True))
    ]


@pytest.mark.parametrize("form", ["plain", "compressed", "polygons", "rows"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_json_of_one_view_keeps_overlaps_and_scores(tmp_path, form, wrapped):
    listed = annotations(form)
    content = {"image": {"height": HEIGHT, "width": WIDTH}, "annotations": listed}
    (tmp_path / "a.json").write_text(json.dumps(content if wrapped else listed))
    masks = segment(tmp_path)
    np.testing.assert_array_equal(masks.stack, STACK)
    assert masks.scores.tolist() == pytest.approx([0.9, 0.5])
    assert isinstance(view_masks(masks), MaskSet)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_read_as_written(seed):
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 90, 2)) < random.random()
    counts = counts_of(mask)
    assert decompressed(compressed(counts)) == counts
    code = {"size": list(mask.shape), "counts": compressed(counts)}
    np.testing.assert_array_equal(from_run_lengths(code), mask)


def test_polygons_hold_the_pixels_whose_centre_is_inside():
    triangle = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 6.0]])
    y, x = np.mgrid[:6, :9] + 0.5
    np.testing.assert_array_equal(from_polygons([triangle], 6, 9), x / 8 + y / 6 < 1)


def coco(names):
    return {
        "images": [
            {"id": 10 + i, "file_name": f"left/{name}.jpg", "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names)
        ],
        "annotations": [{**annotations("plain")[1], "image_id": 10 + i} for i in range(len(names))],
    }


def test_coco_has_all_views_in_one_file(tmp_path):
    for path in (tmp_path, tmp_path / "instances.json"):
        (tmp_path / "instances.json").write_text(json.dumps(coco(["a", "b c"])))
        masks = segment(path, view("b_c"))
        np.testing.assert_array_equal(masks.stack, STACK[1:])
        folder = FolderConfig(path).build()
        folder.check(Scene("s", (view("a"), view("b_c")), True, "test"))
        with pytest.raises(InputError, match=r"(1|2) of 3 views"):
            folder.check(Scene("s", (view("a"), view("b_c"), view("d")), True, "test"))


@pytest.mark.parametrize("kind", ["results", "dataset dicts"])
def test_detectrons_lists_are_read(tmp_path, kind):
    entry = annotations("compressed")[0]
    listed = [{**entry, "image_id": "a"}, {**entry, "image_id": "b"}]
    if kind != "results":
        listed = [{"file_name": f"/x/{n}.png", "annotations": [entry]} for n in "ab"]
    (tmp_path / "all.json").write_text(json.dumps(listed))
    np.testing.assert_array_equal(segment(tmp_path, view("b")).stack, STACK[:1])


def test_labelme_shapes_of_a_group_are_one_mask(tmp_path):
    def shape(x, **more):
        points = [[x, 2], [x + 2, 6]]
        return {"label": "chair", "points": points, "shape_type": "rectangle", **more}

    content = {"shapes": [shape(2, group_id=1), shape(8, group_id=1), shape(12)]}
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    (tmp_path / "a.json").write_text(json.dumps(content))
    masks = segment(tmp_path)
    assert masks.stack.sum((1, 2)).tolist() == [16, 8]
    content["shapes"][0]["shape_type"] = "linestrip"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.json: shape 0 is a linestrip; only polygons"):
        segment(tmp_path)


def test_labels_of_ultralytics_are_polygons_from_0_to_1(tmp_path):
    lines = ["3 0.125 0.25 0.4375 0.25 0.4375 0.5 0.125 0.5", "0 0 0 1 0 1 1 0 1 0.75", ""]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    masks = segment(tmp_path)
    assert masks.stack[0, 3:6, 2:7].all()
    assert masks.stack.sum((1, 2)).tolist() == [15, HEIGHT * WIDTH]
    assert masks.scores.tolist() == [1.0, 0.75]
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.25 0.25")
    with pytest.raises(InputError, match=r"a\.txt, line 1 is a box"):
        segment(tmp_path)


def stored(kind):
    ids = CHAIR * 3 + TABLE * 400  # 403 where both are
    return {
        "ids": ids.astype(np.int64),
        "ids as floats": ids.astype(np.float32),
        "ids with an axis": ids[None].astype(np.uint16),
        "ids with -1": np.where(ids, ids, -1),
        "large ids": np.where(ids, ids + 2**40, 0),
        "probabilities": STACK * 0.8 + 0.1,
        "logits": STACK * 9.0 - 5,
        "masks last": np.moveaxis(STACK, 0, 2),
        "of a video model": STACK[:, None].astype(np.float32),
        "bytes": STACK.astype(np.uint8) * 255,
    }[kind]


@pytest.mark.parametrize("kind", ["ids", "ids as floats", "ids with an axis", "ids with -1"])
def test_arrays_of_ids_keep_them(tmp_path, kind):
    np.save(tmp_path / "a.npy", stored(kind))
    masks = segment(tmp_path)
    assert masks.ids.tolist() == [3, 400, 403]
    np.testing.assert_array_equal(masks.stack[1], TABLE & ~CHAIR)


def test_ids_too_large_for_32_bits_are_numbered_anew(tmp_path):
    np.save(tmp_path / "a.npy", stored("large ids"))
    assert segment(tmp_path).ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "kind", ["probabilities", "logits", "masks last", "of a video model", "bytes"]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_stacks_of_any_type_are_masks(tmp_path, kind, suffix):
    if suffix == ".npy":
        np.save(tmp_path / "a.npy", stored(kind))
    else:
        np.savez(tmp_path / "a.npz", masks=stored(kind), scores=np.array([0.5, 0.25]))
    masks = segment(tmp_path)
    np.testing.assert_array_equal(masks.stack, STACK)
    assert masks.scores.tolist() == ([1, 1] if suffix == ".npy" else [0.5, 0.25])


def test_the_folder_of_amg_has_scores(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(11):
        Image.fromarray(STACK[number % 2].astype(np.uint8) * 255).save(tmp_path / f"a/{number}.png")
    rows = [f"{number},7,0.{number + 10}" for number in range(11)]
    (tmp_path / "a/metadata.csv").write_text("\n".join(["id,area,predicted_iou", *rows]))
    masks = segment(tmp_path)
    np.testing.assert_array_equal(masks.stack[10], CHAIR)  # numbers by value, not as text
    assert masks.scores[[0, 10]].tolist() == pytest.approx([0.10, 0.20])


def test_colours_are_ids_that_agree_between_views(tmp_path):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[CHAIR], picture[TABLE] = (255, 0, 0), (1, 2, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture[:, ::-1]).convert("RGBA").save(tmp_path / "b.png")
    for name, table in (("a", TABLE), ("b", TABLE[:, ::-1])):
        masks = segment(tmp_path, view(name))
        assert masks.ids.tolist() == [255, 1 + 256 * 2 + 65536 * 3]
        np.testing.assert_array_equal(masks.stack[1], table)


def test_a_palette_gives_indices_and_black_is_no_mask(tmp_path):
    for first, expected in (((0, 0, 0), [1, 2]), ((9, 9, 9), [1, 2])):
        indices = CHAIR * 1 + (TABLE & ~CHAIR) * 2
        if any(first):  # the background is the palette's third colour
            indices = (indices + 2) % 3
        picture = Image.fromarray(indices.astype(np.uint8)).convert("P")
        colours = [*first, 200, 0, 0, 0, 200, 0] if not any(first) else [*first, 0, 200, 0, 0, 0, 0]
        picture.putpalette(colours)
        picture.save(tmp_path / "a.png")
        masks = segment(tmp_path)
        assert masks.ids.tolist() == expected
        np.testing.assert_array_equal(masks.stack[0], CHAIR)


def test_photographs_and_blended_colours_are_refused(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is a colour picture of 192 colours"):
        segment(tmp_path)


def test_a_cut_out_is_what_is_not_transparent(tmp_path):
    (tmp_path / "a").mkdir()
    cut = np.dstack([np.full((HEIGHT, WIDTH, 3), 77, np.uint8), CHAIR.astype(np.uint8) * 255])
    cut[0, 0, 0] = 1
    Image.fromarray(cut).save(tmp_path / "a/chair.png")
    np.testing.assert_array_equal(segment(tmp_path).stack, STACK[:1])


def test_a_drawing_beside_the_masks_is_not_read(tmp_path):
    colours = np.full((HEIGHT, WIDTH, 3), (9, 0, 0), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert segment(tmp_path).ids.tolist() == [9]
    np.save(tmp_path / "a.npy", STACK)
    assert len(segment(tmp_path)) == 2
    Image.fromarray(CHAIR.astype(np.uint8)).save(tmp_path / "a.png")  # ids come first
    assert len(segment(tmp_path)) == 1


def test_masks_may_be_named_after_the_picture_and_lie_beside_it(tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "07.png")
    with pytest.raises(FrameError, match="no masks for view 07"):  # the picture is no mask
        segment(tmp_path, view("07", tmp_path / "07.png"))
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.color.png")
    of = view("a", tmp_path / "a.color.png")
    for name in ("a.color.json", "a.color.png.json"):
        (tmp_path / name).write_text(json.dumps(annotations("plain")))
        assert len(segment(tmp_path, of)) == 2
        (tmp_path / name).unlink()
    with pytest.raises(FrameError, match="no masks for view a"):
        segment(tmp_path, of)


def test_an_npz_may_have_one_mask_per_id(tmp_path):
    np.savez(tmp_path / "a.npz", **{"7": CHAIR, "300": TABLE[None]})
    masks = segment(tmp_path)
    assert masks.ids.tolist() == [7, 300]
    np.testing.assert_array_equal(masks.stack, STACK)


def test_masks_may_lie_in_a_folder_labels_and_have_other_leading_zeros(tmp_path):
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels/007.npy", STACK)
    assert len(segment(tmp_path, view("7"))) == 2
    assert len(segment(tmp_path, view("0007"))) == 2
    np.save(tmp_path / "labels/7.npy", STACK[:1])
    assert len(segment(tmp_path, view("7"))) == 1
    with pytest.raises(FrameError, match="no masks for view 0007"):  # either could be meant
        segment(tmp_path, view("0007"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json cannot be read as JSON"),
        ("a.json", b'{"x": 1}', r"a\.json holds no list of masks; expected SAM's"),
        ("a.json", b'[{"bbox": [1, 2, 3, 4]}]', r"a\.json: mask 0 cannot be read \(it has no segm"),
        (
            "a.json",
            b'[{"segmentation": {"size": [12, 16], "counts": [5]}}]',
            r"a\.json: mask 0 cannot be read \(its counts sum to 5, not 16x12\)",
        ),
        (
            "a.json",
            b'[{"segmentation": {"size": [99999999, 99999999], "counts": [5]}}]',
            r"its size is 99999999x99999999",
        ),
        (
            "a.json",
            b'[{"segmentation": {"size": [12, 99], "counts": [1188]}}]',
            r"a\.json is 99x12, its image 16x12: the aspect",
        ),
        ("a.json", b'[{"segmentation": {"size": [12, 16], "counts": "?"}}]', "end too early|sum"),
        ("a.txt", b"0 5 5 9 9 2 2", r"a\.txt, line 1: expected `class x y x y \.\.\.`, with x"),
        ("a.npz", b"PK", r"a\.npz cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why_with_the_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        segment(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("instances_predictions.pth", r"predictions\.pth: a torch file can run programs"),
        ("a.pkl", r"a\.pkl: a pickle can run programs, so it is not opened"),
        ("a.jpg", r"a\.jpg: JPEG changes ids along borders"),
        ("a.mat", r"a\.mat: \.mat is not read; save ids as \.npy or grey PNG"),
    ],
)
def test_files_of_other_kinds_are_named_before_any_work(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(InputError, match=message):
        FolderConfig(tmp_path).build().check(Scene("s", (view(),), True, "test"))


def test_objects_in_an_array_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"segmentation": CHAIR}]), allow_pickle=True)
    with pytest.raises(FrameError, match=r"a\.npy cannot be read .*it holds object"):
        segment(tmp_path)
