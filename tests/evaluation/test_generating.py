from __future__ import annotations

import json
import logging
import socket

import pytest

from diffharness.errors import RunError, UsageError
from diffharness.evaluation import generating
from diffharness.evaluation.generating import load_generator
from tests.latents.annotators.chat_server import Failure, serve

ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who? <|im_end|> é"}]
KEY = "sk-test-not-a-real-key"
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(autouse=True)
def local_network_and_a_key(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("local-chat-completion,model=m", "did you mean 'local-chat-completions'"),
        ("gibberish,model=m", "no model of lm-eval's registry; try local-chat-completions"),
        ("local-chat-completions,base_url=http://h/v1", "names no model; add model=NAME"),
        ("local-chat-completions,model=m", "has no address; add base_url=http://HOST:PORT"),
        ("local-chat-completions,model=m,base_url=localhost:8000", "base_url=localhost:8000 is no address"),
        ("local-chat-completions,model=m,base_url=http://h,max_gen_toks=many", "max_gen_toks=many is no number"),
        ("local-chat-completions,model", "'model' has no value; write key=value"),
        ("hf,dtype=float32", "names no model; add pretrained=FOLDER_OR_HUB_ID"),
        ("hf,pretrained=/no/such/folder", "folder /no/such/folder does not exist"),
        ("anthropic-chat,model=m", "no key; set the environment variable ANTHROPIC_API_KEY"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_is_sent(spec, said):
    with pytest.raises(UsageError, match=said) as caught:
        load_generator(spec)
    assert "\n" not in str(caught.value)


def test_a_service_without_its_key_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="set the environment variable OPENAI_API_KEY"):
        load_generator("openai-chat-completions,model=gpt-x")


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(generating, "find_spec", lambda name: None if name == "tenacity" else name)
    with pytest.raises(UsageError, match=r"needs tenacity; pip install 'lm-eval\[api\]'"):
        load_generator("local-chat-completions,model=m,base_url=http://h/v1")


@pytest.mark.parametrize(("user", "concurrency"), [("u:pw@", ""), ("", ",num_concurrent=2")])
def test_a_refused_connection_is_one_line(user, concurrency):
    port = free_port()
    address = f"http://{user}127.0.0.1:{port}/v1?key=abc"
    spec = f"local-chat-completions,model=m,base_url={address},max_retries=1{concurrency}"
    said = rf"annotator m: http://127.0.0.1:{port}/v1 can not be reached; start the service, or correct base_url$"
    with pytest.raises(RunError, match=said):
        load_generator(spec)([ASKED])


@pytest.mark.parametrize("concurrency", ["", ",num_concurrent=2"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Failure(401, f"Incorrect API key: {KEY}\nask again"), "HTTP 401.*; check its key in the environment"),
        (Failure(404, "no model m"), "HTTP 404.*; correct model, or base_url"),
        (Failure(429, "slow down"), "HTTP 429.*; wait, or give a smaller num_concurrent"),
        (Failure(500, "<html>" * 500), "HTTP 500.*; see the service's own log"),
        (b"<html>hello</html>", "does not answer in JSON|Expecting value"),
    ],
)
def test_a_service_that_fails_is_one_line_without_the_key(answer, said, concurrency, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with serve(lambda _: answer) as server, pytest.raises(RunError, match=said) as caught:
        load_generator(f"{server.spec},max_retries=1{concurrency}")([ASKED])
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    written = capfd.readouterr()
    assert KEY not in str(caught.value) + caplog.text + written.out + written.err
    assert caught.value.__suppress_context__


def test_the_services_own_words_are_passed_on():
    answer = Failure(404, "The model `m` does not exist")
    with serve(lambda _: answer) as server, pytest.raises(RunError, match=r"\(The model `m` does not exist\)"):
        load_generator(f"{server.spec},max_retries=1")([ASKED])


def test_a_failure_that_passes_is_tried_again():
    answers = iter([Failure(500), "hello"])
    with serve(lambda _: next(answers)) as server:
        assert load_generator(server.spec)([ASKED]) == ["hello"]
    assert len(server.requests) == 2


def test_messages_arrive_as_they_were_sent():
    with serve(lambda _: "hello") as server:
        load_generator(server.spec)([ASKED])
    assert server.prompts == [ASKED]
    assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("parrot-1", 0)


@pytest.mark.parametrize("concurrency", ["", ",num_concurrent=2"])
@pytest.mark.parametrize(
    "body", [{"choices": []}, {"error": "x"}, {"choices": [{"index": 0, "message": {"content": None}}]}, "text", {}]
)
def test_a_completion_without_a_text_is_an_empty_answer(body, concurrency):
    asked = [[{"role": "user", "content": str(number)}] for number in range(3)]
    with serve(lambda m: json.dumps(body).encode() if m[0]["content"] == "1" else m[0]["content"]) as server:
        assert load_generator(server.spec + concurrency)(asked) == ["0", "", "2"]


def test_a_text_in_parts_is_an_empty_answer():
    body = {"choices": [{"index": 0, "message": {"content": [{"type": "text", "text": "x"}]}}]}
    with serve(lambda _: json.dumps(body).encode()) as server:
        assert load_generator(server.spec)([ASKED]) == [""]


def test_the_specification_that_is_kept_has_no_secrets_and_no_manners():
    spec = (
        "local-chat-completions,model=m,base_url=http://u:pw@h:1/v1?key=k,auth_token=t0,api_key=t1,hf_token=t2,"
        "num_concurrent=4,timeout=9,seed=3,think_end_token=</think>,add_bos_token=True"
    )
    assert load_generator(spec).spec == (
        "local-chat-completions,add_bos_token=True,base_url=http://h:1/v1,max_gen_toks=256,model=m,seed=3,"
        "think_end_token=</think>"
    )


def test_a_completions_service_gets_one_plain_text():
    def answer(messages):
        raise AssertionError

    with serve(answer) as server:
        server.answer = lambda _: b""
        generator = load_generator(f"local-completions,model=m,base_url={server.url},max_retries=1")
        context = generator._context(ASKED)  # pyright: ignore[reportPrivateUsage]
    assert context == "Be short.\n\nWho? <|im_end|> é\n\nAnswer:\n"


def test_a_prompt_that_a_local_model_can_not_read_whole_has_no_answer(tiny):
    generator = load_generator(f"hf,pretrained={tiny.baseline},max_gen_toks=4", device="cpu")
    short, long = ([{"role": "user", "content": "the dog " * n}] for n in (3, 30))
    first, second, third = generator([short, long, short])
    assert isinstance(first, str)
    assert second is None
    assert first == third
    assert generator.name == tiny.baseline.name


def test_a_chat_template_is_used_and_keeps_the_system_message(tiny):
    generator = load_generator(f"hf,pretrained={tiny.baseline},max_gen_toks=4", device="cpu")
    tokenizer = generator._model.tokenizer  # pyright: ignore[reportPrivateUsage]
    tokenizer.chat_template = CHAT_TEMPLATE
    context = generator._context(ASKED)  # pyright: ignore[reportPrivateUsage]
    assert context == "<system> Be short. <user> Who? <|im_end|> é <assistant> "
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + (
        CHAT_TEMPLATE
    )
    context = generator._context(ASKED)  # pyright: ignore[reportPrivateUsage]
    assert context == "<user> Be short.\n\nWho? <|im_end|> é <assistant> "
