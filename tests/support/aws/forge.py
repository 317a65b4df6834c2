#!/usr/bin/env python3
"""The recorded good request again, changed in one place each time: the server must refuse each by its name.

forge.py RECORD URL CA_FILE OTHER_CERT
"""
import base64
import datetime
import json
import re
import ssl
import sys
import urllib.error
import urllib.request

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
    change("RequestExpired", authorization=(r"/[0-9]{8}/", old_date[:8].join("//")) if old_date[:8] != date.strftime("%Y%m%d") else None,
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
]
sys.exit(0 if all(results) else 1)
