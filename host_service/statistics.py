"""What the service has done so far, as Triton's statistics extension reports it: counts and nanoseconds since the start."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

from tritonclient.grpc import service_pb2 as pb

from host_service.models import Answer, Sample

BUCKETS_MS = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
"""Upper ends of the latency histogram's classes; slower ones are in a class of their own."""
SAMPLES = 12
"""Tagged images that are kept for people."""


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
    now: int = 0
    """Requests that are under way."""
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    """Answered requests by BUCKETS_MS."""
    last_ms: int = 0
    """When the last request came, in ms since 1970."""

    def request(self) -> Request:
        """Count one request, which is under way while this context lasts."""
        return Request(self)

    def succeeded(self, ns: int, answer: Answer) -> None:
        """One was answered, ``ns`` after it came."""
        self.success.add(ns)
        self.queue.add(answer.queue_ns)
        self.compute_input.add(answer.input_ns)
        self.compute_infer.add(answer.infer_ns)
        self.compute_output.add(answer.output_ns)
        self.images += answer.images
        self.latencies[bisect_left(BUCKETS_MS, ns / 1e6)] += 1

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


class Request:
    """One request to ``statistics``; call it with the model's answer.

    Whatever is raised makes it a failed one, its caller's leaving too.
    """

    __slots__ = ("_answer", "_begin", "_statistics")

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._answer: Answer | None = None

    def __call__(self, answer: Answer) -> None:
        """The request has this answer."""
        self._answer = answer

    def __enter__(self) -> Request:
        self._begin = time.perf_counter_ns()
        self._statistics.now += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        statistics, ns = self._statistics, time.perf_counter_ns() - self._begin
        if kind is None and self._answer is not None:
            statistics.succeeded(ns, self._answer)
        else:
            statistics.fail.add(ns)
        statistics.now -= 1
        statistics.last_ms = time.time_ns() // 1_000_000


class Recorder:
    """The statistics of every model and version, and the last images that were tagged."""

    def __init__(self) -> None:
        self.statistics: dict[tuple[str, str], Statistics] = {}
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.started = time.time()

    def of(self, name: str, version: str) -> Statistics:
        """Of one model and version; they stay when the model is unloaded."""
        found = self.statistics.get((name, version))
        if found is None:
            found = self.statistics[name, version] = Statistics()
        return found
