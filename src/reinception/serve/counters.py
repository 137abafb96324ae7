"""What the server counts, for Prometheus: requests, refusals, batches, places, restarts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT"})


class Counters:
    """Every label takes a fixed set of values, whatever clients send."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kind = {"registry": self.registry, "namespace": "reinception"}
        self.requests = Counter(
            "requests", "Answers by route, method and status", ("route", "method", "status"), **kind
        )
        self.seconds = Histogram(
            "request_seconds", "From the head of a request to its answer", buckets=_SECONDS, **kind
        )
        self.refused = Counter("refused", "Requests refused before any work, by reason", ("reason",), **kind)
        self.cancelled = Counter("cancelled", "Requests whose client left before the answer", **kind)
        self.batch_size = Histogram("batch_images", "Images per batch", buckets=(1, 2, 4, 8, 16, 32, 64), **kind)
        self.batch_seconds = Histogram("batch_seconds", "Time to compute a batch", buckets=_SECONDS, **kind)
        self.restarts = Counter("restarts", "Parts that died and were started again", ("part",), **kind)
        self.reloads = Counter("reloads", "Models loaded again, by what became of it", ("status",), **kind)
        self.cascade = Counter("cascade_answers", "Answers of a cascade, by the model they are of", ("of",), **kind)
        self.places = Gauge("waiting_images", "Images admitted and not answered yet", **kind)
        self.connections = Gauge("connections", "Open connections", **kind)
        self.ready = Gauge("ready", "1 where the last readiness check was answered", **kind)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.observe(seconds)
