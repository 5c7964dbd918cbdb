"""A docstring begins with a verb in the imperative, or a noun phrase: CONTRIBUTING says so."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    path for name in ("derp", "certs", "stun", "release") for path in (ROOT / name).rglob("*.py")
]
QUESTIONS = {"How", "What", "When", "Where", "Which", "Who", "Whom", "Whose", "Why"}


def first_words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the first word of each docstring of a module, class or function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.split()[0]


def test_no_docstring_begins_with_a_question() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in FILES
        for line, word in first_words(ast.parse(path.read_text("utf-8")))
        if word in QUESTIONS
    ]
    assert not found
