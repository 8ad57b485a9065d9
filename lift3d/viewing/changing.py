"""What the page may do to a run: edits, previews of edits, proposals; the POST routes."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.correction.clicks.boxing import Boxes
from lift3d.correction.clicks.pointing import Click, PointClick
from lift3d.correction.proposals import Proposal
from lift3d.geometry.lens import rays_at
from lift3d.run.session import Conflict
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter
from lift3d.viewing.ahead import Ahead
from lift3d.viewing.server import Answer, Refused, Request, Route, json_answer
from lift3d.viewing.showing import Showing

PROPOSALS = 32
"""Proposals that are remembered until they are accepted."""
Body = Mapping[str, Any]


class Changing:
    """The routes that change a session's run."""

    def __init__(self, session: Showing, segmenter: Segmenter | None = None) -> None:
        """`segmenter` answers clicks in pictures; without one the tree of joins does."""
        self.session, self.edits = session, session.edits
        self.segmenter = None
        if segmenter is not None:
            self.segmenter = Ahead(segmenter, session.run.scene.views, self._tell_ready)
        self._proposals: dict[str, Proposal] = {}
        self._growing: dict[str, Iterator[Proposal]] = {}
        self._clicks = threading.Lock()
        self._preparing = False
        self._count = 0

    @property
    def routes(self) -> dict[str, Route]:
        """Method and path -> what answers it."""
        found: dict[str, Route] = {
            "POST /api/edit": self.edit,
            "POST /api/preview": self.preview,
        }
        alone = {key: self.session.alone(route) for key, route in found.items()}
        free: dict[str, Route] = {"POST /api/propose": self.propose, "POST /api/save": self.save}
        return alone | free | {"POST /api/look": self.look}

    def close(self) -> None:
        """Encode no more views."""
        if self.segmenter is not None:
            self.segmenter.close()

    def look(self, asked: Request) -> Answer:
        """A view is looked at: where a segmenter answers clicks it is encoded, with its neighbours.

        Answers which views are encoded; events tell when there are more.
        """
        number = self._view(asked.body)
        if self.segmenter is None:
            return json_answer({})
        self.segmenter.look(number)
        return json_answer(self.segmenter.state)

    def _tell_ready(self) -> None:
        if self.segmenter is not None:
            self.session.events.send({"clicks": self.segmenter.state})

    def edit(self, asked: Request) -> Answer:
        """Do one edit; it is on the disk when this is answered. 409 where its objects changed."""
        body = asked.body
        make = self._edits.get(value(body, "do", str))
        if make is None:
            raise Refused(HTTPStatus.BAD_REQUEST, f"there is no edit {body['do']!r}")
        on = body.get("on")
        told: dict[str, Any] = {"who": asked.who or "someone"}
        if isinstance(on, int) and body["do"] not in ("undo", "redo"):
            told["on"] = on
        try:
            kept = make(body)(**told)
        except Conflict as error:
            raise Refused(HTTPStatus.CONFLICT, str(error)) from error
        self.session.edited()
        several = kept if isinstance(kept, tuple) else (kept,)
        kept = several[-1]
        text = str(kept.edit) + (f", and {len(several) - 1} more" if several[1:] else "")
        self.session.events.send(
            {"revision": kept.revision, "who": kept.edit.who, "person": asked.who, "text": text}
        )
        return json_answer({"revision": kept.revision, "n": kept.edit.n, "text": text})

    @property
    def _edits(self) -> dict[str, Callable[[Body], Callable[..., Any]]]:
        """Name of an edit -> from a body, a call that waits for `who` and `on`."""
        edits = self.edits

        def call(method: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
            return lambda **told: method(*arguments, **named, **told)

        return {
            "merge": lambda b: call(edits.merge, ids_of(b), optional(b, "into")),
            "split": lambda b: call(
                edits.split, value(b, "id", int), self._clicked(b), b.get("groups")
            ),
            "cut": lambda b: call(edits.cut, value(b, "id", int), self._plane(b)),
            "separate": lambda b: call(edits.separate, value(b, "id", int)),
            "name": lambda b: call(edits.name, value(b, "id", int), value(b, "name", str)),
            "classify": lambda b: call(
                edits.classify, value(b, "id", int), value(b, "class_name", str)
            ),
            "colour": lambda b: call(edits.colour, value(b, "id", int), value(b, "colour", str)),
            "delete": lambda b: call(edits.delete, ids_of(b), to=value(b, "to", str)),
            "accept": lambda b: call(edits.accept, ids_of(b)),
            "lock": lambda b: call(edits.lock, ids_of(b)),
            "unlock": lambda b: call(edits.unlock, ids_of(b)),
            "divide": lambda b: call(edits.divide, value(b, "id", int), value(b, "count", int)),
            "paint": lambda b: call(
                edits.paint,
                *self._painted(b),
                optional(b, "id"),
                everywhere=b.get("everywhere") is not False,
            ),
            "select": lambda b: call(edits.select, self._points(b), optional(b, "id")),
            "segment": lambda b: call(edits.segment, self._proposal(b), optional(b, "id")),
            "accept_proposal": lambda b: self._accepted(value(b, "key", str)),
            "undo": lambda b: call(edits.undo, optional(b, "n")),
            "redo": lambda b: call(edits.redo, optional(b, "n")),
            "settle": lambda b: call(edits.settle, value(b, "n", int), b.get("ids")),
        }

    def _accepted(self, key: str) -> Callable[..., Any]:
        """The proposal of an entry of the queue."""
        name, arguments = self._queued(key)
        method = getattr(self.edits, name)
        return lambda **told: method(**arguments, **told)

    def _queued(self, key: str) -> tuple[str, Mapping[str, Any]]:
        found = next((each for each in self.edits.queue() if each.key == key), None)
        if found is None or found.proposal is None:
            raise InputError("that is not in the queue any more")
        return found.proposal

    def preview(self, asked: Request) -> Answer:
        """The parts that an edit would make, each as places of points."""
        body, edits = asked.body, self.edits
        do = value(body, "do", str)
        if do == "paint":
            under = edits.under(*self._painted(body))
            shown = self.session.seen.views_of_points(under)
            return json_answer({"parts": [self._part(under)], "shown": shown})
        if do == "select":
            chosen = self._points(body)
            shown = self.session.seen.views_of_points(chosen)
            return json_answer({"count": len(chosen), "shown": shown})
        if do == "prepare":
            edits.prepare_split(value(body, "id", int))
            return json_answer({"parts": []})
        if do == "split":
            clicks = self._clicked(body)
            parts = edits.parts(value(body, "id", int), clicks, body.get("groups"))
        elif do == "proposal":
            name, arguments = self._queued(value(body, "key", str))
            if name != "split":
                raise Refused(HTTPStatus.BAD_REQUEST, f"there is no preview of {name!r}")
            parts = edits.parts(**arguments)
        elif do == "cut":
            parts = edits.cut_parts(value(body, "id", int), self._plane(body))
        elif do == "divide":
            parts = edits.divided_parts(value(body, "id", int), value(body, "count", int))
        elif do == "separate":
            parts = edits.separate_parts(value(body, "id", int))
        else:
            raise Refused(HTTPStatus.BAD_REQUEST, f"there is no preview of {do!r}")
        numbers_of_parts = range(int(parts.part.max(initial=-1)) + 1)
        listed = [self._part(parts.index[parts.part == each]) for each in numbers_of_parts]
        shown = self.session.seen.views_of_points(parts.index)
        told: dict[str, Any] = {"parts": listed, "shown": shown}
        if do == "split":
            # Parts are numbered by size: tell which part each click is in, for its colour.
            xyz = self.session.run.points.take(parts.index).world
            nearest = [int(((xyz - click) ** 2).sum(1).argmin()) for click in clicks]
            told["of_click"] = parts.part[nearest].tolist()
        return json_answer(told)

    def propose(self, asked: Request) -> Answer:
        """An object from one click; accepted with the edit `segment`.

        A segmenter goes on with other views each time that its proposal's key is asked for again.
        Others need not wait for it.
        """
        with self._clicks:
            body = asked.body
            if "more" in body:
                key = value(body, "more", str)
                found = next(self._growing.get(key, iter(())), self._proposal({"key": key}))
            else:
                self._count += 1
                key = str(self._count)
                clicks, boxes, level = self._prompts(body)
                # A first prompt in a picture is for the segmenter, with all further ones.
                if self.segmenter is not None and (boxes or isinstance(clicks[0], Click)):
                    self._growing[key] = self.edits.propose_segmented(
                        clicks, self.segmenter, level=level, boxes=boxes
                    )
                    found = next(self._growing[key])
                else:
                    found = self._by_tree(body, clicks, boxes, level)
            self._proposals[key] = found
            for old in list(self._proposals)[:-PROPOSALS]:
                del self._proposals[old]
                self._growing.pop(old, None)
        told = {"key": key, "level": found.level, "levels": found.levels, "score": found.score}
        return json_answer(
            {
                **told,
                "views": found.views,
                "of": found.of,
                "shown": self.session.seen.views_of_points(found.points),
                **self._part(found.points),
            }
        )

    def _prompts(self, body: Body) -> tuple[list[Click | PointClick], Boxes, int | None]:
        """The clicks in their order, a box by its view, and the level."""
        told = value(body, "clicks", list)
        if not all(isinstance(each, dict) for each in told):
            raise Refused(HTTPStatus.BAD_REQUEST, "clicks are objects")
        boxes = {}
        if "box" in body:
            boxes[self.session.names[self._view(body)]] = np.array(numbers(body, "box", 4))
        if not told and not boxes:
            raise Refused(HTTPStatus.BAD_REQUEST, "a click or a box is needed")
        return [self._click(each) for each in told], boxes, optional(body, "level")

    def _by_tree(
        self, body: Body, clicks: Sequence[Click | PointClick], boxes: Boxes, level: int | None
    ) -> Proposal:
        """One click on a point is looked up in the tree and needs no view; further ones correct."""
        if boxes or len(clicks) > 1 or "point" not in body["clicks"][0]:
            return self.edits.propose_clicks(clicks, None if boxes else level, boxes)
        if not self._preparing:
            self._preparing = True
            threading.Thread(target=self._prepare, daemon=True).start()
        return self.edits.propose_tree(self._point(body["clicks"][0]), level)

    def _prepare(self) -> None:
        """What the first correction would wait for, while the person looks at the proposal."""
        with contextlib.suppress(InputError):  # the correction says it
            self.edits.prepare_click()

    def _click(self, told: Body) -> Click | PointClick:
        """A click in a view, if one is named, or on a point of the cloud."""
        positive = value(told, "positive", bool)
        if "view" not in told:
            return PointClick(self._point(told), positive)
        xy = np.array(numbers(told, "xy", 2))
        return Click(self.session.names[self._view(told)], xy, positive)

    def _point(self, told: Body) -> int:
        return int(self.session.packed.order[self._place(value(told, "point", int))])

    def save(self, asked: Request) -> Answer:
        """Write the public files: cloud, label maps, objects; then scores and report.

        Takes long; others may look and edit meanwhile.
        """
        saved = self.edits.save()
        text = "written: " + ", ".join(saved.done)
        if saved.waiting:
            text += f"; waiting: {', '.join(saved.waiting)} ({saved.reason})"
        self.session.events.send({"again": True, "who": asked.who, "person": asked.who})
        return json_answer({"text": text})

    # From what the page sends.

    def _part(self, index: Int64[np.ndarray, " points"]) -> dict[str, Any]:
        """Number of points, and the places of those that the page has."""
        place = self.session.place_of[index]
        sent = place[place >= 0].astype(np.uint32)
        return {"count": len(index), "points": base64.b64encode(sent.tobytes()).decode()}

    def _place(self, place: object) -> int:
        if not isinstance(place, int) or not 0 <= place < len(self.session.packed.order):
            raise Refused(HTTPStatus.BAD_REQUEST, "there is no such point")
        return place

    def _points(self, body: Body) -> Int64[np.ndarray, " points"]:
        """Points of the cloud from base64 of uint32; those that the page lacks follow."""
        try:
            places = np.frombuffer(
                base64.b64decode(value(body, "points", str), validate=True), np.uint32
            ).astype(np.int64)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "points are base64 of uint32") from None
        if len(places) and places.max() >= len(self.session.packed.order):
            raise Refused(HTTPStatus.BAD_REQUEST, "there is no such point")
        return self.session.with_followers(places)

    def _view(self, body: Body) -> int:
        number: int = value(body, "view", int)
        if not 0 <= number < len(self.session.names):
            raise IndexError(number)
        return number

    def _painted(self, body: Body) -> tuple[str, Bool[np.ndarray, "height width"]]:
        """A view's name, and its painted pixels from runs [start, length, ...]."""
        number = self._view(body)
        camera = self.session.cameras[number]
        mask = np.zeros(camera.height * camera.width, bool)
        runs = value(body, "runs", list)
        if len(runs) % 2 or not all(isinstance(each, int) for each in runs):
            raise Refused(HTTPStatus.BAD_REQUEST, "runs are pairs of a start and a length")
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            if start < 0 or length < 0 or start + length > mask.size:
                raise Refused(HTTPStatus.BAD_REQUEST, "a run is outside the picture")
            mask[start : start + length] = True
        return self.session.names[number], mask.reshape(camera.height, camera.width)

    def _clicked(self, body: Body) -> Float64[np.ndarray, "clicks 3"]:
        """Places of the world, from places of the page."""
        clicks = [numbers({"a click": each}, "a click", 3) for each in value(body, "clicks", list)]
        return np.array(clicks).reshape(-1, 3) + self.edits.offset

    def _plane(self, body: Body) -> list[float]:
        """A plane of the world: one of the page, or that through a view's camera and a `line` of
        two pixels in its picture.
        """
        if "line" in body:
            return self._plane_through(body)
        *normal, constant = numbers(body, "plane", 4)
        return [*normal, constant - float(np.dot(normal, self.edits.offset))]

    def _plane_through(self, body: Body) -> list[float]:
        camera = self.session.cameras[self._view(body)]
        ends = [numbers({"a pixel": each}, "a pixel", 2) for each in value(body, "line", list)]
        if len(ends) != 2 or ends[0] == ends[1]:
            raise Refused(HTTPStatus.BAD_REQUEST, "a line is two different pixels")
        turn, eye = camera.pose[:3, :3], camera.pose[:3, 3] + self.edits.offset
        normal = np.cross(*(rays_at(camera, *np.array(ends).T) @ turn.T))
        normal /= np.linalg.norm(normal)
        return [*normal.tolist(), -float(normal @ eye)]

    def _proposal(self, body: Body) -> Proposal:
        key = value(body, "key", str)
        if key not in self._proposals:
            raise InputError("the proposal is too old; click again")
        return self._proposals[key]


def value(body: Body, name: str, kind: type) -> Any:
    """A value of a request's body; Refused where it is missing or of another type."""
    found = body.get(name)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body lacks {name}, or it has another type")
    return found


def optional(body: Body, name: str) -> int | None:
    """A whole number of a request's body, or None."""
    return None if body.get(name) is None else int(value(body, name, int))


def ids_of(body: Body) -> list[int]:
    """The ids of objects."""
    ids = value(body, "ids", list)
    if not all(isinstance(each, int) for each in ids):
        raise Refused(HTTPStatus.BAD_REQUEST, "ids are whole numbers")
    return ids


def numbers(body: Body, name: str, count: int) -> list[float]:
    """So many finite numbers."""
    found = value(body, name, list)
    if len(found) != count or not all(
        isinstance(each, int | float) and np.isfinite(each) for each in found
    ):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} are {count} numbers")
    return [float(each) for each in found]
