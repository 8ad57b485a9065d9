"""The page's server: who may ask, what is refused, and what it says about odd runs."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from page_client import served
from tiny_export import lifted_run

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.run.stages import announced
from lift3d.scene.errors import InputError
from lift3d.viewing import packing
from lift3d.viewing.server import MOST_BODY, Events
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


def test_a_page_that_listens_late_is_told_that_there_was_news():
    events = Events()
    early = events.open("ann")
    events.send({"again": True})
    late = events.open("bob")
    assert [json.loads(early.get()) for _ in range(3)] == [
        {"people": 1},
        {"again": True},
        {"people": 2},
    ]
    assert json.loads(late.get()) == {"again": True}


def test_it_listens_on_this_machine_only(client):
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()][1:]
    listening = [row[1] for row in table if row[3] == "0A"]
    own = [each for each in listening if int(each.split(":")[1], 16) == client.port]
    assert own == [f"0100007F:{client.port:04X}"]


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
