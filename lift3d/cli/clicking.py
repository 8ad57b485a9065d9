"""The words of `lift3d click`: prompts by view, and what is printed of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lift3d.cli.editing import numbers
from lift3d.correction.clicks.answering import Prompts
from lift3d.networks.clip import TextConfig
from lift3d.run.prompting import (
    Answered,
    clickable,
    open_mvsam,
    prompt_of,
    read_prompts,
    segmenter_of,
)
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene.errors import InputError
from lift3d.scene.progress import for_terminal

if TYPE_CHECKING:
    from lift3d.cli.commands import Click


def perform(asked: Click, log: Callable[[str], None]) -> Answered:
    """Answer the prompts, write the files, and print in how many views the object is."""
    objects = prompts_of(asked)
    if not objects and asked.text is None:
        raise InputError("nothing is asked for: give --view and --at X,Y, or --text WORD")
    if asked.clip is not None and asked.text is None:
        raise InputError("--clip compares words with the objects of a run; give --text WORDS too")
    config = LiftConfig(
        asked.input,
        asked.out,
        voxel=asked.voxel,
        views=asked.views,
        stride=asked.stride,
        reader=asked.reader,
        reconstruction=asked.reconstruction,
        segmentation=asked.segmentation,
    )
    ready = clickable(asked.input, config, for_terminal())
    if asked.keep and ready.kind != "run":
        raise InputError("--keep makes an object of a run, and this is none; lift it first")
    network = None if asked.mvsam is None else open_mvsam(asked.mvsam)
    segmenter = segmenter_of(asked.segmentation)
    scorer = None if asked.clip is None else TextConfig(asked.clip).build()
    found = ready.prompt(objects, segmenter, asked.text, network=network, scorer=scorer)
    for number, shown in enumerate(found.write(asked.out)):
        if not len(found.points(number)) and not shown:
            log(f"object {number + 1}: nothing was measured where the prompts are; try elsewhere")
            continue
        log(
            f"object {number + 1}: {len(found.points(number)):,} points, in {shown} of "
            f"{len(ready.place.views)} views; {found.seconds['answer']:.2f} s after "
            f"{found.seconds['prepare']:.1f} s to prepare"
        )
    log(str(asked.out))
    if asked.keep:
        log(f"in the run: object {', '.join(map(str, found.keep(Run.open(asked.input))))}")
    return found


def prompts_of(asked: Click) -> list[Prompts]:
    """The prompts of each object, by view."""
    if asked.prompts is not None:
        if asked.at or asked.not_ or asked.box or asked.mask:
            raise InputError("--prompts has all prompts; leave out --at, --not, --box and --mask")
        return [each for each in read_prompts(asked.prompts) if each]
    on, beside = _by_view(asked.at, asked.view, "--at"), _by_view(asked.not_, asked.view, "--not")
    views = [*on, *beside]
    if asked.box is not None or asked.mask is not None:
        if asked.view is None:
            raise InputError("--box and --mask need --view, the name of their view")
        views.append(asked.view)
    box = None if asked.box is None else numbers(asked.box, 4, "--box", "210,120,370,345")

    def prompt(name: str) -> tuple[list[float] | None, Path | None]:
        return (box, asked.mask) if name == asked.view else (None, None)

    table: Prompts = {
        name: prompt_of(on.get(name, ()), beside.get(name, ()), *prompt(name))
        for name in dict.fromkeys(views)
    }
    return [table] if table else []


def _by_view(words: Sequence[str], view: str | None, option: str) -> dict[str, list[list[float]]]:
    """Pixels by view; `VIEW:X,Y` names its own view."""
    found: dict[str, list[list[float]]] = {}
    for word in words:
        name, colon, pixel = word.rpartition(":")
        own = name if colon else view
        if own is None:
            raise InputError(f"{option} {word} needs --view, the name of its view, or VIEW:X,Y")
        found.setdefault(own, []).append(numbers(pixel, 2, option, "412,230"))
    return found
