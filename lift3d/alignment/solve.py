"""The stages of global alignment, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.alignment.canonical import Canonical, canonical
from lift3d.alignment.dense import corrected
from lift3d.alignment.inputs import (
    UNKNOWN,
    Aligned,
    AlignmentConfig,
    Known,
    PairPrediction,
    Predictions,
)
from lift3d.alignment.refine import PARAMETERS, Looks, Prior, State, refine
from lift3d.alignment.relative import Frame, Relative, best_relative, checked, propose
from lift3d.alignment.view_graph import Layout, lay_out
from lift3d.errors import InputError
from lift3d.scene import Matches

FOCAL_SIGMA = 0.03
"""How far, relatively, the focal length that the point maps imply may be wrong."""
SURE = (0.0, 0.2, 0.35)
"""Least shares of matches that confirm a pair, for the layouts that are tried."""
COMMON = 2.0
"""Errors of neighbouring cells go together, so each tells less than it seems."""

Pair = tuple[int, int]


def align(
    shapes: Sequence[tuple[int, int]],
    predictions: Predictions,
    matches: Mapping[Pair, Matches],
    known: Sequence[Known] | None = None,
    config: AlignmentConfig = AlignmentConfig(),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Aligned:
    """Cameras and depth that the predictions and matches of image pairs agree on.

    `shapes` are height and width of the images; `matches` are of pairs (a, b) with a < b.
    `known` says what is known of each image. The world's unit is that of the known poses or
    depth, else that of the predictions (metres with a metric checkpoint), its frame that of the
    known poses, else of the first image that is used.

    Each image's depth and focal length are averaged from its predictions; pairs are turned into
    similarities and checked by their matches; rotations, scales and positions are averaged over
    the graph of pairs; then everything is refined against the matches, and the depth maps are
    brought to the result. Raises InputError where no two images can be aligned.
    """
    known = [UNKNOWN] * len(shapes) if known is None else list(known)
    if len(known) != len(shapes):
        raise InputError(f"{len(known)} entries of what is known for {len(shapes)} images")
    matches = {pair: _unmasked(each, known, pair) for pair, each in matches.items()}
    told = _Teller(progress, len(shapes) + len(matches) + config.iterations)
    context = _Context(shapes, predictions, matches, known, config, seed)
    frames, scales = _frames(context, told)
    pairs = _pairs(list(matches), frames, scales, context, told)
    pairs = _reconsidered(pairs, frames, scales, context)
    if not pairs:
        raise InputError(
            "no two images could be aligned: no pair has "
            f"{config.min_matches} matches that agree with its geometry; do the pictures overlap?"
        )
    layout = _best_layout(pairs, frames, context)
    admitted = [pair for pair, agreeing in _agreeing(layout, frames, context).items() if agreeing]
    state = _start(layout, frames, known, config.shared_focal)
    cells = _Cells(shapes, layout.members, _cell_size(config, layout.members))
    looks = _looks(admitted, frames, matches, cells)
    prior = _prior(state, frames, known, layout.members, cells, config.shared_focal)
    state, reprojection, information = refine(
        state, looks, prior, config.iterations, told.from_here()
    )
    factor = _unit(state, frames, known, layout.members)
    return _finished(layout, state, frames, shapes, known, cells, information, factor, reprojection)


class _Teller:
    """Progress over stages of different kinds."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def tick(self) -> None:
        """One more is done."""
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def from_here(self) -> Callable[[int, int], None]:
        """For a stage that counts itself."""
        base = self._done

        def told(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(min(base + done, self._total), self._total)

        return told


def _unmasked(matches: Matches, known: Sequence[Known], pair: Pair) -> Matches:
    """Matches without those on ignored pixels."""
    keep = np.ones(len(matches), bool)
    for image, xy in zip(pair, (matches.xy_in_a, matches.xy_in_b), strict=True):
        ignored = known[image].ignored
        if ignored is not None:
            column, row = np.rint(xy).astype(np.intp).T
            keep &= ~ignored[row, column]
    if keep.all():
        return matches
    return Matches(matches.xy_in_a[keep], matches.xy_in_b[keep], matches.confidence[keep])


@dataclass(frozen=True, eq=False)
class _Context:
    """What `align` was given."""

    shapes: Sequence[tuple[int, int]]
    predictions: Predictions
    matches: Mapping[Pair, Matches]
    known: Sequence[Known]
    config: AlignmentConfig
    seed: int


def _frames(
    context: _Context, told: _Teller
) -> tuple[list[Frame | None], dict[Pair, float | None]]:
    """Each image's own geometry; and each prediction's log scale, None where it strays."""
    frames: list[Frame | None] = []
    scales: dict[Pair, float | None] = {}
    by_image: dict[int, list[Pair]] = {image: [] for image in range(len(context.shapes))}
    for pair in context.predictions:
        by_image[pair[0]].append(pair)
    for image, mine in by_image.items():
        frame, own_scales = _frame(image, mine, context)
        frames.append(frame)
        scales |= own_scales
        told.tick()
    return frames, scales


def _frame(
    image: int, predicted: Sequence[Pair], context: _Context
) -> tuple[Frame | None, dict[Pair, float | None]]:
    """One image's geometry, averaged from these predictions of it; and the log scale of each."""
    config, matches = context.config, context.matches
    mine = sorted(predicted, key=lambda pair: (-len(matches.get((min(pair), max(pair)), ())), pair))
    dense: list[tuple[Pair, PairPrediction]] = []
    others: list[tuple[Pair, PairPrediction]] = []
    for pair in mine:
        each = context.predictions[pair]
        if each.step_a == 1 and len(dense) < config.predictions_per_image:
            dense.append((pair, each))
        else:
            others.append((pair, each.condensed(dense=False)))
    if not dense:
        return None, {}
    (height, width), about = context.shapes[image], context.known[image]
    centre, focal = np.array([(width - 1) / 2, (height - 1) / 2]), None
    if about.K is not None:
        centre, focal = about.K[:2, 2], float(np.sqrt(about.K[0, 0] * about.K[1, 1]))
    own = canonical(
        [each.points_a for _, each in dense],
        [each.confidence_a for _, each in dense],
        centre,
        focal,
    )
    own = _with_known(own, about)
    scales: dict[Pair, float | None] = {
        pair: None if stray else float(scale)
        for (pair, _), scale, stray in zip(dense, own.log_scale, own.stray, strict=True)
    }
    scales |= {pair: own.scale_of(each.points_a, each.step_a) for pair, each in others}
    return Frame(own, centre), scales


def _reconsidered(
    pairs: list[Relative],
    frames: list[Frame | None],
    scales: dict[Pair, float | None],
    context: _Context,
) -> list[Relative]:
    """The pairs, after images whose predictions fall apart took the part that matches support.

    The largest part may be the wrong one where many pairs are wrong. `frames` and `scales` of
    such images are replaced.
    """
    for image in range(len(frames)):
        strays = [pair for pair, scale in scales.items() if pair[0] == image and scale is None]
        if not strays:
            continue
        other, other_scales = _frame(image, strays, context)
        if other is None:
            continue
        around = [pair for pair in context.matches if image in pair]
        trial = list(frames)
        trial[image] = other
        rest = {pair: None for pair in scales if pair[0] == image}
        found = _pairs(around, trial, scales | rest | other_scales, context)
        now = [pair for pair in pairs if image in (pair.a, pair.b)]
        if sum(pair.agreeing for pair in found) > 1.2 * sum(pair.agreeing for pair in now):
            frames[image] = other
            scales |= rest | other_scales
            pairs = [pair for pair in pairs if image not in (pair.a, pair.b)] + found
    return pairs


def _with_known(own: Canonical, about: Known) -> Canonical:
    """The same with what is known of the depth in its place, and nothing where it is ignored."""
    if about.depth is not None:
        there = (about.depth > 0) & (own.depth > 0)
        if there.any():
            shift = float(np.median(np.log(about.depth[there] / own.depth[there])))
            depth = np.where(about.depth > 0, about.depth, own.depth * np.float32(np.exp(shift)))
            own = replace(
                own,
                depth=depth.astype(np.float32),
                log_scale=own.log_scale - shift,
                sigma=max(about.depth_sigma, 1e-6),
            )
    if about.ignored is not None:
        own = replace(
            own,
            depth=np.where(about.ignored, np.float32(0), own.depth),
            confidence=np.where(about.ignored, np.float32(0), own.confidence),
        )
    return own


def _pairs(
    candidates: Sequence[Pair],
    frames: list[Frame | None],
    scales: dict[Pair, float | None],
    context: _Context,
    told: _Teller | None = None,
) -> list[Relative]:
    """Those of the candidates whose geometry enough of their matches confirm."""
    config, predictions = context.config, context.predictions
    found = []
    for a, b in candidates:
        if told is not None:
            told.tick()
        of_a, of_b, each = frames[a], frames[b], context.matches[a, b]
        if of_a is None or of_b is None or len(each) < config.min_matches:
            continue
        proposals = []
        for one, other, of_other in ((a, b, of_b), (b, a, of_a)):
            scale = scales.get((one, other))
            if scale is not None:
                pair = propose(predictions[one, other], scale, one, other, of_other)
                proposals.append(pair if one == a else pair.inverse())
        best = best_relative(a, b, proposals, of_a, of_b, each, context.seed)
        if best.agreeing >= config.min_matches and best.share >= config.min_share:
            found.append(best)
    return found


def _start(
    layout: Layout, frames: list[Frame | None], known: Sequence[Known], shared_focal: bool
) -> State:
    """The layout in the frame and unit of what is known."""
    focal = np.array([1.0 if frame is None else frame.own.focal for frame in frames])
    log_focal = np.log(focal)
    if shared_focal:
        log_focal[:] = np.median(log_focal[layout.members])
    state = State(
        layout.rotation.copy(), layout.position.copy(), log_focal, layout.log_scale.copy(),
        np.zeros(0),
    )  # fmt: skip
    measured = [i for i in layout.members if known[i].depth is not None]
    posed = [i for i in layout.members if known[i].world_from_camera is not None]
    if measured:
        _rescale(state, -float(np.median(state.log_scale[measured])))
    if posed:
        _move_to(state, posed, known, rescale=len(posed) > 1 and not measured)
    elif layout.members:
        first = layout.members[0]
        turn, at = state.rotation[first].T.copy(), state.position[first].copy()
        state.rotation = turn @ state.rotation
        state.position = (state.position - at) @ turn.T
    if measured:
        state.log_scale[measured] = 0.0
    return state


def _rescale(state: State, log_factor: float) -> None:
    state.position *= np.exp(log_factor)
    state.log_scale += log_factor


def _move_to(state: State, posed: list[int], known: Sequence[Known], rescale: bool) -> None:
    """Turn, scale and shift so that the known cameras lie where they are; then put them there."""
    poses = np.array([known[i].world_from_camera for i in posed])
    left, _, right = np.linalg.svd((poses[:, :3, :3] @ state.rotation[posed].mT).sum(0))
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    if rescale:
        there = np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(0), axis=1)
        here = np.linalg.norm(state.position[posed] - state.position[posed].mean(0), axis=1)
        if here.sum() > 0 and there.sum() > 0:
            _rescale(state, float(np.log(there.sum() / here.sum())))
    state.rotation = turn @ state.rotation
    state.position = state.position @ turn.T
    state.position += poses[:, :3, 3].mean(0) - state.position[posed].mean(0)
    state.rotation[posed] = poses[:, :3, :3]
    state.position[posed] = poses[:, :3, 3]


def _best_layout(pairs: list[Relative], frames: list[Frame | None], context: _Context) -> Layout:
    """Of layouts by all pairs and by the surer ones alone, what most matches agree with.

    Where many pairs are wrong, those that few of their matches confirm may outvote the others.
    """
    best, most = None, -1
    for least in SURE:
        sure = [pair for pair in pairs if pair.share >= least]
        if not sure:
            break
        layout = lay_out(len(frames), sure)
        agreeing = sum(_agreeing(layout, frames, context).values())
        if agreeing > most:
            best, most = layout, agreeing
    assert best is not None
    return best


def _agreeing(layout: Layout, frames: list[Frame | None], context: _Context) -> dict[Pair, int]:
    """How many matches of each pair agree with the layout; 0 where too few do.

    Pairs that did not confirm their own geometry, or contradict the others, may all the same.
    """
    config, members = context.config, set(layout.members)
    counts = {}
    for (a, b), each in context.matches.items():
        of_a, of_b = frames[a], frames[b]
        if not {a, b} <= members or of_a is None or of_b is None:
            continue
        to_a = layout.rotation[a].T
        pair = Relative(
            a,
            b,
            float(np.exp(layout.log_scale[b] - layout.log_scale[a])),
            to_a @ layout.rotation[b],
            to_a @ (layout.position[b] - layout.position[a]) / np.exp(layout.log_scale[a]),
        )
        pair, _ = checked(pair, of_a, of_b, each)
        enough = pair.agreeing >= config.min_matches and pair.share >= config.min_share
        counts[a, b] = pair.agreeing if enough else 0
    return counts


def _cell_size(config: AlignmentConfig, members: list[int]) -> int:
    """Coarser where many images would make the refinement long."""
    return config.cell * (1 if len(members) <= 60 else 2)


class _Cells:
    """The grids of all images, numbered through."""

    def __init__(
        self, shapes: Sequence[tuple[int, int]], members: Sequence[int], size: int
    ) -> None:
        self.size = size
        self.grids: dict[int, tuple[int, int]] = {}
        self.first: dict[int, int] = {}
        self.count = 0
        for image in members:
            height, width = shapes[image]
            self.grids[image] = (-(-height // size), -(-width // size))
            self.first[image] = self.count
            self.count += self.grids[image][0] * self.grids[image][1]

    def at(self, image: int, xy: Float64[np.ndarray, "pixels 2"]) -> Int64[np.ndarray, " pixels"]:
        """The cell of each pixel."""
        column, row = np.rint(xy).astype(np.int64).T // self.size
        return self.first[image] + row * self.grids[image][1] + column

    def of(self, image: int, values: np.ndarray) -> np.ndarray:
        """One image's part of an array over all cells, as its grid."""
        rows, columns = self.grids[image]
        first = self.first[image]
        return values[first : first + rows * columns].reshape(rows, columns)


def _looks(
    pairs: list[Pair],
    frames: list[Frame | None],
    matches: Mapping[Pair, Matches],
    cells: _Cells,
) -> Looks:
    """Every match from both sides."""
    parts: list[tuple[np.ndarray, ...]] = []
    for a, b in pairs:
        each = matches[a, b]
        xy_a, xy_b = each.xy_in_a.astype(np.float64), each.xy_in_b.astype(np.float64)
        for i, j, xy, there in ((a, b, xy_a, xy_b), (b, a, xy_b, xy_a)):
            of_i, of_j = frames[i], frames[j]
            assert of_i is not None
            assert of_j is not None
            xyz, seen = of_i.lift(xy)
            parts.append(
                (
                    cells.at(i, xy)[seen],
                    np.full(seen.sum(), i, np.int32),
                    np.full(seen.sum(), j, np.int32),
                    (xy - of_i.centre)[seen],
                    np.log(xyz[seen, 2]),
                    (there - of_j.centre)[seen],
                    each.confidence[seen].astype(np.float64),
                )
            )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Looks(*(np.ascontiguousarray(column[order]) for column in columns))


def _prior(
    state: State,
    frames: list[Frame | None],
    known: Sequence[Known],
    members: list[int],
    cells: _Cells,
    shared_focal: bool,
) -> Prior:
    images = len(frames)
    state.correction = np.zeros(cells.count)
    cell_weight = np.zeros(cells.count)
    frozen = np.ones((images, PARAMETERS), bool)
    weight = np.zeros((images, PARAMETERS))
    fixed_unit = fixed_place = False
    posed = 0
    for image in members:
        frame, about = frames[image], known[image]
        assert frame is not None
        cells.of(image, cell_weight)[:] = 1 / (COMMON * frame.own.sigma) ** 2
        frozen[image] = False
        for columns, given, sigma in (
            (slice(0, 3), about.world_from_camera is not None, about.rotation_sigma),
            (slice(3, 6), about.world_from_camera is not None, about.position_sigma),
            (slice(6, 7), about.K is not None, about.focal_sigma),
        ):
            if given:
                frozen[image, columns] = sigma == 0
                weight[image, columns] = 0 if sigma == 0 else 1 / sigma**2
        if about.K is None:
            weight[image, 6] = 1 / FOCAL_SIGMA**2
        if about.depth is not None:
            frozen[image, 7] = fixed_unit = True
        if about.world_from_camera is not None:
            fixed_place = True
            posed += 1
    if not fixed_place:
        frozen[members[0], :6] = True
    if not fixed_unit and posed < 2:
        frozen[members[0], 7] = True
    target = State(
        state.rotation.copy(), state.position.copy(), state.log_focal.copy(),
        state.log_scale.copy(), np.zeros(0),
    )  # fmt: skip
    return Prior(cell_weight, frozen, target, weight, shared_focal)


def _unit(
    state: State, frames: list[Frame | None], known: Sequence[Known], members: list[int]
) -> float:
    """What brings the world to the predictions' unit; 1 where poses or depth have set it."""
    posed = sum(known[i].world_from_camera is not None for i in members)
    if posed > 1 or any(known[i].depth is not None for i in members):
        return 1.0
    ratios = []
    for image in members:
        frame = frames[image]
        assert frame is not None
        ratios.append(frame.own.log_scale[~frame.own.stray] - state.log_scale[image])
    return float(np.exp(np.median(np.concatenate(ratios))))


def _finished(
    layout: Layout,
    state: State,
    frames: list[Frame | None],
    shapes: Sequence[tuple[int, int]],
    known: Sequence[Known],
    cells: _Cells,
    information: Float64[np.ndarray, " cells"],
    factor: float,
    reprojection: float,
) -> Aligned:
    images = len(shapes)
    used: Bool[np.ndarray, " images"] = np.zeros(images, bool)
    used[layout.members] = True
    K, pose = np.tile(np.eye(3), (images, 1, 1)), np.tile(np.eye(4), (images, 1, 1))
    depth, confidence, reason = [], [], {}
    # A single known pose stays where it is: the world grows around it.
    posed = [i for i in layout.members if known[i].world_from_camera is not None]
    middle = state.position[posed].mean(0) if posed else np.zeros(3)
    for image, shape in enumerate(shapes):
        frame = frames[image]
        if not used[image] or frame is None:
            depth.append(np.zeros(shape, np.float32))
            confidence.append(np.zeros(shape, np.float32))
            reason[image] = (
                "no prediction of any pair has it"
                if frame is None
                else "no pair connects it to the other images: does it overlap with them?"
            )
            continue
        about, focal = known[image], float(np.exp(state.log_focal[image]))
        K[image] = [[focal, 0, frame.centre[0]], [0, focal, frame.centre[1]], [0, 0, 1]]
        if about.K is not None and about.focal_sigma == 0:
            K[image] = about.K
        pose[image, :3, :3] = state.rotation[image]
        pose[image, :3, 3] = middle + (state.position[image] - middle) * factor
        depth.append(
            corrected(
                frame.own.depth,
                float(np.exp(state.log_scale[image])) * factor,
                cells.of(image, state.correction),
                cells.of(image, information),
                cells.size,
            )
        )
        # MASt3R's confidence starts at 1; what is below 1 elsewhere is cut.
        raw = np.maximum(frame.own.confidence, 0)
        confidence.append((raw / (1 + raw)).astype(np.float32))
    return Aligned(
        used=used,
        K=K,
        world_from_camera=pose,
        depth=depth,
        confidence=confidence,
        reason=reason,
        dropped_pairs=tuple((pair.a, pair.b) for pair in layout.dropped),
        reprojection=reprojection,
    )
