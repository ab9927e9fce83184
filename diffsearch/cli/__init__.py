"""The command line: the only place that prints. Light to import: torch, Ray and MLflow come with the commands."""

from diffsearch.cli.app import app, main

__all__ = ["app", "main"]
