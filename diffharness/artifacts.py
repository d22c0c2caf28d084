"""A run's folder: what every stage left there, and from what it was made.

A stage writes into a folder of its own that takes its place only when it is done, so nothing is half-written; a
stage whose fingerprint stands is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffharness.errors import UsageError

_HASHED_BYTES = 32 << 20
"""Files above this are told apart by size and time of change, not by content."""


def fingerprint(*parts: Any) -> str:
    """A short hash (16 hex digits) over JSON-like values; the order of mappings does not matter."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def path_fingerprint(path: Path) -> str:
    """A fingerprint of a file, or of all files below a folder; what is absent has one too, for a check to report it."""
    if not path.exists():
        return fingerprint("absent", str(path))
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    parts = []
    for file in files:
        if "__pycache__" in file.parts:
            continue
        stat = file.stat()
        content = file_hash(file) if stat.st_size <= _HASHED_BYTES else [stat.st_size, stat.st_mtime_ns]
        parts.append([str(file.relative_to(path)) if path.is_dir() else file.name, content])
    return fingerprint(parts)


class Workspace:
    """The run folder and its manifest; the folder is made when the first stage starts.

    Args:
        root: the run folder.
        option: the option that named it, for the message.

    Raises:
        UsageError: the folder can not be made or written.
    """

    def __init__(self, root: Path, option: str = "--output") -> None:
        self.root = root
        try:
            with tempfile.TemporaryFile(dir=next(p for p in (root, *root.absolute().parents) if p.exists())):
                pass
        except OSError as error:
            raise UsageError(f"{option} {root} can not be written ({error.strerror}); choose another folder") from error
        self._manifest = _read_manifest(root / "manifest.json")

    def is_done(self, stage: str, made_from: str) -> bool:
        """Whether the stage's files are there, whole, and made from this fingerprint."""
        entry = self._manifest["stages"].get(stage)
        if entry is None or entry["fingerprint"] != made_from:
            return False
        return all(self._is_whole(name) for name in entry["files"])

    def _is_whole(self, name: str) -> bool:
        file = self.root / name
        known = self._manifest["artifacts"].get(name)
        if known is None or not file.is_file() or file.stat().st_size != known["bytes"]:
            return False
        return known["bytes"] > _HASHED_BYTES or file_hash(file) == known["sha256"]

    @contextmanager
    def stage(self, stage: str, made_from: str, into: str = "", *, resumable: bool = False) -> Iterator[Path]:
        """A folder to write the stage's files into; on success they move to `into` and are entered in the manifest.

        Args:
            stage: its name in the manifest.
            made_from: its fingerprint.
            into: the sub-folder that is replaced; the run folder itself, file by file, if empty.
            resumable: whether what a stage that was cut off left is given to it again; so are the files of a finished
                one that is no longer whole. It has to check them itself.
        """
        made = [p for p in (self.root, *self.root.absolute().parents) if not p.exists()]
        self.root.mkdir(parents=True, exist_ok=True)
        prefix = f".{stage.replace('/', '-').replace(' ', '-')}-"
        scratch = self.root / f"{prefix}{made_from}"
        for old in self.root.glob(f"{prefix}*"):
            if not (resumable and old == scratch):
                shutil.rmtree(old, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        target = self.root / into
        if resumable:
            self._take_back(stage, made_from, target, scratch)
        try:
            yield scratch
            files = sorted(str(p.relative_to(scratch)) for p in scratch.rglob("*") if p.is_file())
            for name in files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / name, target / name)
            shutil.rmtree(scratch, ignore_errors=True)
        finally:
            if not resumable:
                shutil.rmtree(scratch, ignore_errors=True)
            elif scratch.exists():
                _remove_empty([scratch])
            _remove_empty(made)
        names = [str(Path(into) / name) for name in files]
        for gone in set(self._manifest["stages"].get(stage, {}).get("files", [])) - set(names):
            (self.root / gone).unlink(missing_ok=True)
            self._manifest["artifacts"].pop(gone, None)
        for name in names:
            file = self.root / name
            self._manifest["artifacts"][name] = {
                "sha256": file_hash(file),
                "bytes": file.stat().st_size,
                "fingerprint": made_from,
            }
        self._manifest["stages"][stage] = {"fingerprint": made_from, "files": names}
        write_atomically(self.root / "manifest.json", json.dumps(self._manifest, indent=1, sort_keys=True))

    def _take_back(self, stage: str, made_from: str, target: Path, scratch: Path) -> None:
        """Move what is left of a finished stage of this fingerprint to where it is written."""
        entry = self._manifest["stages"].get(stage)
        if entry is None or entry["fingerprint"] != made_from:
            return
        for name in entry["files"]:
            file = self.root / name
            place = scratch / file.relative_to(target)
            if file.is_file() and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)


def altered_files(folder: Path, stage: str) -> list[str]:
    """Files of a finished stage that are absent or not what the folder's manifest says; the manifest, if that is."""
    manifest = _read_manifest(folder / "manifest.json")
    known = manifest["artifacts"]
    files = manifest["stages"].get(stage, {}).get("files", ["manifest.json"])
    return [
        name
        for name in files
        if not (folder / name).is_file() or file_hash(folder / name) != known.get(name, {}).get("sha256")
    ]


def _read_manifest(file: Path) -> dict[str, dict[str, Any]]:
    """What a manifest says; nothing where there is none or it is damaged, so that every stage runs again."""
    empty: dict[str, dict[str, Any]] = {"stages": {}, "artifacts": {}}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return empty
    whole = isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in empty)
    return found if whole else empty


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first that holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def model_fingerprint(model_args: Mapping[str, Any]) -> str:
    """A fingerprint of a model as named by lm-eval arguments: the files of a folder, or the Hub id and revision."""
    named = {key: str(value) for key, value in model_args.items()}
    for key in ("pretrained", "peft", "tokenizer", "delta"):
        path = Path(named[key]) if key in named else None
        if path is not None and path.exists():
            named[key] = path_fingerprint(path)
    return fingerprint(named)


def split_model_args(args: str) -> dict[str, Any]:
    """Model arguments as lm-eval splits them, without importing it; a bare name is the model's."""
    if "=" in args and not Path(args).exists():
        return dict(part.split("=", 1) for part in args.split(",") if "=" in part)
    return {"pretrained": args}
