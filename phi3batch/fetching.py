"""A batch's results brought home, and held against their manifest."""

import sys
from pathlib import Path

from pydantic import ValidationError

from phi3batch.mistakes import Ended, cannot_be_used
from phi3batch.progress import ENDED
from phi3batch.reports import put_report
from phi3batch.results import MANIFEST
from phi3batch.service import BatchService, connected, is_known
from phi3batch.statuses import NOT_DONE
from phi3batch.verifying import verify
from schemas.openai import Batch
from schemas.results import Manifest


def fetch(service: BatchService, batch: Batch, folder: Path) -> Manifest:
    """Download what an ended batch has into a folder. Raises Ended where it does not agree."""
    data = service.manifest(batch.id)
    (folder / MANIFEST).write_bytes(data)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise Ended(NOT_DONE, f"{folder / MANIFEST} is no manifest: {error}") from None
    for file_id, file in (
        (batch.output_file_id, manifest.output),
        (batch.error_file_id, manifest.errors),
    ):
        target = folder / Path(file.name).name
        if file_id is not None:
            service.download(file_id, target)
        else:
            target.unlink(missing_ok=True)
    if wrong := verify(manifest, folder):
        raise Ended(NOT_DONE, f"what came home is not what was written: {'; '.join(wrong)}")
    return manifest


def fetch_ended(batch_id: str, folder: Path) -> Manifest:
    """Bring a batch's results home. Raises Ended where it has not ended, or has none."""
    with connected() as service:
        batch = service.batch(batch_id)
        if batch.status not in ENDED:
            raise Ended(NOT_DONE, f"{batch_id} is {batch.status}: phi3batch watch {batch_id}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return fetch(service, batch, folder)
        except OSError as error:
            raise Ended(NOT_DONE, f"{folder}: {error.strerror}") from None


def fetch_report(batch_id: str, folder: Path) -> Path | None:
    """Bring home how a batch went: where it lies; None where the service has no report of it.

    The results are here already, so that what keeps their report away is told, and ends nothing.
    """
    if not is_known():
        return None
    try:
        with connected() as service:
            page = service.report(batch_id)
        return None if page is None else put_report(folder, batch_id, page)
    except Ended as refused:
        why = str(refused)
    except OSError as error:
        why = cannot_be_used(error, folder)
    again = f"phi3batch results {batch_id} asks for it again"
    print(f"{folder}: the results are here, but not their report: {why}; {again}", file=sys.stderr)
    return None
