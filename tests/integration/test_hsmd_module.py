#!/usr/bin/env python3
"""attestd-hsmd with a module that misbehaves (tests/support/hsm/module.c): each of the errors by its
name, what one retry mends, a PIN's last try, calls that do not come back, and a module that ends the
process."""
import hashlib
import os
import shutil
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_hsmd as base  # noqa: E402
from test_hsmd import BIN, CREATE, DESTROY, PIN, SOFTHSM, Rig, ask, create, info, listed, need, ok, \
    refused, sign, sign_ok, wait_for  # noqa: E402

MODULE = os.path.join(os.path.dirname(BIN), "tests-bin", "bad-hsm.so")
CKR = {"CKR_SESSION_HANDLE_INVALID": 0xb3, "CKR_SESSION_CLOSED": 0xb0, "CKR_DEVICE_ERROR": 0x30,
       "CKR_DEVICE_REMOVED": 0x32, "CKR_TOKEN_NOT_PRESENT": 0xe0, "CKR_GENERAL_ERROR": 0x5,
       "CKR_CRYPTOKI_NOT_INITIALIZED": 0x190, "CKR_USER_NOT_LOGGED_IN": 0x101,
       "CKR_OBJECT_HANDLE_INVALID": 0x82, "CKR_KEY_HANDLE_INVALID": 0x60, "CKR_DEVICE_MEMORY": 0x31,
       "CKR_TOKEN_WRITE_PROTECTED": 0xe2, "CKR_MECHANISM_INVALID": 0x70, "CKR_PIN_LOCKED": 0xa4,
       "CKR_PIN_EXPIRED": 0xa3, "CKR_SESSION_COUNT": 0xb1, "CKR_HOST_MEMORY": 0x2}
COUNT_LOW, FINAL_TRY, LOCKED = 0x10000, 0x20000, 0x40000
STUCK_S = 60 # HSMD_STUCK_MS


class BadRig(Rig):
    def __init__(self):
        super().__init__()
        # Beside what it may reach: a folder of its own.
        self.bad = os.path.join(self.dir, "bad")
        os.mkdir(self.bad)
        self.module = os.path.join(self.bad, "bad-hsm.so")
        shutil.copy(MODULE, self.module)
        self.control = os.path.join(self.bad, "control")
        self.logins_path = os.path.join(self.bad, "logins")
        self.env["ATT_TEST_HSM"] = self.control
        self.files = [self.bad]
        self.tell()

    def tell(self, *lines):
        with open(self.control + ".new", "w") as f:
            f.write("".join(line + "\n" for line in (f"count {self.logins_path}",) + lines))
        os.rename(self.control + ".new", self.control)

    def logins(self):
        try:
            with open(self.logins_path) as f:
                return len(f.readlines())
        except FileNotFoundError:
            return 0

    def start_bad(self, serial, wait=True):
        self.start(self.config(serial, module=self.module), wait=wait)


def test_errors_by_name(rig, serial):
    """Each word of the module, for ever: one retry, then it is said by its name."""
    rig.start_bad(serial)
    asker, key_id = rig.asker(), os.urandom(20)
    key, _ = create(asker, key_id)
    cases = [(name, "C_Sign", "gone", "tokenGone", True) for name in
             ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED",
              "CKR_TOKEN_NOT_PRESENT", "CKR_GENERAL_ERROR", "CKR_CRYPTOKI_NOT_INITIALIZED"]]
    cases += [("CKR_USER_NOT_LOGGED_IN", "C_SignInit", "gone", "loginLost", True),
              ("CKR_KEY_HANDLE_INVALID", "C_SignInit", "not-found", "keyGone", True),
              ("CKR_OBJECT_HANDLE_INVALID", "C_SignInit", "not-found", "keyGone", True),
              ("CKR_MECHANISM_INVALID", "C_SignInit", "unsupported", "moduleLacks", False),
              ("CKR_DEVICE_MEMORY", "C_Sign", "limit", "tokenFull", False),
              ("CKR_HOST_MEMORY", "C_Sign", "no-memory", "", False)]
    for name, function, code, reason, again in cases:
        before = info(asker)["connections"]
        rig.tell(f"{function} rv {CKR[name]:#x}")
        message = refused(lambda: sign(asker, key_id, bytes(32)), code, reason)
        need(name in message and function in message, f"{name}: {message}")
        rig.tell()
        wait_for(lambda: info(asker)["state"] == "ready", f"ready after {name}")
        sign_ok(asker, key_id, key)
        grown = info(asker)["connections"] - before
        need((grown >= 1) == again, f"{name}: {grown} connections more")
    for name, reason, code in [("CKR_DEVICE_MEMORY", "tokenFull", "limit"),
                               ("CKR_TOKEN_WRITE_PROTECTED", "tokenReadOnly", "denied"),
                               ("CKR_DEVICE_REMOVED", "tokenGone", "gone"),
                               ("CKR_MECHANISM_INVALID", "moduleLacks", "unsupported")]:
        rig.tell(f"C_GenerateKeyPair rv {CKR[name]:#x}")
        message = refused(lambda: create(asker, os.urandom(20)), code, reason)
        need(name in message, message)
    rig.tell("spoil YES")
    message = refused(lambda: create(asker, os.urandom(20)), "unsupported", "keySignature")
    need("does not verify" in message, message)
    rig.tell()
    rig.wait_state("ready")
    need(listed(asker) == [key_id], f"keys: {len(listed(asker))}")  # none of a refused making is left
    asker.call(DESTROY, ask.blob(key_id)).end()
    rig.stop()
    ok("every error of the module is said by its name; what can be made anew is, once")


def test_mended_within_the_call(rig, serial):
    """Said once: the caller does not notice."""
    rig.start_bad(serial)
    asker, key_id = rig.asker(), os.urandom(20)
    key, _ = create(asker, key_id)
    for name in ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_SESSION_HANDLE_INVALID", "CKR_USER_NOT_LOGGED_IN",
                 "CKR_KEY_HANDLE_INVALID"]:
        for function in ["C_SignInit", "C_Sign"]:
            rig.tell(f"{function} rv {CKR[name]:#x} 1")
            sign_ok(asker, key_id, key)
    # The pair is there, and the module says that it failed: not left, not twice.
    for name in ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_GENERAL_ERROR", "CKR_SESSION_CLOSED"]:
        other = os.urandom(20)
        rig.tell(f"C_GenerateKeyPair after {CKR[name]:#x} 1")
        made, _ = create(asker, other)
        rig.tell()
        sign_ok(asker, other, made) # "keyTwice" if it were
        asker.call(DESTROY, ask.blob(other)).end()
    # It failed for good behind a pair that is there: DESTROY takes both, of however many there are.
    other = os.urandom(20)
    rig.tell(f"C_GenerateKeyPair after {CKR['CKR_DEVICE_ERROR']:#x}", )
    refused(lambda: create(asker, other), "gone", "tokenGone")
    rig.tell()
    rig.wait_state("ready")
    need(other in listed(asker), "the module did not make it")
    refused(lambda: create(asker, other), "exists", "")
    asker.call(DESTROY, ask.blob(other)).end()
    need(listed(asker) == [key_id], "left over")
    # C_DestroyObject that fails, and one that does not destroy what it says.
    rig.tell(f"C_DestroyObject rv {CKR['CKR_TOKEN_WRITE_PROTECTED']:#x}")
    refused(lambda: asker.call(DESTROY, ask.blob(key_id)), "denied", "tokenReadOnly")
    rig.tell(f"C_DestroyObject rv {CKR['CKR_DEVICE_ERROR']:#x} 1")
    asker.call(DESTROY, ask.blob(key_id)).end()
    need(listed(asker) == [], "left over")
    rig.tell()
    rig.stop()
    ok("an error that comes once is mended within the call; no key is left, none is there twice")


def test_pin_flags(rig, serial):
    for flags, word, state in [(FINAL_TRY, "finalTry", "failed"), (LOCKED, "locked", "failed"),
                               (LOCKED | FINAL_TRY | COUNT_LOW, "locked", "failed")]:
        before = rig.logins()
        rig.tell(f"flags {flags:#x}")
        rig.start_bad(serial)
        rig.wait_state(state)
        for _ in range(5):
            refused(lambda: sign(rig.asker(), bytes(20), bytes(32)), "lockout", "pinLocked")
        told = info(rig.asker())
        need(told["pin"] == word and told["word"] == "pinLocked", f"{told}")
        need(rig.logins() == before, f"{word}: {rig.logins() - before} logins")
        need("pinLocked" in rig.new_log() and f"hsmd.pin-warning" in rig.new_log(), rig.new_log())
        # The security officer has set it: no restart is needed.
        rig.tell()
        rig.wait_state("ready")
        need(rig.logins() == before + 1, "one login")
        wait_for(lambda: info(rig.asker())["pin"] == "ok", "pin ok")
        rig.stop()
    # One wrong one was given by somebody: ours is right, and is tried; it is said.
    rig.tell(f"flags {COUNT_LOW:#x}")
    rig.start_bad(serial)
    rig.wait_state("ready")
    need(info(rig.asker())["pin"] == "countLow", f"{info(rig.asker())}")
    need("countLow" in rig.new_log(), rig.new_log())
    # Others use the tries up while we are logged in: it goes on, and no login follows a loss.
    key_id = os.urandom(20)
    key, _ = create(rig.asker(), key_id)
    rig.tell(f"flags {FINAL_TRY:#x}")
    wait_for(lambda: info(rig.asker())["pin"] == "finalTry", "finalTry")
    before = rig.logins()
    sign_ok(rig.asker(), key_id, key)
    rig.tell(f"flags {FINAL_TRY:#x}", f"C_Sign rv {CKR['CKR_USER_NOT_LOGGED_IN']:#x} 1")
    refused(lambda: sign(rig.asker(), key_id, bytes(32)), "lockout", "pinLocked")
    need(rig.logins() == before, "the last try was spent")
    rig.tell()
    wait_for(lambda: answered(lambda: sign_ok(rig.asker(), key_id, key)), "signatures")
    need(rig.logins() == before + 1, "one login")
    rig.asker().call(DESTROY, ask.blob(key_id)).end()
    rig.stop()
    # What C_Login itself answers: once.
    for name, code, reason in [("CKR_PIN_LOCKED", "lockout", "pinLocked"), ("CKR_PIN_EXPIRED", "auth", "pinRefused")]:
        mark = os.path.join(rig.run_dir, "hsm", "default", "pin-refused")
        before = rig.logins()
        rig.tell(f"C_Login rv {CKR[name]:#x}")
        rig.start_bad(serial)
        for _ in range(5):
            message = refused(lambda: sign(rig.asker(), bytes(20), bytes(32)), code, reason)
            need(name in message and PIN not in message, message)
        rig.wait_state("failed")
        need(rig.logins() == before + 1 and os.path.exists(mark), f"{name}: {rig.logins() - before} logins")
        rig.stop()
        os.unlink(mark)
    rig.tell()
    ok("a PIN that is locked or has one try left is not tried; what the token says of it is told")


def answered(call):
    try:
        call()
    except ask.Refused:
        return False
    return True


def hanging(rig, lines, calls):
    """The answers of calls, each in a thread of its own, while the module does as lines say."""
    answers = []

    def one(call):
        try:
            asker = rig.asker()
            asker.sock.settimeout(90)
            call(asker)
            answers.append(("ok", ""))
        except ask.Refused as e:
            answers.append((e.code, e.reason))
        except OSError as e:
            answers.append(("connection", str(e)))

    rig.tell(*lines)
    threads = [threading.Thread(target=one, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    return threads, answers


def test_hangs_and_comes_back(rig, serial):
    rig.start_bad(serial)
    key_id, other = os.urandom(20), os.urandom(20)
    key, _ = create(rig.asker(), key_id)
    threads, answers = hanging(rig, ["C_Sign hang"], [lambda a: sign(a, key_id, bytes(32))])
    asker = rig.asker()
    wait_for(lambda: info(asker)["silentMs"] > 0, "silentMs")
    # The looking goes on in another session: it is that call which hangs, not the module.
    time.sleep(6)
    need(info(asker)["state"] == "ready" and info(asker)["silentMs"] < 6000, f"{info(asker)}")
    rig.tell()
    threads[0].join(30)
    need(answers == [("ok", "")], f"{answers}")
    # All of it hangs.
    threads, answers = hanging(rig, ["C_Sign hang", "C_GetTokenInfo hang"], [lambda a: sign(a, key_id, bytes(32))])
    wait_for(lambda: info(asker)["silentMs"] > 7000, "silentMs")
    rig.tell()
    threads[0].join(30)
    need(answers == [("ok", "")], f"{answers}")
    wait_for(lambda: info(asker)["silentMs"] == 0, "silence ends")
    # A key that is being made, and is to be destroyed: not "absent".
    threads, answers = hanging(rig, ["C_GenerateKeyPair hang"], [lambda a: create(a, other)])
    wait_for(lambda: info(asker)["silentMs"] > 0, "silentMs")
    refused(lambda: asker.call(DESTROY, ask.blob(other)), "retry", "keyMaking")
    refused(lambda: asker.call(CREATE, ask.blob(other) + ask.blob(b"ec-p256")), "exists", "")
    sign_ok(asker, key_id, key)
    rig.tell()
    threads[0].join(30)
    need(answers == [("ok", "")] and other in listed(asker), f"{answers}")
    asker.call(DESTROY, ask.blob(other)).end()
    # Every session hangs: who comes then is told so in time.
    threads, answers = hanging(rig, ["C_Sign hang"], [lambda a: sign(a, key_id, bytes(32))] * 9)
    for thread in threads:
        thread.join(0.01)
    wait_for(lambda: len(answers) == 9 - 4, "tokenBusy for all but hsm.sessions", 60)
    need(set(answers) == {("timeout", "tokenBusy")}, f"{answers}")
    rig.tell()
    for thread in threads:
        thread.join(30)
    need(answers.count(("ok", "")) == 4, f"{answers}") # hsm.sessions
    asker.call(DESTROY, ask.blob(key_id)).end()
    rig.stop()
    ok("calls that hang: others go on, INFO tells for how long; all work when the module comes back")


def test_hangs_for_good(rig, serial):
    """After a minute the process ends itself, in whichever call it is. Several processes side by side."""
    rigs = []
    for function in ["C_Initialize", "C_GetTokenInfo", "C_Login", "C_Sign"]:
        one = BadRig()
        rigs.append((function, one))
        number = one.token("agents")
        one.key_id = os.urandom(20)
        if function == "C_Sign":
            one.start_bad(number)
            create(one.asker(), one.key_id)
        one.tell(f"{function} hang")
        if function == "C_Sign":
            threading.Thread(target=lambda o=one: hanging(o, ["C_Sign hang"], [
                lambda a: sign(a, o.key_id, bytes(32))])).start()
        else:
            one.start_bad(number, wait=False)
        one.began = time.monotonic()
    try:
        for function, one in rigs:
            code = one.proc.wait(STUCK_S + 30)
            need(code == 1 and "hsmd.stuck" in one.new_log(), f"{function}: {code}\n{one.new_log()}")
            need(time.monotonic() - one.began > STUCK_S - 5, f"{function}: too early")
    finally:
        for _, one in rigs:
            if one.proc.poll() is None:
                one.proc.kill()
            shutil.rmtree(one.dir, ignore_errors=True)
    ok("a module that hangs in C_Initialize, C_GetTokenInfo, C_Login or C_Sign is ended after a minute")


def test_dies(rig, serial):
    """The module takes the process with it: in the making of a key, and in a signature."""
    key_id, other = os.urandom(20), os.urandom(20)
    rig.start_bad(serial)
    key, _ = create(rig.asker(), key_id)
    for line, call in [("C_Sign die", lambda a: sign(a, key_id, bytes(32))),
                       ("C_GenerateKeyPair die", lambda a: create(a, other)),
                       ("C_DestroyObject die", lambda a: a.call(DESTROY, ask.blob(key_id)))]:
        rig.tell(line)
        try:
            call(rig.asker())
            base.fail("an answer of a dead process")
        except (OSError, EOFError):
            pass
        except ask.Refused as e:
            need((e.code, e.reason) == ("gone", ""), f"{e}")
        need(rig.proc.wait(30) == -signal.SIGKILL, f"{rig.proc.returncode}")
        rig.tell()
        rig.start_bad(serial)
        sign_ok(rig.asker(), key_id, key)
    asker = rig.asker()
    asker.call(DESTROY, ask.blob(key_id)).end()
    asker.call(DESTROY, ask.blob(other)).end()
    need(listed(asker) == [], "left over")
    rig.stop()
    ok("a module that ends the process: the next one goes on")


def test_removed_amid_signatures(rig, serial):
    rig.start_bad(serial)
    key_id = os.urandom(20)
    key, _ = create(rig.asker(), key_id)
    done, signed, gone, hidden, odd = threading.Event(), [0], [0], [0], []

    def client():
        asker = rig.asker()
        while not done.is_set():
            digest = hashlib.sha256(os.urandom(8)).digest()
            try:
                base.check(key, digest, sign(asker, key_id, digest))
                signed[0] += 1
            except ask.Refused as e:
                if (e.code, e.reason) == ("gone", "tokenGone"):
                    gone[0] += 1
                    time.sleep(0.01)
                elif (e.code, e.reason) == ("not-found", "keyGone"):
                    # A folder that goes beneath a session that just logged in: SoftHSM says that it is
                    # still logged in, and shows nothing. A token that is pulled out says so.
                    hidden[0] += 1
                    time.sleep(0.01)
                else:
                    odd.append(f"{e.code} {e.reason} {e.message}")
            except Exception as e:
                odd.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(6)]
    for t in threads:
        t.start()
    path, away = rig.folder(serial), os.path.join(rig.dir, "away")
    for _ in range(3):
        before, was_gone = signed[0], gone[0]
        wait_for(lambda: signed[0] > before + 50, "signatures")
        rig.tell(f"C_Sign rv {CKR['CKR_DEVICE_REMOVED']:#x}")
        os.rename(path, away)
        wait_for(lambda: gone[0] > was_gone + 10, "refusals")
        os.rename(away, path)
        rig.tell()
    before = signed[0]
    wait_for(lambda: signed[0] > before + 50, "signatures after the last return")
    done.set()
    for t in threads:
        t.join()
    need(not odd, f"odd answers: {odd[:3]}")
    rig.asker().call(DESTROY, ask.blob(key_id)).end()
    rig.stop()
    ok(f"removed three times amid {signed[0]} signatures: {gone[0]} times tokenGone, {hidden[0]} times keyGone, nothing else")


def main():
    if not os.path.exists(SOFTHSM) or not shutil.which("softhsm2-util"):
        print("softhsm2 is not installed")
        sys.exit(77)
    rig = BadRig()
    tests = [test_errors_by_name, test_mended_within_the_call, test_pin_flags, test_hangs_and_comes_back,
             test_dies, test_removed_amid_signatures, test_hangs_for_good]
    try:
        serial = rig.token("agents")
        for test in tests:
            if len(sys.argv) == 1 or test.__name__ in sys.argv[1:]:
                test(rig, serial)
    except BaseException:
        if os.path.exists(rig.log_path):
            print(open(rig.log_path).read()[-4000:])
        raise
    finally:
        if rig.proc and rig.proc.poll() is None:
            rig.proc.kill()
        shutil.rmtree(rig.dir, ignore_errors=True)


main()
