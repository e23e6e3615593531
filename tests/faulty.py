"""An HTTP proxy between a client and a real server that makes what goes wrong on the way: named faults, once each."""

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyProxy:
    """Passes requests on to `target`. Each fault in `faults` is used up by one request, in order; then none is left.

    Faults: "429" (Retry-After: 0.2), "echo" (a refusal that repeats the key), "null" (no text), "filter" and "refusal".
    `scripted` has the other faults, without a real server behind them.
    """

    def __init__(self, target: str):
        self.target = target
        self.faults: list[str] = []
        self.seen: list[dict] = []  # bodies of requests, with their Authorization
        proxy = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    proxy.seen.append(json.loads(body) | {"authorization": self.headers.get("Authorization")})
                    fault = proxy.faults.pop(0) if proxy.faults else None
                getattr(self, f"_{fault.replace(' ', '_')}" if fault else "_pass")(body)

            def _pass(self, body):
                request = urllib.request.Request(proxy.target + self.path, body, {"Content-Type": "application/json"})
                try:
                    with urllib.request.urlopen(request, timeout=120) as answer:
                        self._send(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    self._send(error.code, error.read())
                except OSError:  # the server behind is gone: so is this connection
                    self.close_connection = True

            def _send(self, status, body, kind="application/json", **headers):
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def _429(self, body):
                self._send(429, b'{"error": {"message": "slow down"}}', Retry_After="0.2")

            def _echo(self, body):
                said = f"wrong key: {self.headers.get('Authorization')}"
                self._send(401, json.dumps({"error": {"message": said}}).encode())

            def _null(self, body):
                self._choice({"role": "assistant", "content": None}, "stop")

            def _filter(self, body):
                self._choice({"role": "assistant", "content": "It was"}, "content_filter")

            def _refusal(self, body):
                self._choice({"role": "assistant", "content": None, "refusal": "I will not."}, "stop")

            def _choice(self, message, reason):
                choice = {"index": 0, "message": message, "finish_reason": reason}
                self._send(200, json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode())

            def log_message(self, *words):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
