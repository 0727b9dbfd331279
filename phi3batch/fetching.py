"""A batch's results brought home, and held against their manifest."""

from pathlib import Path

from pydantic import ValidationError

from phi3batch.mistakes import Ended
from phi3batch.progress import ENDED
from phi3batch.results import MANIFEST, report_path
from phi3batch.service import BatchService, connected
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
            return _with_report(service, batch, folder)
        except OSError as error:
            raise Ended(NOT_DONE, f"{folder}: {error.strerror}") from None


def _with_report(service: BatchService, batch: Batch, folder: Path) -> Manifest:
    manifest = fetch(service, batch, folder)
    if (report := service.report(batch.id)) is not None:
        report_path(folder, manifest.job).write_bytes(report)
    return manifest
