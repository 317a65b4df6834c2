#!/usr/bin/env python3
"""A TCP balancer: balancer.py PORT BACKEND... on 127.0.0.1, each connection to the next backend that takes it within
2 s. A backend is HOST:PORT, or a port on 127.0.0.1. Knows nothing of TLS or HTTP; a backend that dies ends its connections."""
import socket
import sys
import threading

backends = [(host or "127.0.0.1", int(port)) for host, _, port in (b.rpartition(":") for b in sys.argv[2:])]
lock = threading.Lock()
turn = 0


def dial():
    global turn
    with lock:
        turn += 1
        first = turn
    for i in range(len(backends)):
        try:
            return socket.create_connection(backends[(first + i) % len(backends)], 2)
        except OSError:
            pass
    return None


def pump(src, dst):
    try:
        while data := src.recv(65536):
            dst.sendall(data)
        dst.shutdown(socket.SHUT_WR)
    except OSError:
        for s in (src, dst):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(client):
    with client:
        backend = dial()
        if backend is None:
            return
        with backend:
            backend.settimeout(None)
            other = threading.Thread(target=pump, args=(backend, client), daemon=True)
            other.start()
            pump(client, backend)
            other.join()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256)
print("ready", flush=True)
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
