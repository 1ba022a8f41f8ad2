"""`formation COMMAND`: reads the arguments, runs the command, and turns every error of the tree into one sentence and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import formation
from formation.cli.speech import say_error
from formation.errors import FormationError, Interrupted

COMMANDS = (
    "inspect", "generate", "record", "show", "explore", "export", "compare", "note", "publish", "seal", "receipt", "verify", "key", "audit",
    "certify", "dialogue", "score", "claims", "certificate", "fork", "challenge", "bench", "doctor", "demo",
)  # fmt: skip


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Of these commands, whose modules are imported now: one alone starts sooner."""
    parser = argparse.ArgumentParser(
        prog="formation",
        description="Run a mixture-of-experts model bigger than memory, the same bits everywhere.",
        epilog="exit codes: 0 done or verified, 1 verification failed, 2 usage, 3 environment (file, memory, disk), 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"formation {formation.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        module = import_module(f"formation.cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(words[:1] if words and words[0] in COMMANDS else COMMANDS).parse_args(words)
    try:
        return int(args.run(args))
    except FormationError as error:
        return say_error(error)
    except KeyboardInterrupt:
        return say_error(Interrupted("expected to finish, got an interrupt from the keyboard"))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone: nothing is left to say
        return 0
    except MemoryError:
        return say_error(_environment("expected enough memory, got none", "give a smaller --memory"))
    except OSError as error:
        return say_error(_environment(f"expected to use {error.filename or 'a file'}, got: {error.strerror or error}", None))


def _environment(message: str, hint: str | None) -> FormationError:
    from formation.errors import EnvironmentFault

    return EnvironmentFault(message, hint=hint)


if __name__ == "__main__":
    sys.exit(main())
