#include "vectors.h"

#include "tpm/parse/name.h"

static void name_of(const char *file, struct parse_name *ret)
{
    att_autobuf area = {0};
    read_vector(file, &area);
    assert_ok(parse_name_of_area(att_buf_slice(&area), ret, err));
}

static void assert_name_is(const struct parse_name *name, const char *file)
{
    att_autobuf want = {0};
    read_vector(file, &want);
    assert_true(att_slice_eq(parse_name_slice(name), att_buf_slice(&want)));
}

static void test_bytes_that_are_no_name(void **state)
{
    (void)state;
    struct parse_name name;
    assert_refused(parse_name_parse(ATT_SLICE_LIT(""), &name, err), ATT_E_PARSE, "", "hash");
    assert_refused(parse_name_parse(ATT_SLICE_LIT("\x40\0\0\1"), &name, err), ATT_E_PARSE, "",
                   "hash"); /* a handle: the Name of a hierarchy, never of an object */
    uint8_t bytes[35] = {0, 0x0B};
    assert_refused(parse_name_parse(ATT_SLICE(bytes, 33), &name, err), ATT_E_PARSE, "",
                   "31 digest");
    assert_refused(parse_name_parse(ATT_SLICE(bytes, 35), &name, err), ATT_E_PARSE, "",
                   "33 digest");
    assert_ok(parse_name_parse(ATT_SLICE(bytes, 34), &name, err));
}

static void test_no_name_of_a_broken_area(void **state)
{
    (void)state;
    att_autobuf area = {0};
    read_vector("ak.area", &area);
    att_buf_u8(&area, 0);
    struct parse_name name;
    assert_refused(parse_name_of_area(att_buf_slice(&area), &name, err), ATT_E_PARSE, "",
                   "1 bytes too many");
}

static void test_chains_out_of_range(void **state)
{
    (void)state;
    struct parse_name chain[9], qn;
    name_of("srk.area", &chain[0]);
    for (size_t i = 1; i < 9; i++) {
        chain[i] = chain[0];
    }
    assert_refused(parse_name_qualified(PARSE_RH_OWNER, chain, 0, &qn, err), ATT_E_INVAL, "",
                   "0 objects");
    assert_refused(parse_name_qualified(PARSE_RH_OWNER, chain, 9, &qn, err), ATT_E_INVAL, "",
                   "9 objects");
    chain[1].len--;
    assert_refused(parse_name_qualified(PARSE_RH_OWNER, chain, 2, &qn, err), ATT_E_PARSE, "",
                   "31 digest bytes");
}

static void test_a_foreign_parent_shows(void **state)
{
    (void)state;
    struct parse_name chain[3], qn;
    att_autobuf want = {0};
    read_vector("agent.qname", &want);
    name_of("srk.area", &chain[0]);
    name_of("parent.area", &chain[1]);
    name_of("agent.area", &chain[2]);
    /* another hierarchy, a missing step, a swapped step */
    assert_ok(parse_name_qualified(PARSE_RH_ENDORSEMENT, chain, 3, &qn, err));
    assert_false(att_slice_eq(parse_name_slice(&qn), att_buf_slice(&want)));
    struct parse_name without[] = {chain[0], chain[2]};
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, without, 2, &qn, err));
    assert_false(att_slice_eq(parse_name_slice(&qn), att_buf_slice(&want)));
    struct parse_name swapped[] = {chain[1], chain[0], chain[2]};
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, swapped, 3, &qn, err));
    assert_false(att_slice_eq(parse_name_slice(&qn), att_buf_slice(&want)));
}

static void test_names_are_the_tpms(void **state)
{
    (void)state;
    struct parse_name name;
    name_of("ak.area", &name);
    assert_name_is(&name, "ak.name");
    name_of("agent.area", &name);
    assert_name_is(&name, "agent.name");
}

static void test_qualified_names_are_the_tpms(void **state)
{
    (void)state;
    struct parse_name ak, chain[3], qn;
    name_of("ak.area", &ak);
    assert_ok(parse_name_qualified(PARSE_RH_ENDORSEMENT, &ak, 1, &qn, err));
    assert_name_is(&qn, "ak.qname");
    name_of("srk.area", &chain[0]);
    name_of("parent.area", &chain[1]);
    name_of("agent.area", &chain[2]);
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, chain, 3, &qn, err));
    assert_name_is(&qn, "agent.qname");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_that_are_no_name),
        cmocka_unit_test(test_no_name_of_a_broken_area),
        cmocka_unit_test(test_chains_out_of_range),
        cmocka_unit_test(test_a_foreign_parent_shows),
        cmocka_unit_test(test_names_are_the_tpms),
        cmocka_unit_test(test_qualified_names_are_the_tpms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
