"""A provider of language models that speaks OpenAI's chat completions over HTTP and thinks nothing of it.

Run by itself it serves on the port that it is given: `python3 fake_llm.py 9000`. What the last message says decides:
`fail` is a 500, `forbid` a 401 that quotes the key, `drip` streams until the client goes away, `wait` answers after half a
second, `whole` is not streamed, and all else is answered with as many words as `max_tokens` allows, eight at most.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROMPT_TOKENS = 11
WORDS = ["every ", "token ", "has ", "its ", "price ", "and ", "its ", "payer"]


def usage_of(words):
    """What an answer of so many words used."""
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words}


def answer(model, **members):
    """The members that every answer and every chunk has."""
    return {"id": "chatcmpl-1", "created": 1700000000, "model": model, **members}


def chunk(model, delta, finish=None):
    """One chunk with text."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return answer(model, object="chat.completion.chunk", choices=choices)


def event(value):
    """One event, as it is sent."""
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"


class FakeLlm(ThreadingHTTPServer):
    """What it was asked stands in `requests`; `hung_up` is set once a client has left a stream that drips."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.requests = []
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Clients leave."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Nothing to tell."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
        text, model = body["messages"][-1]["content"], body["model"]
        most = body.get("max_completion_tokens") or body.get("max_tokens") or len(WORDS)
        words = WORDS[:most]
        if text == "fail":
            return self.say(500, {"error": {"message": "overloaded", "type": "server_error", "code": None}})
        if text == "forbid":
            said = f"Incorrect API key provided: {self.headers['authorization']}"
            return self.say(401, {"error": {"message": said, "type": "invalid_request_error", "code": None}})
        if text == "wait":
            time.sleep(0.5)
        if body.get("stream") and text != "whole":
            return self.stream(body, model, words, endless=text == "drip")
        message = {"role": "assistant", "content": "".join(words)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return self.say(200, answer(model, object="chat.completion", choices=choices, usage=usage_of(len(words))))

    def say(self, status, value):
        """A whole answer."""
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.send_header("x-request-id", "req-1")
        self.end_headers()
        self.wfile.write(text)

    def stream(self, body, model, words, endless):
        """An answer in chunks, and the last one if the client asked for it."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(event(chunk(model, {"role": "assistant", "content": ""})))
        try:
            while endless:
                self.wfile.write(event(chunk(model, {"content": "drop "})))
                time.sleep(0.02)
        except OSError:
            self.server.hung_up.set()
            return
        for word in words:
            sent = event(chunk(model, {"content": word}))
            # Nobody says that an event comes in one piece.
            self.wfile.write(sent[:20])
            self.wfile.flush()
            time.sleep(0.002)
            self.wfile.write(sent[20:])
        self.wfile.write(event(chunk(model, {}, "stop")))
        if (body.get("stream_options") or {}).get("include_usage"):
            last = answer(model, object="chat.completion.chunk", choices=[], usage=usage_of(len(words)))
            self.wfile.write(event(last))
        self.wfile.write(event("[DONE]"))
        self.close_connection = True


if __name__ == "__main__":
    FakeLlm(int(sys.argv[1])).serve_forever()
