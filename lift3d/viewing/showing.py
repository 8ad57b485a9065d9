"""What the page asks about one run, and what it may do to it: the routes of the server.

Points have two numbers: the index in the cloud, and the place in the order in which they are sent
(`packing`). The page knows only the second; everything here changes from one to the other. Places
are in the world in a run's edits, and relative to its local origin in the page, which draws in
float32.
"""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Any

import numpy as np
from jaxtyping import Int64

from lift3d.association.assignments import nearest_known
from lift3d.correction.doubts import Doubtful
from lift3d.correction.history import altered_words
from lift3d.geometry.rendering import camera_up, guess_up
from lift3d.geometry.visibility import cloud_spacing
from lift3d.run.report.pictures import cut_out, heat_picture
from lift3d.run.report.verdict import view_agreement
from lift3d.run.run import Run
from lift3d.run.wording import Scorer
from lift3d.scene import Camera, Image
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.viewing.naming import Names
from lift3d.viewing.packing import CHUNK, Packed, core_box, pack
from lift3d.viewing.seen import Seen
from lift3d.viewing.server import Answer, Events, Refused, Request, Route, json_answer

WIDE = 1 << 16
"""Labels from here on need 32 bits."""
SMALL = 160
"""Longer side of a picture in the strip of views, in pixels."""
PICTURES, SMALL_PICTURES = 64, 4096
"""Pictures that are kept in memory, encoded."""
PATIENCE = 5.0, 20.0
"""Seconds that background work waits for a page to ask for the cloud, and then to draw it."""
BESIDE = 4.0
"""A pixel without a point takes that of the nearest pixel with one, up to so many pixels away."""
BACKGROUND = 96
"""Grey level of a picture that cannot be read."""


class Showing:
    """One open run. What edits can change is asked one request at a time."""

    def __init__(
        self,
        run: Run,
        read_only: bool = False,
        clicks: bool = False,
        scorer: Scorer | None = None,
    ) -> None:
        """`clicks`: whether a segmenter answers clicks; `scorer` (CLIP) proposes names."""
        self.run, self.read_only, self.clicks = run, read_only, clicks
        self.edits = run.edits
        self.events = Events()
        self.seen = Seen(run)
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._whole = lru_cache(PICTURES)(self._make_whole)
        self._small = lru_cache(SMALL_PICTURES)(self._make_small)
        self.troubles: list[str] = []
        self._names: Names | None = None
        if scorer is not None:
            self._names = Names(self.edits, self.seen, self._image, scorer, self._news)
        self._closed = False
        self._asked, self._drawn = threading.Event(), threading.Event()
        self._pictures: dict[tuple[int, int], Answer] = {}

    def prepare(self) -> None:
        """Pack the cloud; then do in the background what takes seconds: what every view sees, H.

        The background waits until a page has drawn the cloud, so as not to slow it down.
        """
        self.description = self.describe()
        threading.Thread(target=self._prepare, daemon=True).start()

    def _prepare(self) -> None:
        edits = self.edits
        for number in range(self.packed.chunks):  # all this before a browser has started
            self.packed.fixed(number)
        self._quietly(self.state)
        if self._asked.wait(PATIENCE[0]):
            self._drawn.wait(PATIENCE[1])
        first = [edits.prepare_click] if self.clicks and not self.read_only else []
        for work in (*first, edits.prepare_split, self.seen.fill, edits.prepare_agreement):
            if self._closed:
                return
            self._quietly(work)
            self._news()
        if self._names is not None:
            self._names.start()

    def _news(self) -> None:
        """The pages ask for the state again."""
        self.events.send({"again": True})

    def edited(self) -> None:
        """An edit was made."""
        if self._names is not None:
            self._names.changed()

    def _quietly(self, work: Callable[[], object]) -> None:
        """Do something in advance. What fails, as H without the scan, is not shown."""
        try:
            work()
        except InputError as error:
            self.troubles.append(str(error))

    def close(self) -> None:
        """Stop working in the background."""
        self._closed = True
        self._asked.set()
        self._drawn.set()
        self.seen.stop()
        if self._names is not None:
            self._names.close()

    @property
    def routes(self) -> dict[str, Route]:
        """Method and path -> what answers it."""
        view = r"GET /view/(\d{1,6})"
        free: dict[str, Route] = {
            "GET /api/run": lambda asked: json_answer(self.description),
            "GET /api/drawn": self.drawn,
            r"GET /cloud/(\d{1,4})": self.chunk,
            r"GET /cloud/(\d{1,4})/scores": self.scores,
            f"{view}/image": self.image,
            f"{view}/heat": self.heat,
        }
        one_at_a_time: dict[str, Route] = {
            "GET /api/state": lambda asked: json_answer(self.state(asked.who)),
            "GET /api/place": self.place,
            "GET /api/at": self.at,
            "GET /api/views": self.views_of,
            "GET /cloud/changes": self.changes,
            f"{view}/labels": self.labels,
            f"{view}/points": self.points,
            r"GET /object/(\d{1,9})/picture": self.picture,
        }
        return free | {key: self.alone(route) for key, route in one_at_a_time.items()}

    def alone(self, route: Route) -> Route:
        """A route that waits until no other is being answered."""

        def answered(asked: Request) -> Answer:
            with self._lock:
                return route(asked)

        return answered

    # What does not change while the page is open.

    @cached_property
    def packed(self) -> Packed:
        """The cloud as it is sent."""
        return pack(self.run.points)

    @cached_property
    def place_of(self) -> Int64[np.ndarray, " points"]:
        """The place of each point in the order sent; -1 where the cloud is thinned."""
        place = np.full(len(self.run.points), -1, np.int64)
        place[self.packed.order] = np.arange(len(self.packed.order))
        return place

    def with_followers(self, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " points"]:
        """The points at places; where the cloud is thinned, also those nearest to one of them."""
        order, points = self.packed.order, self.run.points
        if len(order) == len(points):
            return order[places]
        return np.flatnonzero(np.isin(self._nearest_sent, places))

    @cached_property
    def _nearest_sent(self) -> Int64[np.ndarray, " points"]:
        """For each point the place of the nearest one that is sent."""
        from scipy.spatial import cKDTree

        xyz = self.run.points.xyz
        nearest = cKDTree(xyz[self.packed.order]).query(xyz)[1].astype(np.int64)
        nearest[self.packed.order] = np.arange(len(self.packed.order))
        return nearest

    @cached_property
    def cameras(self) -> list[Camera]:
        """The colour camera of each view."""
        return list(self.run.cameras.values())

    @cached_property
    def names(self) -> list[str]:
        """The name of each view."""
        return list(self.run.cameras)

    def describe(self) -> dict[str, Any]:
        """Views, cameras, and how the cloud is sent."""
        points, packed = self.run.points, self.packed
        agreement = self._agreement_of_views()
        views = [
            {
                "name": name,
                "width": camera.width,
                "height": camera.height,
                "K": camera.K.ravel().tolist(),
                "distorted": bool(camera.distortion),
                "pose": None
                if camera.world_from_camera is None
                else camera.world_from_camera.ravel().tolist(),
                "agreement": agreement[number],
            }
            for number, (name, camera) in enumerate(self.run.cameras.items())
        ]
        return {
            "name": self.run.name,
            "folder": str(self.run.folder),
            "views": views,
            "up": guess_up(points, camera_up(self.cameras)).tolist(),
            "metric": bool(self.run.scene.metric),
            "readOnly": self.read_only,
            "clicks": self.clicks,
            "warnings": list(self.run.warnings),
            "cloud": {
                "points": len(points),
                "sent": len(packed.order),
                "chunk": CHUNK,
                "chunks": packed.chunks,
                "low": packed.low.tolist(),
                "box": core_box(points.xyz),
                "step": None if packed.step is None else packed.step.tolist(),
                "spacing": cloud_spacing(points) if len(points) > 1 else 1.0,
                "normals": bool((np.abs(points.normal[:1000]).sum(1) > 0.5).any()),
            },
        }

    def _agreement_of_views(self) -> Sequence[float | None]:
        """H of each view; None where it was not computed."""
        unknown: list[float | None] = [None] * len(self.names)
        if not self.run.files.consistency.is_file():
            return unknown
        known = dict(zip(self.run.consistency["views"], view_agreement(self.run.consistency)))  # noqa: B905
        return [known.get(name) for name in self.names]

    # What edits change.

    def state(self, who: str = "") -> dict[str, Any]:
        """Objects, edits and what is likely wrong, at the present revision."""
        edits = self.edits
        objects = edits.objects
        palette = edits.palette
        doubts = {each.edit.n: each.reason for each in edits.doubts}
        altered = altered_words(edits.altered)
        agreement = edits.agreement()
        queue, without = self._queue()
        guesses = {} if self._names is None else self._names.proposed([e.id for e in objects])
        return {
            "revision": edits.revision,
            "objects": [
                {
                    "id": each.id,
                    "name": each.name,
                    "class": each.class_name,
                    "points": each.points,
                    "views": each.views,
                    "confidence": round(each.confidence, 4),
                    "colour": palette[each.id],
                    "chosen": each.colour,
                    "guesses": guesses.get(each.id, []),
                    "low": self._local(each.low),
                    "high": self._local(each.high),
                    "edited": bool(each.edited),
                    "changed": max(each.edited, default=0),
                    "reviewed": each.reviewed,
                    "locked": each.locked,
                }
                for each in objects
            ],
            "automatic": self.automatic_objects,
            "edits": [
                {
                    "n": each.n,
                    "text": str(each),
                    "who": each.who,
                    "at": each.at,
                    "doubt": doubts.get(each.n, ""),
                    "altered": altered.get(each.n, ""),
                }
                for each in edits.active
            ],
            "undone": [each.n for each in edits.undone(who)],
            "doubts": len(doubts),
            "queue": [self._doubtful(each) for each in queue],
            "noQueue": without,
            "agreement": None if agreement is None else asdict(agreement),
            "written": edits.written,
        }

    def _local(self, place: tuple[float, float, float] | None) -> list[float] | None:
        """A place of the world as the page has it: relative to the run's local origin."""
        return None if place is None else np.subtract(place, self.run.offset).tolist()

    def _queue(self) -> tuple[tuple[Doubtful, ...], str]:
        """What is likely wrong; or nothing and the reason, where files of the run are missing."""
        try:
            return self.edits.queue(), ""
        except InputError as error:
            return (), str(error)

    @cached_property
    def automatic_objects(self) -> int:
        """How many objects the association found."""
        ids = np.unique(self.edits.automatic)
        return int(np.count_nonzero(ids > 0))

    def _doubtful(self, each: Doubtful) -> dict[str, Any]:
        """An entry of the queue; its view by number."""
        view = self.names.index(each.view) if each.view in self.run.cameras else None
        return {
            "key": each.key,
            "kind": each.kind,
            "ids": list(each.ids),
            "view": view,
            "edit": each.edit,
            "reason": each.reason,
            "proposal": None if each.proposal is None else each.proposal[0],
        }

    def chunk(self, asked: Request) -> Answer:
        """A chunk of the cloud with its present labels."""
        self._asked.set()
        label = self.edits.label
        wide = bool(len(label)) and int(label.max()) >= WIDE
        headers = {"X-Revision": str(self.edits.revision), "X-Wide": str(int(wide))}
        return Answer(self.packed.chunk(asked.numbers[0], label, wide), headers=headers)

    def drawn(self, asked: Request) -> Answer:
        """A page shows the whole cloud: what takes long may begin."""
        self._asked.set()
        self._drawn.set()
        return json_answer({})

    def scores(self, asked: Request) -> Answer:
        """The score of each point of a chunk, 0 to 254; 255 unlabelled."""
        number = asked.numbers[0]
        if number >= self.packed.chunks:
            raise IndexError(number)
        index = self.packed.order[number * CHUNK : (number + 1) * CHUNK]
        cloud = self.edits.cloud
        score = np.rint(254 * cloud.score[index].clip(0, 1)).astype(np.uint8)
        score[cloud.instance[index] <= 0] = 255
        return Answer(score.tobytes())

    def changes(self, asked: Request) -> Answer:
        """Places and labels of the points that changed since a revision: both uint32."""
        change = self.edits.since(int(asked.number("since", 0, self.edits.revision)))
        place = self.place_of[change.index]
        sent = place >= 0
        parts = (place[sent], np.maximum(change.label[sent], 0))
        body = b"".join(each.astype(np.uint32).tobytes() for each in parts)
        return Answer(body, headers={"X-Revision": str(change.revision)})

    # Views.

    def _view(self, asked: Request) -> tuple[int, str]:
        number = asked.numbers[0]
        return number, self.names[number]

    def _image(self, number: int) -> Image:
        """The picture of a view; InputError where its file cannot be read."""
        try:
            with self._reading:
                return self.run.scene.views[number].image()
        except FrameError as error:
            raise InputError(str(error)) from error

    def image(self, asked: Request) -> Answer:
        """The picture of a view."""
        number, _ = self._view(asked)
        return self._small(number) if "small" in asked.query else self._whole(number)

    def _make_whole(self, number: int) -> Answer:
        return _encoded(self._image(number), "jpeg", quality=92)

    def _make_small(self, number: int) -> Answer:
        from PIL import Image as Pillow

        small = Pillow.fromarray(self._image(number))
        small.thumbnail((SMALL, SMALL))
        return _encoded(np.asarray(small), "jpeg", quality=80)

    def labels(self, asked: Request) -> Answer:
        """The label of each pixel of a view: uint32, deflated."""
        _, name = self._view(asked)
        labels = self.edits.label_map(name)
        body = zlib.compress(np.maximum(labels, 0).astype(np.uint32).tobytes(), 1)
        headers = {
            "Content-Encoding": "deflate",
            "X-Revision": str(self.edits.revision),
            "X-Width": str(labels.shape[1]),
            "X-Height": str(labels.shape[0]),
        }
        return Answer(body, headers=headers)

    def points(self, asked: Request) -> Answer:
        """The place of the point that the cloud shows at each pixel of a view, plus 1; 0 none.

        uint32, deflated. No edit changes it; with it the page shows proposals in the picture.
        """
        number, name = self._view(asked)
        camera, seen = self.cameras[number], self.edits.shown(name)
        place = self.place_of[seen.point]
        if len(self.packed.order) < len(self.run.points):
            place = self._nearest_sent[seen.point]
        found = np.zeros((camera.height, camera.width), np.int32)
        found[seen.row, seen.column] = place + 1
        if len(seen) and not found.all():
            everywhere = np.ones(found.shape, bool)
            value, nearest = nearest_known(found, everywhere)
            near = np.hypot(*(nearest - np.nonzero(everywhere))) <= BESIDE
            found = np.where(near, value, 0).reshape(found.shape).astype(np.int32)
        body = zlib.compress(found.astype(np.uint32).tobytes(), 1)
        return Answer(body, headers={"Content-Encoding": "deflate"})

    def heat(self, asked: Request) -> Answer:
        """Where other views disagree with a view, as a picture."""
        number, name = self._view(asked)
        path = self.run.files.heat / f"{name}.png"
        if not path.is_file():
            raise Refused(HTTPStatus.NOT_FOUND, f"the run has no heat map of view {name}")
        with opened_picture(path, error=InputError) as stored:
            index = np.array(stored)
        below = None
        if self.run.scene.views[number].depth_camera is None:
            try:
                below = self._image(number)
            except InputError:
                below = None  # the pictures were moved; the heat map is in the run itself
        return _encoded(heat_picture(index, below), "png", compress_level=1)

    def picture(self, asked: Request) -> Answer:
        """An object cut out of the view that shows it best."""
        which = asked.numbers[0]
        self.edits.object(which)  # InputError where there is none
        key = which, self.seen.changed(which)
        if key not in self._pictures:
            best = self.seen.best(which)
            if best is None:
                raise Refused(HTTPStatus.NOT_FOUND, f"no view shows object {which}")
            camera = self.cameras[best.view]
            try:
                image = self._image(best.view)
            except InputError:
                image = np.full((camera.height, camera.width, 3), BACKGROUND, np.uint8)
            labels = self.edits.label_map(self.names[best.view])
            shown = cut_out(image, labels, which, best.box, self.edits.palette)
            self._pictures[key] = _encoded(shown, "webp", quality=72, method=2)
        return self._pictures[key]

    # Between the cloud and the views.

    def at(self, asked: Request) -> Answer:
        """The point in front at a pixel of a view: its place in the order sent, and its position.

        Empty where there is none.
        """
        number = int(asked.number("view", 0, len(self.names) - 1))
        camera = self.cameras[number]
        xy = asked.number("x", 0, camera.width - 1), asked.number("y", 0, camera.height - 1)
        point = self.edits.point_at(self.names[number], xy)
        if point is None:
            return json_answer({})
        return json_answer(self._described(int(point)))

    def _described(self, point: int) -> dict[str, Any]:
        return {
            "point": int(self.place_of[point]),
            "index": point,
            "xyz": self.run.points.xyz[point].tolist(),
            "id": int(self.edits.label[point]),
        }

    def place(self, asked: Request) -> Answer:
        """The views that show a point, the best first, with its pixel."""
        place = int(asked.number("point", 0, len(self.packed.order) - 1))
        shown = self.seen.views_of_point(int(self.packed.order[place]))
        return json_answer([{"view": view, "x": x, "y": y} for view, x, y in shown])

    def views_of(self, asked: Request) -> Answer:
        """The views that show any of the objects `?ids=1,2`: number of points, and agreement."""
        try:
            ids = [int(each) for each in asked.query.get("ids", "").split(",") if each]
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "?ids= takes numbers: 1,2") from None
        agreement = self._agreement_of_views()
        shown = [
            {"view": view, "points": points, "agreement": agreement[view]}
            for view, points in self.seen.views_of_objects(ids)
        ]
        return json_answer({"ready": self.seen.ready, "views": shown})


def _encoded(image: Image, kind: str, **options: Any) -> Answer:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(image).save(stream, kind, **options)
    return Answer(stream.getvalue(), f"image/{kind}")
