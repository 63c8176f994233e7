"""What the service counts, in Prometheus' text format: Triton's names where Triton has one, ``quarkwave_`` ones for the NPU.

Names and units as in Triton's metrics documentation: counts of requests and images, durations in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from host_service.scheduler import Scheduler
from host_service.statistics import BUCKETS_MS, Recorder, Statistics

LABELS = ("model", "version")
STATES = ("starting", "ready", "loading", "lost", "closed")


class ServiceMetrics(Collector):
    """Reads ``recorder`` and ``scheduler`` when it is asked."""

    def __init__(self, recorder: Recorder, scheduler: Scheduler) -> None:
        self._recorder = recorder
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        """Everything, for prometheus_client."""
        yield from self._models()
        yield from self._devices()
        yield from self._queue()

    def _models(self) -> Iterator[Metric]:
        kinds = {
            "nv_inference_request_success": ("requests that were answered", lambda s: s.success.count),
            "nv_inference_request_failure": ("requests that were refused or failed", lambda s: s.fail.count),
            "nv_inference_count": ("images computed", lambda s: s.images),
            "nv_inference_exec_count": ("runs of the NPU", lambda s: s.images),
            "nv_inference_request_duration_us": ("time of answered requests", lambda s: s.success.ns / 1000),
            "nv_inference_queue_duration_us": ("waiting for a device", lambda s: s.queue.ns / 1000),
            "nv_inference_compute_input_duration_us": ("making images ready", lambda s: s.compute_input.ns / 1000),
            "nv_inference_compute_infer_duration_us": (
                "on the device and in the classifier",
                lambda s: s.compute_infer.ns / 1000,
            ),
            "nv_inference_compute_output_duration_us": ("making answers", lambda s: s.compute_output.ns / 1000),
        }
        entries = list(self._recorder.statistics.items())
        for name, (text, value) in kinds.items():
            metric = CounterMetricFamily(name, text, labels=LABELS)
            # Triton's counters have no suffix _total, which CounterMetricFamily would add.
            metric.samples = [_sample(name, key, value(statistics)) for key, statistics in entries]
            yield metric
        pending = GaugeMetricFamily("nv_inference_pending_request_count", "requests under way", labels=LABELS)
        latency = HistogramMetricFamily("quarkwave_request_seconds", "time of answered requests", labels=LABELS)
        for key, statistics in entries:
            pending.add_metric(key, statistics.now)
            latency.add_metric(key, _buckets(statistics), statistics.success.ns / 1e9)
        yield pending
        yield latency

    def _devices(self) -> Iterator[Metric]:
        labels = ("device", "kind")
        images = CounterMetricFamily("quarkwave_device_images", "images computed", labels=labels)
        busy = CounterMetricFamily("quarkwave_device_busy_seconds", "seconds of computing", labels=labels)
        faults = CounterMetricFamily("quarkwave_device_faults", "how often it was taken out", labels=labels)
        held = GaugeMetricFamily("quarkwave_device_running", "images that it has", labels=labels)
        state = GaugeMetricFamily("quarkwave_device_state", "1 for the state it is in", labels=(*labels, "state"))
        counters = CounterMetricFamily("quarkwave_npu", "sums of the NPU's counters", labels=(*labels, "counter"))
        watts = GaugeMetricFamily("quarkwave_device_power_watts", "by power rail", labels=(*labels, "rail"))
        celsius = GaugeMetricFamily(
            "quarkwave_device_temperature_celsius", "by temperature sensor", labels=(*labels, "sensor")
        )
        npus = GaugeMetricFamily("quarkwave_device_npus", "NPUs, which compute at the same time", labels=labels)
        for lane in self._scheduler.lanes:
            key = (str(lane.number), lane.runner.kind)
            npus.add_metric(key, lane.runner.npus)
            images.add_metric(key, lane.images)
            busy.add_metric(key, lane.busy_seconds)
            faults.add_metric(key, lane.faults)
            held.add_metric(key, len(lane.running))
            for name in STATES:
                state.add_metric((*key, name), float(lane.state == name))
            for name, value in list(lane.counters.items()):
                counters.add_metric((*key, name), value)
            readings = lane.runner.readings
            for name, measured in readings.watts.items():
                watts.add_metric((*key, name), measured)
            for name, measured in readings.celsius.items():
                celsius.add_metric((*key, name), measured)
        yield from (npus, images, busy, faults, held, state, counters, watts, celsius)

    def _queue(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("quarkwave_queue_images", "images that wait", self._scheduler.waiting)
        yield GaugeMetricFamily("quarkwave_queue_limit", "images that may wait", self._scheduler.limit)
        yield CounterMetricFamily("quarkwave_queue_refused_images", "found the queue full", self._scheduler.refused)
        yield CounterMetricFamily(
            "quarkwave_queue_dropped_images", "left before a device had them", self._scheduler.dropped
        )


def _sample(name: str, key: tuple[str, str], value: float):  # type: ignore[no-untyped-def]
    from prometheus_client.samples import Sample

    return Sample(name, dict(zip(LABELS, key, strict=True)), float(value))


def _buckets(statistics: Statistics) -> list[tuple[str, float]]:
    total, found = 0, []
    for end, count in zip((*BUCKETS_MS, float("inf")), statistics.latencies, strict=True):
        total += count
        found.append(("+Inf" if end == float("inf") else str(end / 1000), float(total)))
    return found
