"""The kernels of the shape against the same work done plainly."""

import importlib

import numpy as np
import pytest
from scipy.spatial import cKDTree
from test_joining import CELL, quarters, sheet

from lift3d.association.shape.cues import cues
from lift3d.association.shape.moments import meetings, solids
from lift3d.association.shape.surfels import Surfels
from lift3d.association.superpoints import lab
from lift3d.scene import Points

# Of some of these modules the package has a function of the same name.
borders, layout, seams, surfels, graph = (
    importlib.import_module(f"lift3d.association.shape.{name}")
    for name in ("borders", "layout", "seams", "surfels", "pieces")
)


def plain_lines(xyz, normal, light, spacing):
    """`lines` of points, each a surfel of its own, one at a time."""
    depth, across = np.zeros(len(xyz)), np.zeros((len(xyz), 3))
    _, near = cKDTree(xyz).query(xyz, seams.AROUND, distance_upper_bound=seams.REACH * spacing)
    for i, facing in enumerate(normal):
        around = np.array([j for j in near[i] if j not in (i, len(xyz))], int)
        offset = (xyz[around] - xyz[i]) / spacing
        flat = np.abs(offset @ facing) <= seams.THICKNESS
        offset, grey = offset[flat], light[around[flat]]
        u = np.cross(facing, np.eye(3)[np.argmin(np.abs(facing))])
        u /= np.linalg.norm(u)
        v = np.cross(facing, u)
        for angle in np.pi * np.arange(seams.TURNS) / seams.TURNS:
            way = np.cos(angle) * u + np.sin(angle) * v
            over, along = offset @ way, offset @ np.cross(facing, way)
            line = np.append(light[i], grey[np.abs(over) < seams.HALF_WIDTH])
            beside = np.abs(along) < seams.HALF_LENGTH
            sides = [grey[beside & (side * over > seams.SIDE)] for side in (1, -1)]
            if len(line) < seams.LEAST_LINE or min(map(len, sides)) < seams.LEAST_SIDE:
                continue
            found = min(each.mean() for each in sides) - line.mean()
            if found > depth[i]:
                depth[i], across[i] = found, way
    return depth, across


def rough(count=400):
    """Points of random grey on a rough sheet, each a surfel of its own."""
    rng = np.random.default_rng(2)
    xyz = rng.uniform(0, 20 * CELL, (count, 3)) * [1, 1, 0.04]
    xyz = xyz.astype(np.float32).astype(np.float64)
    normal = rng.normal(0, 0.3, (count, 3)) + [0, 0, 1]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    rgb = np.repeat(rng.integers(60, 200, (count, 1)), 3, axis=1).astype(np.uint8)
    blank = np.zeros((count, 3), np.float32)
    points = Points(xyz.astype(np.float32), rgb, blank, np.ones(count, np.float32))
    tint = rng.normal(0, 20, (count, 3)).astype(np.float32)
    return Surfels(xyz, normal, tint, np.arange(count)), points


def test_lines_are_those_found_one_point_at_a_time():
    surface, points = rough()
    depth, across = seams.lines(surface, points, CELL)
    light = lab(points.rgb)[:, 0].astype(np.float64)
    expected, way = plain_lines(surface.xyz, surface.normal, light, CELL)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(depth, expected, atol=1e-9)
    np.testing.assert_allclose(across, way, atol=1e-9)


def test_neighbours_are_the_nearest_and_compared_as_by_numpy():
    surface, points = rough()
    xyz, normal = surface.xyz, surface.normal
    near = borders.Neighbours(surface, seams.lines(surface, points, CELL), CELL)
    _, found = cKDTree(xyz).query(
        xyz, borders.NEIGHBOURS + 1, distance_upper_bound=borders.REACH * CELL
    )
    pairs = {
        (min(a, b), max(a, b))
        for a, row in enumerate(found)
        for b in row
        if b not in (a, len(xyz)) and normal[a] @ normal[b] > borders.OPPOSED
    }
    a, b = near.a, near.b
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == sorted(pairs)
    apart = xyz[b] - xyz[a]
    np.testing.assert_allclose(near.bend, 1 - (normal[a] * normal[b]).sum(1), atol=1e-12)
    np.testing.assert_array_equal(near.inward, (apart * (normal[b] - normal[a])).sum(1) < 0)
    off = np.abs((apart * normal[a]).sum(1)) + np.abs((apart * normal[b]).sum(1))
    np.testing.assert_allclose(near.off, off / 2)
    colour = np.linalg.norm(surface.lab[a] - surface.lab[b], axis=1)
    np.testing.assert_allclose(near.colour, colour, rtol=1e-6)


def test_a_seam_is_the_deepest_line_at_or_between_two_surfels():
    surface, points = rough()
    xyz, (depth, across) = surface.xyz, seams.lines(surface, points, CELL)
    near = borders.Neighbours(surface, (depth, across), CELL)
    _, around = cKDTree(xyz).query(xyz, seams.AROUND, distance_upper_bound=seams.REACH * CELL)
    expected = []
    for a, b in zip(near.a, near.b, strict=True):
        way = xyz[b] - xyz[a]
        length = np.linalg.norm(way)
        middle = np.linalg.norm(xyz - (xyz[a] + xyz[b]) / 2, axis=1) < seams.NEAR_MIDDLE * CELL
        between = [q for q in around[a] if q < len(xyz) and middle[q] and length > seams.FAR * CELL]
        over = np.abs(across[[a, b, *between]] @ way / length)
        expected.append((depth[[a, b, *between]] * over).max())
    np.testing.assert_allclose(near.seam, expected, atol=1e-9)


def plain_cues(pieces, one, other):
    """`cues` of one pair, by NumPy."""
    if pieces.sums[one, graph.SIZE] > pieces.sums[other, graph.SIZE]:
        one, other = other, one

    def border(*names):
        return pieces.edge[one][other][[getattr(borders, each) for each in names]]

    pairs, own, others, same, seen = border("PAIRS", "OWN", "OTHERS", "SAME_MASK", "OBSERVED")
    mine, theirs = pieces.sums[one], pieces.sums[other]
    size, larger = mine[graph.SIZE], theirs[graph.SIZE]
    tint = mine[graph.LIGHT] / size - theirs[graph.LIGHT] / larger
    bins = [each[graph.BINS] / max(each[graph.BINS].sum(), 1e-9) for each in (mine, theirs)]
    upright = pieces.sums[[one, other], graph.UPRIGHT]
    boxes = (upright >= 20) & (np.abs(pieces.turn[[one, other]]) > 0.85 * upright)
    turned = np.degrees(np.abs(np.angle(pieces.turn[one] * pieces.turn[other].conj()))) / 4
    moments, sizes = pieces.moments[[one, other]], np.array([size, larger])
    small, large = solids(moments, sizes)
    (both,) = solids(moments.sum(0, keepdims=True), sizes[:1] + sizes[1:])
    ((wide, wider, beside),) = meetings(moments[:1], sizes[:1], moments[1:], sizes[1:])
    return np.array([
        np.log1p(size), np.log1p(larger), own / np.sqrt(size), np.log1p(own),
        own / max(pieces.around[one], 1), others / max(pieces.around[other], 1),
        *border("INWARD", "OUTWARD", "STEP", "RISE", "RISE_BACK") / pairs,
        same / seen if seen > 0 else np.nan,
        abs(tint[0]), np.hypot(*tint[1:]), np.minimum(*bins).sum(),
        turned if boxes.all() else np.nan,
        *border("SEAM", "COLOUR", "FOLDS", "RIDGES", "SEAMS", "EDGES") / pairs,
        mine[graph.LEVEL] / size, theirs[graph.LEVEL] / larger, upright[0] / size,
        pieces.layout[one] or pieces.layout[other],
        *small[:3], *large[:3], *both[:3], small[3], large[3], both[3], both[4],
        np.log(wide / wider), beside / min(wide, wider), own / wide, own / wider,
    ])  # fmt: skip


def test_cues_are_those_of_one_pair_at_a_time():
    """On pieces with random colours, directions, views and sides of boxes."""
    rng = np.random.default_rng(0)
    pieces = quarters(lambda pieces, pairs: np.zeros(len(pairs)), layout=(4,))
    count = len(pieces.layout)
    pieces.sums[:, 1:] = rng.uniform(0, 100, (count, pieces.sums.shape[1] - 1))
    pieces.sums[0, graph.BINS] = 0
    pieces.turn = pieces.sums[:, graph.UPRIGHT] * np.exp(1j * rng.uniform(-3, 3, count))
    pieces.turn[3] *= 0.5
    pieces.moments[:, 9:] += rng.normal(0, 100, (count, 3))
    pairs = [(one, other) for one, edges in enumerate(pieces.edge) for other in edges]
    for one, other in pairs:
        if one < other:
            border = rng.uniform(1, 9, len(borders.TURNED))
            border[borders.OBSERVED] *= one > 0
            pieces.edge[one][other], pieces.edge[other][one] = border, border[borders.TURNED]
    found = cues(pieces, pairs)
    assert np.isnan(found).any(axis=0).sum() >= 2  # unknown views and boxes
    np.testing.assert_allclose(found, [plain_cues(pieces, *each) for each in pairs], rtol=1e-9)


@pytest.mark.parametrize(
    ("own", "nearest", "kept"), [(1.0, 1.0, True), (0.05, 1.0, False), (0.05, 0.05, True)]
)
def test_a_lone_surfel_is_noise_by_its_confidence_among_the_nearest(own, nearest, kept):
    xyz = np.concatenate([sheet().xyz, [[0.4, 0.3, 20 * CELL]]]).astype(np.float32)
    normal = np.tile(np.float32([0, 0, 1]), (len(xyz), 1))
    away = np.linalg.norm(xyz - xyz[-1], axis=1)
    sure = np.where(away < 21 * CELL, nearest, 1).astype(np.float32)
    assert 20 < (away < 21 * CELL).sum() < len(xyz) / 2
    sure[-1] = own
    points = Points(xyz, np.full((len(xyz), 3), 128, np.uint8), normal, sure)
    assert (surfels.surfels(points, CELL).of_point[-1] >= 0) == kept


def test_the_surfels_near_a_plane_are_those_close_that_face_alike():
    surface, _ = rough()
    plane = layout.Plane(surface.xyz.mean(0), np.array([0.0, 0.6, 0.8]))
    among = np.arange(len(surface)) % 3 > 0
    height = (surface.xyz - plane.point) @ plane.normal
    np.testing.assert_allclose(plane.height(surface.xyz), height, atol=1e-12)
    expected = among & (np.abs(height) < 4 * CELL) & (surface.normal @ plane.normal > layout.ALIKE)
    np.testing.assert_array_equal(plane.near(surface, 4 * CELL, among), expected)
    assert 0 < expected.sum() < among.sum() / 2
