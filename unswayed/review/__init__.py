"""Where a person settles which labels are wrong: a page on this machine, decisions in SQLite, the corrected data.

Everything public is reachable from here and imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unswayed.registry import lazy_attributes

if TYPE_CHECKING:
    from unswayed.review.case import Case as Case
    from unswayed.review.case import open_case as open_case
    from unswayed.review.correction import correct as correct
    from unswayed.review.output import Exported as Exported
    from unswayed.review.output import export as export
    from unswayed.review.server import make_app as make_app
    from unswayed.review.server import serve as serve
    from unswayed.review.store import Decision as Decision
    from unswayed.review.store import Decisions as Decisions

_NAMES = {
    "Case": "case",
    "open_case": "case",
    "Decision": "store",
    "Decisions": "store",
    "correct": "correction",
    "export": "output",
    "Exported": "output",
    "make_app": "server",
    "serve": "server",
}
__getattr__ = lazy_attributes(__name__, _NAMES)

__all__ = list(_NAMES)


def __dir__() -> list[str]:
    return sorted(__all__)
