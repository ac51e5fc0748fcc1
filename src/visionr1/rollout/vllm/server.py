"""Talking to a vLLM server over HTTP: JSON in and out, each failure one TrainingError that says what to do.

The requests are those of vLLM's own server (`vllm serve`), which this package needs no vLLM for. A redirect is not
followed: it would take the key to another host.
"""

import json
import os
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import BaseModel, ValidationError

from visionr1.errors import TrainingError, short_repr

KEY = "VLLM_API_KEY"
"""Environment variable with the server's key, as vLLM itself reads it."""
MAX_BYTES = 1 << 28
"""An answer is never longer: 64 replies of 16,000 tokens with their log-probabilities take half of it."""
FAQ = "docs/faq.md#the-vllm-server-cannot-be-used"

Form = TypeVar("Form", bound=BaseModel)


class Server:
    """A vLLM server at `url`, whose requests may take `timeout` seconds each."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._opener = build_opener(_NoRedirect)

    def get(self, path: str) -> Any:
        """Return the JSON at `path`, or None if the answer is empty."""
        return self._send(Request(self.url + path, headers=self._headers()), path)

    def post(self, path: str, body: object) -> Any:
        """Send `body` as JSON to `path`; return the JSON of the answer, or None if it is empty."""
        headers = {**self._headers(), "Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._send(Request(self.url + path, data=data, headers=headers, method="POST"), path)

    def read(self, answer: Any, form: type[Form], path: str) -> Form:
        """Return an answer of `path` in the form that vLLM gives it; TrainingError if it has another."""
        try:
            return form.model_validate(answer)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise self.error(
                f"answers {path} in another form than vLLM: {place}: {first['msg']}, found {short_repr(first['input'])}"
            ) from error

    def error(self, problem: str) -> TrainingError:
        """Return an error of this server, to be raised."""
        return TrainingError(f"the vLLM server at {self.url} {problem} ({FAQ})")

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(KEY)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _send(self, request: Request, path: str) -> Any:
        """Return the JSON of the server's answer to a request of `path`."""
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                content = response.read(MAX_BYTES + 1)
                kind = response.headers.get_content_type()
                is_whole = not response.length  # what is left of the length that the server named
        except HTTPError as error:
            raise self._refusal(error, path) from error
        except TimeoutError as error:
            raise self._too_slow(path) from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._too_slow(path) from error
            raise self.error(f"cannot be reached ({path}: {reason or type(error).__name__}): start it again") from error
        if len(content) > MAX_BYTES:
            raise self.error(f"answers {path} with more than {MAX_BYTES:,} bytes")
        if not is_whole:
            raise self.error(f"broke off in the middle of its answer to {path}: start it again")
        return self._parse(content, kind, path)

    def _too_slow(self, path: str) -> TrainingError:
        return self.error(f"did not answer {path} within {self.timeout:g} s (rollout.server_timeout)")

    def _parse(self, content: bytes, kind: str, path: str) -> Any:
        """Return the JSON of an answer; vLLM leaves out the body where there is nothing to say."""
        if not content:
            return None
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.error(
                f"answers {path} with {kind}, not with JSON: {short_repr(content[:60])}; expected a server of vLLM's"
            ) from error

    def _refusal(self, error: HTTPError, path: str) -> TrainingError:
        """Return what a status other than 200 means."""
        if error.code == 401:
            return self.error(f"refuses the key: set the environment variable {KEY} to the one it was started with")
        if error.code in (301, 302, 303, 307, 308):
            return self.error(f"sends {path} elsewhere ({error.headers.get('Location')}): name that place instead")
        message = _message(error)
        if error.code == 404 and not message:
            return self.error(f"has no {path}: start it as docs/vllm.md says, with VLLM_SERVER_DEV_MODE=1")
        return self.error(f"refuses {path} ({error.code}): {message or error.reason}")


class _NoRedirect(HTTPRedirectHandler):
    """Leaves a redirect as the error that it is here."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _message(error: HTTPError) -> str:
    """Return the message in vLLM's JSON of an error, or nothing."""
    try:
        content = json.loads(error.read(1 << 16))
    except (ValueError, RecursionError, OSError, HTTPException):
        return ""
    problem = content.get("error") if isinstance(content, dict) else None
    message = problem.get("message") if isinstance(problem, dict) else problem
    return f"{' '.join(message.split()):.600}" if isinstance(message, str) else ""
