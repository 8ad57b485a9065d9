"""How numba's and OpenMP's threads behave: arranged where they are first used, not on import."""

from __future__ import annotations

import os

LAYERS = "omp tbb workqueue"
"""Of numba, the first that is there. Open3D loads a TBB that numba, asking for it first, finds too
old and warns about."""


def arrange_threads() -> None:
    """For a process that is ours, before numba is imported: settings that the user made stay."""
    os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", LAYERS)
    # OpenMP's threads, when idle, would spin on cores that somebody else needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def prefer_openmp() -> None:
    """Before Open3D is imported, in anybody's process: as numba reads it when it starts threads."""
    import numba

    # Also where the variable is set: numba may have been imported before it was.
    layers = os.environ.get("NUMBA_THREADING_LAYER_PRIORITY", LAYERS).split()
    numba.config.THREADING_LAYER_PRIORITY = layers  # type: ignore[attr-defined]
