"""Records: what a method is, where it stands in the code, how it differs from its sources and what it reached.

A record is one TOML file beside the methods, `records/NAME.toml`. `unswayed show NAME` prints it, and docs/methods is
made from it. What is no method to train with, like repair, has a record too, which names its command. Figures that we
measured are not written by hand: benchmarks put them into `records/measured.json`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from unswayed.errors import UnswayedError
from unswayed.methods import methods


@dataclass(frozen=True)
class Source:
    """Where a method was published."""

    title: str
    authors: str
    venue: str = ""  # with the year
    arxiv: str = ""
    code: str = ""  # the address of the authors' program
    read: str = ""  # what of it was read to write ours: "paper and code", "paper", "a summary"


@dataclass(frozen=True)
class Formula:
    """A formula, and the place in the code that computes it."""

    what: str
    formula: str
    code: str  # "package.module:Name.attribute"
    where: str = ""  # equation, section or file of the source


@dataclass(frozen=True)
class Difference:
    """Where the published text, the authors' program and ours differ."""

    point: str
    ours: str
    paper: str = ""
    code: str = ""
    why: str = ""
    option: str = ""  # the setting that chooses, for instance 'consistency="sum"'


@dataclass(frozen=True)
class Figure:
    """A figure of the authors, in percent."""

    data: str
    value: str
    setting: str = ""  # network, epochs, best or last
    where: str = ""  # table of the source


@dataclass(frozen=True)
class Measured:
    """What the method reached here, in percent of test rows after the last epoch, beside its control."""

    data: str
    arm: str  # with its head and body, as in the file
    value: str
    over_plain: str  # points over plain cross-entropy, with a 95 % interval over paired seeds
    seeds: int
    file: str
    verdict: str = ""  # "better" or "worse" than plain where the interval says so


@dataclass(frozen=True)
class Record:
    """All that is known about a method."""

    name: str
    does: str  # about five lines
    cost: str
    use: tuple[str, ...]  # when it is the thing to take; figures are not told here but in `measured`
    avoid: tuple[str, ...]  # and when it is not
    sources: tuple[Source, ...]
    formulas: tuple[Formula, ...] = ()
    differences: tuple[Difference, ...] = ()
    published: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""  # how to run it, of what is no method
    measured: tuple[Measured, ...] = field(default=(), compare=False)

    @property
    def gains(self) -> str:
        """Where it was shown to do better than plain cross-entropy here, in a sentence that says so where nowhere."""
        better = [f"{m.data} ({m.arm}: {m.over_plain})" for m in self.measured if m.verdict == "better"]
        none = "Shown to gain on plain cross-entropy in no setting measured here." if self.is_compared else ""
        return f"Shown to gain on plain cross-entropy here: {'; '.join(better)}." if better else none

    @property
    def is_compared(self) -> bool:
        """Whether anything was measured against plain cross-entropy, with an interval."""
        return any("±" in m.over_plain for m in self.measured)

    @property
    def shortfall(self) -> str:
        """Where it was shown to do worse than plain cross-entropy here, in a sentence; empty where nowhere."""
        worse = [f"{m.data} ({m.arm}: {m.over_plain})" for m in self.measured if m.verdict == "worse"]
        return f"Falls short of plain cross-entropy here: {'; '.join(worse)}." if worse else ""


ALSO_CALLED = {"rlap": "repair"}
_PARTS = {"sources": Source, "formulas": Formula, "differences": Difference, "published": Figure}


def recorded() -> list[str]:
    """The names of the methods, and of other things, that have a record, sorted."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def record(name: str) -> Record:
    """The record of what is called `name`; raises for an unknown name and for a method without a record."""
    name = ALSO_CALLED.get(name, name)
    if name not in recorded():
        methods.get(name)  # an unknown name raises here, and tells the nearest
        do = f"read the docstring: python -c 'from unswayed import methods; help(methods.get(\"{name}\"))'"
        raise UnswayedError(f"a method with a record: {', '.join(recorded())}", got=repr(name), do=do)
    found = read_record(name, _folder().joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return Record(**{**vars(found), "measured": tuple(_measured_of(name))})


def read_record(name: str, text: str) -> Record:
    """A record from the text of its file; a part that is missing or misspelt raises."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnswayedError(f"TOML in the record of {name}", got=error) from error
    parts = {key: tuple(_part(kind, entry, name) for entry in given.pop(key, ())) for key, kind in _PARTS.items()}
    lists = {key: tuple(given.pop(key, ())) for key in ("use", "avoid", "notes")}
    found: Record = _part(Record, {"name": name, **given, **parts, **lists}, name)
    for part in ("sources", "use", "avoid", "does"):
        if not getattr(found, part):
            raise UnswayedError(f"a record of {name} with {part}", got="none")
    return found


def _part(kind: type[Any], entry: Mapping[str, Any], name: str) -> Any:
    known = {f.name for f in fields(kind)}
    if strange := entry.keys() - known:
        expected = f"fields of a {kind.__name__.lower()} among {', '.join(sorted(known))} in the record of {name}"
        raise UnswayedError(expected, got=", ".join(sorted(strange)))
    try:
        return kind(**{key: value.strip() if isinstance(value, str) else value for key, value in entry.items()})
    except TypeError as error:
        raise UnswayedError(f"a complete {kind.__name__.lower()} in the record of {name}", got=error) from error


def _measured_of(name: str) -> Iterator[Measured]:
    for entry in _all_measured().get(name, ()):
        yield Measured(**entry)


@cache
def _all_measured() -> dict[str, list[dict[str, Any]]]:
    file = _folder().joinpath("measured.json")
    found: dict[str, list[dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _folder() -> Any:
    return resources.files("unswayed.methods").joinpath("records")


# ---------------------------------------------------------------------------------------------------- as a page


def as_markdown(found: Record) -> str:
    """The page of a record, as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Record) -> Iterator[str]:
    yield from (f"# {found.name}", "", found.does, "")
    command = found.command or f"unswayed train DATA --arm {found.name}"
    yield from (f"```console\n$ {command}\n```", "", "## When to use it", "")
    yield from (f"- {line}" for line in found.use)
    yield from ("", found.gains) if found.gains else ()
    yield from ("", "## When not to use it", "")
    yield from (f"- {line}" for line in found.avoid)
    yield from ("", found.shortfall) if found.shortfall else ()
    yield from ("", "## Source", "")
    for source in found.sources:
        yield f"- {_cite(source)}"
    if found.formulas:
        yield from (
            "",
            "## Formulas, and where they stand",
            "",
            "| what | formula | source | code |",
            "|---|---|---|---|",
        )
        yield from (_row(f.what, f"`{f.formula}`", f.where, f"`{f.code}`") for f in found.formulas)
    if found.differences:
        yield from ("", "## Where text, authors' code and ours differ", "")
        yield from ("| point | paper | authors' code | ours | why |", "|---|---|---|---|---|")
        for d in found.differences:
            ours = f"{d.ours} (`{d.option}`)" if d.option else d.ours
            yield _row(d.point, d.paper, d.code, ours, d.why)
    if found.published:
        yield from ("", "## Published figures", "", "| data | % | setting | where |", "|---|---|---|---|")
        yield from (_row(f.data, f.value, f.setting, f.where) for f in found.published)
    if found.measured:
        yield from ("", "## Measured here", "")
        yield from ("| data | arm | % | over plain | seeds | file |", "|---|---|---|---|---|---|")
        yield from (_row(m.data, m.arm, m.value, m.over_plain, str(m.seeds), _linked(m.file)) for m in found.measured)
    yield from ("", "## Cost", "", found.cost)
    if found.notes:
        yield from ("", "## Notes", "", *(f"- {line}" for line in found.notes))


def _cite(source: Source) -> str:
    arxiv = f"[arXiv {source.arxiv}](https://arxiv.org/abs/{source.arxiv})" if source.arxiv else ""
    code = f"code: <{source.code}>" if source.code else ""
    read = f"read for this: {source.read}" if source.read else ""
    return ". ".join(part for part in (source.authors, f"*{source.title}*", source.venue, arxiv, code, read) if part)


def _linked(file: str) -> str:
    """A file of the repository, as a page in docs/methods links to it."""
    return f"[{file.rsplit('/', 1)[-1]}](../../{file})"


def _row(*cells: str) -> str:
    plain = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(plain)} |"
