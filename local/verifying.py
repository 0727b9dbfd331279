"""`python -m local verify DIR`: do downloaded results agree with their manifest?"""

import sys
from pathlib import Path

from pydantic import ValidationError

from local.usage import Parser
from phi3batch.verifying import verify
from schemas.results import Manifest
from schemas.wrong_values import wrong_values


def main(arguments: list[str]) -> int:
    """The exit status, 0 when everything agrees, 1 when something does not, 2 for wrong usage."""
    parser = Parser(prog="python -m local verify", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where `run` put the results")
    folder: Path = parser.parse_args(arguments).folder
    try:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except OSError as error:
        parser.error(f"{folder} has no manifest.json that can be read: {error.strerror}")
    except ValidationError as error:
        parser.error(f"{folder}/manifest.json is no manifest: {wrong_values(error)[0].words}")
    wrong = verify(manifest, folder)
    for each in wrong:
        print(f"error: {each}", file=sys.stderr)
    if not wrong:
        counts = manifest.counts
        print(
            f"verified: {counts.total:,} rows, {manifest.output.rows:,} in {manifest.output.name} "
            f"and {manifest.errors.rows:,} in {manifest.errors.name}, "
            f"{len(manifest.output.parts) + len(manifest.errors.parts):,} parts"
        )
    return 1 if wrong else 0
