"""Small mistakes planted in a module: each mutant is its syntax tree with one operator, value or statement changed."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, EllipsisType

Node = ast.AST
OTHER: dict[type[Node], type[Node]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}
"""What each operator and keyword is mistaken for."""

UNTOUCHED = {"annotation", "returns", "decorator_list", "bases", "type_params"}
"""Parts of a tree that are declarations: type checkers and imports judge them."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: ``name`` says where and what, and stays the same when lines above it move."""

    name: str
    line: int
    code: CodeType


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield each mutant of the module."""
    tree = ast.parse(path.read_text("utf-8"))
    seen: Counter[str] = Counter()
    for place, line, before, after, put in list(_changes(tree, "")):
        name = f"{place}: {before} -> {after}"
        seen[name] += 1
        undo = put()
        yield Mutant(name if seen[name] == 1 else f"{name} ({seen[name]})", line, _compiled(tree, path))
        undo()


def _compiled(tree: ast.Module, path: Path) -> CodeType:
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


Change = tuple[str, int, str, str, Callable[[], Callable[[], None]]]


def _changes(parent: Node, place: str) -> Iterator[Change]:
    """Walk the tree; ``place`` is the qualified name of the function or class that is walked."""
    if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        place = f"{place}.{parent.name}".lstrip(".")
    for field, value in ast.iter_fields(parent):
        if field in UNTOUCHED:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, Node) or _is_left_alone(parent, child):
                continue
            for other in _mistaken(parent, field, child, in_function=bool(place)):
                line = getattr(child, "lineno", getattr(parent, "lineno", 0))
                shown = parent if isinstance(child, ast.operator | ast.cmpop | ast.keyword) else child
                put = _putter(parent, field, index if isinstance(value, list) else None, other)
                before, undo = _text(shown), put()
                after = _text(shown if shown is parent else other)
                undo()
                yield place or "(module)", line, before, after, put
            yield from _changes(child, place)


def _putter(parent: Node, field: str, index: int | None, other: Node | None) -> Callable[[], Callable[[], None]]:
    """Return a function that puts ``other`` in its place, and returns one that undoes it; None takes a part out."""

    def put() -> Callable[[], None]:
        old = getattr(parent, field)
        if index is None:
            new: object = other
        else:
            new = old[:index] + ([] if other is None else [other]) + old[index + 1 :]
        setattr(parent, field, new)
        return lambda: setattr(parent, field, old)

    return put


def _is_left_alone(parent: Node, child: Node) -> bool:
    """Return whether it is a docstring, an empty body, an import, a type, or a text for people or a part of one."""
    match child:
        case ast.Expr(value=ast.Constant(value=str() | EllipsisType())) | ast.Import() | ast.ImportFrom():
            return True
        case ast.Constant(value=str() as text):
            return " " in text or isinstance(parent, ast.JoinedStr)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return True
    return False


def _mistaken(parent: Node, field: str, node: Node, *, in_function: bool) -> Iterator[Node | None]:
    """Yield what may stand in the node's place by mistake; None for nothing at all."""
    if type(node) in OTHER:
        yield OTHER[type(node)]()
    is_condition = field in {"test", "guard"} and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp)
    if is_condition and isinstance(node, ast.expr):
        yield ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.keyword) or (isinstance(parent, ast.comprehension) and field == "ifs"):
        yield None
    if isinstance(node, ast.Constant):
        yield from _other_values(node.value)
    elif isinstance(node, ast.stmt) and in_function:
        yield from _other_statements(node)
    match node:
        case ast.BoolOp(values=values):
            yield from values if len(values) == 2 else _without_one(node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand


def _other_values(value: object) -> Iterator[Node]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int() | float():
            yield ast.Constant(value + 1)
        case str():
            yield ast.Constant(f"X{value}")
        case bytes():
            yield ast.Constant(b"X" + value)


def _other_statements(node: ast.stmt) -> Iterator[Node]:
    match node:
        case ast.Return(value=None) | ast.Return(value=ast.Constant(value=None)):
            return
        case ast.Return():
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Delete() | ast.Assign() | ast.AugAssign() | ast.Expr():
            yield ast.Pass()


def _without_one(node: ast.BoolOp) -> Iterator[Node]:
    for index in range(len(node.values)):
        yield ast.BoolOp(node.op, node.values[:index] + node.values[index + 1 :])


def _text(node: Node | None) -> str:
    if node is None:
        return "nothing"
    if isinstance(node, ast.Break | ast.Continue | ast.Pass):
        return type(node).__name__.lower()
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 90 else f"{text[:60]} … {text[-27:]}"
