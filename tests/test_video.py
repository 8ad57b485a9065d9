"""A video becomes views, chosen by motion and sharpness, identical to frames of the video."""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from lift3d.datasets import read_scene
from lift3d.datasets.video import Video
from lift3d.scene.errors import FrameError, InputError

SIZE = (160, 120)
CODECS = {"avi": "MJPG", "mp4": "mp4v", "mkv": "mp4v"}


@pytest.fixture(scope="module")
def panorama():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 255, (60, 300, 3)).astype(np.uint8)
    return cv2.resize(rough, (1200, 240), interpolation=cv2.INTER_CUBIC)


def write(path, panorama, offsets, blurred=(), codec=None):
    """One frame per offset: the panorama from that column on, some frames out of focus."""
    suffix = path.suffix[1:]
    code = cv2.VideoWriter.fourcc(*(codec or CODECS[suffix]))
    writer = cv2.VideoWriter(str(path), code, 25.0, SIZE)
    assert writer.isOpened()
    for i, offset in enumerate(offsets):
        frame = np.ascontiguousarray(panorama[60 : 60 + SIZE[1], offset : offset + SIZE[0]])
        writer.write(cv2.GaussianBlur(frame, (0, 0), 3) if i in blurred else frame)
    writer.release()
    return path


def decoded(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            return frames
        frames.append(frame[..., ::-1])


def index(view):
    return int(re.fullmatch(r"frame_(\d{6})", view.name)[1])


def test_a_focal_length_of_0_is_an_error_and_not_unset(tmp_path, panorama):
    path = write(tmp_path / "walk.mp4", panorama, range(0, 600, 20))
    with pytest.raises(InputError, match="focal is 0"):
        read_scene(path, Video(focal=0.0))


@pytest.mark.parametrize("suffix", CODECS)
def test_a_view_is_exactly_its_frame_in_any_order_of_loading(tmp_path, panorama, suffix):
    path = write(tmp_path / f"walk.{suffix}", panorama, range(0, 600, 2))
    views = read_scene(path, Video(motion=0.2)).views
    truth = decoded(path)
    order = np.random.default_rng(1).permutation(len(views))
    for i in [*order, *range(len(views))]:
        np.testing.assert_array_equal(views[i].image(), truth[index(views[i])])


def test_a_view_is_exactly_its_frame_where_seeking_is_inexact(tmp_path, panorama, monkeypatch):
    path = write(tmp_path / "walk.mp4", panorama, range(0, 600, 2))
    views = read_scene(path, Video(motion=0.2)).views
    truth = decoded(path)
    plain = cv2.VideoCapture

    class Beside:
        def __init__(self, *arguments):
            self.inner = plain(*arguments)

        def set(self, what, value):
            return self.inner.set(what, max(0, value - 3))

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(cv2, "VideoCapture", Beside)
    views[0].image()
    for view in (views[-1], views[1]):
        np.testing.assert_array_equal(view.image(), truth[index(view)])


def test_the_camera_moves_by_the_set_share_between_views(tmp_path, panorama):
    """2 pixels a frame of 160: 0.2 of the width are 16 frames, half of it 8."""
    path = write(tmp_path / "walk.avi", panorama, range(0, 400, 2))
    views = read_scene(path, Video(motion=0.2)).views
    steps = np.diff([index(view) for view in views])
    assert (steps[:-1] >= 6).all()
    assert (steps <= 18).all()


def test_a_camera_that_rests_gives_no_views_of_the_rest(tmp_path, panorama):
    offsets = [*range(0, 100, 4), *[100] * 100, *range(100, 200, 4)]
    path = write(tmp_path / "walk.avi", panorama, offsets)
    views = read_scene(path).views
    assert sum(26 < index(view) < 124 for view in views) <= 1


def test_the_sharp_frames_are_taken(tmp_path, panorama):
    blurred = {i for i in range(200) if i % 8}
    path = write(tmp_path / "walk.avi", panorama, range(0, 400, 2), blurred)
    views = read_scene(path, Video(motion=0.25)).views
    assert len(views) > 8
    assert sum(index(view) in blurred for view in views) <= 1


def test_of_too_many_views_some_are_kept_evenly(tmp_path, panorama):
    path = write(tmp_path / "walk.avi", panorama, range(0, 400, 2))
    scene = read_scene(path, Video(motion=0.05, max_frames=5))
    indices = [index(view) for view in scene.views]
    assert len(indices) == 5
    assert indices[0] < 10
    assert indices[-1] > 190
    assert scene.notes[0] == ("5 of 200 frames chosen by motion and sharpness (25 frames a second)")


def test_views_can_be_sent_to_threads_and_processes(tmp_path, panorama):
    path = write(tmp_path / "walk.mp4", panorama, range(0, 200, 2))
    views = [pickle.loads(pickle.dumps(view)) for view in read_scene(path).views]
    truth = decoded(path)
    with ThreadPoolExecutor(3) as pool:
        for view, image in zip(views, pool.map(lambda v: v.image(), views), strict=True):
            np.testing.assert_array_equal(image, truth[index(view)])


def test_a_video_has_no_poses_and_no_scale(tmp_path, panorama):
    path = write(tmp_path / "walk.avi", panorama, range(0, 100, 2))
    scene = read_scene(path)
    assert scene.source == f"reader video at {path}"
    assert scene.name == "walk"
    assert not scene.metric
    assert scene.views[0].camera.world_from_camera is None
    assert scene.views[0].camera.K[0].tolist() == [192.0, 0.0, 79.5]


def test_a_truncated_video_gives_its_complete_frames_and_a_note(tmp_path, panorama):
    """AVI keeps its index at the end but can be decoded from the start."""
    path = write(tmp_path / "walk.avi", panorama, range(0, 400, 2))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    scene = read_scene(path)
    assert max(index(view) for view in scene.views) < 110
    for view in scene.views:
        view.image()
    assert "of 200 frames cannot be decoded" in scene.notes[1]


def test_an_mp4_without_its_end_is_refused(tmp_path, panorama):
    path = write(tmp_path / "walk.mp4", panorama, range(0, 200, 2))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"walk\.mp4 cannot be opened as a video"):
        read_scene(path)


def test_a_file_that_is_not_a_video_is_refused(tmp_path):
    (tmp_path / "a.mov").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"a\.mov cannot be opened as a video"):
        read_scene(tmp_path / "a.mov")


def test_a_video_from_a_resting_camera_is_refused(tmp_path, panorama):
    path = write(tmp_path / "still.avi", panorama, [0] * 30)
    with pytest.raises(InputError, match="the picture hardly moves in 30 frames"):
        read_scene(path)


def test_a_video_that_changed_is_noticed(tmp_path, panorama):
    path = write(tmp_path / "walk.avi", panorama, range(0, 200, 2))
    view = read_scene(path).views[-1]
    write(path, panorama[:, ::-1], range(0, 200, 2))
    with pytest.raises(FrameError, match="is not as it was"):
        view.image()
