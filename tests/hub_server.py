"""A Hugging Face hub on this machine, as far as its own client needs one for downloads and uploads."""

import base64
import json
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


Answer = tuple[int, dict[str, str], bytes]


class Hub:
    """Repositories as folders; answers what the client asks for a download or an upload."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.downloaded: list[str] = []
        self.gated: set[str] = set()
        self.failing: set[str] = set()
        self.broken = False
        self.token: str | None = None
        """The only one with which a client may write."""
        self.created: list[dict[str, object]] = []
        self.commits: list[str] = []
        self._objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(hub.answer(unquote(urlsplit(self.path).path)))

            def do_POST(self) -> None:
                sent = self.body()
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                self.reply(hub.take(unquote(urlsplit(self.path).path), sent, token))

            do_PUT = do_POST  # noqa: N815

            def body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def reply(self, answer: Answer) -> None:
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def take(self, path: str, sent: bytes, token: str) -> Answer:
        """What a client sends for an upload."""
        if self.broken:
            return 500, {}, b""
        if path.startswith("/objects/"):  # as in the real hub, the address itself is the right to write
            self._objects[path.removeprefix("/objects/")] = sent
            return 200, {"ETag": '"x"'}, b""
        if token != self.token:
            return 401, {}, b"{}"
        return 200, {"Content-Type": "application/json"}, json.dumps(self._take(path, sent)).encode()

    def _take(self, path: str, sent: bytes) -> object:
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            self.created.append(json.loads(sent))
            wanted = self.created[-1]
            name = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
            (self.root / name).mkdir(parents=True, exist_ok=True)
            return {"url": f"{self.url}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(sent)["objects"]
            upload = [{"upload": {"href": f"{self.url}/objects/{o['oid']}"}} for o in objects]
            found = [o | {"actions": actions} for o, actions in zip(objects, upload, strict=True)]
            return {"transfer": "basic", "objects": found}
        owner, name, what, _ = path.removeprefix("/api/models/").split("/")
        if what == "preupload":
            return {"files": [self._mode(file["path"]) for file in json.loads(sent)["files"]]}
        assert what == "commit"
        self._commit(self.root / owner / name, [json.loads(line) for line in sent.splitlines()])
        return {"commitUrl": f"{self.url}/{owner}/{name}/commit/{COMMIT}", "commitOid": COMMIT}

    def _mode(self, name: str) -> dict[str, object]:
        mode = "lfs" if name.endswith(".safetensors") else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False}

    def _commit(self, folder: Path, operations: list[dict]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "header":
                self.commits.append(value["summary"])
            elif operation["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            else:
                assert operation["key"] == "lfsFile"
                content = self._objects[value["oid"]]
                assert sha256(content).hexdigest() == value["oid"]
                (folder / value["path"]).write_bytes(content)

    def answer(self, path: str) -> Answer:
        if self.broken:
            return 500, {}, b""
        if path.startswith("/api/models/"):
            owner, name, *rest = path.removeprefix("/api/models/").split("/")
            revision = rest[1] if rest else "main"
        else:
            owner, name, _, revision, *rest = f"{path}////".removeprefix("/").split("/")
        folder = self.root / owner / name
        if not folder.is_dir():
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if path.startswith("/api/"):
            return 200, {"Content-Type": "application/json"}, json.dumps(self._listing(folder, rest)).encode()
        if f"{owner}/{name}" in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if rest[0] in self.failing:
            return 403, {}, b""  # the client tries again, for long, after others
        file = folder / rest[0]
        if not file.exists():
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        self.downloaded.append(file.name)
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(file)}"'}, file.read_bytes()

    def _listing(self, folder: Path, request: list[str]) -> object:
        files = sorted(folder.iterdir())
        if request[:1] == ["tree"]:
            return [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _digest(f)} for f in files
            ]
        repository = str(folder.relative_to(self.root))
        return {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}


def _digest(file: Path) -> str:
    return sha1(file.read_bytes()).hexdigest()
