#!/usr/bin/python3
"""Between a PKCS#11 client and tokend: keeps what each connection sends (fuzz corpus).

usage: record.py LISTEN_SOCKET TOKEND_SOCKET FOLDER PREFIX"""
import os
import selectors
import socket
import sys
import threading

listen_path, upstream_path, folder, prefix = sys.argv[1:]
if os.path.exists(listen_path):
    os.unlink(listen_path)
server = socket.socket(socket.AF_UNIX)
server.bind(listen_path)
server.listen(16)
count = 0


def serve(client, name):
    upstream = socket.socket(socket.AF_UNIX)
    upstream.connect(upstream_path)
    sel = selectors.DefaultSelector()
    sel.register(client, selectors.EVENT_READ, upstream)
    sel.register(upstream, selectors.EVENT_READ, client)
    with open(os.path.join(folder, name), "wb") as out:
        while True:
            for key, _ in sel.select():
                data = key.fileobj.recv(65536)
                if not data:
                    client.close()
                    upstream.close()
                    return
                if key.fileobj is client:
                    out.write(data)
                    out.flush()
                key.data.sendall(data)


while True:
    conn, _ = server.accept()
    count += 1
    threading.Thread(target=serve, args=(conn, f"{prefix}-{count}"), daemon=True).start()
