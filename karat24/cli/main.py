"""``karat24``: one sub-command per module of this package.

Heavy imports stay inside the commands, so that ``karat24 --help`` answers at once.
Exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from karat24.cli import (
    bench,
    bisect,
    check_edgetpu,
    compile_edgetpu,
    delegates,
    demo,
    diverge,
    doctor,
    establish,
    export,
    golden,
    inspect,
    latency,
    profiles,
    prove,
    quantize,
    reconstruct,
    restore,
    run,
    seek,
    verify,
    warmup,
)

COMMANDS = {
    "inspect": inspect,
    "run": run,
    "verify": verify,
    "diverge": diverge,
    "seek": seek,
    "golden": golden,
    "establish": establish,
    "quantize": quantize,
    "export": export,
    "restore": restore,
    "reconstruct": reconstruct,
    "prove": prove,
    "check-edgetpu": check_edgetpu,
    "compile": compile_edgetpu,
    "bisect": bisect,
    "bench": bench,
    "latency": latency,
    "doctor": doctor,
    "delegates": delegates,
    "profiles": profiles,
    "demo": demo,
    "warmup": warmup,
}

EXIT_CODES = "exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare"


READER_LEFT = 141
"""What a shell says of a program that a closed pipe ended: 128 and the number of SIGPIPE."""


EXAMPLES = """karat24 judges a quantized model on a real runtime against exact arithmetic. To try it:

  karat24 quantize fine-tune --aware --height 32 --width 32 --output repair.tflite
  karat24 verify repair.tflite --delegate litert-xnnpack
  karat24 inspect repair.tflite --layer 1

Instead of repair.tflite, name an 8-bit .tflite or .onnx model of your own.
`karat24 --help` lists all commands."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that says where to look."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuses what is not known in the command's own name, whose help lists its options."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, []


def build_parser(names: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line's parser, for all commands or for the named ones: all options of all take 7 ms."""
    from karat24.refimpl import __version__

    parser = Parser(
        prog="karat24",
        description="Golden oracle for int8 convolutional networks: runs a quantized model with the exact "
        "arithmetic of a named runtime and judges real runtimes against it, layer by layer.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"karat24 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in names:
        module = COMMANDS[name]
        command = commands.add_parser(
            name, help=module.HELP, description=module.HELP, epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; an error is one line on stderr."""
    from karat24.refimpl.errors import KaratError

    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(build_parser())
    words = sys.argv[1:] if arguments is None else arguments
    named = [word for word in words[:1] if word in COMMANDS]
    options = build_parser(named or COMMANDS).parse_args(words)
    if options.command is None:
        print(EXAMPLES)
        return 0
    try:
        code: int = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return code
    except KaratError as error:
        print(f"karat24 {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) left: no error to print, but nothing that a script may take for a match.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain at exit
        return READER_LEFT
    except KeyboardInterrupt:
        print(f"karat24 {options.command}: interrupted", file=sys.stderr)
        return 130
    except (OSError, MemoryError) as error:
        print(f"karat24 {options.command}: {error or type(error).__name__}", file=sys.stderr)
        return 2
