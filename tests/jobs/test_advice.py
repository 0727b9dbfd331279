"""What is told to do about rows without an answer: something of its own for each code of ours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import workers
from schemas.results import CodeCount
from workers.jobs.advice import advised
from workers.rows.reasons import ADVICE

ROOT = Path(workers.__file__).parent
FILES = [
    file
    for place in ("rows", "shards", "dispatch", "adapters/endpoints")
    for file in (ROOT / place).rglob("*.py")
]
# What gives a row its code, and where the code stands among its arguments.
GIVERS = {
    "WrongRow": 0,
    "unusable": 0,
    "_not_sent": 0,
    "Reason": 0,
    "_refusal": 1,
    "Refusal": 2,
    "Outcome": 4,
    "replace": 1,
}
OF_THE_JOB = {
    "input_changed": "the whole job fails for it",
    "invalid_message": "of a message, which has no rows",
}
USUAL = "stands in the message of each such line"


def advice(code: str) -> str:
    [told] = advised({code: CodeCount(rows=1, line=1)})
    return told.advice


def texts(node: ast.expr, known: dict[str, str]) -> Iterator[str]:
    """The texts that an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name) if name in known:
            yield known[name]
        case ast.IfExp(body=one, orelse=other):
            yield from (*texts(one, known), *texts(other, known))
        case ast.BoolOp(values=values):
            for each in values:
                yield from texts(each, known)


def given() -> set[str]:
    """The codes that this service itself gives to rows."""
    trees = [ast.parse(file.read_text()) for file in FILES]
    known = {
        target.id: value.value
        for tree in trees
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in (
            statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        )
        if isinstance(target, ast.Name)
        and isinstance(value := statement.value, ast.Constant)
        and isinstance(value.value, str)
    }
    found: set[str] = set()
    for tree in trees:
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            place = GIVERS.get(call.func.id)
            if place is None:
                continue
            codes = [each.value for each in call.keywords if each.arg == "code"]
            for each in codes or call.args[place : place + 1]:
                found.update(texts(each, known))
    return found


def test_each_code_that_the_service_gives_a_row_has_advice_of_its_own() -> None:
    codes = given()
    assert codes >= {"invalid_json", "unknown_cost", "unknown_model", "no_price", "deadline"}
    assert codes >= {"template_field", "worker_crashed", "unwritable_answer", "connect_failed"}
    usual = {code for code in codes - OF_THE_JOB.keys() if USUAL in advice(code)}
    assert usual == set()
    assert all(ADVICE[kind] == advice(kind) for kind in ADVICE if kind != "ok")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InternalServerError", "transient"),
        ("internal_server_error", "transient"),
        ("connection_lost", "transient"),
        ("reported_error", "transient"),
        ("http_500", "transient"),
        ("http_503", "transient"),
        ("http_424", "transient"),
        ("http_403", "auth"),
        ("http_429", "throttled"),
        ("http_302", "gone"),
        ("http_404", "gone"),
        ("http_422", "bad_request"),
        ("ResponsibleAIPolicyViolation", "content_filter"),
        ("DeploymentNotFound", "gone"),
    ],
)
def test_usual_codes_of_endpoints_have_the_advice_of_what_they_mean(code: str, kind: str) -> None:
    assert advice(code) == ADVICE[kind]


def test_of_a_code_that_nobody_knows_the_message_has_to_tell() -> None:
    # A status below 300 refuses nothing.
    for code in ("teapot", "http_", "http_x", "http_200", "http_204", "http_100"):
        assert USUAL in advice(code)
