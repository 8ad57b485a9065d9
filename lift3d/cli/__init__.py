"""The `lift3d` command: parse the command line, run the command, return the exit status.

tyro parses it, from the classes in `commands`. They are imported only when a command is named, so
that the list of commands appears at once.
"""

import ast
import contextlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from lift3d import __version__
from lift3d.cli.streams import arrange_streams, shown_streams

FINISHED_STAGES = "finished stages are kept; run the same command again to continue"
START = ("lift3d demo --out out/demo", "lift3d lift SCAN --out out/scan", "lift3d lift --help")


def _first_lines() -> dict[str, str]:
    """Name of each command and the first line of its help, in the order of the help.

    Parsed from the source of `commands`, because importing it is slow.
    """
    tree = ast.parse(Path(__file__).with_name("commands.py").read_text())
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {
        each.name.lower(): (ast.get_docstring(each) or "").partition("\n")[0] for each in classes
    }


COMMANDS = _first_lines()


def _teach(text: str, examples: Sequence[str]) -> str:
    """A description with example commands, for `--help`."""
    return "\n".join([text, "", "Try:", *(f"  {example}" for example in examples)])


def _parse(given: list[str]) -> Any:
    """The command as tyro parses it; tyro exits by itself on `--help` and bad options."""
    named = given[0] if given else ""
    union: Any = Union[  # noqa: UP007 - made at run time
        tuple(_with_options(name, given) if name == named else _stand_in(name) for name in COMMANDS)
    ]
    return tyro.cli(
        union,
        prog="lift3d",
        args=given,
        description=_teach(
            "Turn pictures of a static scene into a point cloud in which every point has an "
            "object label, with the same labels in every picture. Documentation: README.md and "
            "docs/ in the source of lift3d.",
            START,
        ),
        config=(tyro.conf.CascadeSubcommandArgs,),
    )


def _with_options(name: str, given: list[str]) -> Any:
    """The class of a command, with the backends that it can use."""
    from lift3d.cli.choices import with_choices
    from lift3d.cli.commands import EXAMPLES

    kind = _command(name)
    about = _teach(inspect.getdoc(kind) or "", EXAMPLES[kind])
    return Annotated[with_choices(kind, given), subcommand(name, description=about)]


def _command(name: str) -> type:
    """The class of a command."""
    from lift3d.cli.commands import EXAMPLES

    return next(kind for kind in EXAMPLES if kind.__name__.lower() == name)


def _stand_in(name: str) -> Any:
    """An empty command with a name and one line of help, for the list of commands."""
    return Annotated[make_dataclass(name, []), subcommand(name, description=COMMANDS[name])]


def _check_names(given: list[str]) -> None:
    """InputError with a suggestion for unknown commands, backends and options."""
    if not given or given[0].startswith("-"):
        return
    from lift3d.scene.errors import InputError, did_you_mean

    if given[0] not in COMMANDS:
        raise InputError(did_you_mean(given[0], COMMANDS, "command"))
    from lift3d.cli.choices import wrong_choice
    from lift3d.cli.options import wrong_option

    wrong = _empty(given) or wrong_choice(given) or wrong_option(_command(given[0]), given)
    if wrong is not None:
        raise InputError(wrong)


def _empty(given: list[str]) -> str | None:
    """The error for an empty word, such as that of an unset variable of the shell.

    It would be read as the path of the current folder. Options of readers may be empty.
    """
    for before, word in pairwise(given):
        if not word.strip() and not before.startswith("--reader."):
            what = f"the value of `{before}`" if before.startswith("--") else "a path"
            return f"{what} is empty; is a variable of the shell unset?"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status.

    0 for success, 2 for bad input or options, 1 where the system fails (a full disk), 130 when
    interrupted. Only a bug in lift3d prints a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if sys.platform == "win32":
        from lift3d.scene.errors import POSIX_ONLY

        return _fail(2, POSIX_ONLY)
    arrange_streams()
    # tyro shows help for the words before --help: `lift --help segmentation:sam` must show SAM.
    given.sort(key=lambda word: word in ("-h", "--help"))
    if given == ["--version"]:
        print(f"lift3d {__version__}")
        return 0
    try:
        if given[0] not in ("-h", "--help"):
            from lift3d.scene.printing import arrange_logs
            from lift3d.scene.threads import arrange_threads

            arrange_threads()
            arrange_logs()
        _check_names(given)
        with shown_streams() if given[0] in COMMANDS else contextlib.nullcontext():
            command = _parse(given)
        command.run(["lift3d", *given])
    except KeyboardInterrupt:
        return _fail(130, f"interrupted; {FINISHED_STAGES}")
    except BrokenPipeError:
        # The reader of our output has ended; the interpreter must not try to flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail(1, f"out of memory: use fewer views or a larger --voxel; {FINISHED_STAGES}")
    except ImportError as error:
        # NumPy, which InputError needs, may be the library that is missing.
        if type(error).__name__ == "MissingExtra":
            return _fail(2, str(error))
        if (error.name or "").startswith("lift3d"):
            raise
        return _fail(
            1,
            f"a library cannot be loaded ({error}); install lift3d again, or allow more memory "
            "where it is limited (ulimit -v)",
        )
    except Exception as error:
        from lift3d.scene.errors import InputError, system_words  # late: it needs NumPy

        if isinstance(error, InputError):
            return _fail(2, str(error))
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            return _fail(1, f"{system_words(error)}{where}; {FINISHED_STAGES}")
        raise
    return 0


def _fail(status: int, message: str) -> int:
    try:
        from lift3d.scene.printing import printable  # late: it needs NumPy

        message = printable(message)
    except (ImportError, MemoryError, OSError):
        message = ascii(message)
    print(f"lift3d: {message}", file=sys.stderr, flush=True)
    return status
