"""Conditions such as `drop > 0.5 and spikes > 20000`, judged on measured numbers with their intervals.

    condition  = conjunction {"or" conjunction}
    conjunction = negation {"and" negation}
    negation   = "not" negation | comparison
    comparison = sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum]
    sum        = product {("+" | "-") product}
    product    = factor {("*" | "/") factor}
    factor     = "-" factor | number | name | "(" condition ")"

A comparison is true or false where every pair of values inside the intervals makes it so, and None otherwise; `and`,
`or`, `not` follow Kleene's logic of three values. Nothing is ever evaluated as Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from snnconvert.errors import OptionError

Truth = bool | None
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(<=|>=|==|!=|[-+*/()<>]))")
_LONGEST, _DEEPEST = 2000, 30


@dataclass(frozen=True)
class Quantity:
    """A measured number and the interval (95 %) that its true value lies in; equal ends for an exact one."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Quantity:
        return cls(value, value, value)


Known = Mapping[str, Quantity]
_Number = Callable[[Known], Quantity]
_Condition = Callable[[Known], Truth]


@dataclass(frozen=True)
class Condition:
    """A parsed condition: its text, the names it uses, and how to judge it."""

    text: str
    names: tuple[str, ...]
    judge: _Condition


def parse_condition(text: str, names: Collection[str]) -> Condition:
    """Read a condition over `names`.

    Raises:
        OptionError: what is wrong, where, and which names there are.
    """
    parser = _Parser(text, names)
    judge = parser.disjunction(0)
    parser.finish()
    if not isinstance(judge, _Logical):
        raise parser.refused("it is a number, not a comparison")
    if not parser.used:
        raise parser.refused("it names no figure of the report")
    return Condition(text.strip(), tuple(dict.fromkeys(parser.used)), judge.judge)


@dataclass(frozen=True)
class _Logical:
    judge: _Condition


@dataclass(frozen=True)
class _Numeric:
    compute: _Number


_Node = _Logical | _Numeric


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text, self.known, self.used = text, names, list[str]()
        self.tokens, self.place = list[str](), 0
        if len(text) > _LONGEST:
            raise self.refused(f"it has more than {_LONGEST} characters")
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise self.refused(f"{text[position:].strip()[0]!r} at character {position + 1} is not understood")
            self.tokens.append(found.group().strip())
            position = found.end()

    def refused(self, reason: str) -> OptionError:
        return OptionError(
            f"the condition {self.text[:200]!r} cannot be read: {reason}",
            hint=f"write for instance 'drop > 0.5'; the names are {', '.join(sorted(self.known))}",
        )

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *allowed: str) -> str:
        """The next token if it is one of `allowed`, else ""."""
        token = self.peek()
        if token not in allowed:
            return ""
        self.place += 1
        return token

    def finish(self) -> None:
        if self.peek():
            raise self.refused(f"{self.peek()!r} is one too many")

    def disjunction(self, depth: int) -> _Node:
        node = self.conjunction(depth)
        while self.take("or"):
            left, right = self._condition(node), self._condition(self.conjunction(depth))
            node = _Logical(_either_of(left, right))
        return node

    def conjunction(self, depth: int) -> _Node:
        node = self.negation(depth)
        while self.take("and"):
            left, right = self._condition(node), self._condition(self.negation(depth))
            node = _Logical(_both_of(left, right))
        return node

    def negation(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            raise self.refused("it is nested too deeply")
        if self.take("not"):
            inner = self._condition(self.negation(depth + 1))
            return _Logical(lambda known: _negate(inner(known)))
        return self.comparison(depth)

    def comparison(self, depth: int) -> _Node:
        node = self.sum(depth)
        sign = self.take("<", "<=", ">", ">=", "==", "!=")
        if not sign:
            return node
        left, right = self._number(node), self._number(self.sum(depth))
        compare = _COMPARISONS[sign]
        return _Logical(lambda known: compare(left(known), right(known)))

    def sum(self, depth: int) -> _Node:
        node = self.product(depth)
        while sign := self.take("+", "-"):
            left, right = self._number(node), self._number(self.product(depth))
            node = _Numeric(_computed(_ARITHMETIC[sign], left, right))
        return node

    def product(self, depth: int) -> _Node:
        node = self.factor(depth)
        while sign := self.take("*", "/"):
            left, right = self._number(node), self._number(self.factor(depth))
            node = _Numeric(_computed(_ARITHMETIC[sign], left, right))
        return node

    def factor(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            raise self.refused("it is nested too deeply")
        if self.take("-"):
            inner = self._number(self.factor(depth + 1))
            return _Numeric(lambda known: _subtract(Quantity.exact(0.0), inner(known)))
        if self.take("("):
            node = self.disjunction(depth + 1)
            if not self.take(")"):
                raise self.refused("a closing parenthesis is missing")
            return node
        token = self.peek()
        if not token:
            raise self.refused("it ends too early")
        self.place += 1
        if token[0].isdigit() or token[0] == ".":
            number = Quantity.exact(float(token))
            return _Numeric(lambda _: number)
        if token in self.known:
            self.used.append(token)
            return _Numeric(lambda known: known[token])
        raise self.refused(f"{token!r} is not a name it knows" if token[0].isalpha() else f"{token!r} is misplaced")

    def _condition(self, node: _Node) -> _Condition:
        if isinstance(node, _Numeric):
            raise self.refused("`and`, `or` and `not` join comparisons, not numbers")
        return node.judge

    def _number(self, node: _Node) -> _Number:
        if isinstance(node, _Logical):
            raise self.refused("a comparison stands where a number is needed")
        return node.compute


def _both(first: Truth, second: Truth) -> Truth:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _both_of(first: _Condition, second: _Condition) -> _Condition:
    return lambda known: _both(first(known), second(known))


def _either_of(first: _Condition, second: _Condition) -> _Condition:
    return lambda known: _negate(_both(_negate(first(known)), _negate(second(known))))


def _computed(operation: Callable[[Quantity, Quantity], Quantity], first: _Number, second: _Number) -> _Number:
    return lambda known: operation(first(known), second(known))


def _negate(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _less(a: Quantity, b: Quantity) -> Truth:
    return True if a.high < b.low else False if a.low >= b.high else None


def _less_or_equal(a: Quantity, b: Quantity) -> Truth:
    return True if a.high <= b.low else False if a.low > b.high else None


def _equal(a: Quantity, b: Quantity) -> Truth:
    if a.high < b.low or b.high < a.low:
        return False
    return True if a.low == a.high == b.low == b.high else None


_COMPARISONS: dict[str, Callable[[Quantity, Quantity], Truth]] = {
    "<": _less,
    "<=": _less_or_equal,
    ">": lambda a, b: _less(b, a),
    ">=": lambda a, b: _less_or_equal(b, a),
    "==": _equal,
    "!=": lambda a, b: _negate(_equal(a, b)),
}


def _subtract(a: Quantity, b: Quantity) -> Quantity:
    return Quantity(a.value - b.value, a.low - b.high, a.high - b.low)


def _multiply(a: Quantity, b: Quantity) -> Quantity:
    ends = [_product(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Quantity(_product(a.value, b.value), min(ends), max(ends))


def _product(x: float, y: float) -> float:
    return 0.0 if x == 0.0 or y == 0.0 else x * y


def _divide(a: Quantity, b: Quantity) -> Quantity:
    if b.low == b.high == 0.0:
        raise ZeroDivisionError("division by zero")
    if b.low <= 0.0 <= b.high:
        # The quotient can be anything; the condition it stands in then cannot be told.
        value = a.value / b.value if b.value else math.copysign(math.inf, a.value)
        return Quantity(value, -math.inf, math.inf)
    return _multiply(a, Quantity(1.0 / b.value, 1.0 / b.high, 1.0 / b.low))


_ARITHMETIC: dict[str, Callable[[Quantity, Quantity], Quantity]] = {
    "+": lambda a, b: Quantity(a.value + b.value, a.low + b.low, a.high + b.high),
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
}
