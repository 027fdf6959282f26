"""Conditions such as `drop > 0.5 and spikes > 20000`, judged on measured numbers with their intervals.

A condition is read as a Python expression of which only this is allowed: numbers, names of figures, `+ - * /`, one
comparison between two sums, `and`, `or`, `not`, parentheses. Nothing is ever evaluated as Python. A comparison is true
or false where every pair of values inside the intervals makes it so, and None otherwise; `and`, `or`, `not` follow
Kleene's logic of three values.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import reduce

from snnconvert.errors import OptionError, did_you_mean

Truth = bool | None
# Python itself takes 200 parentheses inside each other
_LONGEST, _DEEPEST, _MOST_PARENTHESES = 2000, 30, 150
_UNFINISHED = re.compile(r"(^|[-+*/<>=!(]|\b(and|or|not))$")
_FOREIGN = re.compile(r"[^A-Za-z0-9_ .<>=!+\-*/()]")
_LEADING_ZEROS = re.compile(r"(?<![\w.])0+(?=\d)")


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
        OptionError: what is wrong, at which character, and which names there are.
    """
    reader = _Reader(_LEADING_ZEROS.sub("", " ".join(text.split())), names)
    judge = reader.condition(reader.tree(), 0)
    if not reader.used:
        raise reader.refused("it names no figure of the report", 0)
    return Condition(text.strip(), tuple(dict.fromkeys(reader.used)), judge)


class _Reader:
    """Makes functions of the allowed nodes of a syntax tree."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text, self.known, self.used = text, names, list[str]()

    def refused(self, reason: str, column: int, hint: str = "") -> OptionError:
        names = f"the names are {', '.join(sorted(self.known))}"
        return OptionError(
            f"the condition {self.text[:200]!r} cannot be read: {reason} (character {column + 1})",
            hint=f"{hint or 'write for instance drop > 0.5;'} {names}",
            options=("fail_if",),
        )

    def tree(self) -> ast.expr:
        """The syntax tree of the text."""
        text = self.text
        if len(text) > _LONGEST:
            raise self.refused(f"it has more than {_LONGEST} characters", _LONGEST)
        if foreign := _FOREIGN.search(text):
            raise self.refused(f"{foreign.group()!r} is not understood", foreign.start())
        if text.count("(") > _MOST_PARENTHESES:
            raise self.refused("it is nested too deeply", 0)
        try:
            return ast.parse(text, mode="eval").body
        except (MemoryError, RecursionError):
            raise self.refused("it is nested too deeply", 0) from None
        except SyntaxError as error:
            column = min((error.offset or 1) - 1, len(text))
            opened = text.count("(") - text.count(")")
            if _UNFINISHED.search(text):
                reason, column = "it ends too early", len(text)
            elif opened:
                reason = "a closing parenthesis is missing" if opened > 0 else "a parenthesis is closed but not opened"
            else:
                reason = f"{text[column:][:20]!r} is misplaced"
            raise self.refused(reason, column) from None

    def condition(self, node: ast.expr, depth: int) -> _Condition:
        """What judges a comparison, or several that are joined."""
        self._shallow(node, depth)
        match node:
            case ast.BoolOp(op, parts):
                join = _both if isinstance(op, ast.And) else _either
                judges = [self.condition(part, depth + 1) for part in parts]
                return lambda known: reduce(join, (judge(known) for judge in judges))
            case ast.UnaryOp(ast.Not(), inner):
                judge = self.condition(inner, depth + 1)
                return lambda known: _negate(judge(known))
            case ast.Compare(first, [sign], [second]) if type(sign) in _COMPARISONS:
                compare = _COMPARISONS[type(sign)]
                left, right = self.number(first, depth + 1), self.number(second, depth + 1)
                return lambda known: compare(left(known), right(known))
            case ast.Compare(_, [_, _, *_], _):
                raise self.refused(
                    "only two numbers can be compared at once; join comparisons by `and`", node.col_offset
                )
        self.number(node, depth)
        raise self.refused("it is a number, not a comparison" if not depth else _JOINED, node.col_offset)

    def number(self, node: ast.expr, depth: int) -> _Number:
        """What computes a sum."""
        self._shallow(node, depth)
        match node:
            case ast.BinOp():
                return self._sum(node, depth)
            case ast.UnaryOp(ast.USub(), inner):
                value = self.number(inner, depth + 1)
                return lambda known: _subtract(Quantity.exact(0.0), value(known))
            case ast.Constant(float() | int() as plain) if not isinstance(plain, bool):
                exact = Quantity.exact(float(repr(plain)))
                return lambda _: exact
            case ast.Name(name):
                if name not in self.known:
                    near = did_you_mean(name, tuple(self.known))
                    raise self.refused(f"{name!r} is not a name it knows", node.col_offset, near)
                self.used.append(name)
                return lambda known: known[name]
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(ast.Not()):
                raise self.refused("a comparison stands where a number is needed", node.col_offset)
        raise self.refused(f"{ast.unparse(node)[:40]!r} is not understood", node.col_offset)

    def _sum(self, node: ast.BinOp, depth: int) -> _Number:
        """From left to right in a loop: long sums are not deep."""
        first: ast.expr = node
        steps: list[tuple[Callable[[Quantity, Quantity], Quantity], _Number]] = []
        while isinstance(first, ast.BinOp):
            if type(first.op) not in _ARITHMETIC:
                raise self.refused("of arithmetic there are + - * / only", first.right.col_offset - 1)
            steps.append((_ARITHMETIC[type(first.op)], self.number(first.right, depth + 1)))
            first = first.left
        start = self.number(first, depth + 1)

        def compute(known: Known) -> Quantity:
            value = start(known)
            for operation, operand in reversed(steps):
                value = operation(value, operand(known))
            return value

        return compute

    def _shallow(self, node: ast.expr, depth: int) -> None:
        if depth > _DEEPEST:
            raise self.refused("it is nested too deeply", node.col_offset)


_JOINED = "`and`, `or` and `not` join comparisons, not numbers"


def _both(first: Truth, second: Truth) -> Truth:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _either(first: Truth, second: Truth) -> Truth:
    return _negate(_both(_negate(first), _negate(second)))


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


_COMPARISONS: dict[type[ast.cmpop], Callable[[Quantity, Quantity], Truth]] = {
    ast.Lt: _less,
    ast.LtE: _less_or_equal,
    ast.Gt: lambda a, b: _less(b, a),
    ast.GtE: lambda a, b: _less_or_equal(b, a),
    ast.Eq: _equal,
    ast.NotEq: lambda a, b: _negate(_equal(a, b)),
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


_ARITHMETIC: dict[type[ast.operator], Callable[[Quantity, Quantity], Quantity]] = {
    ast.Add: lambda a, b: Quantity(a.value + b.value, a.low + b.low, a.high + b.high),
    ast.Sub: _subtract,
    ast.Mult: _multiply,
    ast.Div: _divide,
}
