"""Builds the encoders' ONNX graphs from published weights. Functions only run graphs."""

from __future__ import annotations

from lookalike.modelbuild.build import build_model, ensure_model

__all__ = ["build_model", "ensure_model"]
