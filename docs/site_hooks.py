"""What the site needs beyond MkDocs: files of the repository that pages link to, and lists of pages in the navigation.

Pages link to what lies beside docs/ by plain relative paths (../results/audit.json), which work wherever the repository
is read. In the site such files lie under repository/: data as they are, source as a page, folders as lists.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=(?:#[^)\s]*)?\))")
AS_THEY_ARE = {".json", ".jsonl", ".svg", ".png", ".yaml", ".toml"}
SOURCE = {".py": "python", ".sh": "bash"}
ROW = re.compile(r"^\|.*\|$", flags=re.MULTILINE)
CODE = re.compile(r"`[^`]+`")
HIDDEN = "---\nsearch:\n  exclude: true\n---\n\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Entries like methods/* of the navigation become the pages of that folder."""
    config.nav = _spread(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the mark, what pages link to beside docs/, and what these pages link to in turn."""
    files.append(File.generated(config, "mark.svg", abs_src_path=str(ROOT / "unswayed" / "review" / "mark.svg")))
    todo = [DOCS / file.src_uri for file in files.documentation_pages()]
    while todo:
        for target in _beside(todo.pop()):
            inside = (
                [file for file in sorted(target.iterdir()) if file.suffix in AS_THEY_ARE] if target.is_dir() else []
            )
            for found in (target, *inside):
                if files.get_file_from_path(_place(found)) is None:
                    files.append(_file(found, config))
                    todo += [found] if found.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, /, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository go to where they lie in the site; bars in code in tables need no backslash."""
    markdown = ROW.sub(lambda row: CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), markdown)
    here = _source(page.file)
    if here is None:
        return markdown

    def moved(match: re.Match[str]) -> str:
        target = _target(here, match[1])
        if target is None or not target.exists() or (here.is_relative_to(DOCS) and target.is_relative_to(DOCS)):
            return match[0]
        return os.path.relpath(_place(target), Path(page.file.src_uri).parent)

    return LINK.sub(moved, markdown)


def _spread(entries: Any) -> Any:
    if isinstance(entries, dict):
        return {name: _spread(entry) for name, entry in entries.items()}
    if not isinstance(entries, list):
        return entries
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and entry.endswith("/*"):
            pages = [f"{entry[:-1]}{page.name}" for page in sorted((DOCS / entry[:-2]).glob("*.md"))]
            found += [{Path(page).stem: page} for page in pages if page not in entries]
        else:
            found.append(_spread(entry))
    return found


def _beside(page: Path) -> list[Path]:
    """What a page links to in the repository, but not in docs/."""
    targets = {_target(page, link) for link in LINK.findall(page.read_text(encoding="utf-8"))}
    return sorted(found for found in targets if found and found.exists() and not found.is_relative_to(DOCS))


def _target(source: Path, link: str) -> Path | None:
    """The file or folder of the repository that a link means; None where it leaves the repository."""
    found = Path(os.path.normpath(source.parent / link))
    return found if found.is_relative_to(ROOT) else None


def _place(target: Path) -> str:
    """Where a file of the repository lies among the sources of the site."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    path = f"repository/{target.relative_to(ROOT).as_posix()}"
    if target.is_dir():
        return f"{path}/index.md"
    return path if target.suffix in {".md", *AS_THEY_ARE} else f"{path}.md"


def _source(file: File) -> Path | None:
    """The Markdown file of the repository that a page is made from; None for pages made here."""
    path = file.src_uri.removeprefix("repository/")
    source = ROOT / path if path != file.src_uri else DOCS / path
    return source if source.is_file() else None


def _file(target: Path, config: MkDocsConfig) -> File:
    place, name = _place(target), target.relative_to(ROOT).as_posix()
    how: dict[str, Any] = {"inclusion": InclusionLevel.NOT_IN_NAV}
    if target.is_dir():
        rows = [f"- [{file.name}]({file.name})" for file in sorted(target.iterdir()) if file.suffix in AS_THEY_ARE]
        text = "\n".join(rows) or "Files of the repository."
        return File.generated(config, place, content=f"{HIDDEN}# {name}\n\n{text}\n", **how)
    if target.suffix in {".md", *AS_THEY_ARE}:
        return File.generated(config, place, abs_src_path=str(target), **how)
    text = target.read_text(encoding="utf-8")
    page = f"{HIDDEN}# {name}\n\n````{SOURCE.get(target.suffix, 'text')}\n{text}````\n"
    return File.generated(config, place, content=page, **how)
