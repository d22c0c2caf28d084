"""Answers kept by what was asked, so that no question is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from diffharness.errors import RunError
from diffharness.latents.annotators.answers import MOST_CHARACTERS
from diffharness.latents.annotators.prompt import PROMPT_VERSION, Messages

FILE_NAME = "answers.jsonl"


class AnswerCache:
    """The answers of one model, in memory and in a file of JSON lines that several models and runs may share.

    A key is the SHA-256 of the model's specification (without secrets), the prompt's version and the messages. The file
    holds keys, answers and the model's name, no prompts and no secrets.
    """

    def __init__(self, file: Path, name: str, model: str, answers: dict[str, str], notes: tuple[str, ...]) -> None:
        self.name = name
        """Of the model, as it is shown."""
        self.notes = notes
        """What was wrong with the file, in words."""
        self._file = file
        self._model = model
        self._answers = answers

    @classmethod
    def open(cls, folder: Path, name: str, model: str) -> AnswerCache:
        """Read what a folder keeps; the folder is made where it does not exist.

        Args:
            folder: where `answers.jsonl` lies.
            name: of the model, as it is shown.
            model: its specification without secrets, all that changes its answers.

        Raises:
            RunError: the file can not be read or the folder not be made.
        """
        file = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = file.read_bytes() if file.exists() else b""
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RunError(f"cache of answers {file} can not be read ({reason}); give another folder") from error
        answers, n_damaged = _read(content)
        notes: tuple[str, ...] = ()
        if n_damaged:
            lines = "1 damaged line" if n_damaged == 1 else f"{n_damaged} damaged lines"
            notes = (f"{lines} of {file} skipped; what was asked there is asked again",)
        cache = cls(file, name, model, answers, notes)
        if content and not content.endswith(b"\n"):
            cache._append("\n")
        return cache

    def key(self, messages: Messages) -> str:
        """Of a question to this model."""
        asked = json.dumps([self._model, PROMPT_VERSION, messages], sort_keys=True)
        return hashlib.sha256(asked.encode("ascii")).hexdigest()

    def get(self, messages: Messages) -> str | None:
        """The answer that a question had, if any."""
        return self._answers.get(self.key(messages))

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep answers by their keys, at once; longer ones than are ever read are cut.

        Raises `RunError` where the file can not be written.
        """
        cut = {key: answer[: MOST_CHARACTERS + 1] for key, answer in answers.items()}
        lines = (json.dumps({"key": key, "answer": answer, "model": self.name}) for key, answer in cut.items())
        self._append("".join(f"{line}\n" for line in lines))
        self._answers.update(cut)

    def _append(self, text: str) -> None:
        try:
            with self._file.open("ab") as stream:
                stream.write(text.encode("ascii"))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RunError(
                f"cache of answers {self._file} can not be written ({reason}); give another folder"
            ) from error


def _read(content: bytes) -> tuple[dict[str, str], int]:
    """Answers by key, the last of each, and how many lines hold none."""
    answers: dict[str, str] = {}
    n_damaged = 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            n_damaged += 1
            continue
        if isinstance(entry, dict) and isinstance(entry.get("key"), str) and isinstance(entry.get("answer"), str):
            answers[entry["key"]] = entry["answer"]
        else:
            n_damaged += 1
    return answers, n_damaged
