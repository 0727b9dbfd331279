"""What a line of input asks for: from bytes to a request with template and defaults applied."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import orjson

from schemas.deployments import Task
from schemas.jobs import Job, JobOptions
from schemas.requests import TASK_OF_URL, URL_OF_TASK, deeper_than
from workers.rows.capped import check_bounded
from workers.rows.carried import carried_by
from workers.rows.dialects import (
    WrongRow,
    check_body,
    custom_id_of,
    dialect_of,
    good_id_of,
    is_request,
    names_itself,
    plain_chat,
    task_and_body,
)
from workers.rows.lines import BLANK, MAX_ADDED_BYTES
from workers.rows.templating import MOST_PLACES, Template

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of a shard, as lines and as requests; what is longer stands alone in one."""
_LOST = "\ufffd".encode()
NO_MODEL = "the row names no model, nor does the job: set the option model"
_NO_DIALECT = (
    "none of url and body, messages, prompt, input, input_data: "
    "the job needs the option template to make a request of it"
)
# orjson reads 1024 levels but writes 254: what could not be written again is refused when read.
_DEEPEST = 100

_SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
)
_DEFAULTS: dict[Task, tuple[str, ...]] = {
    "chat": (*_SAMPLING, "response_format"),
    "completions": _SAMPLING,
    "embeddings": ("dimensions",),
    "image-embeddings": ("dimensions",),
}


class Request(NamedTuple):
    """A row that can be asked. `model` is None where neither row nor job names one.

    `size` is the request's bytes as JSON; a few more at most. `named` tells whether the row gave
    its custom_id, which else is its line's number.
    """

    line: int
    custom_id: str
    task: Task
    model: str | None
    body: dict[str, Any]
    size: int = 0
    named: bool = True

    def as_batch_row(self) -> dict[str, Any]:
        """The request as a row of an OpenAI batch file."""
        return {
            "custom_id": self.custom_id,
            "method": "POST",
            "url": URL_OF_TASK[self.task],
            "body": self.body,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that cannot be asked, and why.

    What is too long to be kept is told by `offset` and `length` in the file, in bytes. `is_object`
    tells whether the row is a JSON object at all, as far as is known.
    """

    line: int
    custom_id: str | None
    code: str
    message: str
    request: dict[str, Any] | None = None
    raw: str | None = None
    offset: int | None = None
    length: int | None = None
    is_object: bool = True


@dataclass(frozen=True, slots=True)
class RowRules:
    """How a job's rows are read: its options, prepared once."""

    options: JobOptions
    max_line_bytes: int
    default_models: Mapping[Task, str]
    defaults: Mapping[Task, Mapping[str, Any]]
    template: Template | None
    alters: bool
    added_bytes: int
    capped: bool

    @property
    def task(self) -> Task | None:
        """The only task that rows may ask for; None where any may be asked."""
        endpoint = None if self.options.mixed else self.options.endpoint
        return None if endpoint is None else TASK_OF_URL[endpoint]

    def template_of(self, row: dict[str, Any]) -> Template | None:
        """The template, where it makes the request of a row."""
        for_all = self.options.template_for == "all_rows"
        return self.template if for_all or not is_request(row) else None

    @classmethod
    def of(
        cls,
        options: JobOptions,
        *,
        max_line_bytes: int,
        default_models: Mapping[Task, str] | None = None,
        monthly: bool = False,
        pinned: bool = False,
    ) -> "RowRules":
        """Prepare the rules; `monthly` is whether a month's cap holds. Raises ValueError where the
        template is wrong, or has more places than one may have that is not `pinned` with a job.
        """
        template = None
        if options.template is not None:
            # Earlier releases took any number of places: a job that stands is done as it stands.
            most_places = inf if pinned else MOST_PLACES
            template = Template(options.template, options.on_missing, most_places)
        defaults = {task: _defaults(options, names) for task, names in _DEFAULTS.items()}
        alters = any(defaults.values()) or options.system_prompt is not None
        added = len(orjson.dumps([defaults, options.system_prompt])) if alters else 0
        models = default_models or {}
        named = options.max_cost is not None or options.max_total_tokens is not None
        capped = named or monthly
        return cls(options, max_line_bytes, models, defaults, template, alters, added, capped)


def rules_of(job: Job, default_models: Mapping[Task, str]) -> RowRules:
    """How a job's rows are read."""
    return RowRules.of(
        job.options,
        max_line_bytes=job.max_line_bytes,
        default_models=default_models,
        monthly=job.monthly,
        pinned=True,
    )


def _defaults(options: JobOptions, names: Iterable[str]) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in names}
    return options.parameters | {k: v for k, v in given.items() if v is not None}


@dataclass(slots=True)
class _Reading:
    """What is known of a line so far; `data` becomes what a line of errors.jsonl carries."""

    data: bytes
    custom_id: str | None = None
    is_object: bool = False
    is_request: bool = False


def read_row(
    line: int, data: bytes, rules: RowRules, offset: int = 0, length: int | None = None
) -> Request | Refusal:
    """Read one line. Nothing is raised: what is wrong is a `Refusal` with line and reason.

    `offset` and `length` are the line's in its file; of a long one `data` may be the beginning.
    """
    reading = _Reading(data)
    try:
        row = _unwrapped(reading, rules.max_line_bytes)
        return _request(line, reading, row, rules)
    except WrongRow as wrong:
        if len(reading.data) > rules.max_line_bytes and not reading.is_request:
            return _too_long(line, reading, wrong, offset, length or len(data))
        request = reading.is_request
        return Refusal(
            line,
            reading.custom_id,
            wrong.code,
            f"line {line}: {wrong}",
            request=orjson.loads(reading.data) if request else None,
            raw=None if request else reading.data.decode("utf-8", "replace"),
            is_object=reading.is_object,
        )


def _too_long(line: int, reading: _Reading, wrong: WrongRow, offset: int, length: int) -> Refusal:
    return Refusal(
        line,
        reading.custom_id,
        wrong.code,
        f"line {line}: {length:,} bytes at offset {offset:,} of the file: {wrong}",
        offset=offset,
        length=length,
        is_object=reading.data.lstrip(BLANK).startswith(b"{"),
    )


def _unwrapped(reading: _Reading, longest: int) -> dict[str, Any]:
    """The row in a line; of a line of errors.jsonl, the row that failed.

    It is read as if that one stood here itself, so that however often a file of errors is dropped
    again, its lines do not wrap each other.
    """
    row: dict[str, Any] | None = None
    if len(reading.data) <= longest:
        row = _parse(reading.data)
        reading.is_object = True
    while row is None or ("error" in row and dialect_of(row) == "error"):
        carried = carried_by(reading.data, longest)
        if carried is None and row is not None:
            break
        if carried is None:
            raise WrongRow(
                "line_too_long",
                f"{longest:,} are the most: shorten it, or raise MAX_LINE_BYTES",
            )
        reading.data, reading.is_object = carried.data, True
        reading.custom_id = good_id_of({"custom_id": carried.custom_id}) or reading.custom_id
        if not carried.is_request and _LOST in carried.data:
            # What was lost when a line was kept must not be asked without it.
            raise WrongRow("raw_incomplete", "not all of it was kept: take it from the first file")
        row = _parse(carried.data)
        if carried.is_request:
            refuse_deep(row, carried.data)
            reading.is_request = True
    return row


def _parse(data: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WrongRow("invalid_json", _why_not_json(data, error)) from None
    if not isinstance(row, dict):
        raise WrongRow("invalid_row", "a row has to be a JSON object")
    return row


def refuse_deep(row: dict[str, Any], data: bytes) -> None:
    """Raise WrongRow for a row that is nested too deep to be written again; `data` is its line."""
    if data.count(b"{") + data.count(b"[") > _DEEPEST and deeper_than(row, _DEEPEST):
        raise WrongRow("invalid_json", f"nested deeper than {_DEEPEST} levels")


def _why_not_json(data: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 at byte {wrong.start}: save the file as UTF-8"
    # The decoder's words quote nothing of the line: it names the fault and the place.
    return f"not JSON: {error.msg} at character {error.pos}"


def _request(line: int, reading: _Reading, row: dict[str, Any], rules: RowRules) -> Request:
    data, size, made = reading.data, len(reading.data), row
    if not reading.is_request and (template := rules.template_of(row)) is not None:
        reading.custom_id = good_id_of(row, data) or reading.custom_id
        refuse_deep(row, data)
        made, size = _filled(template, row, rules.max_line_bytes + MAX_ADDED_BYTES)
    given = custom_id_of(made) if made is not row and names_itself(made) else None
    reading.custom_id = given or custom_id_of(row, data) or reading.custom_id
    dialect = dialect_of(made)
    if dialect == "other":
        refuse_deep(made, data)
        raise WrongRow("unknown_row", _NO_DIALECT)
    task, body = task_and_body(made, dialect)
    if rules.task not in (None, task):
        asked, wanted = URL_OF_TASK[task], rules.options.endpoint
        raise WrongRow("url_mismatch", f"the row asks for {asked}, the job for {wanted}")
    body = completed(task, body, rules)
    if not (task == "chat" and plain_chat(body)):
        refuse_deep(made, data)
        check_body(task, body)
    if rules.capped:
        check_bounded(task, body)
    size += rules.added_bytes
    named = reading.custom_id is not None
    model = body.get("model")
    return Request(line, reading.custom_id or str(line), task, model, body, size, named)


def _filled(template: Template, row: dict[str, Any], most: int) -> tuple[dict[str, Any], int]:
    """What the template makes of a row, and its size in bytes."""
    filled, size = template.fill(row, most)
    if not isinstance(filled, dict) or dialect_of(filled) in ("other", "error"):
        raise WrongRow("unknown_row", "the template makes no request of it")
    return filled, size


def completed(task: Task, body: dict[str, Any], rules: RowRules) -> dict[str, Any]:
    """A row's body with what the job's options add, and the model that it asks."""
    if rules.alters:
        body = _with_defaults(task, body, rules)
    if body.get("model") is None:
        model = rules.options.model or rules.default_models.get(task)
        if model is not None:
            body["model"] = model
    return body


def _with_defaults(task: Task, body: dict[str, Any], rules: RowRules) -> dict[str, Any]:
    if defaults := rules.defaults[task]:
        body = {**defaults, **body}
    system_prompt = rules.options.system_prompt
    if task == "chat" and system_prompt is not None:
        messages = body.get("messages")
        if isinstance(messages, list) and not any(
            isinstance(m, dict) and m.get("role") in ("system", "developer") for m in messages
        ):
            body["messages"] = [{"role": "system", "content": system_prompt}, *messages]
    return body
