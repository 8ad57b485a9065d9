"""The lift3d command in a process that is killed, or whose disk fills, at a chosen write.

    python tests/dying.py before|after N ARGUMENTS...   SIGKILL around the N-th file written
    python tests/dying.py largest BYTES ARGUMENTS...    no file may grow beyond this

Files count when they get their final name inside the folder of `--out`.
"""

import os
import resource
import signal
import sys

from lift3d.cli import main

written = 0
rename = os.replace


def die_at(moment, number, out):
    """Replace `os.replace` by one that kills this process around its `number`-th call."""

    def replace(source, target):
        global written
        if not os.path.abspath(target).startswith(out):
            return rename(source, target)  # numba's cache
        written += 1
        if written == number and moment == "after":
            rename(source, target)
        if written == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(source, target)

    os.replace = replace


if __name__ == "__main__":
    moment, number, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if moment == "largest":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    else:
        die_at(moment, number, os.path.abspath(arguments[arguments.index("--out") + 1]))
    sys.exit(main(arguments))
