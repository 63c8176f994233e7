"""The HTTP port: Prometheus' metrics at /metrics, a live page for people at /, its data at /status.json, health at /v2/health/...

Served by the standard library in threads; they only read what the event loop writes. TLS and tokens are those of the gRPC port; a
browser, which asks for a password, gets in with a token as the password (RFC 7617) of any name.
"""

from __future__ import annotations

import base64
import json
import ssl
import struct
import sys
import threading
import time
import zlib
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from host_service.access import Access, Token
from host_service.errors import RequestError
from host_service.metrics import ServiceMetrics
from host_service.registry import Registry
from host_service.scheduler import Scheduler
from host_service.statistics import BUCKETS_MS, Recorder

PAGE = Path(__file__).with_name("page") / "index.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"
THUMBNAIL = 64
"""Most pixels a side of a picture on the page."""


class Web:
    """The HTTP port of one service."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        recorder: Recorder,
        access: Access | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._access = access or Access()
        self._tls = tls
        self._registry = registry
        self._scheduler = scheduler
        self._recorder = recorder
        self._metrics = CollectorRegistry()
        self._metrics.register(ServiceMetrics(recorder, scheduler))
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        for entry in registry.entries.values():
            for model in entry.versions.values():
                model.on_sample = recorder.samples.append
        registry.on_change = self._watch_samples

    def start(self, host: str, port: int) -> int:
        """Open the port (0: any free one) and return it. Raises OSError when it is taken."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                """Answer a browser, Prometheus or a load balancer."""
                path, authorization = self.path.partition("?")[0], self.headers.get("Authorization", "")
                status, kind, body = web.answer(path, authorization)
                self.send_response(status)
                if status == HTTPStatus.UNAUTHORIZED:
                    self.send_header("WWW-Authenticate", 'Basic realm="quarkwave", charset="UTF-8"')
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Security-Policy", POLICY)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Nothing: a page that asks every second would fill the log."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port} for the page and the metrics: {error.strerror}") from error
        if self._tls is not None:  # hands are shaken in the connection's own thread: who is slow delays nobody
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def answer(self, path: str, authorization: str = "") -> tuple[int, str, bytes]:
        """Status, content type and body for a path. Only health needs no token where the service has some."""
        if path in ("/v2/health/live", "/v2/health/ready"):
            fine = path.endswith("live") or self._scheduler.works
            return (200 if fine else 503), "text/plain", b""
        try:
            token = self._access.token(_bearer(authorization))
        except RequestError as error:
            return HTTPStatus.UNAUTHORIZED, "text/plain; charset=utf-8", f"{error}\n".encode()
        if path == "/":
            return 200, "text/html; charset=utf-8", PAGE.read_bytes()
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._metrics)
        if path == "/status.json":
            return 200, "application/json", json.dumps(self.status(token)).encode()
        return 404, "text/plain", b"there are /, /metrics, /status.json, /v2/health/live and /v2/health/ready\n"

    def status(self, token: Token | None = None) -> dict[str, Any]:
        """What the page shows to the one with ``token``; counters since the start, the page makes rates of them."""
        statistics = list(self._recorder.statistics.items())
        latencies = [sum(counts) for counts in zip(*(s.latencies for _, s in statistics), strict=True)]
        return {
            "time": time.time(),
            "started": self._recorder.started,
            "devices": [
                {
                    "number": lane.number,
                    "kind": lane.runner.kind,
                    "state": lane.state,
                    "images": lane.images,
                    "npus": lane.runner.npus,
                    "busy_seconds": lane.busy_seconds,
                    "running": len(lane.running),
                    "faults": lane.faults,
                    "error": str(lane.error or ""),
                }
                for lane in self._scheduler.lanes
            ],
            "queue": {
                "waiting": self._scheduler.waiting,
                "limit": self._scheduler.limit,
                "refused": self._scheduler.refused,
                "dropped": self._scheduler.dropped,
            },
            "models": [
                {"name": name, "version": version, "answered": s.success.count, "failed": s.fail.count, "now": s.now}
                for (name, version), s in statistics
            ],
            "latency": {"ends_ms": BUCKETS_MS, "counts": latencies or [0] * (len(BUCKETS_MS) + 1)},
            "samples": [
                {"model": s.model, "labels": s.labels, "probabilities": s.probabilities, "picture": _picture(s.image())}
                for s in reversed(list(self._recorder.samples))
                if token is None or token.opens(s.model)
            ],
        }

    def _watch_samples(self) -> None:
        for entry in self._registry.entries.values():
            for model in entry.versions.values():
                model.on_sample = self._recorder.samples.append


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off or fails at TLS is none of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _bearer(authorization: str) -> str:
    """A token given as a password, as gRPC's clients give it."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return authorization
    try:
        return "Bearer " + base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _picture(image: NDArray[np.uint8]) -> str:
    """A PNG of the image's first channel as a data URL, at most THUMBNAIL pixels a side: the brightest of each patch."""
    plane = image[..., 0]
    step = -(-max(plane.shape) // THUMBNAIL)
    rows, columns = (n // step * step for n in plane.shape)
    small = plane[:rows, :columns].reshape(rows // step, step, columns // step, step).max(axis=(1, 3))
    return "data:image/png;base64," + base64.b64encode(png(small)).decode()


def png(plane: NDArray[np.uint8]) -> bytes:
    """A grey PNG (ISO/IEC 15948) of uint8 [height, width]."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = plane.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), plane], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes()))
        + chunk(b"IEND", b"")
    )
