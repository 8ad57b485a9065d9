"""Fixtures for all tests: the folders of the real scans, where they exist, small weights of SAM,
and a Ray cluster.
"""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

# As for lift3d's own processes (lift3d.scene.threads, which may not be imported before pytest has
# arranged that signatures are checked). OpenMP's threads would otherwise wait at full load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARED = Path(
    os.environ.get("LIFT3D_SHARED", Path(__file__).resolve().parents[1].parent / "shared")
)


@pytest.fixture
def shared_data():
    """A function from a scan's name to its folder; skips where the real scans are absent."""

    def folder(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.is_dir():
            pytest.skip(f"needs the real scan {path}, which is not shipped (see data/README.md)")
        return path

    return folder


@pytest.fixture(scope="module")
def one_thread():
    """One thread: small networks are slower with more on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sam_checkpoint(tmp_path_factory):
    """A checkpoint of SAM as its authors publish it, small."""
    from tiny_sam import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("sam") / "sam_vit_toy.pth")


@pytest.fixture(scope="session")
def sam_folders(tmp_path_factory):
    """A folder as on the hub for each model of the family."""
    from tiny_sam import FAMILY, write_folder

    return {name: write_folder(name, tmp_path_factory.mktemp(name)) for name in FAMILY}


@pytest.fixture
def two_nodes(tmp_path):
    """The address of a cluster of two nodes on this machine, and the environment to join it."""
    pytest.importorskip("ray")
    port = 20000 + os.getpid() % 20000
    own = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Modules of tests, on the nodes too.
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
    head = [f"--port={port}", "--head", "--include-dashboard=false"]
    started = []
    try:
        for address, more in (
            ("127.0.0.2", head),
            ("127.0.0.3", [f"--address=127.0.0.2:{port}"]),
        ):
            log = tmp_path / f"{address}.log"
            command = [str(Path(sys.executable).parent / "ray"), "start"]
            with log.open("w") as file:
                started.append(
                    subprocess.Popen(
                        [*command, f"--node-ip-address={address}", *more, *common],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=os.environ | own,
                    )
                )
            patience = time.monotonic() + 30
            while "block forever" not in log.read_text():
                if time.monotonic() > patience or started[-1].poll() is not None:
                    last = (log.read_text().splitlines() or ["no output"])[-1]
                    pytest.skip(f"the Ray node {address} did not start in 30 s: {last}")
                time.sleep(0.2)
        yield f"127.0.0.2:{port}", own
    finally:
        for process in reversed(started):
            process.terminate()  # each node ends its own processes
        for process in started:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
