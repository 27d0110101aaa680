"""The server of the review: who may ask, what it answers, and what it refuses."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from review_case import digits_audit, make_audit
from typer.testing import CliRunner

from unswayed import UnswayedError
from unswayed.auditing.table import KINDS
from unswayed.cli import app
from unswayed.review import Case, make_app, open_case
from unswayed.review.server import ASSETS, listen, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own libraries
    testclient = pytest.importorskip("starlette.testclient", reason="needs starlette (pip install unswayed[review])")

TOKEN = "token-of-the-test"
HERE = "http://127.0.0.1:8350"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """The digits under review."""
    audit, _ = digits_audit()
    return open_case(audit.save(tmp_path / "audit"))


def client_of(case: Case, base: str = HERE) -> Any:
    return testclient.TestClient(make_app(case, TOKEN, reviewer="Ada"), base_url=base)


@pytest.fixture
def client(case: Case) -> Any:
    return client_of(case)


def get(client: Any, what: str, **query: Any) -> Any:
    answer = client.get(f"/{TOKEN}/api/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client: Any, what: str, **words: Any) -> Any:
    answer = client.post(f"/{TOKEN}/api/{what}", json=words)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/", "/api/about", "/wrong/", "/wrong/api/about", f"/{TOKEN}x/", f"/%20{TOKEN}/"])
def test_without_the_token_there_is_nothing(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "digits" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8350", "127.0.0.1.evil.example", "", "0.0.0.0:8350"])
def test_other_names_of_this_machine_are_refused(client: Any, host: str) -> None:
    assert client.get(f"/{TOKEN}/api/about", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8350", "LOCALHOST", "[::1]:8350"])
def test_own_names_are_answered(client: Any, host: str) -> None:
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 200


def test_every_answer_carries_the_policy(client: Any) -> None:
    for path in ("/", f"/{TOKEN}/", f"/{TOKEN}/page.js", f"/{TOKEN}/api/about", f"/{TOKEN}/preview/0", f"/{TOKEN}/no"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; object-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_the_page_needs_nothing_from_elsewhere(client: Any) -> None:
    for name, kind in {"": "text/html", **ASSETS}.items():
        answer = client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("//\n", "") or "http" not in text
        assert "innerHTML" not in text
    page = client.get(f"/{TOKEN}/").text
    assert "<script type" in page
    assert " style=" not in page
    assert " onclick" not in page
    for path in ("/../store.py", "/store.py", "/__init__.py", "/%2e%2e/pyproject.toml"):
        assert client.get(f"/{TOKEN}{path}").status_code == 404


def test_about(client: Any) -> None:
    about = get(client, "about")
    assert (about["name"], about["rows"], about["shows"], about["reviewer"]) == ("digits", 1797, "image", "Ada")
    assert sum(about["kinds"].values()) == 1797
    assert about["trouble"] is None
    assert about["pairs"][0]["rows"] >= about["pairs"][-1]["rows"]


def test_the_list_comes_in_pages(client: Any, case: Case) -> None:
    order = case.audit.order().tolist()
    found = get(client, "list", start=3, count=5)
    assert found["total"] == 1797
    assert [line["at"] for line in found["lines"]] == order[3:8]
    assert len(get(client, "list", start=0, count=100_000)["lines"]) == 200
    assert get(client, "list", start=10**9, count=10)["lines"] == []
    useful = get(client, "list", order="useful", start=0, count=200)
    assert useful["total"] == 1797
    assert len({line["at"] for line in useful["lines"]} & set(order[:250])) > 150
    by_row = get(client, "list", order="row", count=4)
    assert [line["row"] for line in by_row["lines"]] == [0, 1, 2, 3]


def test_filters(client: Any, case: Case) -> None:
    audit = case.audit
    for name in KINDS:
        lines = get(client, "list", kind=name, count=200)
        assert lines["total"] == int((audit.kind == KINDS.index(name)).sum())
        assert {line["kind"] for line in lines["lines"]} == {name}
    pair = get(client, "about")["pairs"][0]
    found = get(client, "list", given=pair["given"], suggested=pair["suggested"], count=200)
    assert found["total"] == pair["rows"]
    assert {(line["given"], line["suggested"]) for line in found["lines"]} == {(pair["given"], pair["suggested"])}
    assert get(client, "list", given="no such class")["total"] == 0
    pairs = [(line["given"], line["suggested"]) for line in get(client, "list", order="pair", count=200)["lines"]]
    assert pairs == sorted(pairs)
    assert get(client, "list", kind="issues")["total"] == len(audit.issues())


def test_a_list_stays_while_one_works(client: Any) -> None:
    asked = {"state": "undecided", "stamp": "1", "count": 3}
    before = get(client, "list", **asked)
    first = before["lines"][0]["at"]
    post(client, "decide", at=first, verdict="accept", reviewer="Ada")
    after = get(client, "list", **asked)
    assert after["total"] == before["total"]
    assert after["lines"][0]["verdict"] == "accept"
    fresh = get(client, "list", **{**asked, "stamp": "2"})
    assert fresh["total"] == before["total"] - 1
    assert first not in [line["at"] for line in fresh["lines"]]
    assert get(client, "list", state="decided")["total"] == 1


def test_the_card_says_why(client: Any, case: Case) -> None:
    at = int(case.audit.order()[0])
    card = get(client, f"card/{at}")
    assert card["row"] == at
    assert len(card["neighbours"]) == 8
    assert len(card["curve"]) == 12
    assert len(card["reasons"]) == 3
    assert {score["name"] for score in card["scores"]} == {"self confidence", "neighbours"}
    assert all(score["words"] and 0 <= score["above"] <= 1 for score in card["scores"])
    labels = [other["label"] for other in card["others"]]
    assert card["given"] not in labels
    assert card["suggested"] not in labels
    assert len(labels) == 8
    assert "probability" in " ".join(card["reasons"])


def test_a_decision_and_what_comes_next(client: Any, case: Case) -> None:
    lines = get(client, "list", state="undecided", stamp="1", count=3)["lines"]
    at = lines[0]["at"]
    asked = {"state": "undecided", "stamp": "1"}
    answer = post(client, "decide", at=at, verdict="accept", reviewer="Ada", list=asked, after=0)
    assert answer["line"]["verdict"] == "accept"
    assert answer["next"]["place"] == 1
    assert answer["next"]["card"]["at"] == lines[1]["at"]
    assert answer["progress"]["found"] == 1
    assert answer["progress"]["precision"] == 1.0
    card = get(client, f"card/{at}")
    assert (card["state"], card["verdict"], card["label"]) == ("settled", "accept", lines[0]["suggested"])
    assert [said["reviewer"] for said in card["history"]] == ["Ada"]
    undone = post(client, "undo", reviewer="Ada")
    assert undone["line"]["at"] == at
    assert undone["line"]["state"] == "open"
    assert undone["progress"]["settled"] == 0
    assert post(client, "undo", reviewer="Ada")["line"] is None
    assert case.decisions.last == 2


def test_progress_moves_with_the_work(client: Any, case: Case) -> None:
    expected = float(case.audit.suspicion.double().sum())
    before = get(client, "progress")["progress"]
    assert before["remaining"] == pytest.approx(expected, rel=1e-6)
    assert before["left"][1] < expected < before["left"][2]
    assert before["precision"] is None
    assert not before["stop"]
    for at in case.audit.order()[:40].tolist():
        case.decisions.decide(at, "keep", None, "Ada")
    after = get(client, "progress")["progress"]
    assert after["found"] == 0
    assert after["settled"] == 40
    # 40 labels that were suspected were right: what is left is believed less than it was
    seen = float(case.audit.suspicion.double().sort(descending=True).values[:40].sum())
    assert after["remaining"] < 0.9 * (expected - seen)
    assert after["path"][-1] == [40, 0]
    assert after["ahead"][0] == [40, 0]
    for at in case.audit.order()[:400].tolist():  # all that is suspected, and some
        case.decisions.decide(at, "accept", None, "Ada")
    done = get(client, "progress")["progress"]
    assert done["stop"]
    assert done["advice"].startswith("You may stop now")
    assert done["share"] > 0.5
    assert done["left"][1] < done["remaining"] < done["left"][2]


def test_all_rows_settled(tmp_path: Path) -> None:
    audit, _ = make_audit(torch.tensor([0, 1, 1]), ("no", "yes"), config=None, neighbours=2)
    case = open_case(audit.save(tmp_path))
    client = client_of(case)
    for at in range(3):
        asked = {"state": "undecided", "stamp": "1"}
        answer = post(client, "decide", at=at, verdict="none", reviewer="Ada", list=asked, after=at)
    assert answer["next"] == {"place": None, "card": None}
    assert get(client, "progress")["progress"]["advice"] == "Every label is settled."
    assert answer["progress"]["found"] == 3
    assert answer["progress"]["share"] == 1.0


def test_two_reviewers_are_shown_and_listed(client: Any, case: Case) -> None:
    at = int(case.audit.order()[0])
    post(client, "decide", at=at, verdict="accept", reviewer="Ada")
    since = get(client, "progress")["progress"]["last"]
    other = open_case(case.folder)  # as if in another process
    other.decisions.decide(at, "keep", None, "Bob")
    news = get(client, "progress", since=since)
    assert news["progress"]["conflicts"] == 1
    assert news["progress"]["settled"] == 0
    assert [(line["at"], line["state"]) for line in news["lines"]] == [(at, "conflict")]
    assert [line["at"] for line in get(client, "list", state="conflict")["lines"]] == [at]
    card = get(client, f"card/{at}")
    assert card["state"] == "conflict"
    assert {said["reviewer"]: said["verdict"] for said in card["standing"]} == {"Ada": "accept", "Bob": "keep"}


def test_previews(client: Any) -> None:
    for size in ("", "?size=full"):
        answer = client.get(f"/{TOKEN}/preview/0{size}")
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
    assert client.get(f"/{TOKEN}/preview/1797").status_code == 404
    assert client.get(f"/{TOKEN}/preview/-1").status_code == 404


def test_where_a_row_stands(client: Any, case: Case) -> None:
    order = case.audit.order().tolist()
    assert get(client, "place", row=order[7]) == {"place": 7}
    assert get(client, "place", at=order[9]) == {"place": 9}
    assert get(client, "place", row=99_999) == {"place": None}
    assert get(client, "place", after=4, stamp="1") == {"place": 5}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("list?kind=strange", "kind is one of"),
        ("list?state=lost", "state is one of"),
        ("list?order=size", "order is one of"),
        ("list?start=x", "a whole number"),
        ("place", "a row, a position"),
        ("card/5000", r"position 0..1796"),
    ],
)
def test_questions_without_sense(client: Any, path: str, words: str) -> None:
    answer = client.get(f"/{TOKEN}/api/{path}")
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "words",
    [
        {"at": 0},
        {"at": "0", "verdict": "keep", "reviewer": "Ada"},
        {"at": 0, "verdict": "keep"},
        {"at": 0, "verdict": "other", "label": "cat", "reviewer": "Ada"},
        {"at": 0, "verdict": "other", "label": ["1"], "reviewer": "Ada"},
        {"at": 5000, "verdict": "keep", "reviewer": "Ada"},
        {"at": 0, "verdict": "keep", "reviewer": "Ada", "list": 3},
    ],
)
def test_decisions_without_sense(client: Any, case: Case, words: dict[str, Any]) -> None:
    answer = client.post(f"/{TOKEN}/api/decide", json=words)
    assert answer.status_code == 400
    assert "error" in answer.json()
    assert case.decisions.last == 0


def test_bodies_without_sense(client: Any) -> None:
    for body in (b"", b"[]", b"{", b"\xff\xfe"):
        assert client.post(f"/{TOKEN}/api/decide", content=body).status_code == 400
    assert client.post(f"/{TOKEN}/api/decide", content=b" " * 70_000).status_code == 413
    assert client.get(f"/{TOKEN}/api/decide").status_code == 405


def test_data_that_are_gone(tmp_path: Path) -> None:
    audit, _ = digits_audit()
    config = {**audit.about["config"], "data": str(tmp_path / "gone.csv")}
    case = open_case(replace(audit, about={**audit.about, "config": config}).save(tmp_path / "audit"))
    client = client_of(case)
    about = get(client, "about")
    assert about["shows"] is None
    assert "gone.csv" in about["trouble"]
    at = get(client, "list", count=1)["lines"][0]["at"]
    assert "gone.csv" in get(client, f"card/{at}")["content"]["trouble"]
    assert client.get(f"/{TOKEN}/preview/{at}").status_code == 404
    assert post(client, "decide", at=at, verdict="accept", reviewer="Ada")["line"]["state"] == "settled"
    here = open_case(case.folder, data="digits")
    assert get(client_of(here), "about")["shows"] == "image"


def test_an_audit_of_probabilities_alone(tmp_path: Path) -> None:
    audit, _ = make_audit(torch.tensor([0, 1, -1] * 10), ("no", "yes"), config=None)
    bare = replace(audit, neighbours=None, similarity=None, curves=None, probs=None, scores={}, about={"config": None})
    client = client_of(open_case(bare.save(tmp_path)))
    assert get(client, "about")["trouble"] is None
    card = get(client, "card/2")
    assert card["given"] == ""
    assert card["reasons"] == ["It has no label."]
    assert card["curve"] is None


def test_texts_and_tables_are_told_in_words(tmp_path: Path) -> None:
    from unswayed import Config

    audit, _ = make_audit(torch.zeros(178).long(), ("class_0", "class_1", "class_2"), config=Config("wine").as_json())
    client = client_of(open_case(audit.save(tmp_path)))
    assert get(client, "about")["shows"] == "table"
    card = get(client, "card/0")
    assert card["content"]["cells"]["alcohol"] == "14.23"
    assert "label" not in card["content"]["cells"]
    assert card["neighbours"][0]["excerpt"].startswith("alcohol ")


def test_ports() -> None:
    with listen(None) as first, listen(None) as second:
        ports = [each.getsockname() for each in (first, second)]
        assert ports[0][0] == ports[1][0] == "127.0.0.1"
        assert ports[0][1] != ports[1][1]
        with pytest.raises(UnswayedError, match=f"a free port, {ports[0][1]}"):
            listen(ports[0][1])


def test_no_audit_and_a_port_in_use(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="a finished audit"):
        CliRunner().invoke(app, ["review", str(tmp_path / "none")], catch_exceptions=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UnswayedError, match="a free port"):
            CliRunner().invoke(app, ["review", str(case.folder), "--port", port], catch_exceptions=False)


def test_the_folder_around_the_audit_will_do(case: Case) -> None:
    assert open_case(case.folder.parent).folder == case.folder


def test_served_for_real(case: Case) -> None:
    import uvicorn

    addresses: list[str] = []
    running: list[Any] = []
    run = uvicorn.Server.run

    def remembered(self: Any, *args: Any, **settings: Any) -> None:
        running.append(self)
        run(self, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", remembered)
        thread = threading.Thread(target=lambda: serve(case, ready=addresses.append), daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not (running and running[0].started) and time.monotonic() < deadline:
            time.sleep(0.02)
        with urllib.request.urlopen(addresses[0] + "api/about") as answer:
            assert answer.status == 200
            assert "server" not in {name.lower() for name in answer.headers}
        assert len(addresses[0].split("/")[3]) >= 32
        running[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()
