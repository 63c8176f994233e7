"""What the service has done so far, as Triton's statistics extension reports it: counts and nanoseconds since the start."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tritonclient.grpc import service_pb2 as pb

from host_service.models import Answer


@dataclass
class Duration:
    """How often, and how long altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """One more, or several."""
        self.count += count
        self.ns += ns

    def message(self) -> pb.StatisticDuration:
        """For the wire."""
        return pb.StatisticDuration(count=self.count, ns=self.ns)


@dataclass
class Statistics:
    """One model's requests. Only the event loop's thread touches it."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    images: int = 0
    last_ms: int = 0
    """When the last request came, in ms since 1970."""

    def succeeded(self, ns: int, answer: Answer) -> None:
        """A request was answered after ``ns``."""
        self.success.add(ns)
        self.queue.add(answer.queue_ns)
        self.compute_input.add(answer.input_ns)
        self.compute_infer.add(answer.infer_ns)
        self.compute_output.add(answer.output_ns)
        self.images += answer.images
        self.last_ms = time.time_ns() // 1_000_000

    def failed(self, ns: int) -> None:
        """A request was refused or failed after ``ns``."""
        self.fail.add(ns)
        self.last_ms = time.time_ns() // 1_000_000

    def message(self, name: str, version: str) -> pb.ModelStatistics:
        """For the wire. Every image is one execution of the NPU, so all executions have batch size 1."""
        message = pb.ModelStatistics(
            name=name,
            version=version,
            last_inference=self.last_ms,
            inference_count=self.images,
            execution_count=self.images,
            inference_stats=pb.InferStatistics(
                success=self.success.message(),
                fail=self.fail.message(),
                queue=self.queue.message(),
                compute_input=self.compute_input.message(),
                compute_infer=self.compute_infer.message(),
                compute_output=self.compute_output.message(),
            ),
        )
        if self.images:
            message.batch_stats.add(
                batch_size=1,
                compute_input=pb.StatisticDuration(count=self.images, ns=self.compute_input.ns),
                compute_infer=pb.StatisticDuration(count=self.images, ns=self.compute_infer.ns),
                compute_output=pb.StatisticDuration(count=self.images, ns=self.compute_output.ns),
            )
        return message
