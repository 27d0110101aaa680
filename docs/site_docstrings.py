"""Docstrings for the site: doctests become code (Markdown would take >>> for quotations), settings become lists."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n))>>> .*?(?=\n[ \t]*\n|\Z)", flags=re.DOTALL)


SETTING = re.compile(r"^(\w+)\s{2,}(?=\S)")  # name, at least two spaces, what it is; further lines are indented


def as_markdown(text: str) -> str:
    """A docstring with its doctests in fences and its columns of settings as lists."""
    parts = EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", text).split("\n\n")
    return "\n\n".join(_as_list(part) if SETTING.match(part) else part for part in parts)


def _as_list(part: str) -> str:
    lines: list[str] = []
    for line in part.split("\n"):
        if SETTING.match(line):
            lines.append(SETTING.sub(r"- **\1**: ", line))
        else:  # what is indented goes on with its setting, what is not ends the list
            lines.append(f"  {line.strip()}" if line.startswith(" ") else f"{'' if _ended(lines) else chr(10)}{line}")
    return "\n".join(lines)


def _ended(lines: list[str]) -> bool:
    return not lines[-1].startswith(("- ", "  "))


class Docstrings(griffe.Extension):
    """Rewrite every docstring before it is read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
