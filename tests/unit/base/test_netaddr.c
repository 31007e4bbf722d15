/* Addresses: what is one, which are loopback, and back to text. No name is resolved but
 * localhost. */
#include "base/netaddr.h"

#include "base/exits.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void round_trip(const char *text, const char *expected, bool loopback)
{
    struct sockaddr_storage address;
    struct error error = {0, ""};
    char back[NETADDR_TEXT_BYTES];

    if (netaddr_parse(text, "--listen", &address, &error) != 0)
        fail_msg("%s", error.text);
    netaddr_text(&address, back, sizeof back);
    assert_string_equal(back, expected);
    assert_true(netaddr_is_form(text));
    if (netaddr_is_loopback(&address) != loopback)
        fail_msg("%s: loopback is %d", text, !loopback);
}

static void addresses_are_read_and_told(void **state)
{
    (void)state;
    round_trip("127.0.0.1:7070", "127.0.0.1:7070", true);
    round_trip("127.255.3.4:0", "127.255.3.4:0", true);
    round_trip("128.0.0.1:1", "128.0.0.1:1", false);
    round_trip("0.0.0.0:65535", "0.0.0.0:65535", false);
    round_trip("10.0.0.127:80", "10.0.0.127:80", false);
    round_trip("[::1]:7070", "[::1]:7070", true);
    round_trip("[::ffff:127.0.0.1]:7", "[::ffff:127.0.0.1]:7", true);
    round_trip("[::ffff:10.0.0.1]:7", "[::ffff:10.0.0.1]:7", false);
    round_trip("[fe80::1]:9", "[fe80::1]:9", false);
    round_trip("[0:0:0:0:0:0:0:0]:9", "[::]:9", false);
}

static void no_host_means_every_address(void **state)
{
    static const char *const every[] = {":70", "*:70"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sockaddr_storage address;
        struct error error;
        char text[NETADDR_TEXT_BYTES];

        assert_int_equal(netaddr_parse(every[i], "--listen", &address, &error), 0);
        netaddr_text(&address, text, sizeof text);
        assert_true(strcmp(text, "0.0.0.0:70") == 0 || strcmp(text, "[::]:70") == 0);
        assert_false(netaddr_is_loopback(&address));
    }
}

static void localhost_is_loopback(void **state)
{
    struct sockaddr_storage address;
    struct error error;

    (void)state;
    assert_int_equal(netaddr_parse("localhost:80", "--http", &address, &error), 0);
    assert_true(netaddr_is_loopback(&address));
}

static void wrong_forms_are_named(void **state)
{
    static const char *const wrong[] = {"",
                                        "host",
                                        "host:",
                                        ":",
                                        "1.2.3.4:65536",
                                        "1.2.3.4:-1",
                                        "1.2.3.4:+1",
                                        "1.2.3.4: 1",
                                        "1.2.3.4:1x",
                                        "::1:80",
                                        "[::1]",
                                        "[::1]80",
                                        "1.2.3.4:00000001",
                                        "1.2.3.4:99999999999999999999"};
    struct sockaddr_storage address;
    struct error error;
    char expected[300];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(netaddr_parse(wrong[i], "--listen", &address, &error), EXIT_USAGE);
        (void)snprintf(expected, sizeof expected, "--listen %s: expected HOST:PORT or [IPV6]:PORT "
                       "with a port from 0 to 65535", wrong[i]);
        assert_string_equal(error.text, expected);
        assert_false(netaddr_is_form(wrong[i]));
    }
}

static void a_host_that_is_none_is_named(void **state)
{
    char text[400];
    struct sockaddr_storage address;
    struct error error;

    (void)state;
    assert_int_equal(netaddr_parse("[1.2.3.4.5]:80", "--http", &address, &error), EXIT_USAGE);
    assert_memory_equal(error.text, "--http [1.2.3.4.5]:80: ", 23);
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 4, ":80", 4);
    assert_int_equal(netaddr_parse(text, "--http", &address, &error), EXIT_USAGE);
}

static void other_families_are_not_loopback(void **state)
{
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    char text[NETADDR_TEXT_BYTES];

    (void)state;
    memset(&((struct sockaddr_in *)&address)->sin_addr, 127, 4);
    assert_false(netaddr_is_loopback(&address));
    netaddr_text(&address, text, sizeof text);
    assert_string_equal(text, "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_told),
        cmocka_unit_test(no_host_means_every_address),
        cmocka_unit_test(localhost_is_loopback),
        cmocka_unit_test(wrong_forms_are_named),
        cmocka_unit_test(a_host_that_is_none_is_named),
        cmocka_unit_test(other_families_are_not_loopback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
