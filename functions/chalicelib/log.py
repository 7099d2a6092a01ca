"""The functions' structured log. ``logging.getLogger("lookalike.…")`` anywhere ends in it."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from lookalike.settings import Settings

logger = Logger(service="lookalike", level=Settings.from_env().log_level)
