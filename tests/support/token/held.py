#!/usr/bin/python3
"""A relay that holds a handshake: what the server answers waits until somebody says so.

usage: held.py LISTEN_PORT SERVER_PORT
Prints "held" when a client's first bytes have reached the server and its answer is here; a line of input lets it
and everything after it pass. For one connection after the other."""
import socket
import sys
import threading

listen_port, server_port = int(sys.argv[1]), int(sys.argv[2])


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


with socket.create_server(("127.0.0.1", listen_port)) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        with client, socket.create_connection(("127.0.0.1", server_port)) as upstream:
            up = threading.Thread(target=pump, args=(client, upstream))
            up.start()
            first = upstream.recv(65536)
            print("held", flush=True)
            if not sys.stdin.readline():
                break
            client.sendall(first)
            pump(upstream, client)
            up.join()
