"""Posts alerts as JSON to the given URL; redirects are not followed."""

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
        """Treat a redirect as an error."""


def check_address(address: str) -> None:
    """Refuse an invalid URL.

    Raises:
        InputError: it is not an http or https URL, or has unescaped characters.
    """
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise InputError(f"--webhook {address}: it must be a URL such as https://example.org/alerts")
    if not address.isascii() or not address.isprintable() or " " in address:
        raise InputError(f"--webhook {address!r}: escape spaces and non-ASCII characters, e.g. %20")
    if parts.username is not None:
        raise InputError("--webhook: a URL with user and password is not supported; leave them out")


class Webhook:
    """A URL and a thread that posts to it, so that the stream does not wait."""

    def __init__(self, address: str) -> None:
        """
        Raises:
            InputError: it is not an http or https URL.
        """
        check_address(address)
        self._address = address
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhook")
        self._thread.start()

    def post(self, values: Mapping[str, Any]) -> None:
        """Queue a post; failures are logged as warnings."""
        try:
            self._waiting.put_nowait(values)
        except queue.Full:
            logger.warning(
                "%s does not respond: an alert for %s was not posted", self._address, values.get("label")
            )

    def close(self) -> None:
        """Post waiting alerts, for up to a few seconds."""
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
            except (OSError, HTTPException, ValueError) as error:  # ValueError: an invalid host name
                logger.warning("%s did not accept an alert: %s", self._address, error)
