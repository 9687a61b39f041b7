"""From a folder to a repository."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.hub.download import LIBRARY
from toolkit.hub.package import as_quiet, constants, endpoint, explained, package
from toolkit.hub.reference import Reference

REPLACED = ("config*.yaml", "*.json", "metrics.jsonl", "log.txt", "autoencoder/*", "priors/*", "base/*", "codes/*")
"""Files of a run pushed earlier, which make place; others, such as pictures that were added there, stay."""


def upload(reference: Reference, folder: Path, private: bool, message: str) -> str:
    """Makes a folder the newest state of a repository, which is created where it is missing; returns its commit.

    ToolkitError where that is not permitted, the Hub is not reached, or it is to be private and is there as public.
    """
    hub = package(reference)
    with explained(reference):
        if constants().HF_HUB_OFFLINE:
            raise ToolkitError(
                "HF_HUB_OFFLINE is set: unset it to push, or take out=FOLDER to see what would be pushed"
            )
        api = hub.HfApi(endpoint=endpoint(), library_name=LIBRARY)
        api.create_repo(reference.repository, private=private or None, exist_ok=True)
        if private and not api.model_info(reference.repository).private:
            raise ToolkitError(
                "private=true, and it is there already and public: make it private there, or push elsewhere"
            )
        with as_quiet():
            done = api.upload_folder(
                repo_id=reference.repository,
                folder_path=folder,
                delete_patterns=list(REPLACED),
                commit_message=message,
            )
    return str(done.oid)
