"""Drawn calls of the whole public surface and the command line: right answers, or errors of mecold's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

CALLS, SEED = 5000, 1


def test_nothing_but_right_answers_and_errors_with_a_way_out_comes_out():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.calls", "--calls", str(CALLS), "--seed", str(SEED)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == []
    assert found["calls"] >= CALLS
    assert found["right"] > CALLS / 10
