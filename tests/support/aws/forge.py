#!/usr/bin/env python3
"""The recorded good request again, changed in one place each time: the server must refuse each by its name.

forge.py RECORD URL CA_FILE OTHER_CERT
"""
import base64
import datetime
import hashlib
import json
import re
import ssl
import sys
import urllib.error
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RECORD, URL, CA_FILE, OTHER = sys.argv[1:]
with open(RECORD, encoding="ascii") as file:
    good = json.load(file)
context = ssl.create_default_context(cafile=CA_FILE)


def der(path):
    with open(path, encoding="ascii") as pem:
        return base64.b64encode(ssl.PEM_cert_to_DER_cert(pem.read().strip() + "\n")).decode()


def send(headers, body, path):
    request = urllib.request.Request(URL + path, data=body.encode(), headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return error.headers.get("X-Amzn-ErrorType", str(error.code))


def change(expected, path=good["path"], body=good["body"], authorization=None, without=(), **changes):
    names = {name.lower(): name for name in good["headers"]}
    headers = {name: value for name, value in good["headers"].items() if name.lower() not in ("content-length", *without)}
    for name, value in changes.items():
        headers[names[name.replace("_", "-")]] = value
    if authorization:
        headers["Authorization"] = re.sub(authorization[0], authorization[1], headers["Authorization"])
        assert headers["Authorization"] != good["headers"]["Authorization"], authorization
    found = send(headers, body, path)
    print("ok" if found == expected else "WRONG", expected, found, authorization or changes or without or path, flush=True)
    return found == expected


def stranger(expected, days=1, sign=True, **changes):
    """A whole request, well signed with a key and certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    now = datetime.datetime.utcnow()
    usage = x509.KeyUsage(sign, False, not sign, False, False, False, False, False, False)
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(4711).not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days)).add_extension(usage, True).sign(key, hashes.SHA256()))
    body, date = good["body"], now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"Content-Type": "application/json", "Host": good["headers"]["Host"], "X-Amz-Date": date, "X-Amz-X509":
               base64.b64encode(cert.public_bytes(serialization.Encoding.DER)).decode(), **changes}
    text = SigV4Auth(Credentials("a", "b"), "rolesanywhere", "eu-central-1").canonical_request(
        AWSRequest("POST", URL + good["path"], data=body.encode(), headers=headers))
    scope = f"{date[:8]}/eu-central-1/rolesanywhere/aws4_request"
    to_sign = f"AWS4-X509-ECDSA-SHA256\n{date}\n{scope}\n{hashlib.sha256(text.encode()).hexdigest()}"
    signature = key.sign(to_sign.encode(), ec.ECDSA(hashes.SHA256())).hex()
    names = ";".join(sorted(name.lower() for name in headers))
    headers["Authorization"] = f"AWS4-X509-ECDSA-SHA256 Credential=4711/{scope}, SignedHeaders={names}, Signature={signature}"
    found = send(headers, body, good["path"])
    print("ok" if found == expected else "WRONG", expected, found, "a stranger's certificate", flush=True)
    return found == expected


chain = good["headers"]["X-Amz-X509-Chain"]
date = datetime.datetime.strptime(good["headers"]["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
other_date = (date - datetime.timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ")
old_date = (date - datetime.timedelta(minutes=6)).strftime("%Y%m%dT%H%M%SZ")
kind = "RSA" if "X509-RSA" in good["headers"]["Authorization"] else "ECDSA"
results = [
    change("201"),  # as it was: it can be sent twice
    change("SignatureDoesNotMatch", body=good["body"].replace("agents", "admins")),
    change("SignatureDoesNotMatch", body=good["body"] + " "),
    change("SignatureDoesNotMatch", path="/other/sessions"),
    change("SignatureDoesNotMatch", x_amz_date=other_date),
    change("SignatureDoesNotMatch", content_type="application/json; charset=utf-8"),
    change("SignatureDoesNotMatch", x_amz_x509_chain=chain + "," + chain),
    change("SignatureDoesNotMatch", authorization=(r"Signature=..", "Signature=3" + ("1" if kind == "ECDSA" else "2"))),
    change("RequestExpired", authorization=(r"/[0-9]{8}/", f"/{old_date[:8]}/") if old_date[:8] != date.strftime("%Y%m%d") else None,
           x_amz_date=old_date),
    change("RequestExpired", path="/late/sessions"),
    change("ScopeException", authorization=(r"/[0-9]{8}/", "/20200101/")),
    change("RegionException", authorization=("eu-central-1", "us-east-1")),
    change("SerialNumberException", authorization=(r"Credential=[0-9]+", "Credential=1")),
    change("SerialNumberException", x_amz_x509=der(OTHER)),
    change("AlgorithmException", authorization=(kind, "ECDSA" if kind == "RSA" else "RSA")),
    change("UnsignedHeaderException", authorization=(";x-amz-date", "")),
    change("UnsignedHeaderException", authorization=(";x-amz-x509-chain", "")),
    change("MissingHeaderException", x_amz_x509=""),
    change("CertificateFormException", x_amz_x509="!"),
    change("CertificateFormException", x_amz_x509="AAAA"),
    change("IncompleteSignature", authorization=("rolesanywhere", "sts")),
    change("IncompleteSignature", without=("authorization",)),
    stranger("UntrustedCertificateException"),
    stranger("UntrustedCertificateException", **{"X-Amz-X509-Chain": chain}),
    stranger("CertificateExpiredException", days=-1),
    stranger("CertificateUsageException", sign=False),
]
sys.exit(0 if all(results) else 1)
