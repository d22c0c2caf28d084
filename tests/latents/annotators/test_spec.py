from __future__ import annotations

import subprocess
import sys

import pytest

from diffharness.errors import UsageError
from diffharness.latents.annotators.spec import AnnotatorSpec, parse_annotator


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("probe", AnnotatorSpec("probe")),
        (" probe ", AnnotatorSpec("probe")),
        ("file,labels.csv", AnnotatorSpec("file", "labels.csv")),
        ("file,a folder/with, a comma.txt", AnnotatorSpec("file", "a folder/with, a comma.txt")),
        ("some/where/labels.CSV", AnnotatorSpec("file", "some/where/labels.CSV")),
        ("hf,pretrained=gpt2", AnnotatorSpec("lm", "hf,pretrained=gpt2")),
        ("hf,pretrained=odd.csv", AnnotatorSpec("lm", "hf,pretrained=odd.csv")),
        (
            "local-chat-completions,model=m,base_url=http://localhost:1/v1/chat/completions",
            AnnotatorSpec("lm", "local-chat-completions,model=m,base_url=http://localhost:1/v1/chat/completions"),
        ),
    ],
)
def test_the_form_tells_the_annotator(spec, expected):
    assert parse_annotator(spec) == expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("probes", "did you mean 'probe'"),
        ("", "is none that there is"),
        ("file", "names no table"),
        ("file,", "names no table"),
        ("file,path=labels.csv", "names no table"),
        ("files,labels.xlsx", "did you mean 'file'"),
        ("hf", "has no arguments"),
        ("openai-chat-completions", "has no arguments"),
        ("hf,gpt2", "has no arguments"),
        ("gpt4", "is none that there is"),
    ],
)
def test_other_forms_are_refused_with_those_that_there_are(spec, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_annotator(spec)
    assert "\n" not in str(caught.value)
    assert "file,PATH.csv" in str(caught.value)


def test_telling_the_annotator_loads_nothing_heavy():
    check = (
        "import sys; from diffharness.latents.annotators.spec import parse_annotator; parse_annotator('probe'); "
        "sys.exit(bool({'torch', 'lm_eval', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
