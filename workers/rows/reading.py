"""What a line of input asks for: from bytes to a request with template and defaults applied."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from schemas.deployments import Task
from schemas.jobs import Job, JobOptions
from schemas.requests import URL_OF_TASK, deeper_than, dialect_of
from workers.rows.dialects import IDS, WrongRow, check_body, plain_chat, task_and_body
from workers.rows.templating import Template

RAW_BYTES = 64 * 1024
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of a shard, as lines and as requests; what is longer stands alone in one."""
MAX_ADDED_BYTES = 4 * 1024 * 1024
"""What template, system prompt and defaults may add to the longest line."""
_LOST = "\ufffd".encode()
NO_MODEL = "the row names no model, nor does the job: set the option model"
_NO_DIALECT = (
    "none of url and body, messages, prompt, input, input_data: "
    "the job needs the option template to make a request of it"
)
_BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r"
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

    `size` is the request's bytes as JSON; a few more at most.
    """

    line: int
    custom_id: str
    task: Task
    model: str | None
    body: dict[str, Any]
    size: int = 0

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
    """A row that cannot be asked, and why."""

    line: int
    custom_id: str | None
    code: str
    message: str
    request: dict[str, Any] | None = None
    raw: str | None = None


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

    @property
    def takes_usual(self) -> bool:
        """Whether a batch row is asked as it stands."""
        return not self.alters and (self.template is None or not self._for_all)

    def template_of(self, row: dict[str, Any]) -> Template | None:
        """The template, where it makes the request of a row."""
        return self.template if self._for_all or dialect_of(row) == "other" else None

    @property
    def _for_all(self) -> bool:
        return self.options.template_for == "all_rows"

    @classmethod
    def of(
        cls,
        options: JobOptions,
        *,
        max_line_bytes: int,
        default_models: Mapping[Task, str] | None = None,
    ) -> "RowRules":
        """Prepare the rules. Raises ValueError where the template is wrong."""
        template = None
        if options.template is not None:
            template = Template(options.template, options.on_missing)
        defaults = {task: _defaults(options, names) for task, names in _DEFAULTS.items()}
        alters = any(defaults.values()) or options.system_prompt is not None
        added = len(orjson.dumps([defaults, options.system_prompt])) if alters else 0
        models = default_models or {}
        return cls(options, max_line_bytes, models, defaults, template, alters, added)


def rules_of(job: Job, default_models: Mapping[Task, str]) -> RowRules:
    """How a job's rows are read."""
    return RowRules.of(
        job.options, max_line_bytes=job.max_line_bytes, default_models=default_models
    )


def _defaults(options: JobOptions, names: Iterable[str]) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in names}
    return options.parameters | {k: v for k, v in given.items() if v is not None}


def split_lines(data: bytes, first_line: int, longest: int) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of each line that is not blank; only newlines separate.

    A line of more than `longest` bytes is never blank: whatever reads it may hold its beginning
    only, and all have to agree on which lines are rows.
    """
    for number, line in enumerate(data.split(b"\n"), first_line):
        if content := line_content(line, number, longest):
            yield number, content


def line_content(line: bytes, number: int, longest: int) -> bytes:
    """A line without the blanks around it, and without the byte order mark of its file."""
    if len(line) > longest:
        return line
    if number == 1:
        line = line.removeprefix(_BOM)
    return line.strip(BLANK)


def read_row(line: int, data: bytes, rules: RowRules) -> Request | Refusal:
    """Read one line. Never raises: what is wrong with it is a `Refusal` with line and reason."""
    if len(data) > rules.max_line_bytes:
        message = (
            f"line {line} is longer than {rules.max_line_bytes:,} bytes: "
            "shorten it, or raise MAX_LINE_BYTES"
        )
        return Refusal(line, None, "line_too_long", message, raw=raw_text(data))
    custom_id: str | None = None
    request: dict[str, Any] | None = None
    try:
        row, size = _parse(data), len(data)
        if "error" in row and dialect_of(row) == "error":
            _refuse_deep(row, data)
            custom_id = _custom_id({"custom_id": row.get("custom_id")})
            # From here on it is as if the line that failed stood here itself, so that however
            # often a file of errors is dropped again, its lines do not wrap each other.
            request, data = _failed(row)
            if request is None:
                _refuse_incomplete(data)
            row, size = _parse(data), len(data)
        if request is None and (template := rules.template_of(row)) is not None:
            custom_id = _given_id(row) or custom_id
            _refuse_deep(row, data)
            row, size = _filled(template, row, rules.max_line_bytes + MAX_ADDED_BYTES)
        custom_id = _custom_id(row) or custom_id
        return _request(line, custom_id, row, data, rules, size=size + rules.added_bytes)
    except WrongRow as wrong:
        raw = raw_text(data) if request is None else None
        return Refusal(line, custom_id, wrong.code, f"line {line}: {wrong}", request, raw)


def raw_text(data: bytes) -> str:
    """The first 64 KiB of a line as text."""
    return data[:RAW_BYTES].decode("utf-8", "replace")


def _parse(data: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WrongRow("invalid_json", _why_not_json(data, error)) from None
    if not isinstance(row, dict):
        raise WrongRow("invalid_row", "a row has to be a JSON object")
    return row


def _refuse_deep(row: dict[str, Any], data: bytes) -> None:
    if data.count(b"{") + data.count(b"[") > _DEEPEST and deeper_than(row, _DEEPEST):
        raise WrongRow("invalid_json", f"nested deeper than {_DEEPEST} levels")


def _why_not_json(data: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 at byte {wrong.start}: save the file as UTF-8"
    # The decoder's words quote nothing of the line: it names the fault and the place.
    return f"not JSON: {error.msg} at character {error.pos}"


def _failed(row: Mapping[str, Any]) -> tuple[dict[str, Any] | None, bytes]:
    """Of a line of errors.jsonl: its request as such and as a line, or the line that was none."""
    request, raw = row.get("request"), row.get("raw")
    if isinstance(request, dict):
        return request, orjson.dumps(request)
    if not isinstance(raw, str):
        raise WrongRow("invalid_row", "an error row without a request cannot be asked again")
    return None, raw.encode()


def _refuse_incomplete(raw: bytes) -> None:
    """What was lost when a line was kept must not be asked without it."""
    if len(raw) >= RAW_BYTES or _LOST in raw:
        raise WrongRow("raw_incomplete", "not all of it was kept: take it from the first file")


def _given_id(row: Mapping[str, Any]) -> str | None:
    """A row's custom_id, if it has a good one."""
    try:
        return _custom_id(row)
    except WrongRow:
        return None


def _custom_id(row: Mapping[str, Any]) -> str | None:
    for name in IDS:
        value = row.get(name)
        if type(value) is str and 1 <= len(value) <= 512:
            return value
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise WrongRow("invalid_row", f"{name} has to be a string")
        if isinstance(value, str):
            raise WrongRow("invalid_row", f"{name} has to have 1 to 512 characters")
        return str(value)
    return None


def _request(
    line: int,
    custom_id: str | None,
    row: dict[str, Any],
    data: bytes,
    rules: RowRules,
    *,
    size: int,
) -> Request:
    dialect = dialect_of(row)
    if dialect == "other":
        _refuse_deep(row, data)
        raise WrongRow("unknown_row", _NO_DIALECT)
    task, body = task_and_body(row, dialect)
    if rules.alters:
        body = _with_defaults(task, body, rules)
    model = body.get("model")
    if model is None:
        model = rules.options.model or rules.default_models.get(task)
        if model is not None:
            body["model"] = model
    if not (task == "chat" and plain_chat(body)):
        _refuse_deep(row, data)
        check_body(task, body)
    return Request(line, custom_id or str(line), task, model, body, size)


def _filled(template: Template, row: dict[str, Any], most: int) -> tuple[dict[str, Any], int]:
    """What the template makes of a row, and its size in bytes.

    The row's own ids stand where the template gives none.
    """
    filled, size = template.fill(row, most)
    if not isinstance(filled, dict) or dialect_of(filled) in ("other", "error"):
        raise WrongRow("unknown_row", "the template makes no request of it")
    if any(filled.get(name) is not None for name in IDS):
        return filled, size
    return {**{name: row[name] for name in IDS if name in row}, **filled}, size


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
