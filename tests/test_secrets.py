"""Secrets stay out of what is written; everything else is left alone."""

from __future__ import annotations

import pytest

from diffharness.command import default_command
from diffharness.config import RunConfig
from diffharness.secrets import without_secrets


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("pretrained=org/m,token=hf_abc,dtype=float32", "pretrained=org/m,token=(hidden),dtype=float32"),
        ("local-chat-completions,model=m,api_key=sk-1", "local-chat-completions,model=m,api_key=(hidden)"),
        ("x,model=m,base_url=https://me:pw@host/v1", "x,model=m,base_url=https://(hidden)@host/v1"),
        ("x,model=m,header={'Authorization': 'Bearer a'},y=1", "x,model=m,header=(hidden),y=1"),
    ],
)
def test_secret_arguments_are_hidden(given: str, shown: str) -> None:
    assert without_secrets(given) == shown


@pytest.mark.parametrize(
    "given",
    [
        "pretrained=org/m,tokenizer=org/t,add_bos_token=True,pad_token=<pad>,max_gen_toks=9",
        "path/to/model",
        "hf:org/data:train:text@0.5",
        "You are a=b, helpful, key",
        "local-chat-completions,model=m,base_url=http://127.0.0.1:8000/v1/chat/completions,tokenized_requests=False",
    ],
)
def test_other_text_is_as_it_was(given: str) -> None:
    assert without_secrets(given) == given


def test_neither_the_configuration_nor_the_command_shows_a_secret() -> None:
    config = RunConfig.make(
        {
            "baseline": "pretrained=org/a,token=hf_secret",
            "candidate": "org/b",
            "tasks": ["t"],
            "annotator": ["openai-chat-completions,model=m,api_key=sk-secret"],
        }
    )
    for shown in (config.to_yaml(), default_command(config), str(config.public())):
        assert "secret" not in shown
        assert "(hidden)" in shown
