"""A crosscoder on its way to the Hugging Face Hub: the folder that is uploaded, and the upload, never by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.crosscoder import checkpoint
from diffharness.crosscoder.card import model_card, published, without_paths
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import RunError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_NAME = "README.md"
QUALITY_NAME = "quality.json"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def check_repo_id(repo_id: str) -> None:
    """Refuse what the Hub would.

    Raises:
        UsageError: not `owner/name`.
    """
    if not _REPO_ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id:
        raise UsageError(f"{repo_id!r} is no repository of the Hub; give owner/name, of letters, digits, '-', '_', '.'")


def prepare(crosscoder: Crosscoder, quality: Mapping[str, Any] | None, repo_id: str, folder: Path) -> list[Path]:
    """Write what is uploaded: the native files, the card, and `quality.json` where there is one.

    Nothing in them names a folder of this machine.

    Args:
        crosscoder: of any format, once loaded.
        quality: what its `quality.json` says.
        repo_id: `owner/name`.
        folder: an empty or new folder.

    Returns:
        The files.

    Raises:
        UsageError: `repo_id` is none, or the folder holds something else.
        RunError: the folder can not be written.
    """
    check_repo_id(repo_id)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty, and all of a folder is uploaded; choose a new one")
    original = crosscoder.config
    try:
        crosscoder.config = published(original)
        checkpoint.save(crosscoder, folder)
        card = model_card(crosscoder.config, quality, repo_id)
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
        if quality is not None:
            body = json.dumps(_without_paths(quality), indent=1, ensure_ascii=False, allow_nan=False)
            (folder / QUALITY_NAME).write_text(body + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} can not be written ({error.strerror}); choose another folder") from error
    finally:
        crosscoder.config = original
    return sorted(folder.iterdir())


def push(folder: Path, repo_id: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Upload what `prepare` wrote.

    Args:
        folder: all of it is uploaded.
        repo_id: `owner/name`; made if it does not exist.
        private: whether a repository that is made is only for its owner.
        api: who talks to the Hub; by default with the token of `hf auth login`.

    Returns:
        Where it is.

    Raises:
        RunError: the Hub is out of reach, or does not let this user write there.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    check_repo_id(repo_id)
    api = api or HfApi()
    try:
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id, repo_type="model", folder_path=folder, commit_message="Upload crosscoder"
        )
    except LocalTokenNotFoundError as error:
        raise RunError(f"{repo_id}: no token of the Hub is here; run `hf auth login` first") from error
    except OfflineModeIsEnabled as error:
        raise RunError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it to upload") from error
    except HfHubHTTPError as error:
        raise RunError(
            f"{repo_id}: the Hub refused ({_refusal(error)}); check the name and your token's rights"
        ) from error
    except (httpx.HTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{repo_id}: the Hub is out of reach ({reason}); try again") from error
    return str(getattr(done, "repo_url", "") or f"https://huggingface.co/{repo_id}")


def _refusal(error: Exception) -> str:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    first = (str(getattr(error, "server_message", "") or error).strip() or type(error).__name__).splitlines()[0]
    return f"{status}: {first}" if status is not None else first


def _without_paths(value: Any) -> Any:
    """A JSON value whose texts name no folder of this machine."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, Mapping):
        return {key: _without_paths(one) for key, one in value.items()}
    return [_without_paths(one) for one in value] if isinstance(value, list | tuple) else value
