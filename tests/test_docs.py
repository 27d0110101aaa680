"""What the documents show is what runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from unswayed import methods

ROOT = Path(__file__).parents[1]


def blocks(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_your_own_method(capsys: pytest.CaptureFixture[str]) -> None:
    definition, contract, use = blocks("docs/your-own-method.md")
    code = definition.split("class ")[1].split("methods.add")[0].strip().splitlines()
    assert len(code) <= 20, "the promise is 20 lines"
    names: dict[str, Any] = {}
    try:
        for block in (definition, contract, use):
            exec(compile(block, "docs/your-own-method.md", "exec"), names)
    finally:
        methods.methods.remove("trimmed")
    printed = capsys.readouterr().out.strip().splitlines()
    accuracy = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in printed}
    assert accuracy.keys() == {"plain", "trimmed", "trimmed(drop=.4) edge-masked"}
    assert min(accuracy.values()) > 0.5


def test_readme_loop() -> None:
    import torch
    from torch import nn

    from unswayed.checks.methods import auroc, toy

    data, _, wrong = toy(300, classes=6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 10))
    names: dict[str, Any] = {"model": model}
    code, _ = blocks("README.md")
    exec(compile(code, "README.md", "exec"), names)
    loss, unswayed = names["loss"], names["unswayed"]
    dynamics = unswayed.stats.Dynamics(300, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(40):
        for ids in torch.randperm(300).split(50):
            logits, y = model(data.x.rows(ids)), data.y[ids]
            dynamics.update(logits, y, ids)
            optimizer.zero_grad()
            (loss(logits, y) + loss.penalty(model.parameters())).backward()
            optimizer.step()
    assert names["head"].mask.mean() < 0.25
    assert auroc(dynamics.suspicion(), wrong) > 0.9


def test_readme_audit() -> None:
    import torch

    from unswayed.checks.methods import auroc, toy

    data, _, wrong = toy(300, classes=6)
    names: dict[str, Any] = {"x": data.x.rows(data.index).numpy(), "labels": data.y.numpy()}
    _, code = blocks("README.md")
    exec(compile(code, "README.md", "exec"), names)
    assert auroc(names["audit"].suspicion, wrong) > 0.9
    assert auroc(torch.from_numpy(names["model"].suspicion_), wrong) > 0.9
    rate = names["audit"].noise.rate
    assert rate.low < wrong.double().mean() < rate.high


def test_readme_names_what_is_there() -> None:
    from unswayed import losses

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(losses.names())} robust losses" in text
    for path in re.findall(r"\]\(([\w/.-]+\.\w+)\)", text):
        assert (ROOT / path).exists(), f"the README points to {path}"


def test_a_data_set_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    from unswayed import data

    (code,) = blocks("docs/data.md")
    try:
        exec(compile(code, "docs/data.md", "exec"), {})
    finally:
        data.sources.remove("moods")
    assert capsys.readouterr().out == "('down', 'up')\n"


def toy_model() -> tuple[Any, Any, Any]:
    """A net from 6 features to 3 classes, rows and labels."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    return net, torch.randn(64, 6), torch.randint(3, (64,))


def test_edge_masking_in_a_plain_loop() -> None:
    import torch

    model, x, y = toy_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    names: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "loader": list(zip(x.split(8), y.split(8), strict=True)),
    }
    exec(compile(blocks("docs/masks.md")[0], "docs/masks.md", "exec"), names)
    assert names["head"] is model[2]
    assert names["head"].mask.sum(1).tolist() == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever the libraries have to say
def test_edge_masking_in_lightning() -> None:
    lightning = pytest.importorskip("lightning")
    from torch.utils.data import DataLoader, TensorDataset

    model, x, y = toy_model()
    names: dict[str, Any] = {}
    exec(compile(blocks("docs/masks.md")[1], "docs/masks.md", "exec"), names)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    trainer.fit(names["Classifier"](model), DataLoader(TensorDataset(x, y), batch_size=8))
    assert model[2].mask.sum(1).tolist() == [4, 4, 4]
    assert int(model[2].state_dict()["steps"]) == 16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever the libraries have to say
def test_edge_masking_with_the_hugging_face_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    sizes = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, num_labels=3, **sizes))
    words = torch.randint(50, (64, 8))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0]) % 3} for row in words]
    quiet: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "report_to": []}
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), max_steps=12, **quiet)
    names: dict[str, Any] = {"model": model, "arguments": arguments, "rows": rows}
    exec(compile(blocks("docs/masks.md")[2], "docs/masks.md", "exec"), names)
    names["trainer"].train()
    assert model.classifier is names["head"]
    assert names["head"].mask.sum(1).tolist() == [4, 4, 4]
    assert int(names["head"].state_dict()["steps"]) == 12


def test_frozen_features(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    (code,) = blocks("docs/frozen-features.md")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code, "docs/frozen-features.md", "exec"), {})
    accuracy = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()}
    assert accuracy.keys() == {"sce identity", "sce edge-masked identity", "logistic-regression", "knn"}
    assert min(accuracy.values()) > 0.8


def test_extend(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from unswayed import data, heads, losses, noise

    names: dict[str, Any] = {}
    try:
        with torch.random.fork_rng():
            for block in blocks("docs/extend.md"):
                exec(compile(block, "docs/extend.md", "exec"), names)
    finally:
        for registry, name in (
            (losses.losses, "power"),
            (heads.heads, "cosine"),
            (noise.noises, "towards-first"),
            (data.sources, "tickets"),
        ):
            registry.remove(name)
    assert float(capsys.readouterr().out) > 0.5


def test_a_data_set_in_a_layout_of_its_own(tmp_path: Path) -> None:
    from unswayed import data

    (tmp_path / "billing.txt").write_text("too much\npaid twice\n" * 5)
    (tmp_path / "network.txt").write_text("no signal\n" * 10)
    names: dict[str, Any] = {}
    (code,) = (block for block in blocks("docs/extend.md") if "def tickets" in block)
    try:
        exec(compile(code, "docs/extend.md", "exec"), names)
        found = data.read(f"tickets:{tmp_path}")
    finally:
        data.sources.remove("tickets")
    assert found.classes == ("billing", "network")
    assert len(found.train) == 20


def test_the_study_of_masks_says_what_its_runs_say() -> None:
    from benchmarks.edge_masking.study import RESULTS
    from benchmarks.edge_masking.table import effects, page, read

    results = read(RESULTS)
    assert (ROOT / "docs/edge-masking-results.md").read_text(encoding="utf-8") == page(results, 5)
    std = [e for e in effects(results) if e.form == "std" and e.over_none.n >= 5]
    gains, costs = sum(e.over_none.low > 0 for e in std), sum(e.over_none.high < 0 for e in std)
    proven = sum(e.proven for e in std)
    text = (ROOT / "docs/edge-masking.md").read_text(encoding="utf-8")
    assert f"shown in {gains} cells of {len(std)}; shown to *cost* in {costs}" in text
    assert f"in {proven} of the {len(std)} it also beats a random mask" in text
