/* The parsers: what comes of a text, in order, as at|name|value@line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/scan/pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char seen[8192];

static void add(const char *text, size_t len)
{
    size_t used = strlen(seen);
    snprintf(seen + used, sizeof seen - used, "%.*s", (int)len, len ? text : "");
}

static void add_line(uint32_t line)
{
    char text[16];
    snprintf(text, sizeof text, "@%u\n", line);
    add(text, strlen(text));
}

static void add_slice(struct att_slice slice)
{
    add("|", 1);
    add((const char *)slice.ptr, slice.len);
}

static void pair(void *user, const struct scan_pair *p)
{
    (void)user;
    add(p->at, strlen(p->at));
    add_slice(p->name);
    add_slice(p->value);
    add_line(p->line);
}

static void reset(void *user, const char *at)
{
    (void)user;
    add("reset ", 6);
    add(at, strlen(at));
    add("\n", 1);
}

static void file(void *user, const char *at, struct att_slice name, struct att_slice path,
                 uint32_t line)
{
    (void)user;
    add("file ", 5);
    add(at, strlen(at));
    add_slice(name);
    add_slice(path);
    add_line(line);
}

static void bad(void *user, uint32_t line)
{
    (void)user;
    add("bad ", 4);
    add_line(line);
}

static const struct scan_sink sink = {NULL, pair, reset, file, bad};

/* In memory of exactly its size: a read behind it is seen. */
static void parse(enum scan_format format, const char *bytes, size_t len, const char *expected)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    seen[0] = 0;
    scan_parse(format, (struct scan_text){copy, len}, &sink);
    free(copy);
    assert_string_equal(seen, expected);
}

static void text(enum scan_format format, const char *bytes, const char *expected)
{
    parse(format, bytes, strlen(bytes), expected);
}

/* systemd.exec(5), EnvironmentFile= */
static void test_envfile(void **state)
{
    (void)state;
    text(SCAN_ENV, "A=1\nB = two words \n", "|A|1@1\n|B|two words@2\n");
    text(SCAN_ENV, "A='x y'\nB=\"p \\\" q\"\nC=\"a\"'b'\n", "|A|x y@1\n|B|p \" q@2\n|C|ab@3\n");
    text(SCAN_ENV, "A=one\\\ntwo\nB=\"l1\nl2\"\nC=3\n", "|A|onetwo@1\n|B|l1\nl2@3\n|C|3@5\n");
    text(SCAN_ENV, "A='no \\n escape'\nB=a\\ b\n", "|A|no \\n escape@1\n|B|a b@2\n");
    text(SCAN_ENV, "# A=1\n; B=2\nC=3", "comment||# A=1@1\ncomment||; B=2@2\n|C|3@3\n");
    text(SCAN_ENV, "export A=1\n  export  B=2\n", "|A|1@1\n|B|2@2\n");
    text(SCAN_ENV, "A=1 # why\nB=x#y\n", "|A|1 @1\ncomment||# why@1\n|B|x#y@2\n");
    text(SCAN_ENV, "A=\nB\n=C\n", "|A|@1\n||B@2\n||C@3\n");
    text(SCAN_ENV,
         "\xef\xbb\xbf"
         "A=1\r\nB=2\r\n",
         "|A|1@1\n|B|2@2\n");
    /* a quote that nothing closes takes no more than it has */
    text(SCAN_ENV, "A=don't\nB=2\n", "|A|don't@1\n|B|2@2\n");
    text(SCAN_ENV, "A=\"open\nB=2\n", "|A|\"open@1\n|B|2@2\n");
    text(SCAN_ENV, "A=\\", "|A|\\@1\n");
    text(SCAN_ENV, "", "");
    text(SCAN_ENV, "-----BEGIN X-----\nabc\n", "||-----BEGIN X-----\nabc\n@1\n||abc@2\n");
    parse(SCAN_ENV, "A=1\0 2\nB=3\n", 11, "|A|1@1\n|B|3@2\n");
}

/* crontab(5), ~/.bashrc: a command whose URL has parameters is no assignment. */
static void test_commands(void **state)
{
    (void)state;
    text(SCAN_ENV, "1 * * * * root curl https://a:b@c/?d=e f\nG=h\n",
         "||1 * * * * root curl https://a:b@c/?d=e f@1\n|G|h@2\n");
    text(SCAN_ENV, "curl https://a:b@c/?d='e\nf'\n",
         "||curl https://a:b@c/?d='e@1\n|curl https://a:b@c/?d|e\nf@1\n");
}

static void test_unit(void **state)
{
    (void)state;
    text(SCAN_UNIT, "[Service]\nEnvironment=A=1 \"B=two words\" 'C=\\x41'\n",
         "Environment|A|1@2\nEnvironment|B|two words@2\nEnvironment|C|A@2\n");
    text(SCAN_UNIT, "Environment=A=1 \\\n# not this\n; nor this\n  B=2\n",
         "comment||# not this@2\ncomment||; nor this@3\nEnvironment|A|1@1\nEnvironment|B|2@1\n");
    text(SCAN_UNIT, "Environment=\nEnvironmentFile=\n",
         "reset Environment\nreset EnvironmentFile\n");
    text(SCAN_UNIT, "EnvironmentFile=-/etc/%p.env\nEnvironmentFile = /a b\n",
         "file EnvironmentFile||-/etc/%p.env@1\nfile EnvironmentFile||/a b@2\n");
    text(SCAN_UNIT, "LoadCredential=id:/etc/x\nLoadCredential=only\n",
         "file LoadCredential|id|/etc/x@1\nfile LoadCredential|only|only@2\n");
    text(SCAN_UNIT, "SetCredential=id:a\\x20b\nSetCredential=none\n",
         "SetCredential|id|a b@1\nbad @2\nSetCredential||none@2\n");
    text(SCAN_UNIT, "SetCredentialEncrypted=id:abc\nLoadCredentialEncrypted=id:/x\n", "");
    text(SCAN_UNIT, "ExecStart=/bin/x --token=T --key K -v A=1 'H: v'\n",
         "ExecStart||/bin/x@1\nExecStart|--token|T@1\nExecStart||--key@1\nExecStart|--key|K@1\n"
         "ExecStart||-v@1\nExecStart|A|1@1\nExecStart|H|v@1\n");
    text(SCAN_UNIT, "ExecStart=/bin/sh -c \"export X=1; run\"\n",
         "ExecStart||/bin/sh@1\nExecStart||-c@1\nExecStart|-c|export X=1; run@1\n"
         "ExecStart||export@1\nExecStart|X|1@1\nExecStart||run@1\n");
    text(SCAN_UNIT, "User=app\n[broken\nno assignment\n",
         "|User|app@1\nbad @2\nbad @3\n||no assignment@3\n");
    text(SCAN_UNIT, "Environment=lonely\n", "bad @1\nEnvironment||lonely@1\n");
    text(SCAN_UNIT, "Environment=A=1\\", "Environment|A|1@1\n");
    text(SCAN_UNIT, "Environment=A=1 \\\n", "Environment|A|1@1\n");
    text(SCAN_UNIT, "Environment=\"A=open", "Environment|A|open@1\n");
    text(SCAN_UNIT, "Environment=A=\\u00e9\\101\\s\\q\\x4\n",
         "Environment|A|\xc3\xa9"
         "A \\q\\x4@1\n");
}

static void test_ini(void **state)
{
    (void)state;
    text(SCAN_INI, "[default]\na_b = c d\n#x\n", "||[default]@1\n|a_b|c d@2\ncomment||#x@3\n");
    text(SCAN_INI, "//r.example/:_authToken=abc\n", "|_authToken|abc@1\n");
    text(SCAN_INI, "a = \"q # q\"\nb = x ; why\n", "|a|q # q@1\n|b|x@2\n");
    text(SCAN_INI, "k: v\nalone\n", "|k|v@1\n||alone@2\n");
    /* pip.conf's second lines: a URL is no name */
    text(SCAN_INI, "u =\n https://a:b@c/d\n https://a:b@c/?d=e\n",
         "|u|@1\n||https://a:b@c/d@2\n||https://a:b@c/?d=e@3\n");
}

static void test_yaml(void **state)
{
    (void)state;
    text(SCAN_YAML, "a:\n  - b: 'c'\n    d: e # f\n", "|a|@1\n|b|c@2\n|d|e@3\n");
    text(SCAN_YAML, "environment:\n - A=1\n - \"B=x: y\"\n",
         "|environment|@1\n|A|1@2\n|\"B=x|y\"@3\n");
    text(SCAN_YAML, "url: http://x\nhttp://y\n", "|url|http://x@1\n||http://y@2\n");
    text(SCAN_YAML, "- https://a:b@c/?d=e\n", "||https://a:b@c/?d=e@1\n");
    text(SCAN_YAML, "{\"a\": \"b\"}", "|a|b@1\n"); /* a kube config may be JSON */
}

static void test_json(void **state)
{
    (void)state;
    text(SCAN_JSON, "{\"a\": {\"b\": [\"c\", \"d\"],\n \"e\": 5, \"f\": true}}",
         "|b|c@1\n|b|d@1\n|e|5@2\n|f|true@2\n");
    text(SCAN_JSON, "{\"k\": \"l\\n\\u0041\\\"\\/\"}", "|k|l\nA\"/@1\n");
    text(SCAN_JSON, "{\"a\": \"b\", // why\n # x\n}\n{\"c\": \"d\"}", "|a|b@1\n|c|d@4\n");
    /* what is broken is told by its line and looked at for shapes */
    text(SCAN_JSON, "{\"a\": \"b\",\n\"c\" \"d\"}", "|a|b@1\nbad @2\n||\"d\"}@2\n");
    text(SCAN_JSON, "{\"a\": \"open\n", "bad @2\n||open@2\n");
    text(SCAN_JSON, "{\"a\": \"x\\", "bad @1\n||x\\@1\n");
    text(SCAN_JSON, "[", "bad @1\n");
    char deep[256];
    memset(deep, '[', sizeof deep - 1);
    deep[255] = 0;
    uint8_t copy[255];
    memcpy(copy, deep, sizeof copy);
    seen[0] = 0;
    scan_json((struct scan_text){copy, sizeof copy}, &sink);
    assert_non_null(strstr(seen, "bad"));
}

static void test_others(void **state)
{
    (void)state;
    text(SCAN_NETRC, "machine a login b\n  password c\nmachine d password \"e f\"\n",
         "|password|c@2\n|password|e f@3\n");
    text(SCAN_NETRC, "macdef m\npassword no\n\nmachine a password yes\n", "|password|yes@4\n");
    text(SCAN_NETRC, "machine a password", "");
    text(SCAN_PGPASS, "# x\nh:5432:d:u:p\\:w\nbroken\n",
         "comment||# x@1\n|password|p\\:w@2\nbad @3\n||broken@3\n");
    text(SCAN_LINES, "a\n\n b \n", "||a@1\n||b@3\n");
    text(SCAN_WHOLE, "abc\n", "||abc\n@0\n");
}

static void test_history(void **state)
{
    (void)state;
    text(SCAN_HISTORY, "ls -l\nexport A=\"x y\"\n",
         "history||ls@1\nhistory||-l@1\nhistory||export@2\nhistory|A|x y@2\n");
    text(SCAN_HISTORY, ": 1700000000:0;A=1 cmd\n: not;one\n",
         "history|A|1@1\nhistory||cmd@1\nhistory||:@2\nhistory||not;one@2\n");
    text(SCAN_HISTORY, "- cmd: curl --key k\n  when: 1700000000\n",
         "history||curl@1\nhistory||--key@1\nhistory|--key|k@1\n"
         "history||when:@2\nhistory||1700000000@2\n");
    text(SCAN_HISTORY, "#1700000000\na\n", "history||#1700000000@1\nhistory||a@2\n");
    /* a quote that nothing closes ends with its line */
    text(SCAN_HISTORY, "echo 'a\nB=2", "history||echo@1\nhistory||a@1\nhistory|B|2@2\n");
    text(SCAN_HISTORY, "sh -c 'X=1 true'\n",
         "history||sh@1\nhistory||-c@1\nhistory|X|1 true@1\nhistory|X|1@1\nhistory||true@1\n");
    text(SCAN_HISTORY, "\n\n", "");
    text(SCAN_HISTORY, "", "");
}

static void test_process(void **state)
{
    (void)state;
    uint8_t environ[] = "A=1\0B=x=y\0loose\0=z";
    seen[0] = 0;
    scan_environ((struct scan_text){environ, sizeof environ}, &sink);
    assert_string_equal(seen, "|A|1@0\n|B|x=y@0\n||loose@0\n||z@0\n");
    uint8_t cmdline[] = "prog\0--key\0K\0--a=b";
    seen[0] = 0;
    scan_cmdline((struct scan_text){cmdline, sizeof cmdline}, &sink);
    assert_string_equal(seen, "argument||prog@0\nargument||--key@0\nargument|--key|K@0\n"
                              "argument|--a|b@0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_envfile), cmocka_unit_test(test_commands),
        cmocka_unit_test(test_unit),    cmocka_unit_test(test_ini),
        cmocka_unit_test(test_yaml),    cmocka_unit_test(test_json),
        cmocka_unit_test(test_others),  cmocka_unit_test(test_process),
        cmocka_unit_test(test_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
