"""Use cases: each takes ports from `lookalike.core.ports` and speaks in `lookalike.core.types`."""
