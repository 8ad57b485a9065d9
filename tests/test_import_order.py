"""Imports point one way, and starting the command loads nothing heavy."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lift3d"
ROOMS = [
    "scene",
    "geometry",
    "networks",
    "datasets",
    "reconstruction",
    "segmentation",
    "association",
    "correction",
    "evaluation",
    "export",
    "run",
    "viewing",
    "cli",
    "__main__",
]
"""What lies right under lift3d, in the order of imports: each may import what stands before it."""
LEVEL = {name: level for level, name in enumerate(ROOMS)}
KINDS = [
    "reconstruction.fusion",
    "segmentation.tracking",
    "segmentation.matching",
]
"""Kinds of backends that share a room with another."""
OUTSIDE = {"pipelines", "viewers", "data", "benchmarks", "tests"}
HEAVY = ("open3d", "torch", "sklearn", "skimage", "cv2", "ray", "viser", "higra")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it: at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            assert node.module is not None
            if node.module == "lift3d":  # from lift3d import stages
                names |= {f"lift3d.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


def part(dotted: str) -> str | None:
    """The module or package right under lift3d; None for its version."""
    pieces = dotted.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[1] != "__version__" else None


def test_every_room_has_a_place_in_the_order():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert parts - {"__init__"} == LEVEL.keys()


def test_the_top_of_the_package_is_a_baker_s_dozen_of_rooms():
    assert len(LEVEL.keys() - {"__main__"}) <= 13


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_from_right_to_left(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        assert name.split(".")[0] not in OUTSIDE, f"{path} imports {name}"
        other = part(name) if name.split(".")[0] == "lift3d" else None
        if other is not None and other != own and own != "__init__":
            assert LEVEL[other] < LEVEL[own], f"{path} imports {name}, which comes after it"


def test_no_import_goes_in_a_circle():
    """Between the parts of lift3d, also where two share a layer."""
    needs: dict[str, set[str]] = {}
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        others = {part(name) for name in imports(path) if name.split(".")[0] == "lift3d"}
        needs.setdefault(own, set()).update(other for other in others - {own} if other)
    placed: set[str] = set()
    while needs:
        free = {name for name, others in needs.items() if not (others & needs.keys())}
        assert free, f"in a circle: {sorted(needs)}"
        placed |= free
        needs = {name: others for name, others in needs.items() if name not in free}
    assert "scene" in placed


def test_the_command_starts_light():
    code = (
        "import sys, lift3d.cli\n"
        f"heavy = sorted(set({HEAVY!r}) & sys.modules.keys())\n"
        "assert not heavy, heavy\n"
        "import lift3d.cli.commands\n"
        f"heavy = sorted(set({HEAVY!r}) & sys.modules.keys())\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_package_leaves_the_environment_alone():
    code = (
        "import os\n"
        "before = dict(os.environ)\n"
        "import lift3d, lift3d.run.lift\n"
        "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())"
    )
    without = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_TH", "OMP_WAIT"))}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=without)


@pytest.mark.parametrize("first", ["command", "function"])
def test_numba_does_not_warn_about_the_library_that_open3d_loads(first):
    """In a process of its own: numba starts its threads once."""
    lines = {
        "command": ["from lift3d.cli import main", "main(['weights'])"],
        "function": [],
    }
    code = "\n".join(
        [
            *lines[first],
            "from lift3d.datasets.synthetic import SyntheticConfig",
            "scene = SyntheticConfig(views=2, width=32, height=24).read()",
            "scene.views[0].image()",  # Open3D, then a parallel kernel
            "import numba",
            "assert numba.threading_layer() == 'omp', numba.threading_layer()",
        ]
    )
    without = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_TH", "OMP_WAIT"))}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT, env=without)


def test_help_imports_next_to_nothing():
    command = [sys.executable, "-X", "importtime", "-m", "lift3d", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "lift" in done.stdout
    named = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "lift3d.cli" in named
    assert not {"numpy", "scipy", "numba", "lift3d.scene", *HEAVY} & named
