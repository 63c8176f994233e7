"""What a request asks for, apart from its tensors: checked once for all requests that are alike.

Clients send the same request again and again, with other images. To parse and check what does not change, and to put together an answer's
head, took three times as long as to look the plan up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from host_service import converters, wire
from host_service.models import Model
from host_service.registry import Registry
from host_service.shared_memory import SharedMemory
from host_service.statistics import Statistics

KEPT = 256
"""Plans that are kept; more kinds of requests than that are rare, or somebody's mischief."""
LONGEST = 1 << 12
"""Bytes of a request's head that is kept: longer ones hold values."""


class Plan:
    """For the requests whose head is ``request``. Raises RequestError, saying what to send instead."""

    def __init__(self, request: pb.ModelInferRequest, model: Model, version: str, statistics: Statistics) -> None:
        self.request = request
        self.model = model
        self.version = version
        self.statistics = statistics
        self.inputs = converters.input_layouts(request, model)
        self.wanted = converters.wanted_outputs(request, model.outputs)
        self.outputs = frozenset(spec.name for spec, _ in self.wanted)
        """Names of those that are wanted."""
        self.timeout_us = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
        self._is_plain = not any(how is not None and how.parameters for _, how in self.wanted)
        self._head: bytes | None = None
        """Of the answers, whose outputs all have the same shapes."""

    def answer(self, identity: bytes, outputs: Mapping[str, NDArray[Any]], memory: SharedMemory) -> bytes:
        """The serialised ModelInferResponse with ``wire.Parts.id`` and the ``outputs`` that are wanted. Raises RequestError."""
        if self._is_plain and self._head is not None:
            contents: Sequence[bytes] = [converters.to_bytes(outputs[spec.name]) for spec, _ in self.wanted]
            return wire.answer(self._head, identity, contents)
        response = converters.infer_response(self.request, self.version, self.wanted, outputs, memory)
        contents = list(response.raw_output_contents)
        response.ClearField("raw_output_contents")
        self._head = response.SerializeToString()
        return wire.answer(self._head, identity, contents)


class Plans:
    """Those of the last requests, until ``registry`` changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changes = registry.changes
        self._plans: dict[bytes, Plan] = {}

    def find(self, head: bytes) -> Plan | None:
        """The plan for requests of this head, if there is one."""
        if self._changes != self._registry.changes:
            self._changes = self._registry.changes
            self._plans.clear()
        return self._plans.get(head)

    def keep(self, head: bytes, plan: Plan) -> None:
        """For the next request of its kind."""
        if len(head) <= LONGEST:
            if len(self._plans) >= KEPT:
                self._plans.clear()
            self._plans[head] = plan
