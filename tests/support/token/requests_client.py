"""requests_client.py PORT CA CHAIN KEY: requests, and urllib3 below it. See docs/AGENTS.md."""
import sys

import requests
import urllib3

port, ca, chain, key = sys.argv[1:]
url = f"https://localhost:{port}/"
print(requests.get(url, cert=(chain, key), verify=ca, timeout=30).status_code)
pool = urllib3.PoolManager(cert_file=chain, key_file=key, ca_certs=ca, cert_reqs="CERT_REQUIRED")
print(pool.request("GET", url, timeout=30).status)
