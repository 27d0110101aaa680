"""Tables in files, folders of classes and saved sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unswayed.data import Dataset, preview, read
from unswayed.data.columns import ArrayColumn, Selection
from unswayed.errors import UnswayedError

datasets = pytest.importorskip("datasets")


def write(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def picture(file: Path, colour: int = 0, size: tuple[int, int] = (4, 4)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 0)).save(file)
    return file


TEXTS = [("good film", "pos"), ("bad film", "neg"), ("good plot, good cast", "pos")]


@pytest.mark.parametrize("end", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_texts(tmp_path: Path, end: str) -> None:
    file = tmp_path / f"films.{end}"
    rows = [{"text": text, "label": label} for text, label in TEXTS]
    if end == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(file))
    elif end.startswith("json"):
        file.write_text(json.dumps(rows) if end == "json" else "\n".join(map(json.dumps, rows)))
    else:
        with file.open("w", newline="") as stream:
            csv.writer(stream, delimiter="\t" if end == "tsv" else ",").writerows([("text", "label"), *TEXTS])
    data = read(file, cache=tmp_path / "cache")
    assert (data.name, data.kind, data.classes, data.test) == ("films", "text", ("neg", "pos"), None)
    assert data.train.given.tolist() == [1, 0, 1]
    assert list(data.train.source or ()) == [text for text, _ in TEXTS]
    assert data.train.rows.tolist() == [0, 1, 2]
    assert data.train.truth is None
    assert preview(data, "train", 1).content == b"bad film"


@given(rows=st.lists(st.tuples(st.text(max_size=12), st.sampled_from(["a", "b", "NA", "c,d", 'e"f', ""])), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_survives_whatever_texts_hold(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    rows = [
        ("first words", "a"),
        ("other words", "b"),
        *((text.replace("\0", "").encode("utf-8", "ignore").decode(), y) for text, y in rows),
    ]
    file = tmp_path / "any.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    data = read(file, cache=tmp_path / "cache")
    kept = [i for i, (_, label) in enumerate(rows) if label]
    assert data.train.rows.tolist() == kept
    assert [data.classes[code] for code in data.train.given] == [rows[i][1] for i in kept]
    assert [str(text).splitlines() for text in data.train.source or ()] == [rows[i][0].splitlines() for i in kept]


def test_a_text_that_ends_like_a_picture_is_a_text(tmp_path: Path) -> None:
    file = write(tmp_path / "any.csv", "text,label\nfirst words,a\nsee x.jpg,b\n.JPG,b\nmore words,a\nlast words,b\n")
    data = read(file, cache=tmp_path / "cache")
    assert (data.kind, len(data.train)) == ("text", 5)


def test_observed_and_true_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,worst,label\na b,dog,cat\nb c,cat,cat\nc d,dog,dog\nd e,,dog\n")
    write(tmp_path / "test.csv", "text,label\na c,dog\nb d,\nb b,cat\n")
    data = read(train, label="worst", truth="label", cache=tmp_path / "cache")
    assert data.name == tmp_path.name
    assert data.train.given.tolist() == [1, 0, 1]
    assert data.train.truth is not None
    assert data.train.truth.tolist() == [0, 0, 1]
    assert data.test is not None
    assert data.test.truth is not None
    assert (data.test.given.tolist(), data.test.truth.tolist(), data.test.rows.tolist()) == ([1, 0], [1, 0], [0, 2])
    assert "1 of 4 training rows have no label: left out" in data.notes
    assert "1 of 3 test rows have no label: left out" in data.notes
    assert "test rows from the neighbour test.csv" in data.notes


def test_label_by_convention_tells_of_the_others(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text,label,annotated\nx y,1,2\ny z,2,2\n")
    data = read(file, extra=["annotated"], cache=tmp_path)
    assert data.train.given.tolist() == [0, 1]
    assert data.extra["annotated"].tolist() == [1, 1]
    assert any("'annotated' also look like labels" in note for note in read(file, cache=tmp_path).notes)


def test_true_labels_by_convention_and_unknown_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text,given,clean_label\nx y,1,2\ny z,2,\n")
    truth = read(file, cache=tmp_path).train.truth
    assert truth is not None
    assert truth.tolist() == [1, -1]


def test_class_names_of_the_file_count_by_name_not_by_number(tmp_path: Path) -> None:
    for name, classes, labels in (("train", ["zebra", "ant"], [0, 1, 0]), ("test", ["ant", "zebra"], [0, 1, 1])):
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=classes)})
        rows = datasets.Dataset.from_dict({"text": ["a b", "c d", "e f"], "label": labels}, features=features)
        rows.to_parquet(str(tmp_path / f"{name}.parquet"))
    data = read(tmp_path / "train.parquet", cache=tmp_path / "cache")
    assert data.classes == ("zebra", "ant")
    assert data.test is not None
    assert (data.train.given.tolist(), data.test.given.tolist()) == ([0, 1, 0], [1, 0, 0])


def test_split_column(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text,y,split\na,u,test\nb,v,train\nc,u,train\nd,u,val\ne,v,train\n")
    data = read(file, cache=tmp_path / "cache")
    assert data.train.rows.tolist() == [1, 2, 4]
    assert data.test is not None
    assert data.test.rows.tolist() == [0]
    assert "the split 'validation' (1 rows) is not used" in data.notes
    other = read(file, test=write(tmp_path / "c.csv", "text,y\ne,u\ne,v\n"), cache=tmp_path / "cache")
    assert other.train.rows.tolist() == [1, 2, 4]
    assert other.test is not None
    assert len(other.test) == 2
    file = write(tmp_path / "b.csv", "text,y,fold\na,u,1\nb,v,2\n")
    with pytest.raises(UnswayedError, match=r"'train' and 'test' in the split column 'fold', but got 1, 2"):
        read(file, split="fold", cache=tmp_path / "cache")


def test_folder_of_tables_and_test_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "set/train-0.csv", "text,label\na b,u\nc d,v\n")
    write(tmp_path / "set/train-1.csv", "text,label\ne f,u\n")
    write(tmp_path / "set/validation.csv", "text,label\ne f,u\n")
    other = write(tmp_path / "other.csv", "text,label\ng h,v\nh g,u\n")
    data = read(tmp_path / "set", cache=tmp_path / "cache")
    assert (len(data.train), data.test and len(data.test)) == (3, 1)
    assert "no split is called test: the validation rows are for testing" in data.notes
    assert data.test is not None
    with_other = read(tmp_path / "set", test=other, cache=tmp_path / "cache").test
    assert with_other is not None
    assert list(with_other.source or ()) == ["g h", "h g"]


def test_saved_set_of_the_library(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d", "e f", "g"], "label": [5, 7, 5, 7]})
    whole = datasets.DatasetDict({"train": rows.select([3, 1, 0]), "test": rows.select([2])})
    whole.save_to_disk(str(tmp_path / "saved"))
    data = read(tmp_path / "saved", cache=tmp_path / "cache")
    assert data.classes == ("5", "7")
    assert list(data.train.source or ()) == ["g", "c d", "a b"]
    assert data.test is not None
    assert data.test.given.tolist() == [0]


def test_folder_of_classes(tmp_path: Path) -> None:
    for split, names in (("train", ("eel", "ant")), ("test", ("ant",))):
        for i, name in enumerate(names):
            picture(tmp_path / "set" / split / name / f"test_{i}.png", colour=10 * i)
    picture(tmp_path / "set/train/loose.png")
    write(tmp_path / "set/train/eel/readme.txt", "no picture")
    data = read(tmp_path / "set", cache=tmp_path / "cache")
    assert (data.kind, data.classes, data.train.x.shape) == ("image", ("ant", "eel"), (3, 4, 4))
    assert data.train.given.tolist() == [0, 1]
    assert data.train.x.rows(torch.tensor([0, 1]))[:, 0, 0, 0].tolist() == [10, 0]
    assert data.test is not None
    assert data.test.given.tolist() == [0]
    assert any("1 files of" in note and "no class folder" in note for note in data.notes)


def test_metadata_names_the_files(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"set/pictures/{i}.png", colour=i)
    write(tmp_path / "set/metadata.csv", "file_name,label\npictures/2.png,u\npictures/0.png,v\npictures/9.png,v\n")
    data = read(tmp_path / "set", cache=tmp_path / "cache")
    assert data.kind == "image"
    assert data.train.x.rows(torch.arange(2))[:, 0, 0, 0].tolist() == [2, 0]
    assert any("1 of 3 training images cannot be read" in n and "9.png: no such file" in n for n in data.notes)


def test_larger_than_memory_is_mapped_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        picture(tmp_path / f"set/{'ab'[i % 2]}/{i}.png", colour=i)
    said: list[tuple[str, int, int]] = []

    def load() -> Dataset:
        return read(tmp_path / "set", memory=0, cache=tmp_path / "cache", progress=lambda *now: said.append(now))

    first = load()
    assert isinstance(first.train.x, ArrayColumn)
    assert isinstance(first.train.x.values, np.memmap)
    assert said[-1] == ("decoding training images", 6, 6)
    monkeypatch.setattr("unswayed.data.images.Images.decode", None)  # a second reading decodes nothing
    second = load()
    order = torch.tensor([4, 0, 3])
    assert torch.equal(first.train.x.rows(order), second.train.x.rows(order))
    assert second.train.x.rows(order)[:, 0, 0, 0].tolist() == [3, 0, 1]  # a: 0 2 4, b: 1 3 5
    monkeypatch.undo()
    picture(tmp_path / "set/a/0.png", colour=99, size=(5, 5))
    assert load().train.x.rows(torch.tensor([0]))[0, 0, 2, 2] == 99


def test_damaged_pictures_are_left_out_with_their_labels(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"set/{'ab'[i % 2]}/{i}.png", colour=i)
    write(tmp_path / "set/a/2.png", b"\x89PNG and nothing more")
    good = picture(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    write(tmp_path / "set/b/3.png", good[: len(good) // 2])
    data = read(tmp_path / "set", size=4, cache=tmp_path / "cache")
    assert (data.train.given.tolist(), data.train.rows.tolist(), len(data.train.x)) == ([0, 0, 1], [0, 2, 3], 3)
    assert isinstance(data.train.x, Selection)
    assert data.train.x.rows(torch.arange(3))[:, 0, 0, 0].tolist() == [0, 4, 1]
    (note,) = [note for note in data.notes if "cannot be read" in note]
    assert "2 of 5 training images" in note
    assert "2.png" in note
    assert "3.png" in note
    with pytest.raises(UnswayedError, match=r"2 of 5 training images cannot be read .*repair or remove them"):
        read(tmp_path / "set", size=4, strict=True, cache=tmp_path / "cache")


BAD: list[tuple[str, str | bytes, dict[str, Any], str]] = [
    ("a.csv", "", {}, "a file with rows, but got .*a.csv, which is empty"),
    ("a.csv", "text,label\n", {}, "a file with rows, but got .*a.csv, which has none"),
    ("a.csv", "1,2\n3,4\n", {}, "names of the columns in the first line"),
    ("a.csv", "b,b\n3,4\n", {}, "columns of different names .*'b' twice"),
    ("a.csv", "text,label\na,b\nc,d,e\n", {}, "Expected 2 fields in line 3, saw 3"),
    ("a.csv", "text,label\na,b,c\nc,d,e\n", {}, "does not match length of data"),
    ("a.csv", b"text,label\n\xe9t\xe9,x\nb,y\n", {}, "text in UTF-8"),
    ("a.csv", "text,label\na,u\nb,v\n", {"label": "lable"}, "one of text, label .*'lable'; did you mean label"),
    ("a.csv", "text,label\na,u\nb,v\n", {"input": "txt"}, "the input column is one of .*did you mean text"),
    ("a.csv", "text,label\na,u\nb,v\n", {"truth": "gold"}, "the truth column is one of"),
    ("a.csv", "text,label\na,u\nb,v\n", {"input": "label"}, "an input that is not the label"),
    ("a.csv", "text,kind\na,u\nb,v\n", {}, "a label column .* the columns text, kind; name it"),
    ("a.csv", "label,given\na,u\nb,v\n", {}, "a column to learn from"),
    ("a.csv", "text,label\na,u\nb,u\n", {}, "one class only, 'u', in 2 rows"),
    ("a.csv", "text,label\na,\nb,\n", {}, "every cell is missing"),
    ("a.csv", "x,label\n1,u\nnan,v\n", {}, r"column 'x'.*missing ones \(NaN\) in 1 of the training rows"),
    ("a.csv", "x,label\n1,u\ninf,v\n", {}, "finite numbers in column 'x'.*infinite ones in 1"),
    ("a.csv", "x,label\n1,u\n2,v\n", {"size": 3}, "a size for images, but got table data"),
    ("a.csv", "x,label\n1,u\n2,v\n", {"features": {"kind": "mfcc"}}, "feature settings for sounds or texts"),
    ("a.csv", "x,label\n1,u\n2,v\n", {"missing": "median"}, "missing is error or mean"),
    ("a.jsonl", '{"text": "a"', {}, "a readable file, .*a.jsonl"),
    ("a.parquet", "nonsense", {}, "a readable file, .*a.parquet"),
    ("a.xlsx", "nonsense", {}, "a file that ends in .parquet, .csv"),
    ("a.npz", "nonsense", {}, "a NumPy file of plain arrays"),
]


@pytest.mark.parametrize(("name", "text", "settings", "message"), BAD)
def test_bad_files(tmp_path: Path, name: str, text: str | bytes, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnswayedError, match=message):
        read(write(tmp_path / name, text), cache=tmp_path / "cache", **settings)


def test_bad_places(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,u\nb,v\n")
    with pytest.raises(UnswayedError, match=r"which is not there; did you mean train.csv"):
        read(tmp_path / "trian.csv")
    with pytest.raises(UnswayedError, match=r"did you mean digits"):
        read("digitz")
    with pytest.raises(UnswayedError, match=r"a cache folder that can be written, .* give another one: cache=FOLDER"):
        read(tmp_path / "train.csv", cache=tmp_path / "train.csv" / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnswayedError, match=r"tables \(.parquet.*images or sounds in .*empty, but got none"):
        read(tmp_path / "empty")
    picture(tmp_path / "flat/a.png")
    with pytest.raises(UnswayedError, match=r"one sub-folder a class .* or a file metadata.csv"):
        read(tmp_path / "flat")


def test_unlabelled_neighbours_are_not_for_testing(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,worst,label\na,u,u\nb,v,u\n")
    for text in ("text\na\n", "text,label,worst\na,,\n"):
        write(tmp_path / "test.csv", text)
        data = read(train, cache=tmp_path / "cache", label="worst")
        assert data.test is None
        assert "the test rows have no labels: not used" in data.notes
    write(tmp_path / "test.csv", "text,label\na,u\n")
    with pytest.raises(UnswayedError, match=r"the label column 'worst' in the test data .*truth="):
        read(train, cache=tmp_path / "cache", label="worst")


def test_a_class_called_train_and_tables_of_no_split(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        picture(tmp_path / "set" / name / "a.png")
    data = read(tmp_path / "set", cache=tmp_path / "cache")
    assert (data.classes, data.train.given.tolist()) == (("bus", "train"), [0, 1])
    write(tmp_path / "tables/train.csv", "text,label\na,u\nb,v\n")
    write(tmp_path / "tables/sample_submission.csv", "id,label\n1,u\n")
    data = read(tmp_path / "tables", cache=tmp_path / "cache")
    assert len(data.train) == 2
    assert any(note.endswith("sample_submission.csv is not used") for note in data.notes)


def test_a_changed_picture_is_decoded_anew(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / f"{i}.png", colour=i)
    file = write(tmp_path / "list.csv", "image,label\n0.png,u\n1.png,v\n")
    for colour in (0, 90):
        picture(tmp_path / "0.png", colour=colour)
        data = read(file, memory=0, cache=tmp_path / "cache")
        assert data.train.x.rows(torch.arange(2))[:, 0, 0, 0].tolist() == [colour, 1]


def test_class_names_of_a_column_with_gaps(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d", "e f"], "label": [0, None, 1]}, features=features)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    data = read(tmp_path / "a.parquet", cache=tmp_path / "cache")
    assert (data.classes, data.train.given.tolist(), data.train.rows.tolist()) == (("z", "a"), [0, 1], [0, 2])
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d"], "label": [2**60 + 1, None]})
    rows.to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(UnswayedError, match=rf"one class only, '{2**60 + 1}'"):
        read(tmp_path / "b.parquet", cache=tmp_path / "cache")


def test_more_than_one_label_a_row(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "a", "label": ["u"]}\n{"text": "b", "label": ["v", "w"]}\n')
    with pytest.raises(UnswayedError, match=r"one label a row in column 'label', but got list in row 0"):
        read(file, cache=tmp_path / "cache")


def test_bad_test_data(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label\na,u\nb,v\n")
    cache = tmp_path / "cache"
    with pytest.raises(UnswayedError, match=r"the label column 'label' in the test data .*columns text, other"):
        read(train, test=write(tmp_path / "b.csv", "text,other\na,u\n"), cache=cache)
    with pytest.raises(
        UnswayedError, match=r"test labels \('label'\) among the training classes 'u', 'v', but got 'w'"
    ):
        read(train, test=write(tmp_path / "c.csv", "text,label\na,u\nb,w\n"), cache=cache)
    with pytest.raises(UnswayedError, match=r"labels in the test data .* is empty"):
        read(train, test=write(tmp_path / "d.csv", "text,label\na,\nb,\n"), cache=cache)
    with pytest.raises(UnswayedError, match=r"the input column is one of words, label"):
        read(train, test=write(tmp_path / "e.csv", "words,label\na,u\n"), cache=cache)
    data = read(train, test=write(tmp_path / "f.csv", "text,label\na,u\n"), cache=cache)
    assert "no test row has the label 'v': the test says nothing about it" in data.notes
    with pytest.raises(UnswayedError, match=r"a row 0\.\.0 of the test rows, but got 1"):
        preview(data, "test", 1)


def test_the_library_is_left_as_it_was(tmp_path: Path) -> None:
    level = datasets.logging.get_verbosity()
    hidden = datasets.are_progress_bars_disabled()
    read(write(tmp_path / "a.csv", "text,label\na,u\nb,v\n"), cache=tmp_path / "cache")
    assert (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()) == (level, hidden)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"datasets"}


def test_test_rows_that_nobody_wants(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,annotator\n" + "good film,yes\nbad plot,no\n" * 6)
    write(tmp_path / "test.csv", "text,label\ngood play,perhaps\n")
    with pytest.raises(UnswayedError, match="in the test data"):
        read(train, label="annotator", cache=tmp_path / "cache")
    found = read(train, label="annotator", test=False, cache=tmp_path / "cache")
    assert found.test is None
    assert len(found.train) == 12
