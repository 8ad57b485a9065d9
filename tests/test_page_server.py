"""The page's server: who may ask, what is refused, and what it says about odd runs."""

import base64
import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from page_client import Client, served
from tiny_export import lifted_run

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run import finishing
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.run.stages import announced
from lift3d.scene import Masks, Points
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.protocols import Segmenter
from lift3d.viewing import packing
from lift3d.viewing.server import MOST_BODY
from lift3d.viewing.serving import opened


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def client(lifted, tmp_path_factory):
    """A client of a server that no test edits."""
    with served(lifted, tmp_path_factory.mktemp("served") / "run") as found:
        found.prepared()
        yield found


def test_a_run_of_one_view_has_no_consistency_and_a_page(tmp_path):
    settings = LiftConfig(
        Path("synthetic"),
        tmp_path / "one",
        reader=SyntheticConfig(views=1, width=80, height=60),
        voxel=0.05,
    )
    lift(settings)
    with served(tmp_path / "one") as client:
        client.prepared()
        end = time.monotonic() + 60
        while (agreement := client.get("/api/state")["agreement"]) is None:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert agreement["automatic"]["H"] is None
    assert agreement["automatic"]["coverage"] > 0.9


def unit(points, seed=0):
    """Random points with their normals."""
    random = np.random.default_rng(seed)
    normal = random.normal(size=(points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    xyz = random.uniform(-1, 1, (points, 3)).astype(np.float32)
    rgb = random.integers(0, 256, (points, 3), np.uint8)
    return Points(xyz, rgb, normal.astype(np.float32), np.ones(points, np.float32))


def unpacked(data, n, wide=False):
    """Positions, labels, colours, normals of a chunk."""
    sizes = [(np.uint16, 3), (np.uint32 if wide else np.uint16, 1), (np.uint8, 3), (np.int8, 2)]
    parts = []
    for kind, count in sizes:
        size = n * count * np.dtype(kind).itemsize
        parts.append(np.frombuffer(data[:size], kind).reshape(n, count))
        data = data[size:]
    assert not data
    return parts


def test_a_chunk_takes_13_bytes_a_point_and_gives_all_points_back():
    points = unit(500)
    ids = np.arange(500, dtype=np.int32) % 7
    packed = packing.pack(points)
    data = packed.chunk(0, ids, wide=False)
    assert len(data) == 13 * 500
    xyz, label, rgb, normal = unpacked(data, 500)
    order = packed.order
    assert sorted(order.tolist()) == list(range(500))
    np.testing.assert_allclose(packed.low + packed.step * xyz, points.xyz[order], atol=4e-5)
    np.testing.assert_array_equal(label[:, 0], ids[order])
    np.testing.assert_array_equal(rgb, points.rgb[order])
    x, y = normal.T / 127.0
    z = 1 - abs(x) - abs(y)
    fold = np.maximum(-z, 0)
    back = np.stack([x - np.sign(x) * fold, y - np.sign(y) * fold, z], 1)
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    assert (back * packed.normal[order]).sum(1).min() > 0.99


def test_points_far_from_the_scene_do_not_make_positions_coarse():
    points = unit(500)
    points.xyz[0] = 1e5
    packed = packing.pack(points)
    assert packed.step is None
    assert len(packed.chunk(0, np.zeros(500, np.int32), wide=True)) == 500 * (12 + 4 + 5)


def test_noise_of_normals_is_smoothed_but_both_sides_of_a_board_stay():
    points = unit(400)
    front = np.arange(400) < 200
    points.xyz[:, 2] = 0
    points.normal[:] = np.where(front[:, None], [0.0, 0.6, 0.8], [0.0, 0.0, -1.0])
    points.normal[:100, 1] = -0.6
    smooth = packing.smoothed_normals(points, 10.0)
    assert abs(smooth[front, 1]).max() < 0.3
    np.testing.assert_allclose(smooth[~front], [[0, 0, -1]] * 200, atol=1e-6)


def test_a_cloud_too_large_for_a_browser_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(packing, "MOST", 100)
    packed = packing.pack(unit(1000))
    assert len(packed.order) == 100
    assert 300 < packed.order.mean() < 700


def test_the_page_and_everything_it_needs_comes_from_the_server(client):
    status, headers, body = client.ask("/")
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    text = body.decode()
    assert "://" not in text
    for path in ("/app/main.js", "/app/style.css", "/app/cloud.js", "/app/icons.svg"):
        status, headers, body = client.ask(path)
        assert status == 200
        urls = [each for each in body.decode().split() if "://" in each]
        assert all("www.w3.org" in each for each in urls), urls


def test_the_token_of_the_address_becomes_a_cookie_that_scripts_cannot_read(client):
    path = f"/?token={client.token}&test"
    status, headers, _ = client.ask(path, Cookie=None)
    assert status == 303
    assert headers["Location"] == "/?test="
    assert f"lift3d-{client.port}={client.token}" in headers["Set-Cookie"]
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    assert client.ask("/?token=wrong", Cookie=None)[0] == 401


REFUSED = {
    "no token": (401, "/api/run", {"Cookie": None}),
    "another token": (401, "/api/run", {"Cookie": "lift3d-1=abc"}),
    "broken cookie": (401, "/api/run", {"Cookie": 'a=";,\x7f'}),
    "page without token": (401, "/", {"Cookie": None}),
    "foreign host": (403, "/api/run", {"Host": "evil.example"}),
    "no host": (403, "/api/run", {"Host": None}),
    "foreign origin": (403, "/api/run", {"Origin": "http://evil.example"}),
    "origin null": (403, "/api/run", {"Origin": "null"}),
    "dots": (404, "/app/../../run.json", {}),
    "encoded dots": (404, "/app/%2e%2e/%2e%2e/run.json", {}),
    "backslashes": (404, "/app/..\\..\\run.json", {}),
    "absolute": (404, "//etc/passwd", {}),
    "view by name": (404, "/view/0000/../image", {}),
    "view too large": (404, "/view/9999/image", {}),
    "chunk too large": (404, "/cloud/9", {}),
    "scores of no chunk": (404, "/cloud/9/scores", {}),
    "object that is not there": (422, "/object/987/picture", {}),
    "point that is not there": (400, "/api/place?point=99999999", {}),
    "no number": (400, "/api/at?view=0&x=a&y=1", {}),
    "not a number": (400, "/api/at?view=0&x=nan&y=1", {}),
    "ids that are none": (400, "/api/views?ids=1,a", {}),
    "later than now": (400, "/cloud/changes?since=5", {}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_strangers_and_nonsense_are_refused(client, what):
    expected, path, headers = REFUSED[what]
    status, answered, body = client.ask(path, **headers)
    assert status == expected, body
    assert json.loads(body)["error"]
    assert "Access-Control-Allow-Origin" not in answered


@pytest.mark.parametrize(
    ("expected", "headers", "body"),
    [
        (403, {"Origin": None}, {"do": "undo"}),
        (403, {"Origin": "http://evil.example"}, {"do": "undo"}),
        (403, {"Origin": "http://127.0.0.1:1"}, {"do": "undo"}),
        (401, {"Cookie": None}, {"do": "undo"}),
        (413, {"Content-Length": str(100 << 20)}, b"{}"),
        (411, {"Content-Length": None}, None),
        (411, {"Content-Length": "-5"}, b"{}"),
        (400, {}, b"no json"),
        (400, {}, b"[1]"),
        (400, {}, b"[" * 100_000),
        (400, {}, {"do": "format the disk"}),
        (400, {}, {"do": 3}),
        (400, {}, {"do": "merge", "ids": "1,2"}),
        (400, {}, {"do": "merge", "ids": [1.5, None]}),
        (400, {}, {"do": "split", "id": 1, "clicks": [[1, 2]]}),
        (400, {}, {"do": "cut", "id": 1, "plane": [1, 2, 3, "x"]}),
        (404, {}, {"do": "paint", "view": 99, "runs": [0, 1]}),
        (400, {}, {"do": "paint", "view": 0, "runs": [0, 10**9]}),
        (400, {}, {"do": "paint", "view": 0, "runs": [3]}),
        (400, {}, {"do": "select", "points": "!!!"}),
        (400, {}, {"do": "select", "points": "/////w=="}),
        (422, {}, {"do": "segment", "key": "5"}),
        (422, {}, {"do": "merge", "ids": [9998, 9999]}),
        (422, {}, {"do": "undo"}),
    ],
    ids=str,
)
def test_a_damaged_request_is_refused_and_changes_nothing(client, expected, headers, body):
    before = client.get("/api/state")["revision"]
    status, _, answer = client.ask("/api/edit", "POST", body, **headers)
    assert status == expected, answer
    assert json.loads(answer)["error"]
    assert client.get("/api/state")["revision"] == before


def test_a_body_of_100_mb_is_refused_without_being_read(client):
    assert MOST_BODY < 100 << 20
    connection = http.client.HTTPConnection(client.host, client.port, timeout=10)
    connection.putrequest("POST", "/api/edit")
    for name, value in (
        ("Cookie", f"lift3d-{client.port}={client.token}"),
        ("Origin", f"http://{client.name}"),
        ("Content-Length", str(100 << 20)),
    ):
        connection.putheader(name, value)
    connection.endheaders()  # and no body: an answer shows that none is waited for
    assert connection.getresponse().status == 413
    connection.close()


def test_half_a_request_does_not_stop_the_server(client):
    with socket.create_connection((client.host, client.port)) as half:
        half.sendall(b"POST /api/edit HTTP/1.1\r\nHost: ")
        assert client.get("/api/run")["views"]
    with socket.create_connection((client.host, client.port)) as noise:
        noise.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    assert client.get("/api/run")["views"]


def test_a_tunnel_with_another_port_works_and_other_names_do_not(client):
    for host in ("localhost:9999", "127.0.0.1:9999", "[::1]:80"):
        assert client.ask("/api/run", Host=host)[0] == 200
        assert client.ask("/api/run", Host=host, Origin=f"http://{host}")[0] == 200
    for host in ("127.0.0.1.evil.example", "192.168.0.7:80", "evil", "localhost@evil:80"):
        assert client.ask("/api/run", Host=host)[0] == 403


def test_it_listens_on_this_machine_only(client):
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()][1:]
    listening = [row[1] for row in table if row[3] == "0A"]
    own = [each for each in listening if int(each.split(":")[1], 16) == client.port]
    assert own == [f"0100007F:{client.port:04X}"]


def test_what_the_page_hears_about_a_run(client, lifted):
    run, told, state = Run.open(lifted), client.get("/api/run"), client.get("/api/state")
    assert [view["name"] for view in told["views"]] == list(run.cameras)
    assert told["cloud"]["points"] == len(run.cloud)
    assert {each["id"] for each in state["objects"]} == {each.id for each in run.objects}
    assert state["edits"] == []
    status, headers, body = client.ask("/cloud/0")
    assert status == 200
    n = len(run.cloud)
    labels = unpacked(body, n)[1][:, 0]
    assert np.bincount(labels).tolist() == np.bincount(run.cloud.instance).tolist()
    assert headers["X-Revision"] == "0"
    _, _, scores = client.ask("/cloud/0/scores")
    assert len(scores) == n


def test_pictures_and_labels_of_a_view(client, lifted):
    status, headers, body = client.ask("/view/2/labels")
    assert status == 200
    labels = np.frombuffer(zlib.decompress(body), np.uint32)
    name = list(Run.open(lifted).cameras)[2]
    np.testing.assert_array_equal(labels, read_label_map(lifted / f"labels/{name}.png").ravel())
    for path, kind in (("image", "jpeg"), ("image?small=1", "jpeg"), ("heat", "png")):
        status, headers, body = client.ask(f"/view/2/{path}")
        assert (status, headers["Content-Type"]) == (200, f"image/{kind}")


def test_the_page_learns_which_point_each_pixel_shows(client, lifted):
    run = Run.open(lifted)
    _, _, body = client.ask("/view/2/points")
    labels = run.labels[list(run.cameras)[2]]
    places = np.frombuffer(zlib.decompress(body), np.uint32).reshape(labels.shape)
    order = np.random.default_rng(0).permutation(len(run.points))
    shown = places > 0
    assert shown.mean() > 0.9
    label = run.cloud.instance[order[places[shown].astype(int) - 1]]
    assert (label == labels[shown]).mean() > 0.9


def test_a_line_in_a_picture_is_the_plane_through_its_camera(client, lifted):
    run = Run.open(lifted)
    name = list(run.cameras)[1]
    seen = run.edits.seen(name)
    which = int(np.bincount(run.cloud.instance[seen.point])[1:].argmax()) + 1
    height = len(run.labels[name])
    middle = int(np.median(seen.column[run.cloud.instance[seen.point] == which]))
    line = [[middle, 0], [middle, height - 1]]
    status, found = client.post("/api/preview", do="cut", id=which, view=1, line=line)
    assert status == 200
    order = np.random.default_rng(0).permutation(len(run.points))
    column = np.full(len(run.points), -1)
    column[seen.point] = seen.column
    sides = [
        column[order[np.frombuffer(base64.b64decode(part["points"]), np.uint32)]]
        for part in found["parts"]
    ]
    left, right = sorted((side[side >= 0] for side in sides), key=lambda each: float(each.mean()))
    assert left.max() <= middle + 1
    assert right.min() >= middle - 1
    for wrong in ([[24, 0]], [[24, 0], [24, 0]], [[24, 0], ["a", 1]]):
        assert client.post("/api/preview", do="cut", id=which, view=1, line=wrong)[0] == 400


def test_a_pixel_leads_to_a_point_and_the_point_back_to_the_pixel(client):
    found = client.get("/api/at?view=1&x=30&y=25")
    assert found["id"] > 0
    views = client.get(f"/api/place?point={found['point']}")
    own = [each for each in views if each["view"] == 1]
    assert own
    assert abs(own[0]["x"] - 30) + abs(own[0]["y"] - 25) <= 4


def test_the_views_of_an_object_are_those_that_show_it(client):
    largest = max(client.get("/api/state")["objects"], key=lambda each: each["points"])
    found = client.get(f"/api/views?ids={largest['id']}")
    assert found["views"]
    status, headers, _ = client.ask(f"/object/{largest['id']}/picture")
    assert (status, headers["Content-Type"]) == (200, "image/webp")


def test_read_only_refuses_every_change_and_several_may_look(lifted):
    with served(lifted, read_only=True) as first, served(lifted, read_only=True) as second:
        assert first.get("/api/run")["readOnly"]
        for path in ("/api/edit", "/api/preview", "/api/propose", "/api/save", "/nowhere"):
            assert second.post(path, do="undo")[0] == 403


def test_a_second_server_names_the_first(lifted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(lifted, run)
    with opened(Run.open(run)) as server:
        command = [sys.executable, "-m", "lift3d", "view", str(run), "--no-browser"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert server.address in done.stderr
        assert (run / ".stages/open").stat().st_mode & 0o077 == 0
    assert not (run / ".stages/open").exists()
    with announced(run, "http://of-a-killed-one/"):
        note = (run / ".stages/open").read_text()
    (run / ".stages/open").write_text(note)
    with opened(Run.open(run)) as server:  # the old note does not matter
        assert (run / ".stages/open").read_text() == server.address


def test_an_unfinished_run_is_refused_with_the_reason(lifted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(lifted, run)
    (run / "run.json").unlink()
    with pytest.raises(InputError, match="finished"):
        Run.open(run)


def test_a_port_that_is_taken_is_said_in_words(client, lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    with (
        pytest.raises(InputError, match="--port"),
        opened(Run.open(tmp_path / "run"), port=client.port),
    ):
        pass


def test_a_run_whose_pictures_are_gone_opens_and_says_so(tmp_path):
    """Its scan was a folder that has been moved away."""
    from tiny_scan import tiny_scan, write_rgbd_json

    from lift3d.run.lift import lift
    from lift3d.run.settings import LiftConfig

    write_rgbd_json(tmp_path / "scan", tiny_scan(views=4))
    lift(LiftConfig(tmp_path / "scan", tmp_path / "run", voxel=0.1))
    (tmp_path / "scan").rename(tmp_path / "elsewhere")
    with served(tmp_path / "run") as client:
        assert len(client.get("/api/run")["views"]) == 4
        status, _, body = client.ask("/view/0/image")
        assert status == 422
        assert "scan" in json.loads(body)["error"]
        assert client.ask("/view/0/labels")[0] == 200
        assert client.ask("/view/0/heat")[0] == 200
        for each in client.get("/api/state")["objects"]:
            assert client.ask(f"/object/{each['id']}/picture")[0] in (200, 404)


def test_a_run_that_lacks_files_of_the_association_opens_without_a_queue(tmp_path):
    from tiny_scan import tiny_scan, write_rgbd_json

    from lift3d.run.lift import lift
    from lift3d.run.settings import LiftConfig

    write_rgbd_json(tmp_path / "scan", tiny_scan(views=4))
    lift(LiftConfig(tmp_path / "scan", tmp_path / "run", voxel=0.1))
    (tmp_path / "run/automatic/surface.npz").unlink()
    with served(tmp_path / "run") as client:
        state = client.get("/api/state")
        assert state["queue"] == []
        assert "surface.npz is missing" in state["noQueue"]


def test_edits_reach_other_pages_and_the_disk(lifted, tmp_path):
    with served(lifted, tmp_path / "run") as one:
        two = Client(one.server, "u2")
        heard = listening(two)
        state = one.get("/api/state")
        a, b = [each["id"] for each in state["objects"]][:2]
        one.edit("merge", ids=[a, b], on=state["revision"])
        told = heard(lambda each: "revision" in each)
        assert told["who"] == "u1"
        assert told["revision"] == 1
        lines = (tmp_path / "run/edits.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["do"] == "merge"
        status, headers, body = two.ask("/cloud/changes?since=0")
        assert status == 200
        both = np.frombuffer(body, np.uint32).reshape(2, -1)
        assert set(both[1].tolist()) <= {a, b}
        assert headers["X-Revision"] == "1"
        status, refused = two.post("/api/edit", do="merge", ids=[a, b], on=0)
        assert status in (409, 422)
        assert refused["error"]
        status, refused = two.post("/api/edit", do="undo")
        assert status == 422  # it is not theirs
        one.edit("undo")
        assert len(one.get("/api/state")["objects"]) == len(state["objects"])


class OfLabels(Segmenter):
    """A segmenter whose masks are the run's own: what the pixel of a prompt shows."""

    def __init__(self, run):
        self.labels = run.labels

    def prompt(self, view, prompts):
        labels = self.labels[view.name]
        stack = []
        for each in prompts:
            column, row = each.xy[each.positive][0].astype(int)
            stack.append(labels == labels[row, column])
        return Masks(np.array(stack), np.ones(len(stack), np.float32))

    def alternatives(self, view, prompt):
        return self.prompt(view, [prompt])


def test_a_click_in_a_picture_is_carried_to_other_views_step_by_step(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    with served(tmp_path / "run", segmenter=OfLabels(run)) as client:
        assert client.get("/api/run")["clicks"]
        labels = run.labels[next(iter(run.cameras))]
        ids, counts = np.unique(labels[labels > 0], return_counts=True)
        rows, columns = np.nonzero(labels == ids[np.argmax(counts)])
        pixel = [int(columns[len(columns) // 2]), int(rows[len(rows) // 2])]
        status, found = client.post("/api/propose", view=0, xy=[pixel], positive=[True])
        assert status == 200, found
        assert found["views"] == 1
        while found["views"] < found["of"]:
            before = found["views"]
            status, found = client.post("/api/propose", more=found["key"])
            assert (status, found["views"] > before) == (200, True), found
        told = client.edit("segment", key=found["key"], id=None)
        edit = json.loads((tmp_path / "run/edits.jsonl").read_text())
        assert edit["tool"] == "segmenter"
        assert told["n"] == 1
        assert client.post("/api/propose", view=99, xy=[pixel], positive=[True])[0] == 404
        assert client.post("/api/propose", view=0, xy=[[1]], positive=[True])[0] == 400
        assert client.post("/api/propose", more="77")[0] == 422


class Chairs:
    """Everything in a picture is like a chair, and a little like a stool."""

    def __init__(self):
        self.asked = 0

    def names(self, names):
        rows = {"chair": (1, 0, 0), "stool": (0.8, 0.6, 0), "spaceship": (0.9, 0.43, 0)}
        return np.array([rows.get(each, (0, 0, 1)) for each in names], np.float32)

    def masks(self, image, masks):
        assert masks.stack.any()
        self.asked += 1
        return np.tile(np.float32([1, 0, 0]), (len(masks.stack), 1))


def test_names_are_proposed_where_there_is_clip_and_follow_edits(lifted, tmp_path):
    scorer = Chairs()
    with served(lifted, tmp_path / "run", scorer=scorer) as client:
        client.prepared()

        def guesses(fits):
            end = time.monotonic() + 60
            while not fits(found := client.get("/api/state")["objects"]):
                assert time.monotonic() < end, found
                time.sleep(0.02)
            return {each["id"]: each["guesses"] for each in found}

        found = guesses(lambda objects: all(each["guesses"] for each in objects))
        assert all([word for word, _ in each] == ["chair", "stool"] for each in found.values())
        assert scorer.asked <= 3 * len(found)
        first, second, third = list(found)[:3]
        asked = scorer.asked
        client.edit("name", id=first, name="spaceship")
        told = ["chair", "spaceship", "stool"]
        guesses(
            lambda all_: all([w for w, _ in e["guesses"]] == told for e in all_ if e["id"] != first)
        )
        assert scorer.asked == asked  # no object is another one
        client.edit("merge", ids=[second, third], into=second)
        end = time.monotonic() + 60
        while scorer.asked == asked:
            assert time.monotonic() < end
            time.sleep(0.02)
    with served(lifted, tmp_path / "other") as client:
        assert not any(each["guesses"] for each in client.get("/api/state")["objects"])


def listening(client):
    """Read the stream of events; returns a function that waits for a fitting one."""
    connection = http.client.HTTPConnection(client.host, client.port, timeout=10)
    cookie = f"lift3d-{client.port}={client.token}"
    connection.request("GET", f"/api/events?who={client.who}", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200

    def wait(fits):
        with contextlib.closing(answer):
            while True:
                line = answer.readline().decode()
                if line.startswith("data: ") and fits(json.loads(line[6:])):
                    return json.loads(line[6:])

    return wait


def test_every_module_of_the_page_is_javascript_that_imports_what_is_there():
    folder = Path(packing.__file__).parent / "page"
    exported = {
        path.name: set(
            re.findall(
                r"^export (?:const|class|function|async function) (\w+)", path.read_text(), re.M
            )
        )
        for path in folder.glob("*.js")
    }
    for path in folder.glob("*.js"):
        for names, module in re.findall(
            r'^import \{ (.*?) \} from "\./(.*?)";', path.read_text(), re.M
        ):
            assert set(names.split(", ")) <= exported[module], f"{path.name} from {module}"
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to check the syntax: apt-get install nodejs")
    for path in folder.glob("*.js"):
        command = [node, "--input-type=module", "--check"]
        done = subprocess.run(command, input=path.read_text(), text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_others_look_and_edit_while_the_files_are_written(lifted, tmp_path, monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    def slow(run, progress=None):
        began.set()
        assert go_on.wait(60)
        written(run, progress)

    written = finishing.finish
    monkeypatch.setattr(finishing, "finish", slow)
    with served(lifted, tmp_path / "run") as client:
        first, second = [each["id"] for each in client.get("/api/state")["objects"]][:2]
        client.edit("name", id=first, name="before")
        answers = []
        saving = threading.Thread(target=lambda: answers.append(client.post("/api/save")))
        saving.start()
        try:
            assert began.wait(60)
            assert client.edit("name", id=second, name="meanwhile")["revision"] == 2
            assert client.get("/api/state")["revision"] == 2
        finally:
            go_on.set()
            saving.join()
        assert answers[0][0] == 200
        names = {each["id"]: each["name"] for each in client.get("/api/state")["objects"]}
        assert (names[first], names[second]) == ("before", "meanwhile")
    lines = (tmp_path / "run/edits.jsonl").read_text().splitlines()
    assert [json.loads(each)["name"] for each in lines] == ["before", "meanwhile"]
