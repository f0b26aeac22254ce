"""When to try again: which failures pass by themselves, how often and how long to wait."""

from __future__ import annotations

import errno
import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TRANSIENT_ERRNOS = frozenset({errno.EAGAIN, errno.EBUSY, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT})
_TRANSIENT_CODES = frozenset(
    {
        "500",
        "502",
        "503",
        "504",
        "BadGateway",
        "ConditionalRequestConflict",
        "GatewayTimeout",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottlingException",
        "TooManyRequests",
        "429",
    }
)
# Names, not classes: the libraries behind fsspec are extras and must not be imported here.
_TRANSIENT_NAMES = frozenset(
    {
        "ClientConnectionError",
        "ClientOSError",
        "ClientPayloadError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "ServiceRequestError",
    }
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a transient failure is tried: `attempts` in all, waiting `first_delay_s`, then `factor` times longer.

    `sleep` is what waits; tests replace it. It must be picklable.
    """

    attempts: int = 4
    first_delay_s: float = 0.25
    factor: float = 4.0
    sleep: Callable[[float], None] = time.sleep

    def delays(self) -> Iterator[float]:
        """Yield the wait before each further attempt, `attempts - 1` of them, in seconds."""
        for attempt in range(self.attempts - 1):
            yield self.first_delay_s * self.factor**attempt


def service_code(error: BaseException) -> str:
    """Return the storage service's own error code ("NoSuchBucket", "503") from `error` or its cause, else ""."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            details = response.get("Error")
            if isinstance(details, dict):
                return str(details.get("Code", ""))
        status = getattr(seen, "status", None) or getattr(seen, "status_code", None) or getattr(seen, "code", None)
        if isinstance(status, int) and not isinstance(seen, SystemExit):
            return str(status)
        seen = seen.__cause__
    return ""


def is_transient(error: BaseException) -> bool:
    """Tell whether `error` may pass by itself: lost connections, timeouts, an overloaded service."""
    if isinstance(error, ConnectionError | TimeoutError | http.client.IncompleteRead):
        return True
    if service_code(error) in _TRANSIENT_CODES:
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(_TRANSIENT_NAMES)
