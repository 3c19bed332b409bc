"""Posts alerts as JSON, to the one address that was given: no redirection is followed."""

import json
import logging
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from openxclip.errors import InputError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
MAX_WAITING = 100  # alerts; more are dropped, with a warning, while the address does not answer
CLOSE_SECONDS = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: Any, **more: Any) -> None:
        """An answer that names another address is an error."""


class Webhook:
    """An address and a thread that posts to it, so that the stream need not wait."""

    def __init__(self, address: str) -> None:
        """
        Raises:
            InputError: it is no http or https address.
        """
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise InputError(f"--webhook {address}: it must be an address such as https://example.org/alerts")
        self._address = address
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhook")
        self._thread.start()

    def post(self, values: Mapping[str, Any]) -> None:
        """Post soon; an address that does not answer is a warning."""
        try:
            self._waiting.put_nowait(values)
        except queue.Full:
            logger.warning(
                "%s does not answer: an alert of %s was not posted", self._address, values.get("label")
            )

    def close(self) -> None:
        """Post what waits, for a few seconds."""
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (values := self._waiting.get()) is not None:
            request = urllib.request.Request(
                self._address, json.dumps(values).encode(), {"Content-Type": "application/json"}
            )
            try:
                with self._opener.open(request, timeout=TIMEOUT_SECONDS):
                    pass
            except (OSError, HTTPException) as error:
                logger.warning("%s did not take an alert: %s", self._address, error)
