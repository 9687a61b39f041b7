"""Datasets of the user's files, of any modality: find, scan, split, cut into windows, and skip broken ones."""

from toolkit.datasets.files.cache import scan
from toolkit.datasets.files.once import log_once
from toolkit.datasets.files.policy import ErrorPolicy
from toolkit.datasets.files.split import (
    folder_split,
    require_train,
    set_aside,
    split_folders,
    split_named,
    split_sizes,
)
from toolkit.datasets.files.walk import find_files, require_folder, visible
from toolkit.datasets.files.window import part_name, windows

__all__ = [
    "ErrorPolicy",
    "find_files",
    "folder_split",
    "log_once",
    "part_name",
    "require_folder",
    "require_train",
    "scan",
    "set_aside",
    "split_folders",
    "split_named",
    "split_sizes",
    "visible",
    "windows",
]
