"""What will the service make of a file? Its own rules, read here, before anything is sent."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain
from os import SEEK_END
from typing import Any, BinaryIO, Final

from phi3batch.mistakes import Mistake
from phi3batch.tasks import not_asked_in
from schemas.estimating import EstimateGroup
from schemas.jobs import JobOptions
from workers.dispatch.token_estimates import Estimator
from workers.intake.formats import HEAD_BYTES, what_it_is
from workers.intake.pieces import Run, Scanner, seen
from workers.intake.planning import Draft, DuplicateFinder
from workers.rows.capped import UNBOUNDED, check_bounded
from workers.rows.dialects import WrongRow, told_apart
from workers.rows.lines import Line, kept_bytes, line_content
from workers.rows.reading import Refusal, Request, RowRules, read_row
from workers.rows.reasons import DUPLICATE
from workers.rows.sizes import AskedKind, Size, SizeSum, measure
from workers.rows.token_ranges import groups_of

FIRST_REQUESTS: Final = 3
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""The service's own limit, unless its setting MAX_LINE_BYTES says otherwise."""
_MOST_ASKED: Final = 200
_LONG_LINES: Final = 10
_PIECE_BYTES: Final = 1024 * 1024
_TOO_LONG: Final = "context_length_exceeded"
# A service whose MAX_LINE_BYTES is larger asks such rows.
_BY_LENGTH: Final = ("line_too_long", "request_too_large")
DUPLICATE_CODE: Final = "duplicate_custom_id"
# Phi-3's models tell it in their names: Phi-3-mini-4k-instruct, Phi-3-small-128k-instruct.
_IN_NAME: Final = re.compile(r"-(\d{1,4})k(?:-|$)", re.IGNORECASE)


@dataclass(slots=True)
class Report:
    """What a file came to. Tokens are estimates, as the service makes them before it has asked.

    `perhaps_too_long` are rows that by these estimates do not fit into their model's context,
    though the service will ask them, and `long_lines` the first of them; `contextless` are those
    whose model's context is not known. `foreign` says what the file is where it is no JSON Lines,
    `beyond` from which line on its rows would be more than one job can have.
    `pledged` are the most tokens that prompts and answers can be billed for, where they are
    counted; None where a cap would refuse a row, and where rows of many kinds are counted as one.
    """

    rows: int = 0
    requests: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    asked: dict[AskedKind, SizeSum] = field(default_factory=dict)
    pledged: dict[AskedKind, tuple[int, int] | None] = field(default_factory=dict)
    without_model: int = 0
    perhaps_too_long: int = 0
    long_lines: list[int] = field(default_factory=list)
    contextless: int = 0
    prompt_tokens: float = 0
    answer_tokens: float = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    foreign: str | None = None
    beyond: int | None = None

    @property
    def refused(self) -> int:
        """Rows that the service would not ask."""
        return self.codes.total()

    def pledge(self, kind: AskedKind, most: tuple[int, int] | None) -> None:
        """Count what one call can be billed for."""
        sums = self.pledged.get(kind, (0, 0))
        both = None if sums is None or most is None else (sums[0] + most[0], sums[1] + most[1])
        self.pledged[kind] = both

    @property
    def bounded(self) -> bool:
        """Whether `pledged` is of all that the service may ask."""
        return None not in self.pledged.values() and not any(map(self.codes.get, _BY_LENGTH))

    @property
    def groups(self) -> list[EstimateGroup]:
        """The requests by what they ask for, as an estimate takes them."""
        kinds = self.asked.items()
        means = {kind: each.mean for kind, each in kinds}
        return groups_of(means, {kind: each.count for kind, each in kinds}, self.pledged)


def rules_for(options: JobOptions, max_line_bytes: int = MAX_LINE_BYTES) -> RowRules:
    """How rows are read. Raises Mistake where the template is wrong."""
    try:
        return RowRules.of(options, max_line_bytes=max_line_bytes)
    except ValueError as error:
        raise Mistake(f"option template: {error}") from None


@dataclass(slots=True)
class Checker:
    """Reads a file as the service's intake does. `contexts` are tokens by model.

    `pledging` has it count for how many tokens calls are pledged, of all that the service would
    ask, for it knows no contexts. That takes two thirds as long again.
    """

    rules: RowRules
    contexts: Mapping[str, int] = field(default_factory=dict)
    pledging: bool = False
    report: Report = field(default_factory=Report)
    _estimator: Estimator = field(default_factory=Estimator)

    def refusals(self, file: BinaryIO) -> Iterator[Refusal]:
        """Each row that would not be asked, in order, those of repeated custom_ids at the end.

        Of a file that is no JSON Lines there are none: `report` says what it is. `report` is
        complete once there are no more. The file is read twice where ids may repeat.
        """
        draft, held, strange = Draft(file.seek(0, SEEK_END)), list[Refusal](), True
        survey, finder = draft.survey, draft.finder
        for line in lines_in(file, self.rules.max_line_bytes):
            row = self._read(line)
            draft.add([(line.offset, line.length, seen(row))])
            if (refusal := self._judge(row)) is not None:
                held.append(refusal)
            if survey.is_foreign:
                break
            strange = strange and isinstance(row, Refusal) and not row.is_object
            if not strange:
                yield from held
                held.clear()
        draft.close()
        self.report.beyond = draft.beyond
        if survey.is_foreign:
            file.seek(0)
            self.report.foreign = what_it_is(file.read(HEAD_BYTES))
            return
        yield from held
        if finder.candidates():
            self.report.first.clear()
            yield from self._repeated(file, finder)

    def _read(self, line: Line) -> Request | Refusal:
        row = read_row(line.number, line.content, self.rules, line.offset, line.length)
        if isinstance(row, Refusal) and row.raw is not None and (why := not_asked_in(row.raw)):
            return replace(row, custom_id=why.custom_id, code=why.code, message=why.message)
        return row

    def _judge(self, row: Request | Refusal) -> Refusal | None:
        """Count a row; the refusal where the service would not ask it."""
        self.report.rows += 1
        if isinstance(row, Request):
            size = measure(row.task, row.body)
            refusal = self._too_long(row, size)
            if refusal is None:
                self._note(row, size)
        else:
            refusal = row
        if refusal is not None:
            self.report.codes[refusal.code] += 1
        return refusal

    def _note(self, request: Request, size: Size) -> None:
        """Count a request."""
        prompt = self._estimator.prompt(size)
        answer = self._estimator.total(size) - prompt
        context = self._context(request.model)
        report = self.report
        report.requests += 1
        report.prompt_tokens += prompt
        report.answer_tokens += answer
        report.tasks[request.task] += 1
        report.without_model += request.model is None
        kind: AskedKind = (request.task, request.model)
        # Bounded, whatever the file claims: the rest counts as if it named no model.
        if lumped := kind not in report.asked and len(report.asked) >= _MOST_ASKED:
            kind = (request.task, None)
        report.asked.setdefault(kind, SizeSum()).add(size)
        if self.pledging:
            report.pledge(kind, None if lumped else _most(request))
        report.contextless += context is None
        if context is not None and prompt + answer > context:
            report.perhaps_too_long += 1
            if len(report.long_lines) < _LONG_LINES:
                report.long_lines.append(request.line)
        self._show(request)

    def _show(self, request: Request) -> None:
        if len(self.report.first) < FIRST_REQUESTS:
            self.report.first.append(request.as_batch_row())

    def _too_long(self, request: Request, size: Size) -> Refusal | None:
        """The refusal of a request that surely does not fit into its model's context."""
        context = None if self.pledging else self._context(request.model)
        if context is None or self._estimator.least_read(size) <= context:
            return None
        return _refusal(
            request,
            _TOO_LONG,
            f"it has more tokens than the {context:,} that {request.model or 'the model'} can "
            "read at a time: shorten it, or name a model with a longer context",
        )

    def _context(self, model: str | None) -> int | None:
        if model is None:
            return self.contexts.get("")
        known = self.contexts.get(model, self.contexts.get(""))
        return context_in_name(model) if known is None else known

    def _repeated(self, file: BinaryIO, finder: DuplicateFinder) -> Iterator[Refusal]:
        for line in lines_in(file, self.rules.max_line_bytes):
            row = self._read(line)
            if isinstance(row, Refusal):
                continue
            repeated = finder.confirm(row.line, row.custom_id, named=row.named)
            if not repeated and len(self.report.first) == FIRST_REQUESTS:
                continue
            if self._too_long(row, measure(row.task, row.body)) is not None:
                continue
            if not repeated:
                self._show(row)
            elif self.rules.options.on_duplicate == "number":
                self._show(row._replace(custom_id=told_apart(row.custom_id, row.line)))
            else:
                self._forget(row)
                yield _refusal(row, DUPLICATE_CODE, DUPLICATE)

    def _forget(self, request: Request) -> None:
        """Count a request as refused that was counted as one that is asked."""
        report = self.report
        report.codes[DUPLICATE_CODE] += 1
        report.requests -= 1
        report.tasks[request.task] -= 1
        report.without_model -= request.model is None


def first_unbounded(file: BinaryIO, options: JobOptions) -> Refusal | None:
    """The first row for which a job with a cap would fail: nothing bounds what it may cost.

    None too where the options name no cap: whether its tenant's month has one is not known here.
    """
    if not options.capped:
        return None
    scanner = Scanner(rules_for(options))
    pieces = iter(partial(file.read, _PIECE_BYTES), b"")
    for rows in chain(chain.from_iterable(map(scanner.feed, pieces)), scanner.close()):
        if isinstance(rows, Run):
            continue  # usual rows, all of which can be asked
        for _, _, row in rows:
            if isinstance(row, Refusal) and row.code == UNBOUNDED:
                return row
    return None


@lru_cache(maxsize=256)
def context_in_name(model: str) -> int | None:
    """The context that a model's name tells, in tokens."""
    match = _IN_NAME.search(model)
    return None if match is None else int(match[1]) * 1024


def lines_in(file: BinaryIO, longest: int) -> Iterator[Line]:
    """The lines of a file that are not blank; of one that is too long, no more than is judged."""
    kept = kept_bytes(longest) + 1
    number, offset = 1, 0
    file.seek(0)
    while line := file.readline(kept):
        length, last = len(line), line
        while not last.endswith(b"\n") and (last := file.readline(kept)):
            length += len(last)
        own = length - last.endswith(b"\n")
        if content := line_content(line.removesuffix(b"\n"), number, longest):
            yield Line(number, offset, own, content)
        number += 1
        offset += length


def _most(request: Request) -> tuple[int, int] | None:
    """The most tokens of a call; None where a cap would refuse its row."""
    try:
        return check_bounded(request.task, request.body)
    except WrongRow:
        return None


def _refusal(request: Request, code: str, message: str) -> Refusal:
    return Refusal(request.line, request.custom_id, code, f"line {request.line}: {message}")
