"""What is uploaded to Azure, and how long does an instance need before it can serve?

    python -m benchmarks.deployment [--times 5]

Prints each folder's part of the package, as files and zipped, and the time that a fresh Python
needs to import `function_app`: by the clock and of CPU, the median of starts after a first one,
which compiles. Ends with status 1 if the package is larger than MOST_BYTES or the import takes more
than MOST_SECONDS of CPU. What Azure installs of requirements.txt is not in the package.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pathspec

ROOT: Final = Path(__file__).parents[1]
MOST_BYTES: Final = 512 * 1024
MOST_SECONDS: Final = 2.0


def kept(paths: Iterable[str]) -> Iterator[str]:
    """Those of the paths that `.funcignore` lets through."""
    ignored = pathspec.GitIgnoreSpec.from_lines(
        (ROOT / ".funcignore").read_text("utf-8").splitlines()
    )
    return (path for path in paths if not ignored.match_file(path))


def tracked() -> list[str]:
    """The files of this repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def zipped(paths: Iterable[str]) -> int:
    """The bytes of a package with these files."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as package:
        for path in paths:
            package.write(ROOT / path, path)
    return len(held.getvalue())


def import_seconds() -> tuple[float, float]:
    """Seconds by the clock and of CPU that a fresh Python needs for the app."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", "import function_app"], cwd=ROOT, check=True)
    lasted, after = time.perf_counter() - began, os.times()
    user = after.children_user - before.children_user
    return lasted, user + after.children_system - before.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    files = list(kept(tracked()))
    parts: Counter[str] = Counter()
    for path in files:
        parts[path.partition("/")[0]] += (ROOT / path).stat().st_size
    for part, size in parts.most_common():
        print(f"{part:<20} {size / 1024:8.1f} KiB")
    package = zipped(files)
    print(
        f"{len(files)} files, {sum(parts.values()) / 1024:.1f} KiB, zipped {package / 1024:.1f} KiB"
    )
    import_seconds()
    walls, cpus = zip(*(import_seconds() for _ in range(times)), strict=True)
    cpu = statistics.median(cpus)
    print(f"import of function_app: {statistics.median(walls):.2f} s, of CPU {cpu:.2f} s")
    return int(package > MOST_BYTES or cpu > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
