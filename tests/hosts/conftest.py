"""Tests that need a host in an environment of its own: `make hosts`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for marker in ("slow", "eval"):  # of LensKit's own tests
        config.addinivalue_line("markers", f"{marker}: a mark of LensKit's")
