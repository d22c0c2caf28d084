"""Keeps secrets that a user wrote into model arguments out of what is written to disk and shown."""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
_SECRET = re.compile(r"(?i)^(headers?|key|secret|password|authorization|token|\w+_(key|secret|password|token))$")
_NO_SECRET = re.compile(r"(?i)^(add_)?(bos|eos|pad|unk|sep|cls|mask|think_end|image)_token$")
_ARGUMENT = re.compile(r"(?P<before>^|,)(?P<key>\w+)=(?P<value>\{[^}]*\}|[^,]*)")
_USER = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/@\s,]+@")


def without_secrets(text: str) -> str:
    """`key=value,...` and addresses with the values of secret arguments, and users of addresses, hidden.

    Other text is as it was. What is a secret is told by the argument's name (`token`, `api_key`, `header` ...).
    """
    return _ARGUMENT.sub(_argument, _USER.sub(rf"\g<scheme>{HIDDEN}@", text))


def _argument(found: re.Match[str]) -> str:
    key = found["key"]
    if not found["value"] or not _SECRET.match(key) or _NO_SECRET.match(key):
        return found[0]
    return f"{found['before']}{key}={HIDDEN}"
