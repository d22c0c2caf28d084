import json
import math

import pytest

from diffharness.errors import RunError
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, TaskInfo

VALUES = {"acc": 1.0, "f1": (1, 0), "brier_score": (1, (0.25, 0.75)), "bleu": ("a b", "a"), "odd": math.nan}


def made() -> Evaluation:
    metric = MetricKey("acc", "none", True)
    info = TaskInfo("t", "multiple_choice", (metric,), ("night",), "1.0", "abc", {"acc,none": 0.5})
    documents = (
        DocumentScore("t", 0, "none", "d", "p", "é ?", "a", "b", VALUES, (1,), ("a", "b")),
        DocumentScore("t", 0, "strict", "d", "p", "é ?", "a", "b", {"acc": 0.0}),
    )
    return Evaluation("pretrained=x", (info,), documents, Ledger(()), {"limit": 3})


def test_what_is_saved_is_loaded_with_its_structure(tmp_path):
    made().save(tmp_path)
    found = Evaluation.load(tmp_path)
    values = dict(found.documents[0].values)
    assert math.isnan(values.pop("odd"))
    assert values == {k: v for k, v in VALUES.items() if k != "odd"}
    assert [type(v) for v in values["f1"]] == [int, int]  # pyright: ignore[reportGeneralTypeIssues]
    assert (found.tasks, found.settings, found.documents[1]) == (made().tasks, made().settings, made().documents[1])


def test_no_nan_is_written(tmp_path):
    made().save(tmp_path)
    json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_documents_are_kept_apart_by_filter():
    assert made().of("t", "strict")[0].scalar("acc") == 0.0
    assert made().of("t", "none")[0].scalar("acc") == 1.0
    assert made().of("t", "none")[0].scalar("f1") is None


def test_what_is_no_evaluation_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RunError, match="make one with"):
        Evaluation.load(tmp_path)
    for text in ("{", "{}", "[]"):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(RunError, match="make one with"):
            Evaluation.load(tmp_path)
