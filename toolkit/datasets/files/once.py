"""Log messages that are the same each time a dataset is opened."""

from __future__ import annotations

import logging

_logged: set[str] = set()


def log_once(logger: logging.Logger, text: str) -> None:
    """Logs a line, at INFO, unless this process has logged it: a command opens some datasets several times."""
    if text not in _logged and logger.isEnabledFor(logging.INFO):
        _logged.add(text)
        logger.info("%s", text)
