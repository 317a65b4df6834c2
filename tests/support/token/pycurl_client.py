"""pycurl_client.py PORT CA CERT-URI KEY-URI: Debian's pycurl is linked with GnuTLS, which finds keys by p11-kit's
registered modules. See docs/AGENTS.md."""
import io
import sys

import pycurl

port, ca, cert, key = sys.argv[1:]
page = io.BytesIO()
curl = pycurl.Curl()
curl.setopt(pycurl.URL, f"https://localhost:{port}/")
curl.setopt(pycurl.CAINFO, ca)
curl.setopt(pycurl.SSLCERT, cert)
curl.setopt(pycurl.SSLKEY, key)
curl.setopt(pycurl.WRITEDATA, page)
curl.setopt(pycurl.TIMEOUT, 30)
curl.perform()
print(curl.getinfo(pycurl.RESPONSE_CODE))
