"""`python -m tests.golden`: brings the golden files of this release up to its schemas."""

import json
import shutil

from tests.golden import releases, shapes


def main() -> None:
    """Write what the schemas have come to; what is left to be written by hand is printed."""
    release, known = releases.version(), releases.releases()
    folder = releases.FOLDER / release
    if release not in known:
        shutil.copytree(releases.FOLDER / known[-1], folder)
    now = shapes.current()
    (folder / releases.SHAPES).write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    for name, path in releases.files(release).items():
        documents = [releases.again(name, each) for each in releases.entries(path)]
        path.write_text(releases.text_of(path, documents), "utf-8")
    for field in releases.missing(release, now):
        print(f"tests/golden/{release}: {field}")
    before = [each for each in releases.releases() if each != release]
    for change in releases.untold(before[-1], release) if before else ():
        print(f"CHANGELOG.md, [{release}], {releases.HEADING[4:]!r} has to name {change}")


if __name__ == "__main__":
    main()
