"""SQL filters: an expression in Service Bus's subset of SQL-92, compiled to a predicate.

Source: "Subscription rule SQL filter syntax", Microsoft Learn. A message matches only where the
whole expression is true, not where it is unknown (see `operators`).

    expression := and-term {OR and-term}        predicate := sum [comparison | IN | LIKE | IS NULL]
    and-term   := factor {AND factor}           sum       := product {(+|-) product}
    factor     := NOT factor | predicate        product   := unary {(*|/|%) unary}
"""

import operator
import re

from .filters import Rule
from .message import PROPERTY_FIELDS, Facts
from .operators import (
    ARITHMETIC,
    COMPARISONS,
    Expression,
    binary,
    both,
    either,
    like,
    literal,
    negation,
)

_TOKENS = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    | '(?P<string>(?:[^']|'')*)'
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*|\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+")
    | (?P<sign><>|!=|<=|>=|[=<>+\-*/%(),.])
    )""",
    re.VERBOSE,
)
_SYSTEM_SCOPE = {name.lower(): name for name in PROPERTY_FIELDS}
_RESERVED = {"AND", "OR", "NOT", "IN", "LIKE", "ESCAPE", "IS", "NULL", "EXISTS", "TRUE", "FALSE"}


class SqlError(ValueError):
    """The expression is not in the subset; the message gives the place."""


def sql_rule(text: str) -> Rule:
    """Compile a filter expression.

    Raises:
        SqlError: the expression is not in the subset.
    """
    parser = _Parser(text)
    expression = parser.disjunction()
    parser.finish()
    return lambda facts: expression(facts) is True


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKENS.match(text, position)
        if match is None or match.lastgroup is None:
            raise SqlError(f"cannot read {text[position:]!r}")
        kind, value, position = match.lastgroup, match[match.lastgroup], match.end()
        if kind == "name" and value.upper() in _RESERVED:
            kind, value = "word", value.upper()
        elif kind == "name" and value[0] in '["':
            value = value[1:-1].replace("]]", "]").replace('""', '"')
        elif kind == "string":
            value = value.replace("''", "'")
        tokens.append((kind, value))
    return [*tokens, ("end", "")]


class _Parser:
    """Recursive descent; one method for each rule of the grammar above."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._next = text, _tokens(text), 0

    def _take(self, kind: str, *values: str) -> str | None:
        """The next token if it is one of these, which is then done with."""
        found, value = self._tokens[self._next]
        if found != kind or (values and value not in values):
            return None
        self._next += 1
        return value

    def _expect(self, kind: str, *values: str) -> str:
        taken = self._take(kind, *values)
        if taken is None:
            found = self._tokens[self._next][1] or "the end"
            raise SqlError(f"{' or '.join(values) or kind} expected at {found} in {self._text!r}")
        return taken

    def finish(self) -> None:
        self._expect("end")

    def disjunction(self) -> Expression:
        left = self._conjunction()
        while self._take("word", "OR"):
            left = either(left, self._conjunction())
        return left

    def _conjunction(self) -> Expression:
        left = self._factor()
        while self._take("word", "AND"):
            left = both(left, self._factor())
        return left

    def _factor(self) -> Expression:
        if self._take("word", "NOT"):
            return negation(self._factor())
        return self._predicate()

    def _predicate(self) -> Expression:
        left = self._sum()
        if sign := self._take("sign", *COMPARISONS):
            return binary(COMPARISONS[sign], left, self._sum())
        if self._take("word", "IS"):
            negated = self._take("word", "NOT")
            self._expect("word", "NULL")
            return lambda facts: (left(facts) is None) != bool(negated)
        negated = self._take("word", "NOT")
        if self._take("word", "IN"):
            test = self._membership(left)
        elif self._take("word", "LIKE"):
            test = self._likeness(left)
        elif negated:
            raise SqlError(f"NOT must be followed by IN or LIKE in {self._text!r}")
        else:
            return left
        return negation(test) if negated else test

    def _membership(self, left: Expression) -> Expression:
        self._expect("sign", "(")
        tests = [binary(operator.eq, left, self._sum())]
        while self._take("sign", ","):
            tests.append(binary(operator.eq, left, self._sum()))
        self._expect("sign", ")")
        found = tests[0]
        for test in tests[1:]:
            found = either(found, test)
        return found

    def _likeness(self, left: Expression) -> Expression:
        pattern = self._expect("string")
        escape = self._expect("string") if self._take("word", "ESCAPE") else ""
        compiled = like(pattern, escape)

        def test(facts: Facts) -> bool | None:
            value = left(facts)
            return compiled.fullmatch(value) is not None if isinstance(value, str) else None

        return test

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._take("sign", "+", "-"):
            left = binary(ARITHMETIC[sign], left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._take("sign", "*", "/", "%"):
            left = binary(ARITHMETIC[sign], left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take("sign", "-"):
            return binary(operator.sub, literal(0), self._unary())
        if self._take("sign", "+"):
            return self._unary()
        if self._take("sign", "("):
            inner = self.disjunction()
            self._expect("sign", ")")
            return inner
        return self._operand()

    def _operand(self) -> Expression:
        if (text := self._take("string")) is not None:
            return literal(text)
        if number := self._take("number"):
            return literal(float(number) if re.search(r"[.eE]", number) else int(number))
        if word := self._take("word", "TRUE", "FALSE", "NULL"):
            return literal({"TRUE": True, "FALSE": False, "NULL": None}[word])
        if self._take("word", "EXISTS"):
            self._expect("sign", "(")
            inner = self._property()
            self._expect("sign", ")")
            return lambda facts: inner(facts) is not None
        return self._property()

    def _property(self) -> Expression:
        name = self._expect("name")
        scope = "user"
        if self._take("sign", "."):
            scope, name = name.lower(), self._expect("name")
        if scope == "user":
            return _application_property(name.lower())
        known = _SYSTEM_SCOPE.get(name.lower())
        if scope != "sys" or known is None:
            raise SqlError(f"there is no property {scope}.{name}")
        return lambda facts: facts.system.get(known)


def _application_property(lowered: str) -> Expression:
    """The value of the application property of this name, whatever its case."""
    return lambda facts: next(
        (value for key, value in facts.application.items() if str(key).lower() == lowered), None
    )
