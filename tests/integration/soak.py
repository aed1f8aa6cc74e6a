"""Tiny trainings killed at random instants and resumed in their own folder: ``python -m tests.integration.soak KILLS``.

After each kill: what was finished is still there bit for bit. After each run that ended: no view was refined twice, no
round judged twice, nothing is half written or left over, and every round has its report.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.checkpoints import read_checkpoint
from tests.integration.captures import write_transforms
from tests.integration.commands import forked
from tests.integration.runs import PLANNED, ROUNDS, Run, run_of, train_arguments

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SHORT: dict[str, object] = {
    "pipeline__schedule__base_steps": 20,
    "pipeline__schedule__round_steps": 6,
    "steps_per_save": 5,
    "foreign_psnr": 0.0,
}
"""A run of seconds, too short to know its own photographs."""
MOST_KILLS = 6
"""Of one run; then it may end."""


def train(capture: Path, output: Path, seconds: float | None, chance: random.Random) -> tuple[int | None, str]:
    """Train or resume, and send a signal after ``seconds``. Returns the exit code and the output."""
    run = run_of(output)
    options = {**SHORT, **({"load_dir": run.models} if run.checkpoints() else {})}
    with forked("ns-train", *train_arguments(capture, output, **options), cwd=output) as (process, log):
        process.join(seconds)
        if process.is_alive() and process.pid is not None and seconds is not None:
            os.kill(process.pid, chance.choice(SIGNALS))
        process.join(300)
        code = process.exitcode
    return code, log.read_text(errors="replace") if log.exists() else ""  # killed before it opened its log


def check_kept(run: Run, before: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """What was decided before is decided still, and was not written again. Pixels count once their view does."""
    stamps, contents = run.stamps(), run.decided()
    now = {name: (stamps[name], contents[name]) for name in contents}
    views = {Path(name).stem for name in before if "/views/" in name}
    for name, value in before.items():
        if name.endswith(".json") or Path(name).stem in views:
            assert now.get(name) == value, f"{name} of {run.folder} was changed or lost"
    for path in run.checkpoints():
        read_checkpoint(path)
    return now


def one_run(capture: Path, output: Path, seconds: float, kills: int, chance: random.Random) -> int:
    """Kill a run up to ``kills`` times; returns how often. The last part runs to its end."""
    run, kept, killed = run_of(output), {}, 0
    while True:
        last = killed == kills
        code, log = train(capture, output, None if last else chance.uniform(0, seconds), chance)
        kept = check_kept(run, kept) if run.rounds.is_dir() else kept
        if code == 0 and "Training Finished" in log:
            break
        # A process that got Ctrl+C prints where it was; nerfstudio then ends with 0.
        assert not last and ((code or 0) < 0 or "KeyboardInterrupt" in log), f"exit code {code}:\n{log}"
        killed += 1
    RoundStore(run.rounds).check()
    for number in range(1, ROUNDS + 1):
        assert len(RoundStore(run.rounds).views(number)) == PLANNED
        assert run.json(f"round_{number}", "report.json")["round"] == number
    assert not list(run.folder.rglob(".partial-*"))
    return killed


def main() -> None:
    """Repeat until so many kills were survived; the seed is printed, and every assertion names the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    chance, done = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root = Path(folder)
        write_transforms(root / "capture")
        with forked("closeup-gs", "--version", cwd=root) as (process, _):
            process.join()  # imports are done once, here
        started = time.monotonic()
        code, log = train(root / "capture", root / "whole", None, chance)
        assert code == 0, log
        seconds = time.monotonic() - started
        print(f"seed {options.seed}; a whole run takes {seconds:.0f} s", flush=True)
        while done["kills"] < options.kills:
            wanted = min(chance.randint(1, MOST_KILLS), options.kills - done["kills"])
            done["kills"] += one_run(root / "capture", root / f"run_{done['runs']}", seconds, wanted, chance)
            done["runs"] += 1
            print(f"{done['kills']} kills in {done['runs']} runs, all whole", flush=True)


if __name__ == "__main__":
    main()
