"""Crosscoders on the Hugging Face Hub: their files, and no more, brought to this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from diffharness.crosscoder.formats.files import CONFIG_NAMES, WEIGHTS_ENDINGS, WEIGHTS_NAMES
from diffharness.errors import UsageError

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/.*)?$")
_MAIN_FOLDERS = tuple(f"*/{name}" for name in ("cfg.json", "cc_weights.pt"))
"""One format keeps its files in a folder that is named by its hook point."""


def is_hub_id(name: str) -> bool:
    """Whether a name could be `owner/name`, with or without a folder or file behind it."""
    return bool(_HUB_ID.match(name)) and ".." not in name


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder or file on this machine that a Hub id stands for; what is here already is not fetched again.

    Args:
        name: `owner/name`, or `owner/name/folder`, or `owner/name/folder/file.pt`.
        revision: branch, tag or commit; none: the newest.

    Raises:
        UsageError: it is not on the Hub, may not be read, holds no crosscoder, or the Hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    of_client = cast("type[Exception]", HfHubHTTPError.__mro__[1])  # the errors of whichever HTTP client it uses
    owner, repository, *below = name.strip("/").split("/")
    repo_id, inside = f"{owner}/{repository}", "/".join(below)
    shown = f"{name} is no folder or file here, and on the Hugging Face Hub"
    try:
        snapshot = Path(snapshot_download(repo_id, revision=revision, allow_patterns=_patterns(inside)))
    except GatedRepoError as error:
        raise UsageError(
            f"{shown} {repo_id} is open to some only; ask for access there, then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{shown} {repo_id} has no revision {revision}; leave it out for the newest") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{shown} there is no {repo_id} that you may read; check the name") from error
    except LocalEntryNotFoundError as error:
        raise UsageError(f"{shown} {repo_id} can not be reached from here; fetch it with a connection first") from error
    except (HFValidationError, OSError, of_client) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{shown} {repo_id} can not be fetched ({reason}); try again later, or check the name"
        ) from error
    found = snapshot / inside
    if not found.exists() or (found.is_dir() and not any(found.rglob("*"))):
        raise UsageError(
            f"{shown} {repo_id} has no crosscoder {f'at {inside}' if inside else 'at its top'}; name its folder"
        )
    return found


def _patterns(inside: str) -> list[str]:
    """Names of the files that a crosscoder at this place of a repository consists of."""
    if inside.endswith(WEIGHTS_ENDINGS):
        folder, _, file = inside.rpartition("/")
        weights = [inside]
        configs = (*CONFIG_NAMES, f"{Path(file).stem}_cfg.json")
    else:
        folder, configs = inside, (*CONFIG_NAMES, "*_cfg.json")
        weights = [*(_MAIN_FOLDERS if not inside else ())]
        configs = (*configs, *WEIGHTS_NAMES)
    return [*weights, *(f"{folder}/{name}" if folder else name for name in configs)]
