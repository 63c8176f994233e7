"""Fixtures of several test files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", params=("grpc++", "grpcio"))
def each_transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Services that a module starts use gRPC's C++ library; then all is done again with its Python package.

    A fixture that starts one for the whole module has to ask for this one.
    """
    # Here, since some tests run where the service's packages are not installed.
    import running_service

    import host_service.transport

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_service.transport, "PREFERRED", (request.param,))
        yield request.param
    assert not running_service.RUNNING, f"services on {request.param} would be taken for ones on the next transport"
