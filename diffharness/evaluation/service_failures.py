"""What went wrong with a model behind an address, in one line with the remedy and without its key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from diffharness.evaluation.failures import explain

_MOST_SAID = 160


def explain_call(error: BaseException, address: str | None, secrets: Sequence[str] = ()) -> str:
    """Why a call failed.

    Args:
        error: what lm-eval, requests or aiohttp raised.
        address: of the service, fit to be shown; `None` for a local model.
        secrets: what must not be shown, wherever it comes from.
    """
    if address is None:
        return f"it could not answer: {_hidden(explain(error), secrets)}"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        said = _hidden(_said(error), secrets)
        return f"{address} answers HTTP {status}{f' ({said})' if said else ''}; {_remedy(status)}"
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"Timeout", "TimeoutError", "ServerTimeoutError"}:
        return f"{address} does not answer in time; give timeout=SECONDS, or ask a faster model"
    if names & {"JSONDecodeError", "ContentTypeError"}:
        return f"{address} does not answer in JSON; correct base_url"
    if names & {"SSLError", "ClientSSLError"}:
        return f"{address} has a certificate that is not trusted; give ca_cert_path=FILE"
    if names & {"ConnectionError", "ClientConnectionError", "ConnectionRefusedError"}:
        return f"{address} can not be reached; start the service, or correct base_url"
    return f"{address}: {_hidden(explain(error), secrets)}"


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "check its key in the environment (OPENAI_API_KEY, or the one of this service)"
    if status == 404:
        return "correct model, or base_url, which is the whole address (http://HOST:PORT/v1/chat/completions)"
    if status == 429:
        return "wait, or give a smaller num_concurrent; answers until here are kept"
    if status >= 500:
        return "see the service's own log; answers until here are kept"
    return "see what the service takes"


def _said(error: BaseException) -> str:
    """The service's own words, on one line."""
    text: Any = getattr(getattr(error, "response", None), "text", "")
    try:
        body = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return ""
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else inner
    if not isinstance(message, str):
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return line if len(line) <= _MOST_SAID else f"{line[: _MOST_SAID - 1]}…"


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
