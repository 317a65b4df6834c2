#!/usr/bin/env python3
"""attestd-hsmd on SoftHSM2 and on tpm2-pkcs11: what keyd asks of it, and what goes wrong."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.environ["ATT_SOURCE_DIR"], "tests", "support"))
import ask  # noqa: E402

from cryptography.exceptions import InvalidSignature  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: E402

BIN = os.environ["ATT_BIN_DIR"]
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN, SO_PIN, WRONG = "4711-0815", "0815-4711", "4711-0816"
INFO, CREATE, READ, SIGN, DESTROY, LIST = range(1, 7)
DESTROY_IN, CREATE_IN = 8, 9
ATTRS = ["local", "alwaysSensitive", "neverExtractable", "sensitive", "extractable", "token",
         "private", "sign", "decrypt", "unwrap", "derive", "copyable", "modifiable"]
MUST = {"local", "alwaysSensitive", "neverExtractable", "sensitive", "token", "private", "sign"}


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def ok(text):
    print("ok:", text, flush=True)


def need(condition, text):
    if not condition:
        fail(text)


def wait_for(what, text, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.05)
    fail(f"waited {seconds} s for: {text}")


class Rig:
    """A folder with tokens, a configuration and a daemon."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="att-hsmd-")
        os.chmod(self.dir, 0o755)
        self.tokens = os.path.join(self.dir, "tokens")
        os.mkdir(self.tokens)
        self.env = dict(os.environ, SOFTHSM2_CONF=os.path.join(self.dir, "softhsm2.conf"))
        with open(self.env["SOFTHSM2_CONF"], "w") as f:
            f.write(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n"
                    "log.level = ERROR\n")
        self.pin_file = os.path.join(self.dir, "pins", "pin")
        os.mkdir(os.path.dirname(self.pin_file))
        self.write_pin(PIN + "\n")
        self.run_dir = os.path.join(self.dir, "run")
        self.sock = os.path.join(self.run_dir, "hsm", "default", "hsm.sock")
        self.log_path = os.path.join(self.dir, "hsmd.log")
        self.proc, self.files = None, []

    def write_pin(self, text, mode=0o600):
        with open(self.pin_file, "w") as f:
            f.write(text)
        os.chmod(self.pin_file, mode)

    def token(self, label):
        """Makes a token; returns its serial number."""
        before = set(os.listdir(self.tokens))
        subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN,
                        "--so-pin", SO_PIN], env=self.env, check=True, stdout=subprocess.DEVNULL)
        (new,) = set(os.listdir(self.tokens)) - before
        return new.replace("-", "")[16:]

    def folder(self, serial):
        (name,) = [n for n in os.listdir(self.tokens) if n.replace("-", "")[16:] == serial]
        return os.path.join(self.tokens, name)

    def config(self, serial, label="agents", module=SOFTHSM, source=True, extra=""):
        path = os.path.join(self.dir, "attestd.yaml")
        pin = f"?pin-source=file:{self.pin_file}" if source else ""
        files = [self.env["SOFTHSM2_CONF"], self.tokens] + self.files
        with open(path, "w") as f:
            f.write(f"run_dir: {self.run_dir}\nstate_dir: {self.dir}/state\nhsm:\n"
                    f"  module: {module}\n  token: \"pkcs11:token={label};serial={serial}{pin}\"\n"
                    f"  files: {json.dumps(files)}\n{extra}")
        return path

    def start(self, config, env=None, client=None, wait=True):
        args = [os.path.join(BIN, "attestd-hsmd"), "--config", config]
        args += ["--client", client] if client else []
        self.log = open(self.log_path, "a")
        self.log_from = os.path.getsize(self.log_path)
        self.proc = subprocess.Popen(args, env=dict(self.env, **(env or {})), stderr=self.log,
                                     stdout=self.log)
        if wait:
            wait_for(lambda: "hsmd.ready" in self.new_log() or self.proc.poll() is not None,
                     "attestd-hsmd")
            need(self.proc.poll() is None, "attestd-hsmd ended:\n" + self.new_log())

    def new_log(self):
        with open(self.log_path) as f:
            f.seek(self.log_from)
            return f.read()

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        need(self.proc.wait(30) == 0, f"exit {self.proc.returncode}:\n{self.new_log()}")

    def asker(self):
        return ask.Asker(self.sock)

    def state(self):
        return info(self.asker())["state"]

    def wait_state(self, state):
        wait_for(lambda: self.state() == state, f"state {state}:\n{self.new_log()}")


def info(asker):
    reader = asker.call(INFO, b"")
    text = json.loads(reader.blob())
    reader.end()
    return text


def key_of(reader):
    spki, stated, holds = reader.blob(), reader.num(4), reader.num(4)
    reader.end()
    said = {n: bool(holds >> i & 1) for i, n in enumerate(ATTRS) if stated >> i & 1}
    return serialization.load_der_public_key(spki), said


def create(asker, key_id):
    return key_of(asker.call(CREATE, ask.blob(key_id) + ask.blob(b"ec-p256")))


def sign(asker, key_id, digest):
    reader = asker.call(SIGN, ask.blob(key_id) + ask.blob(digest))
    raw = reader.blob()
    reader.end()
    return raw


def check(key, digest, raw):
    need(len(raw) == 64, f"a signature of {len(raw)} bytes")
    der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(der, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def sign_ok(asker, key_id, key):
    digest = hashlib.sha256(os.urandom(8)).digest()
    raw = sign(asker, key_id, digest)
    check(key, digest, raw)
    try:
        check(key, hashlib.sha256(digest).digest(), raw)
    except InvalidSignature:
        return
    fail("a signature verifies over another digest")


def listed(asker):
    ids, after = [], b""
    while True:
        reader = asker.call(LIST, ask.blob(after))
        page = reader.list()
        reader.end()
        ids += page
        if len(page) < 256:
            return ids
        after = page[-1]


def refused(call, code, reason):
    try:
        call()
    except ask.Refused as e:
        need((e.code, e.reason) == (code, reason),
             f"{e.code} {e.reason} ({e.message}), expected {code} {reason}")
        return e.message
    fail(f"was not refused: expected {code} {reason}")


# ---- what it does -------------------------------------------------------------------------------


def test_life(rig, serial):
    rig.start(rig.config(serial))
    asker, key_id = rig.asker(), os.urandom(20)
    rig.wait_state("ready")
    key, said = create(asker, key_id)
    need({n for n, v in said.items() if v} == MUST, f"attributes: {said}")
    sign_ok(asker, key_id, key)
    again, said_again = key_of(asker.call(READ, ask.blob(key_id)))
    need(said_again == said and again.public_numbers() == key.public_numbers(), "READ differs")
    need(key_id in listed(asker), "LIST has it not")
    refused(lambda: create(asker, key_id), "exists", "")
    refused(lambda: asker.call(CREATE, ask.blob(os.urandom(20)) + ask.blob(b"rsa-1024")),
            "unsupported", "keyType")
    # Another token's key: not "absent".
    own = info(asker)["configured"]
    own_label, own_serial = own["label"].encode(), own["serial"].encode()
    for other in [(b"another", own_serial), (own_label, b"ffff")]:
        refused(lambda: asker.call(DESTROY_IN, ask.blob(key_id) + ask.blob(other[0]) + ask.blob(other[1])),
                "conflict", "tokenOther")
        refused(lambda: asker.call(CREATE_IN, ask.blob(os.urandom(20)) + ask.blob(b"ec-p256") + ask.blob(other[0]) +
                                   ask.blob(other[1])), "conflict", "tokenOther")
    key_of(asker.call(READ, ask.blob(key_id)))
    asker.call(DESTROY_IN, ask.blob(key_id) + ask.blob(own_label) + ask.blob(own_serial)).end()
    asker.call(DESTROY, ask.blob(key_id)).end()
    refused(lambda: sign(asker, key_id, bytes(32)), "not-found", "keyGone")
    need(listed(asker) == [], "something is left on the token")
    told = info(asker)
    need(told["token"]["serial"] == serial and told["token"]["label"] == "agents", f"{told}")
    need(told["sandbox"]["profile"].startswith("hsmd"), f"{told}")
    # Frames and fields that are none, and what is not on the table.
    refused(lambda: asker.call(SIGN, ask.blob(bytes(19)) + ask.blob(bytes(32))), "parse", "")
    refused(lambda: asker.call(SIGN, ask.blob(bytes(20)) + ask.blob(bytes(33))), "parse", "")
    refused(lambda: asker.call(99, b""), "unsupported", "unknownOperation")
    rig.stop()
    need(not os.path.exists(rig.sock), "the socket is left")
    ok("made, signed, read, listed, destroyed; attributes read back")


def test_configuration(rig, serial):
    def check_fails(config, line, words):
        got = subprocess.run([os.path.join(BIN, "attestd-hsmd"), "--config", config, "--check"],
                             env=rig.env, capture_output=True, text=True)
        need(got.returncode == 1 and f"attestd.yaml:{line}:" in got.stderr and words in got.stderr,
             f"--check: {got.returncode} {got.stderr}")
        need(PIN not in got.stderr + got.stdout, "a PIN is in the output")

    path = rig.config(serial)
    text = open(path).read()
    with open(path, "w") as f:
        f.write(text.replace("pin-source=file:" + rig.pin_file, "pin-value=" + PIN))
    check_fails(path, 5, "pin-value")
    with open(path, "w") as f:
        f.write(text.replace(f";serial={serial}", ";slot-id=0"))
    check_fails(path, 5, "slot-id")
    rig.start(path, wait=False)
    need(rig.proc.wait(30) == 1 and not os.path.exists(rig.sock), "started with a slot number")
    with open(path, "w") as f:
        f.write(f"run_dir: {rig.run_dir}\n")
    got = subprocess.run([os.path.join(BIN, "attestd-hsmd"), "--config", path, "--check"],
                         env=rig.env, capture_output=True, text=True)
    need(got.returncode == 1 and "no hsm or hsms section" in got.stderr, got.stderr)
    got = subprocess.run([os.path.join(BIN, "attestd-hsmd"), "--config", rig.config(serial),
                          "--check"], env=rig.env, capture_output=True, text=True)
    need(got.returncode == 0, got.stderr)
    for module in ["/nowhere/libnone.so", "/usr/lib/x86_64-linux-gnu/libz.so.1"]:
        rig.start(rig.config(serial, module=module), wait=False)
        need(rig.proc.wait(30) == 1 and "moduleLoad" in rig.new_log(), rig.new_log())
    for pin, mode, reason in [("", 0o600, "pinForm"), ("a\nb\n", 0o600, "pinForm"),
                              ("x" * 256, 0o600, "pinForm"), (PIN, 0o604, "pinMode")]:
        rig.write_pin(pin, mode)
        rig.start(rig.config(serial), wait=False)
        need(rig.proc.wait(30) == 1 and reason in rig.new_log(), rig.new_log())
    rig.write_pin(PIN + "\n")
    rig.start(rig.config(serial, source=False), wait=False)
    need(rig.proc.wait(30) == 1 and "no PIN" in rig.new_log(), rig.new_log())
    credentials = os.path.join(rig.dir, "credentials")
    os.makedirs(credentials, exist_ok=True)
    with open(os.path.join(credentials, "attestd.hsm-pin"), "w") as f:
        f.write(PIN)
    os.chmod(os.path.join(credentials, "attestd.hsm-pin"), 0o400)
    rig.start(rig.config(serial, source=False), env={"CREDENTIALS_DIRECTORY": credentials})
    rig.wait_state("ready")
    rig.stop()
    ok("configuration, PIN files and modules that are none are refused by name; a credential serves")


def test_two_tokens(rig, serial, other):
    key_id = os.urandom(20)
    rig.start(rig.config(serial))
    key, _ = create(rig.asker(), key_id)
    rig.stop()
    rig.start(rig.config(other))
    need(info(rig.asker())["state"] is not None, "INFO")
    refused(lambda: sign(rig.asker(), key_id, bytes(32)), "not-found", "keyGone")
    need(info(rig.asker())["token"]["serial"] == other, "the other token")
    rig.stop()
    rig.start(rig.config(serial))
    sign_ok(rig.asker(), key_id, key)
    rig.stop()
    ok("two tokens of one label: the serial number decides")


def test_wrong_pin(rig, serial):
    """At most one C_Login with it, over many requests and starts."""
    rig.write_pin(WRONG)
    for start in range(3):
        rig.start(rig.config(serial))
        for _ in range(5):
            message = refused(lambda: sign(rig.asker(), bytes(20), bytes(32)), "auth", "pinRefused")
            need(WRONG not in message, "the PIN is in a message")
        rig.wait_state("failed")
        if start == 0:
            need("CKR_PIN_INCORRECT" in message, message)
        else: # the token was not even asked
            need("since the host booted" in message, message)
        need(WRONG not in rig.new_log(), "the PIN is in the log")
        rig.stop()
    with open(os.path.join(rig.run_dir, "hsm", "default", "pin-refused"), "rb") as f:
        mark = f.read()
    need(len(mark) == 48 and WRONG.encode() not in mark, "the mark")
    rig.write_pin(PIN)
    rig.start(rig.config(serial))
    rig.wait_state("ready")
    rig.stop()
    ok("a wrong PIN is tried once, whatever is asked and however often it starts; the right one serves")


def test_token_away(rig, serial):
    rig.start(rig.config(serial))
    asker, key_id = rig.asker(), os.urandom(20)
    key, _ = create(asker, key_id)
    path = rig.folder(serial)
    away = os.path.join(rig.dir, "away")
    os.rename(path, away)
    rig.wait_state("tokenGone")
    refused(lambda: sign(asker, key_id, bytes(32)), "gone", "tokenGone")
    refused(lambda: create(asker, os.urandom(20)), "gone", "tokenGone")
    refused(lambda: asker.call(DESTROY, ask.blob(key_id)), "gone", "tokenGone")
    os.rename(away, path)
    rig.wait_state("ready")
    sign_ok(asker, key_id, key)
    need("hsmd.token-away" in rig.new_log(), rig.new_log())
    rig.stop()
    # Away at the start: it waits.
    os.rename(path, away)
    rig.start(rig.config(serial))
    rig.wait_state("tokenGone")
    os.rename(away, path)
    rig.wait_state("ready")
    sign_ok(rig.asker(), key_id, key)
    rig.stop()
    ok("token taken away and brought back, while it runs and while it starts")


def test_killed(rig, serial):
    """kill -9 while eight clients sign: clean errors, then service by the next process."""
    rig.start(rig.config(serial))
    key_id = os.urandom(20)
    key, _ = create(rig.asker(), key_id)
    done, signed, odd = threading.Event(), [0], []

    def client():
        while not done.is_set():
            try:
                asker = rig.asker()
                while not done.is_set():
                    digest = hashlib.sha256(os.urandom(8)).digest()
                    check(key, digest, sign(asker, key_id, digest))
                    signed[0] += 1
            except OSError:
                time.sleep(0.01)
            except ask.Refused as e: # "gone" without a reason: the connection is
                if (e.code, e.reason) != ("gone", ""):
                    odd.append(f"{e.code} {e.reason} {e}")
            except Exception as e:
                odd.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for _ in range(3):
        before = signed[0]
        wait_for(lambda: signed[0] > before + 50, "signatures")
        rig.proc.kill()
        rig.proc.wait()
        rig.start(rig.config(serial))
    before = signed[0]
    wait_for(lambda: signed[0] > before + 50, "signatures after the last kill")
    done.set()
    for t in threads:
        t.join()
    need(not odd, f"odd answers: {odd[:3]}")
    need(key_id in listed(rig.asker()), "the key is gone")
    rig.stop()
    ok(f"killed three times amid {signed[0]} signatures: none wrong, the next process goes on")


def test_strangers(rig, serial):
    if os.geteuid() != 0:
        return
    rig.start(rig.config(serial), client="daemon")
    rig.wait_state("ready")
    code = ("import socket,sys\ns=socket.socket(socket.AF_UNIX)\n"
            "try:\n s.connect(sys.argv[1]); s.sendall(bytes.fromhex('00000006000000010001'))\n"
            " got=s.recv(4)\nexcept OSError: got=b''\nsys.exit(0 if got else 5)")
    for path in [rig.run_dir, os.path.join(rig.run_dir, "hsm")]:
        os.chmod(path, 0o755)
    os.chmod(rig.sock, 0o666) # so that the user decides, not the file's mode
    for user, wanted in [("nobody", 5), ("daemon", 0)]:
        got = subprocess.run(["setpriv", "--reuid", user, "--clear-groups", sys.executable, "-c",
                              code, rig.sock])
        need(got.returncode == wanted, f"{user}: {got.returncode}")
    rig.stop()
    ok("answers the named user and hangs up on others")


def test_tpm2_pkcs11(rig):
    module = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so"
    if not os.path.exists(module) or not shutil.which("tpm2_ptool") or not shutil.which("swtpm"):
        print("skipped: no tpm2-pkcs11 or no swtpm")
        return
    state = os.path.join(rig.dir, "swtpm")
    store = os.path.join(rig.dir, "tpm2-store")
    os.mkdir(state)
    os.mkdir(store)
    sock = os.path.join(rig.dir, "tpm.sock")
    tpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server",
                            f"type=unixio,path={sock}", "--ctrl", f"type=unixio,path={sock}.ctrl",
                            "--flags", "not-need-init,startup-clear"])
    try:
        wait_for(lambda: os.path.exists(sock), "swtpm")
        env = {"TPM2_PKCS11_STORE": store, "TPM2_PKCS11_TCTI": f"swtpm:path={sock}",
               "TPM2TOOLS_TCTI": f"swtpm:path={sock}", "TCTI": f"swtpm:path={sock}",
               "TSS2_LOG": "all+NONE", "TPM2_PKCS11_LOG_LEVEL": "0"}
        # swtpm has no resource manager: what a tool leaves loaded is flushed after it.
        shims = os.path.join(rig.dir, "shims")
        os.mkdir(shims)
        for tool in ["tpm2_createprimary", "tpm2_create", "tpm2_load", "tpm2_unseal"]:
            with open(os.path.join(shims, tool), "w") as f:
                f.write(f'#!/bin/sh\n/usr/bin/{tool} "$@"\ncode=$?\n'
                        "/usr/bin/tpm2_flushcontext -t > /dev/null\nexit $code\n")
            os.chmod(os.path.join(shims, tool), 0o755)
        for words in [["init", "--path", store],
                      ["addtoken", "--pid", "1", "--label", "tpmtoken", "--sopin", SO_PIN,
                       "--userpin", PIN, "--path", store]]:
            subprocess.run(["tpm2_ptool"] + words, check=True, stdout=subprocess.DEVNULL,
                           env=dict(rig.env, **env, PATH=shims + ":" + os.environ["PATH"]))
        slots = subprocess.run(["pkcs11-tool", "--module", module, "--list-slots"], check=True,
                               env=dict(rig.env, **env), capture_output=True, text=True).stdout
        for kind in ["-t", "-l", "-s"]:
            subprocess.run(["tpm2_flushcontext", kind], env=dict(rig.env, **env), check=True)
        serial = slots.split("serial num")[1].split(":")[1].split()[0]
        rig.files = [store, sock, sock + ".ctrl"]
        config = rig.config(serial, label="tpmtoken", module=module, extra="  sessions: 1\n")
        rig.start(config, env=env)
        asker, key_id = rig.asker(), os.urandom(20)
        key, said = create(asker, key_id)
        need(MUST <= {n for n, v in said.items() if v}, f"tpm2-pkcs11's attributes: {said}")
        for _ in range(5):
            sign_ok(asker, key_id, key)
        need(listed(asker) == [key_id], "LIST")
        asker.call(DESTROY, ask.blob(key_id)).end()
        refused(lambda: sign(asker, key_id, bytes(32)), "not-found", "keyGone")
        rig.stop()
    finally:
        tpm.terminate()
        tpm.wait()
    ok("the same on tpm2-pkcs11")


def main():
    if not os.path.exists(SOFTHSM) or not shutil.which("softhsm2-util"):
        print("softhsm2 is not installed")
        sys.exit(77)
    rig = Rig()
    try:
        serial, other = rig.token("agents"), rig.token("agents")
        if "tpm" in sys.argv[1:]:
            test_tpm2_pkcs11(rig)
            return
        test_life(rig, serial)
        test_configuration(rig, serial)
        test_two_tokens(rig, serial, other)
        test_wrong_pin(rig, serial)
        test_token_away(rig, serial)
        test_killed(rig, serial)
        test_strangers(rig, serial)
        test_tpm2_pkcs11(rig)
    except BaseException:
        if os.path.exists(rig.log_path):
            print(open(rig.log_path).read()[-4000:])
        raise
    finally:
        if rig.proc and rig.proc.poll() is None:
            rig.proc.kill()
        shutil.rmtree(rig.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
