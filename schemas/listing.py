"""What lists of jobs are made of: an entry for each job and each rejection, newest first."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.jobs import Asked, Door, Job, Reason
from schemas.status import JobStatus
from schemas.tenants import DEFAULT_TENANT, TenantName
from schemas.versions import SCHEMA_VERSION, Kept, Word

# Names sort by time, newest first, up to the year 2286.
_LATEST_MS = 9_999_999_999_999


RejectionType = Literal["job.rejected", "job.refused"]


class _Stored(Kept):
    schema_version: int = SCHEMA_VERSION


class IndexEntry(_Stored):
    """`index/{tenant}/{13 digits of inverted ms}-{id}`: created once, after what it tells of."""

    id: str = Field(description="the job's, or the rejection's")
    rejected: bool = False
    door: Door | Word | None = None
    input: str | None = Field(default=None, description="container/name")
    metadata: dict[str, str] = Field(default_factory=dict)
    created: float = Field(description="seconds since the epoch")

    @property
    def name(self) -> str:
        """Its name below `index/{tenant}/`."""
        return index_name(self.created, self.id)


class Rejection(_Stored):
    """`rejected/{id}`: what yielded no job, and why; created once, after its event was told."""

    id: str = Field(description="the same at every delivery of a message, at every look at a file")
    type: RejectionType | Word
    reason: Reason
    tenant: TenantName = DEFAULT_TENANT
    door: Door | Word | None = None
    input: str | None = Field(default=None, description="container/name, where it is known")
    asked: Asked = Asked()
    created: float = Field(description="seconds since the epoch")


class Done(_Stored):
    """`done/{job}`: that a job has ended, and how; created once, before its open marker goes.

    It remembers that a file was run, whatever is deleted of the job.
    """

    id: str
    tenant: TenantName = DEFAULT_TENANT
    created: float = Field(description="seconds since the epoch")
    revision: int = Field(description="of its last state")
    status: JobStatus


def index_name(created: float, identity: str) -> str:
    """The name of what was created at a time (seconds since the epoch): it sorts newest first."""
    return f"{_LATEST_MS - round(created * 1000):013d}-{identity}"


def index_id(name: str) -> str:
    """The id of the job, or the rejection, that an entry of the index is named for."""
    return name.partition("-")[2]


def created_of(name: str) -> float:
    """When what has this name in the index was created, in seconds since the epoch."""
    return (_LATEST_MS - int(name.partition("-")[0])) / 1000.0


def month_of(created: float) -> str:
    """The month, as 2026-11 in UTC, in which something was created: of the very time in its name
    in the index, so that budget and costs are of the same month.
    """
    return datetime.fromtimestamp(created_of(index_name(created, "")), UTC).strftime("%Y-%m")


def span_of(month: str) -> tuple[float, float]:
    """When a month, as 2026-11 in UTC, begins and ends, in seconds since the epoch."""
    begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    years, months = divmod(begin.year * 12 + begin.month, 12)
    end = begin.replace(year=years, month=months + 1)
    return begin.timestamp(), end.timestamp()


def entry_of(what: Job | Rejection) -> IndexEntry:
    """How a job, or a rejection, stands in the index."""
    if isinstance(what, Rejection):
        return IndexEntry(
            id=what.id,
            rejected=True,
            door=what.door,
            input=what.input,
            metadata=what.asked.metadata,
            created=what.created,
        )
    return IndexEntry(
        schema_version=what.schema_version,
        id=what.id,
        door=what.door,
        input=what.input,
        metadata=what.metadata,
        created=what.created,
    )


class ResultLink(BaseModel):
    """An entry of `POST /api/jobs/{id}/links`: whoever has the URL reads the file until then."""

    model_config = ConfigDict(frozen=True)

    name: str
    bytes: int
    url: str
    expires: str
