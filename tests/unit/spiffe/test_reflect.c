/* What the build's own descriptors say: every method that is served is in them; what is not
 * declared is not found, by whatever looks like it; descriptors that are cut off. */
#include "attestd/spiffe/reflect.h"
#include "attestd/spiffe/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

extern const uint8_t spiffe_proto_descriptors[];
extern const size_t spiffe_proto_descriptors_len;

static struct att_slice all(void)
{
    return ATT_SLICE(spiffe_proto_descriptors, spiffe_proto_descriptors_len);
}

static struct att_slice declaring(const char *symbol)
{
    return reflect_file_declaring(all(), att_slice_str(symbol));
}

static struct att_slice named(const char *name)
{
    return reflect_file_named(all(), att_slice_str(name));
}

static void test_not_declared(void **state)
{
    static const char *const symbols[] = {
        "",
        ".",
        "attestd",
        "attestd.v1",
        "attestd.v1.",
        "attestd.v1.Sign",
        "attestd.v1.Signer.",
        "attestd.v1.Signer.Sig",
        "attestd.v1.Signer.Sign.",
        "attestd.v1.Signer.Sign.x",
        "attestd.v1.Signers",
        ".attestd.v1.Signer",
        "Signer",
        "SpiffeWorkloadAPI.FetchWITSVID",
        "grpc.health.v1.ServingStatus",
        "grpc.health.v1.HealthCheckResponse.SERVING",
        "envoy.service.secret.v3.SecretDiscoveryService.DeltaSecrets"};
    (void)state;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        assert_int_equal(declaring(symbols[i]).len, 0);
    }
    assert_int_equal(named("").len, 0);
    assert_int_equal(named("signer").len, 0);
    assert_int_equal(named("signer.proto.").len, 0);
}

static void test_declared(void **state)
{
    static const struct {
        const char *symbol, *file;
    } cases[] = {
        {"attestd.v1.Signer", "signer.proto"},
        {"attestd.v1.Signer.Watch", "signer.proto"},
        {"attestd.v1.SignRequest", "signer.proto"},
        {"SpiffeWorkloadAPI", "workload.proto"},
        {"SpiffeWorkloadAPI.FetchX509SVID", "workload.proto"},
        {"X509SVID", "workload.proto"},
        {"X509BundlesResponse.BundlesEntry", "workload.proto"},
        {"grpc.health.v1.HealthCheckResponse.ServingStatus", "health.proto"},
        {"envoy.service.secret.v3.Secret", "secret.proto"},
        {"grpc.reflection.v1.ServerReflection", "reflection.proto"},
        {"grpc.reflection.v1alpha.ServerReflection", "reflection_v1alpha.proto"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct att_slice file = declaring(cases[i].symbol);
        assert_true(file.len > 0);
        assert_true(att_slice_eq(file, named(cases[i].file)));
    }
}

static void test_every_method_is_declared(void **state)
{
    (void)state;
    for (const struct grpc_method *method = spiffed_methods; method->path; method++) {
        char symbol[160];
        snprintf(symbol, sizeof symbol, "%s", method->path + 1);
        *strchr(symbol, '/') = '.';
        assert_true(declaring(symbol).len > 0);
    }
}

/* Whatever is left of it, nothing is read behind its end, and nothing that is cut off is given. */
static void test_cut_off(void **state)
{
    uint8_t copy[65536];
    (void)state;
    assert_true(spiffe_proto_descriptors_len < sizeof copy);
    for (size_t len = 0; len < spiffe_proto_descriptors_len; len++) {
        memcpy(copy + sizeof copy - len, spiffe_proto_descriptors, len);
        struct att_slice set = ATT_SLICE(copy + sizeof copy - len, len);
        struct att_slice file = reflect_file_declaring(set, ATT_SLICE_LIT("X509SVID"));
        assert_true(!file.len || att_slice_eq(file, named("workload.proto")));
        file = reflect_file_named(set, ATT_SLICE_LIT("signer.proto"));
        assert_true(!file.len || att_slice_eq(file, named("signer.proto")));
    }
}

static void test_not_protobuf(void **state)
{
    const struct att_slice bad[] = {
        ATT_SLICE_LIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* a length without end */
        ATT_SLICE_LIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ATT_SLICE_LIT("\x0b\x0c"), /* groups */
        ATT_SLICE_LIT("\x0d\x01"),
        ATT_SLICE_LIT("\x09\x01"),
        ATT_SLICE_LIT("\x08\x80"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(reflect_file_declaring(bad[i], ATT_SLICE_LIT("a")).len, 0);
        assert_int_equal(reflect_file_named(bad[i], ATT_SLICE_LIT("a")).len, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_declared),
        cmocka_unit_test(test_declared),
        cmocka_unit_test(test_every_method_is_declared),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_not_protobuf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
