"""Do results at home agree with their manifest?"""

import hashlib
from pathlib import Path
from typing import BinaryIO

from schemas.results import Manifest, ManifestFile, ManifestPart

CHUNK = 1024 * 1024


def verify(manifest: Manifest, folder: Path) -> list[str]:
    """What does not agree, one clear line each; nothing when all is well."""
    counts = manifest.counts
    wrong = []
    if counts.done != counts.total:
        wrong.append(f"manifest.json counts {counts.done} rows done of {counts.total}")
    if counts.succeeded != manifest.output.rows:
        wrong.append(f"{counts.succeeded} rows succeeded, output has {manifest.output.rows}")
    if counts.errors != manifest.errors.rows:
        wrong.append(f"{counts.errors} rows failed, errors has {manifest.errors.rows}")
    for file in (manifest.output, manifest.errors):
        wrong += _verify_file(file, folder / Path(file.name).name)
    return wrong


def _verify_file(file: ManifestFile, path: Path) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"] if file.rows else []
    wrong = []
    if path.stat().st_size != file.length:
        wrong.append(f"{path.name} has {path.stat().st_size} bytes, not {file.length}")
    offset = rows = 0
    with path.open("rb") as content:
        for part in file.parts:
            if part.offset != offset:
                wrong.append(f"{path.name}: part {part.shard} is at {part.offset}, not {offset}")
            wrong += _verify_part(content, part, path.name)
            offset, rows = part.offset + part.length, rows + part.rows
    if offset != file.length:
        wrong.append(f"{path.name}: its parts have {offset} bytes, not {file.length}")
    if rows != file.rows:
        wrong.append(f"{path.name}: its parts have {rows} rows, not {file.rows}")
    return wrong


def _verify_part(content: BinaryIO, part: ManifestPart, name: str) -> list[str]:
    digest, rows, left = hashlib.sha256(), 0, part.length
    content.seek(part.offset)
    while left and (chunk := content.read(min(left, CHUNK))):
        digest.update(chunk)
        rows += chunk.count(b"\n")
        left -= len(chunk)
    wrong = []
    if digest.hexdigest() != part.sha256:
        wrong.append(f"{name}: the bytes of shard {part.shard} are not those that were written")
    if rows != part.rows:
        wrong.append(f"{name}: shard {part.shard} has {rows} rows, not {part.rows}")
    return wrong
