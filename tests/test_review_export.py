"""The corrected data come back in the form in which they came, with nothing changed but what was decided."""

from __future__ import annotations

import csv
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from review_case import make_audit
from typer.testing import CliRunner

from unswayed import Config, UnswayedError
from unswayed import data as readers
from unswayed.auditing.table import KINDS
from unswayed.cli import app
from unswayed.review import Case, Exported, export, open_case

pa = pytest.importorskip("pyarrow")
pytest.importorskip("datasets")

CLASSES = ("cat", "dog", "fox")
GIVEN = ["cat", "dog", "fox", "cat", "dog", "fox", "cat", "dog", "fox", "cat"]


def opened(folder: Path, source: Path | str, classes: tuple[str, ...] = CLASSES, **reader: Any) -> Case:
    """A case about the data at `source`: the next class is suggested everywhere, suspicion of row i is .9 - i/20."""
    cache = folder / "cache"
    config = Config(str(source), reader={"cache": str(cache), **reader})
    data = readers.read(str(source), cache=cache, **reader)
    assert data.classes == classes
    given = data.train.given
    audit, _ = make_audit(given, classes, config=config.as_json(), rows=data.train.rows)
    audit = replace(
        audit,
        suggested=(given + 1) % len(classes),
        suspicion=0.9 - torch.arange(len(given)) / 20,
        kind=torch.full_like(audit.kind, KINDS.index("wrong")),
    )
    return open_case(audit.save(folder / "run"))


def decide(case: Case) -> None:
    """Row 0: accepted (dog). Row 1: kept. Row 2: another (dog). Row 3: none fits. Row 4: skipped. Row 5: both."""
    for at, verdict, label in (
        *((0, "accept", None), (1, "keep", None), (2, "other", "dog")),
        *((3, "none", None), (4, "skip", None), (5, "both", None)),
    ):
        case.decisions.decide(at, verdict, label, "Ada")


AFTER = ["dog", "dog", "dog", "dog", "fox", "cat", "dog", "fox", "cat"]  # row 3 is dropped


def trail(made: Exported) -> list[dict[str, str]]:
    with made.trail.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TEXT = (
    "\ufeffid;text;label;more\r\n"
    '0;"a; ""quoted"" text";cat;1.50\r\n'
    "1;plain;dog;\r\n"
    '2;5" disk;"fox";x\r\n'
    "\r\n"
    '3;"two\r\nlines";cat;NA\r\n'
    "4;ä;dog;1e3\r\n"
    '5;;"fox";\r\n'
    "6;a;cat;\r\n7;a;dog;\r\n8;a;fox;\r\n9;a;cat;"
)


def test_csv_keeps_its_dialect_to_the_byte(tmp_path: Path) -> None:
    source = tmp_path / "pets.csv"
    source.write_bytes(TEXT.encode())
    case = opened(tmp_path, source, input="text")
    decide(case)
    made = export(case, tmp_path / "out.csv")
    expected = TEXT.replace(';"a; ""quoted"" text";cat;', ';"a; ""quoted"" text";dog;').replace(
        '5" disk;"fox"', '5" disk;"dog"'
    )
    expected = expected.replace('3;"two\r\nlines";cat;NA\r\n', "")
    assert (tmp_path / "out.csv").read_bytes() == expected.encode()
    assert source.read_bytes() == TEXT.encode()
    assert (made.changed, made.dropped, made.conflicts, made.rows) == (2, 1, 0, 10)
    assert [(line["row"], line["given"], line["label"], line["action"]) for line in trail(made)] == [
        ("0", "cat", "dog", "accept"),
        ("2", "fox", "dog", "other"),
        ("3", "cat", "", "none, dropped"),
    ]
    assert {line["reviewer"] for line in trail(made)} == {"Ada"}
    assert trail(made)[0]["time"].endswith("+00:00")
    assert float(trail(made)[0]["suspicion"]) == pytest.approx(0.9)


def test_a_label_that_needs_quotes_gets_them(tmp_path: Path) -> None:
    source = tmp_path / "pets.csv"
    quoted = '"dog, ""big"""'
    lines = [f"{i},{'cat' if i % 2 else quoted}" for i in range(30)]
    source.write_text("x,label\n" + "\n".join(lines) + "\n")
    case = opened(tmp_path, source, ("cat", 'dog, "big"'), input="x")
    case.decisions.decide(1, "accept", None, "Ada")
    export(case, tmp_path / "out.csv")
    lines[1] = f"1,{quoted}"
    assert (tmp_path / "out.csv").read_text() == "x,label\n" + "\n".join(lines) + "\n"


def table(labels: Any) -> Any:
    return pa.table(
        {
            "text": pa.array([f"words of row {i} and some more of them" for i in range(10)]),
            "label": labels,
            "score": pa.array([i / 3 for i in range(10)], type=pa.float32()),
            "nested": pa.array([{"a": [i]} for i in range(10)]),
        },
    ).replace_schema_metadata({"mine": "kept"})


@pytest.mark.parametrize("kind", ["string", "dictionary", "named"])
def test_parquet_keeps_schema_metadata_and_all_columns(tmp_path: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    labels = pa.array(GIVEN)
    if kind == "dictionary":
        labels = labels.dictionary_encode()
    made = table(labels)
    if kind == "named":
        made = made.set_column(1, "label", pa.array([CLASSES.index(name) for name in GIVEN]))
        features = {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": list(CLASSES), "_type": "ClassLabel"},
            "score": {"dtype": "float32", "_type": "Value"},
            "nested": {"a": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"}},
        }
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    source = tmp_path / "pets.parquet"
    pq.write_table(made, source, row_group_size=4, compression="zstd")
    case = opened(tmp_path, source, input="text")
    decide(case)
    export(case, tmp_path / "out.parquet")
    with pq.ParquetFile(tmp_path / "out.parquet") as new, pq.ParquetFile(source) as old:
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        assert [new.metadata.row_group(i).num_rows for i in range(new.num_row_groups)] == [3, 4, 2]
        assert new.metadata.row_group(0).column(0).compression == "ZSTD"
    found, kept = pq.read_table(tmp_path / "out.parquet"), [i for i in range(10) if i != 3]
    names = [CLASSES[cell] if kind == "named" else cell for cell in found["label"].to_pylist()]
    assert names == AFTER
    assert found.drop(["label"]).equals(made.drop(["label"]).take(kept))


def test_json_lines(tmp_path: Path) -> None:
    source = tmp_path / "pets.jsonl"
    rows = [{"text": f"Zeile\u2028{i} of a longer text here", "label": name, "n": 1.0} for i, name in enumerate(GIVEN)]
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows)]
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    case = opened(tmp_path, source, input="text")
    decide(case)
    export(case, tmp_path / "out.jsonl")
    with (tmp_path / "out.jsonl").open(encoding="utf-8", newline="\n") as file:
        found = file.read().split("\n")[:-1]
    assert [json.loads(line)["label"] for line in found] == AFTER
    assert found[3:] == lines[4:]


def photos(folder: Path) -> Path:
    """Ten pictures in three class folders, two of the same name; a text beside them, a test part."""
    for i, name in enumerate(GIVEN):
        place = folder / "train" / name / ("same.png" if i in (0, 1) else f"{i}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(place)
    (folder / "test" / "cat").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(folder / "test" / "cat" / "t.png")
    (folder / "README.md").write_text("my pets")
    (folder / ".hidden").write_text("not data")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("how", ["copy", "link"])
def test_class_folders(tmp_path: Path, how: str) -> None:
    source = photos(tmp_path / "photos")
    before = tree(source)
    case = opened(tmp_path, source)
    place = {case.rows.source.raw.columns["image"][at]: at for at in range(10)}
    at = {name: place[str(source / "train" / name)] for name in ("cat/same.png", "cat/3.png", "fox/2.png")}
    case.decisions.decide(at["cat/same.png"], "other", "dog", "Ada")
    case.decisions.decide(at["cat/3.png"], "none", None, "Ada")
    case.decisions.decide(at["fox/2.png"], "other", "cat", "Ada")
    made = export(case, tmp_path / "out", files=how)
    after = tree(tmp_path / "out")
    expected = {name: data for name, data in before.items() if name != "train/cat/3.png"}
    expected["train/dog/same-from-cat.png"] = expected.pop("train/cat/same.png")
    expected["train/cat/2.png"] = expected.pop("train/fox/2.png")
    assert after == expected
    assert tree(source) == before
    assert {line["file"] for line in trail(made)} == {"train/dog/same-from-cat.png", "train/cat/2.png", ""}
    links = (tmp_path / "out" / "train" / "cat" / "6.png").stat().st_nlink
    assert links == (2 if how == "link" else 1)
    assert readers.read(tmp_path / "out", cache=tmp_path / "cache").classes == CLASSES


def test_a_folder_of_tables(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    for part, rows in (("train-0", range(4)), ("train-1", range(4, 10)), ("test", range(3))):
        lines = [f"{i},{GIVEN[i]}" for i in rows]
        (folder / f"{part}.csv").write_text("x,label\n" + "\n".join(lines) + "\n")
    case = opened(tmp_path, folder, input="x")
    for at, verdict in ((3, "none"), (4, "accept"), (9, "accept")):
        case.decisions.decide(at, verdict, None, "Ada")
    export(case, tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == ["test.csv", "train-0.csv", "train-1.csv"]
    assert (tmp_path / "out" / "test.csv").read_bytes() == (folder / "test.csv").read_bytes()
    assert (tmp_path / "out" / "train-0.csv").read_text() == "x,label\n0,cat\n1,dog\n2,fox\n"
    assert (tmp_path / "out" / "train-1.csv").read_text() == "x,label\n4,fox\n5,fox\n6,cat\n7,dog\n8,fox\n9,dog\n"


def test_a_folder_with_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    (folder / "files").mkdir(parents=True)
    lines = ["file_name,label"]
    for i, name in enumerate(GIVEN):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / "files" / f"{i}.png")
        lines.append(f"files/{i}.png,{name}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    case = opened(tmp_path, folder)
    decide(case)
    export(case, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert sorted(found) == sorted(["metadata.csv", *(f"files/{i}.png" for i in range(10) if i != 3)])
    kept = [i for i in range(10) if i != 3]
    expected = [f"files/{i}.png,{name}" for i, name in zip(kept, AFTER, strict=True)]
    assert found["metadata.csv"].decode().splitlines()[1:] == expected


def test_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    np.save(tmp_path / "x_train.npy", x)
    np.save(tmp_path / "y_train.npy", np.array([7, 8, 9] * 3 + [7], dtype=np.int16))
    case = opened(tmp_path, tmp_path / "x_train.npy", ("7", "8", "9"))
    case.decisions.decide(0, "accept", None, "Ada")
    export(case, tmp_path / "fixed.npy")
    found = np.load(tmp_path / "fixed.npy")
    assert found.dtype == np.int16
    assert found.tolist() == [8, 8, 9, 7, 8, 9, 7, 8, 9, 7]
    case.decisions.decide(3, "none", None, "Ada")
    with pytest.raises(UnswayedError, match="1 rows to drop; name a folder"):
        export(case, tmp_path / "thin.npy")
    export(case, tmp_path / "kept.npy", none_fits="keep")
    assert np.load(tmp_path / "kept.npy").tolist() == found.tolist()
    export(case, tmp_path / "thin")
    kept = [i for i in range(10) if i != 3]
    assert np.array_equal(np.load(tmp_path / "thin" / "x_train.npy"), x[kept])
    assert np.load(tmp_path / "thin" / "y_train.npy").tolist() == found[kept].tolist()


@pytest.mark.parametrize("form", ["npz", "folder"])
def test_several_arrays_in_one_place(tmp_path: Path, form: str) -> None:
    arrays = {
        "x_train": np.arange(20.0).reshape(10, 2),
        "y_train": np.array(GIVEN),
        "x_test": np.ones((2, 2)),
        "y_test": np.array(["cat", "dog"]),
    }
    source = tmp_path / "pets.npz"
    if form == "npz":
        np.savez_compressed(source, **arrays)  # type: ignore[arg-type]
    else:
        source = tmp_path / "pets"
        source.mkdir()
        for name, array in arrays.items():
            np.save(source / f"{name}.npy", array)
    case = opened(tmp_path, source)
    decide(case)
    out = tmp_path / ("out.npz" if form == "npz" else "out")
    export(case, out)
    found = np.load(out) if form == "npz" else {name: np.load(out / f"{name}.npy") for name in arrays}
    assert found["y_train"].tolist() == AFTER
    assert found["x_train"].tolist() == arrays["x_train"][[0, 1, 2, 4, 5, 6, 7, 8, 9]].tolist()
    assert np.array_equal(found["x_test"], arrays["x_test"])
    assert found["y_test"].tolist() == ["cat", "dog"]


def test_labels_that_were_given_as_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.array(GIVEN))
    audit, _ = make_audit(torch.tensor([CLASSES.index(name) for name in GIVEN]), CLASSES, config=None)
    audit = replace(
        audit,
        suggested=(audit.given + 1) % 3,
        about={"config": None, "files": {"labels": str(tmp_path / "labels.npy")}},
    )
    case = open_case(audit.save(tmp_path / "run"))
    case.decisions.decide(0, "accept", None, "Ada")
    export(case, tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").tolist() == ["dog", *GIVEN[1:]]
    np.save(tmp_path / "labels.npy", np.array(GIVEN[::-1]))
    with pytest.raises(UnswayedError, match="that were audited"):
        export(open_case(tmp_path / "run"), tmp_path / "more.npy")


def test_a_data_set_known_by_its_name(tmp_path: Path) -> None:
    case = opened(tmp_path, "wine", ("class_0", "class_1", "class_2"))
    decide_wine = case.decisions.decide
    decide_wine(0, "accept", None, "Ada")
    decide_wine(1, "none", None, "Ada")
    export(case, tmp_path / "wine.csv")
    with (tmp_path / "wine.csv").open() as file:
        found = list(csv.DictReader(file))
    assert found[:2] == [{"row": "0", "label": "class_1"}, {"row": "2", "label": "class_0"}]
    assert len(found) == 177
    with pytest.raises(UnswayedError, match=r"FILE\.csv"):
        export(case, tmp_path / "wine.parquet")


@pytest.fixture
def pets(tmp_path: Path) -> Case:
    source = tmp_path / "pets.csv"
    source.write_text("x,label\n" + "\n".join(f"{i},{name}" for i, name in enumerate(GIVEN)) + "\n")
    return opened(tmp_path, source, input="x")


def labels_of(path: Path) -> list[str]:
    with path.open() as file:
        return [line["label"] for line in csv.DictReader(file)]


def test_suggestions_taken_unseen(pets: Case, tmp_path: Path) -> None:
    pets.decisions.decide(0, "keep", None, "Ada")
    pets.decisions.decide(1, "skip", None, "Ada")
    made = export(pets, tmp_path / "out.csv", accept_above=0.72)
    assert labels_of(tmp_path / "out.csv") == ["cat", "dog", "cat", "dog", *GIVEN[4:]]
    assert [(line["row"], line["action"], line["reviewer"]) for line in trail(made)] == [
        ("2", "suspicion above 0.72", "unswayed"),
        ("3", "suspicion above 0.72", "unswayed"),
    ]


def test_unsure_suggestions_are_not_taken_unseen(pets: Case, tmp_path: Path) -> None:
    kinds = pets.audit.kind.clone()
    kinds[0], kinds[1] = KINDS.index("ambiguous"), KINDS.index("outlier")
    case = open_case(replace(pets.audit, kind=kinds).save(tmp_path / "other"))
    export(case, tmp_path / "out.csv", accept_above=0.0)
    assert labels_of(tmp_path / "out.csv")[:3] == ["cat", "dog", "cat"]


@pytest.mark.parametrize(("rule", "label"), [("given", "cat"), ("latest", "fox")])
def test_conflicts(pets: Case, tmp_path: Path, rule: str, label: str) -> None:
    pets.decisions.decide(0, "accept", None, "Ada")
    pets.decisions.decide(0, "other", "fox", "Bob")
    made = export(pets, tmp_path / "out.csv", conflicts=rule)
    assert labels_of(tmp_path / "out.csv") == [label, *GIVEN[1:]]
    (line,) = trail(made)
    assert made.conflicts == 1
    if rule == "given":
        assert (line["action"], line["reviewer"]) == ("conflict: the given label stays", "Ada: dog; Bob: fox")
    else:
        assert (line["action"], line["reviewer"], line["label"]) == ("other, disputed", "Bob", "fox")


def test_nothing_is_overwritten(pets: Case, tmp_path: Path) -> None:
    pets.decisions.decide(0, "accept", None, "Ada")
    source = tmp_path / "pets.csv"
    before = source.read_bytes()
    for out in (source, tmp_path / "x" / ".." / "pets.csv"):
        with pytest.raises(UnswayedError, match="nothing is yet"):
            export(pets, out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UnswayedError, match="nothing is yet"):
        export(pets, tmp_path / "taken")
    with pytest.raises(UnswayedError, match=r"FILE\.csv, as the data are"):
        export(pets, tmp_path / "out.parquet")
    export(pets, tmp_path / "out.csv")
    with pytest.raises(UnswayedError, match="nothing is yet"):
        export(pets, tmp_path / "out.csv")
    assert source.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_not_into_the_data(tmp_path: Path) -> None:
    case = opened(tmp_path, photos(tmp_path / "photos"))
    case.decisions.decide(0, "accept", None, "Ada")
    with pytest.raises(UnswayedError, match="apart from the data"):
        export(case, tmp_path / "photos" / "fixed")


def test_data_that_changed_since(pets: Case, tmp_path: Path) -> None:
    pets.decisions.decide(0, "accept", None, "Ada")
    source = tmp_path / "pets.csv"
    source.write_text(source.read_text().replace("5,fox", "5,cat"))
    with pytest.raises(UnswayedError, match="other labels in 1 rows"):
        export(open_case(tmp_path / "run"), tmp_path / "out.csv")
    source.write_text("\n".join(source.read_text().splitlines()[:-2]))
    with pytest.raises(UnswayedError, match="without row 8"):
        export(open_case(tmp_path / "run"), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_the_command(pets: Case, tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), str(tmp_path / "out.csv")

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, ["export", run, "--out", out, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    with pytest.raises(UnswayedError, match="review some rows first"):
        said()
    pets.decisions.decide(0, "accept", None, "Ada")
    pets.close()
    shown = said("--accept-above", "0.8")
    assert "2 of 10 labels changed, 0 rows dropped." in shown
    (tmp_path / "out.csv").unlink()
    (tmp_path / "out.csv.changes.csv").unlink()
    assert json.loads(said("--json"))["changed"] == 1
    with pytest.raises(UnswayedError, match="files is copy or link"):
        said("--files", "move")
    with pytest.raises(UnswayedError, match="none_fits is drop or keep"):
        said("--none-fits", "ask")


def test_an_empty_review_is_told(pets: Case, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="decisions to export"):
        export(pets, tmp_path / "out.csv")
    with sqlite3.connect(pets.decisions.path) as base:
        assert base.execute("SELECT count(*) FROM decisions").fetchone() == (0,)
