"""Kills jobs at random moments: python killing.py MODEL HISTORIES FOLDER. Forks before anything of polars or torch has run.

Prints how often it killed, and over how many rounds of jobs, each killed and begun again until it came to its end.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from mecold.jobs import Job, run

KILLS = 40


def started(model: str, histories: str, out: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        run(Job(model=model, histories=histories, out=str(out), parts=8))
    except BaseException as error:
        sys.stderr.write(repr(error))
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def main(model: str, histories: str, folder: Path) -> None:
    begin = time.monotonic()
    _, status = os.waitpid(started(model, histories, folder / "whole"), 0)
    assert status == 0
    usual, kills, rounds, moment = time.monotonic() - begin, 0, 0, random.Random(7)
    while kills < KILLS:
        out = folder / f"round-{rounds}"
        for _ in range(5):  # at most so often in one round, so that late moments come up too
            child = started(model, histories, out)
            time.sleep(moment.uniform(0.0, usual))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert status in (0, signal.SIGKILL), status
            kills += status != 0
            if status == 0 or kills == KILLS:
                break
        _, status = os.waitpid(started(model, histories, out), 0)
        assert status == 0
        rounds += 1
    sys.stdout.write(json.dumps({"kills": kills, "rounds": rounds}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
