"""Which annotator an option asks for, told by its form alone; nothing is loaded."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from diffharness.errors import UsageError

_MODEL = re.compile(r"[\w.-]+\s*,\s*\w+=")
_FORMS = (
    "give probe, file,PATH.csv, file,RUN/latents.parquet, or an lm-eval model such as "
    "local-chat-completions,model=NAME,base_url=URL"
)


@dataclass(frozen=True)
class AnnotatorSpec:
    """An annotator and what it needs to know."""

    kind: Literal["probe", "lm", "file"]
    argument: str = ""
    """Of `lm`: the model's name and arguments as lm-eval's registry takes them; of `file`: the path."""


def parse_annotator(spec: str) -> AnnotatorSpec:
    """Tell `probe`, `file,PATH` (or a path that ends in .csv) and `name,key=value,...` of an lm-eval model apart.

    Raises `UsageError` where it is none of them, with the forms that there are.
    """
    spec = spec.strip()
    if spec == "probe":
        return AnnotatorSpec("probe")
    if spec.partition(",")[0].strip() == "file":
        path = spec.partition(",")[2].strip()
        if not path or path.startswith("path="):
            raise UsageError(f"annotator {spec!r} names no table; give file,PATH.csv")
        return AnnotatorSpec("file", path)
    if _MODEL.match(spec):
        return AnnotatorSpec("lm", spec)
    if spec.lower().endswith(".csv"):
        return AnnotatorSpec("file", spec)
    name, comma, _ = spec.partition(",")
    if close := difflib.get_close_matches(name, ("probe", "file"), n=1, cutoff=0.7):
        raise UsageError(f"annotator {spec!r} is none that there is; did you mean {close[0]!r}? {_FORMS}")
    if comma or re.fullmatch(r"[a-z]+(-[a-z]+)+|hf", name):
        raise UsageError(f"annotator {spec!r} has no arguments of the form key=value; {_FORMS}")
    raise UsageError(f"annotator {spec!r} is none that there is; {_FORMS}")
