"""Fixtures of several test files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import host_service.transport


@pytest.fixture(scope="module", params=host_service.transport.PREFERRED)
def each_transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Services that a module starts use gRPC's C++ library; then all is done again with its Python package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_service.transport, "PREFERRED", (request.param,))
        yield request.param
