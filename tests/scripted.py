"""A server that answers as it is told: one prepared answer per request, in order, and then good ones."""

import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Sent:
    """What one request is answered with. `body`: text, bytes, or anything that becomes JSON."""

    status: int = 200
    body: object = ""
    headers: dict = field(default_factory=dict)
    habit: str = ""  # "reset" the connection, "cut" it within the body, "trickle" the body, or "hang" before the answer

    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


def chat(*choices: dict | str | None, **more) -> dict:
    """A chat completion; a choice is a message, or its content."""
    listed = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": choice}}
        if not isinstance(choice, dict)
        else {"index": i, "finish_reason": "stop", **choice}
        for i, choice in enumerate(choices)
    ]
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": listed, **more}


class Scripted:
    """`answers` are used up in order; each later request gets as many good stories as it asks for.

    `rule`, if set, is asked first: the body of a request -> an answer, or None. `software` is the header `Server`.
    """

    def __init__(self):
        self.answers: list[Sent] = []
        self.seen: list[dict] = []
        self.rule = None
        self.software = "scripted"
        script, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    script.seen.append(body)
                    number = len(script.seen)
                    sent = script.rule(body) if script.rule else None
                    if sent is None:
                        sent = script.answers.pop(0) if script.answers else Sent(body=_good(body, number))
                self.give(sent)

            def give(self, sent: Sent):
                data = sent.data()
                if sent.habit == "hang":
                    time.sleep(0.6)
                if sent.habit in ("hang", "reset"):
                    # closed with a reset, not an end
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(sent.status)
                kind = "text/html" if data.startswith(b"<") else "application/json"
                length = len(data) + (100 if sent.habit == "cut" else 0)
                for name, value in {"Content-Type": kind, "Content-Length": length, **sent.headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                if sent.habit == "trickle":
                    for byte in data[:-1]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.02)
                    return
                self.wfile.write(data)
                self.close_connection = sent.habit == "cut"

            def version_string(self):
                return script.software

            def log_message(self, *words):
                pass

            def handle_error(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that has gone is no error
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _good(body: dict, number: int) -> dict:
    return chat(*(f"Story {number}.{i}" for i in range(body.get("n") or 1)))
