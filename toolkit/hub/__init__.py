"""Runs and weights on the Hugging Face Hub: by reference to a copy here; the only room that sees huggingface_hub.

``hub:owner/name`` or ``hub:owner/name@REVISION`` names a repository of models; a revision is a commit, a branch or a
tag.
"""

from toolkit.hub.cache import copies, here, origin, pinned, refuse_training
from toolkit.hub.download import local_copy
from toolkit.hub.files import PUBLISHED, RUN
from toolkit.hub.reference import Reference, is_reference, parse
from toolkit.hub.upload import upload

__all__ = [
    "PUBLISHED",
    "RUN",
    "Reference",
    "copies",
    "here",
    "is_reference",
    "local_copy",
    "origin",
    "parse",
    "pinned",
    "refuse_training",
    "upload",
]
