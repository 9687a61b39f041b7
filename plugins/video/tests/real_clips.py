"""Where real clips are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VIDEO = Path(os.environ.get("TOOLKIT_DATA") or ROOT.parent / "shared" / "data") / "video"
