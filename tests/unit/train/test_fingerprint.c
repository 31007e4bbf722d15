/* What decides the bits beside the options: sorted lines, of which every one that differs refuses a
 * checkpoint, with both values and what to set. */
#include "base/exits.h"
#include "train/fingerprint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SPEC "lr=0.001\nmodel=toy\n"
#define HERE "compiler=12\nisa=avx512\nlibc=2.36\nonednn=2.6.0\nprogram-sources=a1\n"

static void lines_are_sorted_and_end(void **state)
{
    const struct device_options options = {"native"};
    const struct device_ops *ops = device_cpu_ops();
    char text[CKPT_FINGERPRINT_BYTES], last[CKPT_FINGERPRINT_BYTES] = "", *line, *rest;
    struct device_error error;
    struct device *device;
    unsigned lines = 0;

    (void)state;
    assert_int_equal(ops->open(&options, &device, &error), DEVICE_OK);
    fingerprint_write(ops, device, text);
    assert_non_null(strstr(text, "program-flags=-O2 -ffp-contract=off -fno-fast-math\n"));
    assert_non_null(strstr(text, fingerprint_sources()));
    assert_int_equal(strlen(fingerprint_sources()), 16);
    assert_true(text[strlen(text) - 1] == '\n');
    for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (strcmp(last, line) >= 0)
            fail_msg("'%s' stands before '%s'", last, line);
        (void)snprintf(last, sizeof last, "%s", line);
        lines++;
    }
    assert_int_equal(lines, 7);
    ops->close(device);
}

static int check(const char *spec, const char *there, char *note, struct error *error)
{
    struct ckpt_found found;
    int status;

    memset(&found, 0, sizeof found);
    (void)snprintf(found.path, sizeof found.path, "/ckpt/step-00000004");
    (void)snprintf(found.meta.spec, sizeof found.meta.spec, "%s", spec);
    (void)snprintf(found.meta.fingerprint, sizeof found.meta.fingerprint, "%s", there);
    error->text[0] = '\0';
    status = fingerprint_check(&found, SPEC, HERE, note, 300, error);
    if (status == 0)
        assert_string_equal(error->text, "");
    return status;
}

static void refused(const char *spec, const char *there, const char *words, const char *set)
{
    struct error error;
    char note[300];

    assert_int_equal(check(spec, there, note, &error), EXIT_REFUSED);
    if (strstr(error.text, words) == NULL || strstr(error.text, set) == NULL ||
        strstr(error.text, "/ckpt/step-00000004") == NULL || strstr(error.text, "--ckpt") == NULL)
        fail_msg("'%s' was said, expected '%s' and '%s'", error.text, words, set);
}

static void any_line_that_differs_is_refused(void **state)
{
    static const char rest[] = "libc=2.36\nonednn=2.6.0\nprogram-sources=a1\n";
    char there[200];

    (void)state;
    refused("lr=0.5\nmodel=toy\n", HERE, "lr=0.5 there, lr=0.001 here", "the options of that run");
    (void)snprintf(there, sizeof there, "compiler=12\nisa=avx2\n%s", rest);
    refused(SPEC, there, "isa=avx2 there, isa=avx512 here", "use --isa avx2, or");
    (void)snprintf(there, sizeof there, "compiler=11\nisa=avx512\n%s", rest);
    refused(SPEC, there, "compiler=11 there, compiler=12 here", "the program and the libraries");
    refused(SPEC, "compiler=12\nisa=avx512\nlibc=2.35\nonednn=2.6.0\nprogram-sources=a1\n",
            "libc=2.35 there, libc=2.36 here", "libraries");
    refused(SPEC, "compiler=12\nisa=avx512\nlibc=2.36\nonednn=2.6.1\nprogram-sources=a1\n",
            "onednn=2.6.1 there, onednn=2.6.0 here", "libraries");
    refused(SPEC, "compiler=12\nisa=avx512\nlibc=2.36\nonednn=2.6.0\nprogram-sources=b2\n",
            "program-sources=b2 there, program-sources=a1 here", "program");
    refused(SPEC, "compiler=12\nisa=avx512\nlibc=2.36\nonednn=2.6.0\n",
            "nothing more there, program-sources=a1 here", "program");
}

static void the_same_is_taken_and_none_is_told(void **state)
{
    struct error error;
    char note[300];

    (void)state;
    assert_int_equal(check(SPEC, HERE, note, &error), 0);
    assert_string_equal(note, "");
    assert_int_equal(check(SPEC, "", note, &error), 0);
    assert_non_null(strstr(note, "/ckpt/step-00000004 does not say which kernels made it"));
    refused("lr=0.5\nmodel=toy\n", "", "lr=0.5 there", "the options of that run");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_sorted_and_end),
        cmocka_unit_test(any_line_that_differs_is_refused),
        cmocka_unit_test(the_same_is_taken_and_none_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
