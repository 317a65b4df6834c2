#!/usr/bin/python3
"""multiprocessing with a stock library: a parent that has used its agent's key, and children that it forks.

usage: forks_client.py PORT CA CERT KEY
Each makes a request of its own with pycurl; "PID CODE" for the parent and each child."""
import multiprocessing
import os
import sys

import pycurl

port, ca, cert, key = sys.argv[1:]


def get(_):
    handle = pycurl.Curl()
    for option, value in ((pycurl.URL, f"https://localhost:{port}/"), (pycurl.CAINFO, ca), (pycurl.SSLCERT, cert),
                          (pycurl.SSLKEY, key), (pycurl.WRITEFUNCTION, lambda data: None), (pycurl.FRESH_CONNECT, 1)):
        handle.setopt(option, value)
    handle.perform()
    return os.getpid(), handle.getinfo(pycurl.RESPONSE_CODE)


if __name__ == "__main__":
    print(*get(0), flush=True)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for pid, code in pool.map(get, range(6), chunksize=2):
            print(pid, code, flush=True)
    print(*get(0))
