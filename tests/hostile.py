"""Input that nobody means well by: broken videos, and requests that are no requests. All drawn from fixed seeds."""

import gzip
import io
import zipfile

import numpy as np


def mutated_videos(originals: list[bytes], count: int) -> list[bytes]:
    """Videos with bytes changed, cut, repeated or grown, and archives that unpack to far more than they are."""
    rng = np.random.default_rng(0)
    made = [_zip_bomb(), gzip.compress(bytes(20_000_000)), b"", b"\0" * 10_000, b"#EXTM3U\nfile:///etc/passwd\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]  # fmt: skip
    while len(made) < count:
        made.append(_mutated(originals[int(rng.integers(len(originals)))], rng))
    return made[:count]


def _mutated(original: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(original)
    match int(rng.integers(6)):
        case 0:  # a few bytes anywhere
            for place in rng.integers(len(data), size=int(rng.integers(1, 30))):
                data[place] = rng.integers(256)
        case 1:  # the end is missing
            del data[int(rng.integers(len(data))) :]
        case 2:  # a part is missing
            start = int(rng.integers(len(data)))
            del data[start : start + int(rng.integers(1, 500))]
        case 3:  # numbers in the header become huge
            place = int(rng.integers(min(len(data), 1500)))
            data[place : place + 4] = b"\x7f\xff\xff\xff"
        case 4:  # a part comes twice
            start = int(rng.integers(len(data)))
            data[start:start] = data[start : start + 300]
        case _:  # the header at the end of an MP4, changed
            for place in rng.integers(max(0, len(data) - 1500), len(data), size=10):
                data[place] = rng.integers(256)
    return bytes(data)


def _zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", bytes(50_000_000))
    return file.getvalue()


def hostile_requests(count: int) -> list[bytes]:
    """Raw requests: wrong multipart, wrong types, huge headers, odd names, broken HTTP."""
    rng = np.random.default_rng(1)
    made = _known_bad()
    good = _post(_part("labels", b"a, b") + _part("video", b"no video", 'filename="a.mp4"') + b"--b--\r\n")
    while len(made) < count:
        data = bytearray(good)
        for place in rng.integers(len(data), size=int(rng.integers(1, 12))):
            data[place] = rng.integers(256)
        # Whatever it says its length is, the connection ends here.
        made.append(bytes(data))
    return made[:count]


def _part(name: str, content: bytes, more: str = "") -> bytes:
    disposition = f'form-data; name="{name}"' + (f"; {more}" if more else "")
    return (
        f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode("utf-8", "surrogateescape")
        + content
        + b"\r\n"
    )


def _post(
    body: bytes, kind: str = "multipart/form-data; boundary=b", more: str = "", path: str = "/v1/predict"
) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n{more}"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def _known_bad() -> list[bytes]:
    labels, end = _part("labels", b"a, b"), b"--b--\r\n"
    return [
        _post(b"", "multipart/form-data"),
        _post(b"", "multipart/form-data; boundary="),
        _post(labels, "multipart/form-data; boundary=other"),
        _post(labels + _part("video", b"x")),
        _post(labels + _part("video", b"x") + end),
        _post(labels + _part("video", b"x", 'filename="../../../../tmp/x.mp4"') + end),
        _post(labels + _part("video", b"x", 'filename="/etc/passwd"') + end),
        _post(labels + _part("video", b"x", f'filename="{"y" * 60_000}"') + end),
        _post(labels + _part("video", b"x", "filename*=utf-8''%ff%fe") + end),
        _post(_part("labels", b"\xff\xfe, \x00") + _part("video", b"x", 'filename="a"') + end),
        _post(_part("labels", b"z" * 1_500_000) + end),
        _post(b"".join(_part("labels", b"z") for _ in range(1500)) + end),
        _post(b"".join(_part("video", b"z", 'filename="a"') for _ in range(1500)) + end),
        _post(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end),
        _post(b"--b\r\n" + b"X-Header: y\r\n" * 2000 + b"\r\nx\r\n" + end),
        _post(b"{" * 100_000, "application/json"),
        _post(b"[]", "application/json"),
        _post(b"labels=a%2Cb&path=%2Fetc%2Fpasswd", "application/x-www-form-urlencoded"),
        _post(b"\xff" * 1000, "text/plain; charset=utf-99"),
        _post(labels + end, "multipart/form-data; boundary=b; charset=nothing"),
        _post(labels + end, "multipart/form-data; boundary=b; charset=utf-7"),
        _post(labels + end, "multipart/form-data; boundary=b", "Content-Length: 5\r\n"),
        _post(b"5\r\nhello\r\nzz\r\n", more="Transfer-Encoding: chunked\r\n"),
        _post(labels + end, more=f"X-Huge: {'y' * 200_000}\r\n"),
        _post(labels + end, more="".join(f"X-{i}: y\r\n" for i in range(5000))),
        _post(labels + _part("path", b"../" * 2000) + end),
        _post(labels + _part("path", b"\x00") + end),
        _post(labels + _part("top_k", b"9" * 5000) + end),
        _post(labels + _part("views", b"1" * 10_000 + b"x1") + end),
        _post(labels + end, path="/v1/" + "a" * 50_000),
        _post(labels + end, path="/v1/predict?" + "a=b&" * 10_000),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        *(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + rest
            for rest in (
                b"Content-Length: -5\r\n\r\n",
                b"Content-Length: 99999999999999999999999\r\n\r\n",
                b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            )
        ),
    ]
