"""`python -m lift3d` is the `lift3d` command."""

import sys

from lift3d.cli import main

sys.exit(main())
