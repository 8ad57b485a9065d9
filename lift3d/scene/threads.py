"""Settings of numba's and OpenMP's threads, made where they are first used, not on import."""

from __future__ import annotations

import os

LAYERS = "omp tbb workqueue"
"""Priority of numba's threading layers. OpenMP is first: Open3D loads a TBB that is too old for
numba, which would warn about it."""


def arrange_threads() -> None:
    """For lift3d's own processes, before numba is imported. Settings of the user are kept."""
    os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", LAYERS)
    # Idle OpenMP threads would otherwise spin on cores that other processes need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def prefer_openmp() -> None:
    """For any process, before Open3D is imported; numba reads it when it starts threads."""
    import numba

    # Also where the variable is set: numba may have been imported before it was.
    layers = os.environ.get("NUMBA_THREADING_LAYER_PRIORITY", LAYERS).split()
    numba.config.THREADING_LAYER_PRIORITY = layers  # type: ignore[attr-defined]


def use_cores(count: int) -> None:
    """Limit the threads of numba, which counts them per thread, and of OpenCV."""
    import cv2
    import numba

    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    cv2.setNumThreads(count)


def kernels_run_together() -> bool:
    """Whether two threads may run parallel kernels at once; numba's own layer ends the process."""
    import numba

    numba.get_num_threads()  # starts them, which decides on the layer
    return numba.threading_layer() != "workqueue"
