"""Doctests in docstrings become code in the site: without this, Markdown would take >>> for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n))>>> .*?(?=\n[ \t]*\n|\Z)", flags=re.DOTALL)


class Doctests(griffe.Extension):
    """Put every doctest of a docstring into a fence of its own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", obj.docstring.value)
