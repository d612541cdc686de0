"""A web server of our own words, in a thread: for programs that ask an agent and get something else."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

Answer = bytes | Callable[[socket.socket, bytes], bytes]


def response(status: int, body: bytes, reason: str = "Any") -> bytes:
    return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s" % (status, reason.encode(), len(body), body)


@contextmanager
def answering(answers: Mapping[str, Answer]) -> Iterator[str]:
    """Serve `answers` by path, every other path with 404; yields the URL. A callable sees the request."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client:
            request = client.recv(65536)
            words = request.split(b" ")
            path = words[1].decode() if len(words) > 1 else ""
            found = answers.get(path.partition("?")[0], response(404, b"{}"))
            with suppress(OSError):
                client.sendall(found if isinstance(found, bytes) else found(client, request))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
