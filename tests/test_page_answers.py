"""What the page's server answers: views, places, proposals, edits of several people."""

import base64
import contextlib
import http.client
import json
import shutil
import threading
import time
import zlib

import numpy as np
import pytest
from page_client import Client, served, unpacked
from tiny_export import joined_run, lifted_run

from lift3d.correction.clicks.asking import inner_points
from lift3d.run import finishing
from lift3d.run.run import Run
from lift3d.scene import Masks
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.protocols import Segmenter


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def client(lifted, tmp_path_factory):
    """A client of a server that no test edits."""
    with served(lifted, tmp_path_factory.mktemp("served") / "run") as found:
        found.prepared()
        yield found


class OfLabels(Segmenter):
    """A segmenter whose masks are the run's own: what the pixel of a prompt shows. Boxes alone it
    does not understand.
    """

    def __init__(self, run):
        self.labels = run.labels

    def prompt(self, view, prompts):
        labels = self.labels[view.name]
        stack = []
        for each in prompts:
            shown = [labels[row, column] for column, row in each.xy[each.positive].astype(int)]
            stack.append(np.isin(labels, shown))
        return Masks(np.array(stack), np.ones(len(stack), np.float32))

    def alternatives(self, view, prompt):
        return self.prompt(view, [prompt])


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


def test_a_click_in_a_picture_is_carried_to_other_views_step_by_step(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    with served(tmp_path / "run", segmenter=OfLabels(run)) as client:
        assert client.get("/api/run")["clicks"]
        labels = run.labels[next(iter(run.cameras))]
        ids, counts = np.unique(labels[labels > 0], return_counts=True)
        rows, columns = np.nonzero(labels == ids[np.argmax(counts)])
        pixel = [int(columns[len(columns) // 2]), int(rows[len(rows) // 2])]
        click = {"view": 0, "xy": pixel, "positive": True}
        status, found = client.post("/api/propose", clicks=[click])
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
        assert client.post("/api/propose", clicks=[{**click, "view": 99}])[0] == 404
        assert client.post("/api/propose", clicks=[{**click, "xy": [1]}])[0] == 400
        assert client.post("/api/propose", more="77")[0] == 422


def test_a_segmenter_answers_a_box_and_further_clicks_in_other_views_and_in_the_cloud(
    lifted, tmp_path
):
    shutil.copytree(lifted, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    segmenter = OfLabels(run)
    with served(tmp_path / "run", segmenter=segmenter) as client:
        one, two = list(run.cameras)[:2]
        labels = run.labels[one]
        ids, counts = np.unique(labels[labels > 0], return_counts=True)
        largest, second = ids[np.argsort(-counts)[:2]]
        x, y = (int(each) for each in inner_points(labels == largest, 1)[0])
        box = [x - 3, y - 3, x + 3, y + 3]
        status, alone = client.post("/api/propose", view=0, box=box, clicks=[])
        assert (status, alone["views"]) == (200, 1), alone
        x, y = (int(each) for each in inner_points(labels == second, 1)[0])
        in_cloud = {"point": client.get(f"/api/at?view=0&x={x}&y={y}")["point"], "positive": True}
        other = inner_points(run.labels[two] == second, 1)[0].tolist()
        elsewhere = {"view": 1, "xy": other, "positive": True}
        for further, views in ((in_cloud, (1, 2)), (elsewhere, (2,))):
            status, found = client.post("/api/propose", view=0, box=box, clicks=[further])
            assert status == 200, found
            assert found["views"] in views
        assert found["count"] > alone["count"]
        while found["views"] < found["of"]:
            found = client.post("/api/propose", more=found["key"])[1]
        client.edit("segment", key=found["key"], id=None)
        kept = json.loads((tmp_path / "run/edits.jsonl").read_text())
        assert kept["tool"] == "segmenter"
        assert kept["prompts"][0]["box"] == box
        assert kept["prompts"][1]["positive"] == [True]


def test_a_click_is_corrected_by_clicks_in_pictures_and_in_the_cloud(tmp_path):
    run = Run.open(joined_run(tmp_path / "run"))
    with served(tmp_path / "run") as client:
        assert not client.get("/api/run")["clicks"]
        view = next(iter(run.cameras))
        labels = run.labels[view]
        ids, counts = np.unique(labels[labels > 0], return_counts=True)
        largest, second = ids[np.argsort(-counts)[:2]]
        pixel = inner_points(labels == largest, 1)[0]
        beside = inner_points(labels == second, 1)[0]
        at = [
            client.get(f"/api/at?view=0&x={int(x)}&y={int(y)}")["point"] for x, y in (pixel, beside)
        ]
        first = {"point": at[0], "positive": True, "view": 0, "xy": pixel.tolist()}
        status, alone = client.post("/api/propose", clicks=[first], level=None)
        assert (status, alone["of"]) == (200, 0)
        top = alone["levels"] - 1
        whole = client.post("/api/propose", clicks=[first], level=top)[1]
        in_picture = {"point": at[1], "positive": False, "view": 0, "xy": beside.tolist()}
        in_cloud = {"point": at[1], "positive": False}
        for further in (in_picture, in_cloud):
            status, less = client.post("/api/propose", clicks=[first, further], level=top)
            assert status == 200, less
            assert less["level"] == top
            assert less["count"] < whole["count"]
        assert client.edit("segment", key=less["key"], id=None)["n"] == 1
        kept = json.loads((tmp_path / "run/edits.jsonl").read_text())
        assert kept["tool"] == "tree"
        assert [each["positive"] for each in kept["prompts"]] == [True, False]
        rows, columns = np.nonzero(labels == second)
        box = [int(each) for each in (columns.min(), rows.min(), columns.max(), rows.max())]
        status, boxed = client.post("/api/propose", view=0, box=box, clicks=[], level=None)
        assert (status, boxed["levels"]) == (200, 1), boxed
        assert boxed["count"] > 0
        assert client.post("/api/propose", view=0, box=box[:3], clicks=[])[0] == 400
        assert client.post("/api/propose", view=99, box=box, clicks=[])[0] == 404
        assert client.post("/api/propose", view=0, box=box[::-1], clicks=[])[0] == 422
        for wrong, code in (
            ([], 400), (["1"], 400), ([first, {"point": at[0]}], 400),
            ([{**first, "point": 1 << 30}], 400),
            ([first, {**first, "view": 99}], 404), ([first, {**first, "xy": [1]}], 400),
            ([first, {**first, "xy": [-9, 1]}], 422),
        ):  # fmt: skip
            assert client.post("/api/propose", clicks=wrong)[0] == code, wrong


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
