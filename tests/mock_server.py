"""OpenAI-compatible servers in a thread, one for each first segment of the path: /MODE/v1/..."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = Mapping[str, Any]
Response = tuple[int, Any]
"""The status, and an object for JSON or bytes for a web page."""

PAGE = b"<!doctype html><html><title>Open WebUI</title></html>"
FRUITS = "Apple, pear, plum and fig."
INFERRED = '{"reasoning": "a list of fruits", "instruction": "Name 4 fruits."}'
ABOUT_TAGS = "In HTML you would write `<think>` as &lt;think&gt;. That shows the tag."
OWNERS = {"sglang": "sglang", "vllm": "vllm", "llamacpp": "llamacpp"}


def card(name: str = "m", owner: str = "openai") -> dict[str, str]:
    return {"id": name, "object": "model", "owned_by": owner}


def models(mode: str) -> Response:
    """The list of models."""
    listed = {"object": "list", "data": [card(owner=OWNERS.get(mode, "openai"))]}
    return {
        "nomodels": (404, {"error": {"message": "Not Found", "type": "invalid_request_error"}}),
        "nomodels403": (403, {"error": {"message": "listing models is not permitted"}}),
        "barelist": (200, [card()]),
        "wildcard": (200, {"object": "list", "data": [card("openai/*")]}),
        "google": (200, {"object": "list", "data": [card("models/m"), card("models/n")]}),
        "html": (200, PAGE),
    }.get(mode, (200, listed))


def elsewhere(mode: str, path: str) -> Response:
    """What is not below /v1."""
    if mode == "lmstudio":
        return 200, {"error": f"Unexpected endpoint or method. (GET {path})"}
    if mode == "html":
        return 200, PAGE
    return 404, {"detail": "Not Found"}


def refused(message: str, param: str | None = None, status: int = 400, **more: Any) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return status, {"error": error | more}


def unknown_arguments(body: Body, *names: str) -> Response | None:
    """As OpenAI names them, some models all at once."""
    found = sorted(set(names) & set(body))
    plural = "s" if len(found) > 1 else ""
    text = f"Unrecognized request argument{plural} supplied: {', '.join(found)}"
    return refused(text) if found else None


def unknown_parameter(body: Body, *names: str) -> Response | None:
    """As OpenAI names them, the first alone."""
    for name in names:
        if name in body:
            return refused(f"Unknown parameter: '{name}'.", name, code="unknown_parameter")
    return None


def forbidden_inputs(body: Body, *names: str) -> Response | None:
    """As pydantic names them."""
    found = [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": dict(body),
        }
        for name in names
        if name in body
    ]
    return (422, {"detail": found}) if found else None


def unsupported_property(body: Body, *names: str) -> Response | None:
    """As Groq names them."""
    for name in names:
        if name in body:
            return refused(f"property '{name}' is unsupported")
    return None


def no_zero_top_k(body: Body) -> Response | None:
    """As SGLang wants it."""
    top_k = body.get("top_k", -1)
    if top_k >= 1 or top_k == -1:
        return None
    return refused(f"top_k must be -1 (disable), or at least 1, got {top_k}.")


def no_old_limit(body: Body) -> Response | None:
    if "max_tokens" not in body:
        return None
    return refused(
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "max_tokens",
    )


def only_temperature_1(body: Body) -> Response | None:
    if body.get("temperature", 1) == 1:
        return None
    return refused(
        f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
        "Only the default (1) value is supported.",
        "temperature",
    )


BEYOND = ("top_k", "min_p", "repetition_penalty")
REFUSALS: dict[str, Callable[[Body], Response | None]] = {
    "gpt5": no_old_limit,
    "temp1": only_temperature_1,
    "gpt5full": lambda body: (
        unknown_arguments(body, *BEYOND) or no_old_limit(body) or only_temperature_1(body)
    ),
    "plural": lambda body: unknown_arguments(body, *BEYOND),
    "singular": lambda body: unknown_parameter(body, *BEYOND),
    "pydantic": lambda body: forbidden_inputs(body, *BEYOND),
    "groq": lambda body: unsupported_property(body, *BEYOND),
    "sglang": no_zero_top_k,
    "litellm": no_zero_top_k,  # SGLang, but nothing says so
    "noseed": lambda body: forbidden_inputs(body, "seed"),
    "nologprobs": lambda body: (
        refused("logprobs is not supported", "logprobs") if body.get("logprobs") else None
    ),
    "nologprobs2": lambda body: (
        refused("You are not allowed to request logprobs from this model", status=403)
        if body.get("logprobs")
        else None
    ),
    "nopenalty": lambda body: unknown_arguments(body, "frequency_penalty"),
    "quota": lambda body: refused(
        "You exceeded your current quota, please check your plan and billing details.",
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
    ),
    "err200": lambda body: (
        200,
        {
            "choices": None,
            "error": {"message": "Provider returned error: out of credits", "code": 402},
        },
    ),
}


def completion(mode: str, body: Body) -> Response:
    asked_for_json = "JSON" in body["messages"][-1]["content"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": INFERRED if asked_for_json else FRUITS,
    }
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    usage: dict[str, Any] | None = {"prompt_tokens": 10, "completion_tokens": 8}
    match mode:
        case "lostthink":
            message |= {"content": None, "reasoning_content": "thinking " * 20}
            choice["finish_reason"] = "length"
        case "think" if not asked_for_json:
            message["content"] = ABOUT_TAGS
        case "splitoff":
            message |= {"content": "<think>\nis a tag.", "reasoning_content": "hm"}
        case "empty":
            message["content"] = ""
        case "parts":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
            message["content"] = [thought, {"type": "text", "text": FRUITS}]
        case "logprobsnull":
            choice["logprobs"] = {"content": None}
            usage = None
        case "finishnull":
            choice["finish_reason"] = None
        case "floatusage":
            usage = {"prompt_tokens": -1, "completion_tokens": 8}
    choices = [] if mode == "nochoices" else [choice]
    return 200, {"object": "chat.completion", "choices": choices, "usage": usage}


class MockServer:
    """All modes on one port.

    Attributes:
        bodies: Of chat requests, by mode.
        gets: Paths of the other requests.
        keys: What was sent as Authorization.
        refuse: By mode, what makes of a body a refusal, or None.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, list[dict[str, Any]]] = {}
        self.gets: list[str] = []
        self.keys: set[str | None] = set()
        self.refuse = dict(REFUSALS)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(outer.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(outer.post(self.path, body, self.headers))

            def _send(self, answer: Response) -> None:
                status, content = answer
                page = isinstance(content, bytes)
                data = content if page else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if page else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After", "0.01")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def get(self, path: str) -> Response:
        self.gets.append(path)
        _, mode, *rest = path.split("/")
        return models(mode) if rest == ["v1", "models"] else elsewhere(mode, path)

    def post(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Response:
        _, mode, *rest = path.split("/")
        if rest[-2:] != ["chat", "completions"]:
            return 404, {"detail": "Not Found"}
        self.bodies.setdefault(mode, []).append(body)
        self.keys.add(headers.get("Authorization"))
        if mode == "echo":
            return refused(f"unknown key {headers['Authorization']}; max_tokens=3", status=400)
        refusal = self.refuse.get(mode, lambda _: None)(body)
        return refusal or completion(mode, body)

    def spec(self, mode: str) -> str:
        return f"openai:{self.root}/{mode}/v1#m"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
