"""Thousands of damaged inputs (tests/fuzz), and that the harness notices each kind of fault."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz")

PLANTED = """
import os, sys, time
sys.path.insert(0, {folder!r})
import fuzz
from lift3d.scene.errors import InputError

def traceback(path, changed, rng): {{}}["missing"]
def hang(path, changed, rng): time.sleep(60)
def stray(path, changed, rng): open({outside!r}, "w")
def start(path, changed, rng): os.system("true")
def crash(path, changed, rng): os.abort()
def memory(path, changed, rng): bytearray(700 << 20)
def error(path, changed, rng): raise InputError("said")

fuzz.SECONDS, fuzz.MEMORY = 3.0, 600 << 20
reads = (traceback, hang, stray, start, crash, memory, error)
fuzz.SAMPLES.clear()
for read in reads:
    make = lambda path: (path / "a.txt").write_text("a")
    fuzz.SAMPLES[read.__name__] = fuzz.Sample(make, read)
sys.exit(fuzz.fuzz(list(range(40)), 0, 2))
"""


def ended(*words):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_no_damaged_input_is_answered_by_a_traceback_a_hang_or_a_file_elsewhere():
    status, said = ended(str(FUZZ / "fuzz.py"), "--inputs", "3000")
    assert status == 0, said
    assert "3000 inputs of seed 0: 0 faults (0 kinds), 0 hangs" in said


@pytest.mark.slow
def test_the_harness_notices_every_kind_of_fault(tmp_path):
    outside = tmp_path / "outside"
    status, said = ended("-c", PLANTED.format(folder=str(FUZZ), outside=str(outside)))
    assert status != 0
    for kind in (
        *("KeyError: 'missing'", "took more than 3 s", f"Stray: wrote {outside}"),
        *("Stray: os.system", "the process died", "MB resident"),
    ):
        assert kind in said, said
    assert "error:" not in said.split("by sample")[0], "an error of lift3d is no fault"
    assert not outside.exists()
