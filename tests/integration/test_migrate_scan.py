#!/usr/bin/env python3
"""attestctl migrate scan: every source holds a value of its own (a canary); all are found, and no six
characters of one are in anything that is printed, nor in the command's memory while it prints. Real
processes, another user's, hostile files, a scan by who is not root."""
import base64
import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time

CTL = os.path.join(os.environ["ATT_BIN_DIR"], "attestctl")
ROOT = os.geteuid() == 0
SYSTEM = secrets.SystemRandom()


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def ok(text):
    print("ok:", text, flush=True)


def need(condition, text):
    if not condition:
        fail(text)


# ---- canaries ----

canaries = []
WORD = string.ascii_letters + string.digits


def canary(n, alphabet=WORD):
    """n characters that look random; those six that stand together are in no text of ours."""
    while True:
        text = "".join(SYSTEM.choice(alphabet) for _ in range(n))
        if re.search("[0-9]", text) and re.search("[a-zA-Z]", text) and len(set(text)) >= min(n, 12) - 2:
            canaries.append(text)
            return text


def plain():
    """A password of letters alone, which looks like a name."""
    text = "".join(SYSTEM.choice("bdfghjklmnpqrtvwxz") for _ in range(8))
    canaries.append(text)
    return text


def has_canary(data):
    """Whether any six characters of one stand there; canaries are of letters and digits alone."""
    parts = {text[i:i + 6].encode() for text in canaries for i in range(len(text) - 5)}
    for run in re.findall(rb"[A-Za-z0-9]{6,}", data):
        for i in range(len(run) - 5):
            if run[i:i + 6] in parts:
                return next(text for text in canaries if run[i:i + 6].decode() in text)
    return None


def clean(what, *outputs):
    for data in outputs:
        found = has_canary(data)
        need(found is None, f"{what}: a part of the canary of {len(found or '')} characters is in the output")


def pem(label="PRIVATE KEY", head=""):
    lines = [canary(64) for _ in range(3)]
    return f"-----BEGIN {label}-----\n{head}" + "\n".join(lines) + f"\n-----END {label}-----\n"


# ---- a tree ----

work = tempfile.mkdtemp(prefix="att-migrate-")
os.chmod(work, 0o755)
tree = os.path.join(work, "root")
expected = {}  # (path, name) -> (kind, way, line or None)


def put(path, text, *finds):
    whole = tree + path
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    for name, kind, way, line in finds:
        expected[(whole, name)] = (kind, way, line)


def make_stores():
    """Keystores by OpenSSL and, where there is one, Java; their passwords are canaries, too."""
    def run(*args):
        subprocess.run(args, check=True, capture_output=True)
    key, cert, stores = (os.path.join(work, name) for name in ("k.pem", "c.pem", "stores"))
    os.mkdir(stores)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=" + canary(16), "-keyout", key, "-out", cert)
    shrouded, clear, certs = (os.path.join(stores, name) for name in ("a.p12", "b.p12", "c.p12"))
    run("openssl", "pkcs12", "-export", "-inkey", key, "-in", cert, "-name", canary(12), "-passout",
        "pass:" + canary(16), "-out", shrouded)
    run("openssl", "pkcs12", "-export", "-inkey", key, "-in", cert, "-keypbe", "NONE", "-certpbe", "NONE", "-nomac",
        "-passout", "pass:", "-out", clear)
    run("openssl", "pkcs12", "-export", "-nokeys", "-in", cert, "-certpbe", "NONE", "-passout", "pass:" + canary(16),
        "-out", certs)

    def bytes_of(path):
        with open(path, "rb") as file:
            return file.read()
    put("/home/bob/own.p12", bytes_of(shrouded), ("-", "keystore", "pkcs11", None))
    put("/home/bob/roots.p12", bytes_of(certs))
    put("/etc/app/server.pfx", bytes_of(clear), ("-", "private-key", "pkcs11", None))
    put("/srv/app/a\n\x1b]0;y\x07.p12", bytes_of(shrouded))
    if shutil.which("keytool"):
        java = os.path.join(stores, "k.jks")
        alias = canary(12).lower()  # as it stands in the file, in clear
        canaries.append(alias)
        run("keytool", "-genkeypair", "-keyalg", "EC", "-alias", alias, "-storetype", "JKS", "-keystore", java,
            "-storepass", canary(16), "-dname", "CN=x")
        put("/srv/app/k.jks", bytes_of(java), ("-", "keystore", "pkcs11", None))
    else:
        print("skipped: a keystore of Java's (no keytool)")
    for path in (key, cert):
        os.unlink(path)
    shutil.rmtree(stores)


def make_tree():
    put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    unit = "/etc/systemd/system/agent.service"
    put(unit,
        "[Service]\n"
        f"Environment=OPENAI_API_KEY=sk-proj-{canary(40)} \\\n  \"ANTHROPIC_API_KEY=sk-ant-api03-{canary(40)}\"\n"
        f"Environment='SLACK_BOT_TOKEN=xoxb-{canary(30)}'\n"
        f"#Environment=OLD=ghp_{canary(36)}\n"
        f"ExecStart=/usr/bin/agent --github-token=ghp_{canary(36)} --hf hf_{canary(34)}\n"
        f"ExecStartPre=/bin/sh -c \"STRIPE=sk_live_{canary(24)} true\"\n"
        f"SetCredential=maps:AIza{canary(35)}\n"
        "EnvironmentFile=-/etc/agent/%p.env\n"
        f"EnvironmentFile=/etc/agent/{canary(20)}\n"
        f"{canary(30)}\n"
        f"Environment={canary(30)}\n"
        "LoadCredential=db_password:/etc/agent/db\n",
        ("OPENAI_API_KEY", "openai-key", "exchange-openai", 2),
        ("ANTHROPIC_API_KEY", "anthropic-key", "exchange-anthropic", 2),
        ("SLACK_BOT_TOKEN", "slack-token", "none", 4),
        ("-", "github-token", "none", 5),
        ("--github-token", "github-token", "none", 6),
        ("--hf", "huggingface-token", "none", 6),
        ("STRIPE", "stripe-key", "none", 7),
        ("maps", "google-api-key", "exchange-google", 8))
    put("/etc/agent/agent.env",
        f"AWS_SECRET_ACCESS_KEY={canary(40)}\nexport ACME_API_TOKEN='{canary(32)}'\n"
        f"DATABASE_URL=postgres://app:{canary(16)}@db/app\nKEY=\"{pem()}\"\n"
        f"AZ='DefaultEndpointsProtocol=https;AccountName=a;AccountKey={canary(86)}=='\n"
        f"ADMIN_PASSWORD={canary(14)}\n{canary(40)}\n",
        ("AWS_SECRET_ACCESS_KEY", "aws-secret-access-key", "aws", 1),
        ("ACME_API_TOKEN", "secret", "depends", 2),
        ("DATABASE_URL", "database-password", "mutual-tls", 3),
        ("KEY", "private-key", "pkcs11", 4),
        ("AZ", "azure-connection-string", "exchange-entra", 10),
        ("ADMIN_PASSWORD", "password", "depends", 11))
    put("/etc/agent/db", canary(20), ("db_password", "secret", "depends", None))
    put("/etc/credstore/app.token", canary(32), ("app.token", "secret", "depends", None))
    put("/etc/environment", f"JWT=eyJ{canary(20)}.eyJ{canary(30)}.{canary(40)}\n", ("JWT", "jwt", "jwt-svid", 1))
    put("/etc/default/app", f"APP_TOKEN=\"{canary(30)}\n", ("APP_TOKEN", "secret", "depends", 1))  # a lone quote
    put("/home/bob/.aws/credentials",
        f"[default]\naws_access_key_id = AKIA{canary(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}\n"
        f"aws_secret_access_key = {canary(40)}\n",
        ("aws_access_key_id", "aws-access-key-id", "aws", 2),
        ("aws_secret_access_key", "aws-secret-access-key", "aws", 3))
    put("/home/bob/.config/gcloud/application_default_credentials.json",
        json.dumps({"type": "authorized_user", "client_secret": canary(24), "refresh_token": "1//0" + canary(60)},
                   indent=1),
        ("client_secret", "google-credential", "exchange-google", 3),
        ("refresh_token", "google-credential", "exchange-google", 4))
    put("/root/sa.json", json.dumps({"type": "service_account", "private_key": pem()}))
    put("/home/bob/.kube/config",
        f"users:\n- name: bob\n  user:\n    token: {canary(40)}\n"
        f"    client-key-data: {base64.b64encode(pem('EC PRIVATE KEY').encode()).decode()}\n",
        ("token", "kubernetes-credential", "jwt-svid-file", 4), ("client-key-data", "private-key", "pkcs11", 5))
    put("/home/bob/.netrc", f"machine a.example\nlogin bob\npassword {canary(12)}\n",
        ("password", "password", "depends", 3))
    put("/home/bob/.docker/config.json",
        json.dumps({"auths": {"r.example": {"auth": base64.b64encode(("bob:" + canary(20)).encode()).decode()}}}),
        ("auth", "registry-token", "none", 1))
    put("/home/bob/.npmrc", f"//registry.example/:_authToken=npm_{canary(36)}\n",
        ("_authToken", "registry-token", "none", 1))
    put("/home/bob/.pypirc", f"[pypi]\nusername = __token__\npassword = pypi-AgE{canary(60)}\n",
        ("password", "registry-token", "none", 3))
    put("/home/bob/.pgpass", f"db:5432:app:bob:{canary(12)}\nbroken {canary(12)}\n",
        ("password", "database-password", "mutual-tls", 1))
    put("/home/bob/.vault-token", "hvs." + canary(24) + "\n", ("vault-token", "vault-token", "jwt-svid", None))
    put("/home/bob/.git-credentials", f"https://bob:{canary(20)}@git.example\n",
        ("-", "url-password", "depends", 1))
    put("/home/bob/.ssh/id_rsa", pem("RSA PRIVATE KEY"), ("-", "private-key", "pkcs11", 1))
    put("/home/bob/.ssh/id_locked", pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"))
    put("/home/bob/.codex/auth.json", "{\"OPENAI_API_KEY\": \"" + canary(40),  # broken JSON
        )
    put("/home/bob/.config/systemd/user/u.service", f"[Service]\nEnvironment=U_TOKEN={canary(30)}\n",
        ("U_TOKEN", "secret", "depends", 2))
    put("/etc/pip.conf", f"[global]\nextra-index-url =\n  https://bob:{canary(20)}@pip.example/simple\n",
        ("-", "url-password", "depends", 3))
    put("/etc/cron.d/fetch", f"5 * * * * root curl -s 'https://bob:{canary(20)}@cron.example/?a=b'\n",
        ("-", "url-password", "depends", 1))
    put("/home/bob/.composer/auth.json", "{\"k\": \"https:\\/\\/bob:" + canary(20) + "@git.example\\/x\"}",
        ("k", "url-password", "depends", 1))
    put("/home/bob/.bash_history",
        f"ls -l\nexport OPENAI_API_KEY=sk-proj-{canary(40)}\nmysql -p{plain()} db\n"
        f"curl -H 'Authorization: Bearer ghp_{canary(36)}' https://api.example\n"
        f"curl https://bob:{canary(20)}@git.example/x\n#1700000000\n",
        ("OPENAI_API_KEY", "openai-key", "exchange-openai", 2), ("Authorization", "github-token", "none", 4),
        ("-", "url-password", "depends", 5))
    put("/home/bob/.zsh_history", f": 1700000000:0;docker login --password {canary(24)} r.example\n",
        ("--password", "password", "depends", 1))
    put("/home/bob/.local/share/fish/fish_history", f"- cmd: set -x HF hf_{canary(34)}\n  when: 1700000000\n",
        ("-", "huggingface-token", "none", 1))
    put("/home/bob/tls.pem", pem(), ("-", "private-key", "pkcs11", 1))
    make_stores()
    put("/srv/app/.env", f"STRIPE_KEY=rk_live_{canary(24)}\n", ("STRIPE_KEY", "stripe-key", "none", 1))
    put("/srv/app/bin.env", b"\0\1\2" + canary(30).encode())
    put("/srv/app/a\n\x1b]0;x\x07.env", f"N_TOKEN={canary(30)}\n")
    os.mkfifo(tree + "/srv/app/fifo.env")


def ctl(*args, wants=0, **kw):
    done = subprocess.run([CTL, "migrate", "scan", *args], capture_output=True, timeout=120, **kw)
    need(done.returncode == wants, f"{args}: exit {done.returncode}, expected {wants}: {done.stderr.decode()[:300]}")
    return done


def test_tree():
    make_tree()
    expected.update({(tree + "/srv/app/a\\x0a\\x1b]0;x\\x07.env", "N_TOKEN"): ("secret", "depends", 1),
                     (tree + "/srv/app/a\\x0a\\x1b]0;y\\x07.p12", "-"): ("keystore", "pkcs11", None)})
    done = ctl("--root", tree, "--json", "/srv/app")
    clean("--json", done.stdout, done.stderr)
    need(b"\x1b" not in done.stdout, "an escape character is in the JSON")
    got = json.loads(done.stdout)
    found = {(f["path"], f["name"]): f for f in got["findings"]}
    for key, (kind, way, line) in expected.items():
        need(key in found, f"{key} was not found; there are {sorted(found)}")
        f = found[key]
        need((f["kind"], f["way"]) == (kind, way) and (line is None or f.get("line") == line),
             f"{key}: {f}, expected {kind}, {way}, line {line}")
        need(f["replacedBy"], f"{key} has no sentence")
    need(set(found) <= set(expected), f"found, too: {set(found) - set(expected)}")
    need(found[(tree + "/etc/agent/agent.env", "ACME_API_TOKEN")]["unit"] == "agent.service", "no unit")
    need(found[(tree + "/home/bob/.config/systemd/user/u.service", "U_TOKEN")]["unit"] == "u.service", "no unit")
    reasons = {s["reason"]: s for s in got["skipped"]}
    need(reasons["notRegular"]["count"] == 1 and reasons["binary"]["count"] == 1, f"{reasons}")
    need([e.get("line") for e in reasons["line"]["examples"]] and reasons["absent"]["examples"][0]["line"] == 10,
         f"{reasons}")
    need(not got["complete"], "complete, though files were skipped")
    ok(f"{len(expected)} canaries found by path, line and name; none of them printed (--json)")

    done = ctl("--root", tree, "/srv/app")
    clean("text", done.stdout, done.stderr)
    need(b"\x1b" not in done.stdout and b"a\\x0a\\x1b]0;x" in done.stdout, "a name steers the terminal")
    need(b"exchange-openai: attestctl token NAME --exchange" in done.stdout, "no legend")
    need(b"none: nothing here replaces it yet" in done.stdout, "it is not said where nothing replaces a key")
    need(b"agent.service:2 (Environment), unit agent.service" in done.stdout, done.stdout.decode()[:600])
    need(b"not everything was looked at" in done.stdout, "skipped files are not said")
    ok("the same as text; names with control characters are escaped")

    for args in (["--min-confidence", "high"], ["--user", "bob"], ["--no-units"], ["--no-files", "/srv/app"]):
        done = ctl("--root", tree, "--json", *args)
        clean(str(args), done.stdout, done.stderr)
    done = ctl("--root", tree, "--no-files", "--json", "--min-confidence", "high")
    need({f["confidence"] for f in json.loads(done.stdout)["findings"]} == {"high"}, "--min-confidence")
    ctl("--root", tree, "--fail", wants=1)
    ok("--min-confidence, --user, --no-units, --no-files, --fail (exit 1)")


def test_slow_home():
    """A home whose files take ten seconds each is left after a minute; another user's is looked at."""
    compiled = os.path.join(work, "slowhome.so")
    source = os.path.join(os.environ["ATT_SOURCE_DIR"], "tests/support/preload/slowhome.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", compiled, source], check=True)
    linked = subprocess.run(["ldd", CTL], capture_output=True, text=True).stdout
    asan = re.search(r"(/\S*libasan\S*)", linked)
    image = os.path.join(work, "slow")
    names = [f"key{i:02}" for i in range(30)]
    for user in ("bob", "carol"):
        os.makedirs(f"{image}/home/{user}/.ssh")
        for name in names:
            with open(f"{image}/home/{user}/.ssh/{name}", "w") as file:
                file.write(pem())
    env = {**os.environ, "ATT_TEST_SLOW_HOME": f"{image}/home/bob/", "ATT_TEST_SLOW_S": "10",
           "LD_PRELOAD": " ".join(filter(None, [asan and asan[1], compiled]))}
    done = ctl("--root", image, "--json", env=env)
    clean("slow home", done.stdout, done.stderr)
    got = json.loads(done.stdout)

    def of(user):
        return len([f for f in got["findings"] if f"/home/{user}/" in f["path"]])
    left = next((s for s in got["skipped"] if s["reason"] == "many"), None)
    need(6 <= of("bob") <= 8, f"{of('bob')} files of a home of ten seconds a file")
    need(of("carol") == len(names), f"{of('carol')} files of the other home")
    need(left and left["count"] >= len(names) - of("bob") and not got["complete"], f"{left}")
    ok(f"a home whose files take ten seconds each is left after a minute ({of('bob')} files), another's is looked at")


def test_usage():
    for args, status, words in ((["--min-confidence", "all"], 2, "expected low, medium or high"),
                                (["--user", "bob,,eve"], 2, "expected NAME"),
                                (["--user", "nobody-at-all"], 1, "has no home"),
                                (["--root", work + "/none"], 1, "--root: No such file"),
                                (["/no/such\x1bplace"], 1, "/no/such\\x1bplace: no such file or folder"),
                                (["--root"], 2, "expected a value"),
                                (["--frob"], 2, "unexpected argument")):
        done = ctl(*args, wants=status)
        need(words in done.stderr.decode() and not done.stdout, f"{args}: {done.stderr}")
        need(b"\x1b" not in done.stderr or args == ["--frob"], f"{args}: an escape character")
        clean(str(args), done.stderr)
    empty = os.path.join(work, "empty")
    os.mkdir(empty)
    done = ctl("--root", empty, "--fail")
    need(done.stdout.startswith(b"0 findings"), done.stdout)
    done = subprocess.run(f"'{CTL}' migrate scan --root '{tree}' > /dev/full", shell=True, capture_output=True)
    need(done.returncode == 1 and b"standard output" in done.stderr, "output that is lost is no success")
    ok("wrong input: exit 2, what is not there: exit 1, nothing found with --fail: exit 0, a full disk: exit 1")


# ---- the command's memory ----

def memory(pid):
    """Each writable mapping that can be read."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, perms = line.split()[:2]
            low, high = (int(x, 16) for x in span.split("-"))
            if perms[:2] != "rw" or high - low > 1 << 30:
                continue
            for at in range(low, high, 1 << 20):
                try:
                    mem.seek(at)
                    yield mem.read(min(1 << 20, high - at) if at + (1 << 20) >= high else (1 << 20) + 5)
                except (OSError, ValueError, OverflowError):
                    pass


def test_memory(*args):
    """Stopped in the middle of its output: the pipe is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"-" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    ctl_process = subprocess.Popen([CTL, "migrate", "scan", "--json", *args], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    end = time.monotonic() + 60
    while True:
        with open(f"/proc/{ctl_process.pid}/wchan") as wchan:
            if "pipe" in wchan.read():
                break
        need(time.monotonic() < end and ctl_process.poll() is None, "it does not wait for its reader")
        time.sleep(0.02)
    size, dump, parts = 0, os.path.join(work, "dump"), os.path.join(work, "parts")
    with open(dump, "wb") as file:
        for block in memory(ctl_process.pid):
            size += len(block)
            if block.count(0) < len(block):
                file.write(block)
    with open(f"/proc/{ctl_process.pid}/limits") as limits:
        need(re.search(r"Max core file size +0 +0", limits.read()), "it may leave a core file")
    ctl_process.send_signal(signal.SIGKILL)
    os.close(reader)
    ctl_process.wait()
    ctl_process.stderr.close()
    with open(parts, "w") as file:
        file.writelines(text[i:i + 6] + "\n" for text in canaries for i in range(len(text) - 5))

    def search(*how):
        return subprocess.run(["grep", "-aoF", "-m1", *how, dump], env={**os.environ, "LC_ALL": "C"},
                              capture_output=True, text=True, errors="replace").stdout.split("\n")[0]
    need(search("-e", "replacedBy"), "this test reads no memory of it")
    found = search("-f", parts)
    found = next((text for text in canaries if found and found in text), None)
    os.unlink(dump)
    os.unlink(parts)
    need(not found, f"a part of canary {canaries.index(found) if found else 0} is in the memory of the command that prints")
    ok(f"no part of a canary in {size >> 20} MiB of memory while it prints {' '.join(args[-1:])}; no core file")


def test_fuse():
    """A mount of a user's whose file system never answers."""
    libc = ctypes.CDLL(None, use_errno=True)
    at = tree + "/home/bob/.azure"
    os.makedirs(at, exist_ok=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        print("skipped: a file system that does not answer needs /dev/fuse")
        return
    options = f"fd={fd},rootmode=40000,user_id=65534,group_id=65534,allow_other".encode()
    try:
        if libc.mount(b"none", at.encode(), b"fuse", 0, options) != 0:
            print("skipped: a file system that does not answer needs the right to mount")
            return
        try:
            done = ctl("--root", tree, "--json")
            clean("fuse", done.stdout, done.stderr)
            other = next((s for s in json.loads(done.stdout)["skipped"] if s["reason"] == "otherFileSystem"), None)
            need(other and any(e["path"].startswith(at) for e in other["examples"]), f"{other}")
            ok("a file system that does not answer is not asked")
        finally:
            libc.umount2(at.encode(), 2)  # MNT_DETACH
    finally:
        os.close(fd)


# ---- processes ----

def start(env, args=(), uid=None):
    def become():
        if uid is not None:
            os.setgid(uid)
            os.setuid(uid)
    process = subprocess.Popen(["/bin/sleep", "300", *args] if not args else ["/bin/sh", "-c", "sleep 300; true", *args],
                               env={"PATH": "/usr/bin:/bin", **env}, preexec_fn=become, start_new_session=True)
    return process


def test_processes():
    mine = start({"MY_API_TOKEN": canary(32), "OPENAI_API_KEY": "sk-proj-" + canary(40), "LANG": "C"})
    twins = [start({"TWIN_SECRET": canary(32)}) for _ in range(3)]
    argued = start({}, ("x", "--api-key", canary(32), f"--token=ghp_{canary(36)}",
                        # a word as a password, joined to its option, with a key behind it
                        "-p" + plain(), f"https://u:{canary(20)}@h.example"))
    other = start({"OTHER_TOKEN": canary(32)}, uid=65534) if ROOT else None
    all_of = [mine, *twins, argued] + ([other] if other else [])
    try:
        time.sleep(0.3)
        done = ctl("--no-units", "--no-files", "--json")
        clean("processes", done.stdout, done.stderr)
        got = json.loads(done.stdout)["findings"]
        by = {(f.get("pid"), f["name"]): f for f in got}
        f = by.get((mine.pid, "OPENAI_API_KEY"))
        need(f and f["kind"] == "openai-key" and f["source"] == "process-environment" and f["uid"] == os.geteuid()
             and f["executable"].endswith("/sleep"), f"{f}")
        need((mine.pid, "MY_API_TOKEN") in by and (mine.pid, "LANG") not in by, f"{sorted(map(str, by))}")
        need(by[(argued.pid, "--api-key")]["source"] == "process-arguments", "arguments")
        need(by[(argued.pid, "--token")]["kind"] == "github-token", "arguments")
        need(by[(argued.pid, "(withheld)")]["kind"] == "url-password", "an option that its value is joined to")
        same = [f for f in got if f["name"] == "TWIN_SECRET"]
        need(len(same) == 1 and same[0]["moreProcesses"] == 2, f"{same}")
        ok("own processes: names, executable, user; arguments; three of the same are told once")
        if ROOT:
            need(by[(other.pid, "OTHER_TOKEN")]["uid"] == 65534, "another user's process")
            need(ctl("--no-units", "--no-files").stdout.count(b"OTHER_TOKEN") == 1, "text")
            ok("another user's process, as root")
            test_memory("--no-units", "--no-files")
        as_nobody(mine, other)
        slow(mine, other)
    finally:
        for process in all_of:
            os.killpg(process.pid, signal.SIGKILL)  # the shell's sleep, too, which would hold the test's output
            process.wait()


def as_nobody(mine, other):
    if not ROOT:
        print("skipped: the scan by another user needs root")
        return

    def become():
        os.setgid(65534)
        os.setuid(65534)
    reachable = shutil.copy(CTL, work)  # the build's folder may be closed to him
    env = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "ASAN", "UBSAN", "LSAN"))}
    env["LSAN_OPTIONS"] = ""
    done = subprocess.run([reachable, "migrate", "scan", "--no-units", "--json", tree + "/srv/app"], env=env,
                          capture_output=True, preexec_fn=become, timeout=120, cwd="/")
    need(done.returncode == 0, f"as nobody: {done.returncode} {done.stderr.decode()[:300]}")
    clean("as nobody", done.stdout, done.stderr)
    got = json.loads(done.stdout)
    by = {(f.get("pid"), f["name"]) for f in got["findings"]}
    need((other.pid, "OTHER_TOKEN") in by and (mine.pid, "MY_API_TOKEN") not in by, f"{by}")
    denied = next(s for s in got["skipped"] if s["reason"] == "notPermitted")
    need(denied["count"] > 0 and any(re.match("/proc/[0-9]+/environ", e["path"]) for e in denied["examples"]), f"{denied}")
    need(not got["complete"], "complete, though processes could not be read")
    done = subprocess.run([reachable, "migrate", "scan", "--no-units", "--no-files", "--fail", "--min-confidence", "high"],
                          env=env, capture_output=True, preexec_fn=become, timeout=120, cwd="/")
    need(done.returncode == 1 and b"not permitted to read" in done.stdout, "--fail with something not looked at")
    ok("as nobody: his own, and what he could not read is said; --fail is not content with that")


def slow(mine, other):
    """A process whose memory does not answer."""
    compiled = os.path.join(work, "slow.so")
    source = os.path.join(os.environ["ATT_SOURCE_DIR"], "tests/support/preload/slow.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", compiled, source], check=True)
    linked = subprocess.run(["ldd", CTL], capture_output=True, text=True).stdout
    asan = re.search(r"(/\S*libasan\S*)", linked)
    env = {**os.environ, "ATT_TEST_SLOW": str(mine.pid),
           "LD_PRELOAD": " ".join(filter(None, [asan and asan[1], compiled]))}
    begin = time.monotonic()
    done = ctl("--no-units", "--no-files", "--json", env=env)
    took = time.monotonic() - begin
    clean("slow", done.stdout, done.stderr)
    got = json.loads(done.stdout)
    skipped = next((s for s in got["skipped"] if s["reason"] == "slow"), None)
    need(skipped and skipped["examples"][0]["path"] == f"/proc/{mine.pid}/environ" and not got["complete"], f"{skipped}")
    need(any(f["name"] == "TWIN_SECRET" for f in got["findings"]), "the others are not looked at any more")
    need(took < 30, f"it took {took:.0f} s")
    ok(f"a process whose memory does not answer is left after 2 s, and said ({took:.1f} s in all)")
    if ROOT:
        slow_user(env)


def slow_user(env):
    """Many such processes of one user hide nothing of another's."""
    def start(uid, name):
        return subprocess.Popen(["/bin/sleep", "300"], env={name: canary(32)}, user=uid, group=uid)
    many = [start(65533, "HOSTILE_TOKEN") for _ in range(12)]
    victim = start(65532, "VICTIM_TOKEN")
    try:
        time.sleep(0.3)
        slow_ones = ",".join(str(p.pid) for p in many)
        done = ctl("--no-units", "--no-files", "--json", env={**env, "ATT_TEST_SLOW": slow_ones})
        clean("slow user", done.stdout, done.stderr)
        got = json.loads(done.stdout)
        need(any(f["name"] == "VICTIM_TOKEN" and f["uid"] == 65532 for f in got["findings"]), "the other user's process")
        need(any(f["name"] == "TWIN_SECRET" for f in got["findings"]), "root's processes")
        skipped = next(s for s in got["skipped"] if s["reason"] == "slow")
        need(skipped["count"] >= 12, f"{skipped}")
        ok("a user whose processes do not answer hides his own alone")
    finally:
        for process in [*many, victim]:
            process.kill()
            process.wait()


try:
    test_tree()
    if ROOT:
        test_fuse()
    else:
        print("skipped: a file system that does not answer needs root")
    test_slow_home()
    test_usage()
    if ROOT:
        test_memory("--root", tree, "/srv/app")
    else:
        print("skipped: the memory of the command needs root")
    test_processes()
finally:
    shutil.rmtree(work)
