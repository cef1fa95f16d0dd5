"""What the command line says to a running server; stdlib HTTP, nothing is printed here."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from nerve.cli.https import Identity, context_of, told
from nerve.errors import InvalidField, NerveError


class ServerUnreachable(NerveError):
    """Nobody listens there."""

    reason = "server_unreachable"

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url, self.detail = url, detail

    def __str__(self) -> str:
        return (
            f"no server answers at {self.url} ({self.detail}); start one with nerve serve, or name "
            "it with --url"
        )


class HungUp(NerveError):
    """A server took the connection and ended it without an answer."""

    reason = "hung_up"

    def __init__(self, url: str, *, showed_certificate: bool) -> None:
        super().__init__(url, showed_certificate)
        self.url, self.showed_certificate = url, showed_certificate

    def __str__(self) -> str:
        if not self.url.startswith("https:"):
            why = "speak TLS: try https://"
        elif self.showed_certificate:
            why = "not take the certificate in --cert-file"
        else:
            why = "want a certificate of its clients: --cert-file and --key-file"
        return f"a server is there at {self.url}, but it hung up without an answer; it may {why}"


class AnswerTimeout(NerveError):
    """The server did not answer in the time that the user gave it."""

    reason = "answer_timeout"

    def __init__(self, url: str, limit_s: float) -> None:
        super().__init__(url, limit_s)
        self.url, self.limit_s = url, limit_s

    def __str__(self) -> str:
        return (
            f"{self.url} did not answer within {self.limit_s:g} s; look at it with nerve models "
            "list, or wait longer with --timeout"
        )


class StrangeAnswer(NerveError):
    """What answers is no server of ours."""

    reason = "strange_answer"

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url, self.detail = url, detail

    def __str__(self) -> str:
        return f"what answers at {self.url} is no Nerve HTTP server: {self.detail}"


class Refused(NerveError):
    """The server said no, in its own words."""

    reason = "refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message

    def __str__(self) -> str:
        return self.message


NOBODY: Final = Identity()


class Client:
    """A server's routes that the command line needs."""

    def __init__(self, url: str, *, timeout_s: float, identity: Identity = NOBODY) -> None:
        """`url` is the root of a server, http:// may be left out.

        Raises:
            InvalidField: it is no such thing, or something of `identity` cannot be used.
        """
        self.url, self._timeout_s = _checked(url), timeout_s
        key = identity.api_key
        self.credentials = {} if key is None else {"Authorization": f"Bearer {_key(key)}"}
        """Headers that tell who asks."""
        self.context = context_of(identity) if self.url.startswith("https:") else None
        """For TLS; None over http."""
        self._shows_certificate = identity.cert_file is not None
        handlers: list[urllib.request.BaseHandler] = []
        if _is_loopback(self.url):  # which no proxy can reach
            handlers.append(urllib.request.ProxyHandler({}))
        if self.context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.context))
        self._opener = urllib.request.build_opener(*handlers)

    def models(self) -> list[dict[str, Any]]:
        """GET /v1/models."""
        models = self._ask("GET", "/v1/models")
        try:
            return list(models["models"])
        except (KeyError, TypeError):
            raise StrangeAnswer(self.url, "GET /v1/models has no list of models") from None

    def model(self, name: str) -> dict[str, Any]:
        """GET /v1/models/{name}."""
        model = self._ask("GET", f"/v1/models/{_in_path(name)}")
        if not isinstance(model, dict):
            raise StrangeAnswer(self.url, "GET /v1/models/{name} is no object")
        return model

    def limits(self) -> dict[str, Any]:
        """`limits` of GET /v1/server: of a request, whatever the model."""
        try:
            return dict(self._ask("GET", "/v1/server")["limits"])
        except (KeyError, TypeError):
            raise StrangeAnswer(self.url, "GET /v1/server has no limits") from None

    def index(self) -> list[dict[str, Any]]:
        """POST /v2/repository/index."""
        rows = self._ask("POST", "/v2/repository/index", {})
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise StrangeAnswer(self.url, "POST /v2/repository/index is no list of rows")
        return rows

    def load(self, name: str, parameters: Mapping[str, object]) -> None:
        """POST …/load; returns when the model is READY."""
        self._control(name, "load", parameters)

    def unload(self, name: str, parameters: Mapping[str, object]) -> None:
        """POST …/unload."""
        self._control(name, "unload", parameters)

    def _control(self, name: str, verb: str, parameters: Mapping[str, object]) -> None:
        path = f"/v2/repository/models/{_in_path(name)}/{verb}"
        self._ask("POST", path, {"parameters": dict(parameters)})

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  JSON
        """The answer's JSON; None for an empty one.

        Raises:
            ServerUnreachable, HungUp, HandshakeFailed, AnswerTimeout, StrangeAnswer, Refused.
        """
        request = urllib.request.Request(  # noqa: S310  `_checked` lets http and https through
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        for header, value in self.credentials.items():
            request.add_unredirected_header(header, value)  # it is for nobody else
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _said(error)) from error
        except TimeoutError as error:
            raise AnswerTimeout(self.url, self._timeout_s) from error
        except (urllib.error.URLError, OSError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise self._unanswered(cause) from error
        except http.client.HTTPException as error:
            raise StrangeAnswer(self.url, type(error).__name__) from error
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise StrangeAnswer(self.url, f"{method} {path} is no JSON") from None

    def _unanswered(self, cause: object) -> NerveError:
        """What kept the server from answering."""
        if isinstance(cause, TimeoutError):
            return AnswerTimeout(self.url, self._timeout_s)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return told(self.url, cause, shown=self._shows_certificate)
        if isinstance(cause, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError):
            return HungUp(self.url, showed_certificate=self._shows_certificate)
        return ServerUnreachable(self.url, getattr(cause, "strerror", None) or str(cause))


def _checked(url: str) -> str:
    given = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        given.encode("ascii")
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not given.isprintable() or " " in given:
        raise InvalidField("--url", f"expected http://HOST:PORT, got {url!r:.200}")
    return given.rstrip("/")


def _key(given: str) -> str:
    """Raises InvalidField, without the key."""
    if not given.isascii() or not given.isprintable() or " " in given or not given:
        raise InvalidField("--api-key", "a key has printable ASCII characters without spaces")
    return given


def _in_path(name: str) -> str:
    """A model's name as the shell gave it, which may be no UTF-8, for a URL."""
    return quote(os.fsencode(name), safe="")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(error: urllib.error.HTTPError) -> str:
    """The server's own sentence, or what there is of one, and where a key is given here."""
    said = _sentence(error)
    return f"{said} (here: set NERVE_API_KEY, or give --api-key)" if error.code == 401 else said


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        said = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        said = None
    if isinstance(said, str) and said:
        return said
    about = " ".join(text.split())[:200]
    return f"the server answered {error.code} {error.reason}" + (f": {about}" if about else "")
