"""Hosts are replaced one after the other while jobs run, as a deployment does it."""

import subprocess
import sys

import pytest

from local.stack import PROJECT

# The last commit of 0.1.0. A shallow clone lacks it: there hosts of one release replace each other.
FIRST_RELEASE = "8608382"


def other() -> str:
    known = subprocess.run(["git", "cat-file", "-e", FIRST_RELEASE], cwd=PROJECT, check=False)
    return "HEAD" if known.returncode else FIRST_RELEASE


@pytest.mark.long
@pytest.mark.timeout(900)
def test_jobs_come_out_whole_while_their_hosts_are_replaced() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.rolling", "--other", other()),
            *("--rows", "400", "--workers", "2"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
    )
    assert ran.returncode == 0, ran.stderr
    assert "jobs of 400 rows: every row exactly once and in order" in ran.stdout
    assert "6 hosts replaced" in ran.stdout
