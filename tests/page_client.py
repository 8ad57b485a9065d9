"""A page's server over a copy of a run, and a client that asks as the page does."""

import contextlib
import http.client
import json
import shutil
import time
from urllib.parse import urlsplit

import numpy as np

from lift3d.run.correct import write_automatic
from lift3d.run.layout import Layout
from lift3d.run.run import Run
from lift3d.run.scene_file import write_points
from lift3d.scene import LabelledPoints
from lift3d.viewing.serving import opened


class Client:
    """Asks one server, with its cookie and its origin unless told otherwise."""

    def __init__(self, server, who="u1"):
        self.server, self.who = server, who
        parts = urlsplit(server.address)
        self.host, self.port, self.token = parts.hostname, parts.port, server.token
        self.name = f"{self.host}:{self.port}"

    def ask(self, path, method="GET", body=None, timeout=20, **headers):
        """Status, headers and body; a header given as None is left out."""
        sent = {
            "Host": self.name,
            "Cookie": f"lift3d-{self.port}={self.token}",
            "X-Person": self.who,
        }
        if method != "GET":
            sent["Origin"] = f"http://{self.name}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None and "Content-Length" not in sent:
            sent["Content-Length"] = str(len(data))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def get(self, path):
        status, _, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def prepared(self):
        """Tell the server that the cloud is drawn, and wait until it knows what each view sees."""
        self.get("/api/drawn")
        end = time.monotonic() + 60
        while not self.get("/api/views?ids=1")["ready"]:
            assert time.monotonic() < end
            time.sleep(0.02)

    def post(self, path, **body):
        """Status and content."""
        status, _, answer = self.ask(path, "POST", body)
        return status, json.loads(answer)

    def edit(self, do, **more):
        """Do an edit that must be kept."""
        status, told = self.post("/api/edit", do=do, **more)
        assert status == 200, told
        return told


@contextlib.contextmanager
def served(run, to=None, **options):
    """A client of the page of `run`, or of a copy of it at `to`."""
    if to is not None:
        shutil.copytree(run, to)
        run = to
    with opened(Run.open(run), **options) as server:
        yield Client(server)


def relabelled(run, points, instance):
    """Put another cloud into a run: what the page needs of it."""
    layout = Layout(run)
    cloud = LabelledPoints(points, instance, np.ones(len(points), np.float32))
    ids = np.unique(instance[instance > 0]).tolist()
    write_points(layout.points, points)
    write_automatic(layout.automatic, cloud, dict.fromkeys(ids, 0.9), dict.fromkeys(ids, 3))
    for path in (layout.edits, layout.automatic.surface, layout.automatic.assignments):
        path.unlink(missing_ok=True)
    record = json.loads(layout.record.read_text())
    record["settings"]["association"]["trust_ids"] = True  # the surface was of another cloud
    layout.record.write_text(json.dumps(record))


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
