"""Any model of lm-eval's registry as one that answers conversations; the adapter's side for models that are asked.

Keys of services are lm-eval's to read from the environment. They are in no name, message or log that comes from here:
lm-eval's own log, which may quote a request with its headers, is silent during a call.
"""

# lm-eval's decorators and lazy exports hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from lm_eval.api.instance import Instance
from lm_eval.utils import simple_parse_args_string

from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation.failures import explain
from diffharness.evaluation.loading import check_model_args
from diffharness.evaluation.service_failures import explain_call

Conversation: TypeAlias = list[dict[str, str]]
"""Messages in the chat format: `role` and `content`."""

MAX_ANSWER_TOKENS = 256
"""Of an answer, unless `max_gen_toks` says otherwise."""

_STOP = "<|endoftext|>"
"""A stop sequence has to be given: services refuse an empty list and white space."""

_API_PACKAGES = ("aiohttp", "tenacity", "requests")
_SECRET = re.compile(r"(^|_)(token|key|secret|password|passwd|auth|credentials?|headers?)($|_)")
_NO_SECRETS = ("think_end_token", "add_bos_token", "custom_prefix_token_id")
_MANNER = (
    "num_concurrent", "max_retries", "timeout", "verify_certificate", "ca_cert_path", "batch_size", "max_batch_size",
    "device", "parallelize", "device_map", "offload_folder", "gpu_memory_utilization", "tensor_parallel_size",
)  # fmt: skip
"""Arguments that change how a model is asked, and not what it answers."""


class Generator:
    """A model that answers conversations, greedily."""

    def __init__(self, model: Any, name: str, spec: str, max_answer_tokens: int, address: str | None) -> None:
        self.name = name
        """As it is shown."""
        self.spec = spec
        """The model and all arguments that change its answers, without secrets; the key under which they are kept."""
        self._model = model
        self._max_answer_tokens = max_answer_tokens
        self._address = address

    def __call__(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """The answer to each; `None` where a prompt is longer than the model can read, which is not sent.

        Raises `RunError` where the model or its service fails, with the remedy.
        """
        contexts = [self._context(messages) for messages in conversations]
        answers: list[str | None] = [None] * len(contexts)
        fitting = [place for place, context in enumerate(contexts) if self._fits(context)]
        for some in [[place] for place in fitting] if self._asks_one_by_one else [fitting]:
            if not some:
                continue
            for place, answer in zip(some, self._ask([contexts[place] for place in some]), strict=True):
                answers[place] = answer
        return answers

    @property
    def _asks_one_by_one(self) -> bool:
        return self._address is not None and getattr(self._model, "_concurrent", 1) <= 1

    def _ask(self, contexts: list[Any]) -> list[str]:
        requests = [
            Instance("generate_until", {}, (context, self._settings()), i) for i, context in enumerate(contexts)
        ]
        try:
            with _silent():
                found = self._model.generate_until(requests, disable_tqdm=True)
        except DiffharnessError:
            raise
        except Exception as error:
            failure = RunError(f"annotator {self.name}: {explain_call(error, self._address, self._secrets())}")
            raise failure from (None if self._address else error)  # a service's error may hold the request and its key
        if len(found) != len(contexts):
            raise RunError(f"annotator {self.name}: {len(found)} answers to {len(contexts)} prompts; see its log")
        return [answer if isinstance(answer, str) else "" for answer in found]

    def _settings(self) -> dict[str, Any]:
        return {"until": [_STOP], "max_gen_toks": self._max_answer_tokens, "temperature": 0, "do_sample": False}

    def _context(self, messages: Conversation) -> Any:
        """The prompt as lm-eval gives it to this sort of model."""
        if _is_chat(type(self._model)):
            return self._model.apply_chat_template(messages)
        if not getattr(getattr(self._model, "tokenizer", None), "chat_template", None):
            return "\n\n".join(message["content"] for message in messages) + "\n\nAnswer:\n"
        with _silent():
            context = self._model.apply_chat_template(messages)
            if messages[0]["content"] in context:
                return context
            whole = "\n\n".join(message["content"] for message in messages)  # a template without a system role
            return self._model.apply_chat_template([{"role": "user", "content": whole}])

    def _fits(self, context: Any) -> bool:
        """Whether lm-eval would give the model all of a prompt; it cuts off the beginning of longer ones."""
        model = self._model
        is_local = getattr(model, "tokenizer", None) is not None and getattr(model, "tokenized_requests", True)
        if not is_local or not isinstance(context, str):
            return True
        return len(model.tok_encode(context)) + self._max_answer_tokens <= model.max_length

    def _secrets(self) -> tuple[str, ...]:
        model = self._model
        values = [getattr(model, "auth_token", None), *_values(getattr(model, "_header", None))]
        try:
            values.append(getattr(model, "api_key", None))
        except ValueError:
            values.append(None)  # no key in the environment, hence none to hide
        return tuple(value for value in values if isinstance(value, str) and len(value) > 5)


def load_generator(spec: str, *, device: str | None = None, batch_size: int = 1) -> Generator:
    """Load a model of lm-eval's registry to ask it.

    Args:
        spec: `name,key=value,...`, such as `local-chat-completions,model=NAME,base_url=URL` or `hf,pretrained=FOLDER`.
        device: of a local model, unless the specification says it.
        batch_size: prompts that a local model reads at once, unless the specification says it.

    Raises:
        UsageError: a name that lm-eval does not have, an argument or key that is missing, an address that is none.
        RunError: the model can not be loaded.
    """
    name, kind, arguments, max_answer_tokens = _parsed(spec)
    remote = _is_remote(kind)
    options = _options(kind, remote, device, batch_size)
    options = {key: value for key, value in options.items() if key not in arguments}
    try:
        with _silent():
            model = kind.create_from_arg_obj(dict(arguments), options)
            if remote:
                _ = model.api_key  # some read it from the environment, and raise where it is not there
    except DiffharnessError:
        raise
    except ValueError as error:
        if "API key not found" in str(error):
            raise UsageError(f"annotator {name}: no key; set the environment variable {_key_name(error)}") from None
        raise _not_loaded(name, error) from error
    except Exception as error:
        raise _not_loaded(name, error) from error
    if _is_chat(kind):
        _answer_once(model)
    address = _without_secrets(str(getattr(model, "base_url", "") or "its service")) if remote else None
    public = _public(arguments)
    public["max_gen_toks"] = str(max_answer_tokens)
    whole = ",".join([name, *(f"{key}={value}" for key, value in sorted(public.items()))])
    return Generator(model, _shown_name(name, arguments), whole, max_answer_tokens, address)


def check_generator(spec: str) -> None:
    """Find what is wrong with a specification as far as that needs neither loading nor asking.

    Raises:
        UsageError: as `load_generator` does.
    """
    _parsed(spec)


def _parsed(spec: str) -> tuple[str, Any, dict[str, Any], int]:
    """Name, class of lm-eval and arguments of a model, and the tokens that its answers may have."""
    name, _, rest = (part.strip() for part in spec.partition(","))
    kind = _model_class(name)
    arguments = _arguments(name, rest)
    max_answer_tokens = arguments.pop("max_gen_toks", MAX_ANSWER_TOKENS)
    if not isinstance(max_answer_tokens, int) or max_answer_tokens < 1:
        raise UsageError(f"annotator {name}: max_gen_toks={max_answer_tokens} is no number of tokens; give 256 or so")
    _check(name, kind, arguments, _is_remote(kind))
    return name, kind, arguments, max_answer_tokens


def _model_class(name: str) -> Any:
    from lm_eval.api.registry import model_registry

    known = [*model_registry.keys()]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        did = f"did you mean {close[0]!r}?" if close else "try local-chat-completions, openai-chat-completions or hf"
        raise UsageError(f"annotator {name!r} is no model of lm-eval's registry; {did}")
    try:
        return model_registry.get(name)
    except (ImportError, NameError) as error:
        _check_packages(name)
        raise UsageError(f"annotator {name}: lm-eval can not import this model ({explain(error)})") from error


def _arguments(name: str, rest: str) -> dict[str, Any]:
    for part in filter(None, (part.strip() for part in rest.split(","))):
        if not re.match(r"\w+=", part):
            raise UsageError(f"annotator {name}: {part.partition('=')[0]!r} has no value; write key=value")
    return simple_parse_args_string(rest)


def _check(name: str, kind: Any, arguments: Mapping[str, Any], remote: bool) -> None:
    """Find what is missing before anything is loaded or sent."""
    if remote:
        _check_packages(name)
        if not (arguments.get("model") or arguments.get("pretrained")):
            raise UsageError(f"annotator {name} names no model; add model=NAME")
        address = arguments.get("base_url")
        if address is None and name.startswith("local-"):
            raise UsageError(f"annotator {name} has no address; add base_url=http://HOST:PORT/v1/chat/completions")
        if address is not None and not re.match(r"https?://[^/\s]+", str(address)):
            raise UsageError(
                f"annotator {name}: base_url={_without_secrets(str(address))} is no address; give http://..."
            )
        return
    parameters = inspect.signature(kind).parameters
    if "pretrained" in parameters and not arguments.get("pretrained"):
        raise UsageError(f"annotator {name} names no model; add pretrained=FOLDER_OR_HUB_ID")
    if arguments.get("pretrained") and name in ("hf", "hf-auto", "huggingface"):
        try:
            check_model_args(arguments)
        except UsageError as error:
            raise UsageError(f"annotator {name}: {error}") from None


def _check_packages(name: str) -> None:
    if missing := [package for package in _API_PACKAGES if find_spec(package) is None]:
        raise UsageError(f"annotator {name} needs {', '.join(missing)}; pip install 'lm-eval[api]'")


def _options(kind: Any, remote: bool, device: str | None, batch_size: int) -> dict[str, Any]:
    if not remote:
        return {"batch_size": batch_size, "max_batch_size": None, "device": device}
    if _is_chat(kind):
        return {}
    return {"tokenizer_backend": "None", "tokenized_requests": False}  # no tokenizer is needed to ask


def _is_remote(kind: Any) -> bool:
    from lm_eval.models.api_models import TemplateAPI

    return issubclass(kind, TemplateAPI)


def _is_chat(kind: Any) -> bool:
    from lm_eval.models.anthropic_llms import AnthropicChat
    from lm_eval.models.openai_completions import LocalChatCompletion

    return issubclass(kind, (LocalChatCompletion, AnthropicChat))


def _answer_once(model: Any) -> None:
    """Have a chat model give one answer a completion, empty without choices, where lm-eval loses count."""
    parse = model.parse_generations
    model.parse_generations = lambda outputs, **more: parse(outputs=outputs, **more)[:1] or [""]


def _not_loaded(name: str, error: Exception) -> DiffharnessError:
    kind = UsageError if isinstance(error, TypeError | ModuleNotFoundError) else RunError
    return kind(f"annotator {name}: the model can not be loaded: {explain(error)}")


def _key_name(error: Exception) -> str:
    found = re.search(r"[A-Z][A-Z_]*_KEY", str(error))
    return found[0] if found else "of the service's key"


def _shown_name(name: str, arguments: Mapping[str, Any]) -> str:
    given = str(arguments.get("model") or arguments.get("pretrained") or name)
    return Path(given).name if Path(given).is_dir() else given


def _public(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments that change answers, without those that may be secrets."""
    return {
        key: _without_secrets(str(value))
        for key, value in arguments.items()
        if key not in _MANNER and (key in _NO_SECRETS or not _SECRET.search(key))
    }


def _without_secrets(value: str) -> str:
    """An address without the user, password and query that it may hold; other values as they are."""
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return "(an address that can not be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _values(header: Any) -> list[Any]:
    return list(header.values()) if isinstance(header, Mapping) else []


@contextmanager
def _silent() -> Iterator[None]:
    """Keep lm-eval from logging: it quotes requests that failed, keys included."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
