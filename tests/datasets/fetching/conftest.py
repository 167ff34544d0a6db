"""A server on this machine that gives files as told, faults included, and keeps a log of what was asked."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Files by path; `faults` are taken one per request of a path, None for a good answer.

    A fault is a status, `("status", {headers})`, `("cut", bytes)`, `("stall", bytes)`, or `"no range"`.
    """

    def __init__(self):
        self.files = {}
        self.faults = {}
        self.asked = []
        self.etags = {}
        self.stop = threading.Event()
        handler = type("Handler", (_Handler,), {"told": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def put_json(self, path, tree):
        self.files[path] = json.dumps(tree).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    told: Server

    def do_GET(self):
        path = self.path
        self.told.asked.append((path, self.headers.get("Range", "")))
        queue = self.told.faults.get(path)
        fault = queue.pop(0) if queue else None
        if isinstance(fault, int):
            fault = (fault, {})
        if isinstance(fault, tuple) and isinstance(fault[0], int):
            self.reply(fault[0], b"busy", fault[1])
        elif path not in self.told.files:
            self.reply(404, b"nothing here", {})
        else:
            self.give(self.told.files[path], path, fault)

    def give(self, data, path, fault):
        etag = {"ETag": self.told.etags[path]} if path in self.told.etags else {}
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.told.etags.get(path))
        start = int(found.group(1)) if found and fault != "no range" and same else 0
        if found and start >= len(data):
            return self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        body = data[start:]
        if start:
            etag["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for name, value in {**etag, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(fault, tuple):
            self.wfile.write(body[: fault[1]])
            self.wfile.flush()
            if fault[0] == "stall":
                self.told.stop.wait(5)
            self.close_connection = True
        else:
            self.wfile.write(body)
        return None

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: the tests read `asked`."""


@pytest.fixture
def server():
    told = Server()
    thread = threading.Thread(target=told.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield told
    told.stop.set()
    told.http.shutdown()
    told.http.server_close()
    thread.join()


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited between tries, none of which pass."""
    found = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found
