"""The tables of error codes in the documentation hold what the code refuses with, and no more."""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from workers.api import access, answering, routing
from workers.api.matching import Route
from workers.api.openai import operations

ROOT: Final = Path(__file__).parent.parent.parent
API: Final = ROOT / "workers/api"
Refusal = tuple[int, str]

# Both doors are made with these. What the dashboard's page answers is no contract.
BOTH: Final = ("answering.py", "asking.py", "http.py", "matching.py")
OF_KEYS: Final = ("access.py", "guessing.py")
# What a job's message may be refused for, beside what the doors themselves say.
OF_REQUESTS: Final = ("workers/intake/announcements.py", "workers/intake/doors.py")
OF_DROPS: Final = {"not_jsonl"}
# A batch's place, tenant and name are the door's own, and its body is no message.
NOT_OF_BATCHES: Final = {
    *("invalid_message", "message_too_large", "invalid_name", "wrong_container"),
    *("rerun_unnamed", "unknown_tenant"),
}
# Functions that refuse with a code that is written elsewhere: each is looked up below.
ELSEWHERE: Final = {
    "workers/api/access.py:refusal",
    "workers/api/answering.py:answered",
    "workers/api/matching.py:_refused",
    "workers/api/openai/creating.py:_refused",
    "workers/api/openai/door.py:_model",
    "workers/api/openai/operations.py:_wrong",
}
BODIES: Final = {(400, code) for code in ("invalid_type", "invalid_value")} | {
    (400, code) for code in operations._CODES.values()
}
"""What `read_body` says of a field."""


def calls(path: Path, name: str) -> Iterator[tuple[str, Sequence[object]]]:
    """Each call of a name in a file: where, and its first two arguments; None for what is computed.

    A function within another is walked twice.
    """
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{path.relative_to(ROOT)}:{function.name}"
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name:
                    yield where, [getattr(each, "value", None) for each in node.args[:2]]


def refusals(paths: Collection[Path]) -> set[Refusal]:
    """Status and code of what files refuse with, as they are written there."""
    found = set()
    for path in paths:
        for where, (status, code) in calls(path, "HttpRefusal"):
            if isinstance(status, int) and isinstance(code, str):
                found.add((status, code))
            else:
                assert where in ELSEWHERE, f"{where} refuses with a code that this test cannot see"
    return found


def of_requests() -> set[str]:
    """Codes of what is wrong with a request for a job."""
    paths = map(ROOT.joinpath, OF_REQUESTS)
    found = {code for path in paths for _, (code, *_) in calls(path, "InputError")}
    return {code for code in found if isinstance(code, str)} - OF_DROPS


def unknowns(table: tuple[Route, ...]) -> set[Refusal]:
    """What is said of an id that cannot be one."""
    of_one = [each.operation for each in table if "id" in each.operation.model_fields]
    return {(404, each.unknown[0]) for each in of_one}


def of_both() -> set[Refusal]:
    read_body = API / "openai/operations.py"
    return refusals([*(API / name for name in BOTH), read_body]) | BODIES


def of_api() -> set[Refusal]:
    """What calls under /api are refused with."""
    own = [each for each in API.glob("*.py") if each.name not in (*BOTH, *OF_KEYS)]
    requests = {(answering._STATUS_OF.get(code, 400), code) for code in of_requests()}
    return refusals(own) | of_both() | requests | unknowns(routing.ROUTES)


def of_openai() -> set[Refusal]:
    """What calls under /v1 are refused with."""
    own = [*(API / "openai").glob("*.py"), *(API / name for name in OF_KEYS)]
    requests = {(400, code) for code in of_requests() - NOT_OF_BATCHES}
    tenants = {(404, "unknown_tenant")}  # a key's tenant is known
    keys = {(401, access.WRONG_KEY)}
    return refusals(own) | (of_both() - tenants) | requests | keys | unknowns(operations.ROUTES)


def told(page: str) -> list[Refusal]:
    """The rows of a page's table of errors; what stands in brackets is no code."""
    text = (ROOT / "docs" / page).read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    return [
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*) \|$", text, re.MULTILINE)
        for code in re.findall("`([a-z_]+)`", re.sub(r"\([^)]*\)", "", codes))
    ]


@pytest.mark.parametrize(("page", "door"), [("http.md", of_api), ("openai.md", of_openai)])
def test_each_code_stands_in_the_table_of_its_door_and_no_other_does(
    page: str, door: object
) -> None:
    assert callable(door)
    listed = told(page)
    assert len(listed) == len(set(listed)) > 20
    assert set(listed) == door()


def test_nobody_else_refuses_and_every_exception_is_one() -> None:
    known = {path for path in API.rglob("*.py") if "dashboard" not in path.parts}
    found = [
        (path, where, given)
        for path in (ROOT / "workers").rglob("*.py")
        for where, given in calls(path, "HttpRefusal")
        if "dashboard" not in path.parts
    ]
    assert {path for path, _, _ in found} <= known
    computed = {where for _, where, (_, code) in found if not isinstance(code, str)}
    assert computed == ELSEWHERE
