"""What the code keeps to beside style and types: short functions with few arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 60
MOST_ARGUMENTS = 7
COMMANDS = ("training/cli/", "service/cli.py")
"""Typer reads a command's options off its arguments."""


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the packages, with where it stands."""
    for package in ("models", "training", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{name}:{node.lineno} {node.name}", node


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller may give."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in given if argument.arg not in {"self", "cls"}])


def first_line(where: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Where it begins: with its name, or, for a command, whose options are its arguments, with its docstring."""
    return function.body[0].lineno if where.startswith(COMMANDS) else function.lineno


def test_functions_are_short() -> None:
    """Docstrings included."""
    lengths = {where: (node.end_lineno or 0) - first_line(where, node) + 1 for where, node in functions()}
    assert {where: lines for where, lines in lengths.items() if lines > MOST_LINES} == {}


def test_functions_have_few_arguments() -> None:
    """But commands."""
    counts = {where: arguments_of(node) for where, node in functions() if not where.startswith(COMMANDS)}
    assert {where: count for where, count in counts.items() if count > MOST_ARGUMENTS} == {}
