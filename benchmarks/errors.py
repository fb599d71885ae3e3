"""What may go wrong without ending a run. Row 0."""

from __future__ import annotations


class InstallationError(Exception):
    """A requirement cannot be had on this machine; the text says why."""


class RowError(Exception):
    """A server does not do what a row asks of it; the text says what went wrong."""
