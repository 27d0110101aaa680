"""Write docs/methods from the records of the methods: python -m benchmarks.methods.pages"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unswayed import methods
from unswayed.methods.record import as_markdown, record, recorded

INTRODUCTION = """
Every page says what the method does, when to use it and when not, where its formulas stand in the code, where text,
authors' code and ours differ, what was published and what was measured here. Losses, heads and bodies go with any
of them: `unswayed list`. All figures, and who wins: [All methods side by side](../methods-compared.md).
""".strip().split("\n")
PAGES = Path(__file__).parents[2] / "docs" / "methods"


def pages() -> Iterator[tuple[str, str]]:
    """File names and texts: a page for every record, and one that names them all."""
    lines = ["# Methods", "", *INTRODUCTION, "", "| method | what | when | source |", "|---|---|---|---|"]
    for name in recorded():
        found = record(name)
        yield f"{name}.md", as_markdown(found)
        source = found.sources[0]
        cited = f"[arXiv {source.arxiv}](https://arxiv.org/abs/{source.arxiv})" if source.arxiv else source.title
        what = found.does.splitlines()[0] if found.command else methods.methods.summary(name)
        lines.append(f"| [{name}]({name}.md) | {what} | {found.use[0]} | {cited} |")
    yield "README.md", "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
