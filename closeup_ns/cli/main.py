"""`closeup-gs`: the commands that nerfstudio's own ns-* commands have no place for.

Nothing heavy is imported before a command is chosen, so that `closeup-gs --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from closeup_ns.errors import CloseupError, say_error

COMMANDS = {
    "demo": ("closeup_ns.cli.demo:Demo", "from nothing to a trained scene and its before-and-after pictures"),
    "path": ("closeup_ns.cli.path:WritePath", "a camera path for ns-render: dive at the target, orbit, or pull-back"),
    "export": ("closeup_ns.cli.export:Export", "a splat file that looks right in other people's viewers"),
    "eval": ("closeup_ns.cli.eval:Evaluate", "score a run of any method, or a folder of renders"),
    "report": ("closeup_ns.cli.report:Report", "one HTML page about a run: plans, pictures, quality, cost"),
    "refine": ("closeup_ns.cli.refine:RefineStored", "refine a stored round again with any refiner, to compare"),
    "bench": ("closeup_ns.cli.bench:Bench", "compare methods on a protocol, and write the paper's tables"),
    "weights": ("closeup_ns.cli.weights:Weights", "fetch See3D's weights, or see whether a folder holds them"),
    "doctor": ("closeup_ns.cli.doctor:doctor", "what this machine can do, what is missing, and how to mend it"),
}
"""Of each command: ``module:name`` of a function whose arguments are the options, or of a dataclass with a ``main()``
method; and what `--help` says about it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Errors that a user can act on end as one line and exit code 1, without a traceback.

    Set ``CLOSEUP_DEBUG=1`` to see the traceback all the same.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return
    if given[0] == "--version":
        from importlib.metadata import version

        print(version("closeup-ns"))
        return
    if given[0] not in COMMANDS:
        _fail(f"there is no command '{given[0]}'; the commands are {', '.join(COMMANDS)}", code=2)
    try:
        _run(given[0], given[1:])
    except CloseupError as error:
        if os.environ.get("CLOSEUP_DEBUG"):
            raise
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped", code=130)


def _run(name: str, arguments: list[str]) -> None:
    import tyro

    module, attribute = COMMANDS[name][0].split(":")
    entry = getattr(importlib.import_module(module), attribute)
    chosen = tyro.cli(entry, args=arguments, prog=f"closeup-gs {name}")
    if isinstance(entry, type):
        chosen.main()


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: closeup-gs COMMAND [OPTIONS]",
            "",
            "Gaussian splats that hold up when the camera comes close. Training is nerfstudio's own command:",
            "ns-train closeup-gs --data FOLDER",
            "",
            "commands:",
            *lines,
            "",
            "closeup-gs COMMAND --help lists a command's options.",
        ]
    )


def _fail(message: str, code: int = 1) -> None:
    say_error("closeup-gs", message)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
