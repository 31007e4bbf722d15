/* Between wire and core nothing is judged; the one thing that is added is the peer's host. */
#include "server/adapt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The data address that the core is told when a worker at `host` says `address`. */
static const char *told(struct adapt_scratch *scratch, const char *host, const char *address)
{
    struct wire_message hello = {.header.type = FRAME_HELLO};
    struct adapt_peer peer = {.host = host};
    struct core_message message = {0};

    hello.hello.data_address = address;
    assert_true(adapt_to_core(&hello, &peer, scratch, &message));
    return message.hello.data_address;
}

static void a_port_alone_gets_the_peers_host(void **state)
{
    struct adapt_scratch *scratch = calloc(1, sizeof *scratch);
    char wide[ADAPT_ADDRESS_BYTES];

    (void)state;
    assert_non_null(scratch);
    assert_string_equal(told(scratch, "10.0.0.5", ":4711"), "10.0.0.5:4711");
    assert_string_equal(told(scratch, "fd00::5", ":4711"), "[fd00::5]:4711");
    assert_string_equal(told(scratch, "10.0.0.5", "node7:4711"), "node7:4711");
    memset(wide, '1', sizeof wide - 1);
    wide[0] = ':';
    wide[sizeof wide - 1] = '\0';
    assert_string_equal(told(scratch, "10.0.0.5", wide), wide);
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_alone_gets_the_peers_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
